"""Readings as InfluxDB lines: the one encoder, pure.

Nothing of a line depends on when a reading came, by which way, or beside what: the same content
gives the same bytes, live, backfilled or written again.

- measurement: the kind of the point (`register`, `interval`, `demand`, `instantaneous`, `state`;
  `other` for a point that the table of quantities does not know), with `_estimated` behind it for
  what nobody measured, `_rejected` for what validation refuses. So no chart of readings can show
  either by mistake.
- tags: `headend`, `meter`, `service_point`, and `interval_s` of an interval. Nothing else ever.
- fields: the point's name, always a float, the digits of the number and never an exponent; and
  `<point>_quality`, always an integer (`Quality`).
- time: the instant held for (the start of an interval), milliseconds.

A later revision may belong into another measurement than the one before; where the earlier one may
stand the quality becomes WITHDRAWN.
"""

import re
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from headend.domain.errors import HeadendError
from headend.domain.reading import Reading, Status, Verdict
from headend.journal.codec import canonical_text, number_text
from headend.journal.model import Kept
from protocols.quantities import quantity

PLAIN, ESTIMATED, REJECTED = "", "_estimated", "_rejected"
VARIANTS = (PLAIN, ESTIMATED, REJECTED)
OTHER = "other"
WITHDRAWN_FLAG = "withdrawn"
CHARS_MAX = 300  # a double ends at 309 digits; more is no reading
HEADS_MAX = 200_000

_ESTIMATES = frozenset({Status.ESTIMATED, Status.SUBSTITUTED, Status.MANUAL})
_ACTUAL, _OK = Status.ACTUAL, Verdict.OK
_FAIL, _SUSPECT, _HELD = Verdict.FAIL, Verdict.SUSPECT, Verdict.HELD

# A backslash before a comma cannot be written, a line end would end the line: such characters
# stand as %XX, and the percent sign too, so that two names never become one.
_NOT_WRITABLE = re.compile(r"[\x00-\x1f\x7f%\\]")
_TO_ESCAPE = re.compile(r"[,= ]")


class EncodeError(HeadendError):
    """A reading that has no line. It is a fault of this program, never of a meter."""


class Quality(IntEnum):
    """What `<point>_quality` says. Up to 2 the value stands beside it."""

    OK = 0
    SUSPECT = 1  # the value came with an objection
    REJECTED = 2  # in measurements `_rejected` only
    NO_VALUE = 8  # the meter said that it has none; an older value may still stand in the field
    WITHDRAWN = 9  # what stands in the field is no longer so


class Line(NamedTuple):
    """One line: series, time, and the text of its fields for each point.

    `fields`: field name -> `name=value,name_quality=0i`. A value and its quality are one: either
    both are written or neither.
    """

    head: str  # measurement and tags
    time_ms: int
    fields: dict[str, str]

    def text(self) -> str:
        """As it is sent, without the line end. Sorted: how it came together does not show."""
        fields = self.fields
        if len(fields) == 1:
            (shown,) = fields.values()
        else:
            shown = ",".join([fields[name] for name in sorted(fields)])
        return f"{self.head} {shown} {self.time_ms}"


