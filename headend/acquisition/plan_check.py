"""Whether everything that falls due on a bus can be read in time. Pure arithmetic.

A line serves one meter at a time, and whoever must be read first goes first. Then everything is in
time exactly when, from every moment on at which much falls due at once, the line's time for all
that has to be done by some later moment is no longer than the time till then; whoever is being read
when it begins is finished first. (Demand bound of deadline scheduling without preemption; from each
start only the deadlines up to the moment at which the line has caught up need to be looked at.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor

DAY_S = 86_400
_EPSILON_S = 1e-9
NEVER_S = 3600.0  # so far ahead a line is looked at that falls ever further behind


@dataclass(frozen=True, slots=True)
class Load:
    """One plan line of one meter.

    every_s: seconds between two due instants, counted from local midnight; None: once a day at
    `at_s` seconds after midnight. within_s: so long after the instant it must have been read.
    needs_s: the line's time for it, retries included.
    """

    meter: str
    every_s: int | None
    at_s: int
    within_s: float
    needs_s: float


@dataclass(frozen=True, slots=True)
class Moment:
    """needs_s of the line's time are to be done within_s after at_s (seconds of the local day)."""

    at_s: int
    within_s: float
    needs_s: float

    @property
    def share(self) -> float:
        """Above 1 it cannot be done."""
        return self.needs_s / self.within_s


@dataclass(frozen=True, slots=True)
class BusLoad:
    """cycle_s: the shortest interval on the bus. share: part of all time that the line is in use.

    fullest: the moment with the least room; None for a bus without meters.
    """

    cycle_s: int
    share: float
    fullest: Moment | None

    @property
    def fits(self) -> bool:
        """Everything is read in time."""
        return self.share <= 1 and (self.fullest is None or self.fullest.share <= 1)

    @property
    def needs_s(self) -> float:
        """The line's time in an average cycle."""
        return self.share * self.cycle_s


@dataclass(frozen=True, slots=True)
class _Group:
    """Loads that fall due together and have to be done together."""

    every_s: int | None
    at_s: int
    within_s: float
    needs_s: float
    longest_s: float

    @property
    def period_s(self) -> int:
        return self.every_s or DAY_S

    def first_from(self, start_s: float) -> float:
        """The first due instant at or after a moment."""
        return ceil((start_s - self.at_s) / self.period_s) * self.period_s + self.at_s

    def demand_s(self, start_s: float, until_s: float) -> float:
        """What falls due from a moment on and must be done by another."""
        last = until_s - self.within_s - self.first_from(start_s)
        return (
            0.0 if last < -_EPSILON_S else (floor(last / self.period_s + 1e-12) + 1) * self.needs_s
        )


def bus_load(loads: Iterable[Load]) -> BusLoad:
    """What the plans of all meters of one bus ask of it."""
    groups = _groups(loads)
    if not groups:
        return BusLoad(DAY_S, 0.0, None)
    cycle_s = min(group.period_s for group in groups)
    share = sum(group.needs_s / group.period_s for group in groups)
    starts = sorted({0, *(group.at_s for group in groups)})
    moments = [moment for start in starts for moment in _moments(groups, start, share)]
    return BusLoad(cycle_s, share, max(moments, key=lambda moment: moment.share))


def fits(loads: Iterable[Load]) -> bool:
    """`bus_load(loads).fits`, as soon as that is known: for trying many changes."""
    groups = _groups(loads)
    share = sum(group.needs_s / group.period_s for group in groups)
    if not groups or share > 1:
        return not groups
    starts = sorted({0, *(group.at_s for group in groups)})
    return all(moment.share <= 1 for start in starts for moment in _moments(groups, start, share))


def _groups(loads: Iterable[Load]) -> list[_Group]:
    def kind(load: Load) -> tuple[int, int, float]:
        return (load.every_s or DAY_S, load.at_s if load.every_s is None else 0, load.within_s)

    found = []
    for _, same in groupby(sorted(loads, key=kind), kind):
        members = list(same)
        first = members[0]
        found.append(
            _Group(
                first.every_s,
                first.at_s if first.every_s is None else 0,
                first.within_s,
                sum(load.needs_s for load in members),
                max(load.needs_s for load in members),
            )
        )
    return found


def _moments(groups: Sequence[_Group], start_s: int, share: float) -> Iterable[Moment]:
    """Every deadline from a start on, until the line has caught up (a day at most).

    A line that never catches up fails whatever is looked at: then the first deadlines are enough.
    """
    longest_s = max(group.within_s for group in groups)
    busy_s = min(DAY_S, longest_s + NEVER_S) if share > 1 else _busy_s(groups, start_s)
    horizon_s = start_s + busy_s
    deadlines = {
        due_s + group.within_s for group in groups for due_s in _dues(group, start_s, horizon_s)
    }
    for until_s in sorted(deadlines):
        within_s = until_s - start_s
        demand_s = sum(group.demand_s(start_s, until_s) for group in groups)
        # A meter whose own turn may come later is not broken off.
        running_s = max(
            (group.longest_s for group in groups if group.within_s > within_s), default=0.0
        )
        yield Moment(start_s, within_s, demand_s + running_s)


def _dues(group: _Group, start_s: float, horizon_s: float) -> Iterable[float]:
    due_s = group.first_from(start_s)
    yield due_s
    while (due_s := due_s + group.period_s) <= horizon_s:
        yield due_s


def _busy_s(groups: Sequence[_Group], start_s: int) -> float:
    """How long the line is busy without a pause when everything begins at `start_s`."""
    longest_s = max(group.longest_s for group in groups)
    busy_s = longest_s + sum(g.needs_s for g in groups if g.first_from(start_s) == start_s)
    while busy_s < DAY_S:
        due_s = longest_s
        for group in groups:
            first_s = group.first_from(start_s) - start_s
            if first_s < busy_s:
                due_s += ceil((busy_s - first_s) / group.period_s) * group.needs_s
        if due_s <= busy_s + _EPSILON_S:
            return busy_s
        busy_s = due_s
    return DAY_S
