"""PostgreSQL goes away in every way it can, and comes back: nothing lost, nothing twice."""

import asyncio
import io
import threading

import pytest
from billing_builder import EPOCH_A, Inbox, reads
from billing_databases import PostgresDatabase
from billing_proxy import BreakingLine

from headend.billing import postgresql as postgresql_module
from headend.billing.database import BillingDatabaseError, DatabaseAway, DatabaseBusy
from headend.billing.store_thread import StoreThread
from headend.domain.clock import SystemClock
from headend.logs import logging_to
from tests.support.waiting import eventually

A = ("he1", EPOCH_A)


@pytest.fixture
def server(durable_server):
    yield durable_server
    if durable_server.process is None:
        durable_server.start()


@pytest.fixture
def outer(server):
    """An inbox on a server that tests may end."""
    made = Inbox(PostgresDatabase(server.place()))
    yield made
    made.close()


@pytest.fixture
def lined(server):
    """An inbox behind a line that tests may break."""
    place = server.place()
    with BreakingLine(server.port) as line:
        made = Inbox(LinedDatabase(place, line))
        made.line = line
        yield made
        made.close()


class LinedDatabase(PostgresDatabase):
    """The program goes through the line; the test looks straight at the server."""

    def __init__(self, place, line):
        super().__init__(place)
        self._line = line

    @property
    def url(self) -> str:
        return self._line.url(self.place.role)


def sessions(inbox) -> list[int]:
    """The server's processes that serve the program's writer."""
    role = inbox.database.place.role
    sql = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND application_name LIKE %s"
    with inbox.database.place.server.connect() as connection:
        found = connection.execute(sql, (role, "headend billing writer%")).fetchall()
    return [pid for (pid,) in found]


def holds(inbox, count: int) -> None:
    """Exactly the first `count` records, whatever happened in between."""
    assert inbox.through() == count
    assert len(inbox.values()) == count
    assert len(inbox.rows("exchange")) == count
    assert inbox.rows("reading_history") == inbox.rows("conflict") == []


# --- the session ------------------------------------------------------------------------------


def test_a_session_ended_by_the_server_is_let_go_and_the_next_one_goes_on(outer):
    outer.take(reads(1, 4))
    (pid,) = sessions(outer)
    outer.database.execute(f"SELECT pg_terminate_backend({pid})")
    with pytest.raises(DatabaseAway, match="terminat"):
        outer.take(reads(5, 8))
    assert outer.take(reads(5, 8)).receipts == {A: 8}
    holds(outer, 8)
    assert pid not in sessions(outer)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_server_that_goes_and_comes_back_has_what_was_receipted(outer, server, end):
    outer.take(reads(1, 4))
    getattr(server, end)()
    for _ in range(3):
        with pytest.raises(DatabaseAway):
            outer.take(reads(5, 8))
    server.start()
    assert outer.take(reads(5, 8)).receipts == {A: 8}
    holds(outer, 8)


def test_wherever_the_line_breaks_in_a_transaction_it_has_happened_or_not(lined):
    """At each message that is sent for one transaction, from its first to the commit."""
    through = 0
    for _ in range(2):
        lined.line.break_at(10_000)
        lined.take(reads(through + 1, through + 20))
        through += 20
    messages = lined.line.messages
    assert messages >= 4
    happened = set()
    for answered in (False, True):
        for message in range(1, messages + 1):
            group = reads(through + 1, through + 20)
            lined.line.break_at(message, answered=answered)
            with pytest.raises(DatabaseAway):
                lined.take(group)
            again = lined.take(group)  # begins when the server has ended the lost session
            assert again.receipts == {A: through + 20}
            assert again.counts.new + again.counts.known == 20
            assert again.counts.new in (0, 20)
            happened.add((message, answered, again.counts.new == 0))
            through += 20
            holds(lined, through)
    # Only an answered commit has happened.
    assert {case for case in happened if case[2]} == {(messages, True, True)}


def test_a_line_that_is_cut_without_the_server_hearing_of_it_is_taken_over(lined):
    """Its session would hold the writer's lock until the server's keep-alives give it up."""
    lined.take(reads(1, 4))
    lined.line.break_at(5, keep_server=True)
    with pytest.raises(DatabaseAway):
        lined.take(reads(5, 8))
    assert len(sessions(lined)) == 1
    assert lined.take(reads(5, 8)).receipts == {A: 8}
    holds(lined, 8)
    assert len(sessions(lined)) == 1


# --- what the server cannot do ----------------------------------------------------------------


