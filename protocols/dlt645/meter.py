"""The meter's side of DL/T 645, both editions: what a request asks, and the frames that answer it.

No state and no decisions: which meter answers what is the business of who uses this.
"""

from dataclasses import dataclass, field

from protocols.bcd import digits_of
from protocols.dlt645.frame import (
    BROADCAST,
    DATA_BYTES_MAX,
    DATA_BYTES_USUAL_MAX,
    WILDCARD,
    WRITE,
    Frame645,
    address_bytes,
    build,
)
from protocols.dlt645.master import (
    DI_BYTES,
    FOLLOW_UP,
    FOLLOW_UP_1997,
    READ,
    READ_1997,
    READ_ADDRESS,
    SEQUENCE_MAX,
    di_bytes,
)
from protocols.errors import LocalProtocolError

WRITE_1997 = 0x04


@dataclass(frozen=True, slots=True)
class ReadAsked:
    """What a read asks. `sequence`: the part of the reply it goes on with; None in a first read.

    `count` and `moment` (mm hh DD MM YY as ten digits, year first) are of the load profile.
    """

    di: str
    sequence: int | None = None
    count: int | None = None
    moment: str | None = None


@dataclass(frozen=True, slots=True)
class WriteAsked:
    """What a write asks; password (level and three bytes) and operator are shown by nothing."""

    di: str
    password: bytes = field(repr=False)
    operator: bytes = field(repr=False)
    payload: bytes = field(repr=False)  # it can be a password itself


def parse_read(frame: Frame645) -> str | None:
    """The identifier a frame asks to read; None when it is no plain read of the 2007 edition."""
    if frame.control != READ or len(frame.data) != DI_BYTES:
        return None
    return frame.data[::-1].hex().upper()


def parse_any_read(frame: Frame645) -> ReadAsked | None:
    """What a frame asks to read, in either edition, first part or further one; None = no read.

    Load records are asked for with a count, and perhaps a time, behind the identifier; some masters
    repeat both in a follow-up, before the number of the part.
    """
    data = frame.data
    if frame.control in (READ_1997, FOLLOW_UP_1997):
        if len(data) != 2:
            return None
        # The old edition counts no parts: the meter goes on where it stopped.
        return ReadAsked(_di(data), 0 if frame.control == FOLLOW_UP_1997 else None)
    if frame.control == READ and len(data) in (4, 5, 10):
        return _asked(data, None)
    if frame.control == FOLLOW_UP and len(data) in (5, 6, 11):
        return _asked(data[:-1], data[-1])
    return None


def _di(data: bytes) -> str:
    return data[::-1].hex().upper()


def _asked(data: bytes, sequence: int | None) -> ReadAsked:
    count = digits_of(data[4:5]) if len(data) > 4 else None
    moment = digits_of(data[5:]) if len(data) > 5 else None
    return ReadAsked(_di(data[:4]), sequence, int(count) if count else None, moment)


def parse_write(frame: Frame645) -> WriteAsked | None:
    """What a frame asks to write, in either edition; None when it is no write or too short."""
    data = frame.data
    if frame.control == WRITE and len(data) >= 12:
        return WriteAsked(_di(data[:4]), data[4:8], data[8:12], data[12:])
    if frame.control == WRITE_1997 and len(data) >= 6:
        return WriteAsked(_di(data[:2]), data[2:6], b"", data[6:])
    return None


def asks_address(frame: Frame645) -> bool:
    """Whether a frame asks who is there."""
    return frame.control == READ_ADDRESS and not frame.data and frame.address == WILDCARD


def addressed(own: str, asked: str) -> bool:
    """Whether a meter with the address `own` answers a request to `asked`.

    Its own address; or a shortened one: AA from the high end down to where the digits begin, never
    below them. The broadcast address is never answered.
    """
    if asked == own:
        return True
    if asked == BROADCAST or not asked.startswith("AA"):
        return False
    mine, given = address_bytes(own)[::-1], address_bytes(asked)[::-1]
    first = next((at for at, byte in enumerate(given) if byte != 0xAA), len(given))
    return mine[first:] == given[first:]


def build_reply(address: str, di: str, payload: bytes) -> bytes:
    """The reply to a read: 91H (of four digits 81H), the identifier, the payload."""
    return build(address, _read_code(di) | 0x80, di_bytes(di) + payload)


def build_parts(
    address: str, di: str, payload: bytes, *, data_max: int = DATA_BYTES_USUAL_MAX
) -> list[bytes]:
    """The frames of a reply that may be too long for one: B1H or 91H, then B2H .. 92H.

    `data_max`: bytes of DATA at most. The follow-ups carry their number, from 1 on, as their last
    byte; those of the 1997 edition (A1H, A2H, 82H) none. LocalProtocolError when more than 255
    follow-ups would be needed.
    """
    head = di_bytes(di)
    numbered = len(head) == DI_BYTES  # the 1997 edition counts no parts
    room = data_max - len(head)
    if not numbered < room <= DATA_BYTES_MAX:
        raise LocalProtocolError(f"{data_max} bytes hold no part", code="out_of_range")
    pieces = [payload[:room]]
    at = room
    while at < len(payload):
        pieces.append(payload[at : at + room - numbered])
        at += room - numbered
    if len(pieces) > SEQUENCE_MAX + 1:
        raise LocalProtocolError(f"{len(payload)} bytes are too many parts", code="too_long")
    read = _read_code(di)
    frames: list[bytes] = []
    for number, piece in enumerate(pieces):
        more = 0x20 if number < len(pieces) - 1 else 0
        tail = bytes((number,)) if number and numbered else b""
        frames.append(build(address, (read + bool(number)) | 0x80 | more, head + piece + tail))
    return frames


def _read_code(di: str) -> int:
    return READ if len(di) == 8 else READ_1997


def build_refusal(address: str, control: int, error_byte: int) -> bytes:
    """The refusal of a request that came with `control`: its code + C0H and one error byte."""
    if not 0 <= control <= 0x1F:
        raise LocalProtocolError(f"{control:02X} is no request's control code", code="bad_control")
    if not 0 <= error_byte <= 0xFF:
        raise LocalProtocolError(f"error {error_byte} is not a byte", code="out_of_range")
    return build(address, control | 0xC0, bytes((error_byte,)))


def build_done(address: str, control: int, data: bytes = b"") -> bytes:
    """The reply that a command was taken: its code + 80H, as a rule without DATA."""
    if not 0 <= control <= 0x1F:
        raise LocalProtocolError(f"{control:02X} is no request's control code", code="bad_control")
    return build(address, control | 0x80, data)


def build_address_reply(address: str) -> bytes:
    """The reply to "who is there": 93H with the address in the header and as data."""
    return build(address, READ_ADDRESS | 0x80, address_bytes(address))
