"""The consumer on a real broker: receipts after commits, resumes, outages."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest
from billing_builder import EPOCH_A, EPOCH_B, FixedClock, Inbox, batch, read, reads, resume_refused
from billing_databases import FailingCommits
from billing_headend import scripted_headend
from sqlalchemy import event as sa_event

from headend.billing.consumer import BillingConsumer
from headend.domain.clock import SystemClock
from headend.messages.connection import Backoff
from headend.messages.pipe import Pipe
from headend.messages.topics import Topics
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import eventually

FAST = Backoff(first_s=0.02, max_s=0.1, spread=0.0)


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path / "broker") as running:
        yield running


@asynccontextmanager
async def consuming(broker, inbox, *, headends=("he1",), clock=None):
    ready = asyncio.Event()
    consumer = BillingConsumer(
        broker=broker.spec(),
        store=inbox.store,
        name="billing",
        headends=headends,
        clock=clock or SystemClock(),
        on_ready=ready.set,
        backoff=FAST,
    )
    running = asyncio.create_task(consumer.run())
    try:
        async with asyncio.timeout(10):
            await ready.wait()
        consumer.ready = ready
        yield consumer
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await consumer.close()


async def test_a_stream_is_stored_and_receipted(broker, inbox):
    async with scripted_headend(broker) as he1, consuming(broker, inbox):
        he1.append(50)
        await he1.announce()
        await eventually(lambda: he1.receipted == 50)
        assert he1.resumes[0] == (EPOCH_A, 1)
        assert len(inbox.values()) == 50


async def test_a_restart_resumes_behind_what_is_durable(broker, inbox):
    async with scripted_headend(broker) as he1:
        he1.append(30)
        await he1.announce()
        async with consuming(broker, inbox):
            await eventually(lambda: he1.receipted == 30)
        he1.resumes.clear()
        he1.append(10)
        async with consuming(broker, inbox):
            await eventually(lambda: he1.receipted == 40)
        assert set(he1.resumes) == {(EPOCH_A, 31)}
    assert len(inbox.values()) == 40


async def test_a_headend_without_a_status_is_asked_all_the_same(broker, inbox):
    inbox.take(reads(1, 7))
    async with scripted_headend(broker) as he1, consuming(broker, inbox):
        he1.append(9)
        await eventually(lambda: he1.receipted == 9)
        assert he1.resumes == [(EPOCH_A, 8)]


async def test_a_headend_that_comes_back_is_asked_again(broker, inbox):
    async with scripted_headend(broker) as he1, consuming(broker, inbox):
        for _ in range(3):
            await he1.announce()
            await eventually(lambda: he1.resumes == [(EPOCH_A, 1)])
            he1.resumes.clear()
            await he1.announce(online=False)


async def test_everything_twice_and_out_of_order_counts_once(broker, inbox):
    async with scripted_headend(broker) as he1, consuming(broker, inbox):
        he1.append(40)
        he1.obeys = False
        for first, last in [(11, 20), (1, 10), (1, 10), (31, 40), (11, 30), (5, 25), (21, 40)]:
            await he1.send(first, last)
        await eventually(lambda: he1.receipted == 40)
    assert len(inbox.values()) == 40
    assert inbox.rows("conflict") == []


async def test_a_hole_is_asked_for_once_and_filled(broker, inbox):
    async with scripted_headend(broker) as he1, consuming(broker, inbox):
        he1.append(10)
        await he1.announce()
        await eventually(lambda: he1.receipted == 10)
        he1.resumes.clear()
        he1.append(90)
        for first in range(51, 100, 10):
            await he1.send(first, first + 9)
        await eventually(lambda: he1.receipted == 100)
        assert he1.resumes == [(EPOCH_A, 11)]
    assert len(inbox.values()) == 100


async def test_hostile_messages_are_refused_and_the_good_ones_go_on(broker, inbox):
    async with scripted_headend(broker) as he1, consuming(broker, inbox) as consumer:
        he1.append(20)
        await he1.announce()
        await eventually(lambda: he1.receipted == 20)
        hostile = [b"", b"{", b"\xff" * 300, b"null", b"[]", b'{"schema":"feed/1"}', b"0" * 200_000]
        hostile += [he1.message(5, 9)[:-7], batch([read(21, "1")], headend="he2")]
        hostile += [batch([read(21, "1")], consumer="other")]
        for payload in hostile:
            await he1.raw(payload)
            he1.append(1)
            await he1.send(len(he1.records), len(he1.records))
        await he1.pipe.publish(he1.topics.status, b"\x00 no status")
        await eventually(lambda: he1.receipted == 30)
        await eventually(lambda: consumer.totals.refused_messages == len(hostile) + 1)
        await eventually(lambda: len(inbox.rows("dead_letter")) == len(hostile) + 1)
    assert len(inbox.values()) == 30


async def test_a_retained_batch_that_comes_back_at_every_start_counts_once(broker, inbox):
    async with scripted_headend(broker) as he1:
        he1.append(10)
        await he1.raw(he1.message(1, 10), retain=True)
        for _ in range(3):
            he1.receipts.clear()
            async with consuming(broker, inbox):
                await eventually(lambda: he1.receipted == 10)
    assert len(inbox.values()) == 10


async def test_a_new_epoch_begins_at_its_own_cursor_and_makes_no_doubles(broker, inbox):
    async with consuming(broker, inbox):
        async with scripted_headend(broker) as he1:
            he1.append(20)
            await he1.announce()
            await eventually(lambda: he1.receipted == 20)
        async with scripted_headend(broker, epoch=EPOCH_B) as again:
            again.append(25)
            await again.announce()
            await eventually(lambda: again.receipted == 25)
            assert again.resumes[0] == (EPOCH_B, 1)
    assert len(inbox.values()) == 25


async def test_two_headends_are_taken_side_by_side(broker, inbox):
    async with (
        scripted_headend(broker) as he1,
        scripted_headend(broker, name="he2") as he2,
        consuming(broker, inbox, headends=("he1", "he2")),
    ):
        he1.append(20)
        he2.append(30)
        await he1.announce()
        await he2.announce()
        await eventually(lambda: he1.receipted == 20 and he2.receipted == 30)
    assert len(inbox.values()) == 50


async def test_a_headend_that_is_not_configured_is_not_listened_to(broker, inbox):
    async with (
        scripted_headend(broker) as he1,
        scripted_headend(broker, name="he2") as he2,
        consuming(broker, inbox),
    ):
        he2.append(5)
        await he2.send(1, 5)
        he1.append(5)
        await he1.send(1, 5)
        await eventually(lambda: he1.receipted == 5)
        assert he2.receipts == []
    assert len(inbox.values()) == 5


async def test_a_refused_resume_goes_on_behind_the_gap(broker, inbox):
    async with scripted_headend(broker) as he1, consuming(broker, inbox):
        he1.append(30)
        he1.obeys = False
        await he1.announce()
        await eventually(lambda: he1.resumes)
        await he1.raw(resume_refused(1, 21))
        await eventually(lambda: (EPOCH_A, 21) in he1.resumes)
        await he1.send(21, 30)
        await eventually(lambda: he1.receipted == 30)
    assert [row[2:4] for row in inbox.rows("gap")] == [(1, 20)]
    assert len(inbox.values()) == 10


async def test_no_receipt_is_sent_for_what_could_not_be_committed(broker, inbox):
    """While the disk is full nothing is receipted; when it is not, everything is."""
    commits = FailingCommits(inbox)
    async with scripted_headend(broker) as he1, consuming(broker, inbox) as consumer:
        he1.append(10)
        await he1.announce()
        await eventually(lambda: he1.receipted == 10)
        commits.failing = True
        he1.append(10)
        await he1.send(11, 20)
        await eventually(lambda: consumer.store_failures >= 2)
        assert he1.receipted == 10
        assert len(inbox.values()) == 10
        commits.failing = False
        await eventually(lambda: he1.receipted == 20)
    assert len(inbox.values()) == 20


async def test_receipts_never_run_ahead_of_the_database(broker, inbox):
    """Seen from outside: at each receipt another connection finds the cursor already there."""
    seen = []
    async with scripted_headend(broker) as he1, consuming(broker, inbox):
        database = inbox.database

        class Watching(list):
            def append(self, receipt) -> None:
                ((durable,),) = database.rows("SELECT through_seq FROM feed_cursor")
                seen.append((receipt[1], durable))
                super().append(receipt)

        he1.receipts = Watching()
        he1.append(200)
        await he1.send(1, 200, size=7)
        await eventually(lambda: he1.receipted == 200)
    assert seen
    assert all(receipted <= durable for receipted, durable in seen)


async def test_a_broker_that_dies_and_comes_back_costs_nothing(broker, inbox):
    async with consuming(broker, inbox) as consumer:
        for total in (20, 40, 60):
            async with scripted_headend(broker) as he1:
                he1.append(total)
                await he1.announce()
                await eventually(lambda he=he1, n=total: he.receipted == n)
                consumer.ready.clear()
                broker.kill()
            broker.start()
            async with asyncio.timeout(10):
                await consumer.ready.wait()
    assert len(inbox.values()) == 60


async def test_a_slow_database_does_not_hold_up_the_loop_or_lose_the_broker(broker, inbox):
    """More messages than every queue holds, while the writer is stuck: nothing deadlocks."""
    go_on = threading.Event()
    stuck = threading.Event()

    def on_begin(_connection) -> None:
        stuck.set()
        assert go_on.wait(20)

    async with scripted_headend(broker) as he1, consuming(broker, inbox) as consumer:
        he1.append(1000)
        he1.obeys = False
        sa_event.listen(inbox.store.engine, "begin", on_begin)
        sending = asyncio.create_task(he1.send(1, 1000, size=3))
        await eventually(stuck.is_set)
        ticks = 0
        for _ in range(20):
            await asyncio.sleep(0)
            ticks += 1
        go_on.set()
        await sending
        await eventually(lambda: he1.receipted == 1000)
        assert ticks == 20
        assert consumer.totals.resumes <= 1
    assert len(inbox.values()) == 1000


async def test_a_receipt_that_the_broker_refuses_is_no_reason_to_stop(tmp_path, inbox):
    users = {"he": "h", "billing": "b"}
    acl = {"he": ["readwrite meter/#"], "billing": ["read meter/#"]}
    with Mosquitto(tmp_path / "acl", users=users, acl=acl) as broker:
        spec = broker.spec("billing")
        consumer = BillingConsumer(
            broker=spec,
            store=inbox.store,
            name="billing",
            headends=("he1",),
            clock=FixedClock(),
            backoff=FAST,
        )
        running = asyncio.create_task(consumer.run())
        async with Pipe(broker.spec("he"), client_id="he") as pipe:
            feed = Topics("he1").feed("billing")
            await eventually(lambda: _published(pipe, feed, inbox))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await consumer.close()
    assert consumer.totals.receipts == 0


async def _published(pipe: Pipe, feed: str, inbox: Inbox) -> bool:
    await pipe.publish(feed, batch([read(1, "1")]))
    return bool(inbox.values())
