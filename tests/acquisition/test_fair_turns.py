"""A noisy meter starves nobody, nor is it starved; who asks overtakes; some buses are held back."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from headend.acquisition.meter_reader import Taken, Wanted
from headend.acquisition.overtaking import GIVES_WAY_MAX, Overtaken, Overtaking, was_overtaken
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.acquisition.poller import OVERLOAD, Poller
from headend.acquisition.registry import Registry
from headend.bus import Priority
from headend.domain.clock import to_ms
from headend.domain.due import DueKey
from headend.domain.meter import Meter
from headend.drivers import PointResult
from headend.supervisor import Supervisor
from simulators.schedule import VirtualTimeLoop, run_virtual
from tests.acquisition.bench_meter import EXPORT, IMPORT, bench, meter_named
from tests.acquisition.test_due_and_polling import bounded, engine_of, lines, until

ZONE = ZoneInfo("Asia/Shanghai")
START_MS = to_ms(datetime(2026, 11, 25, 12, 0, tzinfo=ZONE))
METERS = 10
INTERVAL_S = 10
VOLTS = "voltage_a"


class Line:
    """Reader and journal in one. `noisy` meters take long and give nothing."""

    def __init__(self, loop: VirtualTimeLoop, *, read_s: float, noisy: Sequence[str] = ()) -> None:
        self.loop = loop
        self.read_s = read_s
        self.noisy = noisy
        self.reads: list[tuple[float, str]] = []
        self.failed: list[tuple[DueKey, str]] = []

    async def read(self, meter: Meter, wanted: Sequence[Wanted], **_more: object) -> list[Taken]:
        self.reads.append((self.loop.time(), meter.id))
        is_noisy = meter.id in self.noisy
        await asyncio.sleep(self.read_s * (3 if is_noisy else 1))
        return [Taken(want, None, None, "bad_reply:checksum") for want in wanted if is_noisy]

    async def due_failed_many(self, failed: Sequence[tuple[DueKey, str]]) -> None:
        self.failed += failed


def poller_of(line: Line, *more: PlanEntry, held: Callable[[], bool] = lambda: False) -> Poller:
    meters = [
        Meter(f"M-{n}", f"SP-{n}", "b", "dlt645-2007", f"{n:012d}", "p") for n in range(METERS)
    ]
    entry = PlanEntry((VOLTS,), interval_s=INTERVAL_S, tolerance_ms=5000, window_ms=10_000)
    plans = {"p": ReadPlan("p", (entry, *more))}
    return Poller(
        "b", Registry(meters, []), plans, line, line, zone=ZONE, clock=line.loop, held_back=held
    )


async def run_for(poller: Poller, seconds: float) -> None:
    task = asyncio.ensure_future(poller.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


DAILY = PlanEntry((IMPORT,), tolerance_ms=0, window_ms=3_600_000, source="freeze")


def test_what_failed_has_a_fifth_of_a_line_on_which_first_tries_never_end() -> None:
    """A freeze of the night that failed is tried again, however full the line is all day."""

    async def story(loop: VirtualTimeLoop) -> Line:
        line = Line(loop, read_s=1.5, noisy=("M-3",))
        await run_for(poller_of(line, DAILY), 3600)
        return line

    line = run_virtual(story, start_ms=START_MS)
    tried = Counter(meter for _, meter in line.reads)
    gaps = [b - a for a, b in zip(*(_times(line, "M-3")[n:] for n in (0, 1)), strict=False)]
    assert max(gaps) < 60
    others = {meter: count for meter, count in tried.items() if meter != "M-3"}
    assert max(others.values()) - min(others.values()) <= 2
    # The noisy meter takes three times as long: with its retries it has a third of the line.
    assert tried["M-3"] * 4.5 < 0.36 * 3600


def _times(line: Line, meter: str) -> list[float]:
    return [at for at, name in line.reads if name == meter]


def test_one_noisy_meter_costs_the_others_of_a_line_that_fits_nothing() -> None:
    async def story(loop: VirtualTimeLoop) -> list[Line]:
        lines_ = [Line(loop, read_s=0.3, noisy=noisy) for noisy in ((), ("M-3",))]
        for line in lines_:
            await run_for(poller_of(line), 600)
        return lines_

    calm, noisy = run_virtual(story, start_ms=START_MS)
    for meter in (f"M-{n}" for n in range(METERS) if n != 3):
        assert abs(len(_times(calm, meter)) - len(_times(noisy, meter))) <= 1
    assert not [key for key, reason in noisy.failed if reason == "overrun"]


# -- a bus that is held back


def test_a_bus_that_is_held_back_reads_nothing_and_says_why() -> None:
    async def story(loop: VirtualTimeLoop) -> tuple[Line, int]:
        line, held = Line(loop, read_s=0.1), True
        poller = poller_of(line, held=lambda: held)
        task = asyncio.ensure_future(poller.run())
        await asyncio.sleep(95)
        before, steps = len(line.reads), poller.counts.steps
        assert 10 < steps < 200  # it lives, and does not spin
        held = False
        poller.look_again()
        await asyncio.sleep(20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return line, before

    line, before = run_virtual(story, start_ms=START_MS)
    assert before == 0
    assert {reason for _, reason in line.failed} == {OVERLOAD}
    assert len({key for key, _ in line.failed}) == len(line.failed) == 10 * METERS
    assert len(line.reads) >= METERS


async def test_on_a_bus_that_is_held_back_somebodys_read_settles_the_point_it_fits(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made, Supervisor() as supervisor:
        planned = bounded(made, 1, tolerance_ms=60_000, window_ms=60_000)
        engine, _ = await engine_of(made, planned)
        engine.hold_back({"b"})
        supervisor.start("poll", engine.pollers["b"].run)
        await until(lambda: all(line.reason == OVERLOAD for line in lines(made)))
        taken = await engine.read_now("M-1", [IMPORT, EXPORT])
        assert [outcome.settled for outcome in taken] == [True, True]
        assert {line.state.value for line in lines(made)} == {"read"}
        assert {line.failed_rounds for line in lines(made)} == {1}


# -- overtaking


class Slow:
    """A session in which every point takes a second; what was begun is counted."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, Priority]] = []
        self.done: list[str] = []

    async def read(
        self,
        points: Sequence[str],
        *,
        priority: Priority = Priority.DUE,
        deadline: float | None = None,
    ) -> list[PointResult]:
        for point in points:
            self.begun.append((point, priority))
            await asyncio.sleep(1)
        self.done.append(f"{priority.name} {len(points)}")
        return [PointResult(p, "", None, "", None, None, 1, None) for p in points]

    async def read_frozen(
        self, points: Sequence[str], *, nth: int = 1, **more: object
    ) -> list[PointResult]:
        assert nth
        return await self.read(points, **more)


