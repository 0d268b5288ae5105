"""The asking side of Modbus: read requests, and what a frame that came is to one.

A reply is believed only when everything agrees: unit, function, byte count, and the CRC (RTU) or
the transaction (TCP). RTU has no transaction: a late reply to an earlier request of the same unit,
function and count cannot be told from the answer. Whoever owns the line must let it fall silent
after a time-out.
"""

from dataclasses import field
from struct import Struct, unpack_from
from typing import TYPE_CHECKING

from protocols.errors import BadContent, ErrorReply, LocalProtocolError, RemoteProtocolError
from protocols.framing import Delimiter, Match
from protocols.modbus.adu import (
    RTU_OVERHEAD_BYTES,
    TCP_HEAD_BYTES,
    TCP_LENGTH_AT,
    build_rtu,
    build_tcp,
    parse_rtu,
    parse_tcp,
)
from protocols.modbus.delimiter import (
    COUNT_MAX,
    EXCEPTION_BYTES,
    READ_FUNCTIONS,
    REFUSED,
    RtuAnswerDelimiter,
    TcpAnswerDelimiter,
    crc_fits,
)

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from protocols.values import dataclass

EXCEPTIONS = {
    0x01: "illegal_function",
    0x02: "illegal_data_address",
    0x03: "illegal_data_value",
    0x04: "device_failure",
    0x05: "acknowledge",
    0x06: "busy",
    0x08: "memory_parity",
    0x0A: "gateway_path_unavailable",
    0x0B: "gateway_target_silent",
}
UNKNOWN_EXCEPTION = "unknown_exception"

