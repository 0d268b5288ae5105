"""The DATA of a frame in words: identifiers, values, records, words of bits, refusals, secrets."""

from collections.abc import Callable, Iterator
from typing import Any

from protocols.dlt645.catalogue import Item
from protocols.dlt645.formats import MeterTime, OperatorCode, Value, weekday_of
from protocols.dlt645.functions import Cut
from protocols.dlt645.items import decode
from protocols.dlt645.load_profile import LoadRecord, class_of, decode_records
from protocols.dlt645.refusal import (
    REASONS,
    REASONS_1997,
    REASONS_RELAY,
    REASONS_SECURITY,
    RELAY_DONE,
    reasons_of,
)
from protocols.dlt645.status import meanings, states, unnamed_bits
from protocols.dlt645.words import piece_meaning, say
from protocols.errors import BadContent, LocalProtocolError

HEAD_BYTES = 10  # up to and with the length byte
ALL_EVENTS = "FFFFFFFF"

Explained = dict[str, Any]

_READS = ("91", "81")  # whole replies: their payload is the item
_PARTS = ("B1", "92", "B2", "A1", "82", "A2")  # parts of a longer one: no value stands in one
_WRITES = ("14", "04")
# What a flag of a load record is as an error of content; the others are a make's way of writing.
_LOAD_ERRORS = ("bad", "checksum", "no_time", "not_bcd")


def error(
    layer: str,
    code: str,
    message: str,
    *,
    offset: int | None,
    expected: str | None = None,
    got: str | None = None,
) -> Explained:
    """One entry of `errors`."""
    return {
        "layer": layer,
        "code": code,
        "offset": offset,
        "expected": expected,
        "got": got,
        "message": message,
    }


def part(offset: int, raw: bytes, name: str, meaning: str, data: bytes | None = None) -> Explained:
    """One entry of `parts`; `data`: the bytes as they are meant, where they are of DATA."""
    found: Explained = {
        "offset": offset,
        "raw": raw.hex().upper(),
        "name": name,
        "meaning": meaning,
    }
    if data is not None:
        found["data"] = data.hex().upper()
    return found


def explain_data(
    found: Explained,
    pieces: list[tuple[Cut, bytes]],
    raw: bytes,
    lang: str,
    item_of: Callable[[str], Item | None],
) -> list[Explained]:
    """The parts of DATA; what they say goes into `found`: refusal, values, errors of content."""
    return list(_Data(found, raw, lang, item_of).parts(pieces))