TEN = [f"p{n}" for n in range(10)]


async def planned_reads(
    session, turn: asyncio.Lock, points: Sequence[str], results: list[list[PointResult]]
) -> None:
    """As a poller: again and again until it was not overtaken."""
    while True:
        async with turn:
            results.append(await session.read(points, priority=Priority.DUE))
        if results[-1][0].error is None:
            return


def overtaken(results: list[PointResult]) -> bool:
    return was_overtaken([Taken(Wanted(r.point), r, None) for r in results])


def test_a_read_by_plan_gives_way_at_its_next_exchange_and_is_done_again() -> None:
    async def story(loop: VirtualTimeLoop) -> None:
        overtaking, slow, turn = Overtaking(), Slow(), asyncio.Lock()
        session = overtaking.sessions(lambda _meter: slow)(meter_named())
        results: list[list[PointResult]] = []
        task = asyncio.ensure_future(planned_reads(session, turn, TEN, results))
        await asyncio.sleep(3.5)
        began = loop.time()
        with overtaking.ahead("M-1"):
            async with turn:
                found = await session.read(["p0", "p1"], priority=Priority.ON_DEMAND)
        assert loop.time() - began == pytest.approx(2.0, abs=0.01)  # its own two points
        assert [r.error for r in found] == [None, None]
        await task
        assert [overtaken(r) for r in results] == [True, False]
        assert slow.done == ["ON_DEMAND 2", "DUE 10"]

    run_virtual(story, start_ms=START_MS)


def test_a_read_by_plan_is_not_put_off_for_ever() -> None:
    async def story(_loop: VirtualTimeLoop) -> None:
        overtaking, slow, turn = Overtaking(), Slow(), asyncio.Lock()
        session = overtaking.sessions(lambda _meter: slow)(meter_named())
        results: list[list[PointResult]] = []
        task = asyncio.ensure_future(planned_reads(session, turn, TEN, results))
        for _ in range(5):
            await asyncio.sleep(0.5)
            with overtaking.ahead("M-1"):
                async with turn:
                    await session.read(["p0"], priority=Priority.ON_DEMAND)
        await task
        assert [overtaken(r) for r in results] == [True] * GIVES_WAY_MAX + [False]

    run_virtual(story, start_ms=START_MS)


def test_others_and_single_values_are_not_broken_off() -> None:
    async def story(_loop: VirtualTimeLoop) -> None:
        overtaking, slow = Overtaking(), Slow()
        open_session = overtaking.sessions(lambda _meter: slow)
        with overtaking.ahead("M-2"):
            (found,) = await open_session(meter_named()).read_frozen(["p0"])
            assert found.error is None
            assert all(r.error is None for r in await open_session(meter_named()).read(TEN[:3]))
        with overtaking.ahead("M-1"):
            assert (await open_session(meter_named()).read(["p0"]))[0].error is None
            assert overtaken(await open_session(meter_named()).read(TEN))
        assert not overtaken(await open_session(meter_named()).read(TEN[:2]))

    run_virtual(story, start_ms=START_MS)


def test_what_was_overtaken_has_not_failed_and_is_read_at_once_again() -> None:
    class Crowded(Line):
        """The first read of every meter gives way."""

        async def read(self, meter: Meter, wanted: Sequence[Wanted], **more: object) -> list[Taken]:
            first = meter.id not in {name for _, name in self.reads}
            await super().read(meter, wanted, **more)
            if not first:
                return []
            error = Overtaken("somebody else first", bus="b")
            none = PointResult(VOLTS, "", None, "", None, None, 0, error)
            return [Taken(want, none, None, "overtaken") for want in wanted]

    async def story(loop: VirtualTimeLoop) -> tuple[Line, Poller]:
        line = Crowded(loop, read_s=0.1)
        poller = poller_of(line)
        await run_for(poller, 5)
        return line, poller

    line, poller = run_virtual(story, start_ms=START_MS)
    assert Counter(name for _, name in line.reads) == {f"M-{n}": 2 for n in range(METERS)}
    assert line.failed == []
    assert poller.counts.retries == 0
