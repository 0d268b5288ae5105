"""Reads the journal's file from any process, while the daemon writes it. Changes nothing."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import msgspec

from headend.domain.due import DueState
from headend.domain.errors import JournalDamaged, JournalError
from headend.domain.exchange import Exchange
from headend.domain.meter import Event
from headend.journal import clocks, schema
from headend.journal.build import read_record
from headend.journal.clocks import ClockMeasured
from headend.journal.codec import READING_COLUMNS, Lexicon, stored_from_row
from headend.journal.due_success import success_report
from headend.journal.duereport import after_closing, due_counts, due_lines, due_summary
from headend.journal.model import (
    DAY_MS,
    CursorState,
    DueLine,
    RecordClass,
    Stored,
    SuccessReport,
)
from headend.journal.opening import connect_read_only
from headend.journal.schema import READING_PREFIX, day_of, day_tables, table_name
from headend.journal.stream import find_exchanges
from headend.messages.records import ReadRecord

_PAGE = 5000
_NEWEST_DAYS = 2
ID_CHARS = 32
ID_CHARS_MIN = 6
_HEX = frozenset("0123456789abcdef")
_CLASS_OF_PREFIX = {prefix: kind for kind, prefix in READING_PREFIX.items()}


@dataclass(frozen=True, slots=True)
class Trace:
    """The way back of one reading.

    `revisions`: every revision of its key, oldest first. `due` is the due point it served,
    `exchange` the attempt its bytes came from (None: not kept any more, or there was none).
    """

    stored: Stored
    record_class: RecordClass
    record: ReadRecord
    revisions: tuple[Stored, ...]
    due: DueLine | None
    exchange_ref: str | None
    exchange: Exchange | None
    exchange_software: str | None
    epoch: str


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """One consumer's cursor; `active` False: no longer configured.

    `newest_day`: the UTC day its newest records were written, and how many those are (a rate).
    """

    cursor: CursorState
    active: bool
    classes: tuple[str, ...]
    waiting_since: date | None
    newest_day: date | None
    newest_day_records: int

    @property
    def backlog(self) -> int:
        """Records not receipted."""
        return self.cursor.backlog


class JournalReader:
    """A read-only view. Use as a context manager.

    Every call reads in short transactions, so it never keeps the daemon's log from being brought
    home. JournalError when there is no journal or it is of a newer release; JournalDamaged when
    the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect_read_only(path)
        try:
            self._check()
        except BaseException:
            self._connection.close()
            raise
        self._lexicon = Lexicon(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @property
    def epoch(self) -> str:
        """The epoch in force."""
        with self._reading():
            (epoch,) = self._connection.execute(
                "SELECT value FROM meta WHERE key='epoch'"
            ).fetchone()
        return str(epoch)

    # -- readings

    def readings(
        self,
        *,
        meter: str | None = None,
        point: str | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
        all_revisions: bool = False,
    ) -> Iterator[ReadRecord]:
        """Readings held for instants in [from_ms, to_ms), by instant; the newest revision of each.

        As the feed's read records, with `seq` 0; those still held are among them.
        """
        with self._reading():
            wanted = self._series(meter, point)
            days = day_tables(self._connection)
        if wanted is not None and not wanted:
            return
        both = sorted({day for prefix in _CLASS_OF_PREFIX for day in days.get(prefix, ())})
        for day in both:
            if from_ms is not None and (day + 1) * DAY_MS <= from_ms:
                continue
            if to_ms is not None and day * DAY_MS >= to_ms:
                break
            found = [
                (stored.reading.time_ms, stored.rid, stored, kind)
                for prefix, kind in _CLASS_OF_PREFIX.items()
                if day in days.get(prefix, ())
                for stored in self._of_day(prefix, day, wanted, from_ms, to_ms, all_revisions)
            ]
            found.sort(key=lambda row: row[:2])
            for _time, _rid, stored, kind in found:
                yield read_record(0, stored.kept, with_evidence=kind is RecordClass.BILLING)

    def newest(self) -> Iterator[ReadRecord]:
        """The newest reading of every meter and point of the last two days, held ones left out."""
        with self._reading():
            days = day_tables(self._connection)
        for prefix, kind in _CLASS_OF_PREFIX.items():
            latest: dict[tuple[str, str, int | None], Stored] = {}
            for day in days.get(prefix, [])[-_NEWEST_DAYS:]:
                for stored in self._of_day(prefix, day, None, None, None, all_revisions=False):
                    reading = stored.reading
                    if reading.verdict != "held":
                        latest[reading.meter, reading.point, reading.interval_s] = stored
            for stored in latest.values():
                yield read_record(0, stored.kept, with_evidence=kind is RecordClass.BILLING)

    def trace(self, read_id: str) -> Trace | None:
        """The way back of a reading, None when no such id is kept.

        The first digits of an id are enough (ID_CHARS_MIN at least); JournalError when several
        readings begin with them.
        """
        digits = read_id.lower()
        if not ID_CHARS_MIN <= len(digits) <= ID_CHARS or not set(digits) <= _HEX:
            return None
        bounds = (
            bytes.fromhex(digits.ljust(ID_CHARS, "0")),
            bytes.fromhex(digits.ljust(ID_CHARS, "f")),
        )
        with self._reading():
            days = day_tables(self._connection)
            found = [
                (row, kind, table_name(prefix, day))
                for prefix, kind in _CLASS_OF_PREFIX.items()
                for day in reversed(days.get(prefix, []))
                for row in self._connection.execute(
                    f"SELECT {READING_COLUMNS} FROM {table_name(prefix, day)}"  # noqa: S608
                    " WHERE read_id BETWEEN ? AND ? LIMIT 2",
                    bounds,
                )
            ]
            if len(found) > 1:
                msg = f"several readings begin with {read_id}: give more digits of the id"
                raise JournalError(msg)
            return self._trace(*found[0], days) if found else None

    # -- due points

    def due(self, day: date) -> dict[str, Any]:
        """The counts of a local day as they stand now (`due/1`); all 0 when nothing was frozen."""
        with self._reading():
            return due_summary(self._connection, self._lexicon, day)

    def due_counts(self, day: date, *, until_ms: int) -> dict[DueState, int]:
        """How many points of a local day due up to an instant are in each state."""
        with self._reading():
            return due_counts(self._connection, day, until_ms=until_ms)

    def due_report(self, day: date) -> bytes | None:
        """The report of a closed day, the same bytes for ever; None while it is open."""
        with self._reading():
            row = self._connection.execute(
                "SELECT report FROM due_days WHERE day=?", (day.isoformat(),)
            ).fetchone()
        return None if row is None or row[0] is None else bytes(row[0])

    def due_success(self, day: date, zone: ZoneInfo) -> SuccessReport | None:
        """How well a day was read (`due_report/1`); None when nothing was frozen for it.

        Of a closed day what was written down when it was closed, the same bytes for ever; of an
        open one how it stands now. JournalError when an older release closed the day, and
        JournalDamaged when the bytes are not the ones that were written down.
        """
        with self._reading():
            row = self._connection.execute(
                "SELECT closed_ms, success, success_sha256 FROM due_days WHERE day=?",
                (day.isoformat(),),
            ).fetchone()
            if row is None:
                return None
            closed_ms, success, told = row
            if closed_ms is None:
                made = success_report(self._connection, self._lexicon, day, zone)
                return SuccessReport(made, sha256(made).hexdigest(), is_closed=False)
        if success is None:
            msg = f"{day} was closed by an older release, which kept the counts alone"
            raise JournalError(msg)
        if sha256(success).hexdigest() != told:
            msg = f"the report of {day} is not the one that was written when the day was closed"
            raise JournalDamaged(msg)
        return SuccessReport(bytes(success), told, is_closed=True)

    def due_after_closing(self, day: date) -> list[DueLine]:
        """The due points of a closed day whose value came afterwards; by instant."""
        with self._reading():
            return after_closing(self._connection, self._lexicon, day)

    def due_lines(self, day: date, *, until_ms: int | None = None) -> list[DueLine]:
        """Every due point of a local day, by instant; those due later than `until_ms` left out."""
        with self._reading():
            return list(due_lines(self._connection, self._lexicon, day, until_ms=until_ms))

    def due_days(self) -> list[date]:
        """The local days with a frozen list, oldest first."""
        with self._reading():
            rows = self._connection.execute("SELECT day FROM due_days ORDER BY day").fetchall()
        return [date.fromisoformat(day) for (day,) in rows]

    # -- the feed

    def feed_status(self) -> dict[str, ConsumerState]:
        """Where every consumer stands, by name; those no longer configured too."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT id, name, classes, active, last_seq, receipted, expired FROM consumers"
                " ORDER BY name"
            ).fetchall()
            days = day_tables(self._connection).get("s", [])
            return {row[1]: self._consumer(row, days) for row in rows}

    def events(self, *, kinds: Sequence[str] | None = None, from_ms: int = 0) -> list[Event]:
        """Recorded events by their date."""
        only = "" if kinds is None else f" AND kind IN ({','.join('?' * len(kinds))})"
        with self._reading():
            rows = self._connection.execute(
                f"SELECT kind, at_ms, fields FROM events WHERE at_ms>=?{only} ORDER BY at_ms, id",  # noqa: S608
                (from_ms, *(kinds or ())),
            ).fetchall()
        return [Event(kind, at_ms, msgspec.json.decode(fields)) for kind, at_ms, fields in rows]

    def clock_history(
        self, from_ms: int = 0, meter: str | None = None
    ) -> dict[str, list[ClockMeasured]]:
        """The measurements of meters' clocks from an instant on, by meter, oldest first."""
        with self._reading():
            return clocks.history(self._connection, from_ms, meter)

    # -- inside

    def _check(self) -> None:
        with self._reading():
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if application != schema.APPLICATION_ID:
            msg = f"{self._path} is not a journal"
            raise JournalError(msg)
        if version != len(schema.MIGRATIONS):
            msg = (
                f"the journal {self._path} has schema {version}, this release reads "
                f"{len(schema.MIGRATIONS)}: start this release's daemon, or use the other release"
            )
            raise JournalError(msg)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One consistent, short look; SQLite's errors become ours."""
        try:
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            msg = f"the journal {self._path} could not be read: {error}"
            raise JournalError(msg) from error
        except sqlite3.DatabaseError as error:
            msg = (
                f"the journal {self._path} is damaged ({error}): the daemon sets it aside at its "
                "next start"
            )
            raise JournalDamaged(msg) from error

    def _series(self, meter: str | None, point: str | None) -> list[int] | None:
        """The series asked for, None for all."""
        if meter is None and point is None:
            return None
        rows = self._connection.execute(
            "SELECT id FROM series WHERE (?1 IS NULL OR meter=?1) AND (?2 IS NULL OR point=?2)",
            (meter, point),
        )
        return [number for (number,) in rows]

    def _of_day(
        self,
        prefix: str,
        day: int,
        wanted: Sequence[int] | None,
        from_ms: int | None,
        to_ms: int | None,
        all_revisions: bool,
    ) -> Iterator[Stored]:
        """One day table, by instant and series, page by page."""
        low = (day * DAY_MS if from_ms is None else from_ms, -1, -1)
        high = (day + 1) * DAY_MS if to_ms is None else to_ms
        only = "" if wanted is None else f" AND series IN ({','.join(map(str, wanted))})"
        sql = (
            f"SELECT {READING_COLUMNS} FROM {table_name(prefix, day)}"  # noqa: S608
            f" WHERE (time_ms, series, revision)>(?,?,?) AND time_ms<?{only}"
            " ORDER BY time_ms, series, revision LIMIT ?"
        )
        last = None
        while True:
            with self._reading():
                rows = self._connection.execute(sql, (*low, high, _PAGE)).fetchall()
                page = [stored_from_row(row, self._lexicon) for row in rows]
            for row, stored in zip(rows, page, strict=True):
                if last is not None and (all_revisions or last[0] != (row[2], row[1])):
                    yield last[1]
                last = ((row[2], row[1]), stored)
            if len(rows) < _PAGE:
                break
            low = (rows[-1][2], rows[-1][1], rows[-1][3])
        if last is not None:
            yield last[1]

    def _trace(
        self, row: Sequence[Any], kind: RecordClass, table: str, days: dict[str, list[int]]
    ) -> Trace:
        stored = stored_from_row(row, self._lexicon)
        rows = self._connection.execute(
            f"SELECT {READING_COLUMNS} FROM {table} WHERE time_ms=? AND series=?"  # noqa: S608
            " ORDER BY revision",
            (row[2], row[1]),
        ).fetchall()
        found = find_exchanges(
            self._connection, self._lexicon, days, {stored.exchange_id} - {0}
        ).get(stored.exchange_id)
        (epoch,) = self._connection.execute("SELECT value FROM meta WHERE key='epoch'").fetchone()
        return Trace(
            stored=stored,
            record_class=kind,
            record=read_record(0, stored.kept, with_evidence=kind is RecordClass.BILLING),
            revisions=tuple(stored_from_row(r, self._lexicon) for r in rows),
            due=self._due_of(stored, days.get("d", [])),
            exchange_ref=f"x{stored.exchange_id}" if stored.exchange_id else None,
            exchange=None if found is None else found[1],
            exchange_software=None if found is None else found[2],
            epoch=epoch,
        )

    def _due_of(self, stored: Stored, days: Iterable[int]) -> DueLine | None:
        """The due point a reading was for; a local day lies within a day of its UTC one."""
        reading = stored.reading
        if reading.due_ms is None:
            return None
        around = reading.due_ms // DAY_MS
        for number in sorted(set(days) & {around - 1, around, around + 1}):
            for line in due_lines(
                self._connection,
                self._lexicon,
                day_of(number),
                from_ms=reading.due_ms,
                until_ms=reading.due_ms,
            ):
                if line.key[:2] == (reading.meter, reading.point):
                    return line
        return None

    def _consumer(self, row: Sequence[Any], days: Sequence[int]) -> ConsumerState:
        cid, _name, classes, active, last_seq, receipted, expired = row
        oldest: int | None = None
        waiting: int | None = None
        newest: int | None = None
        newest_count = 0
        for day in days:
            first, count, last = self._connection.execute(
                f"SELECT min(seq), sum(count), max(seq+count-1) FROM {table_name('s', day)}"  # noqa: S608
                " WHERE consumer=?",
                (cid,),
            ).fetchone()
            if first is None:
                continue
            oldest = first if oldest is None else oldest
            if waiting is None and last > receipted:
                waiting = day
            newest, newest_count = day, count
        cursor = CursorState(
            last_seq + 1, receipted, last_seq + 1 if oldest is None else oldest, bool(expired)
        )
        return ConsumerState(
            cursor=cursor,
            active=bool(active),
            classes=tuple(classes.split(",")),
            waiting_since=None if waiting is None else day_of(waiting),
            newest_day=None if newest is None else day_of(newest),
            newest_day_records=newest_count,
        )
