"""Measurements of meters' clocks are kept, in order, for months, and for whoever reads the file."""

import pytest
from journal_kit import NOON_MS, Bench

from headend.journal import ClockMeasured, JournalReader
from headend.journal.clocks import KEPT_MS

DAY_MS = 86_400_000


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "journal.db")


async def test_measurements_outlive_the_daemon_and_are_told_by_meter_oldest_first(bench):
    rows = [ClockMeasured(NOON_MS + n * DAY_MS, 100 * n, 520, 3, n == 1) for n in range(3)]
    async with await bench.open() as journal:
        await journal.clocks_measured([("M-2", rows[0])])
        await journal.clocks_measured([("M-1", row) for row in reversed(rows)])
        await journal.clocks_measured([("M-1", rows[0])])  # once more is nothing
        assert await journal.clock_history(NOON_MS + 1) == {"M-1": rows[1:]}
    with JournalReader(bench.path) as reader:
        assert reader.clock_history() == {"M-1": rows, "M-2": rows[:1]}
        assert reader.clock_history(meter="M-2") == {"M-2": rows[:1]}
    async with await bench.open() as journal:
        assert await journal.clock_history(0) == {"M-1": rows, "M-2": rows[:1]}


async def test_old_measurements_go_when_new_ones_come(bench):
    old, new = ClockMeasured(NOON_MS, 0, 520, 3), ClockMeasured(NOON_MS + KEPT_MS + 1, 0, 520, 3)
    async with await bench.open() as journal:
        await journal.clocks_measured([("M-1", old), ("M-2", old)])
        await journal.clocks_measured([("M-1", new)])
        assert await journal.clock_history(0) == {"M-1": [new], "M-2": [old]}
