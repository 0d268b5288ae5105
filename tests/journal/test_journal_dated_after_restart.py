"""Dated events and adopted readings find what an earlier run of the daemon has written."""

from dataclasses import replace
from decimal import Decimal

import pytest
from journal_kit import NOON_MS, Bench, exchange, reading

from headend.domain.meter import Event
from headend.journal import Birth


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "journal.db")


async def day_of_readings(bench, count=4):
    async with await bench.open() as journal:
        for n in range(count):
            await journal.append(Birth((reading(f"{n}.00", time_ms=NOON_MS + 60_000 * n),)))


async def test_a_ratio_change_after_a_restart_reaches_every_reading(bench):
    await day_of_readings(bench)
    async with await bench.open() as journal:
        event = Event("ratio_change", NOON_MS, {"meter": "M-1", "multiplier": "2"})
        withdrawn = await journal.apply_meter_event(
            event, lambda r: (replace(r, multiplier=Decimal(2)),), meter="M-1", from_ms=NOON_MS
        )
        assert withdrawn == 4
        found = (await journal.read_stream("billing", 1, records_max=100)).records
        doubled = [r.value for r in found if getattr(r, "multiplier", "1") == "2"]
        assert doubled == ["0.00", "1.00", "2.00", "3.00"]


async def test_replies_that_waited_are_adopted_beside_what_is_there_already(bench):
    await day_of_readings(bench)
    async with await bench.open() as journal:
        number = await journal.park("boot", 1.0, exchange(9), "{}")
        births = [
            Birth((reading(f"{n}.00", time_ms=NOON_MS + 60_000 * n),)) for n in (0, 1, 2, 3, 4)
        ]
        adopted = await journal.adopt([number], births)
        assert [one.new for (one,) in adopted] == [False] * 4 + [True]
        assert await journal.parked() == []