class _Data:
    """The DATA of one frame."""

    def __init__(
        self,
        found: Explained,
        raw: bytes,
        lang: str,
        item_of: Callable[[str], Item | None],
    ) -> None:
        self._found = found
        self._raw = raw
        self._lang = lang
        identifier = found["identifier"]
        self._identifier: str | None = identifier
        self._item = item_of(identifier) if identifier else None
        self._is_read = found["valid"] and found["function"] in _READS

    def parts(self, pieces: list[tuple[Cut, bytes]]) -> Iterator[Explained]:
        """Every byte in exactly one part, in order."""
        at = HEAD_BYTES
        for kind, data in pieces:
            yield from self._piece(kind, at, data)
            at += len(data)
        if self._is_read and not any(kind.name == "payload" for kind, _ in pieces):
            self._no_payload(at)

    def _piece(self, kind: Cut, at: int, data: bytes) -> Iterator[Explained]:
        if kind.secret:
            yield self._masked(at, kind.name, len(data))
        elif kind.name == "error":
            names = self._refusal(data)
            self._found["refusal"] = list(names)
            said = ", ".join(self._say(name) for name in names) or self._say("no_reason")
            yield self._part(at, "error", said, data)
        elif kind.name == "payload":
            yield from self._payload(at, data)
        elif kind.name == "result" and len(data) == 2:
            done = reasons_of(int.from_bytes(data, "little"), RELAY_DONE)
            said = ", ".join(self._say(name) for name in done) or self._say("no_result")
            yield self._part(at, "result", said, data)
        elif kind.name == "identifier":
            yield self._part(at, "identifier", self._item_name(), data)
        else:
            text = data[::-1].hex().upper()
            yield self._part(at, kind.name, piece_meaning(kind.name, text, self._lang), data)

    def _say(self, key: str, **facts: object) -> str:
        return say(key, self._lang, **facts)

    def _part(self, at: int, name: str, meaning: str, data: bytes) -> Explained:
        return part(at, self._raw[at : at + len(data)], name, meaning, data)

    def _masked(self, at: int, name: str, size: int) -> Explained:
        stars = "**" * size
        meaning = f"{self._say(name)} ({self._say('not_shown')})"
        return {"offset": at, "raw": stars, "name": name, "meaning": meaning, "data": stars}

    def _content(self, code: str, message: str, at: int | None, **facts: str | None) -> None:
        self._found["errors"].append(error("content", code, message, offset=at, **facts))

    def _refusal(self, data: bytes) -> tuple[str, ...]:
        word = int.from_bytes(data, "little")
        if self._found["protocol"] == "dlt645-1997":
            return reasons_of(word, REASONS_1997)
        if self._found["function"] == "C3":
            return reasons_of(word, REASONS_SECURITY)
        if self._found["function"] == "DC" and len(data) == 2:
            return reasons_of(word, REASONS_RELAY)
        return reasons_of(word, REASONS)

    def _item_name(self) -> str:
        identifier, item = self._identifier, self._item
        if identifier is None:
            return self._say("identifier_cut")
        if item is None:
            key = "all_events" if identifier == ALL_EVENTS else "unknown_identifier"
            return f"{identifier} {self._say(key)}"
        name = item.name_zh if self._lang == "zh" else item.name_en
        return f"{identifier} {name}" + ("" if item.verified else f" ({self._say('unverified')})")

    # -- payloads

    def _no_payload(self, at: int) -> None:
        if self._identifier is not None and class_of(self._identifier) is not None:
            return  # no record is a good answer
        item = self._item
        if self._identifier is None or (item is not None and item.layout is not None):
            self._content("short_data", self._say("no_payload"), at)

    def _payload(self, at: int, data: bytes) -> Iterator[Explained]:
        found, item = self._found, self._item
        if item is not None and item.access == "w":
            yield self._masked(at, "payload", len(data))
        elif not found["valid"]:
            yield self._part(at, "payload", self._say("payload"), data)
        elif self._is_read and self._identifier and class_of(self._identifier) is not None:
            yield from self._load_records(at, data)
        elif found["function"] in _PARTS:
            yield self._part(at, "payload", self._say("part_of_item"), data)
        elif item is not None and (self._is_read or found["function"] in _WRITES):
            yield from self._values(item, at, data)
        else:
            yield self._part(at, "payload", self._say("payload"), data)

    def _values(self, item: Item, at: int, data: bytes) -> Iterator[Explained]:
        """The parts of a payload, one a member, and the values they hold."""
        try:
            values = decode(item, data)
        except LocalProtocolError:
            yield self._part(at, "payload", self._say("not_decoded"), data)
            return
        except BadContent as problem:
            message = self._say(problem.code, detail=str(problem))
            facts: dict[str, str | None] = {}
            if problem.code in ("short_data", "long_data"):
                facts["expected"] = None if item.length is None else str(item.length)
                facts["got"] = str(len(data))
            self._content(problem.code, message, at + (problem.offset or 0), **facts)
            yield self._part(at, "payload", message, data)
            return
        if item.is_record:
            yield from self._record(item, at, data, values)
        elif any(meanings(di) for di, _ in _words_of(item, values)):
            yield from self._words(item, at, data, values)
        else:
            yield from self._members(item, at, data, values)

    def _value(
        self, item: Item, value: str | None, unit: str, point: str | None = None, **more: str | None
    ) -> None:
        """What a request writes is not a value of the meter."""
        if not self._is_read:
            return
        snapshot = f"{item.snapshot}:{item.snapshot_nth}" if item.snapshot else None
        self._found["values"].append(
            {
                "point": point or f"di:{item.di}",
                "value": value,
                "unit": unit,
                "time": None,
                "snapshot": snapshot,
                **more,
            }
        )

    def _members(
        self, item: Item, at: int, data: bytes, values: tuple[Value, ...]
    ) -> Iterator[Explained]:
        assert item.layout is not None
        fields = item.layout.fields
        has_numbers = any(field.kind == "number" for field in fields)
        here = number = 0
        for index, value in enumerate(values):
            field = fields[index % len(fields)]
            own = data[here : here + field.width]
            text = value_text(value)
            if has_numbers and field.kind == "stamp":
                if self._is_read:
                    self._found["values"][-1]["meter_time"] = text
                meaning = text or self._say("no_value")
                yield self._part(at + here, "time_of_occurrence", meaning, own)
            else:
                unit = unit_of(item, number) if field.kind == "number" else ""
                point = item.point_at(number) or f"di:{item.di}"
                self._value(item, text, unit, point)
                meaning = self._say("no_value") if text is None else f"{text} {unit}".rstrip()
                if field.kind == "date" and value is not None:
                    meaning += self._weekday(value, own)
                yield self._part(at + here, point, meaning, own)
                number += 1
            here += field.width

    def _record(
        self, item: Item, at: int, data: bytes, values: tuple[Value, ...]
    ) -> Iterator[Explained]:
        """The members of a record, each under its own name."""
        assert item.layout is not None
        here = 0
        for field, value in zip(item.layout.fields, values, strict=True):
            own = data[here : here + field.width]
            name = field.name_zh if self._lang == "zh" else field.name_en
            if isinstance(value, OperatorCode):
                yield self._masked(at + here, "operator", field.width)
            else:
                text = value_text(value)
                self._value(item, text, field.unit, name=name)
                shown = self._say("no_value") if text is None else f"{text} {field.unit}".rstrip()
                yield self._part(at + here, name, shown, own)
            here += field.width

    def _words(
        self, item: Item, at: int, data: bytes, values: tuple[Value, ...]
    ) -> Iterator[Explained]:
        """Words of bits, and what each bit says."""
        assert item.layout is not None
        here = 0
        for di, word in _words_of(item, values):
            width = len(word) // 2
            said = [state.text(self._lang) for state in states(di, word)]
            said += [self._say("bit_set", bit=bit) for bit in unnamed_bits(di, word)]
            self._value(item, word, "", f"di:{di}")
            own = data[here : here + width]
            yield self._part(at + here, f"di:{di}", f"{word}: " + "; ".join(said), own)
            here += width

    def _weekday(self, value: Value, own: bytes) -> str:
        """The day of the week the meter gives, and whether it is that day."""
        told, right = own[0], weekday_of(value)  # type: ignore[arg-type]
        key = f"weekday_{told}" if told <= 6 else "weekday_bad"
        text = ", " + self._say(key, n=told)
        return text if told == right else f"{text} ({self._say('weekday_wrong')})"

    # -- load records

    def _load_records(self, at: int, data: bytes) -> Iterator[Explained]:
        assert self._identifier is not None
        number = class_of(self._identifier)
        assert number is not None
        try:
            records = decode_records(data, number)
        except BadContent as problem:
            message = self._say("bad_record", detail=str(problem))
            self._content("bad_record", message, at + (problem.offset or 0))
            yield self._part(at, "payload", message, data)
            return
        here = at
        for nth, record in enumerate(records, 1):
            yield from self._load_record(here, nth, record)
            here += len(record.raw)

    def _load_record(self, at: int, nth: int, record: LoadRecord) -> Iterator[Explained]:
        raw = record.raw
        time = None if record.time is None else str(record.time)
        for flag in record.flags:
            if flag in _LOAD_ERRORS:
                self._content(f"record_{flag}", self._say(f"record_{flag}", nth=nth), at)
        notes = [self._say(f"record_{f}", nth=nth) for f in record.flags if f not in _LOAD_ERRORS]
        head = self._say("record_head", nth=nth, time=time or "?")
        yield self._part(at, "load_record", "; ".join([head, *notes]), raw[:8])
        said: list[str] = []
        for rows in record.classes.values():
            for one in rows:
                text = value_text(one.value)
                self._found["values"].append(
                    {
                        "point": one.point,
                        "value": text,
                        "unit": one.unit,
                        "time": None,
                        "snapshot": f"load_record:{nth}",
                        "meter_time": time,
                    }
                )
                shown = self._say("no_value") if text is None else f"{text} {one.unit}".rstrip()
                said.append(f"{one.point} {shown}")
        meaning = "; ".join(said) or self._say("record_empty")
        yield self._part(at + 8, "load_values", meaning, raw[8:-2])
        yield self._part(at + len(raw) - 2, "load_end", self._say("record_end"), raw[-2:])


def _words_of(item: Item, values: tuple[Value, ...]) -> list[tuple[str, str]]:
    """Each word of an item with the identifier that says what its bits mean."""
    words = [value for value in values if isinstance(value, str)]
    if len(words) != len(values) or not (item.layout and item.layout.fields[0].kind == "bits"):
        return []
    if len(words) == 1:
        return [(item.di, words[0])]
    return [(f"{item.di[:6]}{number:02X}", word) for number, word in enumerate(words, 1)]


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
