"""What the district's meters really counted.

A meter's daily register is what it shows when its own clock passes midnight: nobody can know more.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from decimal import Decimal

from simulators.curves import Constant, mix
from simulators.energy import (
    WRAP_NWH,
    EnergyModel,
    Supply,
    Timeline,
    exact_kwh,
    quanta_of_watts,
    shown_kwh,
)
from simulators.measured import Measured, Register
from simulators.meter645 import Meter645
from simulators.meter645_clock import MeterClock
from tests.district.script import DAY_MS, HOUR_MS, Script, Span, Swap

IMPORT, EXPORT = "active_import_total", "active_export_total"
POINTS = {"import": IMPORT, "export": EXPORT}
UTC_OFFSET_MS = 8 * HOUR_MS
WRAP_KWH = Decimal(1_000_000)


class Household(Measured):
    """Loads by night and day, panels by day; each day and each meter its own. Tables of hours."""

    def __init__(self, seed: int, timeline: Timeline, initial_nwh: dict[str, int]) -> None:
        super().__init__(EnergyModel(Supply((Constant(0),), (None,)), timeline))
        self._number = seed
        self._initial = initial_nwh
        self._hours = {
            IMPORT: [quanta_of_watts(200 + mix(seed, 1, hour) % 3000) for hour in range(24)],
            EXPORT: [
                quanta_of_watts(mix(seed, 2, hour) % 4000 if 7 <= hour < 18 else 0)
                for hour in range(24)
            ],
        }
        self._first_day = (timeline.origin_ms + UTC_OFFSET_MS) // DAY_MS
        self._sums: dict[str, list[int]] = {IMPORT: [0], EXPORT: [0]}
        self._origin = {point: self._integral(point, timeline.origin_ms) for point in self._hours}

    def nwh(self, point: str, at_ms: int) -> int:
        """A register, exactly; it does not wrap."""
        at_ms = max(at_ms, self.model.timeline.origin_ms)
        return self._initial[point] + self._integral(point, at_ms) - self._origin[point]

    def register(self, point: str, at_ms: int) -> Register | None:
        """The two totals; nothing else."""
        if point not in self._hours:
            return None
        nwh = self.nwh(point, at_ms)
        return Register(exact_kwh(nwh), shown_kwh(nwh))

    def wraps(self, point: str, from_ms: int, to_ms: int) -> int:
        """How often a register passed its end between two instants."""
        return self.nwh(point, to_ms) // WRAP_NWH - self.nwh(point, from_ms) // WRAP_NWH

    def _integral(self, point: str, at_ms: int) -> int:
        day, within = divmod(at_ms + UTC_OFFSET_MS, DAY_MS)
        hours, sums = self._hours[point], self._sums[point]
        while len(sums) <= day - self._first_day:
            tenths = self._tenths(self._first_day + len(sums) - 1)
            sums.append(sums[-1] + sum(hours) * HOUR_MS * tenths)
        hour, rest = divmod(within, HOUR_MS)
        today = sum(hours[:hour]) * HOUR_MS + hours[hour] * rest
        return (sums[day - self._first_day] + today * self._tenths(day)) // 10

    def _tenths(self, day: int) -> int:
        """No two days are alike: a day that is billed as another is found."""
        return 7 + mix(self._number, 3, day) % 7


@dataclass(slots=True)
class Life:
    """One device where it hung."""

    meter: str
    device: Meter645
    source: Household
    clock: MeterClock
    from_ms: int
    until_ms: int | None = None

    def frozen_at_ms(self, midnight_ms: int) -> int:
        """When its own clock passes a local midnight."""
        return self.clock.wall_ms(midnight_ms + UTC_OFFSET_MS)

    def shown(self, point: str, at_ms: int) -> Decimal:
        """What it shows at an instant."""
        register = self.source.register(point, at_ms)
        assert register is not None
        return register.shown


@dataclass(slots=True)
class Place:
    """A service point: the devices that hung there, in order, and where."""

    name: str
    bus: str
    has_load: bool
    lives: list[Life] = field(default_factory=list)

    def at(self, at_ms: int) -> Life:
        """The device that hung there."""
        starts = [life.from_ms for life in self.lives]
        return self.lives[max(0, bisect_right(starts, at_ms) - 1)]

    def day_kwh(self, direction: str, midnight_ms: int) -> Decimal:
        """What the registers say was counted from one midnight to the next."""
        point = POINTS[direction]
        end_ms = midnight_ms + DAY_MS
        total = Decimal(0)
        first, last = self.at(midnight_ms), self.at(end_ms)
        for life in self.lives[self.lives.index(first) : self.lives.index(last) + 1]:
            from_ms = life.frozen_at_ms(midnight_ms) if life is first else life.from_ms
            to_ms = life.until_ms if life is not last else life.frozen_at_ms(end_ms)
            assert to_ms is not None
            wraps = life.source.wraps(point, from_ms, to_ms)
            total += life.shown(point, to_ms) - life.shown(point, from_ms) + wraps * WRAP_KWH
        return total


def is_kept(place: Place, script: Script, instant_ms: int) -> bool:
    """Whether the meter holds its register of an instant: it answers, and had power then."""
    life = place.at(instant_ms)
    if life.meter in script.silent:
        return False
    at_ms = life.frozen_at_ms(instant_ms)
    if at_ms < life.from_ms:
        return False
    return not any(span.name == life.meter and span.covers(at_ms) for span in script.dark)


def is_reachable(place: Place, script: Script, instant_ms: int, until_ms: int) -> bool:
    """Whether the head-end was up all the time between, and could speak to what it knows there."""
    if place.name.removeprefix("SP-") in script.silent:
        return False
    spans: list[Span] = list(script.dark)
    if script.outage is not None:
        spans.append(script.outage)
    if script.crash is not None:
        spans.append(script.crash)
    concerned = {"", place.bus, *(life.meter for life in place.lives)}
    spans += [_undeclared(swap) for swap in script.swaps]
    return not any(
        span.from_ms < until_ms and instant_ms < span.until_ms
        for span in spans
        if span.name in concerned
    )


def _undeclared(swap: Swap) -> Span:
    return Span(swap.meter, swap.at_ms, swap.declared_ms)
