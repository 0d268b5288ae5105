"""Billing's inbox on its database: whole groups of messages, each in one transaction.

Everything here blocks and belongs to one thread, the writer's. What a call returns has been
committed. One that raises left nothing, or (DatabaseAway) perhaps everything: a commit whose
answer was lost. To call again with the same is right in both cases, because everything is known
by what it says.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, and_, delete, func, select

from headend.billing import tables
from headend.billing.bulk import (
    count_up,
    current_rows,
    insert_absent,
    known_in_history,
    upsert_readings,
)
from headend.billing.database import Database, DatabaseSpec, open_writer
from headend.billing.inbox import (
    Decision,
    ExchangeRow,
    GapRow,
    Place,
    Row,
    Unpacked,
    decide,
    place,
    unpack,
    useful_exchanges,
)
from headend.domain.clock import Clock, iso
from headend.domain.errors import FeedError
from headend.messages.records import Batch, ResumeRefused, decode_to_consumer

log = logging.getLogger(__name__)

OVER = "over"  # how the detail of an alarm begins whose reason is gone
DEAD_LETTERS_MAX = 1000
DEAD_LETTER_BYTES = 2048
PAIRS_REMEMBERED_MAX = 200_000

Stream = tuple[str, str]  # head-end, epoch


class Arrived(NamedTuple):
    """A message as it came on the feed topic of `headend`."""

    headend: str
    topic: str
    payload: bytes


class Refusal(NamedTuple):
    """A message that was not taken, and why."""

    headend: str
    code: str
    reason: str


@dataclass(slots=True)
class Counts:
    """What became of the records of a call. Readings unless the name says otherwise."""

    batches: int = 0
    new: int = 0
    replaced: int = 0
    known: int = 0
    conflicts: int = 0
    recovered: int = 0  # at or below the cursor and yet unknown: kept, and an alarm
    events: int = 0
    refused_messages: int = 0


@dataclass(slots=True)
class Result:
    """What to tell the head-ends after a commit.

    `receipts`: everything up to this number is durable. `resumes`: send again from this number.
    """

    receipts: dict[Stream, int] = field(default_factory=dict)
    resumes: dict[Stream, int] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)


@dataclass(slots=True)
class _Cursor:
    ordinal: int
    through_seq: int
    changed: bool = False
    wanted_through: int = 0  # the end of what was passed over because of a hole


@dataclass(slots=True)
class _Work:
    """One transaction's findings before they are written."""

    now_ms: int
    cursors: dict[Stream, _Cursor]
    result: Result = field(default_factory=Result)
    accepted: list[tuple[Unpacked, int]] = field(default_factory=list)  # with the cursor before
    gaps: list[GapRow] = field(default_factory=list)
    alarms: list[tuple[str, str, str, str]] = field(default_factory=list)
    letters: list[tuple[Arrived, FeedError]] = field(default_factory=list)


