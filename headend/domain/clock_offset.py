"""How far off a meter's clock is: from looks at it, and from days of measurements. Pure.

An offset is what the meter shows less what is right: positive when it is fast. A meter looked at
its clock at some moment of the exchange, and what it shows may be up to a second old; so one look
says within which bounds the truth lies, never more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

RESOLUTION_MS = 1000  # a meter shows whole seconds
DAY_MS = 86_400_000
SLACK_MS = 1000  # looks that contradict each other by more cannot all be right
# Meters may go wrong by half a second a day; what goes by twenty times as much has been set.
DRIFT_MAX_MS_PER_DAY = 10_000
JUMP_MIN_MS = 2000
DRIFT_POINTS_MIN = 3
DRIFT_POINTS_MAX = 60
DRIFT_SPAN_MIN_MS = 2 * DAY_MS


@dataclass(frozen=True, slots=True)
class Measured:
    """One look at a clock, or several: the truth lies within offset_ms +- uncertainty_ms."""

    offset_ms: int
    uncertainty_ms: int
    at_ms: int

    @property
    def low_ms(self) -> int:
        """The least it can be."""
        return self.offset_ms - self.uncertainty_ms

    @property
    def high_ms(self) -> int:
        """The most it can be."""
        return self.offset_ms + self.uncertainty_ms


@dataclass(frozen=True, slots=True)
class Drift:
    """How a clock drifts: milliseconds a day, from so many measurements over so many days."""

    ms_per_day: float
    measurements: int
    days: float


def measured(shown_ms: int, midpoint_ms: int, took_ms: float) -> Measured:
    """What one exchange says of a clock that shows whole seconds.

    Half of the second is taken off the shown time, half is uncertainty; so is half the exchange.
    """
    half = RESOLUTION_MS // 2
    return Measured(shown_ms + half - midpoint_ms, half + round(took_ms / 2), midpoint_ms)


def narrowed(looks: Sequence[Measured]) -> Measured | None:
    """What several looks within seconds say together; None when they cannot all be right.

    Each gives bounds, so the truth lies within the bounds of all: looks that fall on different
    parts of a second narrow it further than any one of them.
    """
    low = max(look.low_ms for look in looks)
    high = min(look.high_ms for look in looks)
    at_ms = sum(look.at_ms for look in looks) // len(looks)
    if low > high + SLACK_MS:
        return None
    return Measured((low + high) // 2, max(1, (abs(high - low) + 1) // 2), at_ms)


def has_jumped(before: Measured, now: Measured) -> bool:
    """Whether a clock was set between two measurements: no drift explains the difference."""
    days = max(0.0, (now.at_ms - before.at_ms) / DAY_MS)
    allowed_ms = before.uncertainty_ms + now.uncertainty_ms + DRIFT_MAX_MS_PER_DAY * days
    return abs(now.offset_ms - before.offset_ms) > allowed_ms + JUMP_MIN_MS


def drift(points: Sequence[Measured]) -> Drift | None:
    """The trend of measurements between which nobody has set the clock; None for too few.

    The median of all slopes (Theil and Sen): up to a quarter of the measurements may be wrong.
    """
    points = points[-DRIFT_POINTS_MAX:]
    if len(points) < DRIFT_POINTS_MIN or points[-1].at_ms - points[0].at_ms < DRIFT_SPAN_MIN_MS:
        return None
    slopes = [
        (b.offset_ms - a.offset_ms) * DAY_MS / (b.at_ms - a.at_ms)
        for a, b in combinations(points, 2)
        if b.at_ms > a.at_ms
    ]
    days = (points[-1].at_ms - points[0].at_ms) / DAY_MS
    return Drift(median(slopes), len(points), days)
