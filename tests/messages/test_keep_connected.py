"""What a lost connection leaves behind for the next one: nothing."""

import asyncio

from headend.domain.clock import SystemClock
from headend.messages.connect_words import Code, Why
from headend.messages.connection import Backoff, keep_connected
from headend.messages.pipe import PipeLost

QUICK = Backoff(first_s=0.001, max_s=0.001)


class FleetingPipe:
    """A connection of which the session itself finds out that it is lost."""

    version = "5"

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_exc):
        return None

    async def wait_lost(self):
        await asyncio.Event().wait()


async def lose() -> None:
    await asyncio.sleep(0)
    raise PipeLost("b:1", Why(Code.LOST, "gone"))


async def test_lost_connection_leaves_no_cancellation_counted_for_the_next_session():
    counted = []

    async def session(_pipe) -> None:
        task = asyncio.current_task()
        assert task is not None
        counted.append(task.cancelling())
        if len(counted) < 3:
            async with asyncio.TaskGroup() as group:
                group.create_task(lose())

    await keep_connected(FleetingPipe, session, name="test", clock=SystemClock(), backoff=QUICK)
    assert counted == [0, 0, 0]


async def test_time_limit_holds_in_every_session_after_a_loss():
    ended = []

    async def session(_pipe) -> None:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append("in time")
        if len(ended) < 2:
            async with asyncio.TaskGroup() as group:
                group.create_task(lose())

    await keep_connected(FleetingPipe, session, name="test", clock=SystemClock(), backoff=QUICK)
    assert ended == ["in time", "in time"]
