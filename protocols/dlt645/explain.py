"""A DL/T 645 frame in words: what is in it, byte by byte, and why a bad one is bad.

The objects are of the shape `frame/1` (`docs/schemas/frame.schema.json`). A frame that is not
valid gives no values. Passwords and operator codes are shown as `**`, in `hex` too.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from protocols.dlt645.catalogue import lookup
from protocols.dlt645.explain_data import HEAD_BYTES, Explained, error, explain_data, part
from protocols.dlt645.frame import DELIMITER, END, OVERHEAD_BYTES, START, SUBTRACT_33H
from protocols.dlt645.functions import Cut, Edition, cut, edition_of, function_of
from protocols.dlt645.words import piece_meaning, say
from protocols.framing import FrameFound, Framer

if TYPE_CHECKING:
    from protocols.dlt645.profile import MeterProfile

SCHEMA = "frame/1"
_IDLE_BYTES = b"\xfe\r\n"  # wake-up bytes, and what some gateways put behind frames


def explain(
    data: bytes,
    *,
    lang: str = "en",
    edition: Edition | None = None,
    profile: "MeterProfile | None" = None,
) -> list[Explained]:
    """One object for each frame in `data`, good or broken, and for each part that is no frame.

    `lang` is `en` or `zh`. `edition` decides what codes mean that both editions have. `profile`:
    how the model of meter differs from the standard.
    """
    objects: list[Explained] = []
    before = b""
    secret = False  # a broken frame that can carry a password: so can what lies behind it
    for offset, raw, good in _segments(data):
        if good or _head_at(raw, 0):
            found = _frame(raw, offset, lang, edition, profile)
            secret = not found["valid"] and _can_hold_secrets(raw, found["protocol"])
        elif not raw.strip(_IDLE_BYTES):
            before += raw
            continue
        else:
            found = _no_frame(raw, offset, lang, secret=secret)
        found["before"] = before.hex().upper()
        before = b""
        objects.append(found)
    if before and objects:
        objects[-1]["after"] = before.hex().upper()
    elif before:
        objects.append(_no_frame(before, 0, lang))
    return objects


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """(offset, bytes, whole and good): good frames, broken ones, idle bytes and dirt, in order."""
    framer = Framer(DELIMITER, buffer_max=len(data) + 1)
    run_from, run = 0, b""
    for event in (*framer.feed(data), *framer.idle()):
        if isinstance(event, FrameFound):
            yield from _noise_segments(run_from, run)
            yield event.offset, event.raw, True
            run_from, run = event.offset + len(event.raw), b""
        else:
            run += event.raw
    yield from _noise_segments(run_from, run)


def _noise_segments(offset: int, run: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Cut a run of noise into broken frames and what lies between them."""
    at = plain_from = 0
    while at < len(run):
        if not _head_at(run, at):
            at += 1
            continue
        yield from _plain_segments(offset + plain_from, run[plain_from:at])
        size = _fitting_size(run[at:]) or _claimed_size(run[at:])
        yield offset + at, run[at : at + size], False
        at += size
        plain_from = at
    yield from _plain_segments(offset + plain_from, run[plain_from:])


