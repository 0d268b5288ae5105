"""Setting a meter's clock: to all meters at once (08H), or one meter with a password (14H).

The only frames here that change something in a meter. A broadcast is never answered, and a meter
passes over it in silence when its clock is more than five minutes out, when it was set that day
already, within five minutes of midnight or of a settlement: whether it worked is seen by reading
the clock, not by anything here. A wrong password is counted by the meter, which locks itself.
"""

import datetime as dt
from dataclasses import dataclass, field

from protocols.bcd import bytes_of
from protocols.dlt645.catalogue import lookup
from protocols.dlt645.formats import MeterTime
from protocols.dlt645.frame import (
    BROADCAST,
    CLOCK_ITEMS,
    CLOCK_TO_ALL,
    WRITE,
    Frame645,
    build,
    parse,
)
from protocols.dlt645.items import Value, encode
from protocols.dlt645.refusal import reasons_of
from protocols.errors import BadContent, ErrorReply, LocalProtocolError
from protocols.framing import Match

DATE, TIME, DATE_AND_TIME = "04000101", "04000102", "0400010C"


@dataclass(frozen=True, slots=True)
class Password:
    """A level and its password, six digits; shown by nothing."""

    level: int
    digits: str = field(repr=False)

    def wire(self) -> bytes:
        """PA P0 P1 P2, low byte first; LocalProtocolError for what is no password."""
        if not 0 <= self.level <= 9:
            raise LocalProtocolError("a password has a level from 0 to 9", code="bad_password")
        return bytes((self.level,)) + _secret(self.digits, 6)


def _secret(digits: str, count: int) -> bytes:
    if len(digits) != count or not (digits.isascii() and digits.isdigit()):
        # What was given is not told: it may be a password with a slip of the finger.
        raise LocalProtocolError(f"{count} digits are needed here", code="bad_password")
    return bytes_of(digits)


def clock_to_all(when: MeterTime) -> bytes:
    """The frame that gives all meters on the line the time (08H). None of them answers."""
    return build(BROADCAST, CLOCK_TO_ALL, _moment(when))


def _moment(when: MeterTime) -> bytes:
    """ss mm hh DD MM YY."""
    day, time = when.date, when.time
    if not 2000 <= day.year <= 2099:
        raise LocalProtocolError(f"year {day.year} has no two digits", code="out_of_range")
    pairs = (day.year - 2000, day.month, day.day, time.hour, time.minute, time.second)
    return bytes_of("".join(f"{pair:02d}" for pair in pairs))


@dataclass(frozen=True, slots=True)
class ClockWrite:
    """A write of one clock item to one meter. `raw` holds the password: it is shown by nothing."""

    address: str
    di: str
    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """LocalProtocolError(`not_sendable`) for a frame that sets no clock."""
        frame = parse(self.raw)
        if frame.control != WRITE or frame.data[:4] not in CLOCK_ITEMS:
            raise LocalProtocolError("this frame sets no clock", code="not_sendable")


def write_clock(
    address: str, di: str, value: Value, *, password: Password, operator: str
) -> ClockWrite:
    """The request to set one meter's date, time, or both.

    `di` and `value`: `DATE` a date, `TIME` a time, `DATE_AND_TIME` a MeterTime. `operator`: eight
    digits, which the meter notes. LocalProtocolError for any other identifier, for an address that
    means more than one meter, and for what fits nowhere.
    """
    address, di = address.upper(), di.upper()
    if address == BROADCAST or "AA" in (address[at : at + 2] for at in range(0, 12, 2)):
        raise LocalProtocolError(
            f"{address} can mean several meters: a clock is set in one", code="needs_one_meter"
        )
    item = lookup(di)
    if item is None or len(di) != 8 or bytes.fromhex(di)[::-1] not in CLOCK_ITEMS:
        raise LocalProtocolError(f"{di} is no clock item", code="not_sendable")
    head = bytes.fromhex(di)[::-1] + password.wire() + _secret(operator, 8)
    return ClockWrite(address, di, build(address, WRITE, head + encode(item, value)))


def match_write(request: ClockWrite, raw: bytes) -> Match:
    """What a whole frame is to the write; as `master.match`."""
    frame = parse(raw)
    if not frame.from_meter:
        return Match.ECHO if raw == request.raw else Match.UNSOLICITED
    if frame.address != request.address:
        return Match.FOREIGN
    if frame.control == WRITE | 0xC0:
        return Match.REFUSAL
    is_done = frame.control == WRITE | 0x80 and not frame.data
    return Match.REPLY if is_done else Match.STALE


def check_written(request: ClockWrite, raw: bytes) -> None:
    """Nothing when the meter says that it took the write.

    ErrorReply when it refused: with `password` among the reasons the request is never sent again
    by a machine. BadContent(`not_the_reply`, `bad_refusal`) for other frames.
    """
    kind = match_write(request, raw)
    if kind is Match.REPLY:
        return
    frame = parse(raw)
    if kind is not Match.REFUSAL:
        raise BadContent(
            f"this is no answer to the write of {request.di} to {request.address}: {kind.value}",
            code="not_the_reply",
            raw=raw,
        )
    if len(frame.data) != 1:
        raise BadContent("a refusal has one error byte", code="bad_refusal", raw=raw)
    reasons = reasons_of(frame.data[0])
    raise ErrorReply(
        f"meter {frame.address} refuses to set {request.di}: {', '.join(reasons) or 'no reason'}",
        reasons=reasons,
        error_byte=frame.data[0],
        raw=raw,
        offset=10,
    )


# -- the meter's side


def parse_clock(frame: Frame645) -> MeterTime | None:
    """The time a frame 08H gives; None when it is none, or says a time that does not exist.

    Whether the frame is for this meter, and whether it may be followed now, is not asked here.
    """
    if frame.control != CLOCK_TO_ALL or len(frame.data) != 6:
        return None
    text = frame.data[::-1].hex()
    if not text.isdigit():
        return None
    year, month, day, hour, minute, second = (int(text[at : at + 2]) for at in range(0, 12, 2))
    try:
        return MeterTime(dt.date(2000 + year, month, day), dt.time(hour, minute, second))
    except ValueError:
        return None
