"""A meter's registers as a pure function of time: exact, in integers, to the nanowatt-hour.

Power is an integer count of *quanta* of 3.6 mW, because one quantum through one millisecond is
exactly one nanowatt-hour: integrating a piecewise-constant power is then integer addition, and
every register has a finite decimal expansion (kWh with twelve decimals).

Two times are kept apart. *Wall time* is what a clock shows (milliseconds since 1970 UTC). *Energy
time* is what the curves are driven by: a `Timeline` maps one to the other, faster for a demo,
standing still once loads are switched off. Import and export are integrated apart from the sign of
the net power of each minute and never netted afterwards.

No clock, no randomness of its own: whoever asks hands the time in.
"""

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate
from math import isqrt
from typing import Literal, NamedTuple

from simulators.curves import MINUTES_A_DAY, Constant, Curve

NWH_A_KWH = 10**12
MINUTE_MS = 60_000
DAY_MS = MINUTES_A_DAY * MINUTE_MS
WRAP_NWH = 1_000_000 * NWH_A_KWH  # XXXXXX.XX kWh: the register's next after 999999.99 is 0
_COUNT_NWH = NWH_A_KWH // 100  # one count of the display, 0.01 kWh
_DAYS_KEPT = 5  # today and what a reader asks of the past days, at some 20 kB each

Direction = Literal["import", "export", "q1", "q2", "q3", "q4", "s_import", "s_export"]


