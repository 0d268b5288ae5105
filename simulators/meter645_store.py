"""What a simulated meter keeps of the past: stores of a limited depth, filled by its own clock.

A store holds instants, not numbers: what was counted and measured at an instant follows from the
energy model, so that a deep store costs little. An instant the meter slept through is not in it.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Literal

from protocols.dlt645.formats import MeterTime
from simulators.energy import DAY_MS
from simulators.meter645_clock import MeterClock, meter_time

Effect = Literal["missing", "bad", "ff"]
HOUR_MS = 3_600_000
# The instants in (after, until] of local milliseconds that are due, rising; the latest `most`.
Due = Callable[[int, int, int], Iterable[int]]


@dataclass(frozen=True, slots=True)
class Freeze:
    """An instant kept: the meter's time it bears, and the wall time whose values it holds.

    `values` replaces the model's where a test wants others. `effect`: `bad` = the record is known
    to be damaged, `ff` = the instant is kept and its values are not.
    """

    time: MeterTime
    at_ms: int
    values: Mapping[str, Decimal] = field(default_factory=dict)
    effect: Literal["", "bad", "ff"] = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """A span of wall time, `from_ms` <= t < `until_ms`, in which nothing good was kept.

    `effect`: the instants are `missing` (the meter had no power), kept as `bad`, or kept without
    values (`ff`). `stores`: of which stores, by name (`load`, `daily_freeze`, ...); empty = all.
    """

    from_ms: int
    until_ms: int
    effect: Effect = "missing"
    stores: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse a gap that ends before it begins."""
        if self.until_ms < self.from_ms:
            msg = f"a gap ends after it begins, not {self.from_ms}..{self.until_ms}"
            raise ValueError(msg)


def every(step_ms: int, offset_ms: int = 0) -> Due:
    """Due at the multiples of a step and an offset, counted from midnight of the meter's clock."""

    def due(after: int, until: int, most: int) -> Iterable[int]:
        first, last = (after - offset_ms) // step_ms, (until - offset_ms) // step_ms
        return (n * step_ms + offset_ms for n in range(max(first, last - most) + 1, last + 1))

    return due


def monthly(day: int = 1, hour: int = 0, minute: int = 0) -> Due:
    """Due once a month, at a day and time of the meter's clock."""
    within = hour * HOUR_MS + minute * 60_000

    def due(after: int, until: int, most: int) -> Iterable[int]:
        found: list[int] = []
        today = until // DAY_MS
        while today * DAY_MS + DAY_MS > after and len(found) < most:
            instant = today * DAY_MS + within
            if meter_time(instant).date.day == day and after < instant <= until:
                found.append(instant)
            today -= 1
        return reversed(found)

    return due


class Store:
    """The latest `depth` instants of one kind, as the meter's clock passes them.

    `from_ms`: wall time before which there was no meter.
    """

    def __init__(
        self, name: str, due: Due, depth: int, *, from_ms: int, gaps: Sequence[Gap] = ()
    ) -> None:
        if depth < 1:
            msg = f"a store holds at least one record, not {depth}"
            raise ValueError(msg)
        self.name = name
        self.depth = depth
        self.gaps = tuple(gap for gap in gaps if not gap.stores or name in gap.stores)
        self._due = due
        self._kept: list[Freeze] = []  # oldest first
        self._through_ms = from_ms

    def take(self, clock: MeterClock, now_ms: int) -> None:
        """Keep every instant the clock has passed since it was last looked at."""
        if now_ms <= self._through_ms:
            return
        after, until = clock.local_ms(self._through_ms), clock.local_ms(now_ms)
        self._through_ms = now_ms
        most = self.depth + sum(gap.until_ms - gap.from_ms for gap in self.gaps) // 60_000
        for local_ms in self._due(after, until, most):
            self._keep(Freeze(meter_time(local_ms), clock.wall_ms(local_ms)))
        del self._kept[: -self.depth]

    def _keep(self, freeze: Freeze) -> None:
        for gap in self.gaps:
            if gap.from_ms <= freeze.at_ms < gap.until_ms:
                if gap.effect == "missing":
                    return
                freeze = replace(freeze, effect=gap.effect)
        self._kept.append(freeze)

    def add(self, freeze: Freeze) -> None:
        """Keep one instant by command."""
        self._kept.append(freeze)
        del self._kept[: -self.depth]

    def replace(self, freezes: Iterable[Freeze], now_ms: int) -> None:
        """These records (oldest first) instead of what it holds; later instants come on top."""
        self._through_ms = max(now_ms, self._through_ms)
        self._kept = list(freezes)[-self.depth :]

    def change_due(self, due: Due) -> None:
        """From now on keep at other instants."""
        self._due = due

    def nth_last(self, nth: int) -> Freeze | None:
        """The n-th last record, 1 = the newest."""
        return self._kept[-nth] if 1 <= nth <= len(self._kept) else None

    def from_time(self, time: MeterTime) -> Sequence[Freeze]:
        """The records from a time of the meter's clock on, oldest first."""
        if all(a.time <= b.time for a, b in zip(self._kept, self._kept[1:], strict=False)):
            return self._kept[bisect_left(self._kept, time, key=lambda kept: kept.time) :]
        # The clock was set back: what bears a time twice was kept twice.
        return [kept for kept in self._kept if kept.time >= time]

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._kept)

    def __iter__(self) -> Iterator[Freeze]:
        """The records, oldest first."""
        return iter(tuple(self._kept))
