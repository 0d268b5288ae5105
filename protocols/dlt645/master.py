"""The master's side of reading: the request, and what a frame that came is to it.

A reply is believed only when everything agrees: direction, address, function, identifier and, of a
follow-up frame, its number. An identifier of eight digits is asked by the rules of the 2007 edition
(11H), one of four by those of the 1997 edition (01H).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from protocols.dlt645.catalogue import DIGITS_1997, DIGITS_2007, lookup
from protocols.dlt645.frame import (
    ADD_33H,
    BROADCAST,
    DATA_BYTES_USUAL_MAX,
    END,
    OVERHEAD_BYTES,
    READING,
    SUBTRACT_33H,
    WILDCARD,
    Frame645,
    address_bytes,
    build,
    parse,
)
from protocols.dlt645.functions import Edition
from protocols.dlt645.refusal import REASONS, REASONS_1997, reasons_of
from protocols.errors import BadContent, ErrorReply, LocalProtocolError
from protocols.framing import Match

READ, FOLLOW_UP, READ_ADDRESS = 0x11, 0x12, 0x13
READ_1997, FOLLOW_UP_1997 = 0x01, 0x02
DI_BYTES = 4
SEQUENCE_MAX = 255
SPONTANEOUS_DI = "04001501"  # the report state word: meters send it unasked
# A meter of the other edition, told by the function of what it says.
_OTHER_EDITION = {
    READ: frozenset((READ_1997 | 0x80, READ_1997 | 0xA0, READ_1997 | 0xC0)),
    READ_1997: frozenset((READ | 0x80, READ | 0xA0, READ | 0xC0)),
}
_ADDRESS_BYTES = 6
_NO_HEAD = b"\0"  # no frame begins like this


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A read of one identifier from one meter. `raw` is the frame without wake-up bytes.

    `di` is empty in the question who is there. `sequence`: the number of the follow-up frame that
    is asked for; None in a first request.
    """

    address: str
    di: str
    raw: bytes
    sequence: int | None = None
    reply_head: bytes = field(init=False, repr=False, compare=False)
    reply_di: bytes = field(init=False, repr=False, compare=False)
    payload_at: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """What every plain reply to a first request for an item has in common with it.

        LocalProtocolError(`not_sendable`) for a frame that reads nothing.
        """
        if len(self.raw) < OVERHEAD_BYTES or self.raw[8] not in READING:
            raise LocalProtocolError("this frame reads nothing", code="not_sendable")
        is_first = self.sequence is None and self.di
        head = self.raw[:8] + bytes((self.raw[8] | 0x80,)) if is_first else _NO_HEAD
        object.__setattr__(self, "reply_head", head)
        payload_at = 10 + len(self.di) // 2
        object.__setattr__(self, "reply_di", self.raw[10:payload_at])
        object.__setattr__(self, "payload_at", payload_at)

    @property
    def control(self) -> int:
        """The control code that was sent."""
        return self.raw[8]

    @property
    def edition(self) -> Edition:
        """The edition whose rules the request follows."""
        return "dlt645-1997" if self.control in (READ_1997, FOLLOW_UP_1997) else "dlt645-2007"

    @property
    def data(self) -> bytes:
        """What was sent as DATA, 33H taken off."""
        return self.raw[10:-2].translate(SUBTRACT_33H)


class Part(NamedTuple):
    """The payload of one reply frame. `more`: the item goes on in a further frame."""

    payload: bytes
    more: bool


def read_request(address: str, di: str) -> ReadRequest:
    """The request to read `di` (eight hex digits, or four of the 1997 edition) from `address`.

    LocalProtocolError when either is not written like that.
    """
    address, di = address.upper(), di.upper()
    control = READ_1997 if len(di) == DIGITS_1997 else READ
    return ReadRequest(address, di, build(address, control, di_bytes(di)))


def follow_up(request: ReadRequest, sequence: int, *, whole: bool = False) -> ReadRequest:
    """The request for the part number `sequence` (1 to 255) of what `request` asked for.

    `whole`: DATA of the first request is repeated before the number, as some meters want it after
    a read of the load profile. The 1997 edition counts no frames: the number is not sent then.
    """
    if not 1 <= sequence <= SEQUENCE_MAX:
        raise LocalProtocolError(f"{sequence} is no number of a frame", code="out_of_range")
    if request.edition == "dlt645-1997":
        raw = build(request.address, FOLLOW_UP_1997, di_bytes(request.di))
    else:
        first = request.data[:-1] if request.sequence is not None else request.data
        head = first if whole else first[:DI_BYTES]
        raw = build(request.address, FOLLOW_UP, head + bytes((sequence,)))
    return ReadRequest(request.address, request.di, raw, sequence)