def test_a_database_that_takes_no_writes_is_waited_for(outer):
    role = outer.database.place.role
    server = outer.database.place.server
    outer.take(reads(1, 4))
    server.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    server.execute(*(f"SELECT pg_terminate_backend({pid})" for pid in sessions(outer)))
    for told in ("terminat", "read-only"):
        with pytest.raises(DatabaseAway, match=told):
            outer.take(reads(5, 8))
    server.execute(f"ALTER ROLE {role} RESET default_transaction_read_only")
    assert outer.take(reads(5, 8)).receipts == {A: 8}
    holds(outer, 8)


def test_a_table_that_somebody_locks_is_waited_for(server, monkeypatch):
    monkeypatch.setitem(postgresql_module._SETTINGS, "lock_timeout", "100ms")
    inbox = Inbox(PostgresDatabase(server.place()))
    inbox.take(reads(1, 4))
    with inbox.database.place.connect() as other, other.transaction():
        other.execute("LOCK TABLE reading")
        with pytest.raises(DatabaseAway, match="lock timeout"):
            inbox.take(reads(5, 8))
    assert inbox.take(reads(5, 8)).receipts == {A: 8}
    holds(inbox, 8)
    inbox.close()


def test_rights_that_are_taken_away_and_given_back(outer):
    outer.take(reads(1, 4))
    role = outer.database.place.role
    outer.database.execute(f"REVOKE INSERT ON reading FROM {role}")
    with pytest.raises(DatabaseAway, match=r"permission denied.*more rights"):
        outer.take(reads(5, 8))
    outer.database.execute(f"GRANT INSERT ON reading TO {role}")
    assert outer.take(reads(5, 8)).receipts == {A: 8}
    holds(outer, 8)


def test_a_database_that_a_newer_program_took_over_meanwhile_is_left_alone(outer):
    outer.take(reads(1, 4))
    outer.database.execute("INSERT INTO schema_version VALUES (99, 0, 'newer')")
    outer.database.execute(*(f"SELECT pg_terminate_backend({pid})" for pid in sessions(outer)))
    with pytest.raises(DatabaseAway):
        outer.take(reads(5, 8))
    with pytest.raises(BillingDatabaseError, match="version 99") as caught:
        outer.take(reads(5, 8))
    assert not isinstance(caught.value, DatabaseAway)
    holds(outer, 4)


def test_a_copy_that_is_older_is_filled_up_again(outer):
    """Restored from a backup: what it lacks is asked for, from its own cursor on."""
    outer.take(reads(1, 4))
    outer.database.execute(
        "UPDATE feed_cursor SET through_seq = 2",
        "DELETE FROM reading WHERE seq > 2",
        "DELETE FROM exchange WHERE ref LIKE 'x3%' OR ref LIKE 'x4%'",
        "DELETE FROM metering",
        *(f"SELECT pg_terminate_backend({pid})" for pid in sessions(outer)),
    )
    with pytest.raises(DatabaseAway):
        outer.take(reads(5, 8))
    assert outer.take(reads(5, 8)).resumes == {A: 3}
    assert outer.take(reads(3, 8)).receipts == {A: 8}
    holds(outer, 8)
    assert len(outer.rows("metering")) == 3


# --- one writer -------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch):
    """Waits for the writer's lock only a moment."""
    monkeypatch.setitem(postgresql_module._SETTINGS, "lock_timeout", "200ms")


@pytest.mark.usefixtures("impatient")
def test_a_second_writer_is_refused_and_the_first_not_disturbed(outer):
    outer.take(reads(1, 4))
    with pytest.raises(DatabaseBusy, match=r"another `headend billing run`.*127\.0\.0\.1"):
        Inbox(outer.database)
    assert outer.take(reads(5, 8)).receipts == {A: 8}
    outer.close()
    second = Inbox(outer.database)
    assert second.take(reads(9, 12)).receipts == {A: 12}
    second.close()
    holds(outer, 12)


@pytest.mark.usefixtures("impatient")
def test_a_writer_whose_place_was_taken_writes_nothing_until_it_is_free_again(outer):
    outer.take(reads(1, 4))
    outer.database.execute(*(f"SELECT pg_terminate_backend({pid})" for pid in sessions(outer)))
    second = Inbox(outer.database)
    second.take(reads(5, 8))
    with pytest.raises(DatabaseAway):
        outer.take(reads(5, 9))
    with pytest.raises(DatabaseBusy):
        outer.take(reads(5, 9))
    holds(outer, 8)
    second.close()
    assert outer.take(reads(5, 9)).receipts == {A: 9}
    holds(outer, 9)