_READ = Struct(">BHH")
_REPLY_HEAD = Struct(">HHHBBB")


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A read of `count` registers from `address` on. `transaction` None: RTU framing."""

    unit: int
    function: int
    address: int
    count: int
    transaction: int | None
    raw: bytes
    reply_head: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """What every good reply to the request begins with."""
        count_bytes = 2 * self.count & 0xFF  # a request that came may ask for too many
        if self.transaction is None:
            head = bytes((self.unit, self.function, count_bytes))
        else:
            head = _REPLY_HEAD.pack(
                self.transaction, 0, count_bytes + 3, self.unit, self.function, count_bytes
            )
        object.__setattr__(self, "reply_head", head)


def read_request(
    unit: int, function: int, address: int, count: int, *, transaction: int | None = None
) -> ReadRequest:
    """The request to read registers; with a `transaction` for Modbus TCP, without one for RTU.

    Functions 3 (holding registers) and 4 (input registers); 1 to 125 registers that end at 65535
    at the latest. LocalProtocolError otherwise. Unit 0 is the broadcast of a serial line, which
    nobody answers; over TCP it means the device itself. 248 to 255 are reserved, but in use.
    """
    units_from = 1 if transaction is None else 0
    if not units_from <= unit <= 0xFF:
        raise LocalProtocolError(f"a unit is {units_from} to 255, not {unit}", code="bad_unit")
    if function not in READ_FUNCTIONS:
        raise LocalProtocolError(
            f"function {function} does not read registers: 3 or 4 does", code="bad_function"
        )
    if not 1 <= count <= COUNT_MAX:
        raise LocalProtocolError(
            f"one request reads 1 to {COUNT_MAX} registers, not {count}", code="bad_count"
        )
    if not 0 <= address <= 0x10000 - count:
        raise LocalProtocolError(
            f"{count} registers from {address} on do not lie within 0 to 65535",
            code="bad_register",
        )
    pdu = _READ.pack(function, address, count)
    raw = build_rtu(unit, pdu) if transaction is None else build_tcp(transaction, unit, pdu)
    return ReadRequest(unit, function, address, count, transaction, raw)


def delimiter_for(request: ReadRequest) -> Delimiter:
    """Finds what may answer the request, and whole frames of others (which `match` judges)."""
    if request.transaction is None:
        return RtuAnswerDelimiter(request.raw, request.reply_head)
    head = request.reply_head
    refused = head[:TCP_LENGTH_AT] + bytes((0, 3, request.unit, request.function | REFUSED))
    return TcpAnswerDelimiter((head, refused))


def match(request: ReadRequest, raw: bytes) -> Match:
    """What a whole frame is to the request.

    ECHO: the request itself. FOREIGN: another unit. STALE: the unit, but another transaction,
    function or (RTU) count: an answer to an earlier request. UNSOLICITED: a read request of
    another master. A frame of the right transaction with a wrong count is a REPLY that
    `reply_registers` refuses: no better one will come. Bytes that are no frame are FOREIGN.
    """
    if _is_plain_reply(request, raw):
        return Match.REPLY
    if raw == request.raw:
        return Match.ECHO
    try:
        unit, pdu, same_transaction = _taken_apart(request, raw)
    except RemoteProtocolError:
        return Match.FOREIGN
    if not same_transaction:
        return Match.STALE
    return _meaning(request, pdu) if unit == request.unit else Match.FOREIGN


def _meaning(request: ReadRequest, pdu: bytes) -> Match:
    """What a PDU of the right unit and transaction is, when it is not the plain reply."""
    function = pdu[0]
    if function == request.function | REFUSED and len(pdu) == 2:
        return Match.REFUSAL
    if function in READ_FUNCTIONS and len(pdu) == _READ.size:
        return Match.UNSOLICITED
    if function == request.function and request.transaction is not None:
        return Match.REPLY
    return Match.STALE


def _taken_apart(request: ReadRequest, raw: bytes) -> tuple[int, bytes, bool]:
    """Unit, PDU, and whether the transaction is that of the request."""
    if request.transaction is None:
        rtu = parse_rtu(raw)
        return rtu.unit, rtu.pdu, True
    tcp = parse_tcp(raw)
    return tcp.unit, tcp.pdu, tcp.transaction == request.transaction


def _is_plain_reply(request: ReadRequest, raw: bytes) -> bool:
    """The usual case, told from the bytes alone; a test holds it to the long way."""
    return (
        len(raw) == reply_length(request)
        and raw.startswith(request.reply_head)
        and (request.transaction is not None or crc_fits(raw, 0, len(raw)))
    )


def reply_registers(request: ReadRequest, raw: bytes) -> tuple[int, ...]:
    """The registers of a reply, as many as were asked for, each 0 to 65535.

    `raw` must be a frame that `match` calls REPLY or REFUSAL. ErrorReply for a refusal, with the
    exception's name and code; BadContent for a reply that gives no registers: `wrong_count`,
    `not_the_reply`.
    """
    if _is_plain_reply(request, raw):
        return unpack_from(f">{request.count}H", raw, len(request.reply_head))
    kind = match(request, raw)
    if kind is Match.REFUSAL:
        at = 2 if request.transaction is None else TCP_HEAD_BYTES + 1
        code = raw[at]
        name = EXCEPTIONS.get(code, UNKNOWN_EXCEPTION)
        raise ErrorReply(
            f"unit {request.unit} refuses {request.count} registers from {request.address} on "
            f"(function {request.function}): exception {code}, {name}",
            reasons=(name,),
            error_byte=code,
            raw=raw,
            offset=at,
        )
    if kind is Match.REPLY:
        at = len(request.reply_head) - 1
        raise BadContent(
            f"unit {request.unit} answers {request.count} registers with "
            f"{len(raw) - at - 1} bytes and the byte count {raw[at] if at < len(raw) else None}",
            code="wrong_count",
            raw=raw,
            offset=min(at, len(raw)),
        )
    raise BadContent(
        f"this is no reply of unit {request.unit} to {request.count} registers from "
        f"{request.address} on: {kind.value}",
        code="not_the_reply",
        raw=raw,
    )


def reply_length(request: ReadRequest) -> int:
    """Bytes of the expected reply frame, for time-outs and plans."""
    head = RTU_OVERHEAD_BYTES if request.transaction is None else TCP_HEAD_BYTES
    return head + 2 + 2 * request.count


__all__ = [
    "EXCEPTIONS",
    "EXCEPTION_BYTES",
    "UNKNOWN_EXCEPTION",
    "ReadRequest",
    "delimiter_for",
    "match",
    "read_request",
    "reply_length",
    "reply_registers",
]
