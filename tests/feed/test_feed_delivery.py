"""Delivery over a real mosquitto: each record once, whatever breaks."""

import pytest
from feed_bench import Consumer, FakeJournal, make_publisher, running

from tests.support.mosquitto import Mosquitto
from tests.support.waiting import eventually


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path / "mosquitto") as one:
        yield one


def receipted(journal, name="billing"):
    stream = journal.streams[name]
    return stream.receipted == len(stream.records)


async def test_every_record_arrives_once_and_the_cursor_follows_the_receipts(broker):
    journal = FakeJournal("billing")
    journal.write(250)
    consumer = Consumer(broker.spec())
    publisher = make_publisher(journal, broker.spec())
    async with running(consumer):
        await consumer.online.wait()
        async with running(publisher):
            await eventually(lambda: receipted(journal), what="all receipted")
            journal.write(33)
            await eventually(lambda: receipted(journal), what="new ones receipted")
    assert consumer.ids() == [f"{i:032x}" for i in range(1, 284)]
    assert consumer.doubles == 0
    assert publisher.streams["billing"].counters.records == 283


async def test_broker_killed_and_restarted_mid_stream_loses_and_doubles_nothing(broker):
    journal = FakeJournal("billing")
    journal.write(100)
    consumer = Consumer(broker.spec())
    publisher = make_publisher(journal, broker.spec())
    async with running(consumer, publisher):
        for round_no in range(4):
            journal.write(150)
            enough = 60 + 170 * round_no
            await eventually(lambda n=enough: sum(consumer.through.values()) >= n)
            broker.kill()
            journal.write(20)
            await eventually(lambda: not publisher.connected and consumer.pipe is None)
            broker.start()
        await eventually(lambda: receipted(journal), timeout_s=30)
    assert consumer.ids() == [
        f"{i:032x}" for i in range(1, len(journal.streams["billing"].records) + 1)
    ]
    assert journal.epochs == []


async def test_two_consumers_have_streams_of_their_own(broker):
    journal = FakeJournal("billing", "archive")
    journal.write(45, "billing")
    journal.write(7, "archive")
    billing, archive = Consumer(broker.spec()), Consumer(broker.spec(), "archive")
    async with running(billing, archive, make_publisher(journal, broker.spec())):
        await eventually(lambda: receipted(journal) and receipted(journal, "archive"))
    assert len(billing.ids()) == 45
    assert len(archive.ids()) == 7


async def test_silent_consumer_is_sent_again_after_the_stated_time_one_batch_at_a_time(broker):
    journal = FakeJournal("billing")
    journal.write(200)
    consumer = Consumer(broker.spec())
    consumer.silent = True
    publisher = make_publisher(journal, broker.spec())
    async with running(consumer):
        await consumer.online.wait()
        async with running(publisher):
            firsts = lambda: [b.first_seq for b in consumer.batches]  # noqa: E731
            await eventually(lambda: firsts().count(1) >= 3)
            assert journal.receipts == []
            # First the whole window, then only the batch after the cursor, again and again.
            assert firsts()[:5] == [1, 21, 41, 61, 81]
            assert set(firsts()[5:]) == {1}
            consumer.silent = False
            await eventually(lambda: receipted(journal))
    assert len(consumer.ids()) == 200
    assert publisher.streams["billing"].counters.resends >= 2


async def test_window_bounds_what_is_out_beyond_the_receipt(broker):
    journal = FakeJournal("billing")
    journal.write(1000)
    consumer = Consumer(broker.spec())
    consumer.silent = True
    publisher = make_publisher(journal, broker.spec())
    async with running(consumer):
        await consumer.online.wait()
        async with running(publisher):
            await eventually(lambda: publisher.streams["billing"].counters.resends >= 1)
    assert max(b.last_seq for b in consumer.batches) == 100


async def test_new_records_after_a_long_quiet_are_not_taken_for_overdue(broker):
    journal = FakeJournal("billing")
    journal.write(1)
    consumer = Consumer(broker.spec())
    publisher = make_publisher(journal, broker.spec())
    async with running(consumer):
        await consumer.online.wait()
        async with running(publisher):
            await eventually(lambda: receipted(journal))
            stream = publisher.streams["billing"].at
            stream._waiting_since -= 3600
            journal.write(1)
            await eventually(lambda: receipted(journal))
    assert publisher.streams["billing"].counters.resends == 0
    assert consumer.doubles == 0


