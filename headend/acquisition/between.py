"""Values of the past: which are missing, and whether one fits between its neighbours. Pure.

A live value is judged by the last good one before it. One that is fetched later has neighbours on
both sides: a register that would make a good later one impossible is not believed either.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from zoneinfo import ZoneInfo

from headend.domain.due import day_bounds_ms, local_day
from headend.domain.lives import Place
from headend.domain.reading import Verdict
from headend.vee import Base, Candidate, Judgement, RuleSet, judge

BEYOND_NEXT = "beyond_next"
CLOCK_SKEW = "clock_skew"

Stretch = tuple[int, int]
"""From (inclusive) and to (exclusive), UTC milliseconds."""


class Neighbours:
    """The good registers of one meter and point by which others are judged; it grows."""

    def __init__(self, good: Iterable[Base], place: Place, meter: str, point: str) -> None:
        known = sorted(good, key=lambda base: base.time_ms)
        self._times = [base.time_ms for base in known]
        self._values = [base.value for base in known]
        self._place, self._meter, self._point = place, meter, point

    def before(self, time_ms: int) -> Base | None:
        """The last one before an instant; what an event tells that the meter went on from since."""
        at = bisect_left(self._times, time_ms)
        found = Base(self._values[at - 1], self._times[at - 1]) if at else None
        start = self._place.starts(self._meter, self._point, time_ms)
        if start is not None and (found is None or start.at_ms > found.time_ms):
            return Base(start.value, start.at_ms)
        return found

    def after(self, time_ms: int) -> Base | None:
        """The first one behind an instant; None when the register began anew in between."""
        at = bisect_left(self._times, time_ms + 1)
        if at == len(self._times):
            return None
        found = Base(self._values[at], self._times[at])
        start = self._place.starts(self._meter, self._point, found.time_ms)
        return None if start is not None and start.at_ms > time_ms else found

    def add(self, value: Decimal, time_ms: int) -> None:
        """One more that is good."""
        at = bisect_left(self._times, time_ms)
        if at < len(self._times) and self._times[at] == time_ms:
            self._values[at] = value
            return
        self._times.insert(at, time_ms)
        self._values.insert(at, value)


def judge_between(
    rules: RuleSet, new: Candidate, before: Base | None, after: Base | None
) -> Judgement:
    """The verdict on a value of the past with what is known around it.

    Of two registers that are close together one may be stamped by the meter's clock and one by
    ours: an order that a tolerable difference of the two explains is no contradiction (flag
    `clock_skew`).
    """
    found = judge(rules, new, before)
    skewed = False
    if found.verdict is Verdict.HELD:
        if before is None or not _is_skew(rules, new, before):
            return found
        found, skewed = judge(rules, new, None), True
    if after is not None:
        later = replace(new, value=after.value, time_ms=after.time_ms, clock_offset_s=None)
        next_one = judge(rules, later, Base(new.value, new.time_ms))
        if next_one.verdict is Verdict.HELD and not _is_skew(rules, new, after):
            why = f"with {new.value} {new.unit} the next good register would be impossible: "
            flags = tuple(sorted({*found.flags, BEYOND_NEXT}))
            return Judgement(Verdict.HELD, flags, why + next_one.reason)
        skewed = skewed or next_one.verdict is Verdict.HELD
    return replace(found, flags=tuple(sorted({*found.flags, CLOCK_SKEW}))) if skewed else found


def _is_skew(rules: RuleSet, new: Candidate, other: Base) -> bool:
    """Whether two clocks that differ tolerably explain these two registers."""
    apart_s = abs(new.time_ms - other.time_ms) / 1000
    capacity_kw = rules.capacity_kw if new.capacity_kw is None else new.capacity_kw
    hours = Decimal(2 * rules.clock_tolerance_s) / 3600
    most = capacity_kw * hours / new.multiplier + new.count
    return apart_s <= rules.clock_tolerance_s and abs(new.value - other.value) <= most


def due_instants(from_ms: int, to_ms: int, interval_s: int, zone: ZoneInfo) -> Iterator[int]:
    """The instants of [from_ms, to_ms) at which a meter keeps a record, from local midnight on."""
    step_ms = interval_s * 1000
    at_ms = from_ms
    while at_ms < to_ms:
        start_ms, end_ms = day_bounds_ms(local_day(at_ms, zone), zone)
        first_ms = start_ms - (start_ms - at_ms) // step_ms * step_ms
        yield from range(first_ms, min(end_ms, to_ms), step_ms)
        at_ms = end_ms


def unknown_stretches(
    from_ms: int,
    to_ms: int,
    interval_s: int,
    zone: ZoneInfo,
    *,
    known: Sequence[Sequence[int]],
    holes: Sequence[Stretch] = (),
    wanted: Callable[[int], bool] = lambda _at_ms: True,
) -> list[Stretch]:
    """What has to be asked for: runs of instants that not every one of `known` has, no hole.

    `known`: the instants of each point. `wanted`: what is asked for at all.
    """
    there = set(known[0]).intersection(*known[1:]) if known else set()
    found: list[Stretch] = []
    run: list[int] = []
    for at_ms in due_instants(from_ms, to_ms, interval_s, zone):
        is_hole = any(start <= at_ms < end for start, end in holes)
        if at_ms in there or is_hole or not wanted(at_ms):
            _end_run(found, run)
        else:
            run.append(at_ms)
    _end_run(found, run)
    return found


def _end_run(found: list[Stretch], run: list[int]) -> None:
    if run:
        found.append((run[0], run[-1] + 1))
        run.clear()


def nearest_due(
    time_ms: int, owed: Mapping[int, int], taken: Iterable[int], *, half_interval_ms: int
) -> int | None:
    """The due instant that a value of `time_ms` serves: the nearest within its tolerance.

    `owed`: due instant -> tolerance. A value further away than half an interval serves none:
    another record is nearer.
    """
    used = set(taken)
    fitting = [
        due_ms
        for due_ms, tolerance_ms in owed.items()
        if abs(due_ms - time_ms) <= min(tolerance_ms, half_interval_ms) and due_ms not in used
    ]
    return min(fitting, key=lambda due_ms: (abs(due_ms - time_ms), due_ms), default=None)
