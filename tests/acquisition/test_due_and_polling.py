"""What is due is written down first, is read, and ends in exactly one state."""

import asyncio
from datetime import timedelta
from pathlib import Path

from headend.acquisition.duekeeper import DueKeeper
from headend.acquisition.engine import Engine
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.acquisition.registry import Registry
from headend.domain.due import DueState, day_bounds_ms, local_day
from headend.journal import DueLine, JournalReader
from headend.supervisor import Supervisor
from headend.vee import RuleSet
from simulators.faults import make_fault
from tests.acquisition.bench_meter import EXPORT, IMPORT, ZONE, Bench, bench, meter_named

WAIT_S = 20.0


def plans(**more: int) -> dict[str, ReadPlan]:
    """Every second, a tolerance of half of it unless said otherwise."""
    bounds = {"tolerance_ms": 500, "window_ms": 1000} | more
    return {"p": ReadPlan("p", (PlanEntry((IMPORT, EXPORT), interval_s=1, **bounds),))}


def lines(made: Bench) -> list[DueLine]:
    with JournalReader(made.journal.path) as reader:
        return [line for day in reader.due_days() for line in reader.due_lines(day)]


async def until(condition) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


async def engine_of(made: Bench, planned: dict[str, ReadPlan]) -> tuple[Engine, DueKeeper]:
    registry = Registry([meter_named()], [])
    keeper = DueKeeper(made.journal, registry, planned, zone=ZONE, clock=made.clock)
    await keeper.prepare()
    engine = Engine(
        made.journal,
        registry,
        planned,
        made.reader._open_session,
        bases={},
        held={},
        settled=await made.journal.settled_due(made.clock.now_ms() - 86_400_000),
        zone=ZONE,
        clock=made.clock,
        rules=RuleSet(),
        not_before_ms=keeper.begun_ms,
    )
    return engine, keeper


