"""The journal's tables: fixed ones, day tables, and the migrations between releases.

Bulk lives in day tables so that retention is a DROP: `rb_`/`rt_` readings (billing, telemetry) by
UTC day of the instant held for, `xb_`/`xt_` exchanges by UTC day received, `s_` stream rows by
UTC day appended, `d_` due points by local day. Everything is in one database, so one commit
covers all of it.
"""

import re
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from headend.journal.model import RecordClass

APPLICATION_ID = 0x48454A31  # "HEJ1"
EPOCH_DAY = date(1970, 1, 1)
NO_INTERVAL = -1  # NULLs would be distinct in a unique index
DAY_TABLE = re.compile(r"^(rb|rt|xb|xt|s|d)_(\d{8})$")

READING_PREFIX = {RecordClass.BILLING: "rb", RecordClass.TELEMETRY: "rt"}
EXCHANGE_PREFIX = {RecordClass.BILLING: "xb", RecordClass.TELEMETRY: "xt"}

BUSY_TIMEOUT = "PRAGMA busy_timeout=5000"
GONE = "gone"  # in `meta`: day tables that are no longer there and still take room
RESTORED = "restored"  # in `meta`: this file was brought back, and why it needs a new epoch

PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    BUSY_TIMEOUT,
    "PRAGMA foreign_keys=ON",
    "PRAGMA wal_autocheckpoint=4000",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA cache_size=-8192",  # KiB; a group touches few pages, and 32 MiB fill up for a day
    "PRAGMA temp_store=MEMORY",
)

_V1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE epochs (
  id INTEGER PRIMARY KEY, epoch TEXT NOT NULL UNIQUE, begun_ms INTEGER NOT NULL,
  reason TEXT NOT NULL) STRICT;
