"""The answering side of Modbus: what a request asks, and the frames that answer it.

No state and no decisions: which registers a device has is the business of who uses this.
"""

from collections.abc import Sequence
from struct import Struct, pack

from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.framing import Delimiter
from protocols.modbus.adu import build_rtu, build_tcp, parse_rtu, parse_tcp
from protocols.modbus.delimiter import (
    ANY_TCP,
    COUNT_MAX,
    READ_FUNCTIONS,
    REFUSED,
    REQUESTS_RTU,
)
from protocols.modbus.master import ReadRequest

_READ = Struct(">BHH")


def request_delimiter(*, tcp: bool) -> Delimiter:
    """Finds read requests among whatever else is on the line (other devices' replies too)."""
    return ANY_TCP if tcp else REQUESTS_RTU


def parse_request(raw: bytes, *, tcp: bool) -> ReadRequest | None:
    """The read request (function 3 or 4) that `raw` is; None for anything else.

    Count and address are as they came: a device refuses impossible ones with an exception, which
    `refused_by_protocol` names.
    """
    transaction = None
    try:
        if tcp:
            frame = parse_tcp(raw)
            unit, pdu, transaction = frame.unit, frame.pdu, frame.transaction
        else:
            line = parse_rtu(raw)
            unit, pdu = line.unit, line.pdu
    except RemoteProtocolError:
        return None
    if len(pdu) != _READ.size or pdu[0] not in READ_FUNCTIONS:
        return None
    function, address, count = _READ.unpack(pdu)
    return ReadRequest(unit, function, address, count, transaction, raw)


def refused_by_protocol(request: ReadRequest) -> int | None:
    """The exception any device owes a request: 3 for a count, 2 for an address that is none."""
    if not 1 <= request.count <= COUNT_MAX:
        return 0x03
    return 0x02 if request.address + request.count > 0x10000 else None


def build_reply(request: ReadRequest, registers: Sequence[int]) -> bytes:
    """The reply with these registers; LocalProtocolError unless they are `count` words."""
    if len(registers) != request.count or not 1 <= request.count <= COUNT_MAX:
        raise LocalProtocolError(
            f"{len(registers)} registers do not answer a request for {request.count}",
            code="bad_count",
        )
    return answer(request, read_reply_pdu(request.function, registers))


def build_exception(request: ReadRequest, code: int) -> bytes:
    """The refusal of a request: its function with the top bit, and the exception's code."""
    if not 0 <= code <= 0xFF:
        raise LocalProtocolError(f"exception {code} is not a byte", code="out_of_range")
    return answer(request, bytes((request.function | REFUSED, code)))


def read_reply_pdu(function: int, registers: Sequence[int]) -> bytes:
    """The PDU of a reply with any number of registers that a frame holds."""
    if not all(0 <= register <= 0xFFFF for register in registers):
        raise LocalProtocolError("a register is 0 to 65535", code="out_of_range")
    if len(registers) > COUNT_MAX:
        raise LocalProtocolError(f"{len(registers)} registers are too many", code="bad_count")
    size = len(registers)
    return pack(f">BB{size}H", function, 2 * size, *registers)


def answer(request: ReadRequest, pdu: bytes) -> bytes:
    """Any PDU as an answer to the request: same unit, same transaction, same framing."""
    if request.transaction is None:
        return build_rtu(request.unit, pdu)
    return build_tcp(request.transaction, request.unit, pdu)
