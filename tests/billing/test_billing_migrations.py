"""Billing's database of any earlier release is taken up by this one, whole or not at all."""

import json
import signal
import subprocess
import sys

import pytest
from billing_builder import EPOCH_A, EPOCH_B, FixedClock, Inbox, batch, read
from billing_databases import Database

from headend.billing import database as opening
from headend.billing.errors import BillingDatabaseError
from headend.billing.store import Store
from headend.billing.tables import MIGRATIONS, SCHEMA_VERSION, Execute
from headend.billing.views import BillingView
from tests.backup.stored_databases import Kept, billing_schema, kept, look_at_billing

KEPT = kept("billing")
HOW = (
    "billing's schema has no database of its own: add one with"
    " `python -m tests.backup.make_database` and commit it. A step that a release has written is"
    " never changed: add another"
)
each = pytest.mark.parametrize("one", KEPT, ids=lambda one: one.sql.stem)


def test_every_schema_has_a_database_and_is_what_was_released():
    assert {one.version for one in KEPT} == set(range(1, SCHEMA_VERSION + 1)), HOW
    for one in KEPT:
        assert billing_schema(one.version) == one.expected["schema_sha256"], HOW


def assert_holds(found, expected, where=""):
    """Equal; a later release may know more about a thing."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_holds(found.get(key), value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_holds(mine, theirs, f"{where}[{number}]")
    else:
        assert found == expected, where


def open_and_close(url, software="test"):
    Store(url, name="billing", clock=FixedClock(), software=software).close()


@each
def test_what_an_earlier_release_wrote_is_read_back(one: Kept, database: Database):
    database.script(one.text)
    open_and_close(database.url)
    found = json.loads(json.dumps(look_at_billing(database.url), default=str))
    assert_holds(found, one.expected["look"])


@each
def test_the_inbox_goes_on_where_it_was(one: Kept, database: Database):
    database.script(one.text)
    inbox = Inbox(database)
    expected = one.expected["look"]
    through = {c["epoch"]: c["through_seq"] for c in expected["status"]["cursors"]}
    assert inbox.through(EPOCH_A) == through[EPOCH_A]
    assert inbox.through(EPOCH_B) == through[EPOCH_B]
    before = len(inbox.values())
    again = batch([read(1, "100.00")])  # known
    assert inbox.take(again).counts.new == 0
    next_seq = through[EPOCH_A] + 1
    more = batch([read(next_seq, "8.00", meter="M-8")])
    assert inbox.take(more).counts.new == 1
    assert inbox.through(EPOCH_A) == next_seq
    assert len(inbox.values()) == before + 1
    inbox.close()


# -- a step that does not exist yet


def add_note(execute: Execute) -> None:
    execute("ALTER TABLE event ADD COLUMN note TEXT")
    execute("UPDATE event SET note = kind")
    execute("CREATE TABLE notes (id BIGINT NOT NULL PRIMARY KEY, text TEXT NOT NULL)")


@pytest.fixture
def next_release(monkeypatch):
    def put(step=add_note):
        monkeypatch.setattr(opening, "MIGRATIONS", (*MIGRATIONS, step))
        monkeypatch.setattr(opening, "SCHEMA_VERSION", SCHEMA_VERSION + 1)

    yield put
    monkeypatch.undo()


def versions(database: Database):
    return [v for (v,) in database.rows("SELECT version FROM schema_version ORDER BY version")]


@each
def test_the_next_releases_step_is_made_once(one: Kept, database: Database, next_release):
    database.script(one.text)
    next_release()
    for _start in range(2):
        open_and_close(database.url, software="next")
    assert versions(database)[-1] == SCHEMA_VERSION + 1
    assert database.rows("SELECT count(*) FROM event WHERE note = kind") == database.rows(
        "SELECT count(*) FROM event"
    )


@each
def test_a_step_that_fails_half_way_leaves_the_old_version_usable(
    one: Kept, database: Database, next_release, monkeypatch
):
    database.script(one.text)

    def fails(execute: Execute) -> None:
        add_note(execute)
        execute("INSERT INTO nowhere VALUES (1)")

    next_release(fails)
    with pytest.raises(Exception, match="nowhere"):
        open_and_close(database.url)
    monkeypatch.undo()
    assert versions(database)[-1] == one.version
    found = json.loads(json.dumps(look_at_billing(database.url), default=str))
    assert_holds(found, one.expected["look"])
    inbox = Inbox(database)
    assert inbox.take(batch([read(1, "100.00")])).counts.new == 0
    inbox.close()


KILLED = """
import os, signal, sys
from headend.billing import database as opening
from headend.billing.store import Store
from headend.billing.tables import MIGRATIONS, SCHEMA_VERSION
from headend.domain.clock import SystemClock

def cut(execute):
    execute("ALTER TABLE event ADD COLUMN note TEXT")
    execute("CREATE TABLE notes (id BIGINT NOT NULL PRIMARY KEY)")
    os.kill(os.getpid(), signal.SIGKILL)

opening.MIGRATIONS = (*MIGRATIONS, cut)
opening.SCHEMA_VERSION = SCHEMA_VERSION + 1
Store(sys.argv[1], name="billing", clock=SystemClock(), software="next")
"""


@each
def test_a_kill_in_the_middle_of_a_step_leaves_the_old_version_usable(one: Kept, database):
    database.script(one.text)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, database.url], check=False, timeout=60, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    inbox = Inbox(database)
    assert versions(database)[-1] == SCHEMA_VERSION
    assert inbox.take(batch([read(1, "100.00")])).counts.new == 0
    inbox.close()


def test_a_newer_releases_database_is_refused_and_nothing_of_it_changed(
    database: Database, next_release, monkeypatch
):
    database.script(KEPT[-1].text)
    next_release()
    open_and_close(database.url, software="next")
    monkeypatch.undo()
    before = [database.rows(f"SELECT * FROM {t} ORDER BY 1") for t in ("event", "schema_version")]
    with pytest.raises(BillingDatabaseError, match="newer program"):
        open_and_close(database.url)
    with pytest.raises(BillingDatabaseError, match="newer program"):
        BillingView(database.url)
    assert before == [
        database.rows(f"SELECT * FROM {t} ORDER BY 1") for t in ("event", "schema_version")
    ]
