"""What a simulated DL/T 645 meter can say of an item: live, frozen, of its settlements, of itself.

Everything comes from what is measured and from the instants the meter has kept. Nothing here knows
frames, faults or makers' quirks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import Literal

from protocols.dlt645.catalogue import (
    DAILY_FREEZE,
    DIGITS_1997,
    DIGITS_2007,
    FREEZE_TIME,
    Item,
    lookup,
)
from protocols.dlt645.fields import Field, OperatorCode
from protocols.dlt645.formats import Value
from simulators.measured import TARIFFS, Measured
from simulators.meter645_clock import MeterClock, meter_time
from simulators.meter645_demand import Demand
from simulators.meter645_events import EventLog
from simulators.meter645_load import LoadProfile, LoadSettings
from simulators.meter645_params import Parameters
from simulators.meter645_store import HOUR_MS, Freeze, Gap, Store, every, monthly

DAY_MS = 24 * HOUR_MS
FREEZES_KEPT = 62  # 0506xx01 .. 0506xx3E
_SETTLEMENT = "settlement"
_CLOCK_POINTS = frozenset({"date", "time", "clock"})
_PRESENT = {"02800004": "active", "02800005": "reactive", "02800006": "apparent"}
# What comes without a sign from meters that tell directions in their status words alone.
_WITH_DIRECTION = (
    "active_power",
    "reactive_power",
    "apparent_power",
    "power_factor",
    "current",
    "di:0280000",
)


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
        self.settings = settings
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


@dataclass(frozen=True, slots=True)
class Said:
    """The values of an item, one a member. `fill`: the byte of an empty slot, which has no values
    of its own.
    """

    values: tuple[Value, ...]
    fill: int = 0xFF


class Content:
    """The values of one meter. `empty`: what a record of the past that is not there looks like.

    `is_absolute`: powers and currents come without their sign, and only the status words tell it.
    """

    def __init__(
        self,
        measured: Measured,
        kept: Kept,
        parameters: Parameters,
        events: EventLog,
        *,
        empty: Literal["refuse", "ff", "zero"] = "refuse",
        is_absolute: bool = False,
        tariffs: int = TARIFFS,
    ) -> None:
        self.measured = measured
        self.kept = kept
        self._tariffs = tariffs
        self.demand = Demand(measured)
        self.demand_cleared_ms = measured.model.timeline.origin_ms
        self._parameters = parameters
        self._events = events
        self._empty = empty
        self._is_absolute = is_absolute

    def said(self, item: Item, clock: MeterClock, at_ms: int) -> Said | None:
        """What the meter says of an item at a wall time; None when it has it not."""
        if item.layout is None or "r" not in item.access:
            return None
        found = self._found(item, clock, at_ms)
        if found is None:
            return self._empty_slot(item) if self._is_of_the_past(item) else None
        return Said(self._fitted(item, found))

    def value_at(self, point: str, kept: Freeze, clock: MeterClock) -> Value:
        """A quantity at an instant the meter has kept, as a load record has it."""
        if point.startswith("di:0280000"):
            value = self._present(point, clock, kept.at_ms)
        else:
            value = kept.values.get(point, self.measured.value(point, kept.at_ms))
        return abs(value) if value is not None and self._strips_sign(point) else value

    def _found(self, item: Item, clock: MeterClock, at_ms: int) -> tuple[Value, ...] | None:
        di = item.di
        if item.snapshot is not None:
            return self._frozen(item, clock, at_ms)
        if item.point in _CLOCK_POINTS:
            return (self._clock_value(item.point, clock, at_ms),)
        if di.startswith(("03", "1D", "1E")) and len(di) == DIGITS_2007:
            return self._events.values(item, clock, at_ms)
        if item.points:
            return self._members(item, clock, at_ms, {})
        if di.startswith("00") and di.endswith("FF"):
            return self._settlement_block(item, clock, at_ms)
        if len(di) == DIGITS_1997:
            return self._of_1997(item, clock, at_ms)
        return self._parameters.values(di, at_ms) or self._means(di, clock, at_ms)

    def _means(self, di: str, clock: MeterClock, at_ms: int) -> tuple[Value, ...] | None:
        """Present demands, and the mean power of the minute."""
        if di in _PRESENT:
            return _if_any(self._present(f"di:{di}", clock, at_ms))
        if di == "02800003":
            return _if_any(self.measured.value("active_power_total", at_ms))
        return None

    def _clock_value(self, point: str | None, clock: MeterClock, at_ms: int) -> Value:
        now = meter_time(clock.local_ms(at_ms))
        if point == "clock":
            return now
        return now.date if point == "date" else now.time

    def _present(self, point: str, clock: MeterClock, at_ms: int) -> Decimal | None:
        return self.demand.present(_PRESENT[point.removeprefix("di:")], clock, at_ms)

    # --- records of the past --------------------------------------------------------------------

    def _is_of_the_past(self, item: Item) -> bool:
        if item.snapshot is not None:
            return item.snapshot in self.kept.stores and bool(item.snapshot_nth)
        is_event = item.di.startswith("03") and len(item.di) == DIGITS_2007
        return is_event and not item.di.endswith("00")

    def _empty_slot(self, item: Item) -> Said | None:
        if self._empty == "refuse":
            return None
        return Said((None,) * self._count(item), 0xFF if self._empty == "ff" else 0)

    def _frozen(self, item: Item, clock: MeterClock, at_ms: int) -> tuple[Value, ...] | None:
        assert item.snapshot is not None
        if not item.snapshot_nth or item.snapshot not in self.kept.stores:
            return None
        freeze = self.kept.nth_last(item.snapshot, item.snapshot_nth, clock, at_ms)
        if freeze is None:
            return None
        if item.point_at(0) == FREEZE_TIME or item.di.startswith("00FE00"):
            return (freeze.time,)
        if freeze.effect:
            return (None,) * self._count(item)
        if item.is_record:  # the hourly block: time, import, export
            named = ("active_import_total", "active_export_total")
            return (freeze.time, *(self.value_at(point, freeze, clock) for point in named))
        if _is_time_of_demand(item.di):
            return self._demand_time(item, clock, freeze.at_ms)
        return self._members(item, clock, freeze.at_ms, freeze.values)

    def _settlement_block(
        self, item: Item, clock: MeterClock, at_ms: int
    ) -> tuple[Value, ...] | None:
        """A total now, then of the settlements there are."""
        live = lookup(f"{item.di[:6]}00")
        if live is None or live.point is None:
            return None
        store = self.kept.stores[_SETTLEMENT]
        store.take(clock, at_ms)
        instants = [at_ms, *(kept.at_ms for kept in reversed(tuple(store)))]
        return _if_any(*(self.measured.value(live.point, instant) for instant in instants))

    # --- members --------------------------------------------------------------------------------

    def _members(
        self, item: Item, clock: MeterClock, at_ms: int, instead: Mapping[str, Decimal]
    ) -> tuple[Value, ...] | None:
        """One value a member. None when the meter has none of them; a block with some has gaps."""
        assert item.layout is not None
        has_times = any(one.kind == "stamp" for one in item.layout.fields)
        is_demand = item.points[0].startswith("demand_")
        values: list[Value] = []
        for index in range(self._count(item) // (2 if has_times else 1)):
            point = item.point_at(index)
            if point is None:
                return None
            if not is_demand:
                value = instead.get(point)
                values.append(self.measured.value(point, at_ms) if value is None else value)
                continue
            found = self.demand.maximum(point, clock, self._demands_since(at_ms), at_ms)
            value, time = found or (None, None)
            values += [value, time] if has_times else [value]
        return tuple(values) if any(value is not None for value in values) else None

    def demands_before_clearing(
        self, operator: str, clock: MeterClock, at_ms: int
    ) -> tuple[Value, ...]:
        """The record of a clearing of demands: who, and what was cleared, by the members' names."""
        item = lookup("03300201")
        assert item is not None
        assert item.layout is not None
        since = self._demands_since(at_ms)
        values: list[Value] = [meter_time(clock.local_ms(at_ms)), OperatorCode(operator)]
        for one in item.layout.fields[2:]:
            point = f"demand_{demand_point(one.name_en)}"
            found = self.demand.maximum(point, clock, since, at_ms) or (None, None)
            values.append(found[1] if one.kind == "stamp" else found[0])
        return tuple(values)

    def _demands_since(self, at_ms: int) -> int:
        """The settlement or clearing before an instant: what the maxima of that time count from."""
        ends = [kept.at_ms for kept in self.kept.stores[_SETTLEMENT] if kept.at_ms < at_ms]
        cleared = self.demand_cleared_ms
        origin = self.measured.model.timeline.origin_ms
        return max([origin, *ends, *([cleared] if cleared <= at_ms else [])])

    def _fitted(self, item: Item, values: tuple[Value, ...]) -> tuple[Value, ...]:
        """Numbers as the item can hold them: its decimals, its sign or none, its width."""
        assert item.layout is not None
        if self._is_absolute:
            values = tuple(
                abs(value)
                if isinstance(value, Decimal)
                and self._strips_sign(item.point_at(index) or f"di:{item.di}")
                else value
                for index, value in enumerate(values)
            )
        fields = item.layout.fields
        return tuple(
            fit(fields[index % len(fields)], value) if isinstance(value, Decimal) else value
            for index, value in enumerate(values)
        )

    def _strips_sign(self, point: str) -> bool:
        return self._is_absolute and point.startswith(_WITH_DIRECTION)

    # --- the 1997 edition -------------------------------------------------------------------------

    def _of_1997(self, item: Item, clock: MeterClock, at_ms: int) -> tuple[Value, ...] | None:
        if item.di == "9000":
            return _if_any(self.measured.value("active_combined_total", at_ms))
        if _is_time_of_demand(item.di):
            return self._demand_time(item, clock, at_ms)
        if item.di.startswith(("B2", "B3")):
            return self._events.values_1997(item.di, clock, at_ms)
        return self._parameters.values_1997(item.di)

    def _count(self, item: Item) -> int:
        """How many members its reply has: all tariffs it counts, all that a block names."""
        assert item.layout is not None
        if item.layout.rounds_min == item.layout.rounds_max:
            return len(item.layout.fields) * item.layout.rounds_min
        return len(item.layout.fields) * (1 + self._tariffs)

    def _demand_time(self, item: Item, clock: MeterClock, at_ms: int) -> tuple[Value, ...] | None:
        """When a maximum demand occurred: B010 is of A010, without a year."""
        value = lookup(f"A{item.di[1:]}")
        if value is None or not value.points:
            return None
        since = self._demands_since(at_ms)
        found = self.demand.maximum(value.points[0], clock, since, at_ms)
        if found is None or found[1] is None:
            return None
        time = found[1]
        return (f"{time.date:%m-%d} {time.time:%H:%M}",)


