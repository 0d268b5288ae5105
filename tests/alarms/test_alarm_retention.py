"""Retention drops alarms that are over, and none that stands."""

from datetime import date
from pathlib import Path

from headend.domain.alarms import KINDS, standing
from headend.domain.meter import Event
from headend.journal import RecordClass
from tests.journal.journal_kit import DAY_MS, Bench


async def test_an_alarm_that_stands_outlives_its_day(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "journal.db")
    async with await bench.open() as journal:

        async def tell(kind, **fields):
            bench.clock.ms += 1000
            await journal.append_event(Event(kind, bench.clock.ms, fields))

        await tell("alarm", alarm="bus_down", bus="a")
        await tell("alarm", alarm="bus_down", bus="b")
        await tell("alarm", alarm="new_epoch")
        await tell("alarm", alarm="journal_space", level="low")
        await tell("alarm", alarm="journal_space", level="full")
        await tell("alarm_cleared", alarm="bus_down", bus="b")
        before = standing(await journal.meter_events(KINDS))
        bench.clock.ms += 500 * DAY_MS
        await tell("alarm", alarm="meter_silent", meter="m", bus="a")
        await journal.drop_days_before(date(2027, 1, 1), RecordClass.BILLING)
        left = await journal.meter_events(KINDS)
        now = standing(left)
        assert [(a.name, a.subject, a.since_ms) for a in now if a.name != "meter_silent"] == [
            (a.name, a.subject, a.since_ms) for a in before
        ]
        told = sorted(e.fields["alarm"] for e in left if e.fields["alarm"] != "consumer_expired")
        assert told == ["bus_down", "journal_space", "journal_space", "meter_silent"]
        assert [a.under for a in now if a.name == "meter_silent"] == ["bus_down a"]
