"""What a service point took and gave: differences of registers, exact, by direction. Pure.

Import and export are two quantities and are never netted. A register that is not known is unknown
with a reason, never zero. A day is a local day: 23, 24 or 25 hours.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow, localcontext
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from headend.domain.due import day_bounds_ms, local_day
from headend.domain.reading import Side, Status, Verdict

IMPORT_POINT = "active_import_total"
EXPORT_POINT = "active_export_total"
DIRECTIONS: Mapping[str, str] = {"import": IMPORT_POINT, "export": EXPORT_POINT}

ROLLOVER_DIGITS_MAX = 12
_LIMIT = re.compile(r"[0-9]{1,24}(\.[0-9]{1,9})?")

# Wide enough for the widest numbers the feed takes, their products and sums: nothing is rounded.
_EXACT = Context(prec=128, traps=[Inexact, InvalidOperation, Overflow])
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,18})?")

_GOOD_VERDICTS = frozenset({Verdict.OK, Verdict.SUSPECT})


class Unknown(StrEnum):
    """Why a difference is not known."""

    NO_START = "no_start"  # no usable register for the beginning
    NO_END = "no_end"  # no usable register for the end
    BACKWARD = "backward"  # the register ran back and no event says why
    METER_CHANGED = "meter_changed"  # another meter, and no exchange was declared
    RATIO_CHANGED = "ratio_changed"  # the multiplier changed in between
    NO_RATIO = "no_ratio"  # no reading says what the register is multiplied by
    UNIT_CHANGED = "unit_changed"
    BAD_EVENT = "bad_event"  # an exchange or rollover that lacks what is needed
    NO_READINGS = "no_readings"


@dataclass(frozen=True, slots=True)
class RegisterReading:
    """A current value of a register. `value` None = there is none (withdrawn, for instance)."""

    meter: str
    service_point: str
    point: str
    time_ms: int
    value: Decimal | None
    unit: str
    read_id: str
    due_ms: int | None = None
    status: str = Status.ACTUAL
    verdict: str = Verdict.OK
    flags: tuple[str, ...] = ()
    multiplier: Decimal = Decimal(1)
    side: str = Side.SECONDARY

    @property
    def is_good(self) -> bool:
        """Whether it may be billed."""
        return (
            self.value is not None and self.status != Status.NULL and self.verdict in _GOOD_VERDICTS
        )

    @property
    def factor(self) -> Decimal:
        """What the register is multiplied by to get the primary quantity."""
        return self.multiplier if self.side == Side.SECONDARY else Decimal(1)


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """A dated event as it came on the feed. `id` names it where a reading id would stand."""

    id: str
    kind: str
    at_ms: int
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stand:
    """One register value that a difference stands on.

    `source`: the read id, or `event:` and the id of the exchange that declared the value.
    """

    meter: str
    time_ms: int
    value: Decimal
    unit: str
    factor: Decimal | None  # None: an event's value, multiplied like the reading it is paired with
    source: str
    status: str
    verdict: str = Verdict.OK
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What one meter counted between two stands. `rollovers`: events that were added."""

    start: Stand
    end: Stand
    factor: Decimal
    energy: Decimal
    rollovers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """The energy of one direction of one service point between two instants.

    `energy` is in `unit`; None means unknown and `reason` says why. `parts`: one, or one for each
    meter that hung there.
    """

    service_point: str
    direction: str
    point: str
    from_ms: int
    to_ms: int
    energy: Decimal | None
    unit: str
    reason: Unknown | None
    parts: tuple[Part, ...] = ()
    day: date | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The read ids and events it stands on, in order."""
        stands = [stand for part in self.parts for stand in (part.start, part.end)]
        return tuple(dict.fromkeys(stand.source for stand in stands))

    @property
    def statuses(self) -> tuple[str, ...]:
        """The statuses of what it stands on: an estimate stays visible."""
        stands = [stand for part in self.parts for stand in (part.start, part.end)]
        return tuple(sorted({stand.status for stand in stands}))


class _NotKnown(Exception):
    def __init__(self, reason: Unknown) -> None:
        self.reason = reason
        super().__init__(reason)


def _width(fields: Mapping[str, Any]) -> Decimal:
    """How far the register of a rollover counts: by its digits, or up to a limit of its own."""
    digits, limit = fields.get("digits"), fields.get("limit")
    if digits is None and isinstance(limit, str) and _LIMIT.fullmatch(limit) and Decimal(limit):
        return Decimal(limit)
    if not isinstance(digits, int) or not 1 <= digits <= ROLLOVER_DIGITS_MAX:
        raise _NotKnown(Unknown.BAD_EVENT)
    return Decimal(10) ** digits


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A meter exchange as far as one point is concerned; a value that is not given is None."""

    id: str
    at_ms: int
    old_meter: str
    new_meter: str
    old_final: Decimal | None
    new_initial: Decimal | None

    def final(self, unit: str) -> Stand:
        """The old meter's last register."""
        return self._stand(self.old_meter, self.old_final, unit)

    def initial(self, unit: str) -> Stand:
        """The new meter's first register."""
        return self._stand(self.new_meter, self.new_initial, unit)

    def _stand(self, meter: str, value: Decimal | None, unit: str) -> Stand:
        if value is None:
            raise _NotKnown(Unknown.BAD_EVENT)
        source = f"event:{self.id}"
        return Stand(meter, self.at_ms, value, unit, None, source, Status.MANUAL)


