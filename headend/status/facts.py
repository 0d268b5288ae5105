"""What the pages and the metrics tell, as values. Made in `gather`, told in `pages` and `metrics`.

No I/O here, and nothing that refers to a part of the daemon: facts are handed to threads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum

from headend.bus import BusStatistics
from headend.domain.due import DueState
from headend.status.alarms import Alarm


class MeterState(StrEnum):
    """How a meter stands with its bus."""

    ANSWERS = "answers"
    FAILING = "failing"  # the last requests had no answer; it is still asked as usual
    SILENT = "silent"  # it is only probed now and then
    NO_PORT = "no_port"  # its bus has no port: nothing is known of the meter itself
    NOT_ASKED = "not_asked"  # not once since the start


@dataclass(frozen=True, slots=True)
class Good:
    """The last good value of a register, as the register shows it, and its instant."""

    value: Decimal
    time_ms: int


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """A meter's clock as last measured: fast when the offset is positive.

    `verdict`: `leave` (right), `sync` (wrong), `ticket` (far wrong).
    """

    offset_s: float
    uncertainty_s: float
    at_ms: int
    verdict: str
    drift_s_per_day: float | None
    message: str


@dataclass(frozen=True, slots=True)
class WatchFacts:
    """The daily measuring of clocks since the start."""

    measured: int
    failed: int
    set: int


@dataclass(frozen=True, slots=True)
class MeterFacts:
    """One meter. `energy_yield` is what an inverter counts instead."""

    id: str
    service_point: str
    bus: str
    address: str
    protocol: str
    profile: str | None
    multiplier: Decimal
    state: MeterState
    attempts: int
    failed_in_row: int
    next_probe_s: float
    energy_import: Good | None
    energy_export: Good | None
    energy_yield: Good | None
    clock: ClockFacts | None = None

    @property
    def newest_ms(self) -> int | None:
        """The instant of the newest good register."""
        known = (self.energy_import, self.energy_export, self.energy_yield)
        return max((good.time_ms for good in known if good is not None), default=None)


@dataclass(frozen=True, slots=True)
class BusFacts:
    """One bus. `load`: part of the line's time in use, 0..1, over the last minutes."""

    name: str
    link: str
    statistics: BusStatistics
    load: float
    states: Mapping[MeterState, int]  # how many of its meters are in each
    jobs: int
    retries: int
    overruns: int
    parity_seen: bool  # the port shows bytes with parity errors

    @property
    def meters(self) -> int:
        """Meters that hang there."""
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """One consumer's stream. `oldest_ms`: when the oldest unreceipted record came; None: none."""

    name: str
    last_seq: int
    receipted_seq: int
    expired: bool
    oldest_ms: int | None
    sent: int = 0
    resends: int = 0
    receipts: int = 0

    @property
    def backlog(self) -> int:
        """Records written and not receipted."""
        return self.last_seq - self.receipted_seq


@dataclass(frozen=True, slots=True)
class FeedFacts:
    """The feed's connection and its streams. `refused`: what came in and was refused, by reason."""

    broker: str
    connected: bool
    since_ms: int
    message: str | None
    failures: int
    streams: Sequence[StreamFacts]
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """One database for charts."""

    name: str
    kind: str
    where: str
    state: str
    since_ms: int
    message: str | None
    backlog: int
    lag_s: float
    written_lines: int
    dead_letters: int


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One supervised task. `error` is the kind of what it died of last, never its text."""

    name: str
    running: bool
    restarts: int
    error: str | None


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """The process. `lag_s` is how late the event loop woke up the last time it was measured."""

    version: str
    up_s: float
    started_ms: int
    rss_bytes: int
    open_files: int
    files_max: int
    cpu_s: float
    tasks: int
    lag_s: float
    lag_max_s: float  # within the last minute


@dataclass(frozen=True, slots=True)
class JournalFacts:
    """The journal. `append_age_s`: since the last record; None: none since the start.

    With less room than a reserve, readings of its class are refused.
    """

    epoch: str
    commits: int
    refused_billing: int
    refused_telemetry: int
    exchanges_dropped: int
    file_bytes: int
    free_bytes: int
    reserve_telemetry_bytes: int
    reserve_billing_bytes: int
    append_age_s: float | None


@dataclass(frozen=True, slots=True)
class DayFacts:
    """The due points of a local day. `counts`: of those due up to now; `later`: still to come.

    `overdue`: due for more than an hour and still open. `by_reason`: of the missing ones and of
    the open ones that failed so far.
    """

    day: date
    frozen: int
    counts: Mapping[DueState, int]
    later: int
    overdue: int
    by_reason: Mapping[str, int]
    by_bus: Sequence[Mapping[str, int | str]]
    is_closed: bool

    @property
    def due(self) -> int:
        """Due up to now."""
        return sum(self.counts.values())

    @property
    def valued(self) -> int:
        """Those of them that have a value."""
        return self.due - self.counts[DueState.OPEN] - self.counts[DueState.MISSING]


@dataclass(frozen=True, slots=True)
class FromJournal:
    """What was read from the journal's file. `trouble` says why nothing could be."""

    alarms: Sequence[Alarm] = ()
    told: Sequence[Alarm] = ()  # single events of the last days that nothing ends
    today: DayFacts | None = None
    yesterday: DayFacts | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything, at one instant."""

    at_ms: int
    headend: str
    zone: str
    configuration: str
    clock_away_s: float | None  # the machine's clock over ours; None: it is followed blindly
    process: ProcessFacts
    tasks: Sequence[TaskFacts]
    buses: Sequence[BusFacts]
    meters: Sequence[MeterFacts]
    feed: FeedFacts | None
    databases: Sequence[DatabaseFacts]
    journal: JournalFacts
    kept: FromJournal
    clock_distrusted: str | None = None  # why the machine's clock is not believed since the start
    undated: int = 0  # readings that wait for it
    clocks: WatchFacts | None = None
