"""What a service point took and gave: differences of registers, exact, by direction. Pure.

Import and export are two quantities and are never netted. A register that is not known is unknown
with a reason, never zero. A day is a local day: 23, 24 or 25 hours.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow, localcontext
from zoneinfo import ZoneInfo

from headend.billing.breaks import (
    Break,
    Wrap,
    breaks_of,
    contradicted,
    doubted_since,
    first_multiplier,
    in_force,
    wraps_of,
)
from headend.billing.registers import (
    MeterEvent,
    NotKnown,
    RegisterReading,
    Stand,
    Unknown,
    stand_of,
)
from headend.domain.due import day_bounds_ms, local_day
from headend.domain.reading import Side

IMPORT_POINT = "active_import_total"
EXPORT_POINT = "active_export_total"
DIRECTIONS: Mapping[str, str] = {"import": IMPORT_POINT, "export": EXPORT_POINT}

# Wide enough for the widest numbers the feed takes, their products and sums: nothing is rounded.
_EXACT = Context(prec=128, traps=[Inexact, InvalidOperation, Overflow])


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


class _Register:
    """One register of a service point: its good readings and what its events say of them."""

    def __init__(
        self,
        service_point: str,
        point: str,
        good: Sequence[RegisterReading],
        events: Sequence[MeterEvent],
        ratio: Decimal | None,
    ) -> None:
        self.good = sorted(good, key=lambda r: (r.time_ms, r.read_id))
        self.unit = self.good[0].unit if self.good else "kWh"
        self.breaks = breaks_of(events, service_point, point, ratio)
        self._events = events
        self._point = point
        self._wraps: dict[str, list[Wrap]] = {}
        self._doubts: dict[str, int | None] = {}
        self._bad: frozenset[str] | None = None

    def hung(self, instant_ms: int) -> str | None:
        """The meter that hung there, by the events; None when no event speaks of one."""
        found = self.breaks[0].before[0] if self.breaks else None
        for one in self.breaks:
            if one.at_ms < instant_ms:
                found = one.after[0]
        return found

    def wraps(self, meter: str) -> list[Wrap]:
        """The times that a meter's register began anew."""
        if meter not in self._wraps:
            self._wraps[meter] = wraps_of(self._events, meter, self._point)
        return self._wraps[meter]

    def is_contradicted(self, reading: RegisterReading) -> bool:
        """It cannot be true beside the other good registers of its piece."""
        if self._bad is None:
            self._bad = frozenset().union(*map(self._contradicted, self._pieces()))
        return reading.read_id in self._bad

    def is_doubted(self, stand: Stand) -> bool:
        """Another meter may have answered when this was read."""
        if stand.meter not in self._doubts:
            self._doubts[stand.meter] = doubted_since(self._events, stand.meter)
        since_ms = self._doubts[stand.meter]
        return since_ms is not None and not stand.is_event and stand.time_ms > since_ms

    def _pieces(self) -> Iterable[list[RegisterReading]]:
        pieces: dict[tuple[str, int, str], list[RegisterReading]] = {}
        for reading in self.good:
            number = sum(one.at_ms <= reading.time_ms for one in self.breaks)
            pieces.setdefault((reading.meter, number, reading.unit), []).append(reading)
        return pieces.values()

    def _contradicted(self, piece: Sequence[RegisterReading]) -> frozenset[str]:
        wraps = self.wraps(piece[0].meter)
        values = []
        try:
            with localcontext(_EXACT):
                for reading in piece:
                    assert reading.value is not None
                    behind = [w for w in wraps if w.is_behind(reading.time_ms, reading.value)]
                    values.append(sum((w.width for w in behind), reading.value))
        except NotKnown:
            return frozenset()  # whoever needs that event hears of it
        return contradicted(piece, values)


