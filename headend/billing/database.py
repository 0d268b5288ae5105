"""Opens billing's database: for the one writer, or for looking at it.

A database that is damaged, newer than this program or no database of ours is refused with a
message that says what to do; it is never repaired or begun anew by itself. What SQLite and
PostgreSQL do differently stands in `sqlite.py` and `postgresql.py`, and for rows in bulk in
`bulk.py` and its two halves.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import SQLAlchemyError

from headend.billing.errors import BillingDatabaseError, DatabaseAway, DatabaseBusy
from headend.billing.postgresql import PostgresHome
from headend.billing.spec import DatabaseSpec
from headend.billing.sqlite import SqliteHome
from headend.billing.tables import MIGRATIONS, SCHEMA_VERSION, metadata, schema_version
from headend.config.database_url import SqlitePlace
from headend.domain.clock import Clock
from headend.domain.errors import ConfigError

__all__ = [
    "BillingDatabaseError",
    "Database",
    "DatabaseAway",
    "DatabaseBusy",
    "DatabaseSpec",
    "open_reader",
    "open_writer",
]


class Home(Protocol):
    """What is one dialect's own: `SqliteHome`, `PostgresHome`."""

    name: str  # for messages
    is_remote: bool  # a session can break, and then cannot be ended in an orderly way
    engine: Engine

    def explained(self, error: BaseException, *, at_start: bool = False) -> BaseException:
        """The error in our words, or itself when it is none of the database's doing."""

    def ddl(self, statement: str) -> str:
        """A statement of a migration as this dialect has to get it."""

    def relations(self, connection: Connection) -> set[str]:
        """The names of what is there, but for what belongs to the database system."""

    def check(self, connection: Connection) -> None:
        """Whether the database is whole, before anything is written. BillingDatabaseError."""

    def check_rights(self, connection: Connection) -> None:
        """Whether we may do with our tables what we have to. DatabaseAway."""

    def let_go(self) -> None:
        """The session has ended, or is to end."""

    def cut(self) -> None:
        """From another thread: end a wait for the database now."""


