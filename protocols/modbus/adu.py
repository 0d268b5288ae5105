"""The two frames of Modbus.

RTU (also as plain bytes over TCP): unit, PDU, CRC-16 with the low byte first; at most 256 bytes.
TCP: transaction (2), protocol 0 (2), length of what follows (2), unit, PDU; at most 260 bytes; all
high byte first. A PDU is a function code and its data, 253 bytes at most.

`RTU` and `TCP` declare the frames and are the single source. The functions write and read the same
bytes by hand, because every reading passes here; tests hold both equal on good and bad input.
"""

from dataclasses import dataclass
from struct import Struct

import construct as c

from protocols.checksum import crc16
from protocols.errors import BadContent, ChecksumError, LocalProtocolError, RemoteProtocolError

PDU_BYTES_MAX = 253
RTU_OVERHEAD_BYTES = 3  # unit and CRC
RTU_BYTES_MIN = 4
RTU_BYTES_MAX = PDU_BYTES_MAX + RTU_OVERHEAD_BYTES
TCP_HEAD_BYTES = 7  # up to and with the unit
TCP_BYTES_MAX = PDU_BYTES_MAX + TCP_HEAD_BYTES
TCP_LENGTH_AT = 4
TCP_UNIT_AT = 6

_MBAP = Struct(">HHHB")

RTU = c.Struct(
    "summed"
    / c.RawCopy(
        c.Struct(
            "unit" / c.Byte,
            "pdu" / c.Bytes(c.this["_params"]["pdu_bytes"]),
        )
    ),
    "crc" / c.Default(c.Int16ul, lambda this: crc16(this.summed.data)),
    c.Terminated,
)
TCP = c.Struct(
    "transaction" / c.Int16ub,
    "protocol" / c.Const(0, c.Int16ub),
    "length" / c.Rebuild(c.Int16ub, lambda this: len(this.pdu) + 1),
    "unit" / c.Byte,
    "pdu" / c.Bytes(c.this.length - 1),
    c.Terminated,
)


@dataclass(frozen=True, slots=True)
class RtuFrame:
    """One frame of a serial line; with a wrong CRC only when it was parsed with `check=False`."""

    unit: int
    pdu: bytes
    raw: bytes
    crc_got: int
    crc_expected: int

    @property
    def crc_ok(self) -> bool:
        """Whether the check value fits."""
        return self.crc_got == self.crc_expected


@dataclass(frozen=True, slots=True)
class TcpFrame:
    """One frame of Modbus TCP. `length` counts the unit and the PDU."""

    transaction: int
    protocol: int
    length: int
    unit: int
    pdu: bytes
    raw: bytes


def build_rtu(unit: int, pdu: bytes) -> bytes:
    """The bytes of an RTU frame; LocalProtocolError for what does not fit one."""
    _check("unit", unit, 0xFF)
    _check_pdu(pdu)
    summed = bytes((unit,)) + pdu
    return summed + crc16(summed).to_bytes(2, "little")


def build_tcp(transaction: int, unit: int, pdu: bytes) -> bytes:
    """The bytes of a TCP frame; LocalProtocolError for what does not fit one."""
    _check("transaction", transaction, 0xFFFF)
    _check("unit", unit, 0xFF)
    _check_pdu(pdu)
    return _MBAP.pack(transaction, 0, len(pdu) + 1, unit) + pdu


def _check(name: str, value: int, largest: int) -> None:
    if not 0 <= value <= largest:
        raise LocalProtocolError(f"the {name} is 0 to {largest}, not {value}", code="out_of_range")


def _check_pdu(pdu: bytes) -> None:
    if not 1 <= len(pdu) <= PDU_BYTES_MAX:
        raise LocalProtocolError(
            f"a PDU has 1 to {PDU_BYTES_MAX} bytes, not {len(pdu)}", code="out_of_range"
        )


