"""The master's side of reading: the request, and what a frame that came is to it.

A reply is believed only when everything agrees: direction, address, function and identifier.
"""

from dataclasses import dataclass, field

from protocols.dlt645.catalogue import lookup
from protocols.dlt645.frame import (
    DATA_BYTES_USUAL_MAX,
    END,
    OVERHEAD_BYTES,
    SUBTRACT_33H,
    WILDCARD,
    Frame645,
    address_bytes,
    build,
    parse,
)
from protocols.dlt645.refusal import reasons_of
from protocols.errors import BadContent, ErrorReply, LocalProtocolError
from protocols.framing import Match

READ = 0x11
READ_1997 = 0x01
DI_BYTES = 4
SPONTANEOUS_DI = "04001501"  # the report state word: meters send it unasked

_PAYLOAD_AT = 10 + DI_BYTES
_REPLY, _REPLY_MORE, _REFUSED = READ | 0x80, READ | 0xA0, READ | 0xC0
_EDITION_1997 = (READ_1997 | 0x80, READ_1997 | 0xA0, READ_1997 | 0xC0)


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A read of one identifier from one meter. `raw` is the frame without wake-up bytes."""

    address: str
    di: str
    raw: bytes
    reply_head: bytes = field(init=False, repr=False, compare=False)
    reply_di: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """What every plain reply has in common with the request."""
        object.__setattr__(self, "reply_head", self.raw[:8] + bytes((_REPLY,)))
        object.__setattr__(self, "reply_di", self.raw[10:_PAYLOAD_AT])


def read_request(address: str, di: str) -> ReadRequest:
    """The request to read `di` (eight hex digits) from `address` (twelve).

    LocalProtocolError when either is not written like that.
    """
    address, di = address.upper(), di.upper()
    return ReadRequest(address, di, build(address, READ, di_bytes(di)))


def di_bytes(di: str) -> bytes:
    """The four bytes of an identifier as DATA carries them (low byte first, 33H not added)."""
    try:
        raw = bytes.fromhex(di)
    except ValueError:
        raw = b""
    if len(raw) != DI_BYTES or len(di) != 2 * DI_BYTES:
        raise LocalProtocolError(
            f"a data identifier has eight hex digits, not {di!r}", code="bad_identifier"
        )
    return raw[::-1]


def match(request: ReadRequest, raw: bytes) -> Match:
    """What a whole frame is to the request.

    REPLY is also a frame that settles the request without a value (`reply_payload` says why): one
    whose reply goes on in further frames, one in the 1997 edition.
    """
    if _is_plain_reply(request, raw):
        return Match.REPLY
    return _match(request, parse(raw))


def _is_plain_reply(request: ReadRequest, raw: bytes) -> bool:
    """The usual case, told from the bytes alone: same start bytes, address and identifier, 91H.

    Says no to everything that has to be looked at more closely; a test holds it to `_match`.
    """
    size = len(raw)
    return (
        size >= _PAYLOAD_AT + 2
        and raw.startswith(request.reply_head)
        and raw[9] + OVERHEAD_BYTES == size
        and raw.startswith(request.reply_di, 10)
        and raw[-1] == END
        and sum(raw[:-2]) & 0xFF == raw[-2]
    )


def _match(request: ReadRequest, frame: Frame645) -> Match:
    if not frame.from_meter:
        return Match.ECHO if frame.raw == request.raw else Match.UNSOLICITED
    if not address_matches(request.address, frame.address):
        return Match.FOREIGN
    if frame.control == _REFUSED:
        return Match.REFUSAL
    if frame.control in _EDITION_1997:
        return Match.REPLY
    if frame.control not in (_REPLY, _REPLY_MORE):
        return Match.STALE
    di = frame.data[:DI_BYTES][::-1].hex().upper()
    if di == request.di:
        return Match.REPLY
    return Match.UNSOLICITED if di == SPONTANEOUS_DI else Match.STALE


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


def reply_payload(request: ReadRequest, raw: bytes) -> bytes:
    """The bytes behind the identifier of a reply to the request.

    `raw` must be a frame that `match` calls REPLY or REFUSAL. ErrorReply for a refusal;
    BadContent for a reply that gives no value: `follow_up_not_supported` (it goes on in further
    frames, and a part is never taken for the whole), `edition_1997` (the meter speaks the old
    edition), `bad_refusal`, `not_the_reply`.
    """
    if _is_plain_reply(request, raw):
        return raw[_PAYLOAD_AT:-2].translate(SUBTRACT_33H)
    frame = parse(raw)
    kind = _match(request, frame)
    if kind is Match.REFUSAL:
        if len(frame.data) != 1:
            raise BadContent(
                f"a refusal has one error byte, not {len(frame.data)}", code="bad_refusal", raw=raw
            )
        reasons = reasons_of(frame.data[0])
        raise ErrorReply(
            f"meter {frame.address} refuses {request.di}: {', '.join(reasons) or 'no reason'}",
            reasons=reasons,
            error_byte=frame.data[0],
            raw=raw,
            offset=10,
        )
    if kind is not Match.REPLY:
        raise BadContent(
            f"this is no reply to {request.di} from {request.address}: {kind.value}",
            code="not_the_reply",
            raw=raw,
        )
    if frame.control in _EDITION_1997:
        raise BadContent(
            f"meter {frame.address} speaks the 1997 edition of DL/T 645: configure it as such",
            code="edition_1997",
            raw=raw,
            offset=8,
        )
    if frame.more_follows:
        raise BadContent(
            f"meter {frame.address} sends {request.di} in several frames: read its members singly",
            code="follow_up_not_supported",
            raw=raw,
            offset=8,
        )
    return frame.data[DI_BYTES:]


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
    return OVERHEAD_BYTES + min(DI_BYTES + payload, DATA_BYTES_USUAL_MAX)
