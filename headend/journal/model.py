"""What goes into the journal and what comes out of it, as values. No I/O."""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum
from typing import NamedTuple
from zoneinfo import ZoneInfo

from headend.domain.due import DueKey, DueState
from headend.domain.exchange import Exchange
from headend.domain.meter import Event
from headend.domain.reading import Reading
from headend.messages.records import ExchangeEvidence, Record

DAY_MS = 86_400_000
TIME_MS_MAX = 253_402_300_800_000  # the year 10000


class RecordClass(IntEnum):
    """What a record is kept for: decides its table, its streams and its retention."""

    EVENTS = 0
    BILLING = 1
    TELEMETRY = 2

    __hash__ = int.__hash__  # of a plain Enum it would be a call into Python


CLASS_NAMES = {c.name.lower(): c for c in RecordClass}
TIMESERIES_PREFIX = "timeseries:"


def is_feed_consumer(name: str) -> bool:
    """Whether a consumer of the journal is fed over MQTT; its name has no colon then.

    The others read the journal inside the daemon: `timeseries:<name>` are the time-series writers.
    """
    return ":" not in name


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A configured consumer: which classes its stream carries and how far it may fall behind."""

    name: str
    classes: frozenset[str]  # of "billing", "telemetry", "events"
    max_backlog_days: int = 30

    def __post_init__(self) -> None:
        unknown = self.classes - CLASS_NAMES.keys()
        if unknown or not self.classes:
            msg = f"consumer {self.name}: classes {sorted(unknown)} are not known"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """How the journal works. Times in milliseconds, sizes in bytes unless the name says otherwise.

    `zone`: whose local days due points belong to. A group is committed when `group_rows` readings
    wait or the first has waited `group_wait_ms`, sooner when the last commit is `group_gap_ms`
    ago. Below `reserve_bytes_telemetry` of free space births of telemetry alone are refused,
    below `reserve_bytes_billing` everything. `free_bytes` None = ask the file system.
    """

    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    group_rows: int = 200
    group_rows_max: int = 1000
    group_wait_ms: int = 50
    group_gap_ms: int = 10
    lazy_ms: int = 1000
    unclaimed_ms: int = 10_000
    queue_rows_max: int = 20_000
    tail_records: int = 5000
    reserve_bytes_telemetry: int = 512 * 1024 * 1024
    reserve_bytes_billing: int = 128 * 1024 * 1024
    full_retry_s: float = 5.0
    free_bytes: Callable[[], int] | None = None

    def __post_init__(self) -> None:
        if self.reserve_bytes_telemetry < self.reserve_bytes_billing:
            msg = "reserve_bytes_telemetry must not be below reserve_bytes_billing"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Birth:
    """Readings born together: one becomes a `read` record, several of one instant a `freeze`.

    `events`: what they told (a rollover); recorded behind them, or not at all when all were known.
    """

    readings: tuple[Reading, ...]
    events: tuple[Event, ...] = ()


class Appended(NamedTuple):
    """What the journal made of one reading. `new` False: the content was known already."""

    read_id: str
    revision: int
    new: bool


class Base(NamedTuple):
    """The last good value of a register, and the instant it holds for."""

    value: Decimal
    time_ms: int


class CursorState(NamedTuple):
    """Where one consumer's stream stands.

    `next_seq`: the number the next record will get; `receipted_seq`: all up to here is durable at
    the consumer; `oldest_seq`: the oldest record still kept (`next_seq` when there is none).
    """

    next_seq: int
    receipted_seq: int
    oldest_seq: int
    expired: bool = False

    @property
    def last_seq(self) -> int:
        """The newest record's number; 0 before the first."""
        return self.next_seq - 1

    @property
    def backlog(self) -> int:
        """Records written and not yet receipted."""
        return self.last_seq - self.receipted_seq


class StreamSlice(NamedTuple):
    """Consecutive records of one stream from `first_seq` on; empty when there are none yet.

    `exchanges` holds the evidence of the billing records among them, each ref once.
    """

    first_seq: int
    records: list[Record]
    exchanges: list[ExchangeEvidence]


@dataclass(slots=True)
class Stored:
    """A reading found in the file and what the journal decided. `exchange_id` 0 = none."""

    reading: Reading
    read_id: str
    revision: int
    exchange_id: int
    software: str
    rid: int = 0

    @property
    def kept(self) -> "Kept":
        """As the streams carry it."""
        return (self.reading, self.read_id, self.revision, self.exchange_id)


Kept = tuple[Reading, str, int, int]
"""A reading in memory: itself, its read_id, its revision, its exchange's row (0: none)."""


class StreamEntry(NamedTuple):
    """One record of a stream before it is numbered: an event, or one or more readings."""

    kind: RecordClass
    event: Event | None
    items: tuple[Kept, ...]


class EntrySlice(NamedTuple):
    """Consecutive entries of one stream with their numbers, read through `through_seq`.

    Numbers that are missing up to there are of records that retention has dropped: `expired` many.
    """

    through_seq: int
    entries: list[tuple[int, StreamEntry]]
    expired: int


class DueLine(NamedTuple):
    """A due point with what became of it. `after_close`: a value came when all was over.

    settled_ms: when that value was received; None while there is none. failed_rounds: how often it
    was tried, or let go by, in vain before.
    """

    key: DueKey
    bus: str
    area: str | None
    window_end_ms: int
    state: DueState
    reason: str | None
    read_id: str | None
    after_close: bool
    settled_ms: int | None = None
    failed_rounds: int = 0
    concentrator: str | None = None


class Parked(NamedTuple):
    """A reply taken before the clock could be trusted; `payload` is the acquisition's own."""

    id: int
    boot_id: str
    monotonic_s: float
    exchange: Exchange
    payload: str


class SuccessReport(NamedTuple):
    """How well a day was read, in canonical JSON (`due_report/1`), and the hash of these bytes.

    Of a closed day neither changes again.
    """

    report: bytes
    sha256: str
    is_closed: bool


def check_birth(birth: Birth) -> None:
    """ValueError for a reading that could not be kept."""
    assert birth.readings
    for reading in birth.readings:
        value = reading.value
        if value is not None and not value.is_finite():
            msg = f"{reading.meter} {reading.point}: {value} is not a value that can be kept"
            raise ValueError(msg)
        if not 0 <= reading.time_ms < TIME_MS_MAX:
            msg = f"{reading.meter} {reading.point}: {reading.time_ms} ms is no instant of ours"
            raise ValueError(msg)
