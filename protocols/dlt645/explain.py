"""A DL/T 645 frame in words: what is in it, byte by byte, and why a bad one is bad.

The objects are of the shape `frame/1` (`docs/schemas/frame.schema.json`). A frame that is not
valid gives no values. Passwords and operator codes are shown as `**`, in `hex` too.
"""

from collections.abc import Iterator
from typing import Any

from protocols.dlt645.catalogue import Item, lookup
from protocols.dlt645.formats import MeterTime, OperatorCode, Value, weekday_of
from protocols.dlt645.frame import DELIMITER, END, OVERHEAD_BYTES, START, SUBTRACT_33H
from protocols.dlt645.functions import Cut, Edition, cut, edition_of, function_of
from protocols.dlt645.items import decode
from protocols.dlt645.refusal import (
    REASONS,
    REASONS_1997,
    REASONS_RELAY,
    REASONS_SECURITY,
    reasons_of,
)
from protocols.dlt645.words import piece_meaning, say
from protocols.errors import BadContent, LocalProtocolError
from protocols.framing import FrameFound, Framer

SCHEMA = "frame/1"
HEAD_BYTES = 10  # up to and with the length byte
_IDLE_BYTES = b"\xfe\r\n"  # wake-up bytes, and what some gateways put behind frames

Explained = dict[str, Any]


def explain(data: bytes, *, lang: str = "en", edition: Edition | None = None) -> list[Explained]:
    """One object for each frame in `data`, good or broken, and for each part that is no frame.

    `lang` is `en` or `zh`. `edition` decides what codes mean that both editions have.
    """
    objects: list[Explained] = []
    before = b""
    secret = False  # a broken frame that can carry a password: so can what lies behind it
    for offset, raw, good in _segments(data):
        if good or _head_at(raw, 0):
            found = _frame(raw, offset, lang, edition)
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
        "errors": [_error("frame", code, say(code, lang), offset=0)],
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


def _error(
    layer: str,
    code: str,
    message: str,
    *,
    offset: int | None,
    expected: str | None = None,
    got: str | None = None,
) -> Explained:
    return {
        "layer": layer,
        "code": code,
        "offset": offset,
        "expected": expected,
        "got": got,
        "message": message,
    }


def _frame(raw: bytes, offset: int, lang: str, edition: Edition | None) -> Explained:
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
        _explain_data(found, parts, pieces, raw, lang)
        parts += _tail_parts(raw, HEAD_BYTES + length, lang)
    found["parts"] = parts
    found["hex"] = "".join(part["raw"] for part in parts)
    return found


