"""The one connection that writes, and its transactions. Runs in the writer thread only."""

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from headend.domain.clock import Clock
from headend.domain.due import DueKey
from headend.domain.errors import JournalDamaged, JournalError, JournalFull
from headend.domain.exchange import Exchange, Outcome
from headend.domain.meter import Event
from headend.journal import operations
from headend.journal.errors import Shed
from headend.journal.group import Group
from headend.journal.learned import LearnOp, learn
from headend.journal.model import (
    Appended,
    Birth,
    ConsumerSpec,
    CursorState,
    JournalSettings,
    RecordClass,
    StreamEntry,
)
from headend.journal.points import point_facts
from headend.journal.presence import Presence, secure
from headend.journal.schema import BUSY_TIMEOUT, RESTORED
from headend.journal.space import Level, SpaceGuard
from headend.journal.state import State

_FULL_CODES = frozenset({sqlite3.SQLITE_FULL})
UNCLAIMED_MAX = 5000


@dataclass(slots=True, eq=False)
class BirthsOp:
    """Births that one caller waits for.

    `rows` of every operation: what it counts for in the queue's bound. `lazy`: nobody waits for it.
    """

    births: Sequence[Birth]
    waiter: object
    rows: int = field(init=False)
    lazy: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.rows = sum([len(birth.readings) for birth in self.births])


@dataclass(slots=True, eq=False)
class ExchangesOp:
    """Attempts on buses, one after the other. Grows until it is handed over."""

    exchanges: list[Exchange]
    lazy: ClassVar[bool] = True

    @property
    def rows(self) -> int:
        """An attempt is a row."""
        return len(self.exchanges)


@dataclass(slots=True, eq=False)
class EventOp:
    """An event; the caller waits for its commit."""

    event: Event
    waiter: object
    rows: ClassVar[int] = 1
    lazy: ClassVar[bool] = False


@dataclass(slots=True, eq=False)
class ReceiptOp:
    """A cursor that has moved forward. Nobody waits: it rides along."""

    consumer: str
    through_seq: int
    epoch: str
    rows: ClassVar[int] = 1
    lazy: ClassVar[bool] = True


@dataclass(slots=True, eq=False)
class FailedOp:
    """Due points that could not be read, with the reason."""

    failed: Sequence[tuple[DueKey, str]]
    rows: int = field(init=False)
    lazy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.rows = len(self.failed)


@dataclass(slots=True, eq=False)
class SoloOp:
    """Work with a transaction of its own. `makes_room`: allowed on a full disk."""

    work: Callable[[Group], Any]
    waiter: object
    makes_room: bool = False
    rows: ClassVar[int] = 1
    lazy: ClassVar[bool] = False


GroupOp = BirthsOp | ExchangesOp | EventOp | ReceiptOp | FailedOp | LearnOp
Op = GroupOp | SoloOp


@dataclass(slots=True)
class Outcomes:
    """What a commit means for the callers. `cursors` is set when more than appending happened."""

    answers: list[tuple[object, Any]] = field(default_factory=list)
    entries: dict[str, tuple[int, list[StreamEntry]]] = field(default_factory=dict)
    cursors: dict[str, CursorState] | None = None
    epoch: str | None = None
    moved: str | None = None  # whose cursor was set

    def add_entries(self, later: "Outcomes") -> None:
        """Take over what a commit behind this one put on the streams."""
        for name, (first_seq, entries) in later.entries.items():
            self.entries.setdefault(name, (first_seq, []))[1].extend(entries)


