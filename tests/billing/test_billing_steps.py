"""Billing's steps, as the watchdog sees them: trying is one, hanging is none."""

import asyncio
import threading

from headend.billing.consumer import BillingConsumer
from headend.billing.errors import DatabaseAway
from headend.billing.store import Result
from headend.domain.clock import SystemClock
from headend.messages.broker import BrokerSpec
from headend.messages.pipe import Message
from tests.support.waiting import eventually

FEED = "meter/v1/he1/feed/billing"


class AwayStore:
    """A database that cannot write until it is told to; `blocked` holds every call up."""

    def __init__(self):
        self.is_away = True
        self.calls = 0
        self.blocked = threading.Event()
        self.blocked.set()

    def take(self, _messages):
        self.calls += 1
        self.blocked.wait()
        if self.is_away:
            raise DatabaseAway("disk I/O error")
        return Result()


def make_consumer(store):
    return BillingConsumer(
        broker=BrokerSpec(host="127.0.0.1", port=1),
        store=store,
        name="billing",
        headends=["he1"],
        clock=SystemClock(),
    )


async def test_waiting_for_messages_takes_no_steps_and_needs_none():
    consumer = make_consumer(AwayStore())
    queue = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        work = group.create_task(consumer._work(queue))
        await eventually(lambda: consumer.steps is None)
        work.cancel()
    assert consumer.steps is not None
    await consumer.close()


async def test_a_database_that_is_away_is_stepped_at_and_said():
    store = AwayStore()
    consumer = make_consumer(store)
    queue = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        work = group.create_task(consumer._work(queue))
        queue.put_nowait(Message(FEED, b"{}", retain=False))
        await eventually(lambda: store.calls >= 1)
        first = consumer.steps
        await eventually(lambda: store.calls >= 3)
        assert consumer.steps > first
        assert "database away" in consumer.status_line
        store.is_away = False
        await eventually(lambda: consumer.steps is None)
        assert "database" not in consumer.status_line
        work.cancel()
    await consumer.close()


async def test_a_database_that_never_answers_is_no_step():
    store = AwayStore()
    store.blocked.clear()
    consumer = make_consumer(store)
    queue = asyncio.Queue()
    try:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(consumer._work(queue))
            queue.put_nowait(Message(FEED, b"{}", retain=False))
            await eventually(lambda: store.calls == 1)
            first = consumer.steps
            assert first is not None
            await asyncio.wait((work,), timeout=0.5)
            assert consumer.steps == first
            work.cancel()
    finally:
        store.blocked.set()
        await consumer.close()