class ServicePoint:
    """The registers and events of one service point, and what follows from them.

    `readings`: current values of its registers, in any order. `events`: of any kind and service
    point, in any order; the same event told twice counts once.
    """

    def __init__(
        self, name: str, readings: Iterable[RegisterReading], events: Iterable[MeterEvent] = ()
    ) -> None:
        self.name = name
        self._good: dict[str, list[RegisterReading]] = {p: [] for p in DIRECTIONS.values()}
        for reading in readings:
            if reading.is_good and reading.point in self._good:
                self._good[reading.point].append(reading)
        for registers in self._good.values():
            registers.sort(key=lambda r: (r.time_ms, r.read_id))
        self._events = sorted({e.id: e for e in events}.values(), key=lambda e: (e.at_ms, e.id))

    def day(self, day: date, zone: ZoneInfo, direction: str) -> Difference:
        """The difference over a local day: register at its end minus register at its start.

        A register counts for a boundary when it holds for that instant or was read for it.
        """
        from_ms, to_ms = day_bounds_ms(day, zone)
        point = DIRECTIONS[direction]
        unit = self._unit(point)
        try:
            exchanges = self._exchanges(point)
            start = self._at(point, from_ms, exchanges, unit, Unknown.NO_START)
            end = self._at(point, to_ms, exchanges, unit, Unknown.NO_END)
            parts = self._chain(point, start, end, exchanges, (from_ms, to_ms))
        except _NotKnown as answer:
            return self._unknown(direction, from_ms, to_ms, unit, answer.reason, day)
        return self._known(direction, from_ms, to_ms, unit, parts, day)

    def span(self, direction: str) -> Difference:
        """From the first to the last good register so far, across exchanges."""
        point = DIRECTIONS[direction]
        unit = self._unit(point)
        good = self._good[point]
        if not good:
            return self._unknown(direction, 0, 0, unit, Unknown.NO_READINGS, None)
        bounds = (good[0].time_ms, good[-1].time_ms)
        try:
            exchanges = self._exchanges(point)
            parts = self._chain(point, _stand(good[0]), _stand(good[-1]), exchanges, bounds)
        except _NotKnown as answer:
            return self._unknown(direction, *bounds, unit, answer.reason, None)
        return self._known(direction, *bounds, unit, parts, None)

    def days(self, zone: ZoneInfo) -> list[date]:
        """The local days that a good register is the start or the end of."""
        found: set[date] = set()
        for registers in self._good.values():
            for reading in registers:
                for instant in {reading.time_ms, reading.due_ms or reading.time_ms}:
                    day = local_day(instant, zone)
                    if day_bounds_ms(day, zone)[0] == instant:
                        found |= {day, local_day(instant - 1, zone)}
        return sorted(found)

    # -- the register at an instant

    def _at(
        self,
        point: str,
        instant_ms: int,
        exchanges: Sequence[_Exchange],
        unit: str,
        missing: Unknown,
    ) -> Stand:
        """The register that counts for an instant; at an exchange the new meter's first one."""
        hung: str | None = exchanges[0].old_meter if exchanges else None
        for exchange in exchanges:
            if exchange.at_ms == instant_ms:
                return exchange.initial(unit)
            if exchange.at_ms < instant_ms:
                hung = exchange.new_meter
        found = [r for r in self._good[point] if instant_ms in (r.time_ms, r.due_ms)]
        fitting = [r for r in found if hung is None or r.meter == hung]
        if len({r.meter for r in fitting}) > 1 or (found and not fitting):
            raise _NotKnown(Unknown.METER_CHANGED)
        if not fitting:
            raise _NotKnown(missing)
        return _stand(min(fitting, key=lambda r: (abs(r.time_ms - instant_ms), r.read_id)))

    # -- from stand to stand

    def _chain(
        self,
        point: str,
        start: Stand,
        end: Stand,
        exchanges: Sequence[_Exchange],
        bounds: tuple[int, int],
    ) -> tuple[Part, ...]:
        """One part for each meter that hung there. An exchange at the end belongs to it."""
        parts: list[Part] = []
        here = start
        for exchange in exchanges:
            if not bounds[0] < exchange.at_ms <= bounds[1]:
                continue
            parts.append(self._part(point, here, exchange.final(start.unit)))
            here = exchange.initial(start.unit)
        if here.source != end.source or not parts:
            parts.append(self._part(point, here, end))
        return tuple(parts)

    def _part(self, point: str, start: Stand, end: Stand) -> Part:
        if start.meter != end.meter:
            raise _NotKnown(Unknown.METER_CHANGED)
        if start.unit != end.unit:
            raise _NotKnown(Unknown.UNIT_CHANGED)
        factor = self._factor(start, end)
        added = Decimal(0)
        rollovers = []
        for event in self._rollovers(point, start, end):
            added += _width(event.fields)
            rollovers.append(event.id)
        with localcontext(_EXACT):
            counted = end.value + added - start.value
            energy = counted * factor
        if counted < 0:
            raise _NotKnown(Unknown.BACKWARD)
        return Part(start, end, factor, energy, tuple(rollovers))

    def _factor(self, start: Stand, end: Stand) -> Decimal:
        factors = {stand.factor for stand in (start, end) if stand.factor is not None}
        if not factors:  # two exchanges, and no register of the meter between: ask its others
            factors = {r.factor for rs in self._good.values() for r in rs if r.meter == start.meter}
        if len(factors) > 1:
            raise _NotKnown(Unknown.RATIO_CHANGED)
        if not factors:
            raise _NotKnown(Unknown.NO_RATIO)
        return factors.pop()

    def _rollovers(self, point: str, start: Stand, end: Stand) -> list[MeterEvent]:
        return [
            event
            for event in self._events
            if event.kind == "rollover"
            and event.fields.get("meter") == start.meter
            and event.fields.get("point") == point
            and start.time_ms < event.at_ms <= end.time_ms
        ]

    def _exchanges(self, point: str) -> list[_Exchange]:
        return [
            _Exchange(
                event.id,
                event.at_ms,
                str(event.fields.get("old_meter")),
                str(event.fields.get("new_meter")),
                _register(event.fields.get("old_final"), point),
                _register(event.fields.get("new_initial"), point),
            )
            for event in self._events
            if event.kind == "meter_exchange" and event.fields.get("service_point") == self.name
        ]

    # -- results

    def _unit(self, point: str) -> str:
        good = self._good[point]
        return good[0].unit if good else "kWh"

    def _known(
        self,
        direction: str,
        from_ms: int,
        to_ms: int,
        unit: str,
        parts: tuple[Part, ...],
        day: date | None,
    ) -> Difference:
        with localcontext(_EXACT):
            energy = sum((part.energy for part in parts), Decimal(0))
        point = DIRECTIONS[direction]
        return Difference(
            self.name, direction, point, from_ms, to_ms, energy, unit, None, parts, day
        )

    def _unknown(
        self,
        direction: str,
        from_ms: int,
        to_ms: int,
        unit: str,
        reason: Unknown,
        day: date | None,
    ) -> Difference:
        point = DIRECTIONS[direction]
        return Difference(self.name, direction, point, from_ms, to_ms, None, unit, reason, (), day)


def _stand(reading: RegisterReading) -> Stand:
    assert reading.value is not None
    return Stand(
        reading.meter,
        reading.time_ms,
        reading.value,
        reading.unit,
        reading.factor,
        reading.read_id,
        reading.status,
        reading.verdict,
        reading.flags,
    )


def _register(values: object, point: str) -> Decimal | None:
    """The value of a point in an event's mapping; None when it is not given or no number."""
    value = values.get(point) if isinstance(values, Mapping) else None
    if not isinstance(value, str) or _NUMBER.fullmatch(value) is None:
        return None
    return Decimal(value)