class ServicePoint:
    """The registers and events of one service point, and what follows from them.

    `readings`: current values of its registers, in any order. `events`: of any kind and service
    point, in any order; the same event told twice counts once.
    """

    def __init__(
        self, name: str, readings: Iterable[RegisterReading], events: Iterable[MeterEvent] = ()
    ) -> None:
        self.name = name
        known = list(events)
        told, ratio = in_force(known), first_multiplier(known, name)
        good: dict[str, list[RegisterReading]] = {p: [] for p in DIRECTIONS.values()}
        for reading in readings:
            if reading.is_good and reading.point in good:
                good[reading.point].append(reading)
        self._registers = {p: _Register(name, p, good[p], told, ratio) for p in good}

    def day(self, day: date, zone: ZoneInfo, direction: str) -> Difference:
        """The difference over a local day: register at its end minus register at its start.

        A register counts for a boundary when it holds for that instant or was read for it.
        """
        from_ms, to_ms = day_bounds_ms(day, zone)
        register = self._registers[DIRECTIONS[direction]]
        try:
            start = self._at(register, from_ms, Unknown.NO_START)
            end = self._at(register, to_ms, Unknown.NO_END)
            parts = self._chain(register, start, end)
        except NotKnown as answer:
            return self._unknown(direction, from_ms, to_ms, answer.reason, day)
        return self._known(direction, from_ms, to_ms, parts, day)

    def span(self, direction: str) -> Difference:
        """From the first to the last good register so far, across everything that was declared."""
        register = self._registers[DIRECTIONS[direction]]
        if not register.good:
            return self._unknown(direction, 0, 0, Unknown.NO_READINGS, None)
        good = [r for r in register.good if not register.is_contradicted(r)]
        bounds = (register.good[0].time_ms, register.good[-1].time_ms)
        try:
            if not good:
                raise NotKnown(Unknown.BACKWARD)  # noqa: TRY301 - one way for every reason
            parts = self._chain(register, stand_of(good[0]), stand_of(good[-1]))
        except NotKnown as answer:
            return self._unknown(direction, *bounds, answer.reason, None)
        return self._known(direction, good[0].time_ms, good[-1].time_ms, parts, None)

    def days(self, zone: ZoneInfo) -> list[date]:
        """The local days that a good register is the start or the end of."""
        found: set[date] = set()
        for register in self._registers.values():
            for reading in register.good:
                for instant in {reading.time_ms, reading.due_ms or reading.time_ms}:
                    day = local_day(instant, zone)
                    if day_bounds_ms(day, zone)[0] == instant:
                        found |= {day, local_day(instant - 1, zone)}
        return sorted(found)

    # -- the register at an instant

    def _at(self, register: _Register, instant_ms: int, missing: Unknown) -> Stand:
        """The register that counts for an instant; where it broke off, what it went on from."""
        at_once = [one for one in register.breaks if one.at_ms == instant_ms]
        if at_once:
            return at_once[-1].start(register.unit)
        hung = register.hung(instant_ms)
        found = [r for r in register.good if instant_ms in (r.time_ms, r.due_ms)]
        fitting = [r for r in found if hung is None or r.meter == hung]
        if len({r.meter for r in fitting}) > 1 or (found and not fitting):
            raise NotKnown(Unknown.METER_CHANGED)
        if not fitting:
            raise NotKnown(missing)
        believed = [r for r in fitting if not register.is_contradicted(r)]
        if not believed:
            raise NotKnown(Unknown.BACKWARD)
        return stand_of(min(believed, key=lambda r: (abs(r.time_ms - instant_ms), r.read_id)))

    # -- from stand to stand

    def _chain(self, register: _Register, start: Stand, end: Stand) -> tuple[Part, ...]:
        """One part for each piece between two stands. A break at the end belongs to it."""
        if register.is_doubted(start) or register.is_doubted(end):
            raise NotKnown(Unknown.METER_CHANGED)
        pieces: list[tuple[Stand, Stand]] = []
        here = start
        for one in register.breaks:
            if start.time_ms < one.at_ms <= end.time_ms:
                pieces.append((here, one.end(start.unit)))
                here = one.start(start.unit)
        if here.source != end.source or not pieces:
            pieces.append((here, end))
        for first, last in pieces:
            if first.meter != last.meter:
                raise NotKnown(Unknown.METER_CHANGED)
            if first.unit != last.unit:
                raise NotKnown(Unknown.UNIT_CHANGED)
        factors = self._factors(pieces)
        return tuple(
            _part(register, first, last, factor)
            for (first, last), factor in zip(pieces, factors, strict=True)
        )

    def _factors(self, pieces: Sequence[tuple[Stand, Stand]]) -> list[Decimal]:
        """What each piece is multiplied by; one that nothing speaks of, as those around it.

        Transformers stay when a meter goes, unless their change was declared.
        """
        known = [self._factor(*piece) for piece in pieces]
        found = []
        for n, own in enumerate(known):
            factor = own
            if factor is None:
                before = next((f for f in reversed(known[:n]) if f is not None), None)
                after = next((f for f in known[n + 1 :] if f is not None), None)
                around = {f for f in (before, after) if f is not None}
                if len(around) != 1:
                    raise NotKnown(Unknown.NO_RATIO)
                factor = around.pop()
            found.append(factor)
        return found

    def _factor(self, start: Stand, end: Stand) -> Decimal | None:
        """What readings say, and the events beside them; what is primary is not multiplied."""
        stands = [start, end]
        if any(stand.side == Side.PRIMARY for stand in stands):
            stands = [stand for stand in stands if not stand.is_event]
        factors = {stand.factor for stand in stands if stand.factor is not None}
        if not factors:  # two events, and no register of the meter between: ask its others
            factors = {
                r.factor
                for register in self._registers.values()
                for r in register.good
                if r.meter == start.meter and start.time_ms <= r.time_ms <= end.time_ms
            }
        if len(factors) > 1:
            raise NotKnown(Unknown.RATIO_CHANGED)
        return factors.pop() if factors else None

    # -- results

    def _known(
        self, direction: str, from_ms: int, to_ms: int, parts: tuple[Part, ...], day: date | None
    ) -> Difference:
        with localcontext(_EXACT):
            energy = sum((part.energy for part in parts), Decimal(0))
        point = DIRECTIONS[direction]
        unit = self._registers[point].unit
        return Difference(
            self.name, direction, point, from_ms, to_ms, energy, unit, None, parts, day
        )

    def _unknown(
        self, direction: str, from_ms: int, to_ms: int, reason: Unknown, day: date | None
    ) -> Difference:
        point = DIRECTIONS[direction]
        unit = self._registers[point].unit
        return Difference(self.name, direction, point, from_ms, to_ms, None, unit, reason, (), day)


def _part(register: _Register, start: Stand, end: Stand, factor: Decimal) -> Part:
    """What was counted between two stands of one piece. NotKnown when it ran back."""
    added = Decimal(0)
    rollovers: list[str] = []
    for wrap in register.wraps(start.meter):
        was = wrap.is_behind(start.time_ms, start.value)
        is_now = wrap.is_behind(end.time_ms, end.value)
        if was and not is_now:
            raise NotKnown(Unknown.BACKWARD)
        if is_now and not was:
            added += wrap.width
            rollovers += [event.id for event in wrap.events]
    with localcontext(_EXACT):
        counted = end.value + added - start.value
        energy = counted * factor
    if counted < 0:
        raise NotKnown(Unknown.BACKWARD)
    return Part(start, end, factor, energy, tuple(rollovers))


__all__ = [
    "DIRECTIONS",
    "EXPORT_POINT",
    "IMPORT_POINT",
    "Break",
    "Difference",
    "MeterEvent",
    "Part",
    "RegisterReading",
    "ServicePoint",
    "Stand",
    "Unknown",
]
