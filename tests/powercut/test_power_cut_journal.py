"""The power goes while the journal writes: what was acknowledged is there, nothing is invented."""

import sqlite3
from unittest import mock

import pytest

from headend.journal import opening
from tests.powercut.images import cuts
from tests.powercut.journal_check import Broken, Tally
from tests.powercut.journal_cuts import (
    CONDITIONS,
    check_cuts,
    check_second_cuts,
    sampled,
    tell,
)
from tests.powercut.journal_story import Conditions, an_afternoon, small_things

SEED = 20261125
SHORT = (an_afternoon, small_things)


@pytest.mark.parametrize("name", CONDITIONS)
async def test_what_was_acknowledged_survives_a_power_cut_at_any_step(name, folder):
    run = await tell(folder, CONDITIONS[name])
    assert run.steps > 400
    tally = Tally()
    await check_cuts(run, tally, sampled(run, seed=SEED, variants=2, count=120))
    assert tally.images == 120
    assert tally.fresh
    assert tally.newest
    assert tally.traced > 400
    assert tally.records > 2000


async def test_the_power_may_go_again_while_the_journal_comes_up(folder):
    run = await tell(folder, CONDITIONS["short log"], chapters=SHORT)
    tally = Tally()
    looked = 0
    for cut in sampled(run, seed=SEED, variants=2, count=12):
        looked += await check_second_cuts(run, tally, cut, seed=SEED, variants=1, count=15)
    assert looked > 100


# -- the shim bites


async def first_broken(folder, run, variants=6):
    with pytest.raises(Broken) as caught:
        await check_cuts(run, Tally(), cuts(run.trail.recorder, seed=SEED, variants=variants))
    return str(caught.value)


async def test_a_journal_that_does_not_sync_is_found(folder):
    run = await tell(folder, Conditions(pragmas=("PRAGMA synchronous=OFF",)), chapters=SHORT)
    assert "missing" in await first_broken(folder, run)


async def test_a_journal_that_syncs_only_now_and_then_is_found(folder):
    """What SQLite calls NORMAL: consistent, and not durable."""
    run = await tell(folder, Conditions(pragmas=("PRAGMA synchronous=NORMAL",)), chapters=SHORT)
    assert "missing" in await first_broken(folder, run)


async def test_a_disk_that_lies_about_syncs_is_found(folder):
    run = await tell(folder, Conditions(), chapters=SHORT, lies=True)
    assert await first_broken(folder, run)


class Hasty(sqlite3.Connection):
    """Says that a transaction is committed, and commits it when the next one begins."""

    late = False

    def execute(self, sql, *args):
        if sql == "COMMIT":
            self.late = True
            return super().execute("SELECT 1")
        if self.late and sql in {"BEGIN IMMEDIATE", "ROLLBACK"}:
            self.late = False
            super().execute("COMMIT")
        return super().execute(sql, *args)

    def close(self):
        if self.late:
            super().execute("COMMIT")
        super().close()


async def test_a_journal_that_answers_before_it_commits_is_found(folder):
    def connect(path):
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Hasty)

    with mock.patch.object(opening, "connect", connect):
        run = await tell(folder, Conditions(), chapters=SHORT[:1])
    assert "missing" in await first_broken(folder, run, variants=0)