def _plain_segments(offset: int, raw: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Dirt, with the idle bytes at either end told apart from it."""
    dirt = raw.strip(_IDLE_BYTES)
    if not dirt:
        pieces = [raw]
    else:
        first = raw.index(dirt)
        pieces = [raw[:first], dirt, raw[first + len(dirt) :]]
    for piece in pieces:
        if piece:
            yield offset, piece, False
        offset += len(piece)


def _head_at(raw: bytes, at: int) -> bool:
    """Whether both start bytes stand where a frame has them."""
    return raw[at] == START and len(raw) > at + 7 and raw[at + 7] == START


def _claimed_size(raw: bytes) -> int:
    return raw[9] + OVERHEAD_BYTES if len(raw) >= HEAD_BYTES else OVERHEAD_BYTES


def _fitting_size(raw: bytes) -> int | None:
    """A size for which check value and end byte fit, had the length byte said so."""
    if len(raw) < HEAD_BYTES:
        return None
    claimed = raw[9]
    running = sum(raw[:HEAD_BYTES]) - claimed
    for length in range(min(len(raw) - OVERHEAD_BYTES, 255) + 1):
        check_at = HEAD_BYTES + length
        if raw[check_at + 1] == END and (running + length) & 0xFF == raw[check_at]:
            return length + OVERHEAD_BYTES if length != claimed else None
        running += raw[check_at]
    return None


def _can_hold_secrets(raw: bytes, edition: Edition) -> bool:
    if len(raw) < HEAD_BYTES - 1:
        return False
    function = function_of(raw[8], edition)
    return any(kind.secret for kind in (*function.request, *function.reply))


def _no_frame(raw: bytes, offset: int, lang: str, *, secret: bool = False) -> Explained:
    cut_off = raw[0] == START and len(raw) < HEAD_BYTES
    code = "incomplete" if cut_off else "no_frame"
    return {
        **_empty("**" * len(raw) if secret else raw.hex().upper(), offset),
        "errors": [error("frame", code, say(code, lang), offset=0)],
    }


def _empty(hex_text: str, offset: int) -> Explained:
    return {
        "schema": SCHEMA,
        "protocol": None,
        "valid": False,
        "errors": [],
        "offset": offset,
        "before": "",
        "hex": hex_text,
        "address": None,
        "direction": None,
        "function": None,
        "identifier": None,
        "parts": [],
        "values": [],
    }


def _frame(
    raw: bytes, offset: int, lang: str, edition: Edition | None, profile: "MeterProfile | None"
) -> Explained:
    """A frame from its first start byte on, whole or broken."""
    control = raw[8] if len(raw) > 8 else None
    edition = edition or edition_of(control or 0)
    errors = _frame_errors(raw, lang)
    found = _empty("", offset)
    found |= {"protocol": edition, "valid": not errors, "errors": errors}
    found["address"] = raw[6:0:-1].hex().upper()
    parts = _head_parts(raw, edition, lang)
    pieces: list[tuple[Cut, bytes]] = []
    if control is not None and len(raw) >= HEAD_BYTES:
        found["direction"] = "reply" if control & 0x80 else "request"
        found["function"] = f"{control:02X}"
        fitting = _fitting_size(raw) if errors else None
        length = raw[9] if fitting is None else fitting - OVERHEAD_BYTES
        data = raw[HEAD_BYTES : HEAD_BYTES + length].translate(SUBTRACT_33H)
        pieces = cut(control, data, edition)
        found["identifier"] = next(
            (
                piece[::-1].hex().upper()
                for kind, piece in pieces
                if kind.name == "identifier" and len(piece) == kind.size
            ),
            None,
        )
        parts += explain_data(found, pieces, raw, lang, profile.item if profile else lookup)
        parts += _tail_parts(raw, HEAD_BYTES + length, lang)
    found["parts"] = parts
    found["hex"] = "".join(part["raw"] for part in parts)
    return found


def _frame_errors(raw: bytes, lang: str) -> list[Explained]:
    size = _claimed_size(raw)
    if len(raw) < size:
        message = say("incomplete_frame", lang, got=len(raw), needed=size)
        errors = [
            error(
                "frame",
                "incomplete",
                message,
                offset=len(raw),
                expected=str(size),
                got=str(len(raw)),
            )
        ]
    else:
        errors = []
        expected = sum(raw[: size - 2]) & 0xFF
        for code, at, wanted in (("checksum", size - 2, expected), ("end", size - 1, END)):
            if raw[at] != wanted:
                texts = (f"{wanted:02X}", f"{raw[at]:02X}")
                message = say(f"bad_{code}", lang, expected=texts[0], got=texts[1])
                errors.append(
                    error("frame", code, message, offset=at, expected=texts[0], got=texts[1])
                )
    fitting = _fitting_size(raw) if errors else None
    if fitting is not None:
        texts = (f"{fitting - OVERHEAD_BYTES:02X}", f"{raw[9]:02X}")
        message = say("bad_length", lang, expected=texts[0], got=texts[1])
        errors.append(error("frame", "length", message, offset=9, expected=texts[0], got=texts[1]))
    return errors


def _head_parts(raw: bytes, edition: Edition, lang: str) -> list[Explained]:
    address = raw[6:0:-1].hex().upper()
    control = raw[8] if len(raw) > 8 else 0
    function = function_of(control, edition)
    words = [function.zh if lang == "zh" else function.en, say(_direction(control), lang)]
    if control & 0xA0 == 0xA0:
        words.append(say("more_follows", lang))
    length = raw[9] if len(raw) > 9 else 0
    heads = (
        (0, 1, "start", say("start", lang)),
        (1, 7, "address", piece_meaning("address", address, lang)),
        (7, 8, "start2", say("start2", lang)),
        (8, 9, "control", ", ".join(words)),
        (9, 10, "length", say("length" if length <= 200 else "length_unusual", lang, n=length)),
    )
    return [part(a, raw[a:b], name, meaning) for a, b, name, meaning in heads if raw[a:b]]


def _direction(control: int) -> str:
    if not control & 0x80:
        return "request"
    return "refusal" if control & 0x40 else "reply"


def _tail_parts(raw: bytes, at: int, lang: str) -> list[Explained]:
    tails = (
        (at, at + 1, "checksum", say("checksum", lang)),
        (at + 1, at + 2, "end", say("end", lang)),
        (at + 2, len(raw), "rest", say("rest", lang)),
    )
    return [part(a, raw[a:b], name, meaning) for a, b, name, meaning in tails if raw[a:b]]
