"""Starting on a PostgreSQL server: what is refused, why, with which exit code, and what is left."""

import logging
import shutil
import socket
import subprocess
from pathlib import Path

import psycopg
import pytest
from billing_builder import EPOCH_A, FixedClock, Inbox, reads
from billing_databases import PostgresDatabase
from billing_proxy import BreakingLine

from headend.billing import postgresql as postgresql_module
from headend.billing.database import (
    BillingDatabaseError,
    DatabaseAway,
    DatabaseSpec,
    open_reader,
    open_writer,
)
from headend.billing.spec import configured_database
from headend.billing.views import BillingView
from headend.cli.main import exit_code, main
from headend.config import load_config
from headend.config.database_url import parse_database
from headend.domain.errors import ConfigError
from tests.support.postgresql import PostgreSQL, binaries

EXAMPLE = Path(__file__).parents[2] / "config" / "postgresql"
A = ("he1", EPOCH_A)
SECRET = "s3cret-word"


def opened(database):
    return open_writer(database, clock=FixedClock(), software="test")


def refusal(database) -> Exception:
    """Why the writer does not start; and a reader of the same neither."""
    with pytest.raises((BillingDatabaseError, ConfigError)) as reader:
        open_reader(database)
    with pytest.raises((BillingDatabaseError, ConfigError)) as writer:
        opened(database)
    for caught in (reader, writer):
        assert SECRET not in str(caught.value) + repr(caught.value)
    return writer.value


# --- the configuration is wrong ---------------------------------------------------------------


def test_a_database_that_is_not_there_is_a_configuration_error(postgresql_server):
    error = refusal(postgresql_server.url("postgres", "nowhere"))
    assert isinstance(error, ConfigError)
    assert (error.key, exit_code(error)) == ("billing.database", 2)
    assert 'database "nowhere" does not exist' in str(error)
    assert "setup.sql" in str(error)


def test_a_role_that_is_not_there_is_a_configuration_error(postgresql_server):
    error = refusal(postgresql_server.url("nobody"))
    assert isinstance(error, ConfigError)
    assert 'role "nobody" does not exist' in str(error)


def test_a_server_that_is_not_there_is_no_fault_of_the_configuration(unused_tcp_port):
    url = f"postgresql://u@127.0.0.1:{unused_tcp_port}/b"
    error = refusal(url)
    assert isinstance(error, DatabaseAway)
    assert (exit_code(error), error.is_lasting) == (4, False)
    assert "refused" in str(error)
    assert f"database b at 127.0.0.1:{unused_tcp_port}" in str(error)


