"""The two databases every test of the inbox runs on, seen with eyes of the tests' own."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from sqlalchemy import event as sa_event
from sqlalchemy.exc import OperationalError

from tests.support.postgresql import Place

if TYPE_CHECKING:
    import psycopg
    from billing_builder import Inbox

TABLES = (
    "alarm",
    "conflict",
    "dead_letter",
    "event",
    "exchange",
    "feed_cursor",
    "gap",
    "metering",
    "reading",
    "reading_history",
)


class Database(Protocol):
    """An empty database of a test, and a look into it that shares nothing with the program."""

    kind: str
    url: str

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a query gives."""

    def execute(self, *statements: str) -> None:
        """Run statements, each committed."""

    def script(self, sql: str) -> None:
        """Run a dump of SQLite's."""


class FailingCommits:
    """While `failing`, each commit of the store fails at its very end; `seen` is set then."""

    def __init__(self, inbox: "Inbox") -> None:
        self.seen = threading.Event()
        self._database = inbox.database
        self._failing = False
        if self._database.kind == "sqlite":
            sa_event.listen(inbox.store.engine, "commit", self._on_commit)

    @property
    def failing(self) -> bool:
        return self._failing

    @failing.setter
    def failing(self, failing: bool) -> None:
        if self._database.kind == "postgresql" and failing != self._failing:
            self._database.execute(*(_FAIL if failing else _FAIL_NO_MORE))
        self._failing = failing

    def _on_commit(self, _connection: object) -> None:
        if self._failing:
            self.seen.set()
            full = sqlite3.OperationalError("database or disk is full")
            raise OperationalError("COMMIT", None, full)


# A deferred trigger runs inside COMMIT. 53100: disk_full.
_FAIL = (
    """CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
    END $$""",
    """CREATE CONSTRAINT TRIGGER full_disk AFTER INSERT OR UPDATE ON feed_cursor
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()""",
)
_FAIL_NO_MORE = ("DROP TRIGGER full_disk ON feed_cursor",)


@dataclass
class SqliteDatabase:
    """A file that is not there yet."""

    path: Path
    kind = "sqlite"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self._open() as connection:
            return connection.execute(sql).fetchall()

    def execute(self, *statements: str) -> None:
        with self._open() as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def script(self, sql: str) -> None:
        with self._open() as connection:
            connection.executescript(sql)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=20)) as connection:
            yield connection


@dataclass
class PostgresDatabase:
    """A role's empty schema. Each look is a session of its own, unless one was kept."""

    place: Place
    kind = "postgresql"
    _kept: "psycopg.Connection[tuple[Any, ...]] | None" = None

    @property
    def url(self) -> str:
        return self.place.url

    @contextmanager
    def kept(self) -> Iterator[Self]:
        """With one session for all looks: quicker, where nobody ends the server."""
        with self.place.connect() as self._kept:
            yield self
        self._kept = None

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self._look() as connection:
            return connection.execute(sql.encode()).fetchall()

    def execute(self, *statements: str) -> None:
        with self._look() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def script(self, sql: str) -> None:
        # As the program declares its text; nothing else of the dump is SQLite's own.
        self.execute(
            sql.replace("BEGIN TRANSACTION;", "BEGIN;").replace("TEXT", 'TEXT COLLATE "C"')
        )

    def _look(self) -> "AbstractContextManager[psycopg.Connection[tuple[Any, ...]]]":
        return self.place.connect() if self._kept is None else nullcontext(self._kept)