def quanta_of_watts(watts: int) -> int:
    """Whole quanta of 3.6 mW nearest below (towards zero) a number of watts."""
    sign = -1 if watts < 0 else 1
    return sign * (abs(watts) * 2500 // 9)


def watts_of_quanta(quanta: int) -> Decimal:
    """Exact watts of a number of quanta."""
    return Decimal(quanta) * Decimal("0.0036")


def exact_kwh(nwh: int) -> Decimal:
    """All twelve decimals."""
    return Decimal(nwh).scaleb(-12)


def shown_kwh(nwh: int) -> Decimal:
    """What the register shows: cut to 0.01 kWh, wrapped at 1,000,000 kWh."""
    return Decimal(nwh % WRAP_NWH // _COUNT_NWH).scaleb(-2)


class Channel(NamedTuple):
    """One register: a direction, a tariff (0 = total), a phase (0 = all, 1..3 = a..c)."""

    direction: Direction
    tariff: int = 0
    phase: int = 0


class Timeline:
    """Wall time to energy time, in whole milliseconds; rises or stands, never falls.

    Before `origin_ms` energy time stands (the meters were not yet installed); from there on it
    runs at `speed` times wall time until a later change. A change only touches the time behind it,
    so what was once true stays true.
    """

    def __init__(self, origin_ms: int, *, speed: Fraction | int = 1) -> None:
        self.origin_ms = origin_ms
        self._starts = [origin_ms]
        self._segments: list[tuple[int, Fraction]] = [(origin_ms, Fraction(speed))]

    def energy_ms(self, at_ms: int) -> int:
        """Energy time at a wall time."""
        index = bisect_right(self._starts, at_ms) - 1
        if index < 0:
            return self.origin_ms
        energy_ms, speed = self._segments[index]
        elapsed = at_ms - self._starts[index]
        return energy_ms + elapsed * speed.numerator // speed.denominator

    def speed(self, at_ms: int) -> Fraction:
        """How many milliseconds of energy time pass in one of wall time; 0 = standing still."""
        index = bisect_right(self._starts, at_ms) - 1
        return self._segments[index][1] if index >= 0 else Fraction(0)

    def change(self, at_ms: int, speed: Fraction | int) -> None:
        """From `at_ms` on energy time runs at `speed`; ValueError before the latest change."""
        if at_ms < self._starts[-1]:
            msg = f"the past cannot be changed: {at_ms} is before {self._starts[-1]}"
            raise ValueError(msg)
        if speed < 0:
            msg = f"speed must not be negative, got {speed}"
            raise ValueError(msg)
        energy_ms = self.energy_ms(at_ms)
        if at_ms == self._starts[-1]:
            self._segments[-1] = (energy_ms, Fraction(speed))
        else:
            self._starts.append(at_ms)
            self._segments.append((energy_ms, Fraction(speed)))

    def switch_off(self, at_ms: int) -> None:
        """Loads and panels to zero: every register stands still from `at_ms` on."""
        self.change(at_ms, 0)


@dataclass(frozen=True, slots=True)
class TariffTable:
    """Which of the tariffs 1..4 counts, by minute of day; the same on every day.

    `changes`: (minute, tariff) in rising order, the first at minute 0.
    """

    changes: tuple[tuple[int, int], ...] = (
        (0, 4), (420, 3), (480, 2), (660, 1), (720, 3), (1080, 1), (1260, 2), (1380, 4),
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Refuse a table that leaves a minute without a tariff."""
        minutes = [minute for minute, _ in self.changes]
        if not minutes or minutes[0] != 0 or minutes != sorted(set(minutes)):
            msg = f"a tariff table rises from minute 0, got {self.changes}"
            raise ValueError(msg)

    def tariffs(self) -> tuple[int, ...]:
        """The tariff of each of the 1440 minutes."""
        found: list[int] = []
        for index, (start, tariff) in enumerate(self.changes):
            following = self.changes[index + 1][0] if index + 1 < len(self.changes) else 1440
            found.extend([tariff] * (following - start))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Supply:
    """What stands behind a meter: one load and one set of panels for each of its phases.

    `tan_phi_mille`: reactive power = |active power| x this / 1000, always inductive.
    """

    loads: tuple[Curve, ...] = (Constant(1000),)
    panels: tuple[Curve | None, ...] = (None,)
    tan_phi_mille: int = 203  # cos phi 0.98

    def __post_init__(self) -> None:
        """Refuse a supply whose phases do not pair up."""
        if len(self.loads) not in {1, 3} or len(self.loads) != len(self.panels):
            msg = (
                f"1 or 3 phases, as many panels as loads; got {len(self.loads)}/{len(self.panels)}"
            )
            raise ValueError(msg)

    @property
    def phases(self) -> int:
        """1 or 3."""
        return len(self.loads)

    def day_net_quanta(self, day: int) -> "tuple[array[int], ...]":
        """Net power in each of a day's 1440 minutes, one row a phase; negative = into the grid."""
        return tuple(
            array(
                "q",
                (
                    quanta_of_watts(draw - give)
                    for draw, give in zip(
                        load.day_watts(day), (panel or Constant(0)).day_watts(day), strict=True
                    )
                ),
            )
            for load, panel in zip(self.loads, self.panels, strict=True)
        )


@dataclass(slots=True)
class _Day:
    """The 1440 minutes of a day and the prefix sums asked for so far (nWh at minute starts)."""

    net: tuple["array[int]", ...]  # quanta, one row a phase
    prefixes: dict[Channel, "array[int]"] = field(default_factory=dict)


class EnergyModel:
    """Registers and powers of one metering point.

    `initial`: register contents in nWh at the timeline's origin, by total and tariff channel; a
    total that is not named is the sum of its tariffs, so they agree to the last digit.
    `utc_offset_min` places local midnight: a meter knows one fixed offset and no summer time.
    """

    def __init__(
        self,
        supply: Supply,
        timeline: Timeline,
        *,
        tariffs: TariffTable | None = None,
        initial: Mapping[Channel, int] | None = None,
        utc_offset_min: int = 480,
    ) -> None:
        self.supply = supply
        self.timeline = timeline
        self.tariff_changes = (tariffs or TariffTable()).changes
        self._tariffs = TariffTable(self.tariff_changes).tariffs()
        self._initial = _with_totals(dict(initial or {}))
        self._offset_ms = utc_offset_min * MINUTE_MS
        self._first_day = (timeline.origin_ms + self._offset_ms) // DAY_MS
        self._days: OrderedDict[int, _Day] = OrderedDict()
        self._bases: dict[Channel, int] = {}
        self._before: dict[Channel, list[int]] = {}  # integral from the first day to each day

    @property
    def tariff_count(self) -> int:
        """The highest tariff that ever counts."""
        return max(self._tariffs)

    def net_quanta(self, at_ms: int) -> tuple[int, ...]:
        """Net power of each phase right now; zeros while energy time stands still."""
        if not self.timeline.speed(at_ms):
            return (0,) * self.supply.phases
        day, within = divmod(self.timeline.energy_ms(at_ms) + self._offset_ms, DAY_MS)
        return tuple(row[within // MINUTE_MS] for row in self._day(day).net)

    def reactive_quanta(self, at_ms: int) -> tuple[int, ...]:
        """Reactive power of each phase right now (inductive, never negative)."""
        return tuple(_reactive(net, self.supply.tan_phi_mille) for net in self.net_quanta(at_ms))

    def register_nwh(self, channel: Channel, at_ms: int) -> int:
        """A register's exact content at a wall time; never falls, does not wrap."""
        base = self._bases.get(channel)
        if base is None:
            start = self._integral(channel, self.timeline.origin_ms)
            base = self._bases[channel] = self._initial.get(channel, 0) - start
        return base + self._integral(channel, self.timeline.energy_ms(at_ms))

    def since_midnight_nwh(self, channel: Channel, at_ms: int) -> int:
        """What a channel has counted since the latest local midnight of energy time."""
        energy_ms = self.timeline.energy_ms(at_ms)
        midnight_ms = energy_ms - (energy_ms + self._offset_ms) % DAY_MS
        return self._integral(channel, energy_ms) - self._integral(
            channel, max(midnight_ms, self.timeline.origin_ms)
        )

    def _integral(self, channel: Channel, energy_ms: int) -> int:
        """NWh from the start of the first day to an instant of energy time."""
        day, within = divmod(energy_ms + self._offset_ms, DAY_MS)
        minute, rest_ms = divmod(within, MINUTE_MS)
        before = self._day_start(channel, day)
        if not within:
            return before
        prefix = self._prefix(channel, day)
        whole = before + prefix[minute]
        if not rest_ms:
            return whole
        in_minute = prefix[minute + 1] - prefix[minute]  # a multiple of MINUTE_MS by construction
        return whole + in_minute // MINUTE_MS * rest_ms

    def _day_start(self, channel: Channel, day: int) -> int:
        sums = self._before.setdefault(channel, [0])
        while len(sums) <= day - self._first_day:
            done = self._first_day + len(sums) - 1
            sums.append(sums[-1] + sum(self._steps(channel, self._day(done))))
        return sums[day - self._first_day]

    def _day(self, day: int) -> _Day:
        cached = self._days.get(day)
        if cached is None:
            cached = self._days[day] = _Day(self.supply.day_net_quanta(day))
            if len(self._days) > _DAYS_KEPT:
                self._days.popitem(last=False)
        else:
            self._days.move_to_end(day)
        return cached

    def _prefix(self, channel: Channel, day: int) -> "array[int]":
        cached = self._day(day)
        prefix = cached.prefixes.get(channel)
        if prefix is None:
            steps = self._steps(channel, cached)
            prefix = cached.prefixes[channel] = array("q", accumulate(steps, initial=0))
        return prefix

    def _steps(self, channel: Channel, day: _Day) -> Iterator[int]:
        """What each of a day's minutes adds to a channel (nWh)."""
        power = _selector(channel, self.supply.tan_phi_mille)
        tariff = channel.tariff
        return (
            power(net) * MINUTE_MS if tariff in (0, counting) else 0
            for *net, counting in zip(*day.net, self._tariffs, strict=True)
        )


def _reactive(net: int, tan_phi_mille: int) -> int:
    return abs(net) * tan_phi_mille // 1000


def _selector(channel: Channel, tan_phi_mille: int) -> Callable[[Sequence[int]], int]:
    """What of a minute's phase powers a channel integrates (quanta, never negative)."""
    part = slice(channel.phase - 1, channel.phase) if channel.phase else slice(None)
    match channel.direction:
        case "import":
            return lambda net: max(0, sum(net[part]))
        case "export":
            return lambda net: max(0, -sum(net[part]))
        case "q1":
            return lambda net: _reactive_of(net[part], tan_phi_mille, exporting=False)
        case "q2":
            return lambda net: _reactive_of(net[part], tan_phi_mille, exporting=True)
        case "s_import":
            return lambda net: _apparent_of(net[part], tan_phi_mille, exporting=False)
        case "s_export":
            return lambda net: _apparent_of(net[part], tan_phi_mille, exporting=True)
        case "q3" | "q4":  # capacitive: nothing behind our meters is
            return lambda _net: 0


def _reactive_of(net: Sequence[int], tan_phi_mille: int, *, exporting: bool) -> int:
    if (sum(net) < 0) is not exporting:
        return 0
    return sum(_reactive(phase, tan_phi_mille) for phase in net)


def apparent_quanta(net: int, reactive: int) -> int:
    """Whole quanta of apparent power of an active and a reactive one."""
    return isqrt(net * net + reactive * reactive)


def _apparent_of(net: Sequence[int], tan_phi_mille: int, *, exporting: bool) -> int:
    reactive = _reactive_of(net, tan_phi_mille, exporting=exporting)
    if (sum(net) < 0) is not exporting:
        return 0
    return apparent_quanta(sum(net), reactive)


def _with_totals(initial: dict[Channel, int]) -> dict[Channel, int]:
    """Totals that were not given, as the sum of their tariffs."""
    totals: dict[Channel, int] = {}
    for channel, nwh in initial.items():
        if nwh < 0:
            msg = f"a register starts at 0 or above: {channel} = {nwh}"
            raise ValueError(msg)
        if channel.tariff:
            total = Channel(channel.direction, 0, channel.phase)
            totals[total] = totals.get(total, 0) + nwh
    return totals | initial
