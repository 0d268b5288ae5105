"""A journal's short life with a bit of everything, and what was promised at each of its steps.

`live` runs the unchanged `Journal` under the recorder. The `Trail` keeps the state of the file
after every commit and, for every answer that a caller got, how far the log and the commits were.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from headend.domain.clock import from_iso
from headend.domain.due import DueKey, DuePoint
from headend.domain.exchange import Exchange, Outcome
from headend.domain.meter import Event
from headend.domain.reading import Reading
from headend.journal import (
    Appended,
    Birth,
    ConsumerSpec,
    Journal,
    JournalSettings,
    RecordClass,
    schema,
    worker,
)
from headend.journal.writer import Writer
from headend.messages.records import ExpiredRecord, encode
from tests.journal.journal_kit import exchange
from tests.powercut.vfs import Recorder

T = TypeVar("T")

NOON_MS = from_iso("2026-03-01T12:00:00Z")
MINUTE_MS = 60_000
DAY_MS = 86_400_000
TODAY = date(2026, 3, 1)
TOMORROW = date(2026, 3, 2)
BOOT = "boot-1"
CONSUMERS = (
    ConsumerSpec("billing", frozenset({"billing", "events"})),
    ConsumerSpec("board", frozenset({"telemetry", "billing", "events"})),
)
FILE = "journal.db"

State = frozenset[str]
"""Every row of every table as text, but for the snapshot of bases, which follows from the rest."""


@dataclass
class HandClock:
    """Stands still until it is set."""

    ms: int = NOON_MS
    seconds: float = 1000.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.seconds


async def open_journal(folder: Path, clock: HandClock) -> Journal:
    """As the daemon does, with room enough. Receipts and attempts ride along and never alone."""
    settings = JournalSettings(
        free_bytes=lambda: 1 << 40,
        lazy_ms=3_600_000,
        unclaimed_ms=0,
        group_gap_ms=0,
        full_retry_s=0.0,
    )
    return await Journal.open(
        folder / FILE, clock=clock, software="0.1.0", consumers=CONSUMERS, settings=settings
    )


def reading(
    n: int,
    *,
    meter: str = "M-1",
    point: str = "active_import_total",
    time_ms: int = NOON_MS,
    due_ms: int | None = None,
    evidence: Exchange | None = None,
) -> Reading:
    """A value that tells its number."""
    unit = "V" if point == "voltage_a" else "kWh"
    return Reading(
        meter=meter,
        service_point=f"SP-{meter}",
        point=point,
        value=Decimal(n) / 100,
        unit=unit,
        time_ms=time_ms,
        received_ms=time_ms + 80,
        due_ms=due_ms,
        exchange=exchange(n, at_ms=time_ms) if evidence is None else evidence,
    )


def freeze(n: int, time_ms: int) -> Birth:
    """Three registers of one exchange: one record."""
    evidence = exchange(n, at_ms=time_ms)
    points = ("active_import_total", "active_import_t1", "active_import_t2")
    return Birth(
        tuple(
            reading(n + i, meter="M-2", point=point, time_ms=time_ms, evidence=evidence)
            for i, point in enumerate(points)
        )
    )


def due(meter: str, minute: int) -> DuePoint:
    """A point of today's list."""
    due_ms = NOON_MS + minute * MINUTE_MS
    key = DueKey(meter, "active_import_total", due_ms)
    return DuePoint(key, "street-a", "area-1", due_ms + MINUTE_MS)


# -- the trail


@dataclass
class Answer:
    """A caller was told that it is done, `at` steps of the log and `commits` commits along."""

    at: int
    commits: int


@dataclass
class Kept:
    """A reading that a caller knew to be kept from step `at` on; `until` it was to be dropped."""

    at: int
    read_id: str
    evidence: Exchange
    until: int | None = None