class Writer:
    """Owns the connection. Every method but the constructor runs in the writer thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        clock: Clock,
        settings: JournalSettings,
        software: str,
        space: SpaceGuard,
    ) -> None:
        self.connection = connection
        self.clock = clock
        self.settings = settings
        self.space = space
        self.state = State(connection, software=software, zone=settings.zone)
        self.broken: JournalError | None = None
        self.is_replaced = False
        self._is_behind = False  # what is in memory may be of a transaction that came to nothing
        self.commits = 0
        self.exchanges_dropped = 0
        self._unclaimed: dict[Exchange, float] = {}
        (_number, _name, file) = connection.execute("PRAGMA database_list").fetchone()
        self._path = Path(file) if file else None
        self._presence = Presence(None)

    def begin(
        self, consumers: Sequence[ConsumerSpec], alarms: Sequence[Event], new_epoch: str | None
    ) -> None:
        """Configure the consumers and tell what was found at the start, before anything else.

        `new_epoch`: the reason for one, when records may have been lost.
        """
        try:
            self._begin()
            self.state.configure(consumers)
            group = Group(self.state, self.clock.now_ms())
            if new_epoch is not None:
                operations.new_epoch(group, new_epoch)
            for alarm in alarms:
                group.event(alarm)
            group.flush()
            self.connection.execute("DELETE FROM meta WHERE key=?", (RESTORED,))
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._explain(error) from error
        (pages,) = self.connection.execute("PRAGMA wal_autocheckpoint").fetchone()
        (page_bytes,) = self.connection.execute("PRAGMA page_size").fetchone()
        self._presence = Presence(self._path, long_log_bytes=pages * page_bytes)

    # -- the file

    def look_at_file(self) -> None:
        """End all writing when the file behind the journal's name is not ours any more."""
        trouble = self._presence.trouble() if self.broken is None else None
        if trouble is None:
            return
        assert self._path is not None
        self.is_replaced = True
        self.broken = JournalDamaged(trouble.text)
        self.broken = JournalDamaged(secure(self.connection, self._path, trouble, self.clock))

    # -- groups

    def commit_group(self, ops: Sequence[GroupOp]) -> Outcomes:
        """Write a group in one transaction; every waiter gets an answer or an error."""
        self.look_at_file()
        if self.broken is not None:
            return self._all_failed(ops, self.broken)
        level = self.space.look()
        outcomes = self._grouped(ops, level)
        if self.space.untold and level is not Level.FULL:
            # Room has come or gone while the group was written: tell it at once.
            outcomes.add_entries(self._grouped([], level))
        return outcomes

    def _grouped(self, ops: Sequence[GroupOp], level: Level) -> Outcomes:
        try:
            return self._try_group(ops, level)
        except sqlite3.IntegrityError:
            # Two readings with one id, or a row that is there already: look before each write.
            return self._again(ops, level, careful=True)
        except sqlite3.Error as error:
            if not _is_full(error):
                return self._all_failed(ops, self._explain(error))
        self.space.ran_out()
        level = max(level, Level.LOW)
        return self._again(ops, level, careful=False)

    def _again(self, ops: Sequence[GroupOp], level: Level, *, careful: bool) -> Outcomes:
        try:
            return self._try_group(ops, level, careful=careful)
        except sqlite3.Error as error:
            if _is_full(error):
                self.space.ran_out()
                self.space.refused_billing += sum(
                    len(op.births) for op in ops if isinstance(op, BirthsOp)
                )
            return self._all_failed(ops, self._explain(error))

    def _try_group(
        self, ops: Sequence[GroupOp], level: Level, *, careful: bool = False
    ) -> Outcomes:
        outcomes = Outcomes()
        now_ms = self.clock.now_ms()
        self._begin()
        group = Group(self.state, now_ms, careful=careful)
        unclaimed: list[Exchange] = []
        counts = (self.space.refused_telemetry, self.space.refused_billing)
        try:
            if level is not Level.FULL:
                for event in self.space.events(now_ms):
                    group.event(event)
            for op in ops:
                if type(op) is ExchangesOp:
                    unclaimed += op.exchanges
                else:
                    self._put(op, group, level, outcomes)
            settled = self._write_unclaimed(group, unclaimed, level)
            group.flush()
            self.connection.execute("COMMIT")
        except BaseException:
            self.space.refused_telemetry, self.space.refused_billing = counts
            self._roll_back(group)
            raise
        self.commits += 1
        self._presence.wrote()
        if level is not Level.FULL:
            self.space.told()
            self.space.committed()
        for exchange in settled:
            self._unclaimed.pop(exchange, None)
        outcomes.entries = group.entries
        return outcomes

    def _put(
        self,
        op: GroupOp,
        group: Group,
        level: Level,
        outcomes: Outcomes,
    ) -> None:
        match op:
            case BirthsOp():
                outcomes.answers.append((op.waiter, self._births(op, group, level)))
            case ReceiptOp():
                consumer = self.state.consumers[op.consumer]
                if op.epoch == self.state.epoch and op.through_seq > consumer.receipted:
                    consumer.receipted = op.through_seq
                    consumer.expired = False
                    group.touched.add(op.consumer)
            case FailedOp():
                if level is not Level.FULL:
                    for key, reason in op.failed:
                        group.due_failed(key, reason)
            case LearnOp():
                if level is not Level.FULL:
                    learn(self.connection, op)
            case EventOp():
                refused = level is Level.FULL
                answer = _no_room("the event") if refused else group.event(op.event)
                outcomes.answers.append((op.waiter, answer))

    def _births(
        self, op: BirthsOp, group: Group, level: Level
    ) -> list[tuple[Appended, ...]] | JournalFull:
        if level is Level.OK:
            return [group.birth(birth) for birth in op.births]
        done: list[tuple[Appended, ...] | None] = []
        for birth in op.births:
            telemetry = _telemetry_only(birth)
            if level is Level.FULL or telemetry:
                done.append(None)
                if telemetry:
                    self.space.refused_telemetry += 1
                else:
                    self.space.refused_billing += 1
            else:
                done.append(group.birth(birth))
        whole = [appended for appended in done if appended is not None]
        if len(whole) == len(done):
            return whole
        what = "everything" if level is Level.FULL else "telemetry"
        msg = f"the journal's disk is nearly full: {what} is refused; make room or add disk"
        return Shed(msg, appended=done)

    def _write_unclaimed(
        self, group: Group, fresh: Sequence[Exchange], level: Level
    ) -> list[Exchange]:
        """Write attempts that no reading came from; those that are done with after the commit.

        Failures at once, replies after a while: a reply usually becomes a reading a moment
        later, and then is kept as long as that.
        """
        if level is Level.FULL:
            self.exchanges_dropped += len(fresh)
            return []
        now = self.clock.monotonic()
        for exchange in fresh:
            if self.state.exchanges.get(exchange) is None:
                if exchange.outcome is Outcome.REPLY:
                    self._unclaimed[exchange] = now
                else:
                    group.exchange(exchange, RecordClass.TELEMETRY)
        limit = now - self.settings.unclaimed_ms / 1000
        over = len(self._unclaimed) - UNCLAIMED_MAX
        settled: list[Exchange] = []
        for exchange, since in self._unclaimed.items():
            if since > limit and len(settled) >= over:
                break
            group.exchange(exchange, RecordClass.TELEMETRY)
            settled.append(exchange)
        return settled

    # -- work with a transaction of its own

    def commit_solo(self, op: SoloOp) -> Outcomes:
        """Run one piece of work in its own transaction."""
        self.look_at_file()
        if self.broken is not None:
            return Outcomes([(op.waiter, self.broken)])
        level = self.space.look()
        if level is Level.FULL and not op.makes_room:
            return Outcomes([(op.waiter, _no_room("this"))])
        try:
            try:
                return self._try_solo(op)
            except sqlite3.IntegrityError:
                # As for a group: what is there already is found by looking before each write.
                return self._try_solo(op, careful=True)
        except (JournalError, ValueError) as error:
            return Outcomes([(op.waiter, error)])
        except sqlite3.Error as error:
            if _is_full(error):
                self.space.ran_out()
            return Outcomes([(op.waiter, self._explain(error))])

    def _try_solo(self, op: SoloOp, *, careful: bool = False) -> Outcomes:
        self._begin()
        group = Group(self.state, self.clock.now_ms(), careful=careful)
        try:
            answer = op.work(group)
            group.flush()
            self.connection.execute("COMMIT")
        except BaseException:
            self._roll_back(group)
            raise
        self.commits += 1
        self._presence.wrote()
        return Outcomes(
            [(op.waiter, answer)],
            group.entries,
            self.state.cursors(),
            self.state.epoch,
            group.moved,
        )

    def tidy(self) -> None:
        """While nobody waits: bring the bases' snapshot up to date and the WAL home."""
        self.look_at_file()
        if self.broken is not None or self.space.look() is Level.FULL:
            return
        if self.state.bases.dirty:
            self.commit_solo(SoloOp(_write_bases, None))
        # A reader that is in the way (a backup) is not waited for: births would wait behind it.
        self.connection.execute("PRAGMA busy_timeout=0").fetchall()
        with contextlib.suppress(sqlite3.OperationalError):  # a reader is in the way, or no room
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.connection.execute(BUSY_TIMEOUT).fetchall()
        self._presence.wrote(brought_home=True)

    def close(self) -> None:
        """Write what is still in memory and close; SQLite brings the WAL home."""
        if self.broken is None:
            if self._unclaimed:
                self._unclaimed = dict.fromkeys(self._unclaimed, float("-inf"))
                self.commit_group([])
            self.tidy()
        self.connection.close()

    def _begin(self) -> None:
        if self._is_behind:
            self._catch_up()
        self.connection.execute("BEGIN IMMEDIATE")
        self.state.begin()

    # -- failure

    def _roll_back(self, group: Group) -> None:
        """Undo a transaction that was begun, here and in the file."""
        self.state.exchanges.forget(group.new_exchanges)
        self.state.rolled_back()
        self._is_behind = True
        try:
            self._catch_up()
        except sqlite3.Error as error:
            # The disk does not do even that: it is asked again before the next transaction.
            self._explain(error)
        self._presence.wrote()

    def _catch_up(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self.state.look_again()
        self._is_behind = False

    def _explain(self, error: sqlite3.Error) -> JournalError:
        """Our error for SQLite's; damage ends all writing until the next start."""
        if _is_full(error):
            return _no_room("the group")
        if _is_damage(error):
            told: JournalError = JournalDamaged(
                f"the journal file is damaged ({error}): nothing more is written to it; "
                "at the next start it is set aside and a new one begun"
            )
            self.broken = told
        else:
            told = JournalError(f"the journal could not be written: {error}")
        told.__cause__ = error
        return told

    def _all_failed(self, ops: Sequence[GroupOp], error: JournalError) -> Outcomes:
        waiting = [op.waiter for op in ops if isinstance(op, BirthsOp | EventOp)]
        return Outcomes([(waiter, error) for waiter in waiting])


def _write_bases(group: Group) -> None:
    group.state.bases.write_all(group.state.next_rid[RecordClass.BILLING])


def _telemetry_only(birth: Birth) -> bool:
    return all(point_facts(r.point).record_class is RecordClass.TELEMETRY for r in birth.readings)


def _no_room(what: str) -> JournalFull:
    return JournalFull(
        f"no room on the journal's disk for {what}; nothing of it was written. Make room: shorten "
        "retention, or move other files away"
    )


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) in _FULL_CODES


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