class Store:
    """The consumer `name`'s inbox in a database. Every call may raise DatabaseAway."""

    def __init__(
        self, database: str | DatabaseSpec, *, name: str, clock: Clock, software: str
    ) -> None:
        self._clock = clock
        self._name = name
        self._database: Database = open_writer(database, clock=clock, software=software)
        self._pairs: set[tuple[str, str]] = set()  # service point and meter, committed

    @property
    def engine(self) -> Engine:
        """The engine, for tests that make it fail."""
        return self._database.engine

    def close(self) -> None:
        """End the session with the database."""
        self._database.close()

    def cut(self) -> None:
        """From another thread: a call that waits for a server that says nothing ends now."""
        self._database.cut()

    def take(self, messages: Sequence[Arrived]) -> Result:
        """Take feed messages in the order they came, in one transaction."""
        with self._transaction() as connection:
            work = _Work(self._clock.now_ms(), _load_cursors(connection))
            for message in messages:
                self._look_at(message, work)
            pairs = self._write(connection, work)
        if len(self._pairs) + len(pairs) > PAIRS_REMEMBERED_MAX:
            self._pairs.clear()
        self._pairs |= pairs
        _answer(work)
        return work.result

    def refuse(self, message: Arrived, error: FeedError) -> None:
        """Keep a message that was refused elsewhere as a dead letter."""
        with self._transaction() as connection:
            work = _Work(self._clock.now_ms(), {}, letters=[(message, error)])
            _save_letters(connection, work)

    def note_alarm(self, headend: str, kind: str, subject: str, detail: str) -> None:
        """Keep an alarm about something that was noticed elsewhere."""
        with self._transaction() as connection:
            alarms = [(headend, kind, subject, detail)]
            _save_alarms(connection, _Work(self._clock.now_ms(), {}, alarms=alarms))

    def alarm_is_over(self, headend: str, kind: str, subject: str) -> None:
        """Say so in an alarm's detail, if it stands there."""
        c = tables.alarm.c
        now_ms = self._clock.now_ms()
        over = f"{OVER} since {iso(now_ms)}; it was "
        this = and_(c.headend == headend, c.kind == kind, c.subject == subject)
        with self._transaction() as connection:
            connection.execute(
                tables.alarm.update()
                .where(this, c.detail.not_like(f"{OVER} %"))
                .values(detail=over + c.detail, last_ms=now_ms)
            )

    def learn_epoch(self, headend: str, epoch: str) -> int:
        """Note an epoch that may be new; the durable cursor of its stream (0 = nothing yet)."""
        with self._transaction() as connection:
            cursors = _load_cursors(connection)
            cursor = cursors.get((headend, epoch))
            if cursor is None:
                cursor = _meet(cursors, (headend, epoch))
                _save_cursors(connection, cursors, self._clock.now_ms())
        return cursor.through_seq

    def latest(self) -> dict[str, tuple[str, int]]:
        """For each head-end the epoch that was met last and its durable cursor."""
        with self._transaction() as connection:
            cursors = _load_cursors(connection)
        found: dict[str, tuple[str, int]] = {}
        for (headend, epoch), cursor in sorted(cursors.items(), key=lambda kv: kv[1].ordinal):
            found[headend] = (epoch, cursor.through_seq)
        return found

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._database.begin() as connection:
                yield connection
        except BaseException:
            # A database that comes back may be an older copy: what was known of it counts no more.
            self._pairs.clear()
            raise

    def _look_at(self, message: Arrived, work: _Work) -> None:
        """Find out what a message is; refused ones become dead letters."""
        try:
            decoded = _decoded(message.payload)
            _check_stream(decoded, message.headend, self._name)
            if isinstance(decoded, ResumeRefused):
                _jump(decoded, work)
            else:
                _admit(decoded, work)
        except FeedError as error:
            work.letters.append((message, error))
            work.result.refusals.append(Refusal(message.headend, error.code, str(error)))
            work.result.counts.refused_messages += 1

    def _write(self, connection: Connection, work: _Work) -> set[tuple[str, str]]:
        kept = _reconcile(connection, work)
        wanted = {(row.headend, row.epoch, row.evidence) for row in kept}
        exchanges: list[ExchangeRow] = []
        for batch, _ in work.accepted:
            exchanges.extend(useful_exchanges(batch, wanted))
            work.gaps.extend(batch.gaps)
        insert_absent(connection, tables.exchange, exchanges)
        events = [row for batch, _ in work.accepted for row in batch.events]
        work.result.counts.events += insert_absent(connection, tables.event, events)
        insert_absent(connection, tables.gap, [(*gap, work.now_ms) for gap in work.gaps])
        pairs = {(row.service_point, row.meter) for row in kept} - self._pairs
        insert_absent(connection, tables.metering, sorted(pairs))
        _save_letters(connection, work)
        _save_alarms(connection, work)
        _save_cursors(connection, work.cursors, work.now_ms)
        return pairs


# --- looking ---------------------------------------------------------------------------------