@dataclass
class Trail:
    """What the file was after every commit, and what callers had been told by then."""

    recorder: Recorder
    states: list[tuple[int, State | None]] = field(default_factory=lambda: [(0, None)])
    answers: list[Answer] = field(default_factory=list)
    kept: list["Kept"] = field(default_factory=list)
    streams: dict[tuple[str, str], dict[int, bytes]] = field(default_factory=dict)
    epochs: list[str] = field(default_factory=list)
    failed: list[tuple[int, State]] = field(default_factory=list)  # commits before it, and it

    def attempted(self, connection: sqlite3.Connection) -> None:
        """A commit has failed: its caller was told so, and yet a power cut may bring it back."""
        with self.recorder.unjudged():
            self.failed.append((len(self.states) - 1, state_of(connection)))

    def revived(self, low: int, high: int) -> list[State]:
        """What may have come back of commits that failed."""
        return [state for commits, state in self.failed if low <= commits < high]

    def committed(self, connection: sqlite3.Connection) -> None:
        """In the writer's thread, when a transaction has ended."""
        with self.recorder.unjudged():
            self.states.append((len(self.recorder.ops), state_of(connection)))

    def answered(self) -> None:
        """On the loop, when a caller has its answer."""
        self.answers.append(Answer(len(self.recorder.ops), len(self.states) - 1))

    def allowed(self, at: int) -> tuple[int, int]:
        """The first and the last state that a file cut at a step may be in."""
        low = max((a.commits for a in self.answers if a.at <= at), default=0)
        done = sum(1 for ended, _state in self.states[1:] if ended <= at)
        return low, min(max(low, done + 1), len(self.states) - 1)

    def promised(self, at: int) -> list[tuple[str, Exchange]]:
        """The readings that callers knew to be kept by then, with their evidence."""
        return [
            (kept.read_id, kept.evidence)
            for kept in self.kept
            if kept.at <= at and (kept.until is None or at <= kept.until)
        ]

    async def look(self, journal: Journal) -> None:
        """Remember the records as the running journal serves them."""
        for consumer in journal.cursors():
            known = self.streams.setdefault((journal.epoch, consumer), {})
            for record in await records_of(journal, consumer):
                if not isinstance(record, ExpiredRecord):
                    said = encode(record)
                    assert known.setdefault(record.seq, said) == said


