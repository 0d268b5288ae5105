"""The daemon's journal: what the event loop sees of the writer thread.

Every method runs on the loop and blocks it for microseconds only. What was awaited is committed
(synchronous=FULL) when the await returns.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import msgspec

from headend.domain.clock import Clock
from headend.domain.due import DueKey, DuePoint
from headend.domain.errors import JournalDamaged, JournalError
from headend.domain.exchange import Exchange
from headend.domain.lives import METER_EVENTS
from headend.domain.meter import Event
from headend.domain.reading import Reading
from headend.journal import clocks, due_moves, operations
from headend.journal import learned as learning
from headend.journal.clocks import ClockMeasured
from headend.journal.codec import Lexicon
from headend.journal.disposal import free_some
from headend.journal.errors import BelowOldest, UnknownConsumer, beyond
from headend.journal.group import Group
from headend.journal.learned import KeptState, LearnOp
from headend.journal.model import (
    Appended,
    Base,
    Birth,
    ConsumerSpec,
    CursorState,
    EntrySlice,
    JournalSettings,
    Parked,
    RecordClass,
    StreamSlice,
    check_birth,
)
from headend.journal.opening import Opened, connect_read_only, not_opened, open_for_writing
from headend.journal.rewrites import Rewrite, Rewritten, last_good, rewrite
from headend.journal.space import SpaceGuard, file_system_free
from headend.journal.stream import read_entry_slice, read_slice
from headend.journal.tail import Tail
from headend.journal.worker import WriterThread
from headend.journal.writer import (
    BirthsOp,
    EventOp,
    ExchangesOp,
    FailedOp,
    Op,
    Outcomes,
    ReceiptOp,
    SoloOp,
    Writer,
)

log = logging.getLogger(__name__)

T = TypeVar("T")
SLICE_BYTES_MAX = 192 * 1024


class Journal:
    """The append-only log. Use `open`, and `close` (or `async with`) at the end."""

    def __init__(
        self, path: Path, opened: Opened, writer: Writer, settings: JournalSettings
    ) -> None:
        self.path = path
        self.epoch = writer.state.epoch
        self._lock = opened.lock
        self._writer = writer
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._cursors = writer.state.cursors()
        self._tails = {
            name: Tail(cursor.next_seq, settings.tail_records, writer.state.software)
            for name, cursor in self._cursors.items()
        }
        self._callbacks: list[Callable[[], None]] = []
        self._outbox: list[Op] = []
        self._rows = 0
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False
        self._died = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="journal-reader")
        self._read_connection = connect_read_only(path)
        # It has the log open from now on: a writer that ends in trouble is not the last one then,
        # and SQLite does not bring the log home into a file that may be another.
        self._read_connection.execute("SELECT 1 FROM meta").fetchone()
        self._lexicon = Lexicon(self._read_connection)
        self._thread = WriterThread(writer, settings, self._loop, self._finish, self._thread_ended)
        self._thread.start()

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock,
        software: str,
        consumers: Sequence[ConsumerSpec],
        settings: JournalSettings | None = None,
    ) -> Self:
        """Open or begin the journal at `path`.

        A damaged file is set aside and a new one begun (an alarm event tells). JournalBusy when
        another process writes it, SchemaNewer when a newer release wrote it, JournalError when
        the disk did not do what it should just now.
        """
        settings = settings or JournalSettings()
        opened = await asyncio.to_thread(open_for_writing, path, clock)
        try:
            free_bytes = settings.free_bytes or file_system_free(path)
            space = SpaceGuard(settings, free_bytes, clock.monotonic)
            writer = Writer(
                opened.connection, clock=clock, settings=settings, software=software, space=space
            )
            writer.begin(consumers, opened.findings.alarms, opened.findings.new_epoch)
            opened.findings.told()
            return cls(path, opened, writer, settings)
        except BaseException as error:
            opened.connection.close()
            os.close(opened.lock)
            if isinstance(error, sqlite3.Error):
                raise not_opened(path, error) from error
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Commit what was handed over, bring the log home, let go of the file."""
        if not self._closed:
            self._closed = True
            self._room.set()
            self._hand_over()
            # The reader goes first: the last connection brings the log home, and only the
            # writer's may.
            self._readers.submit(self._close_reader)
        await asyncio.shield(self._ended)

    async def wait_damaged(self) -> None:
        """JournalDamaged once the writer has ended without being asked to; else waits for ever."""
        await asyncio.shield(self._ended)
        if self._died:
            msg = f"the journal {self.path} can no longer be written; start again to set it aside"
            raise JournalDamaged(msg)
        await asyncio.Event().wait()

    # -- appending

    async def append(self, birth: Birth) -> tuple[Appended, ...]:
        """Take readings born together; returns after the commit. JournalFull when refused."""
        (appended,) = await self.append_many((birth,))
        return appended

    async def append_many(self, births: Sequence[Birth]) -> list[tuple[Appended, ...]]:
        """Take several births in one go. `Shed` (a JournalFull) when some were refused.

        The births of one call are committed together, or refused one by one.
        """
        for birth in births:
            check_birth(birth)
        if self._closed or self._rows >= self._settings.queue_rows_max:
            await self._admit()
        future: asyncio.Future[list[tuple[Appended, ...]]] = self._loop.create_future()
        self._waiting.add(future)
        self._push(BirthsOp(births, future))
        return await future

    def record_exchange(self, exchange: Exchange) -> None:
        """Keep an attempt, whatever came of it. Never blocks; on a full queue it is counted."""
        if self._closed or self._rows >= 2 * self._settings.queue_rows_max:
            self._writer.exchanges_dropped += 1
            return
        last = self._outbox[-1] if self._outbox else None
        if type(last) is ExchangesOp:
            last.exchanges.append(exchange)
            self._rows += 1
        else:
            self._push(ExchangesOp([exchange]))

    async def append_event(self, event: Event) -> int:
        """Record an event and put it on the streams; its number, after the commit."""
        msgspec.json.encode(event.fields)  # what cannot be told in JSON is refused here
        waiter = await self._submit(lambda future: EventOp(event, future))
        return cast("int", await waiter)

    async def apply_meter_event(
        self,
        event: Event,
        change: Callable[[Reading], Sequence[Reading]],
        *,
        meter: str,
        from_ms: int,
        successor: str | None = None,
    ) -> int:
        """Record a dated meter event and bear again what it makes wrong, in one transaction.

        Every current reading of `meter` from `from_ms` on is withdrawn (a revision without value,
        status `null`, flag `withdrawn`) and born again as `change` says: an empty sequence for
        "it never was", other readings under the right meter or multiplier. `change` runs in the
        writer thread and must be pure. With `successor` (an exchange) the due points of `meter`
        from then on become that meter's. The number of readings withdrawn.
        """
        msgspec.json.encode(event.fields)
        return await self._solo(
            lambda group: operations.apply_meter_event(
                group, event, change, meter=meter, from_ms=from_ms, successor=successor
            )
        )

    async def rewrite(self, change: Rewrite) -> Rewritten:
        """Record dated events and bear again what they make wrong, in one transaction.

        The rule runs in the writer thread and must be pure; it is made anew for every try.
        """
        for event in change.events:
            msgspec.json.encode(event.fields)
        return await self._solo(lambda group: rewrite(group, change))

    async def last_good(self, meter: str, points: Sequence[str], before_ms: int) -> dict[str, Base]:
        """A meter's newest good registers held for an instant before; those that there are."""
        return await self._solo(lambda group: last_good(group, meter, points, before_ms))

    # -- due points

    async def freeze_due(self, day: date, points: Sequence[DuePoint]) -> int:
        """Write down what is due on a local day, once; the number of points written.

        A day that is frozen already stays as it is and gives 0. ValueError for a point whose
        instant is not of that day.
        """
        return await self._solo(lambda group: operations.freeze_due(group, day, points))

    async def due_failed(self, key: DueKey, reason: str) -> None:
        """A due point could not be read: it stays open and remembers the latest reason."""
        await self.due_failed_many([(key, reason)])

    async def due_failed_many(self, failed: Sequence[tuple[DueKey, str]]) -> None:
        """Several due points could not be read. Written with the next group."""
        if failed:
            await self._admit()
            self._push(FailedOp(failed))

    async def close_due_day(self, day: date) -> bytes:
        """End a day: what is open becomes missing. Its report, whose bytes never change again."""
        return await self._solo(lambda group: operations.close_due_day(group, day))

    async def last_frozen_day(self) -> date | None:
        """The newest local day with a frozen list."""
        return await self._solo(operations.last_frozen_day)

    async def open_days(self) -> list[date]:
        """The frozen days that are not closed, oldest first."""
        return await self._solo(operations.open_days)

    async def settled_due(self, from_ms: int) -> frozenset[DueKey]:
        """The due points from an instant on that are no longer open."""
        return await self._solo(lambda group: due_moves.settled_due(group, from_ms))

    async def bases(self) -> dict[tuple[str, str], Base]:
        """The last good register of every (meter, point): verdict ok, status actual."""
        return await self._solo(operations.bases)

    async def meter_events(self, kinds: Sequence[str] = METER_EVENTS) -> list[Event]:
        """The dated meter events, by their `at`."""
        return await self._solo(lambda group: operations.events(group, kinds))

    # -- what meters have shown of themselves

    async def learned(self) -> dict[str, KeptState]:
        """The state of every meter that has shown something, by asset id."""
        return await self._solo(learning.learned, makes_room=True)

    def learn(self, meter: str, kept: KeptState) -> None:
        """Keep a meter's newest state instead of the one before. Never blocks.

        Written with the next group, within a second; with a full queue or a full disk it is not,
        and what was kept before stays. ValueError when the state is longer than STATE_CHARS_MAX.
        """
        learning.check_state(kept)
        if not self._closed and self._rows < 2 * self._settings.queue_rows_max:
            self._push(LearnOp(meter, kept))

    async def forget(self, *meters: str) -> int:
        """Drop what these meters have shown; of how many there was something."""
        return await self._solo(lambda group: learning.forget(group, meters))

    # -- meters' clocks

    async def clocks_measured(self, found: Sequence[tuple[str, ClockMeasured]]) -> None:
        """Keep how far off meters' clocks were."""
        await self._solo(lambda group: clocks.measured(group, found))

    async def clock_history(self, from_ms: int) -> dict[str, list[ClockMeasured]]:
        """The measurements of meters' clocks from an instant on, by meter, oldest first."""
        return await self._solo(lambda group: clocks.history(group.connection, from_ms))

    # -- streams

    def cursors(self) -> dict[str, CursorState]:
        """Where every configured consumer stands, as committed."""
        return dict(self._cursors)

    async def configure(self, consumers: Sequence[ConsumerSpec]) -> None:
        """Serve these consumers from now on, instead of those before.

        Nobody may read for one that is left out any more. A new one gets what comes from now on;
        one that was served before goes on numbering where it stopped.
        """
        await self._solo(lambda group: group.state.configure(consumers))

    def on_append(self, callback: Callable[[], None]) -> None:
        """Call back on the loop after every commit that added records to a stream."""
        self._callbacks.append(callback)

    def off_append(self, callback: Callable[[], None]) -> None:
        """No longer call back."""
        self._callbacks.remove(callback)

    async def read_stream(
        self,
        consumer: str,
        from_seq: int,
        *,
        records_max: int,
        bytes_max: int = SLICE_BYTES_MAX,
    ) -> StreamSlice:
        """Records of a stream from a number on; empty when there are none yet.

        Ends at `records_max` records or about `bytes_max` bytes of JSON, but gives at least one
        record when there is one. What retention dropped comes as one `expired` record.
        """
        self._cursor(consumer)
        assert from_seq >= 1
        assert records_max >= 1
        while True:
            epoch = self.epoch
            tail = self._tails[consumer]
            if from_seq >= tail.first_seq:
                return tail.read(from_seq, records_max, bytes_max)
            found = await self._loop.run_in_executor(
                self._readers, self._read_slice, consumer, from_seq, records_max, bytes_max
            )
            if epoch == self.epoch:
                return found

    async def read_entries(self, consumer: str, from_seq: int, *, records_max: int) -> EntrySlice:
        """What stands in a stream from a number on, as values: no texts, no evidence.

        For readers inside the daemon. Empty, and through `from_seq` - 1, when there is nothing yet.
        """
        self._cursor(consumer)
        while True:
            epoch = self.epoch
            tail = self._tails[consumer]
            if from_seq >= tail.first_seq:
                return tail.entries(from_seq, records_max)
            found = await self._loop.run_in_executor(
                self._readers,
                partial(
                    read_entry_slice,
                    self._read_connection,
                    self._lexicon,
                    consumer,
                    from_seq,
                    records_max,
                ),
            )
            if epoch == self.epoch:
                return found

    async def look(self, question: Callable[[sqlite3.Connection, Lexicon], T]) -> T:
        """Ask the file something, in the reader's thread; it sees what is committed.

        `question` must be short: whoever reads a stream waits for it. JournalError when the file
        cannot be read now.
        """

        def ask() -> T:
            try:
                return question(self._read_connection, self._lexicon)
            except sqlite3.Error as error:
                msg = f"the journal {self.path} cannot be read now: {error}"
                raise JournalError(msg) from error

        if self._closed:
            msg = "the journal is closed"
            raise JournalError(msg)
        return await self._loop.run_in_executor(self._readers, ask)

    async def receipt(self, consumer: str, through_seq: int) -> None:
        """Everything up to `through_seq` is durable at the consumer.

        Moves forward only; an older receipt changes nothing. BeyondJournal when it is beyond what
        was written: this journal was set back. The cursor's row is written with the next group,
        within a second: a receipt lost in between only has records sent again.
        """
        cursor = self._cursor(consumer)
        if through_seq > cursor.last_seq:
            raise beyond(consumer, through_seq, cursor)
        if through_seq > cursor.receipted_seq:
            self._cursors[consumer] = cursor._replace(receipted_seq=through_seq, expired=False)
            self._tails[consumer].drop_through(through_seq)
            self._push(ReceiptOp(consumer, through_seq, self.epoch))

    async def set_cursor(self, consumer: str, from_seq: int) -> None:
        """Set a consumer's cursor so that `from_seq` is the next to be sent (a replay).

        BelowOldest when that is no longer kept, BeyondJournal when it was never written.
        """
        cursor = self._cursor(consumer)
        if from_seq > cursor.next_seq:
            raise beyond(consumer, from_seq, cursor)
        if from_seq < cursor.oldest_seq:
            msg = (
                f"consumer {consumer}: record {from_seq} is no longer kept, the oldest is "
                f"{cursor.oldest_seq}"
            )
            raise BelowOldest(msg, consumer=consumer, oldest_seq=cursor.oldest_seq)
        await self._solo(lambda group: operations.set_cursor(group, consumer, from_seq))

    async def new_epoch(self, reason: str) -> str:
        """Begin a new epoch: every stream is numbered again from its first unreceipted record.

        An alarm event with the reason is its newest record. The new epoch's id.
        """
        return await self._solo(lambda group: operations.new_epoch(group, reason))

    # -- retention

    async def drop_days_before(self, day: date, record_class: RecordClass) -> list[date]:
        """Drop the days of a class before `day` that every consumer of it has receipted.

        Consumers over their `max_backlog_days` are expired first, with an alarm, and hold nothing
        back. With class billing the due lists, stream rows and alarms of those days go too. The
        days whose readings were dropped; their room is free when this returns.
        """
        dropped = await self._solo(
            lambda group: operations.drop_days_before(group, day, record_class),
            makes_room=True,
        )
        if dropped:
            for name, cursor in self._cursors.items():
                # Memory must not tell what the file no longer does.
                self._tails[name].drop_through(cursor.last_seq)
        while await self._solo(free_some, makes_room=True):
            pass  # births go in between
        return dropped

    # -- readings taken before the clock is trusted

    async def park(self, boot_id: str, monotonic_s: float, exchange: Exchange, payload: str) -> int:
        """Keep a reply that cannot be dated yet; its number, after the commit."""
        return await self._solo(
            lambda group: operations.park(group, boot_id, monotonic_s, exchange, payload)
        )

    async def parked(self) -> list[Parked]:
        """Everything that waits to be dated, oldest first."""
        return await self._solo(operations.parked)

    async def adopt(
        self, numbers: Sequence[int], births: Sequence[Birth]
    ) -> list[tuple[Appended, ...]]:
        """Bear what waited and take it off the list, in one transaction."""
        for birth in births:
            check_birth(birth)
        return await self._solo(lambda group: operations.adopt(group, numbers, births))

    # -- inside

    @property
    def statistics(self) -> dict[str, int]:
        """Counters since the start."""
        return {
            "commits": self._writer.commits,
            "refused_telemetry": self._writer.space.refused_telemetry,
            "refused_billing": self._writer.space.refused_billing,
            "exchanges_dropped": self._writer.exchanges_dropped,
        }

    @property
    def is_awaited(self) -> bool:
        """Somebody waits for a commit, or for room in the queue."""
        return bool(self._waiting) or not self._room.is_set()

    def _cursor(self, consumer: str) -> CursorState:
        try:
            return self._cursors[consumer]
        except KeyError:
            msg = f"{consumer} is not a configured consumer of this journal"
            raise UnknownConsumer(msg) from None

    def _read_slice(
        self, consumer: str, from_seq: int, records_max: int, bytes_max: int
    ) -> StreamSlice:
        return read_slice(
            self._read_connection,
            self._lexicon,
            consumer,
            from_seq,
            records_max=records_max,
            bytes_max=bytes_max,
        )

    async def _admit(self) -> None:
        """Wait until the queue has room. JournalError when the journal is closed."""
        while self._rows >= self._settings.queue_rows_max and not self._closed:
            self._room.clear()
            await self._room.wait()
        if self._closed:
            msg = "the journal is closed"
            raise JournalError(msg)

    async def _submit(self, make: Callable[[asyncio.Future[Any]], Op]) -> asyncio.Future[Any]:
        if self._closed or self._rows >= self._settings.queue_rows_max:
            await self._admit()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.add(future)
        self._push(make(future))
        return future

    async def _solo(self, work: Callable[[Group], T], *, makes_room: bool = False) -> T:
        waiter = await self._submit(lambda future: SoloOp(work, future, makes_room))
        return cast("T", await waiter)

    def _push(self, op: Op) -> None:
        if not self._outbox:
            self._loop.call_soon(self._hand_over)
        self._outbox.append(op)
        self._rows += op.rows

    def _hand_over(self) -> None:
        if self._outbox:
            self._thread.put(self._outbox)
            self._outbox = []

    def _finish(self, outcomes: Outcomes, rows: int) -> None:
        """A group has ended: on the loop, once a group."""
        self._rows -= rows
        if not self._room.is_set() and self._rows < self._settings.queue_rows_max:
            self._room.set()
        if outcomes.cursors is not None:
            self._take_cursors(outcomes)
        for name, (first_seq, entries) in outcomes.entries.items():
            cursor = self._cursors[name]
            next_seq = first_seq + len(entries)
            oldest = first_seq if cursor.oldest_seq == cursor.next_seq else cursor.oldest_seq
            self._cursors[name] = cursor._replace(next_seq=next_seq, oldest_seq=oldest)
            self._tails[name].extend(first_seq, entries)
        for waiter, answer in outcomes.answers:
            future = cast("asyncio.Future[Any]", waiter)
            self._waiting.discard(future)
            if future.done():
                continue
            if isinstance(answer, JournalError | ValueError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        if outcomes.entries:
            for callback in self._callbacks:
                callback()

    def _take_cursors(self, outcomes: Outcomes) -> None:
        assert outcomes.cursors is not None
        assert outcomes.epoch is not None
        new_epoch = outcomes.epoch != self.epoch
        self.epoch = outcomes.epoch
        for name in self._cursors.keys() - outcomes.cursors.keys():  # no longer configured
            del self._cursors[name], self._tails[name]
        for name, cursor in outcomes.cursors.items():
            known = self._cursors.get(name, cursor)
            if new_epoch or name not in self._tails:
                first_seq, _entries = outcomes.entries.get(name, (cursor.next_seq, ()))
                self._tails[name] = Tail(
                    first_seq, self._settings.tail_records, self._writer.state.software
                )
            elif outcomes.moved != name and known.receipted_seq > cursor.receipted_seq:
                # A receipt taken meanwhile is still on its way to the file.
                cursor = cursor._replace(receipted_seq=known.receipted_seq)  # noqa: PLW2901
            self._cursors[name] = cursor

    def _close_reader(self) -> None:
        self._read_connection.close()
        self._thread.close()

    def _thread_ended(self) -> None:
        """The writer has let go of the file, at the end or because it died."""
        if not self._closed:
            self._closed = True
            self._died = True
            self._readers.submit(self._read_connection.close)
            log.error("journal=%s its writer thread has died", self.path)
        self._room.set()
        for future in self._waiting:
            if not future.done():
                msg = "the journal's writer has ended: this was not written"
                future.set_exception(JournalError(msg))
        self._waiting.clear()
        # Behind the reader's end: who opens the file again must not meet it half closed.
        self._readers.submit(self._loop.call_soon_threadsafe, self._let_go)
        self._readers.shutdown(wait=False)

    def _let_go(self) -> None:
        os.close(self._lock)
        if not self._ended.done():
            self._ended.set_result(None)
