"""Reading plans: which points of a meter are due at which instants. Pure.

Instants are aligned to the local clock: an interval plan counts from local midnight, a daily one
names a local time. A day with a clock change has more or fewer instants, never a doubled one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from headend.domain.clock import to_ms
from headend.domain.due import day_bounds_ms, local_day


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """One line of a plan: `points` every `interval_s` seconds, or daily at `at`.

    `tolerance_ms`: a live register within this distance of the instant serves it. `window_ms`:
    what is read later than this after the instant is `late`. `from_ms`/`until_ms` bound the plan
    (inclusive, exclusive).
    """

    points: tuple[str, ...]
    tolerance_ms: int
    window_ms: int
    interval_s: int | None = None
    at: time = time()
    source: Literal["live", "freeze"] = "live"
    from_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Backfilling:
    """What is fetched afterwards from what meters keep.

    `daily`: daily points, from the registers that meters freeze by themselves. `load_records`: all
    points that load records hold. `days`: how far back.
    """

    daily: bool = True
    load_records: bool = False
    days: int = 35


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """A named set of entries; meters point at it."""

    name: str
    entries: tuple[PlanEntry, ...]
    backfill: Backfilling = Backfilling()


def instants(entry: PlanEntry, start_ms: int, end_ms: int, zone: ZoneInfo) -> Iterator[int]:
    """The entry's due instants in [start_ms, end_ms), ascending, in UTC milliseconds."""
    if entry.from_ms is not None:
        start_ms = max(start_ms, entry.from_ms)
    if entry.until_ms is not None:
        end_ms = min(end_ms, entry.until_ms)
    if start_ms >= end_ms:
        return
    day = local_day(start_ms, zone)
    while True:
        day_start_ms, day_end_ms = day_bounds_ms(day, zone)
        if day_start_ms >= end_ms:
            return
        for due_ms in _instants_of_day(entry, day, day_start_ms, day_end_ms, zone, start_ms):
            if due_ms >= end_ms:
                return
            if due_ms >= start_ms:
                yield due_ms
        day += timedelta(days=1)


def _instants_of_day(
    entry: PlanEntry, day: date, start_ms: int, end_ms: int, zone: ZoneInfo, from_ms: int
) -> Iterator[int]:
    if entry.interval_s is None:
        yield to_ms(datetime.combine(day, entry.at, tzinfo=zone))
        return
    step_ms = entry.interval_s * 1000
    skipped = max(0, from_ms - start_ms + step_ms - 1) // step_ms
    yield from range(start_ms + skipped * step_ms, end_ms, step_ms)
