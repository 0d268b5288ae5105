"""The journal's n-th write, sync, open or read fails, for every n until none is left to fail."""

import sqlite3

import pytest

from headend.domain.errors import JournalError
from headend.journal.writer import Writer
from tests.powercut.failures import WAYS
from tests.powercut.journal_check import Broken
from tests.powercut.journal_failures import every_failure
from tests.powercut.journal_story import (
    TODAY,
    HandClock,
    Trail,
    commits_told,
    due,
    open_journal,
)
from tests.powercut.vfs import Recorder

# What fails, and how many n at least are hit in so short a story.
HITS = {
    "a write": 80,
    "a sync": 8,
    "a sync that forgets": 8,
    "an open, delete or truncate": 8,
    "a read": 40,
}


@pytest.fixture
async def template(folder):
    made = folder / "template"
    made.mkdir()
    async with await open_journal(made, HandClock()):
        pass
    return made


@pytest.mark.parametrize("name", HITS)
async def test_whatever_fails_once_nothing_acknowledged_is_lost_or_doubled(name, folder, template):
    touched, failures = await every_failure(folder, WAYS[name], template=template, cut_every=10)
    assert touched >= HITS[name]
    assert failures or name == "an open, delete or truncate"


@pytest.mark.parametrize("name", ["a sync", "an open, delete or truncate"])
async def test_a_failure_while_a_journal_is_begun_is_survived(name, folder):
    touched, _failures = await every_failure(folder, WAYS[name], cut_every=5)
    assert touched >= 8


async def test_a_journal_that_forgets_to_undo_is_found(folder, template, monkeypatch):
    """The loop bites: memory is not taken from the file again when that fails once."""

    def roll_back(self, group):
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    monkeypatch.setattr(Writer, "_roll_back", roll_back)
    with pytest.raises(Broken):
        await every_failure(folder, WAYS["a sync"], template=template, cut_every=100)


async def test_what_could_not_be_undone_in_time_is_undone_before_anything_is_written(tmp_path):
    async with await open_journal(tmp_path, HandClock()) as journal:
        writer = journal._writer
        failing = iter((True, True, False))
        real = writer._catch_up

        def catch_up():
            if next(failing, False):
                raise sqlite3.OperationalError("disk I/O error")
            real()

        writer._catch_up = catch_up
        real_connection = writer.connection

        class Broken:
            def execute(self, sql, *args):
                if sql == "COMMIT":
                    raise sqlite3.OperationalError("disk I/O error")
                return real_connection.execute(sql, *args)

            def __getattr__(self, name):
                return getattr(real_connection, name)

        writer.connection = Broken()
        with pytest.raises(JournalError):
            await journal.freeze_due(TODAY, [due("M-1", 0)])
        writer.connection = real_connection
        with pytest.raises(JournalError):
            await journal.freeze_due(TODAY, [due("M-1", 0)])
        assert await journal.freeze_due(TODAY, [due("M-1", 0)]) == 1


async def test_the_trail_knows_a_commit_that_failed(tmp_path):
    """A commit whose sync failed may come back after a power cut: that is no invention."""
    trail = Trail(Recorder(tmp_path))
    with commits_told(trail):
        async with await open_journal(tmp_path, HandClock()) as journal:
            await journal.freeze_due(TODAY, [due("M-1", 0)])
    assert trail.failed == []
    assert len(trail.states) > 2