def state_of(connection: sqlite3.Connection) -> State:
    """Every row there is."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    rows: set[str] = set()
    for (name,) in names:
        if name == "bases":
            continue
        rows.add(name)
        for row in connection.execute(f"SELECT * FROM {name}"):
            if row[0] != "base_rid":
                rows.add(f"{name}{row}")
    return frozenset(rows)


async def records_of(journal: Journal, consumer: str) -> list[Any]:
    """Everything that a stream still has."""
    cursor = journal.cursors()[consumer]
    found: list[Any] = []
    at = cursor.oldest_seq
    while at < cursor.next_seq:
        page = await journal.read_stream(consumer, at, records_max=1000)
        assert page.records
        found += page.records
        last = page.records[-1]
        at = (last.last_seq if isinstance(last, ExpiredRecord) else last.seq) + 1
    return found


class _Told:
    """A connection that tells what it was about to commit when that fails."""

    def __init__(self, connection: sqlite3.Connection, trail: Trail) -> None:
        self._connection = connection
        self._trail = trail

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql != "COMMIT":
            return self._connection.execute(sql, *args)
        before = len(self._trail.failed)
        self._trail.attempted(self._connection)
        done = self._connection.execute(sql)
        del self._trail.failed[before:]
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@contextmanager
def commits_told(trail: Trail) -> Iterator[None]:
    """The writer tells the trail of every transaction that has ended, well or not."""
    made = Writer.__init__

    def make(self: Writer, connection: Any, **more: Any) -> None:
        made(self, _Told(connection, trail), **more)  # type: ignore[arg-type]

    def told(name: str) -> Any:
        original = getattr(Writer, name)

        def call(self: Writer, *args: Any, **more: Any) -> Any:
            result = original(self, *args, **more)
            trail.committed(self.connection)
            return result

        return mock.patch.object(Writer, name, call)

    with (
        mock.patch.object(Writer, "__init__", make),
        told("begin"),
        told("_try_group"),
        told("commit_solo"),
    ):
        yield


# -- the story


@dataclass
class Teller:
    """Does one thing after the other and notes what was promised."""

    folder: Path
    trail: Trail
    clock: HandClock
    journal: Journal

    async def do(self, work: Callable[[], Awaitable[T]]) -> T:
        """One promise."""
        result = await work()
        self.trail.answered()
        return result

    async def append(self, *births: Birth) -> list[tuple[Appended, ...]]:
        """Births, and their ids."""
        answers = await self.do(lambda: self.journal.append_many(births))
        at = self.trail.answers[-1].at
        for birth, appended in zip(births, answers, strict=True):
            for one, made in zip(birth.readings, appended, strict=True):
                assert one.exchange is not None
                self.trail.kept.append(Kept(at, made.read_id, one.exchange))
        return answers

    async def drop(self, record_class: RecordClass) -> None:
        """Retention: what it dropped is no longer promised."""
        before = len(self.trail.recorder.ops)
        await self.do(lambda: self.journal.drop_days_before(TOMORROW, record_class))
        there = _still_there(self.folder)
        for kept in self.trail.kept:
            if kept.until is None and kept.read_id not in there:
                kept.until = before

    async def receipt(self, consumer: str) -> None:
        """All that is there is receipted; the cursor's row rides along with what comes next."""
        last_seq = self.journal.cursors()[consumer].last_seq
        await self.journal.receipt(consumer, last_seq)


Chapter = Callable[[Teller], Awaitable[None]]


async def an_afternoon(t: Teller) -> None:
    """Due points, single values, freezes, attempts that failed, alarms, revisions."""
    points = [due(meter, minute) for meter in ("M-1", "M-2", "M-3") for minute in (0, 15, 30)]
    await t.do(lambda: t.journal.freeze_due(TODAY, points))
    await t.append(Birth((reading(100, due_ms=NOON_MS),)))
    t.journal.record_exchange(exchange(7, outcome=Outcome.SILENCE))
    await t.journal.due_failed(DueKey("M-3", "active_import_total", NOON_MS), "no_answer")
    many = [
        Birth((reading(200 + n, meter=f"M-{n % 4}", time_ms=NOON_MS + 1000 * n),))
        for n in range(12)
    ]
    volts = [
        Birth((reading(23000 + n, point="voltage_a", time_ms=NOON_MS + 1000 * n),))
        for n in range(6)
    ]
    await t.append(*many, *volts, freeze(300, NOON_MS + 5 * MINUTE_MS))
    await t.receipt("billing")
    await t.do(
        lambda: t.journal.append_event(Event("alarm", NOON_MS, {"alarm": "bus_dead", "bus": "a"}))
    )
    await t.append(Birth((reading(101),)))  # of the same instant: another value, a revision
    t.journal.record_exchange(exchange(8, outcome=Outcome.DAMAGED))
    late = due("M-2", 15).key.due_ms
    await t.append(Birth((reading(400, meter="M-2", time_ms=late + 1, due_ms=late),)))


async def before_the_clock_was_right(t: Teller) -> None:
    """A reply that waits to be dated, and is."""
    number = await t.do(lambda: t.journal.park(BOOT, 12.5, exchange(500), '{"point": "x"}'))
    await t.do(lambda: t.journal.park(BOOT, 13.5, exchange(501), '{"point": "y"}'))
    await t.do(lambda: t.journal.adopt([number], [Birth((reading(500, meter="M-5"),))]))