def address_request(address: str = WILDCARD) -> ReadRequest:
    """The question who is there (13H); to all, where one meter alone is on the line."""
    address = address.upper()
    return ReadRequest(address, "", build(address, READ_ADDRESS))


def di_bytes(di: str) -> bytes:
    """The bytes of an identifier as DATA carries them (low byte first, 33H not added)."""
    try:
        raw = bytes.fromhex(di)
    except ValueError:
        raw = b""
    if len(di) not in (DIGITS_2007, DIGITS_1997) or 2 * len(raw) != len(di):
        raise LocalProtocolError(
            f"a data identifier has eight hex digits (1997 edition: four), not {di!r}",
            code="bad_identifier",
        )
    return raw[::-1]


def match(request: ReadRequest, raw: bytes) -> Match:
    """What a whole frame is to the request.

    REPLY is also a frame that settles the request without a value (`reply_part` says why): one in
    the other edition. A part of a longer reply that was not asked for now is STALE.
    """
    if _is_plain_reply(request, raw):
        return Match.REPLY
    return _match(request, parse(raw))


def _is_plain_reply(request: ReadRequest, raw: bytes) -> bool:
    """The usual case, told from the bytes alone: same start bytes, address and identifier, no more
    follows.

    Says no to everything that has to be looked at more closely; a test holds it to `_match`.
    """
    size = len(raw)
    return (
        size >= request.payload_at + 2
        and raw.startswith(request.reply_head)
        and raw[9] + OVERHEAD_BYTES == size
        and raw.startswith(request.reply_di, 10)
        and raw[-1] == END
        and sum(raw[:-2]) & 0xFF == raw[-2]
    )


def _match(request: ReadRequest, frame: Frame645) -> Match:
    if not frame.from_meter:
        return Match.ECHO if frame.raw == request.raw else Match.UNSOLICITED
    if not may_answer(request, frame.address):
        return Match.FOREIGN
    asked = request.control
    if frame.control == asked | 0xC0:
        return Match.REFUSAL
    if frame.control in _OTHER_EDITION.get(asked, ()):
        return Match.REPLY
    if frame.control in (asked | 0x80, asked | 0xA0) and _says_what_was_asked(request, frame.data):
        return Match.REPLY
    return Match.UNSOLICITED if _is_spontaneous(frame) else Match.STALE


