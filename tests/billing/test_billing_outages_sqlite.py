"""A file of SQLite's that cannot be written just now: the same way back as from a server."""

import sqlite3
from contextlib import closing

import pytest
from billing_builder import EPOCH_A, Inbox, reads
from sqlalchemy import event as sa_event

from headend.billing import sqlite as sqlite_module
from headend.billing.database import BillingDatabaseError, DatabaseAway
from headend.cli.main import exit_code

A = ("he1", EPOCH_A)


@pytest.fixture
def inbox(sqlite, monkeypatch):
    quick = tuple(p.replace("=5000", "=50") for p in sqlite_module._WRITER)
    monkeypatch.setattr(sqlite_module, "_WRITER", quick)
    made = Inbox(sqlite)
    yield made
    made.close()


def holds(inbox, count: int) -> None:
    assert inbox.through() == count
    assert len(inbox.values()) == count


def test_a_file_that_another_program_holds_is_waited_for(inbox):
    inbox.take(reads(1, 4))
    with closing(sqlite3.connect(inbox.database.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(DatabaseAway, match=r"billing\.db: database is locked"):
                inbox.take(reads(5, 8))
    assert inbox.take(reads(5, 8)).receipts == {A: 8}
    holds(inbox, 8)


def test_a_full_disk_leaves_nothing_half_and_is_over_when_there_is_room(inbox):
    """SQLite's own limit of pages gives the very error of a full disk."""
    inbox.take(reads(1, 4))
    ((pages,),) = inbox.database.rows("PRAGMA page_count")
    full = True

    def limited(connection, _entry) -> None:
        if full:
            connection.execute(f"PRAGMA max_page_count={pages}").close()

    sa_event.listen(inbox.store.engine, "connect", limited)
    inbox.store._database._let_go()
    for _ in range(2):
        with pytest.raises(DatabaseAway, match="full"):
            inbox.take(reads(5, 400))
        holds(inbox, 4)
    full = False
    assert inbox.take(reads(5, 400)).receipts == {A: 400}
    holds(inbox, 400)


def test_a_file_that_is_damaged_while_it_is_used_is_not_tried_again(inbox):
    inbox.take(reads(1, 400))
    inbox.close()
    content = bytearray(inbox.database.path.read_bytes())
    content[4096:-4096] = b"\xa5" * (len(content) - 8192)
    inbox.database.path.write_bytes(content)
    with pytest.raises(BillingDatabaseError, match=r"malformed.*head-ends send again") as caught:
        inbox.take(reads(401, 800))
    assert not isinstance(caught.value, DatabaseAway)
    assert exit_code(caught.value) == 1


def test_a_file_that_cannot_be_opened_ends_the_start(sqlite):
    sqlite.path.mkdir()
    with pytest.raises(DatabaseAway, match="unable to open") as caught:
        Inbox(sqlite)
    assert (caught.value.is_lasting, exit_code(caught.value)) == (True, 4)