async def a_ratio_was_wrong(t: Teller) -> None:
    """Readings are withdrawn and born again."""
    event = Event("ratio_change", NOON_MS, {"meter": "M-1", "multiplier": "2"})
    await t.do(
        lambda: t.journal.apply_meter_event(
            event, lambda r: (replace(r, multiplier=Decimal(2)),), meter="M-1", from_ms=NOON_MS
        )
    )


async def small_things(t: Teller) -> None:
    """Value after value, each with a commit of its own; the log goes round."""
    for n in range(10):
        await t.append(Birth((reading(600 + n, meter="M-6", time_ms=t.clock.ms + 1000 * n),)))
        if n % 3 == 0:
            await t.receipt("board")


async def the_next_day(t: Teller) -> None:
    """A list is closed, days are dropped, a cursor is set back."""
    t.clock.ms += DAY_MS
    await t.append(Birth((reading(700, time_ms=NOON_MS + DAY_MS),)))
    await t.do(lambda: t.journal.close_due_day(TODAY))
    await t.receipt("billing")
    await t.receipt("board")
    await t.append(Birth((reading(23100, point="voltage_a", time_ms=NOON_MS + DAY_MS),)))
    await t.receipt("board")
    await t.drop(RecordClass.TELEMETRY)
    await t.do(lambda: t.journal.set_cursor("board", t.journal.cursors()["board"].last_seq - 2))
    await t.receipt("board")
    await t.drop(RecordClass.BILLING)
    await t.append(Birth((reading(701, time_ms=NOON_MS + DAY_MS + 1000),)))


async def a_new_epoch(t: Teller) -> None:
    """The streams are numbered anew."""
    await t.do(lambda: t.journal.new_epoch("set back"))
    await t.append(Birth((reading(800, meter="M-8", time_ms=t.clock.ms + 9000),)))


def _still_there(folder: Path) -> frozenset[str]:
    uri = f"{(folder / FILE).absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            if name.startswith(("rb_", "rt_"))
        ]
        return frozenset(
            raw.hex()
            for table in tables
            for (raw,) in connection.execute(f"SELECT read_id FROM {table}")
        )


CHAPTERS: Sequence[Chapter] = (
    an_afternoon,
    before_the_clock_was_right,
    a_ratio_was_wrong,
    small_things,
    the_next_day,
    a_new_epoch,
)


@dataclass(frozen=True)
class Conditions:
    """What a run is like. `log_pages`: the write-ahead log is brought home at that many pages.

    `rests`: the journal finds time to tidy between any two things.
    """

    log_pages: int = 4000
    rests: bool = False
    pragmas: tuple[str, ...] = ()

    @contextmanager
    def made(self) -> Iterator[None]:
        """While it lasts."""
        pragmas = (*schema.PRAGMAS, f"PRAGMA wal_autocheckpoint={self.log_pages}", *self.pragmas)
        idle_s = 0.002 if self.rests else 3600.0
        with (
            mock.patch.object(schema, "PRAGMAS", pragmas),
            mock.patch.object(worker, "IDLE_CHECKPOINT_S", idle_s),
        ):
            yield


async def live(
    folder: Path,
    recorder: Recorder,
    *,
    chapters: Sequence[Chapter] = CHAPTERS,
    restarts: bool = True,
) -> Trail:
    """Tell the story under the recorder; opened and closed by every other chapter."""
    trail = Trail(recorder)
    clock = HandClock()
    with commits_told(trail):
        journal: Journal | None = None
        async with AsyncExitStack() as stack:
            for n, chapter in enumerate(chapters):
                if journal is None:
                    journal = await stack.enter_async_context(await open_journal(folder, clock))
                    trail.answered()
                    trail.epochs.append(journal.epoch)
                await chapter(Teller(folder, trail, clock, journal))
                await trail.look(journal)
                if n % 2:
                    await stack.aclose()
                    journal = None
            if journal is not None:
                trail.epochs.append(journal.epoch)
    return trail
