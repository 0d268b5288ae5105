"""What the writer keeps in memory of the file: names, numbers, consumers, bases, tables.

It belongs to the writer thread. After a rollback it is loaded again: the file is the truth.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from headend.domain.due import local_day
from headend.domain.exchange import Exchange
from headend.journal.model import (
    CLASS_NAMES,
    DAY_MS,
    ConsumerSpec,
    CursorState,
    RecordClass,
)
from headend.journal.schema import (
    READING_PREFIX,
    create_day_table,
    day_number,
    day_tables,
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
    """One day's readings of one class. `newest`: latest time stored for (meter, point) ids.

    `complete`: the table was created by us, so what `newest` does not know is not in it.
    """

    name: str
    day: int
    record_class: RecordClass
    complete: bool
    newest: dict[tuple[int, int], int] = field(default_factory=dict)
    rows: list[tuple[object, ...]] = field(default_factory=list)


class KnownExchanges:
    """Which row an exchange object became. Two generations: the older one is dropped whole."""

    def __init__(self) -> None:
        self._recent: dict[Exchange, tuple[int, RecordClass]] = {}
        self._older: dict[Exchange, tuple[int, RecordClass]] = {}

    def get(self, exchange: Exchange) -> tuple[int, RecordClass] | None:
        """Row id and the class of its table, None when not known (any more)."""
        return self._recent.get(exchange) or self._older.get(exchange)

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


class State:
    """The writer's memory of the file."""

    def __init__(self, connection: sqlite3.Connection, *, software: str, zone: ZoneInfo) -> None:
        self.connection = connection
        self.software = software
        self.exchanges = KnownExchanges()
        self.zone = zone
        self.load()

    def load(self) -> None:
        """Read everything from the file again."""
        execute = self.connection.execute
        self.meta: dict[str, str] = dict(execute("SELECT key, value FROM meta").fetchall())
        self.epoch = self.meta["epoch"]
        self.next_rid = int(self.meta["next_rid"])
        self.next_xid = int(self.meta["next_xid"])
        (last_event,) = execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
        self.next_event: int = max(last_event + 1, int(self.meta["next_event"]))
        self.names: dict[str, int] = {t: i for i, t in execute("SELECT id, text FROM names")}
        self.tables: dict[str, set[int]] = {
            prefix: set(days) for prefix, days in day_tables(self.connection).items()
        }
        self.bases: dict[tuple[int, int], tuple[str, int]] = {
            (m, p): (v, t)
            for m, p, v, t in execute("SELECT meter, point, value, time_ms FROM bases")
        }
        self.frozen_days = {d for (d,) in execute("SELECT day FROM due_days")}
        self._day_tables: dict[tuple[RecordClass, int], DayTable] = {}
        self._due_tables: dict[int, str | None] = {}
        self.stream_day = max(self.tables.get("s", ()), default=0)
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

    def configure(self, specs: Iterable[ConsumerSpec]) -> None:
        """Make the consumers' rows what the configuration says, inside a transaction."""
        wanted = {spec.name: spec for spec in specs}
        execute = self.connection.execute
        execute("UPDATE consumers SET active=0")
        for name, spec in wanted.items():
            execute(
                "INSERT INTO consumers (name, classes, max_backlog_days, active, last_seq,"
                " receipted, expired) VALUES (?,?,?,1,0,0,0) ON CONFLICT (name) DO UPDATE SET"
                " classes=excluded.classes, max_backlog_days=excluded.max_backlog_days, active=1",
                (name, ",".join(sorted(spec.classes)), spec.max_backlog_days),
            )
        self._load_consumers()

    def ensure_table(self, prefix: str, day: int) -> bool:
        """Create a day table unless it is there; True when it was created."""
        days = self.tables.setdefault(prefix, set())
        if day in days:
            return False
        create_day_table(self.connection, table_name(prefix, day))
        days.add(day)
        return True

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
        """Day tables were dropped: what is known of their content is void."""
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

    def cursors(self) -> dict[str, CursorState]:
        """Where every configured consumer stands."""
        return {c.name: c.cursor() for c in self.consumers.values() if c.active}
