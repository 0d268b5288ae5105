"""Whether a meter's clock is set, and when it may be. Pure.

An offset is what the meter shows less what is right: positive when it is fast.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum
from zoneinfo import ZoneInfo

from headend.config.sections.control import ClockControlSection
from headend.domain.clock import to_datetime
from headend.domain.clock_offset import Measured, measured
from headend.domain.errors import PolicyError

__all__ = ["Measured", "Verdict", "agreed", "forbidden", "measured", "verdict"]

HOUR_S = 3600
DAY_S = 86_400
AGREE_SLACK_MS = 1000


class Verdict(Enum):
    """What is to be done about a difference."""

    LEAVE = "leave"
    SYNC = "sync"
    TICKET = "ticket"


def agreed(looks: Sequence[Measured]) -> Measured:
    """The surest of several looks. PolicyError when two of them cannot both be right.

    One look is never enough: a delayed answer moves what is measured without a trace.
    """
    if len(looks) < 2:
        msg = "one measurement is not enough to judge a clock"
        raise PolicyError(msg)
    low = max(look.offset_ms - look.uncertainty_ms for look in looks)
    high = min(look.offset_ms + look.uncertainty_ms for look in looks)
    if low > high + AGREE_SLACK_MS:
        shown = ", ".join(f"{look.offset_ms / 1000:+.1f} s" for look in looks)
        msg = f"two looks at the clock disagree ({shown}): it is not set on such a ground"
        raise PolicyError(msg)
    return min(looks, key=lambda look: look.uncertainty_ms)


def verdict(look: Measured, policy: ClockControlSection) -> Verdict:
    """What the policy says of a difference; within its uncertainty it is left alone."""
    off_ms = abs(look.offset_ms)
    if off_ms - look.uncertainty_ms <= policy.leave_s * 1000:
        return Verdict.LEAVE
    return Verdict.TICKET if off_ms > policy.ticket_s * 1000 else Verdict.SYNC


def forbidden(
    now_ms: int, offset_ms: int, policy: ClockControlSection, zone: ZoneInfo
) -> str | None:
    """Why the clock may not be set now; None when it may.

    Both times count, the right one and the meter's: what happens at midnight, at a full hour or at
    the edge of an interval must happen once, and not twice or never.
    """
    ours_s, meters_s = _second_of_day(now_ms, zone), _second_of_day(now_ms + offset_ms, zone)
    for whose, second in (("our", ours_s), ("the meter's", meters_s)):
        if _distance(second, DAY_S) < policy.midnight_guard_s:
            return f"{_clock(second)} by {whose} clock is too close to midnight"
        if _distance(second, HOUR_S) < policy.hour_guard_s:
            return f"{_clock(second)} by {whose} clock is too close to the full hour"
    for whose, at_ms in (("our", now_ms), ("the meter's", now_ms + offset_ms)):
        local = to_datetime(at_ms).astimezone(zone)
        settlement = _near_settlement(local, policy)
        if settlement is not None:
            return f"{local:%d %H:%M} by {whose} clock is too close to the settlement {settlement}"
    # A clock that is further out crosses an edge whenever it is set: waiting would not help.
    is_near = abs(offset_ms) < policy.interval_s * 1000
    if is_near and _interval(now_ms, policy) != _interval(now_ms + offset_ms, policy):
        minutes = policy.interval_s // 60
        return (
            f"setting {_clock(meters_s)} to {_clock(ours_s)} would cross the edge of a "
            f"{minutes}-minute interval"
        )
    return None


def _near_settlement(local: datetime, policy: ClockControlSection) -> str | None:
    """The monthly settlement, `DD HH:MM`, that a local time is too close to."""
    guard = timedelta(seconds=policy.settlement_guard_s)
    for day, hour, minute in policy.settlement_moments():
        for month in (
            local - guard,
            local + guard,
        ):  # it may be in the next month or the one before
            moment = month.replace(day=day, hour=hour, minute=minute, second=0, microsecond=0)
            if abs(local - moment) < guard:
                return f"{day:02d} {hour:02d}:{minute:02d}"
    return None


def _interval(at_ms: int, policy: ClockControlSection) -> int:
    return at_ms // 1000 // policy.interval_s


def _second_of_day(at_ms: int, zone: ZoneInfo) -> int:
    local = to_datetime(at_ms).astimezone(zone)
    return local.hour * 3600 + local.minute * 60 + local.second


def _distance(second: int, every_s: int) -> int:
    past = second % every_s
    return min(past, every_s - past)


def _clock(second: int) -> str:
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