def _says_what_was_asked(request: ReadRequest, data: bytes) -> bool:
    """Whether identifier and number are those of the request."""
    if not request.di:
        return len(data) == _ADDRESS_BYTES
    if data[: len(request.di) // 2].translate(ADD_33H) != request.reply_di:
        return False
    return not _is_numbered(request) or (len(data) > DI_BYTES and data[-1] == request.sequence)


def _is_numbered(request: ReadRequest) -> bool:
    return request.sequence is not None and request.edition == "dlt645-2007"


def _is_spontaneous(frame: Frame645) -> bool:
    is_read = frame.control in (READ | 0x80, READ | 0xA0)
    return is_read and frame.data[:DI_BYTES][::-1].hex() == SPONTANEOUS_DI


def may_answer(request: ReadRequest, address: str) -> bool:
    """Whether a reply from `address` can answer the request.

    Meters of the 1997 edition answer a read sent to all of them, with their own address or with
    what they were asked by; meters of the 2007 edition never do.
    """
    if request.address == BROADCAST and request.edition == "dlt645-1997":
        return True
    return address_matches(request.address, address)


def address_matches(asked: str, got: str) -> bool:
    """Whether a reply from `got` can answer a request to `asked`: AA stands for any two digits.

    A meter may repeat the wildcard in its reply; then who answered stays unknown.
    """
    if asked == got:
        return True
    if "AA" not in asked:
        return False
    wanted, given = address_bytes(asked), address_bytes(got)
    return got == WILDCARD or all(w in (0xAA, g) for w, g in zip(wanted, given, strict=True))


def answered_by(raw: bytes) -> str | None:
    """The address of the meter a reply came from; None when the reply does not tell.

    Asked by a wildcard, some meters repeat it: a reply is bound to its request then, and no meter
    is known from it.
    """
    address = parse(raw).address
    return None if address in (WILDCARD, BROADCAST) or "AA" in _pairs(address) else address


def _pairs(address: str) -> list[str]:
    return [address[at : at + 2] for at in range(0, len(address), 2)]


def reply_payload(request: ReadRequest, raw: bytes) -> bytes:
    """The bytes behind the identifier of a reply that is whole in itself.

    As `reply_part`; BadContent(`follow_up_not_supported`) when it goes on in further frames, so
    that a part is never taken for the whole. `Assembly` puts such a reply together.
    """
    if _is_plain_reply(request, raw):
        return raw[request.payload_at : -2].translate(SUBTRACT_33H)
    part = reply_part(request, raw)
    if part.more:
        raise BadContent(
            f"meter {parse(raw).address} sends {request.di} in several frames: read its members "
            "singly",
            code="follow_up_not_supported",
            raw=raw,
            offset=8,
        )
    return part.payload


def reply_part(request: ReadRequest, raw: bytes) -> Part:
    """What a reply to the request holds, without identifier and number.

    `raw` must be a frame that `match` calls REPLY or REFUSAL. ErrorReply for a refusal; BadContent
    for a reply that gives no value: `edition_1997`, `edition_2007` (the meter speaks the other
    edition), `bad_refusal`, `not_the_reply`.
    """
    if _is_plain_reply(request, raw):
        return Part(raw[request.payload_at : -2].translate(SUBTRACT_33H), more=False)
    frame = parse(raw)
    kind = _match(request, frame)
    if kind is Match.REFUSAL:
        raise _refusal(request, frame)
    if kind is not Match.REPLY:
        raise BadContent(
            f"this is no reply to {request.di} from {request.address}: {kind.value}",
            code="not_the_reply",
            raw=raw,
        )
    if frame.control in _OTHER_EDITION.get(request.control, ()):
        other = "2007" if request.edition == "dlt645-1997" else "1997"
        raise BadContent(
            f"meter {frame.address} speaks the {other} edition of DL/T 645: configure it as such",
            code=f"edition_{other}",
            raw=raw,
            offset=8,
        )
    payload = frame.data[len(request.di) // 2 : -1 if _is_numbered(request) else None]
    return Part(payload, frame.more_follows)


def _refusal(request: ReadRequest, frame: Frame645) -> BadContent | ErrorReply:
    raw = frame.raw
    if len(frame.data) != 1:
        return BadContent(
            f"a refusal has one error byte, not {len(frame.data)}", code="bad_refusal", raw=raw
        )
    names = REASONS_1997 if request.edition == "dlt645-1997" else REASONS
    reasons = reasons_of(frame.data[0], names)
    return ErrorReply(
        f"meter {frame.address} refuses {request.di}: {', '.join(reasons) or 'no reason'}",
        reasons=reasons,
        error_byte=frame.data[0],
        raw=raw,
        offset=10,
    )


def reply_address(request: ReadRequest, raw: bytes) -> str:
    """The address a reply to `address_request` tells: twelve hex digits.

    BadContent(`address_disagrees`) when its header names another meter: two talked at once.
    """
    told = reply_payload(request, raw)[::-1].hex().upper()
    header = answered_by(raw)
    if header not in (None, told):
        raise BadContent(
            f"the meter says it is {told}, in the frame of {header}",
            code="address_disagrees",
            raw=raw,
            offset=10,
        )
    return told


class Assembly:
    """One item, put together from as many frames as the meter takes for it.

    Ask with `request`; give the reply to `take`; as long as that returns None ask with the new
    `request`. A reply that was refused or cannot be read ends the item: a part is no value.
    """

    def __init__(self, request: ReadRequest, *, whole: bool = False) -> None:
        """`whole`: as in `follow_up`."""
        self.request = request
        self._whole = whole
        self._parts: list[bytes] = []

    def take(self, raw: bytes) -> bytes | None:
        """The whole payload, or None when a further frame is to be asked for.

        Raises as `reply_part`; BadContent(`endless`) after 255 frames.
        """
        part = reply_part(self.request, raw)
        self._parts.append(part.payload)
        if not part.more:
            return b"".join(self._parts)
        if len(self._parts) > SEQUENCE_MAX:
            raise BadContent(
                f"{self.request.di} does not end after {SEQUENCE_MAX} frames",
                code="endless",
                raw=raw,
                offset=8,
            )
        self.request = follow_up(self.request, len(self._parts), whole=self._whole)
        return None


def reply_length(di: str, *, tariffs: int | None = None) -> int:
    """Bytes of the expected reply frame, wake-up bytes not counted: for time-outs and plans.

    A block whose length is the meter's choice counts as the longest reply the standard allows;
    with `tariffs` as a block of the total and that many tariffs.
    """
    item = lookup(di)
    if item is None or (item.length is None and item.layout is None):
        return OVERHEAD_BYTES + DATA_BYTES_USUAL_MAX
    payload = item.length
    if payload is None:
        assert item.layout is not None
        if tariffs is None:
            return OVERHEAD_BYTES + DATA_BYTES_USUAL_MAX
        payload = item.layout.round_bytes * min(tariffs + 1, item.layout.rounds_max)
    return OVERHEAD_BYTES + min(len(di) // 2 + payload, DATA_BYTES_USUAL_MAX)
