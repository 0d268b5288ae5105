"""What the writer keeps in memory of the file: words, numbers, consumers, tables.

It belongs to the writer thread. A transaction that is rolled back is undone here as well.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from headend.domain.due import local_day
from headend.domain.exchange import Exchange
from headend.journal.bases import Bases
from headend.journal.codec import Form, form_from_row
from headend.journal.model import (
    CLASS_NAMES,
    DAY_MS,
    ConsumerSpec,
    CursorState,
    RecordClass,
)
from headend.journal.schema import (
    GONE,
    NO_INTERVAL,
    READING_PREFIX,
    create_day_table,
    day_number,
    day_tables,
    gone_tables,
    table_name,
)

BEFORE_EVERYTHING = -(1 << 62)
_EXCHANGES_KEPT = 4096
_TABLES_KEPT = 16
_DUE_STAMPS_KEPT = 4096


@dataclass(slots=True)
class Consumer:
    """One consumer's row. `oldest` is the oldest stream row kept, None when there is none."""

    id: int
    name: str
    classes: frozenset[RecordClass]
    max_backlog_days: int
    active: bool
    last_seq: int
    receipted: int
    expired: bool
    oldest: int | None = None

    def cursor(self) -> CursorState:
        """The public form."""
        oldest = self.last_seq + 1 if self.oldest is None else self.oldest
        return CursorState(self.last_seq + 1, self.receipted, oldest, self.expired)


@dataclass(slots=True)
class DayTable:
    """One day's readings of one class. `newest`: latest time written of a series, as far as known.

    `complete`: the table was created by us, so what `newest` does not know is not in it. It is a
    help only: the unique key in the file is what keeps a key from being written twice.
    """

    name: str
    day: int
    record_class: RecordClass
    complete: bool
    newest: dict[int, int] = field(default_factory=dict)
    rows: list[tuple[object, ...]] = field(default_factory=list)


class KnownExchanges:
    """Which row an exchange object became. Two generations: the older one is dropped whole."""

    def __init__(self) -> None:
        self._recent: dict[Exchange, tuple[int, RecordClass]] = {}
        self._older: dict[Exchange, tuple[int, RecordClass]] = {}

    def get(self, exchange: Exchange) -> tuple[int, RecordClass] | None:
        """Row id and the class of its table, None when not known (any more)."""
        known = self._recent.get(exchange)
        return self._older.get(exchange) if known is None else known

    def put(self, exchange: Exchange, xid: int, record_class: RecordClass) -> None:
        """Remember one."""
        if len(self._recent) >= _EXCHANGES_KEPT:
            self._older, self._recent = self._recent, {}
        self._recent[exchange] = (xid, record_class)

    def forget(self, exchanges: Iterable[Exchange]) -> None:
        """Their rows were rolled back."""
        for exchange in exchanges:
            self._recent.pop(exchange, None)
            self._older.pop(exchange, None)


@dataclass(slots=True)
class _Mark:
    """Where the numbers stood when a transaction began."""

    names: int
    series: int
    forms: int
    next_rid: dict[RecordClass, int]
    next_xid: int
    next_event: int
    epoch: str


