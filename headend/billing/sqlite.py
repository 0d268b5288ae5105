"""Billing's database as a file of SQLite's."""

import sqlite3
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, StaticPool

from headend.billing.errors import BillingDatabaseError, DatabaseAway
from headend.config.database_url import SqlitePlace
from headend.durable import make_folder

BUSY_TIMEOUT_MS = 5000
_WRITER = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
    "PRAGMA wal_autocheckpoint=4000",
    "PRAGMA journal_size_limit=67108864",
)
_READER = (f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}", "PRAGMA query_only=ON")
_DAMAGED = (
    "Nothing was changed. If it is damaged, move it aside (with its -wal file) and restore a "
    "copy, or let billing begin a new one: the head-ends send again what they keep"
)


class SqliteHome:
    """The file at `place`. BillingDatabaseError for looking at one that is not there."""

    is_remote = False

    def __init__(self, place: SqlitePlace, *, writes: bool) -> None:
        self.name = place.path or ":memory:"
        if place.is_file:
            path = Path(place.path)
            if writes:
                make_folder(path.parent)
            elif not path.exists():
                msg = f"there is no database {path} yet: `headend billing run` makes it"
                raise BillingDatabaseError(msg)
        url = URL.create("sqlite", database=place.path or ":memory:")
        pool = NullPool if place.is_file else StaticPool
        self.engine: Engine = create_engine(url, poolclass=pool)
        _set_up(self.engine, _WRITER if writes else _READER, writes=writes)

    def explained(self, error: BaseException, *, at_start: bool = False) -> BaseException:
        """The error in our words."""
        if isinstance(error, OperationalError):
            hint = "Nothing was changed" if at_start else ""
            return DatabaseAway(f"{self.name}: {error.orig}", hint=hint, is_lasting=at_start)
        # Exactly this class: what SQLite says of a damaged file. Its subclasses are our mistakes.
        if type(error) is DatabaseError:
            return BillingDatabaseError(f"{self.name} cannot be used: {error.orig}. {_DAMAGED}")
        return error

    def ddl(self, statement: str) -> str:
        """As it stands."""
        return statement

    def relations(self, connection: Connection) -> set[str]:
        """Tables and views."""
        inspector = inspect(connection)
        return {*inspector.get_table_names(), *inspector.get_view_names()}

    def check(self, connection: Connection) -> None:
        """The file as a whole."""
        finding = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if finding != "ok":
            msg = f"{self.name} is damaged ({finding}). {_DAMAGED}"
            raise BillingDatabaseError(msg)

    def check_rights(self, connection: Connection) -> None:
        """Whoever may open the file may do everything with it."""

    def let_go(self) -> None:
        """Nothing stays behind a session."""

    def cut(self) -> None:
        """SQLite waits for nobody longer than its busy time-out."""


def _bring_home(connection: sqlite3.Connection) -> None:
    """Make durable what a session before this one may have left in the log unsynced.

    A commit whose sync failed was told as failed, and yet the next session finds it there: taken
    for known, it would be receipted without ever having been on the disk. Syncing the log again
    is no help, since an operating system may forget what it could not write: the content is
    copied into the file, and a commit of our own begins the log anew.
    """
    (_busy, frames, _copied) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if frames <= 0:
        return
    (is_busy, *_rest) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if is_busy:
        msg = "database is locked: somebody uses it, so its log cannot be made durable yet"
        raise sqlite3.OperationalError(msg)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version={int(version)}").close()


def _set_up(engine: Engine, pragmas: tuple[str, ...], *, writes: bool) -> None:
    """Transactions are ours to begin: a write lock is taken at once, never half way."""

    def connected(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(pragma).close()
        if writes:
            _bring_home(connection)

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
