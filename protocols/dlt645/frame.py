"""The frame of DL/T 645 (1997 and 2007): `68 A0..A5 68 C L DATA CS 16`.

`FRAME` declares it and is the single source. `parse`, `build` and `DELIMITER` read and write the
same bytes by hand, because every reading passes here; tests hold them equal to the declaration on
good and bad input.

Rules: the address travels low byte first; every byte of DATA travels with 33H added modulo 256
(address, C and L without); CS is the sum of all bytes from the first 68H to the last of DATA; any
number of FEH may stand before a frame and is not part of it; 68H, 16H and FEH may occur inside.
L is at most 200 in a read's reply by the standard; up to 255 is taken, since the byte says so.

Every frame can be read, but of the master's frames only those of `is_sendable` can be built: what
reads, and what sets a clock. Nothing here can clear a meter or open its relay.
"""

from typing import TYPE_CHECKING

import construct as c

from protocols.checksum import sum8
from protocols.errors import ChecksumError, LocalProtocolError, RemoteProtocolError
from protocols.framing import Rejected

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from protocols.values import dataclass

WAKE_UP = b"\xfe"
START = 0x68
END = 0x16
OVERHEAD_BYTES = 12  # everything but DATA
DATA_BYTES_MAX = 255
DATA_BYTES_USUAL_MAX = 200  # what the standard allows in a reply to a read
WILDCARD = "AAAAAAAAAAAA"
BROADCAST = "999999999999"

# What a master may send: reads of both editions, who is there, and the time to all meters ...
READING = frozenset((0x01, 0x02, 0x11, 0x12, 0x13))
CLOCK_TO_ALL = 0x08
# ... and, with a password, the items that hold the clock: date, time, both.
WRITE = 0x14
CLOCK_ITEMS = frozenset(bytes.fromhex(di)[::-1] for di in ("04000101", "04000102", "0400010C"))

ADD_33H = bytes((value + 0x33) & 0xFF for value in range(256))
SUBTRACT_33H = bytes((value - 0x33) & 0xFF for value in range(256))


def is_sendable(control: int, data: bytes) -> bool:
    """Whether a frame with this control code and DATA may be built at all.

    Everything a meter says (D7 = 1), and of the master's frames what reads or sets a clock.
    """
    return (
        bool(control & 0x80)
        or control in READING
        or control == CLOCK_TO_ALL
        or (control == WRITE and data[:4] in CLOCK_ITEMS)
    )


_ADDRESS = c.ExprAdapter(
    c.Bytes(6),
    decoder=lambda obj, _: bytes(obj)[::-1].hex().upper(),
    encoder=lambda obj, _: bytes.fromhex(obj)[::-1],
)


def _data(length: c.Construct) -> c.Construct:
    """DATA as it is meant; the wire carries each byte plus 33H."""
    return c.ExprAdapter(
        c.Bytes(length),
        decoder=lambda obj, _: bytes(obj).translate(SUBTRACT_33H),
        encoder=lambda obj, _: bytes(obj).translate(ADD_33H),
    )


FRAME = c.Struct(
    "summed"
    / c.RawCopy(
        c.Struct(
            "start" / c.Const(bytes([START])),
            "address" / _ADDRESS,
            "start2" / c.Const(bytes([START])),
            "control" / c.Byte,
            "length" / c.Rebuild(c.Byte, c.len_(c.this.data)),
            "data" / _data(c.this.length),
            c.Check(lambda this: not this["_building"] or is_sendable(this.control, this.data)),
        )
    ),
    "checksum" / c.Default(c.Byte, lambda this: sum8(this.summed.data)),
    "end" / c.Const(bytes([END])),
    c.Terminated,
)


@dataclass(frozen=True, slots=True)
class Frame645:
    """One frame. `data` is DATA as it is meant (33H taken off), `address` twelve hex digits.

    A frame with a wrong check value can be held (`parse(..., check=False)`), to be explained; then
    `checksum_got` differs from `checksum_expected`.
    """

    address: str
    control: int
    data: bytes
    raw: bytes
    checksum_got: int
    checksum_expected: int

    @property
    def checksum_ok(self) -> bool:
        """Whether the check value fits."""
        return self.checksum_got == self.checksum_expected

    @property
    def from_meter(self) -> bool:
        """D7 of the control code: the meter speaks."""
        return bool(self.control & 0x80)

    @property
    def refused(self) -> bool:
        """D6 of the control code: an abnormal reply."""
        return bool(self.control & 0x40)

    @property
    def more_follows(self) -> bool:
        """D5 of the control code: the reply goes on in a further frame."""
        return bool(self.control & 0x20)

    @property
    def function(self) -> int:
        """D4..D0 of the control code."""
        return self.control & 0x1F


