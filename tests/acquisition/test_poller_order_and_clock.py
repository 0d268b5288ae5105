"""Who is read first when a round does not fit, and what a clock that is set back means."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from headend.acquisition.meter_reader import Taken, Wanted
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.acquisition.poller import NO_ROOM, Poller
from headend.acquisition.registry import Registry
from headend.domain.clock import to_ms
from headend.domain.due import DueKey
from headend.domain.errors import JournalFull
from headend.domain.meter import Meter
from simulators.schedule import VirtualTimeLoop, run_virtual

ZONE = ZoneInfo("Asia/Shanghai")
START_MS = to_ms(datetime(2026, 11, 25, 12, 0, tzinfo=ZONE))
IMPORT = "active_import_total"
METERS = 10
INTERVAL_S = 10


class Clock:
    """The loop's time, off by what somebody set."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self.off_ms = 0

    def now_ms(self) -> int:
        return self._loop.now_ms() + self.off_ms

    def monotonic(self) -> float:
        return self._loop.time()


class Line:
    """Reader and journal in one: a read takes its time and is noted."""

    def __init__(self, read_s: float) -> None:
        self.read_s = read_s
        self.read_meters: list[str] = []
        self.failed: list[tuple[DueKey, str]] = []
        self.full = False

    async def read(self, meter: Meter, wanted: Sequence[Wanted], **_more: object) -> list[Taken]:
        await asyncio.sleep(self.read_s)
        if self.full:
            raise JournalFull("no room")
        self.read_meters.append(meter.id)
        return []

    async def due_failed_many(self, failed: Sequence[tuple[DueKey, str]]) -> None:
        self.failed += failed


def poller_of(line: Line, clock: Clock) -> Poller:
    meters = [
        Meter(f"M-{n}", f"SP-{n}", "b", "dlt645-2007", f"{n:012d}", "p") for n in range(METERS)
    ]
    entry = PlanEntry((IMPORT,), interval_s=INTERVAL_S, tolerance_ms=5000, window_ms=10_000)
    plans = {"p": ReadPlan("p", (entry,))}
    return Poller("b", Registry(meters, []), plans, line, line, zone=ZONE, clock=clock)


async def run_for(poller: Poller, seconds: float) -> None:
    task = asyncio.ensure_future(poller.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("read_s", [1.1, 2.0, 4.0])
def test_where_a_round_does_not_fit_every_meter_is_read_as_often_as_the_others(
    read_s: float,
) -> None:
    async def story(loop: VirtualTimeLoop) -> Counter[str]:
        line = Line(read_s)
        await run_for(poller_of(line, Clock(loop)), 1200)
        return Counter(line.read_meters)

    read = run_virtual(story, start_ms=START_MS)
    assert len(read) == METERS
    assert max(read.values()) - min(read.values()) <= 1


@pytest.mark.parametrize("back_ms", [60_000, 3_600_000, 400 * 86_400_000])
def test_a_clock_that_is_set_back_stops_no_plan(back_ms: int) -> None:
    async def story(loop: VirtualTimeLoop) -> tuple[int, int]:
        clock, line = Clock(loop), Line(0.1)
        poller = poller_of(line, clock)
        task = asyncio.ensure_future(poller.run())
        await asyncio.sleep(60)
        clock.off_ms -= back_ms
        before = len(line.read_meters)
        await asyncio.sleep(60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return before, len(line.read_meters) - before

    before, after = run_virtual(story, start_ms=START_MS)
    assert after >= before - 3 * METERS  # it may wait for up to WAIT_MAX_S first
    assert after >= 3 * METERS


def test_what_the_disk_has_no_room_for_is_told_as_the_reason() -> None:
    async def story(loop: VirtualTimeLoop) -> list[tuple[DueKey, str]]:
        line = Line(0.1)
        line.full = True
        await run_for(poller_of(line, Clock(loop)), 60)
        return line.failed

    failed = run_virtual(story, start_ms=START_MS)
    assert {key.meter for key, _reason in failed} == {f"M-{n}" for n in range(METERS)}
    assert {reason for _key, reason in failed} == {NO_ROOM}