CREATE TABLE names (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE series (
  id INTEGER PRIMARY KEY, meter TEXT NOT NULL, point TEXT NOT NULL, interval_s INTEGER NOT NULL,
  UNIQUE (meter, point, interval_s)) STRICT;
CREATE TABLE forms (
  id INTEGER PRIMARY KEY, unit TEXT NOT NULL, multiplier TEXT NOT NULL, side TEXT NOT NULL,
  status TEXT NOT NULL, verdict TEXT NOT NULL, flags TEXT NOT NULL, late INTEGER NOT NULL,
  final INTEGER NOT NULL, source TEXT NOT NULL, software TEXT NOT NULL) STRICT;
CREATE TABLE consumers (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, classes TEXT NOT NULL,
  max_backlog_days INTEGER NOT NULL, active INTEGER NOT NULL, last_seq INTEGER NOT NULL,
  receipted INTEGER NOT NULL, expired INTEGER NOT NULL) STRICT;
CREATE TABLE bases (
  series INTEGER PRIMARY KEY, value TEXT NOT NULL, time_ms INTEGER NOT NULL) STRICT;
CREATE TABLE events (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, at_ms INTEGER NOT NULL,
  recorded_ms INTEGER NOT NULL, fields TEXT NOT NULL) STRICT;
CREATE INDEX events_kind ON events (kind, at_ms);
CREATE TABLE due_days (
  day TEXT PRIMARY KEY, frozen INTEGER NOT NULL, frozen_ms INTEGER NOT NULL,
  closed_ms INTEGER, report BLOB) STRICT, WITHOUT ROWID;
CREATE TABLE waiting (
  id INTEGER PRIMARY KEY, boot_id TEXT NOT NULL, monotonic_s REAL NOT NULL, bus TEXT NOT NULL,
  device TEXT NOT NULL, request BLOB NOT NULL, reply BLOB, stray BLOB NOT NULL,
  took_ms REAL NOT NULL, attempt INTEGER NOT NULL, outcome TEXT NOT NULL,
  payload TEXT NOT NULL) STRICT;
"""

_V2 = """
CREATE TABLE learned (
  meter TEXT PRIMARY KEY, protocol TEXT NOT NULL, device TEXT NOT NULL, state TEXT NOT NULL,
  changed_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""

_V4 = """
CREATE TABLE clocks (
  meter TEXT NOT NULL, at_ms INTEGER NOT NULL, offset_ms INTEGER NOT NULL,
  uncertainty_ms INTEGER NOT NULL, looks INTEGER NOT NULL, began INTEGER NOT NULL,
  PRIMARY KEY (meter, at_ms)) STRICT, WITHOUT ROWID;
"""

# Keys begin with the time: what is written now lies together, so a group touches few pages.
_DAY_TABLES = {
    "r": """
CREATE TABLE {t} (
  rid INTEGER PRIMARY KEY, series INTEGER NOT NULL, time_ms INTEGER NOT NULL,
  revision INTEGER NOT NULL, read_id BLOB NOT NULL, service_point INTEGER NOT NULL, value TEXT,
  form INTEGER NOT NULL, received_ms INTEGER NOT NULL, due_ms INTEGER, meter_time_ms INTEGER,
  xid INTEGER NOT NULL) STRICT;
CREATE UNIQUE INDEX {t}_key ON {t} (time_ms, series, revision);
CREATE UNIQUE INDEX {t}_id ON {t} (read_id);
""",
    "x": """
CREATE TABLE {t} (
  xid INTEGER PRIMARY KEY, bus INTEGER NOT NULL, device INTEGER NOT NULL, request BLOB NOT NULL,
  reply BLOB, stray BLOB NOT NULL, sent_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL,
  took_ms REAL NOT NULL, attempt INTEGER NOT NULL, outcome INTEGER NOT NULL,
  software INTEGER NOT NULL) STRICT;
""",
    # A row is a run of `count` records of `n` readings each, numbered and stored one after
    # another: a whole group of readings is one row a consumer.
    "s": """
CREATE TABLE {t} (
  consumer INTEGER NOT NULL, seq INTEGER NOT NULL, count INTEGER NOT NULL, kind INTEGER NOT NULL,
  day INTEGER NOT NULL, rid INTEGER NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (consumer, seq)) STRICT, WITHOUT ROWID;
""",
    "d": """
CREATE TABLE {t} (
  due_ms INTEGER NOT NULL, series INTEGER NOT NULL, bus INTEGER NOT NULL, area INTEGER NOT NULL,
  window_end_ms INTEGER NOT NULL, state INTEGER NOT NULL, reason TEXT, read_id BLOB,
  after_close INTEGER NOT NULL, settled_ms INTEGER, failed INTEGER NOT NULL DEFAULT 0,
  concentrator INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (due_ms, series)) STRICT, WITHOUT ROWID;
""",
}


def _first(connection: sqlite3.Connection) -> None:
    _run(connection, _V1)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")


def _second(connection: sqlite3.Connection) -> None:
    _run(connection, _V2)


def _third(connection: sqlite3.Connection) -> None:
    """Due points know when they were settled and how often they failed before.

    What was settled under an older schema gets the latest it can have been for `read`, and does
    not count as read at the first try: nobody knows.
    """
    for number in day_tables(connection).get("d", ()):
        table = table_name("d", number)
        for column in (
            "settled_ms INTEGER",
            "failed INTEGER NOT NULL DEFAULT 0",
            "concentrator INTEGER NOT NULL DEFAULT 0",
        ):
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
        connection.execute(
            f"UPDATE {table} SET failed=1, settled_ms=CASE state WHEN 1 THEN window_end_ms END"  # noqa: S608
            " WHERE state<>0"
        )
    connection.execute("ALTER TABLE due_days ADD COLUMN success BLOB")
    connection.execute("ALTER TABLE due_days ADD COLUMN success_sha256 TEXT")


def _fourth(connection: sqlite3.Connection) -> None:
    _run(connection, _V4)


MIGRATIONS: Sequence[Callable[[sqlite3.Connection], None]] = (_first, _second, _third, _fourth)
"""Entry i takes a journal from schema i to i + 1. Entries are never changed once released."""


def migrate(connection: sqlite3.Connection) -> int:
    """Bring the schema up to this release, each step in a transaction; the steps taken."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    steps = MIGRATIONS[version:]
    for number, step in enumerate(steps, start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            step(connection)
            connection.execute(f"PRAGMA user_version={number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    return len(steps)


def _run(connection: sqlite3.Connection, script: str) -> None:
    # Not executescript: that would commit the caller's transaction.
    for statement in script.split(";"):
        if statement.strip():
            connection.execute(statement)


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - EPOCH_DAY).days


def day_of(number: int) -> date:
    """The date of a day number."""
    return EPOCH_DAY + timedelta(days=number)


@lru_cache(maxsize=1024)
def table_name(prefix: str, day: int) -> str:
    """The day table of a prefix; `day` is a day number."""
    return f"{prefix}_{day_of(day):%Y%m%d}"


def create_day_table(connection: sqlite3.Connection, table: str) -> None:
    """Create a day table with its indexes, inside the caller's transaction."""
    assert DAY_TABLE.match(table)
    _run(connection, _DAY_TABLES[table[0]].format(t=table))


def day_tables(connection: sqlite3.Connection) -> dict[str, list[int]]:
    """Every day table there is: prefix -> day numbers, ascending."""
    found: dict[str, list[int]] = {}
    gone = gone_tables(connection)
    names = connection.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")
    for (name,) in names:
        match = DAY_TABLE.match(name)
        if match and name not in gone:
            when = datetime.strptime(match[2], "%Y%m%d").replace(tzinfo=UTC).date()
            found.setdefault(match[1], []).append(day_number(when))
    return found


def gone_tables(connection: sqlite3.Connection) -> list[str]:
    """Day tables that retention has dropped and whose pages are not all free yet."""
    row = connection.execute("SELECT value FROM meta WHERE key=?", (GONE,)).fetchone()
    return [] if row is None else str(row[0]).split()