def build(address: str, control: int, data: bytes = b"", *, wakeup: int = 0) -> bytes:
    """The bytes of a frame, behind `wakeup` bytes FEH.

    `address`: twelve hex digits, most significant first. LocalProtocolError for anything that
    does not fit the frame, and (`not_sendable`) for what `is_sendable` forbids.
    """
    wire_address = address_bytes(address)
    if not 0 <= control <= 0xFF:
        raise LocalProtocolError(f"control code {control} is not a byte", code="bad_control")
    if control < 0x80 and not is_sendable(control, data):
        raise LocalProtocolError(
            f"control code {control:02X} changes something in a meter: it is read, never sent",
            code="not_sendable",
        )
    if len(data) > DATA_BYTES_MAX:
        raise LocalProtocolError(
            f"{len(data)} data bytes do not fit: the length byte allows {DATA_BYTES_MAX}",
            code="too_long",
        )
    if wakeup < 0:
        raise LocalProtocolError(f"{wakeup} wake-up bytes cannot be sent", code="bad_wakeup")
    summed = b"h" + wire_address + bytes((START, control, len(data))) + data.translate(ADD_33H)
    return WAKE_UP * wakeup + summed + bytes((sum(summed) & 0xFF, END))


def parse(raw: bytes, *, check: bool = True) -> Frame645:
    """Exactly one frame, from 68H to 16H, without wake-up bytes.

    RemoteProtocolError (`code`: truncated, start, end, length) when the bytes are not shaped like
    one; ChecksumError when only the check value is wrong, unless `check` is False.
    """
    size = len(raw)
    # Literals, not names, in what every frame passes: a name costs as much as a comparison.
    if size < 12 or raw[9] + 12 != size or raw[0] != 0x68 or raw[7] != 0x68 or raw[-1] != 0x16:
        raise _shape_error(raw)
    expected = sum(raw[:-2]) & 0xFF
    got = raw[-2]
    if check and got != expected:
        raise ChecksumError(
            f"checksum is {got:02X}, the bytes give {expected:02X}",
            got=got,
            expected=expected,
            raw=raw,
            offset=size - 2,
        )
    # By place: names of arguments cost a quarter of the call.
    return Frame645(
        raw[6:0:-1].hex().upper(), raw[8], raw[10:-2].translate(SUBTRACT_33H), raw, got, expected
    )


def _shape_error(raw: bytes) -> RemoteProtocolError:
    """Why bytes are not shaped like a frame; the first thing that is wrong, in order."""
    size = len(raw)
    for offset, name in ((0, "first"), (7, "second")):
        if size > offset and raw[offset] != START:
            return RemoteProtocolError(
                f"the {name} start byte is {raw[offset]:02X}, not 68",
                code="start",
                raw=raw,
                offset=offset,
            )
    needed = raw[9] + OVERHEAD_BYTES if size > 9 else OVERHEAD_BYTES
    if size < needed:
        return RemoteProtocolError(
            f"the frame is cut off: {size} of {needed} bytes",
            code="truncated",
            raw=raw,
            offset=size,
        )
    if size > needed:
        return RemoteProtocolError(
            f"{size - needed} bytes more than the length byte says",
            code="length",
            raw=raw,
            offset=9,
        )
    return RemoteProtocolError(
        f"the end byte is {raw[-1]:02X}, not 16", code="end", raw=raw, offset=size - 1
    )


def address_bytes(address: str) -> bytes:
    """The six wire bytes (low first) of twelve hex digits; LocalProtocolError otherwise."""
    try:
        raw = bytes.fromhex(address)
    except ValueError:
        raw = b""
    if len(raw) != 6 or len(address) != 12:
        raise LocalProtocolError(
            f"a meter address has twelve digits, not {address!r}", code="bad_address"
        )
    return raw[::-1]


def parse_declared(raw: bytes) -> Frame645:
    """What `FRAME` says of the bytes: as `parse(raw, check=False)`, slower.

    RemoteProtocolError(code="declared") when the declaration does not take them.
    """
    try:
        parsed = FRAME.parse(raw)
    except c.ConstructError as error:
        raise RemoteProtocolError(str(error), code="declared", raw=raw) from error
    body = parsed.summed.value
    return Frame645(
        address=body.address,
        control=body.control,
        data=body.data,
        raw=raw,
        checksum_got=parsed.checksum,
        checksum_expected=sum8(parsed.summed.data),
    )


def build_declared(address: str, control: int, data: bytes = b"") -> bytes:
    """The frame as `FRAME` builds it: as `build`, slower."""
    try:
        body = {"address": address, "control": control, "data": data}
        return bytes(FRAME.build({"summed": {"value": body}}))
    except c.ConstructError as error:
        raise LocalProtocolError(str(error), code="declared") from error


_DIRT = Rejected("dirt")
_CHECKSUM = Rejected("checksum")
_END = Rejected("end")


class Delimiter645:
    """Finds DL/T 645 frames: both start bytes, the length, the check value, the end byte."""

    start = bytes([START])

    def measure(self, buffer: bytes | bytearray, at: int) -> int | Rejected | None:
        """The size of the good frame at `at`; None = more bytes needed; Rejected otherwise."""
        held = len(buffer) - at
        if held < 8:
            return None
        if buffer[at + 7] != 0x68:  # START; see `parse`
            return _DIRT
        if held < 10:
            return None
        size = buffer[at + 9] + 12
        if held < size:
            return None
        check_at = at + size - 2
        if sum(buffer[at:check_at]) & 0xFF != buffer[check_at]:
            return _CHECKSUM
        if buffer[check_at + 1] != 0x16:
            return _END
        return size


DELIMITER = Delimiter645()