def _decoded(payload: bytes) -> Batch | ResumeRefused:
    try:
        return decode_to_consumer(payload)
    except OverflowError as error:  # an instant that leaves the calendar on its way to UTC
        raise FeedError(f"an instant that cannot be: {error}", code="bad_record") from error


def _check_stream(decoded: Batch | ResumeRefused, headend: str, consumer: str) -> None:
    if (decoded.headend, decoded.consumer) != (headend, consumer):
        msg = (
            f"a message of {decoded.headend} for {decoded.consumer} on the topic of {headend} "
            f"for {consumer}"
        )
        raise FeedError(msg, code="wrong_stream")


def _meet(cursors: dict[Stream, _Cursor], stream: Stream) -> _Cursor:
    ordinal = 1 + max((c.ordinal for (h, _), c in cursors.items() if h == stream[0]), default=0)
    cursor = cursors[stream] = _Cursor(ordinal, 0, changed=True)
    return cursor


def _admit(batch: Batch, work: _Work) -> None:
    stream = (batch.headend, batch.epoch)
    unpacked = unpack(batch)
    cursor = work.cursors.get(stream) or _meet(work.cursors, stream)
    before = cursor.through_seq
    where = place(batch.first_seq, batch.last_seq, before)
    if where is Place.HOLE:
        cursor.wanted_through = max(cursor.wanted_through, batch.last_seq)
        return
    unpacked.gaps[:] = [
        gap._replace(first_seq=max(gap.first_seq, before + 1))
        for gap in unpacked.gaps
        if gap.last_seq > before
    ]
    work.alarms.extend(
        (gap.headend, "gap", f"{gap.epoch}:{gap.first_seq}", f"{gap.first_seq} to {gap.last_seq}")
        for gap in unpacked.gaps
    )
    work.accepted.append((unpacked, before))
    work.result.counts.batches += 1
    if batch.last_seq > before:
        cursor.through_seq = batch.last_seq
        cursor.changed = True
    work.result.receipts[stream] = cursor.through_seq


def _jump(refused: ResumeRefused, work: _Work) -> None:
    """What we asked for is gone at the head-end: note the gap and go on behind it.

    Only the answer to where we stand now counts; others are old.
    """
    stream = (refused.headend, refused.epoch)
    cursor = work.cursors.get(stream)
    if cursor is None or refused.from_seq != cursor.through_seq + 1:
        return
    if refused.oldest_seq <= refused.from_seq:
        return
    first, last = refused.from_seq, refused.oldest_seq - 1
    work.gaps.append(GapRow(refused.headend, refused.epoch, first, last, "resume_refused"))
    work.alarms.append(
        (refused.headend, "gap", f"{refused.epoch}:{first}", f"{first} to {last} are gone")
    )
    cursor.through_seq = last
    cursor.changed = True
    work.result.resumes[stream] = refused.oldest_seq


def _answer(work: _Work) -> None:
    """Ask again for what a hole made us pass over, unless it came later in the same group."""
    for stream, cursor in work.cursors.items():
        if cursor.wanted_through > cursor.through_seq:
            work.result.resumes[stream] = cursor.through_seq + 1


# --- readings --------------------------------------------------------------------------------


