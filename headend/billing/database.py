"""Opens billing's database: for the one writer, or for looking at it.

SQLite in this release. A database that is damaged, newer than this program or no database of ours
is refused with a message that says what to do; it is never repaired or begun anew by itself.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from headend.billing.tables import MIGRATIONS, SCHEMA_VERSION, schema_version
from headend.domain.clock import Clock
from headend.domain.errors import ConfigError, HeadendError

BUSY_TIMEOUT_MS = 5000
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
    "PRAGMA wal_autocheckpoint=4000",
    "PRAGMA journal_size_limit=67108864",
)


class BillingDatabaseError(HeadendError):
    """Billing's database cannot be used as it is."""


def open_writer(url: str, *, clock: Clock, software: str) -> Engine:
    """The database for the process that writes: made if absent, checked, brought up to date.

    ConfigError for a URL that cannot be used, BillingDatabaseError for a file that cannot.
    """
    parsed = _sqlite_url(url)
    path = _path(parsed)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, pool_size=1, max_overflow=0)
    _set_up(engine, _PRAGMAS, begin="BEGIN IMMEDIATE")
    try:
        with _explained(parsed):
            _check_whole(engine, parsed)
            _bring_up_to_date(engine, parsed, clock=clock, software=software)
    except BaseException:
        engine.dispose()
        raise
    return engine


def open_reader(url: str) -> Engine:
    """The database for looking at, also while another process writes. Errors as `open_writer`."""
    parsed = _sqlite_url(url)
    path = _path(parsed)
    if path is not None and not path.exists():
        msg = f"there is no database {path} yet: `headend billing run` makes it"
        raise BillingDatabaseError(msg)
    engine = create_engine(parsed)
    pragmas = (f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}", "PRAGMA query_only=ON")
    _set_up(engine, pragmas, begin="BEGIN")
    try:
        with _explained(parsed), engine.connect() as connection:
            found = _version(connection)
    except BaseException:
        engine.dispose()
        raise
    if found != SCHEMA_VERSION:
        engine.dispose()
        msg = (
            f"{parsed.database} has version {found} and this program works with "
            f"{SCHEMA_VERSION}: start `headend billing run` of the newer program once"
        )
        raise BillingDatabaseError(msg)
    return engine


def _sqlite_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        msg = "billing.database is not a database URL"
        raise ConfigError(msg, hint="sqlite:///./data/billing.db") from error
    if parsed.get_backend_name() != "sqlite":
        msg = f"billing.database: {parsed.get_backend_name()} is not supported by this release"
        raise ConfigError(msg, hint="sqlite:///./data/billing.db")
    return parsed


def _path(url: URL) -> Path | None:
    return None if url.database in (None, "", ":memory:") else Path(str(url.database))


def _set_up(engine: Engine, pragmas: tuple[str, ...], *, begin: str) -> None:
    """Transactions are ours to begin: a write lock is taken at once, never half way."""

    def connected(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(pragma).close()

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)


@contextmanager
def _explained(url: URL) -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        msg = (
            f"{url.database} cannot be used: {error.orig}. Nothing was changed. If it is damaged, "
            "move it aside (with its -wal file) and restore a copy, or let billing begin a new "
            "one: the head-ends send again what they keep"
        )
        raise BillingDatabaseError(msg) from error
    except SQLAlchemyError as error:
        msg = f"{url.database} cannot be used: {error}"
        raise BillingDatabaseError(msg) from error


def _check_whole(engine: Engine, url: URL) -> None:
    with engine.connect() as connection:
        finding = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
    if finding != "ok":
        msg = (
            f"{url.database} is damaged ({finding}). Nothing was changed. Move it aside (with its "
            "-wal file) and restore a copy, or let billing begin a new one: the head-ends send "
            "again what they keep"
        )
        raise BillingDatabaseError(msg)


def _version(connection: Connection) -> int:
    if not inspect(connection).has_table("schema_version"):
        return 0
    return max(connection.execute(select(schema_version.c.version)).scalars(), default=0)


def _bring_up_to_date(engine: Engine, url: URL, *, clock: Clock, software: str) -> None:
    with engine.begin() as connection:
        found = _version(connection)
        if found > SCHEMA_VERSION:
            msg = (
                f"{url.database} was written by a newer program (version {found}, this one knows "
                f"{SCHEMA_VERSION}). Nothing was changed: use the newer program"
            )
            raise BillingDatabaseError(msg)
        if found == 0:
            if inspect(connection).get_table_names():
                msg = f"{url.database} is a database of something else. Nothing was changed"
                raise BillingDatabaseError(msg)
            connection.execute(
                text(
                    "CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY, "
                    "applied_ms BIGINT NOT NULL, software TEXT NOT NULL)"
                )
            )
        for version in range(found + 1, SCHEMA_VERSION + 1):
            MIGRATIONS[version - 1](connection)
            connection.execute(
                schema_version.insert().values(
                    version=version, applied_ms=clock.now_ms(), software=software
                )
            )
