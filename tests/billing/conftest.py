"""Every test that takes `database` or `inbox` runs on both databases."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from billing_builder import Inbox
from billing_databases import Database, PostgresDatabase, SqliteDatabase

from tests.support.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def postgresql_server():
    """One server for all; without fsync, so not for tests that kill it."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture(scope="session")
def durable_server():
    """One for tests that kill it; each leaves it running."""
    with PostgreSQL(durable=True) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path) -> Iterator[Database]:
    """A database that is not there yet, or an empty one."""
    if request.param == "sqlite":
        yield SqliteDatabase(tmp_path / "billing.db")
        return
    server = request.getfixturevalue("postgresql_server")
    with PostgresDatabase(server.place()).kept() as made:
        yield made


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def one_inbox(request, tmp_path_factory):
    """One for many examples, each of which empties it."""
    with ExitStack() as held:
        if request.param == "sqlite":
            database = SqliteDatabase(tmp_path_factory.mktemp("model") / "billing.db")
        else:
            server = request.getfixturevalue("postgresql_server")
            database = held.enter_context(PostgresDatabase(server.place()).kept())
        made = Inbox(database)
        yield made
        made.close()


@pytest.fixture
def sqlite(tmp_path) -> SqliteDatabase:
    """What is true of files only."""
    return SqliteDatabase(tmp_path / "billing.db")


@pytest.fixture
def postgresql(postgresql_server) -> Iterator[PostgresDatabase]:
    """What is true of servers only."""
    with PostgresDatabase(postgresql_server.place()).kept() as made:
        yield made


@pytest.fixture
def inbox(database):
    made = Inbox(database)
    yield made
    made.close()
