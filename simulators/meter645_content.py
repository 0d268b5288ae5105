"""What a simulated DL/T 645 meter can say of an item: live, frozen, of its settlements, of itself.

Everything comes from what is measured and from the instants the meter has kept. Nothing here knows
frames, faults or makers' quirks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from protocols.dlt645.catalogue import DAILY_FREEZE, FREEZE_TIME, Item
from protocols.dlt645.formats import Value
from simulators.measured import TARIFFS, Measured
from simulators.meter645_clock import MeterClock, meter_time
from simulators.meter645_load import LoadProfile, LoadSettings
from simulators.meter645_store import HOUR_MS, Freeze, Gap, Store, every, monthly

DAY_MS = 24 * HOUR_MS
FREEZES_KEPT = 62  # 0506xx01 .. 0506xx3E
_SETTLEMENT = "settlement"
_CLOCK_POINTS = frozenset({"date", "time", "clock"})


@dataclass(frozen=True, slots=True)
class KeptSettings:
    """What a meter keeps of the past.

    Depths are the standard's: 62 days, 254 hours, 12 months and settlements, 12 timed and 3 instant
    freezes. `gaps`: spans in which nothing good was kept. `settlement`: day and hour of the monthly
    settlement.
    """

    days: int = FREEZES_KEPT
    hours: int = 254
    months: int = 12
    timed: int = 12
    instant: int = 3
    settlement: tuple[int, int] = (1, 0)
    gaps: tuple[Gap, ...] = ()
    load: LoadSettings = field(default_factory=LoadSettings)


class Kept:
    """The stores of one meter, by the names the catalogue has for them; and its load records."""

    def __init__(self, settings: KeptSettings, *, from_ms: int) -> None:
        day, hour = settings.settlement
        dues = {
            DAILY_FREEZE: (every(DAY_MS), settings.days),
            "hourly_freeze": (every(HOUR_MS), settings.hours),
            "step_freeze": (monthly(), settings.months),  # many meters keep months there
            _SETTLEMENT: (monthly(day, hour), settings.months),
            "timed_freeze": (_never, settings.timed),
            "instant_freeze": (_never, settings.instant),
        }
        self.stores = {
            name: Store(name, due, depth, from_ms=from_ms, gaps=settings.gaps)
            for name, (due, depth) in dues.items()
        }
        self.load = LoadProfile(settings.load, from_ms=from_ms, gaps=settings.gaps)

    def take(self, clock: MeterClock, now_ms: int) -> None:
        """Keep every instant the clock has passed, in all stores: before the clock is set."""
        for store in self.stores.values():
            store.take(clock, now_ms)
        self.load.take(clock, now_ms)

    def nth_last(self, kind: str, nth: int, clock: MeterClock, now_ms: int) -> Freeze | None:
        """The n-th last record of a kind; None for one that is not there."""
        store = self.stores.get(kind)
        if store is None:
            return None
        store.take(clock, now_ms)
        return store.nth_last(nth)


def _never(_after: int, _until: int, _most: int) -> Sequence[int]:
    return ()


class Content:
    """The values of one meter. `empty`: what a record of the past that is not there looks like."""

    def __init__(
        self,
        measured: Measured,
        kept: Kept,
        *,
        empty: Literal["refuse", "ff", "zero"] = "refuse",
    ) -> None:
        self.measured = measured
        self.kept = kept
        self._empty = empty

    def values(self, item: Item, clock: MeterClock, at_ms: int) -> tuple[Value, ...] | None:
        """The values of an item at a wall time, one a member; None when the meter has it not."""
        if item.layout is None:
            return None
        if item.snapshot is not None:
            return self._frozen(item, clock, at_ms)
        if item.point in _CLOCK_POINTS:
            return (self._clock_value(item.point, clock, at_ms),)
        return self._numbers(item, at_ms, {})

    def value_at(self, point: str, kept: Freeze) -> Value:
        """A quantity at an instant the meter has kept."""
        return kept.values.get(point, self.measured.value(point, kept.at_ms))

    def _clock_value(self, point: str | None, clock: MeterClock, at_ms: int) -> Value:
        now = meter_time(clock.local_ms(at_ms))
        if point == "clock":
            return now
        return now.date if point == "date" else now.time

    def _frozen(self, item: Item, clock: MeterClock, at_ms: int) -> tuple[Value, ...] | None:
        assert item.snapshot is not None
        if not item.snapshot_nth or item.snapshot not in self.kept.stores:
            return None
        freeze = self.kept.nth_last(item.snapshot, item.snapshot_nth, clock, at_ms)
        if freeze is None:
            return self._empty_slot(item)
        if item.point_at(0) == FREEZE_TIME:
            return (freeze.time,)
        if freeze.effect:
            return (None,) * members(item)
        if item.is_record:  # the hourly block: time, import, export
            named = ("active_import_total", "active_export_total")
            return (freeze.time, *(self.value_at(point, freeze) for point in named))
        return self._numbers(item, freeze.at_ms, freeze.values)

    def _empty_slot(self, item: Item) -> tuple[Value, ...] | None:
        if self._empty == "refuse":
            return None
        return (None,) * members(item)

    def _numbers(
        self, item: Item, at_ms: int, instead: Mapping[str, Decimal]
    ) -> tuple[Value, ...] | None:
        """One number a member. None when the meter has none of them; a block with some has gaps."""
        values: list[Value] = []
        for index in range(members(item)):
            point = item.point_at(index)
            if point is None:
                return None
            value = instead.get(point)
            values.append(self.measured.value(point, at_ms) if value is None else value)
        return tuple(values) if any(value is not None for value in values) else None


def members(item: Item) -> int:
    """How many members this meter's reply has: all tariffs it counts, all that a block names."""
    assert item.layout is not None
    if item.layout.rounds_min == item.layout.rounds_max:
        return len(item.layout.fields) * item.layout.rounds_min
    return len(item.layout.fields) * (1 + TARIFFS)