class LineEncoder:
    """Encodes for one head-end. It keeps the beginnings of lines, and nothing else."""

    def __init__(self, headend: str) -> None:
        self._tags = f",headend={escape(headend)}"
        self._heads: dict[tuple[str, str, str, int | None], str] = {}

    def encode(self, items: Sequence[Kept]) -> list[Line]:
        """The lines of readings that were born together: of one meter, instant and revision.

        EncodeError for what cannot be written, which includes values still held.
        """
        lines: dict[str, Line] = {}
        for reading, _read_id, revision, _exchange in items:
            kind, field, quality_field, before, behind = _names(reading.point)
            value = reading.value
            if (
                revision == 1
                and reading.status is _ACTUAL
                and reading.verdict is _OK
                and value is not None
                and "E" not in (number := str(value))
                and len(number) <= CHARS_MAX
                and value.is_finite()
            ):
                # Nearly every reading. What follows below gives the same, more slowly.
                key = (kind, reading.meter, reading.service_point, reading.interval_s)
                head = self._heads.get(key) or self._head(key)
                line = lines.get(head)
                shown = before + canonical_text(number) + behind
                if line is None:
                    lines[head] = Line(head, reading.time_ms, {field: shown})
                else:
                    line.fields[field] = shown
                continue
            variant, shown = _variant(reading, field, quality_field)
            self._put(lines, reading, kind + variant, field, shown)
            if revision > 1:
                gone = f"{quality_field}={Quality.WITHDRAWN:d}i"
                for other in VARIANTS:
                    if other != variant:
                        self._put(lines, reading, kind + other, field, gone)
        return list(lines.values())

    def _put(
        self, lines: dict[str, Line], reading: Reading, measurement: str, field: str, shown: str
    ) -> None:
        key = (measurement, reading.meter, reading.service_point, reading.interval_s)
        head = self._heads.get(key) or self._head(key)
        line = lines.get(head)
        if line is None:
            lines[head] = Line(head, reading.time_ms, {field: shown})
        else:
            line.fields[field] = shown

    def _head(self, key: tuple[str, str, str, int | None]) -> str:
        measurement, meter, service_point, interval_s = key
        if not meter:
            msg = "a reading of no meter"
            raise EncodeError(msg)
        interval = "" if interval_s is None else f",interval_s={interval_s}"
        # A tag without a value would be refused.
        place = f",service_point={escape(service_point)}" if service_point else ""
        head = f"{measurement}{self._tags}{interval},meter={escape(meter)}{place}"
        if len(self._heads) >= HEADS_MAX:
            self._heads.clear()
        self._heads[key] = head
        return head


def _variant(reading: Reading, field: str, quality_field: str) -> tuple[str, str]:
    """Where a reading belongs, and its fields."""
    value = reading.value
    verdict = reading.verdict
    if verdict is _HELD:
        msg = f"{reading.meter} {reading.point}: a value that is held is not for anybody to see"
        raise EncodeError(msg)
    if value is None:
        gone = WITHDRAWN_FLAG in reading.flags
        return PLAIN, f"{quality_field}={Quality.WITHDRAWN if gone else Quality.NO_VALUE:d}i"
    try:
        number = canonical_text(number_text(value))
    except ValueError as error:
        msg = f"{reading.meter} {reading.point}: {value} is not a number"
        raise EncodeError(msg) from error
    if len(number) > CHARS_MAX:
        msg = f"{reading.meter} {reading.point}: a number of {len(number)} characters"
        raise EncodeError(msg)
    if verdict is _FAIL:
        return REJECTED, f"{field}={number},{quality_field}=2i"
    quality = "1i" if verdict is _SUSPECT else "0i"
    variant = ESTIMATED if reading.status in _ESTIMATES else PLAIN
    return variant, f"{field}={number},{quality_field}={quality}"


@lru_cache(maxsize=8192)
def _names(point: str) -> tuple[str, str, str, str, str]:
    """Measurement, field and quality field of a point; what stands around a good number."""
    try:
        kind: str = quantity(point).kind
    except KeyError:
        kind = OTHER
    # InfluxDB drops a field called `time` without a word.
    name = "time_of_day" if point == "time" else point
    field, quality_field = escape(name), escape(f"{name}_quality")
    return kind, field, quality_field, f"{field}=", f",{quality_field}={Quality.OK:d}i"


def escape(text: str) -> str:
    """A tag's value or a name as it stands in a line. Different texts stay different."""
    text = _NOT_WRITABLE.sub(lambda found: f"%{ord(found[0]):02X}", text)
    return _TO_ESCAPE.sub(lambda found: "\\" + found[0], text)


def split_fields(line: Line) -> Iterator[Line]:
    """A line for each point of a line, in the order they are written."""
    for name in sorted(line.fields):
        yield Line(line.head, line.time_ms, {name: line.fields[name]})
