"""What the head-end says about itself: shares of buses, due points of the day, never in the way."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from headend.bus.statistics import BusState, BusStatistics
from headend.domain.clock import SystemClock, from_iso
from headend.domain.due import DueKey, DuePoint, DueState
from headend.journal import Birth, JournalReader
from headend.timeseries.extra import ExtraLines
from headend.timeseries.statistics import StatisticsSampler
from tests.journal.journal_kit import Bench, HandClock, reading
from tests.support.waiting import eventually

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOON_MS = from_iso("2026-03-01T12:00:00+08:00")
EMPTY = BusStatistics(
    state=BusState.OPEN, exchanges=0, outcomes={}, answered=0, failed=0, refused_full=0,
    deadline_passed=0, dead_waiting=0, stray_bytes=0, observer_failures=0,
    opens=1, queue_len=0, steps=0, busy_s=0.0, elapsed_s=0.0, dead_s=0.0, devices={},
)  # fmt: skip


@dataclass
class FakeBus:
    """Counters as a test sets them."""

    now: BusStatistics = EMPTY

    def statistics(self) -> BusStatistics:
        return self.now

    def later(self, **changes) -> None:
        self.now = replace(self.now, **changes)


@dataclass
class World:
    """A sampler with one bus, and itself the writer."""

    path: Path
    bus: FakeBus = field(default_factory=FakeBus)
    name: str = "influx"
    extra: ExtraLines = field(default_factory=ExtraLines)

    def report(self) -> dict:
        return {"lag_s": 2.5, "backlog": 12, "dead_letters": 1}

    def sampler(self, **more) -> StatisticsSampler:
        wanted = {"clock": HandClock(), "buses": {"street a": self.bus}} | more
        return StatisticsSampler(
            headend="he1",
            zone=SHANGHAI,
            journal_path=self.path / "journal.db",
            writers=[self],
            **wanted,
        )


def test_a_share_is_the_part_of_the_time_since_the_line_before(tmp_path: Path) -> None:
    world = World(tmp_path)
    sampler = world.sampler()
    world.bus.later(elapsed_s=1000.0, busy_s=900.0, answered=500, failed=3, exchanges=510)
    assert sampler.sample_buses(0) == []
    world.bus.later(elapsed_s=1060.0, busy_s=915.0, answered=520, failed=4, exchanges=533)
    world.bus.later(queue_len=7)
    (line,) = sampler.sample_buses(60_000)
    assert line == (
        rb"bus,headend=he1,bus=street\ a share=0.250000,answered=20i,failed=1i,"
        rb"attempts=23i,queue_len=7i 60000"
    )


def test_busy_time_of_an_attempt_over_the_minute_is_neither_lost_nor_above_one(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    sampler = world.sampler()
    world.bus.later(elapsed_s=60.0)
    sampler.sample_buses(0)
    world.bus.later(elapsed_s=120.0, busy_s=66.0)
    assert b"share=1.000000," in sampler.sample_buses(60_000)[0]
    world.bus.later(elapsed_s=180.0, busy_s=69.0)
    assert b"share=0.150000," in sampler.sample_buses(120_000)[0]


def test_a_bus_that_does_not_run_has_no_line(tmp_path: Path) -> None:
    world = World(tmp_path)
    sampler = world.sampler()
    assert sampler.sample_buses(0) == []
    assert sampler.sample_buses(60_000) == []


async def test_due_points_are_counted_up_to_now_and_yesterday_as_a_whole(tmp_path: Path) -> None:
    world = World(tmp_path)
    bench = Bench(tmp_path / "journal.db", settings={"zone": SHANGHAI})
    before_ms = from_iso("2026-02-28T13:00:00+08:00")

    def due(time_ms: int) -> DuePoint:
        return DuePoint(
            DueKey("M-1", "active_import_total", time_ms), "street-a", None, time_ms + 600_000
        )

    journal = await bench.open()
    async with journal:
        await journal.freeze_due(date(2026, 2, 28), [due(before_ms)])
        await journal.close_due_day(date(2026, 2, 28))
        hours = [NOON_MS + hour * 3_600_000 for hour in (-3, -2, -1, 0, 1)]
        await journal.freeze_due(date(2026, 3, 1), [due(time_ms) for time_ms in hours])
        await journal.append(Birth((reading(time_ms=hours[0], due_ms=hours[0]),)))
        await journal.append(Birth((reading(time_ms=hours[1], due_ms=hours[1], late=True),)))
        lines = await world.sampler().sample_due(NOON_MS)
        with JournalReader(tmp_path / "journal.db") as reader:
            counts = reader.due_counts(date(2026, 3, 1), until_ms=NOON_MS)
            assert reader.due_counts(date(2025, 1, 1), until_ms=NOON_MS) == dict.fromkeys(
                DueState, 0
            )
    midnight_ms = from_iso("2026-03-01T00:00:00+08:00")
    assert lines == [
        b"due,headend=he1 frozen=1i,open=0i,read=0i,late=0i,backfilled=0i,estimated=0i,missing=1i "
        + str(midnight_ms - 1).encode(),
        b"due,headend=he1 frozen=4i,open=2i,read=1i,late=1i,backfilled=0i,estimated=0i,missing=0i "
        + str(NOON_MS).encode(),
    ]
    assert counts[DueState.READ] == 1


async def test_a_journal_that_cannot_be_read_is_told_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert await World(tmp_path).sampler().sample_due(NOON_MS) == []
    assert "due points were not counted" in caplog.text


async def test_whole_periods_are_sampled_one_after_another(tmp_path: Path) -> None:
    world = World(tmp_path)

    class Running(FakeBus):
        def statistics(self) -> BusStatistics:
            self.later(elapsed_s=self.now.elapsed_s + 1.0, busy_s=self.now.busy_s + 0.5)
            return self.now

    sampler = world.sampler(clock=SystemClock(), period_ms=20, buses={"a": Running()})
    task = asyncio.create_task(sampler.run())
    await eventually(lambda: len(world.extra) >= 12)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    times = [int(line.rsplit(b" ", 1)[1]) for line in world.extra.take(12)]
    assert all(time_ms % 20 == 0 for time_ms in times)
    assert len(set(times)) == 6  # a line of the bus and one of the writer each
    assert times == sorted(times)


def test_when_the_database_is_away_the_oldest_lines_go_and_are_counted() -> None:
    woken = []
    lines = ExtraLines(3, on_put=lambda: woken.append(1))
    lines.put([b"1", b"2"])
    taken = lines.take(1)
    lines.put([b"3", b"4"])
    lines.give_back(taken)
    assert lines.take(10) == [b"2", b"3", b"4"]
    assert lines.dropped == 1
    assert len(woken) == 2
    lines.put([])
    assert len(woken) == 2


def test_a_writer_tells_its_own_database_how_far_it_is(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.extra.dropped = 3
    assert world.sampler().sample_writer(world, 60_000) == (
        b"writer,headend=he1,writer=influx lag_s=2.500,backlog=12i,dead_letters=1i,dropped=3i 60000"
    )
