"""Every test that takes `database` or `inbox` runs on both databases."""

import pytest
from billing_builder import Inbox
from billing_databases import Database, PostgresDatabase, SqliteDatabase

from tests.support.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def postgresql_server():
    """One server for all; without fsync, so not for tests that kill it."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path) -> Database:
    """A database that is not there yet, or an empty one."""
    if request.param == "sqlite":
        return SqliteDatabase(tmp_path / "billing.db")
    return PostgresDatabase(request.getfixturevalue("postgresql_server").place())


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def one_inbox(request, tmp_path_factory):
    """One for many examples, each of which empties it."""
    if request.param == "sqlite":
        made = Inbox(SqliteDatabase(tmp_path_factory.mktemp("model") / "billing.db"))
    else:
        server = request.getfixturevalue("postgresql_server")
        made = Inbox(PostgresDatabase(server.place()))
    yield made
    made.close()


@pytest.fixture
def sqlite(tmp_path) -> SqliteDatabase:
    """What is true of files only."""
    return SqliteDatabase(tmp_path / "billing.db")


@pytest.fixture
def postgresql(postgresql_server) -> PostgresDatabase:
    """What is true of servers only."""
    return PostgresDatabase(postgresql_server.place())


@pytest.fixture
def inbox(database):
    made = Inbox(database)
    yield made
    made.close()