def demand_point(name: str) -> str:
    """`... maximum demand active import of phase A ...` -> `import_a`."""
    words = name.partition("maximum demand ")[2].removesuffix(" before clearing")
    words = words.removesuffix(" total").replace(" of phase ", "_").replace("quadrant ", "q")
    point = words.lower().replace(" ", "_").removeprefix("active_")
    return (
        point if name.rpartition(" of phase ")[1] or point.startswith("rea") else f"{point}_total"
    )


def _is_time_of_demand(di: str) -> bool:
    return len(di) == DIGITS_1997 and di[:2] in ("B0", "B1", "B4", "B5", "B8", "B9")


def _if_any(*values: Value) -> tuple[Value, ...] | None:
    return values if any(value is not None for value in values) else None


def fit(one: Field, value: Decimal) -> Decimal:
    """A number as a field holds it: digits behind its decimals cut, its sign kept or not, and the
    greatest it can say instead of more.
    """
    sign, digits, exponent = value.as_tuple()
    if exponent == -one.scale and len(digits) < 2 * one.width and not (sign and not one.signed):
        return value
    if value < 0 and not one.signed:
        value = -value
    step = Decimal(1).scaleb(-one.scale)
    most: int = (8 if one.signed else 10) * 10 ** (2 * one.width - 1) - 1
    limit = step * most
    return max(-limit, min(limit, value)).quantize(step, rounding=ROUND_DOWN)