def test_a_restarted_writer_waits_for_what_its_killed_predecessor_left_behind(outer):
    """A process that is killed leaves a session that the server ends a moment later."""
    opened = []
    starting = threading.Thread(target=lambda: opened.append(Inbox(outer.database)))
    starting.start()
    while "advisory" not in str(outer.database.rows("SELECT wait_event FROM pg_stat_activity")):
        assert starting.is_alive()
    outer.close()
    starting.join(timeout=10)
    opened[0].close()


def test_two_schemas_of_one_database_have_a_writer_each(server):
    first, second = (Inbox(PostgresDatabase(server.place())) for _ in range(2))
    first.take(reads(1, 4))
    second.take(reads(1, 8))
    holds(first, 4)
    holds(second, 8)
    first.close()
    second.close()


def test_a_connection_pooler_is_refused(server):
    """It gives the program another session's key, and other sessions from time to time."""

    def another_key(answer: bytes) -> bytes:
        at = answer.find(b"K\x00\x00\x00\x0c")
        return answer if at < 0 else answer[: at + 5] + b"\x00\x01\x02\x03" + answer[at + 9 :]

    with (
        BreakingLine(server.port, rewrite=another_key) as line,
        pytest.raises(DatabaseAway, match="pooler") as caught,
    ):
        Inbox(LinedDatabase(server.place(), line))
    assert caught.value.is_lasting


# --- as the event loop sees it ----------------------------------------------------------------


async def asked(outer, server, group, away, *, patience_s=30.0):
    """A group that is taken in spite of what `away` does to the server meanwhile."""
    thread = StoreThread(outer.store, name="billing", clock=SystemClock(), patience_s=patience_s)
    try:
        async with asyncio.timeout(60):
            return await away(thread, group)
    finally:
        await thread.close()


async def test_a_server_that_is_killed_and_restarted_is_told_once_when_it_goes_and_comes(
    outer, server
):
    outer.take(reads(1, 4))

    async def away(thread, group):
        server.kill()
        task = asyncio.ensure_future(thread.ask(outer.store.take, group))
        await eventually(lambda: thread.failures >= 2)
        assert thread.is_away
        await asyncio.to_thread(server.start)
        return await task

    message = Inbox.arrived(reads(5, 8))
    log = io.StringIO()
    with logging_to(log, environment={}):
        result = await asked(outer, server, [message], away)
    assert result.receipts == {A: 8}
    holds(outer, 8)
    lines = [line for line in log.getvalue().splitlines() if " database " in line]
    said = [line.split(" ")[5] for line in lines if "(repeated" not in line]
    assert said == ["away:", "back"]


async def test_a_server_that_stops_answering_is_given_up_and_asked_again(outer, server, caplog):
    """SIGSTOP: the line stands, the bytes are acknowledged, and no answer comes."""
    outer.take(reads(1, 4))

    async def away(thread, group):
        server.freeze()
        try:
            task = asyncio.ensure_future(thread.ask(outer.store.take, group))
            await eventually(lambda: thread.failures >= 1)
        finally:
            server.thaw()
        return await task

    result = await asked(outer, server, [Inbox.arrived(reads(5, 8))], away, patience_s=0.3)
    assert result.receipts == {A: 8}
    holds(outer, 8)


async def test_closing_does_not_wait_for_a_server_that_stops_answering(outer, server, monkeypatch):
    monkeypatch.setattr("headend.billing.store_thread.CLOSE_PATIENCE_S", 0.3)
    outer.take(reads(1, 4))
    thread = StoreThread(outer.store, name="billing", clock=SystemClock())
    server.freeze()
    try:
        task = asyncio.ensure_future(thread.ask(outer.store.take, [Inbox.arrived(reads(5, 8))]))
        await eventually(lambda: thread.tries == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(10):
            await thread.close()
    finally:
        server.thaw()


async def test_a_fault_of_our_own_is_not_tried_again(outer):
    """A value that the database cannot hold would come again and again."""
    thread = StoreThread(outer.store, name="billing", clock=SystemClock())

    def broken(_group):
        with outer.store._transaction() as connection:
            connection.exec_driver_sql("SELECT 1 / 0")

    with pytest.raises(Exception, match="division by zero"):
        await thread.ask(broken, [])
    assert thread.failures == 0
    await thread.close()
    assert outer.take(reads(1, 4)).receipts == {A: 4}