def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(postgresql_module, "CONNECT_TIMEOUT_S", 1)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(DatabaseAway, match="timeout"),
    ):
        opened(f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/b")


# --- rights -----------------------------------------------------------------------------------


def test_a_role_without_a_schema_of_its_own_is_told_what_it_lacks(postgresql_server):
    postgresql_server.execute("CREATE ROLE bare LOGIN")
    error = refusal(postgresql_server.url("bare"))
    assert isinstance(error, DatabaseAway)
    assert (exit_code(error), error.is_lasting) == (4, True)
    assert "permission denied for schema public" in str(error)
    postgresql_server.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    try:
        assert "may use no schema" in str(refusal(postgresql_server.url("bare")))
    finally:
        postgresql_server.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")


def test_a_role_that_may_not_write_is_refused_before_anything_is_taken(postgresql):
    Inbox(postgresql).close()
    role = postgresql.place.role
    postgresql.execute(
        f"REVOKE UPDATE ON reading FROM {role}", f"REVOKE DELETE ON dead_letter FROM {role}"
    )
    with pytest.raises(DatabaseAway, match=r"dead_letter: DELETE, reading: UPDATE") as caught:
        opened(postgresql.url)
    assert exit_code(caught.value) == 4
    open_reader(postgresql.url).close()


def test_a_role_that_may_not_connect_is_told_so(postgresql_server):
    postgresql_server.execute("CREATE ROLE outside LOGIN", "CREATE DATABASE closed")
    postgresql_server.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    error = refusal(postgresql_server.url("outside", "closed"))
    assert exit_code(error) == 4
    assert "GRANT CONNECT" in str(error)


def test_another_role_that_may_read_looks_and_changes_nothing(postgresql, postgresql_server):
    inbox = Inbox(postgresql)
    inbox.take(reads(1, 4))
    owner, reader = postgresql.place.role, postgresql_server.place().role
    postgresql_server.execute(
        f"GRANT USAGE ON SCHEMA {owner} TO {reader}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {owner} TO {reader}",
        f"ALTER ROLE {reader} SET search_path = {owner}",
    )
    with BillingView(postgresql_server.url(reader)) as view:
        assert view.status()["counts"]["readings"] == 4
    inbox.close()
    with pytest.raises(DatabaseAway, match="lacks rights"):
        opened(postgresql_server.url(reader))


# --- the server or the database does not fit --------------------------------------------------


def test_a_server_that_is_too_old_is_refused_untouched(postgresql, monkeypatch):
    monkeypatch.setattr(postgresql_module, "SERVER_VERSION_MIN", 990000)
    error = refusal(postgresql.url)
    assert "needs 99 or later" in str(error)
    assert (type(error), exit_code(error)) == (BillingDatabaseError, 1)
    assert postgresql.rows("SELECT count(*) FROM pg_tables WHERE tableowner = current_user") == [
        (0,)
    ]


def test_a_database_that_cannot_hold_every_character_is_refused(postgresql_server):
    postgresql_server.execute(
        "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    error = refusal(postgresql_server.url("postgres", "latin"))
    assert "has the encoding LATIN1, and billing needs UTF8" in str(error)
    assert exit_code(error) == 1


def test_what_an_extension_brings_does_not_make_it_a_database_of_something_else(
    postgresql_server,
):
    postgresql_server.execute("CREATE DATABASE extended")
    # Any member will do: the catalogue alone says whose it is.
    postgresql_server.execute(
        "CREATE TABLE of_extension (a int)",
        "ALTER EXTENSION plpgsql ADD TABLE of_extension",
        database="extended",
    )
    opened(postgresql_server.url("postgres", "extended")).close()


def test_a_standby_is_looked_at_and_not_written_to():
    with PostgreSQL() as server:
        place = server.place()
        inbox = Inbox(PostgresDatabase(place))
        inbox.take(reads(1, 4))
        inbox.close()
        server.stop()
        (server.data / "standby.signal").touch()
        shutil.chown(server.data / "standby.signal", server.data.owner())
        server.start()
        with pytest.raises(DatabaseAway, match=r"is a standby.*name the primary") as caught:
            opened(place.url)
        assert exit_code(caught.value) == 4
        with BillingView(place.url) as view:
            assert view.status()["counts"]["readings"] == 4


def test_a_promise_that_the_server_does_not_keep_is_told(postgresql, caplog):
    with caplog.at_level(logging.WARNING, logger="headend"):
        opened(postgresql.url).close()
    assert "runs with fsync=off" in caplog.text


def test_commits_to_a_server_are_durable_when_they_return(postgresql):
    role = postgresql.place.role
    for said, used in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        postgresql.execute(f"ALTER ROLE {role} SET synchronous_commit = {said}")
        database = opened(postgresql.url)
        with database.begin() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == used
        database.close()


def test_the_text_of_every_table_is_compared_by_its_bytes(postgresql):
    opened(postgresql.url).close()
    found = postgresql.rows(
        "SELECT DISTINCT collation_name FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND data_type = 'text'"
    )
    assert found == [("C",)]


# --- passwords --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded():
    """A server that asks for passwords."""
    hba = ("local all postgres trust", "host all all 127.0.0.1/32 scram-sha-256")
    with PostgreSQL(hba=hba) as server:
        yield server


@pytest.fixture
def password(tmp_path):
    path = tmp_path / "password"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def locked(guarded):
    """A role with a password."""
    place = guarded.place()
    guarded.execute(f"ALTER ROLE {place.role} PASSWORD '{SECRET}'")
    return place


def spec(place, password_file: Path | None) -> DatabaseSpec:
    return DatabaseSpec(parse_database(place.url), password_file=password_file)


def test_the_password_comes_from_its_file_and_is_read_for_each_session(locked, guarded, password):
    database = opened(spec(locked, password))
    guarded.execute(f"ALTER ROLE {locked.role} PASSWORD 'changed'")
    guarded.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> "
                    f"pg_backend_pid() AND usename = '{locked.role}'")  # fmt: skip
    for _ in range(2):
        with pytest.raises(DatabaseAway), database.begin() as connection:
            connection.exec_driver_sql("SELECT 1")
    password.write_text("changed")
    with database.begin() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    assert SECRET not in repr(database.engine) + repr(database.engine.url)
    database.close()


def test_a_wrong_password_ends_the_start_with_its_reason(locked, password):
    password.write_text("wrong")
    error = refusal(spec(locked, password))
    assert isinstance(error, DatabaseAway)
    assert (exit_code(error), error.is_lasting) == (4, True)
    assert "password authentication failed" in str(error)
    assert "billing.password_file" in str(error)


def test_a_password_that_is_missing_is_a_configuration_error(locked):
    error = refusal(spec(locked, None))
    assert isinstance(error, ConfigError)
    assert error.key == "billing.password_file"


def test_a_password_that_everybody_can_read_is_refused(locked, password):
    password.chmod(0o644)
    error = refusal(spec(locked, password))
    assert isinstance(error, ConfigError)
    assert "can be read by everybody" in str(error)


def test_a_server_that_speaks_another_language_is_understood_by_what_it_asked_for(
    locked, guarded, password
):
    """Only its words are known when it refuses, and those may be Chinese."""
    password.write_text("wrong")

    def translated(answer: bytes) -> bytes:
        return answer.replace(b"password authentication failed", b"no translation for this: XXX  ")

    with BreakingLine(guarded.port, rewrite=translated) as line:
        error = refusal(DatabaseSpec(parse_database(line.url(locked.role)), password))
    assert isinstance(error, DatabaseAway)
    assert error.is_lasting
    assert "no translation" in str(error)


# --- the files in config/ ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_by_example():
    """A server on which `setup.sql` was run as it stands."""
    with PostgreSQL() as server:
        tool(server, "psql", "-v", "ON_ERROR_STOP=1", "-q", "-f", EXAMPLE / "setup.sql")
        yield server


def tool(server, program: str, *arguments, role: str = "postgres") -> None:
    """One of PostgreSQL's own programs, without a word of complaint."""
    command = [binaries() / program, "-h", server.folder, "-p", str(server.port), "-U", role]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def example(made_by_example, tmp_path):
    """The example's configuration, with the test's server in the place of the machine's."""
    text = (EXAMPLE / "billing.yaml").read_text()
    for theirs, ours in (
        (
            "@/headend?host=/run/postgresql",
            f"@:{made_by_example.port}/headend?host=/run/postgresql",
        ),
        ("?host=/run/postgresql", f"?host={made_by_example.folder}"),
    ):
        assert theirs in text
        text = text.replace(theirs, ours)
    path = tmp_path / "billing.yaml"
    path.write_text(text)
    return path


def test_the_example_sets_up_what_billing_needs_and_no_more(made_by_example, example):
    inbox = Inbox(_Configured(configured_database(load_config(example))))
    assert inbox.take(reads(1, 4)).receipts == {A: 4}
    for role in ("headend-billing", "headend-reader"):
        example.write_text(example.read_text().replace("//headend-billing@", f"//{role}@"))
        for action in ("status", "show", "readings"):
            assert main(["billing", action, "--config", str(example), "--json"]) == 0
    inbox.close()
    _may_nothing_else(made_by_example)


def test_a_backup_is_brought_back_and_filled_up(made_by_example, example, tmp_path):
    database = _Configured(configured_database(load_config(example)))
    inbox = Inbox(database)
    inbox.take(reads(1, 4))
    tool(made_by_example, "pg_dump", "-Fc", "-f", tmp_path / "billing.dump", "headend")
    inbox.take(reads(5, 8))
    inbox.close()
    restore = ("--clean", "--if-exists", "-d", "headend", tmp_path / "billing.dump")
    tool(made_by_example, "pg_restore", *restore)
    inbox = Inbox(database)
    assert inbox.take(reads(9, 12)).resumes == {A: 5}
    assert inbox.take(reads(5, 12)).receipts == {A: 12}
    inbox.close()


class _Configured:
    """What `Inbox` takes for a database: here a spec."""

    kind = "postgresql"

    def __init__(self, url):
        self.url = url


def _may_nothing_else(server):
    """Neither role makes anything outside of billing's schema, nor the reader inside."""
    attempts = {
        "headend-billing": ("CREATE TABLE public.x (a int)", "CREATE SCHEMA x", "CREATE ROLE x"),
        "headend-reader": (
            "CREATE TABLE x (a int)",
            "CREATE TEMPORARY TABLE x (a int)",
            "DELETE FROM reading",
            "INSERT INTO metering VALUES ('a', 'b')",
        ),
    }
    for role, statements in attempts.items():
        with server.connect(role, database="headend") as connection:
            assert connection.execute("SELECT count(*) FROM reading").fetchone() == (4,)
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