def _reconcile(connection: Connection, work: _Work) -> list[Row]:
    """Hold every reading against what is known, write what changes; the rows that were kept."""
    rows = [(row, row.seq <= before) for batch, before in work.accepted for row in batch.rows]
    if not rows:
        return []
    current = current_rows(connection, list({row.key: None for row, _ in rows}))
    others = [
        r.read_id for r, _ in rows if r.key in current and current[r.key].read_id != r.read_id
    ]
    history = known_in_history(connection, others)
    changed: dict[tuple[str, str, int, int], Row] = {}
    replaced: list[tuple[object, ...]] = []
    conflicts: list[tuple[object, ...]] = []
    kept: list[Row] = []
    counts = work.result.counts
    for row, is_below_cursor in rows:
        held = current.get(row.key)
        decision = decide(row, held, in_history=row.read_id in history)
        if decision in (Decision.KNOWN, Decision.SAME):
            counts.known += 1
            continue
        kept.append(row)
        if decision is Decision.CONFLICT:
            assert held is not None
            counts.conflicts += 1
            conflicts.append((*row, held.read_id, work.now_ms))
            detail = (
                f"revision {row.revision} against {held.revision}, ids {row.read_id} {held.read_id}"
            )
            work.alarms.append((row.headend, "conflict", f"{row.meter} {row.point}", detail))
            continue
        if is_below_cursor:
            counts.recovered += 1
            detail = f"epoch {row.epoch} number {row.seq} came with a reading not seen before"
            work.alarms.append((row.headend, "unknown_below_cursor", row.epoch, detail))
        if decision is Decision.REPLACE:
            assert held is not None
            counts.replaced += 1
            replaced.append((*held, row.read_id))
            history.add(held.read_id)
        else:
            counts.new += 1
        current[row.key] = changed[row.key] = row
    insert_absent(connection, tables.reading_history, replaced)
    insert_absent(connection, tables.conflict, conflicts)
    upsert_readings(connection, list(changed.values()))
    return kept


# --- the other tables ------------------------------------------------------------------------


def _load_cursors(connection: Connection) -> dict[Stream, _Cursor]:
    c = tables.feed_cursor.c
    query = select(c.headend, c.epoch, c.ordinal, c.through_seq)
    return {
        (h, e): _Cursor(ordinal, through) for h, e, ordinal, through in connection.execute(query)
    }


def _save_cursors(connection: Connection, cursors: dict[Stream, _Cursor], now_ms: int) -> None:
    c = tables.feed_cursor.c
    for (headend, epoch), cursor in cursors.items():
        if not cursor.changed:
            continue
        written = connection.execute(
            tables.feed_cursor.update()
            .where(c.headend == headend, c.epoch == epoch, c.through_seq <= cursor.through_seq)
            .values(through_seq=cursor.through_seq, updated_ms=now_ms)
        ).rowcount
        if not written:
            connection.execute(
                tables.feed_cursor.insert().values(
                    headend=headend,
                    epoch=epoch,
                    ordinal=cursor.ordinal,
                    through_seq=cursor.through_seq,
                    updated_ms=now_ms,
                )
            )


def _save_alarms(connection: Connection, work: _Work) -> None:
    merged: dict[tuple[str, str, str], tuple[str, int]] = {}
    for headend, kind, subject, detail in work.alarms:
        _, times = merged.get((headend, kind, subject), ("", 0))
        merged[headend, kind, subject] = (detail, times + 1)
    now_ms = work.now_ms
    rows = [(*key, detail, now_ms, now_ms, times) for key, (detail, times) in merged.items()]
    count_up(connection, tables.alarm, rows, latest=("detail", "last_ms"))


def _storable(said: str) -> str:
    """Without the characters that not every database takes."""
    return said.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _save_letters(connection: Connection, work: _Work) -> None:
    if not work.letters:
        return
    now_ms = work.now_ms
    rows: dict[tuple[str, str], tuple[Any, ...]] = {}
    for message, error in work.letters:
        key = (message.headend, hashlib.sha256(message.payload).hexdigest())
        times = rows[key][-1] if key in rows else 0
        rows[key] = (
            *key,
            message.topic[:512],
            error.code,
            _storable(str(error))[:512],
            len(message.payload),
            message.payload[:DEAD_LETTER_BYTES].hex(),
            now_ms,
            now_ms,
            times + 1,
        )
    count_up(connection, tables.dead_letter, list(rows.values()), latest=("last_ms",))
    letters = tables.dead_letter
    surplus = connection.execute(select(func.count()).select_from(letters)).scalar_one()
    surplus -= DEAD_LETTERS_MAX
    if surplus > 0:
        oldest = select(letters.c.hash).order_by(letters.c.last_ms, letters.c.hash).limit(surplus)
        connection.execute(delete(letters).where(letters.c.hash.in_(oldest.scalar_subquery())))