def parse_rtu(raw: bytes, *, check: bool = True) -> RtuFrame:
    """The one frame that `raw` is, from the unit to the CRC.

    ChecksumError for a CRC that does not fit, unless `check` is False; RemoteProtocolError for
    too few (`truncated`) or too many bytes (`length`).
    """
    size = len(raw)
    if not RTU_BYTES_MIN <= size <= RTU_BYTES_MAX:
        code = "truncated" if size < RTU_BYTES_MIN else "length"
        raise RemoteProtocolError(
            f"an RTU frame has {RTU_BYTES_MIN} to {RTU_BYTES_MAX} bytes, not {size}",
            code=code,
            raw=raw,
            offset=min(size, RTU_BYTES_MAX),
        )
    expected = crc16(raw[:-2])
    got = raw[-2] | raw[-1] << 8
    if check and got != expected:
        raise ChecksumError(
            f"the CRC is {got:04X}, the bytes give {expected:04X}",
            got=got,
            expected=expected,
            raw=raw,
            offset=size - 2,
        )
    return RtuFrame(raw[0], raw[1:-2], raw, got, expected)


def parse_tcp(raw: bytes) -> TcpFrame:
    """The one frame that `raw` is.

    BadContent for a protocol other than 0 (`protocol`) or a length no frame has (`length`);
    RemoteProtocolError when it is cut off (`truncated`) or goes on behind its end (`length`).
    """
    size = len(raw)
    if size < TCP_HEAD_BYTES + 1:
        raise RemoteProtocolError(
            f"the frame is cut off: {size} of at least {TCP_HEAD_BYTES + 1} bytes",
            code="truncated",
            raw=raw,
            offset=size,
        )
    transaction, protocol, length, unit = _MBAP.unpack_from(raw)
    if protocol:
        raise BadContent(
            f"the protocol is {protocol:04X}, not 0000", code="protocol", raw=raw, offset=2
        )
    if not 2 <= length <= PDU_BYTES_MAX + 1:
        raise BadContent(
            f"the length is {length}, not 2 to {PDU_BYTES_MAX + 1}",
            code="length",
            raw=raw,
            offset=TCP_LENGTH_AT,
        )
    whole = TCP_UNIT_AT + length
    if size != whole:
        raise RemoteProtocolError(
            f"{size} bytes, the length says {whole}",
            code="truncated" if size < whole else "length",
            raw=raw,
            offset=min(size, whole),
        )
    return TcpFrame(transaction, protocol, length, unit, raw[TCP_HEAD_BYTES:], raw)


def parse_rtu_declared(raw: bytes) -> RtuFrame:
    """What `RTU` says of the bytes: as `parse_rtu(raw, check=False)`, slower.

    RemoteProtocolError(code="declared") when the declaration does not take them.
    """
    pdu_bytes = len(raw) - RTU_OVERHEAD_BYTES
    if not 1 <= pdu_bytes <= PDU_BYTES_MAX:
        raise RemoteProtocolError("no size of an RTU frame", code="declared", raw=raw)
    parsed = RTU.parse(raw, pdu_bytes=pdu_bytes)
    body = parsed.summed.value
    return RtuFrame(body.unit, body.pdu, raw, parsed.crc, crc16(parsed.summed.data))


def parse_tcp_declared(raw: bytes) -> TcpFrame:
    """What `TCP` says of the bytes: as `parse_tcp`, slower; errors as `parse_rtu_declared`."""
    try:
        parsed = TCP.parse(raw)
        if not 1 <= len(parsed.pdu) <= PDU_BYTES_MAX:
            raise c.RangeError("no size of a PDU")
    except c.ConstructError as error:
        raise RemoteProtocolError(str(error), code="declared", raw=raw) from error
    return TcpFrame(
        parsed.transaction, parsed.protocol, parsed.length, parsed.unit, parsed.pdu, raw
    )


def build_rtu_declared(unit: int, pdu: bytes) -> bytes:
    """The frame as `RTU` builds it: as `build_rtu`, slower."""
    try:
        return bytes(
            RTU.build({"summed": {"value": {"unit": unit, "pdu": pdu}}}, pdu_bytes=len(pdu))
        )
    except c.ConstructError as error:
        raise LocalProtocolError(str(error), code="declared") from error


def build_tcp_declared(transaction: int, unit: int, pdu: bytes) -> bytes:
    """The frame as `TCP` builds it: as `build_tcp`, slower."""
    try:
        return bytes(TCP.build({"transaction": transaction, "unit": unit, "pdu": pdu}))
    except c.ConstructError as error:
        raise LocalProtocolError(str(error), code="declared") from error