@pytest.mark.parametrize("from_seq", [1, 2, 57, 100, 101])
async def test_resume_sends_from_any_kept_point_and_leaves_the_cursor_alone(broker, from_seq):
    journal = FakeJournal("billing")
    journal.write(100)
    consumer = Consumer(broker.spec())
    publisher = make_publisher(journal, broker.spec())
    async with running(consumer, publisher):
        await eventually(lambda: receipted(journal))
        before = len(consumer.batches)
        await consumer.resume(journal.epoch, from_seq)
        await eventually(lambda: publisher.streams["billing"].counters.resumes)
        journal.write(1)
        await eventually(lambda: receipted(journal))
    again = consumer.batches[before:]
    assert again[0].first_seq == from_seq
    assert again[-1].last_seq == 101
    assert [seq for _, seq in journal.receipts] == sorted({seq for _, seq in journal.receipts})
    assert len(consumer.ids()) == 101


async def test_resume_below_the_oldest_kept_is_refused_with_the_oldest(broker):
    journal = FakeJournal("billing")
    journal.write(100)
    journal.streams["billing"].receipted = 60
    journal.streams["billing"].oldest = 50
    consumer = Consumer(broker.spec())
    consumer.through = {journal.epoch: 60}
    async with running(consumer, make_publisher(journal, broker.spec())):
        await eventually(lambda: receipted(journal))
        await consumer.resume(journal.epoch, 49)
        await eventually(lambda: consumer.refused)
        await consumer.resume(journal.epoch, 50)
        await eventually(lambda: consumer.doubles == 51)
    (refusal,) = consumer.refused
    assert (refusal.from_seq, refusal.oldest_seq) == (49, 50)
    assert refusal.epoch == journal.epoch


async def test_what_retention_dropped_goes_as_one_expired_record(broker):
    journal = FakeJournal("billing")
    journal.write(100)
    journal.streams["billing"].oldest = 71
    consumer = Consumer(broker.spec())
    async with running(consumer, make_publisher(journal, broker.spec())):
        await eventually(lambda: receipted(journal))
    kept = consumer.kept[journal.epoch]
    assert (kept[0].first_seq, kept[0].last_seq) == (1, 70)
    assert [r.seq for r in kept[1:]] == list(range(71, 101))


async def test_cursor_set_back_by_hand_replays_from_there(broker):
    journal = FakeJournal("billing")
    journal.write(100)
    consumer = Consumer(broker.spec())
    publisher = make_publisher(journal, broker.spec())
    async with running(consumer, publisher):
        await eventually(lambda: receipted(journal))
        await publisher.replay("billing", 41)
        await eventually(lambda: receipted(journal))
    assert consumer.doubles == 60
    assert len(consumer.ids()) == 100


async def test_consumer_that_died_before_its_receipt_gets_the_rest_once(broker):
    journal = FakeJournal("billing")
    journal.write(60)
    first = Consumer(broker.spec())
    publisher = make_publisher(journal, broker.spec())
    async with running(publisher):
        async with running(first):
            await eventually(lambda: sum(first.through.values()) >= 20)
        second = Consumer(broker.spec())
        second.through, second.kept = first.through, first.kept
        async with running(second):
            journal.write(40)
            await eventually(lambda: receipted(journal))
    assert second.ids() == [f"{i:032x}" for i in range(1, 101)]


async def test_receipts_lost_with_the_daemon_are_asked_for_again(broker):
    """Everything is durable at the consumer, the cursor never heard of it, nothing new comes."""
    journal = FakeJournal("billing")
    journal.write(30)
    consumer = Consumer(broker.spec())
    async with running(consumer):
        await consumer.online.wait()
        async with running(make_publisher(journal, broker.spec())):
            await eventually(lambda: receipted(journal))
        journal.streams["billing"].receipted = 10
        async with running(make_publisher(journal, broker.spec())) as _:
            await eventually(lambda: consumer.doubles)
            await eventually(lambda: receipted(journal))
    assert len(consumer.ids()) == 30
