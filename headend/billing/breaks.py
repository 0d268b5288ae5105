"""Where a register's counting breaks off and goes on from another value, by declared events. Pure.

An exchange, a reset and other transformers end one piece of a register and begin another; a
rollover does not, it adds the register's width. Events hold from their date, whatever order they
came in, and what was taken back holds no more.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

from headend.billing.registers import MeterEvent, NotKnown, RegisterReading, Stand, Unknown
from headend.domain.clock import from_iso
from headend.domain.lives import (
    CHANGED,
    EXCHANGE,
    NUMBER,
    RATIO,
    RESET,
    ROLLOVER,
    TAKEN_BACK,
    declared_ms,
    order_within,
)
from headend.domain.reading import Status

ROLLOVER_DIGITS_MAX = 12
_LIMIT = re.compile(r"[0-9]{1,24}(\.[0-9]{1,9})?")
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,18})?")


def in_force(events: Iterable[MeterEvent]) -> list[MeterEvent]:
    """Each event once, without those that were taken back, by date and as they follow."""
    once = {e.id: e for e in events}
    gone = {e.fields.get("of") for e in once.values() if e.kind == TAKEN_BACK}
    kept = [e for e in once.values() if e.kind != TAKEN_BACK and e.id not in gone]
    kept.sort(key=lambda e: (e.at_ms, e.id))
    stamps = [e.at_ms for e in kept]
    if len(stamps) != len(set(stamps)):
        told = [e.told for e in kept]
        kept.sort(key=lambda e: (e.at_ms, order_within(e.told, told), e.id))
    return kept


class Mark(NamedTuple):
    """One side of a break. `factor` None: as the readings beside it."""

    meter: str
    value: Decimal | None
    factor: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Break:
    """One event that breaks one register off. A value that is not given is None."""

    event: MeterEvent
    before: Mark
    after: Mark

    @property
    def at_ms(self) -> int:
        """When."""
        return self.event.at_ms

    def end(self, unit: str) -> Stand:
        """The last register before it."""
        return self._stand(self.before, unit)

    def start(self, unit: str) -> Stand:
        """The first register behind it."""
        return self._stand(self.after, unit)

    def _stand(self, mark: Mark, unit: str) -> Stand:
        meter, value, factor = mark
        if value is None:
            raise NotKnown(Unknown.BAD_EVENT)
        source = f"event:{self.event.id}"
        return Stand(meter, self.at_ms, value, unit, factor, source, Status.MANUAL, is_event=True)


def first_multiplier(events: Iterable[MeterEvent], service_point: str) -> Decimal | None:
    """What a service point began with: what the event that was declared first tells, in force or
    not. None when none was ever told.
    """
    told = [e for e in events if e.kind == RATIO and e.fields.get("service_point") == service_point]
    first = min(told, key=lambda e: (declared_ms(e.told), e.at_ms, e.id), default=None)
    return None if first is None else _factor(first.fields.get("multiplier_before"))


def breaks_of(
    events: Sequence[MeterEvent], service_point: str, point: str, ratio: Decimal | None
) -> list[Break]:
    """The breaks of one register of a service point; `events` in force, in their order.

    `ratio`: the multiplier it began with. What an event says of the state before it is not asked:
    it may have been declared before an earlier one, or upon one that was wrong.
    """
    found = []
    for event in events:
        fields = event.fields
        if fields.get("service_point") != service_point:
            continue
        meter = str(fields.get("meter"))
        if event.kind == EXCHANGE:
            old, new = str(fields.get("old_meter")), str(fields.get("new_meter"))
            before = Mark(old, _register(fields.get("old_final"), point))
            after = Mark(new, _register(fields.get("new_initial"), point))
        elif event.kind == RATIO:
            value = _register(fields.get("registers"), point)
            before = Mark(meter, value, ratio)
            ratio = _factor(fields.get("multiplier"))
            after = Mark(meter, value, ratio)
        elif event.kind == RESET and _names(fields, point):
            before = Mark(meter, _register(fields.get("before"), point))
            after = Mark(meter, _register(fields.get("after"), point))
        else:
            continue
        found.append(Break(event, before, after))
    return found


# -- rollovers


@dataclass(frozen=True, slots=True)
class Wrap:
    """One time that a register began anew, after `after_ms` and not later than `by_ms`.

    `before`: a value it showed before; what is less and lies in between was shown afterwards.
    Several events may tell of the same wrap: it is one, in the narrowest span they give.
    """

    events: tuple[MeterEvent, ...]
    after_ms: int
    by_ms: int
    before: Decimal | None

    def is_behind(self, time_ms: int, value: Decimal) -> bool:
        """Whether a register that shows a value at a time has begun anew."""
        if time_ms >= self.by_ms:
            return True
        return time_ms > self.after_ms and self.before is not None and value < self.before

    @property
    def width(self) -> Decimal:
        """What it adds. NotKnown for an event that does not say, or two that differ."""
        widths = {_width(event.fields) for event in self.events}
        if len(widths) != 1:
            raise NotKnown(Unknown.BAD_EVENT)
        return widths.pop()


def wraps_of(events: Sequence[MeterEvent], meter: str, point: str) -> list[Wrap]:
    """The wraps of one register of a meter, by time."""
    wraps: list[Wrap] = []
    for event in events:
        fields = event.fields
        if event.kind != ROLLOVER or (fields.get("meter"), fields.get("point")) != (meter, point):
            continue
        before, after_ms = _number(fields.get("before")), _time(fields.get("before_at"))
        if before is None or after_ms is None or after_ms > event.at_ms:
            before, after_ms = None, event.at_ms
        wraps.append(Wrap((event,), after_ms, event.at_ms, before))
    wraps.sort(key=lambda w: (w.by_ms, w.after_ms))
    merged: list[Wrap] = []
    for wrap in wraps:
        last = merged[-1] if merged else None
        if last is not None and (wrap.after_ms < last.by_ms or wrap.by_ms == last.by_ms):
            told = [w for w in (last, wrap) if w.before is not None] or [last, wrap]
            later = max(told, key=lambda w: w.after_ms)
            merged[-1] = Wrap(
                last.events + wrap.events, later.after_ms, min(w.by_ms for w in told), later.before
            )
        else:
            merged.append(wrap)
    return merged


def _width(fields: Mapping[str, Any]) -> Decimal:
    """How far the register of a rollover counts: by its digits, or up to a limit of its own."""
    digits, limit = fields.get("digits"), fields.get("limit")
    if digits is None and isinstance(limit, str) and _LIMIT.fullmatch(limit) and Decimal(limit):
        return Decimal(limit)
    if not isinstance(digits, int) or not 1 <= digits <= ROLLOVER_DIGITS_MAX:
        raise NotKnown(Unknown.BAD_EVENT)
    return Decimal(10) ** digits


# -- which meter it is


def doubted_since(events: Sequence[MeterEvent], meter: str) -> int | None:
    """Since when another meter may have answered for this one: it showed another number.

    None when it never did, when a person said that it is the same, or when its exchange was told.
    """
    since_ms: int | None = None
    for event in events:
        fields = event.fields
        if event.kind == NUMBER and fields.get("meter") == meter:
            if fields.get("state") == CHANGED:
                found = _time(fields.get("since"))
                since_ms = event.at_ms if found is None else found
            else:
                since_ms = None
    exchanged = [
        e.at_ms for e in events if e.kind == EXCHANGE and e.fields.get("old_meter") == meter
    ]
    if since_ms is not None and any(at_ms >= since_ms for at_ms in exchanged):
        return None
    return since_ms


# -- which registers contradict the others


def contradicted(readings: Sequence[RegisterReading], values: Sequence[Decimal]) -> frozenset[str]:
    """The read ids of registers that cannot be true beside the others of the same piece.

    `values`: theirs, in the order of time, with what wraps add. A register never runs back: the
    longest row that does not is believed, and whatever is not in every such row is not.
    """
    if all(a <= b for a, b in pairwise(values)):
        return frozenset()
    left = _row_lengths(values)
    right = _row_lengths([-value for value in reversed(values)])[::-1]
    longest = max(left)
    on_one = [n for n in range(len(values)) if left[n] + right[n] - 1 == longest]
    at_place: dict[int, int] = {}
    for n in on_one:
        at_place[left[n]] = at_place.get(left[n], 0) + 1
    sure = {n for n in on_one if at_place[left[n]] == 1}
    return frozenset(r.read_id for n, r in enumerate(readings) if n not in sure)


def _row_lengths(values: Sequence[Decimal]) -> list[int]:
    """For each value, how long the longest row is that never runs back and ends with it."""
    tails: list[Decimal] = []
    lengths = []
    for value in values:
        at = bisect_right(tails, value)
        tails[at : at + 1] = [value]
        lengths.append(at + 1)
    return lengths


# -- an event's fields


def _register(values: object, point: str) -> Decimal | None:
    """The value of a point in an event's mapping; None when it is not given or no number."""
    return _number(values.get(point)) if isinstance(values, Mapping) else None


def _number(value: object) -> Decimal | None:
    if not isinstance(value, str) or _NUMBER.fullmatch(value) is None:
        return None
    return Decimal(value)


def _factor(value: object) -> Decimal | None:
    found = _number(value)
    return found if found is not None and found > 0 else None


def _time(text: object) -> int | None:
    try:
        return from_iso(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _names(fields: Mapping[str, Any], point: str) -> bool:
    return any(isinstance(v, Mapping) and point in v
               for v in (fields.get("before"), fields.get("after")))  # fmt: skip