class Database:
    """One session with the database, opened again when it was lost. Belongs to one thread."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._connection: Connection | None = None
        self._is_opened = False

    @property
    def engine(self) -> Engine:
        """The engine, for tests that make it fail."""
        return self._home.engine

    @property
    def name(self) -> str:
        """For messages."""
        return self._home.name

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, or nothing of it has happened.

        DatabaseAway: it did not happen, or it did and the answer was lost. The session is let go
        of then, and the next transaction gets a new one.
        """
        try:
            connection = self._session()
            with connection.begin():
                yield connection
        except BaseException as error:
            # Nothing of a failed transaction may stand in the way of the next one.
            self._let_go()
            told = self._home.explained(error, at_start=not self._is_opened)
            if told is error:
                raise
            raise told from error

    def prepare(self, *, clock: Clock, software: str) -> None:
        """For the writer: checked, and brought up to this program's version."""
        with self.begin() as connection:
            self._home.check(connection)
        with self.begin() as connection:
            self._bring_up_to_date(connection, clock=clock, software=software)
            self._home.check_rights(connection)
        self._is_opened = True

    def look(self) -> None:
        """For a reader: whether it is the database that this program knows."""
        with self.begin() as connection:
            found = self._version(connection)
            if found != SCHEMA_VERSION:
                raise BillingDatabaseError(self._other_version(found))
        self._is_opened = True

    def close(self) -> None:
        """End the session. SQLite's write-ahead log is emptied into the file."""
        self._let_go()
        self._home.engine.dispose()

    def cut(self) -> None:
        """From another thread: whatever waits for the database now fails with DatabaseAway."""
        self._home.cut()

    def _session(self) -> Connection:
        if self._connection is None:
            self._connection = self._home.engine.connect()
            if self._is_opened:
                self._check_again(self._connection)
        return self._connection

    def _check_again(self, connection: Connection) -> None:
        """Nobody held the database while we had no session."""
        with connection.begin():
            found = self._version(connection)
        if found != SCHEMA_VERSION:
            raise BillingDatabaseError(self._other_version(found))

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                if self._home.is_remote:
                    connection.invalidate()
                connection.close()
        self._home.let_go()

    def _version(self, connection: Connection) -> int:
        """The version found, 0 for an empty database. BillingDatabaseError: something else."""
        found = self._home.relations(connection)
        if not found:
            return 0
        version = None
        if schema_version.name in found and _is_ours(connection):
            version = max(connection.execute(select(schema_version.c.version)).scalars(), default=0)
        if not version:
            raise BillingDatabaseError(
                f"{self.name} is a database of something else (it holds "
                f"{', '.join(sorted(found)[:3])}). Nothing was changed: give billing one of its own"
            )
        return version

    def _other_version(self, found: int) -> str:
        if not found:
            return f"{self.name} is empty: `headend billing run` makes the tables"
        return (
            f"{self.name} has version {found} and this program works with {SCHEMA_VERSION}: "
            "start `headend billing run` of the newer program once"
        )

    def _bring_up_to_date(self, connection: Connection, *, clock: Clock, software: str) -> None:
        found = self._version(connection)
        if found > SCHEMA_VERSION:
            raise BillingDatabaseError(
                f"{self.name} was written by a newer program (version {found}, this one knows "
                f"{SCHEMA_VERSION}). Nothing was changed: use the newer program"
            )

        def execute(statement: str) -> None:
            connection.exec_driver_sql(self._home.ddl(statement))

        if found == 0:
            execute(
                "CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY, "
                "applied_ms BIGINT NOT NULL, software TEXT NOT NULL)"
            )
        for version in range(found + 1, SCHEMA_VERSION + 1):
            MIGRATIONS[version - 1](execute)
            connection.execute(
                schema_version.insert().values(
                    version=version, applied_ms=clock.now_ms(), software=software
                )
            )
        missing = set(metadata.tables) - self._home.relations(connection)
        if missing:
            raise BillingDatabaseError(
                f"{self.name} lacks {', '.join(sorted(missing))}. Nothing was changed: restore a "
                "whole copy, or give billing an empty database: the head-ends send again what "
                "they keep"
            )


def open_writer(database: str | DatabaseSpec, *, clock: Clock, software: str) -> Database:
    """The database for the process that writes: made if absent, checked, brought up to date.

    ConfigError for a setting that cannot be used, BillingDatabaseError for a database that
    cannot, DatabaseAway (which is one) for a server that is not there or does not let us in.
    """
    opened = Database(_home(database, writes=True))
    try:
        opened.prepare(clock=clock, software=software)
    except BaseException as error:
        opened.close()
        _raise_as_setting(error)
        raise
    return opened


def open_reader(database: str | DatabaseSpec) -> Database:
    """The database for looking at, also while another process writes. Errors as `open_writer`."""
    opened = Database(_home(database, writes=False))
    try:
        opened.look()
    except BaseException as error:
        opened.close()
        _raise_as_setting(error)
        raise
    return opened


def _home(database: str | DatabaseSpec, *, writes: bool) -> Home:
    spec = DatabaseSpec.of(database)
    if isinstance(spec.place, SqlitePlace):
        return SqliteHome(spec.place, writes=writes)
    return PostgresHome(spec, spec.place, writes=writes)


def _raise_as_setting(error: BaseException) -> None:
    """ConfigError instead, when it is the configuration that has to change."""
    if isinstance(error, DatabaseAway) and error.setting is not None:
        raise ConfigError(error.message, key=error.setting, hint=error.hint) from error


def _is_ours(connection: Connection) -> bool:
    """Other programs have a table of that name too."""
    found = connection.exec_driver_sql("SELECT * FROM schema_version LIMIT 0").keys()
    return set(found) == {column.name for column in schema_version.columns}
