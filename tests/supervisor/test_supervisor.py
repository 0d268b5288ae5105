"""The supervisor keeps what it is given running, and says what died."""

import asyncio
import logging

import pytest

from headend.supervisor import Supervisor, TaskState


async def test_task_that_dies_is_restarted_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = 0
    back = asyncio.Event()

    async def dies_once() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            msg = "odd"
            raise RuntimeError(msg)
        back.set()
        await asyncio.Event().wait()

    deaths: list[TaskState] = []
    with caplog.at_level(logging.ERROR):
        async with Supervisor(deaths.append) as supervisor:
            supervisor.start("one", dies_once)
            await asyncio.wait_for(back.wait(), 10)
            state = supervisor.states["one"]
            assert (state.restarts, state.running) == (1, True)
            assert state.last_error == "RuntimeError: odd"
    assert [death.name for death in deaths] == ["one"]
    assert "task=one died" in caplog.text


async def test_stopping_cancels_every_task_newest_first() -> None:
    ended: list[str] = []

    def sleeper(name: str):
        async def run() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        return run

    async with Supervisor() as supervisor:
        for name in ("first", "second", "third"):
            supervisor.start(name, sleeper(name))
        await asyncio.sleep(0)
        await supervisor.stop("second")
        assert ended == ["second"]
    assert ended == ["second", "third", "first"]


async def test_two_tasks_of_one_name_are_an_error() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    async with Supervisor() as supervisor:
        supervisor.start("one", forever)
        with pytest.raises(ValueError, match="running already"):
            supervisor.start("one", forever)


async def test_fatal_error_ends_the_whole_instead_of_a_restart() -> None:
    class BeyondMending(Exception):
        pass

    runs = 0

    async def dies() -> None:
        nonlocal runs
        runs += 1
        raise BeyondMending

    stop = asyncio.Event()
    async with Supervisor(fatal=(BeyondMending,)) as supervisor:
        supervisor.start("one", dies)
        with pytest.raises(BeyondMending):
            await asyncio.wait_for(supervisor.run_until(stop), 10)
    assert runs == 1


async def test_running_until_stop_ends_when_stop_is_set() -> None:
    stop = asyncio.Event()
    async with Supervisor() as supervisor:
        stop.set()
        await asyncio.wait_for(supervisor.run_until(stop), 10)
        assert supervisor.states == {}


async def test_task_that_is_cancelled_from_inside_is_restarted_too() -> None:
    runs = 0
    back = asyncio.Event()

    async def cancelled_inside() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise asyncio.CancelledError
        back.set()
        await asyncio.Event().wait()

    async with Supervisor() as supervisor:
        supervisor.start("one", cancelled_inside)
        await asyncio.wait_for(back.wait(), 10)
        assert supervisor.states["one"].last_error == "cancelled from inside"


async def test_each_life_of_a_task_begins_without_the_cancellations_of_the_last() -> None:
    """A failed task group leaves its parent marked as being cancelled."""
    seen: list[int] = []
    back = asyncio.Event()

    async def child_fails() -> None:
        task = asyncio.current_task()
        assert task is not None
        seen.append(task.cancelling())
        if len(seen) == 2:
            back.set()
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    async def fail() -> None:
        await asyncio.sleep(0)
        msg = "child"
        raise ValueError(msg)

    async with Supervisor() as supervisor:
        supervisor.start("one", child_fails)
        await asyncio.wait_for(back.wait(), 10)
    assert seen == [0, 0]