def bounded(made: Bench, seconds: int, **more: int) -> dict[str, ReadPlan]:
    """Due in the next `seconds` whole seconds only, so that the list is short."""
    from_ms = (made.clock.now_ms() // 1000 + 1) * 1000
    return plans(from_ms=from_ms, until_ms=from_ms + seconds * 1000, **more)


async def test_list_is_frozen_before_polling_and_every_point_ends_read(tmp_path: Path) -> None:
    async with bench(tmp_path) as made, Supervisor() as supervisor:
        planned = bounded(made, 1, tolerance_ms=60_000, window_ms=60_000)
        engine, _ = await engine_of(made, planned)
        frozen = lines(made)
        assert len(frozen) == 2
        assert {line.state for line in frozen} == {DueState.OPEN}
        supervisor.start("poll", engine.pollers["b"].run)
        await until(lambda: all(line.state is DueState.READ for line in lines(made)))
        assert [line.key for line in lines(made)] == [line.key for line in frozen]
        assert all(line.read_id for line in lines(made))


async def test_reading_after_its_window_is_marked_late(tmp_path: Path) -> None:
    async with bench(tmp_path) as made, Supervisor() as supervisor:
        engine, _ = await engine_of(made, bounded(made, 1, tolerance_ms=60_000, window_ms=1000))
        made.clock.ahead_ms += 5_000
        supervisor.start("poll", engine.pollers["b"].run)
        await until(lambda: all(line.state is DueState.LATE for line in lines(made)))
        with JournalReader(made.journal.path) as reader:
            assert all(row.late and row.due_at for row in reader.readings())


async def test_silent_meter_stays_in_the_list_and_ends_missing_with_its_reason(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made, Supervisor() as supervisor:
        made.device.add_fault(make_fault("silent", every="1"))
        engine, keeper = await engine_of(made, bounded(made, 1, tolerance_ms=60_000))
        supervisor.start("poll", engine.pollers["b"].run)
        await until(lambda: all(line.reason for line in lines(made)))
        assert {line.state for line in lines(made)} == {DueState.OPEN}
        assert all(line.reason.startswith("no_answer") for line in lines(made))
        await supervisor.stop("poll")
        made.clock.ahead_ms += int(timedelta(days=4, hours=1).total_seconds() * 1000)
        await keeper.prepare()
        first_day = [line for line in lines(made) if line.reason != "never_tried"]
        assert len(first_day) == 2
        assert {line.state for line in first_day} == {DueState.MISSING}


async def test_slots_missed_behind_a_slow_one_are_skipped_and_counted(tmp_path: Path) -> None:
    async with bench(tmp_path) as made, Supervisor() as supervisor:
        engine, _ = await engine_of(made, bounded(made, 4, tolerance_ms=60_000, window_ms=60_000))
        made.clock.ahead_ms += 4_400  # three instants went by unread, the last can be served
        poller = engine.pollers["b"]
        supervisor.start("poll", poller.run)
        await until(lambda: sum(line.state is DueState.READ for line in lines(made)) == 2)
        left = [line for line in lines(made) if line.state is DueState.OPEN]
        assert [line.reason for line in left] == ["overrun"] * 6
        assert (poller.counts.jobs, poller.counts.overruns) == (1, 6)


async def test_read_that_somebody_asks_for_settles_the_open_point_it_fits(tmp_path: Path) -> None:
    async with bench(tmp_path) as made, Supervisor() as supervisor:
        made.device.add_fault(make_fault("silent", nth="1", count="3"))
        planned = bounded(made, 1, tolerance_ms=60_000, window_ms=60_000)
        engine, _ = await engine_of(made, planned)
        supervisor.start("poll", engine.pollers["b"].run)
        await until(lambda: all(line.reason for line in lines(made)))
        taken = await engine.read_now("M-1", [IMPORT, EXPORT])
        assert [outcome.settled for outcome in taken] == [True, True]
        assert {line.state for line in lines(made)} == {DueState.READ}


async def test_restart_goes_on_with_what_is_still_open_and_reads_nothing_twice(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        planned = bounded(made, 1, tolerance_ms=60_000, window_ms=60_000)
        engine, _ = await engine_of(made, planned)
        made.device.add_fault(make_fault("refuse", every="1", di="00020000"))
        async with Supervisor() as supervisor:
            supervisor.start("poll", engine.pollers["b"].run)
            await until(lambda: sum(line.state is DueState.READ for line in lines(made)) == 1)
            await until(lambda: sum(bool(line.reason) for line in lines(made)) == 1)
        made.device.clear_faults()
        again, _ = await engine_of(made, planned)
        async with Supervisor() as supervisor:
            supervisor.start("poll", again.pollers["b"].run)
            await until(lambda: all(line.state is DueState.READ for line in lines(made)))
        with JournalReader(made.journal.path) as reader:
            assert [row.point for row in reader.readings()] == [IMPORT, EXPORT]


async def test_days_without_a_daemon_are_frozen_afterwards_with_every_point(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        hourly = {"p": ReadPlan("p", (PlanEntry((IMPORT,), 60_000, 60_000, interval_s=3600),))}
        _, keeper = await engine_of(made, hourly)
        today = local_day(made.clock.now_ms(), ZONE)
        made.clock.ahead_ms += 3 * 86_400_000
        await keeper.prepare()
        with JournalReader(made.journal.path) as reader:
            for days in (1, 2, 3):
                assert reader.due(today + timedelta(days=days))["frozen"] == 24
        start_ms, _ = day_bounds_ms(today + timedelta(days=1), ZONE)
        assert any(line.key.due_ms == start_ms for line in lines(made))


async def test_poller_that_is_to_rest_keeps_what_the_meter_is_saying(tmp_path: Path) -> None:
    async with bench(tmp_path) as made, Supervisor() as supervisor:
        planned = bounded(made, 1, tolerance_ms=60_000, window_ms=60_000)
        engine, _ = await engine_of(made, planned)
        poller = engine.pollers["b"]
        supervisor.start("poll", poller.run)
        await until(lambda: made.reader is not None and poller.counts.jobs == 1)
        await asyncio.wait_for(poller.rest(), WAIT_S)
        assert {line.state for line in lines(made)} == {DueState.READ}
        made.clock.ahead_ms += 10_000
        assert poller.counts.jobs == 1
