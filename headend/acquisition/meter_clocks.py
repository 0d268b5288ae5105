"""What is known of one meter's clock, and what is to be done about it. Pure.

Nothing is done on one measurement: a clock that looks wrong is measured again a while later, and
only when it is wrong then as well somebody hears of it, or it is set.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal
from zlib import crc32

from headend.config.sections.control import ClockControlSection
from headend.control.clock_policy import Verdict, verdict
from headend.domain.clock_offset import (
    DAY_MS,
    DRIFT_POINTS_MAX,
    Drift,
    Measured,
    drift,
    has_jumped,
)
from headend.domain.meter import Meter
from headend.journal import ClockMeasured

Policy = Literal["leave", "sync", "ticket"]

FIRST_SPREAD_MS = 3_600_000  # meters that were never measured are, within the hour
AGAIN_MS = 900_000  # after a measurement that has to be confirmed, or a moment that was guarded
FAILED_MS = 3_600_000  # at first; twice as long each time, at most half a day
FAILED_MAX_MS = DAY_MS // 2
CONFIRMED = 2  # measurements in a row that say the same
ALIKE_MIN = 5  # so many meters that are off alike speak against our own clock
ALIKE_MS = 2000
RECENT_MS = 2 * DAY_MS


def policy_of(meter: Meter, plan: Policy | None, section: ClockControlSection) -> Policy:
    """What is done about a meter's clock: its plan's word, its model's, everybody's."""
    if plan is not None:
        return plan
    model = None if meter.profile is None else section.models.get(meter.profile)
    return section.policy if model is None else model


def first_at(meter: str, last_ms: int | None, now_ms: int) -> int:
    """When a meter is measured first: spread evenly, and a day after the last measurement."""
    if last_ms is None or last_ms > now_ms:
        return now_ms + _spread(meter, FIRST_SPREAD_MS)
    return max(next_at(meter, last_ms), now_ms)


def next_at(meter: str, last_ms: int) -> int:
    """The meter's own time of day, at least half a day after the last measurement."""
    slot_ms = _spread(meter, DAY_MS)
    earliest_ms = last_ms + DAY_MS // 2
    return earliest_ms + (slot_ms - earliest_ms) % DAY_MS


def _spread(meter: str, span_ms: int) -> int:
    return crc32(meter.encode()) * span_ms // (1 << 32)


@dataclass(slots=True)
class MeterClock:
    """One meter's measurements since somebody last set its clock, and when the next one is."""

    meter: str
    next_ms: int
    history: list[ClockMeasured] = field(default_factory=list)
    wrong_in_row: int = 0
    error: str | None = None  # of the last try; None when it gave a measurement
    failures: int = 0  # in a row
    message: str = ""  # what was done about it at last, or why not
    drift: Drift | None = None  # the trend since the clock was last set
    verdict: Verdict | None = None

    def __post_init__(self) -> None:
        self.drift = trend(self.history)

    @property
    def last(self) -> Measured | None:
        """The newest measurement."""
        return None if not self.history else _measured(self.history[-1])

    def take(self, look: Measured, looks: int, *, was_set: bool = False) -> ClockMeasured:
        """One measurement more; the row to be kept. `was_set`: we have just set the clock."""
        last = self.last
        began = last is not None and (was_set or has_jumped(last, look))
        row = ClockMeasured(look.at_ms, look.offset_ms, look.uncertainty_ms, looks, began)
        if began:
            self.history = []
        self.history = [*self.history[-DRIFT_POINTS_MAX + 1 :], row]
        self.drift = trend(self.history)
        self.error, self.failures = None, 0
        return row

    def failed(self, error: str, now_ms: int) -> None:
        """It could not be measured."""
        self.error = error
        self.next_ms = now_ms + min(FAILED_MS << min(self.failures, 10), FAILED_MAX_MS)
        self.failures += 1

    def judge(self, section: ClockControlSection) -> Verdict:
        """What the policy says of the newest measurement; counts how often it was wrong."""
        assert self.last is not None
        found = self.verdict = verdict(self.last, section)
        self.wrong_in_row = 0 if found is Verdict.LEAVE else self.wrong_in_row + 1
        return found


def trend(history: Sequence[ClockMeasured]) -> Drift | None:
    """The drift since the clock was last set."""
    began = max((n for n, row in enumerate(history) if row.began), default=0)
    return drift([_measured(row) for row in history[began:]])


def are_known(clocks: Sequence[MeterClock], now_ms: int) -> bool:
    """Whether at least half of all meters were tried lately: enough to tell who is wrong."""
    tried = sum(
        clock.error is not None
        or (clock.last is not None and now_ms - clock.last.at_ms < RECENT_MS)
        for clock in clocks
    )
    return tried * 2 >= len(clocks)


def is_ours(offset_ms: int, others: Iterable[MeterClock], now_ms: int) -> bool:
    """Whether it rather is our own clock: most of the meters are off alike."""
    recent = [
        clock.last
        for clock in others
        if clock.last is not None and now_ms - clock.last.at_ms < RECENT_MS
    ]
    alike = sum(abs(look.offset_ms - offset_ms) <= ALIKE_MS for look in recent)
    return alike >= ALIKE_MIN and alike * 2 > len(recent)


def _measured(row: ClockMeasured) -> Measured:
    return Measured(row.offset_ms, row.uncertainty_ms, row.at_ms)
