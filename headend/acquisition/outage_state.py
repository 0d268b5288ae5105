"""What is known of one meter and of one bus, for `outages`: facts, and when they are enough.

Durations run on the monotonic clock (`*_s`), stamps on the wall clock (`*_ms`). Which of two things
came first is told by `order`, a count of what was seen: two of them may share an instant.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum

NEVER_S = -math.inf
BUS_DOWN = "bus_down"
MASS_SILENCE = "mass_silence"
METER_SILENT = "meter_silent"
METER_REFUSES = "meter_refuses"
HELD_BACK = "alarms_held_back"
PORT = "port"
SILENT = "silent"


class Seen(StrEnum):
    """What one read of a meter shows."""

    GOOD = "good"  # at least one value
    ALIVE = "alive"  # it is there and has no time
    REFUSED = "refused"  # every answer was a refusal
    UNUSABLE = "unusable"  # it spoke, and nothing of it can be used
    NO_ANSWER = "no_answer"  # asked, and no good answer came
    NO_PORT = "no_port"  # not asked: the port is not there


_HEARD = frozenset({Seen.GOOD, Seen.ALIVE, Seen.REFUSED, Seen.UNUSABLE})


CLEAR_S_MAX = 3600.0
TOGETHER_S = 60.0


@dataclass(frozen=True, slots=True)
class OutageSettings:
    """When something is an outage, and when it is over.

    port_s: a port that is absent for so long is an alarm.
    bus_silent_s: so long nobody answers where most had answered before.
    meter_silent_s, reads_min: so long, and at least so many reads, without a good answer.
    refusals_min: refused reads in a row.
    clear_s, clear_s_max: what is well for so long is over; doubled each time an alarm comes back
        soon (within back_s of its end).
    settle_s: a port that has come back counts after so long, or with the first answer.
    recent_s: a meter heard so shortly before the others fell silent speaks for the bus.
    together_s: buses lost within so long of each other may have one cause.
    mass_share, mass_buses: the share of all meters, and the number of buses, that make it one.
    per_minute: alarms of single meters that are raised within any minute.
    """

    port_s: float = 60.0
    bus_silent_s: float = 120.0
    meter_silent_s: float = 1800.0
    reads_min: int = 3
    refusals_min: int = 3
    clear_s: float = 120.0
    clear_s_max: float = CLEAR_S_MAX
    back_s: float = 14_400.0
    settle_s: float = 10.0
    recent_s: float = 1000.0
    together_s: float = TOGETHER_S
    mass_share: float = 0.5
    mass_buses: int = 2
    per_minute: int = 20


@dataclass(slots=True)
class Temper:
    """How often one subject has come back: it takes longer and longer to be called well."""

    strikes: int = 0
    ended_s: float = NEVER_S

    def begins(self, now_s: float, settings: OutageSettings) -> float:
        """It has come again: how long it must be well this time."""
        back = now_s - self.ended_s < settings.back_s
        self.strikes = min(self.strikes + 1, 16) if back else 0
        return min(settings.clear_s * 2.0**self.strikes, settings.clear_s_max)


@dataclass(slots=True)
class Standing:
    """An outage that stands. `told` False: the alarm of something wider speaks for it.

    bad_order: what had been seen when it was bad the last time.
    """

    name: str
    reason: str
    clear_s: float
    onset_s: float
    told: bool = True
    flaps: int = 0
    good_since_s: float | None = None
    bad_order: int = 0

    def bad(self, order: int) -> None:
        """It is still so, or so again."""
        if self.good_since_s is not None:
            self.flaps += 1
            self.good_since_s = None
        self.bad_order = order

    def good(self, now_s: float) -> bool:
        """It is well now; whether it has been for long enough."""
        if self.good_since_s is None:
            self.good_since_s = now_s
        return now_s - self.good_since_s >= self.clear_s


@dataclass(slots=True)
class Failures:
    """Repeated errors, summed up."""

    count: int = 0
    first_ms: int = 0
    last_ms: int = 0

    def add(self, now_ms: int) -> None:
        """One more."""
        self.first_ms = self.first_ms if self.count else now_ms
        self.last_ms = now_ms
        self.count += 1


@dataclass(slots=True)
class MeterFacts:
    """One meter. `failing_order`: when its run of failures began (0: in an earlier life)."""

    id: str
    bus: str
    heard_s: float = NEVER_S
    failing: bool = False
    failing_s: float = NEVER_S
    failing_order: int = 0
    period_s: float = NEVER_S  # when the period began after which it gets an alarm of its own
    period_reads: int = 0
    last: Seen | None = None
    in_row: int = 0  # reads like the last one
    why: str = ""
    failures: Failures = field(default_factory=Failures)
    standing: Standing | None = None
    temper: Temper = field(default_factory=Temper)

    def saw(self, seen: Seen, why: str, now_s: float, now_ms: int, order: int) -> None:
        """One read of it."""
        self.in_row = self.in_row + 1 if seen is self.last else 1
        self.last = seen
        if seen in _HEARD:
            self.heard_s = now_s
        if seen is Seen.ALIVE:
            return
        if seen is Seen.GOOD:
            self.failing = False
            if self.standing is None:
                self.failures = Failures()
            return
        if not self.failing:
            self.failing, self.failing_s, self.failing_order = True, now_s, order
            self.fresh(now_s)
        self.period_reads += 1
        self.why = why
        self.failures.add(now_ms)
        if self.standing is not None:
            self.standing.bad(order)

    def fresh(self, now_s: float) -> None:
        """Its period begins anew."""
        self.period_s, self.period_reads = now_s, 0

    def due(self, now_s: float, settings: OutageSettings) -> str | None:
        """The alarm it deserves if its bus lives."""
        if not self.failing:
            return None
        if self.last is Seen.REFUSED and min(self.in_row, self.period_reads) >= (
            settings.refusals_min
        ):
            return METER_REFUSES
        if self.standing is not None:
            # What stands is told anew only when the other thing has become the rule.
            other = self.last is Seen.NO_ANSWER and self.in_row >= settings.reads_min
            return METER_SILENT if other else self.standing.name
        long_enough = now_s - self.period_s >= settings.meter_silent_s
        return METER_SILENT if long_enough and self.period_reads >= settings.reads_min else None


@dataclass(slots=True)
class BusFacts:
    """One bus and its meters.

    bad_since_s: since when the bus itself looks lost, `bad_reason` why. dead_since_s: the same, or
    since when the one meter of a bus has failed: what a common cause is looked for in.
    """

    name: str
    meters: list[MeterFacts] = field(default_factory=list)
    heard_order: int = 0
    absent_since_s: float | None = None
    open_since_s: float | None = None
    opens: int = -1
    detail: str = ""
    bad_since_s: float | None = None
    bad_reason: str = ""
    dead_since_s: float | None = None
    failures: Failures = field(default_factory=Failures)
    standing: Standing | None = None
    temper: Temper = field(default_factory=Temper)

    @property
    def covers(self) -> bool:
        """Nothing is said about its meters now."""
        return self.standing is not None or self.bad_since_s is not None

    def saw(self, seen: Seen, why: str, now_ms: int, order: int) -> None:
        """One read of one of its meters."""
        if seen in _HEARD:
            self.heard_order = order
            self.absent_since_s = None
            if seen is Seen.GOOD and self.standing is None:
                self.failures = Failures()
            return
        self.failures.add(now_ms)
        if self.absent_since_s is None:
            self.detail = why

    def port(
        self, opens: int, detail: str, now_s: float, settle_s: float, *, is_there: bool
    ) -> None:
        """Whether its port is open, and how often it was opened so far."""
        if not is_there:
            self.open_since_s = None
            self.detail = detail
            if self.absent_since_s is None:
                self.absent_since_s = now_s
            return
        if self.open_since_s is None or opens != self.opens:
            self.open_since_s, self.opens = now_s, opens
        if self.absent_since_s is not None and now_s - self.open_since_s >= settle_s:
            self.absent_since_s = None

    def judge(self, settings: OutageSettings) -> None:
        """Whether the bus looks lost now."""
        onset_s = self.absent_since_s
        reason = PORT
        if onset_s is None:
            onset_s, reason = self._silent_since(settings), SILENT
        if onset_s is None:
            self.bad_since_s = None
        else:
            since_s = self.bad_since_s
            self.bad_since_s = onset_s if since_s is None else min(onset_s, since_s)
            self.bad_reason = reason
        self.dead_since_s = self.bad_since_s
        if self.dead_since_s is None and len(self.meters) == 1 and self._newly(self.meters[0]):
            self.dead_since_s = self.meters[0].failing_s

    def _newly(self, meter: MeterFacts) -> bool:
        """It failed after the last answer of anybody: it may have been the bus."""
        return meter.failing and meter.failing_order > self.heard_order

    def _silent_since(self, settings: OutageSettings) -> float | None:
        """Since when nobody answers where most of those that were answering have failed."""
        newly = [meter for meter in self.meters if self._newly(meter)]
        if not newly:
            return None
        onset_s = min(meter.failing_s for meter in newly)
        # Those that answered shortly before and have not been asked since speak for the bus.
        well = sum(
            not meter.failing and meter.heard_s >= onset_s - settings.recent_s
            for meter in self.meters
        )
        everyone = len(self.meters) > 1 and all(meter.failing for meter in self.meters)
        if len(newly) <= well or (len(newly) < 2 and not everyone):
            return None
        return onset_s