class State:
    """The writer's memory of the file."""

    def __init__(self, connection: sqlite3.Connection, *, software: str, zone: ZoneInfo) -> None:
        self.connection = connection
        self.software = software
        self.zone = zone
        self.exchanges = KnownExchanges()
        self._day_tables: dict[tuple[RecordClass, int], DayTable] = {}
        self._due_tables: dict[int, str | None] = {}
        self._load_words()
        self._load_numbers()
        self._load_tables()
        self.bases = Bases(connection, self.series, self.forms, self.tables)
        self._mark = self._marked()

    # -- transactions

    def begin(self) -> None:
        """A transaction begins: what follows can be undone."""
        self._mark = self._marked()
        self.bases.begin()

    def rolled_back(self) -> None:
        """The transaction came to nothing: forget what it brought. Then `look_again`."""
        mark = self._mark
        for words, size in ((self.names, mark.names), (self.series, mark.series)):
            while len(words) > size:
                words.popitem()
        while len(self.forms) > mark.forms:
            del self.form_ids[self.forms.pop()]
        self.next_rid.update(mark.next_rid)
        self.next_xid = mark.next_xid
        self.next_event = mark.next_event
        self.epoch = mark.epoch
        self.bases.rolled_back()

    def look_again(self) -> None:
        """Take tables, lists and consumers as the file has them. sqlite3.Error: try again."""
        self.forget_tables()
        self._load_tables()

    def _marked(self) -> _Mark:
        return _Mark(
            len(self.names),
            len(self.series),
            len(self.forms),
            dict(self.next_rid),
            self.next_xid,
            self.next_event,
            self.epoch,
        )

    # -- loading

    def _load_words(self) -> None:
        execute = self.connection.execute
        self.names: dict[str, int] = {
            text: number for number, text in execute("SELECT id, text FROM names ORDER BY id")
        }
        self.series: dict[tuple[str, str, int | None], int] = {}
        for number, meter, point, interval_s in execute(
            "SELECT id, meter, point, interval_s FROM series ORDER BY id"
        ):
            key = (meter, point, None if interval_s == NO_INTERVAL else interval_s)
            self.series[key] = number
        rows = execute("SELECT * FROM forms ORDER BY id")
        self.forms: list[Form] = [form_from_row(row[1:]) for row in rows]
        self.form_ids: dict[tuple[object, ...], int] = {
            form: i for i, form in enumerate(self.forms, start=1)
        }

    def _load_numbers(self) -> None:
        meta = dict(self.connection.execute("SELECT key, value FROM meta").fetchall())
        self.epoch = str(meta["epoch"])
        self.next_rid: dict[RecordClass, int] = {
            kind: int(meta[_rid_key(kind)]) for kind in READING_PREFIX
        }
        self.next_xid = int(meta["next_xid"])
        self.next_event = int(meta["next_event"])

    def _load_tables(self) -> None:
        found = day_tables(self.connection)
        self.gone = gone_tables(self.connection)
        self.tables: dict[str, set[int]] = {prefix: set(days) for prefix, days in found.items()}
        self.stream_day = max(self.tables.get("s", ()), default=0)
        self.frozen_days: set[str] = {
            day for (day,) in self.connection.execute("SELECT day FROM due_days")
        }
        self._load_consumers()

    def _load_consumers(self) -> None:
        self.consumers: dict[str, Consumer] = {}
        rows = self.connection.execute(
            "SELECT id, name, classes, max_backlog_days, active, last_seq, receipted, expired"
            " FROM consumers ORDER BY id"
        )
        for cid, name, classes, days, active, last_seq, receipted, expired in rows.fetchall():
            kinds = frozenset(CLASS_NAMES[c] for c in classes.split(","))
            self.consumers[name] = Consumer(
                cid, name, kinds, days, bool(active), last_seq, receipted, bool(expired)
            )
        self.find_oldest()
        self.streams: dict[RecordClass, list[Consumer]] = {
            kind: [c for c in self.consumers.values() if c.active and kind in c.classes]
            for kind in RecordClass
        }

    def find_oldest(self) -> None:
        """Find each consumer's oldest stream row (after retention or an epoch change)."""
        days = sorted(self.tables.get("s", ()))
        for consumer in self.consumers.values():
            consumer.oldest = None
            for day in days:
                (seq,) = self.connection.execute(
                    f"SELECT min(seq) FROM {table_name('s', day)} WHERE consumer=?",  # noqa: S608
                    (consumer.id,),
                ).fetchone()
                if seq is not None:
                    consumer.oldest = seq
                    break

    # -- consumers

    def configure(self, specs: Iterable[ConsumerSpec]) -> None:
        """Make the consumers' rows what the configuration says, inside a transaction."""
        execute = self.connection.execute
        execute("UPDATE consumers SET active=0")
        for spec in specs:
            execute(
                "INSERT INTO consumers (name, classes, max_backlog_days, active, last_seq,"
                " receipted, expired) VALUES (?,?,?,1,0,0,0) ON CONFLICT (name) DO UPDATE SET"
                " classes=excluded.classes, max_backlog_days=excluded.max_backlog_days, active=1",
                (spec.name, ",".join(sorted(spec.classes)), spec.max_backlog_days),
            )
        self._load_consumers()

    def cursors(self) -> dict[str, CursorState]:
        """Where every configured consumer stands."""
        return {c.name: c.cursor() for c in self.consumers.values() if c.active}

    def write_numbers(self, touched: Iterable[str]) -> None:
        """Write the counters, and the rows of the consumers that were touched."""
        counters = [
            (str(self.next_xid), "next_xid"),
            (str(self.next_event), "next_event"),
            *((str(number), _rid_key(kind)) for kind, number in self.next_rid.items()),
        ]
        self.connection.executemany("UPDATE meta SET value=? WHERE key=?", counters)
        for name in touched:
            c = self.consumers[name]
            self.connection.execute(
                "UPDATE consumers SET last_seq=?, receipted=?, expired=? WHERE id=?",
                (c.last_seq, c.receipted, c.expired, c.id),
            )

    # -- tables

    def ensure_table(self, prefix: str, day: int) -> bool:
        """Create a day table unless it is there; True when it was created."""
        days = self.tables.setdefault(prefix, set())
        if day in days:
            return False
        table = table_name(prefix, day)
        if table in self.gone:
            # A day that retention has dropped gets something again: what is left of it must go.
            self.connection.execute(f"DROP TABLE {table}")
            self.set_gone([name for name in self.gone if name != table])
        create_day_table(self.connection, table)
        days.add(day)
        return True

    def set_gone(self, tables: list[str]) -> None:
        """Write down which day tables are no longer there, though their pages are not free yet."""
        self.gone = tables
        if tables:
            self.connection.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", (GONE, " ".join(tables))
            )
        else:
            self.connection.execute("DELETE FROM meta WHERE key=?", (GONE,))

    def reading_table(self, record_class: RecordClass, day: int) -> DayTable:
        """The table of a class and day, created when it is new."""
        key = (record_class, day)
        table = self._day_tables.get(key)
        if table is None:
            prefix = READING_PREFIX[record_class]
            created = self.ensure_table(prefix, day)
            if len(self._day_tables) >= _TABLES_KEPT:
                idle = next((k for k, t in self._day_tables.items() if not t.rows), None)
                if idle is not None:
                    del self._day_tables[idle]
            table = DayTable(table_name(prefix, day), day, record_class, created)
            self._day_tables[key] = table
        return table

    def loaded_tables(self) -> Iterable[DayTable]:
        """The reading tables that are in use."""
        return self._day_tables.values()

    def forget_tables(self) -> None:
        """Day tables were dropped or rolled back: what is known of their content is void."""
        self._day_tables.clear()
        self._due_tables.clear()

    def due_table(self, due_ms: int) -> str | None:
        """The table of the due points of an instant, None when its day was never frozen."""
        try:
            return self._due_tables[due_ms]
        except KeyError:
            day = day_number(local_day(due_ms, self.zone))
            name = table_name("d", day) if day in self.tables.get("d", ()) else None
            if len(self._due_tables) >= _DUE_STAMPS_KEPT:
                self._due_tables.clear()
            self._due_tables[due_ms] = name
            return name

    def new_due_table(self) -> None:
        """A day was frozen: instants that had no table may have one now."""
        self._due_tables.clear()

    def stream_table(self, now_ms: int) -> str:
        """The table that stream rows go to now; a clock set back does not open an older one."""
        day = max(self.stream_day, now_ms // DAY_MS)
        if day != self.stream_day or day not in self.tables.get("s", ()):
            self.ensure_table("s", day)
            self.stream_day = day
        return table_name("s", day)


def _rid_key(record_class: RecordClass) -> str:
    return f"next_rid_{record_class.name.lower()}"
