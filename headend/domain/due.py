"""Due points: what has to be read, written down before reading starts.

Each ends in exactly one state; the list of a day cannot shrink.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from headend.domain.clock import to_ms


class DueState(StrEnum):
    """The states of contract §1. `open` is the only one that changes."""

    OPEN = "open"
    READ = "read"
    LATE = "late"
    BACKFILLED = "backfilled"
    ESTIMATED = "estimated"
    MISSING = "missing"

    __hash__ = str.__hash__  # of a plain Enum it would be a call into Python


class DueKey(NamedTuple):
    """One thing that is due: a point of a meter for an instant (UTC milliseconds)."""

    meter: str
    point: str
    due_ms: int


@dataclass(frozen=True, slots=True)
class DuePoint:
    """A line of the frozen list.

    `bus`, `area` and `concentrator` are kept as they were when it was frozen.
    """

    key: DueKey
    bus: str
    area: str | None
    window_end_ms: int  # read up to here: `read`; later: `late`
    concentrator: str | None = None


def local_day(time_ms: int, zone: ZoneInfo) -> date:
    """The local day an instant belongs to: its start is inclusive, the next midnight is not."""
    return datetime.fromtimestamp(time_ms // 1000, tz=zone).date()


@lru_cache(maxsize=128)  # asked for every instant of the same few days
def day_bounds_ms(day: date, zone: ZoneInfo) -> tuple[int, int]:
    """Start (inclusive) and end (exclusive) of a local day in UTC ms: 23, 24 or 25 hours apart."""
    start = datetime.combine(day, time(), tzinfo=zone)
    end = datetime.combine(day + timedelta(days=1), time(), tzinfo=zone)
    return to_ms(start.astimezone(UTC)), to_ms(end.astimezone(UTC))
