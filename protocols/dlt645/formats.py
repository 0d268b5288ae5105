"""How the values of an item stand in its payload: one `Layout` for each format of the catalogue.

A layout is made once when an item is looked up; decoding a reading then costs a few microseconds.
`declared.py` declares the same with construct, and tests hold both equal. `fields.py` has the rules
for single values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protocols.dlt645.fields import (
    Field,
    MeterTime,
    OperatorCode,
    Value,
    field_of,
    weekday_of,
)
from protocols.errors import BadContent, LocalProtocolError

__all__ = [
    "Field",
    "Layout",
    "MeterTime",
    "OperatorCode",
    "Value",
    "layout_of",
    "make_layout",
    "weekday_of",
]

TARIFFS_MAX = 63
SETTLEMENTS_MAX = 12
HARMONICS_MAX = 21


@dataclass(frozen=True, slots=True)
class Layout:
    """A payload: `fields` in turn, `rounds_min` to `rounds_max` times.

    With `optional` the last field may be missing.
    """

    fields: tuple[Field, ...]
    rounds_min: int
    rounds_max: int
    decode: Callable[[bytes], tuple[Value, ...]]
    optional: bool = False

    @property
    def round_bytes(self) -> int:
        """Bytes of one round."""
        return sum(field.width for field in self.fields)

    @property
    def length(self) -> int | None:
        """Bytes of the payload; None when the number of rounds is the meter's choice."""
        if self.optional or self.rounds_min != self.rounds_max:
            return None
        return self.round_bytes * self.rounds_min

    def number_position(self, index: int) -> int:
        """Where the number `index` stands among the decoded values: times beside it are skipped.

        In a layout without numbers every value counts.
        """
        numbers = [at for at, field in enumerate(self.fields) if field.kind == "number"]
        places = numbers or list(range(len(self.fields)))
        rounds, at = divmod(index, len(places))
        return rounds * len(self.fields) + places[at]

    def encode(self, values: Sequence[Value]) -> bytes:
        """The payload of these values, one a member; LocalProtocolError when one does not fit."""
        if self.optional and len(values) == len(self.fields) - 1:
            return layout_of(self.fields[:-1]).encode(values)
        rounds, rest = divmod(len(values), len(self.fields))
        if rest or not self.rounds_min <= rounds <= self.rounds_max:
            raise LocalProtocolError(
                f"{len(values)} values do not fill this item", code="value_count"
            )
        fields = self.fields * rounds
        return b"".join(f.encode(v) for f, v in zip(fields, values, strict=True))


def make_layout(text: str, length: str, *, signed: bool) -> Layout | None:
    """The layout of a format and a length as the catalogue writes them; None = not decodable.

    `A,B` one behind the other, `3*A` three of them, `A(,B)` B may be missing. ValueError when
    format and length contradict each other.
    """
    text, _, tail = text.partition("(,")
    fields: list[Field] = []
    for part in (*text.split(","), *([tail.rstrip(")")] if tail else [])):
        count, _, one = part.rpartition("*")
        field = field_of(one, int(length) if length.isdigit() else None, signed=signed)
        if field is None or (count and not count.isdigit()):
            return None
        fields += [field] * int(count or 1)
    width = sum(field.width for field in fields)
    if tail:
        return layout_of(tuple(fields), optional=True)
    rounds = _rounds(length, width)
    if rounds is None:
        return None
    return layout_of(tuple(fields), *rounds)


def _rounds(length: str, width: int) -> tuple[int, int] | None:
    """How often the fields come: from `4`, `2*3`, `4*(k+1)`, `4*(m+1)`, `2*n`."""
    unit, _, times = length.partition("*")
    if not unit.isdigit():
        return None
    if int(unit) != width:
        msg = f"length {length} does not fit a format of {width} bytes"
        raise ValueError(msg)
    open_counts = {
        "": (1, 1),
        "(k+1)": (1, TARIFFS_MAX + 1),
        "(m+1)": (1, SETTLEMENTS_MAX + 1),
        "n": (1, HARMONICS_MAX),
    }
    return (int(times), int(times)) if times.isdigit() else open_counts[times]


def layout_of(
    fields: tuple[Field, ...], rounds_min: int = 1, rounds_max: int = 1, *, optional: bool = False
) -> Layout:
    """The layout of these fields, in turn; `optional`: the last of them may be missing."""
    width = sum(field.width for field in fields)
    if optional:
        decode = _decode_optional(fields, width)
    elif len(fields) == 1 and rounds_min == rounds_max == 1:
        decode = _decode_single(fields[0])
    else:
        decode = _decode_rounds(fields, width, rounds_min, rounds_max)
    return Layout(fields, rounds_min, rounds_max, decode, optional)


def _decode_optional(fields: tuple[Field, ...], width: int) -> Callable[[bytes], tuple[Value, ...]]:
    whole = _decode_rounds(fields, width, 1, 1)
    shorter = _decode_rounds(fields[:-1], width - fields[-1].width, 1, 1)

    def decode(payload: bytes) -> tuple[Value, ...]:
        return (whole if len(payload) >= width else shorter)(payload)

    return decode


def _decode_single(field: Field) -> Callable[[bytes], tuple[Value, ...]]:
    """The hot path: one member, one number."""
    width, decode_field = field.width, field.decode

    def decode(payload: bytes) -> tuple[Value, ...]:
        if len(payload) != width:
            raise _wrong_length(payload, str(width), short=len(payload) < width)
        return (decode_field(payload),)

    return decode


def _decode_rounds(
    fields: tuple[Field, ...], width: int, rounds_min: int, rounds_max: int
) -> Callable[[bytes], tuple[Value, ...]]:
    if rounds_min == rounds_max:
        wanted = str(width * rounds_min)
    else:
        wanted = f"{width} x {rounds_min}..{rounds_max}"

    def decode(payload: bytes) -> tuple[Value, ...]:
        size = len(payload)
        if size > width * rounds_max:
            raise _wrong_length(payload, wanted, short=False)
        if size % width or size < width * rounds_min:
            raise _wrong_length(payload, wanted, short=True)
        values: list[Value] = []
        at = 0
        for field in fields * (size // width):
            try:
                values.append(field.decode(payload[at : at + field.width]))
            except BadContent as error:
                # The place in the whole payload; the first error is the one that is told.
                raise BadContent(str(error), code=error.code, raw=payload, offset=at) from None
            at += field.width
        return tuple(values)

    return decode


def _wrong_length(payload: bytes, wanted: str, *, short: bool) -> BadContent:
    return BadContent(
        f"the item has {wanted} bytes, the payload {len(payload)}",
        code="short_data" if short else "long_data",
        raw=payload,
        offset=len(payload),
    )