def _frame_errors(raw: bytes, lang: str) -> list[Explained]:
    size = _claimed_size(raw)
    if len(raw) < size:
        message = say("incomplete_frame", lang, got=len(raw), needed=size)
        errors = [
            _error(
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
                    _error("frame", code, message, offset=at, expected=texts[0], got=texts[1])
                )
    fitting = _fitting_size(raw) if errors else None
    if fitting is not None:
        texts = (f"{fitting - OVERHEAD_BYTES:02X}", f"{raw[9]:02X}")
        message = say("bad_length", lang, expected=texts[0], got=texts[1])
        errors.append(_error("frame", "length", message, offset=9, expected=texts[0], got=texts[1]))
    return errors


def _part(offset: int, raw: bytes, name: str, meaning: str, data: bytes | None = None) -> Explained:
    part: Explained = {"offset": offset, "raw": raw.hex().upper(), "name": name, "meaning": meaning}
    if data is not None:
        part["data"] = data.hex().upper()
    return part


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
    return [_part(a, raw[a:b], name, meaning) for a, b, name, meaning in heads if raw[a:b]]


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
    return [_part(a, raw[a:b], name, meaning) for a, b, name, meaning in tails if raw[a:b]]


def _explain_data(
    found: Explained, parts: list[Explained], pieces: list[tuple[Cut, bytes]], raw: bytes, lang: str
) -> None:
    """The parts of DATA; refusal, values and content errors where there are any."""
    at = HEAD_BYTES
    identifier = found["identifier"]
    item = lookup(identifier) if identifier and len(identifier) == 8 else None
    is_read = found["valid"] and found["function"] == "91"
    for kind, data in pieces:
        wire = raw[at : at + len(data)]
        if kind.name == "error":
            names = _refusal(found, data)
            found["refusal"] = list(names)
            parts.append(_part(at, wire, "error", ", ".join(say(n, lang) for n in names), data))
        elif kind.secret:
            parts.append(_masked(at, kind.name, len(data), lang))
        elif kind.name == "payload" and is_read and item is not None:
            parts += _values(found, item, at, data, wire, lang)
        elif kind.name == "identifier":
            parts.append(_part(at, wire, "identifier", _item_name(identifier, item, lang), data))
        else:
            meaning = piece_meaning(kind.name, data[::-1].hex().upper(), lang)
            parts.append(_part(at, wire, kind.name, meaning, data))
        at += len(data)
    has_payload = any(kind.name == "payload" for kind, _ in pieces)
    decodable = identifier is None or (item is not None and item.layout is not None)
    if is_read and decodable and not has_payload:
        message = say("no_payload", lang)
        found["errors"].append(_error("content", "short_data", message, offset=at))


def _masked(at: int, name: str, size: int, lang: str) -> Explained:
    stars = "**" * size
    return {
        "offset": at,
        "raw": stars,
        "name": name,
        "meaning": f"{say(name, lang)} ({say('not_shown', lang)})",
        "data": stars,
    }


def _refusal(found: Explained, data: bytes) -> tuple[str, ...]:
    word = int.from_bytes(data, "little")
    if found["protocol"] == "dlt645-1997":
        return reasons_of(word, REASONS_1997)
    if found["function"] == "C3":
        return reasons_of(word, REASONS_SECURITY)
    if found["function"] == "DC" and len(data) == 2:
        return reasons_of(word, REASONS_RELAY)
    return reasons_of(word, REASONS)


def _item_name(identifier: str | None, item: Item | None, lang: str) -> str:
    if identifier is None:
        return say("identifier_cut", lang)
    if item is None:
        return f"{identifier} {say('unknown_identifier', lang)}"
    name = item.name_zh if lang == "zh" else item.name_en
    return f"{identifier} {name}" + ("" if item.verified else f" ({say('unverified', lang)})")


def _values(
    found: Explained, item: Item, at: int, data: bytes, wire: bytes, lang: str
) -> list[Explained]:
    """The parts of a payload, one a member, and the values they hold."""
    try:
        values = decode(item, data)
    except LocalProtocolError:
        return [_part(at, wire, "payload", say("not_decoded", lang), data)]
    except BadContent as error:
        offset = at + (error.offset or 0)
        message = say(error.code, lang, detail=str(error))
        expected = got = None
        if error.code in ("short_data", "long_data"):
            expected = None if item.length is None else str(item.length)
            got = str(len(data))
        found["errors"].append(
            _error("content", error.code, message, offset=offset, expected=expected, got=got)
        )
        return [_part(at, wire, "payload", message, data)]
    return list(_value_parts(found, item, at, data, wire, values, lang))


def _value_parts(
    found: Explained,
    item: Item,
    at: int,
    data: bytes,
    wire: bytes,
    values: tuple[Value, ...],
    lang: str,
) -> Iterator[Explained]:
    assert item.layout is not None
    fields = item.layout.fields
    if item.is_record:
        yield from _record_parts(found, item, at, data, wire, values, lang)
        return
    has_numbers = any(field.kind == "number" for field in fields)
    snapshot = f"{item.snapshot}:{item.snapshot_nth}" if item.snapshot else None
    here = number = 0
    for index, value in enumerate(values):
        field = fields[index % len(fields)]
        raw, own = wire[here : here + field.width], data[here : here + field.width]
        text = value_text(value)
        if has_numbers and field.kind == "stamp":
            found["values"][-1]["meter_time"] = text
            yield _part(at + here, raw, "time_of_occurrence", text or say("no_value", lang), own)
        else:
            unit = unit_of(item, number) if field.kind == "number" else ""
            point = item.point_at(number) or f"di:{item.di}"
            found["values"].append(
                {"point": point, "value": text, "unit": unit, "time": None, "snapshot": snapshot}
            )
            meaning = say("no_value", lang) if text is None else f"{text} {unit}".rstrip()
            if field.kind == "date" and value is not None:
                meaning += _weekday(value, own, lang)
            yield _part(at + here, raw, point, meaning, own)
            number += 1
        here += field.width


def _record_parts(
    found: Explained,
    item: Item,
    at: int,
    data: bytes,
    wire: bytes,
    values: tuple[Value, ...],
    lang: str,
) -> Iterator[Explained]:
    """The members of a record, each under its own name."""
    assert item.layout is not None
    snapshot = f"{item.snapshot}:{item.snapshot_nth}" if item.snapshot else None
    here = 0
    for field, value in zip(item.layout.fields, values, strict=True):
        raw, own = wire[here : here + field.width], data[here : here + field.width]
        name = field.name_zh if lang == "zh" else field.name_en
        if isinstance(value, OperatorCode):
            yield _masked(at + here, "operator", field.width, lang)
        else:
            text = value_text(value)
            found["values"].append(
                {
                    "point": f"di:{item.di}",
                    "value": text,
                    "unit": field.unit,
                    "time": None,
                    "snapshot": snapshot,
                    "name": name,
                }
            )
            shown = say("no_value", lang) if text is None else f"{text} {field.unit}".rstrip()
            yield _part(at + here, raw, name, shown, own)
        here += field.width


def value_text(value: Value) -> str | None:
    """A value as text: numbers with their own decimals, times in ISO 8601, None for no value."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, MeterTime):
        return str(value)
    return value.isoformat() if hasattr(value, "isoformat") else format(value, "f")


def unit_of(item: Item, number: int) -> str:
    """The unit of the number `number` of an item; `kW,kvar` means the first half and the second."""
    units = item.unit.split(",")
    if len(units) == 1:
        return units[0]
    assert item.layout is not None
    count = sum(field.kind == "number" for field in item.layout.fields)
    return units[min(number * len(units) // count, len(units) - 1)]


def _weekday(value: Value, own: bytes, lang: str) -> str:
    """The day of the week the meter gives, and whether it is that day."""
    told, right = own[0], weekday_of(value)  # type: ignore[arg-type]
    text = ", " + say(f"weekday_{told}" if told <= 6 else "weekday_bad", lang, n=told)
    return text if told == right else f"{text} ({say('weekday_wrong', lang)})"
