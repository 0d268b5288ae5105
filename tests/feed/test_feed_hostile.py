"""Refusals by the broker, journals that were set back, and messages that nobody should believe."""

import io
import json
import uuid
from dataclasses import replace

import pytest
from feed_bench import FAST, HEADEND, Consumer, FakeJournal, make_publisher, running

from headend.logs import logging_to
from headend.messages.pipe import Pipe
from headend.messages.records import Receipt, Resume, decode_status, encode
from headend.messages.topics import Topics
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import eventually

TOPICS = Topics(HEADEND)


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path / "mosquitto") as one:
        yield one


def receipted(journal, name="billing"):
    stream = journal.streams[name]
    return stream.receipted == len(stream.records)


async def test_batch_the_broker_refuses_is_noticed_kept_and_delivered_when_allowed(tmp_path):
    users = {"he": "one", "bill": "two"}
    acl = {
        "he": [
            "readwrite meter/v1/he1/status",
            "read meter/v1/he1/receipts/+",
            "read meter/v1/he1/requests/read",
        ],
        "bill": ["read meter/v1/he1/feed/billing", "write meter/v1/he1/receipts/billing"],
    }
    broker = Mosquitto(tmp_path / "mosquitto", users=users, acl=acl)
    broker.start()
    try:
        journal = FakeJournal("billing")
        journal.write(30)
        consumer = Consumer(broker.spec("bill"))
        publisher = make_publisher(journal, broker.spec("he"))
        async with running(consumer, publisher):
            counters = publisher.streams["billing"].counters
            await eventually(lambda: counters.refused_by_broker >= 2)
            await eventually(lambda: journal.alarms() == ["publish_refused"])
            assert journal.receipts == []
            assert consumer.batches == []
            broker.stop()
            acl["he"].append("write meter/v1/he1/feed/billing")
            broker.start()
            await eventually(lambda: receipted(journal))
            await eventually(lambda: [e.kind for e in journal.events] == ["alarm", "alarm_cleared"])
    finally:
        broker.stop()
    assert len(consumer.ids()) == 30
    assert journal.events[0].fields == {
        "alarm": "publish_refused",
        "topic": "meter/v1/he1/feed/billing",
        "consumer": "billing",
        "reason": "Not authorized",
    }


async def test_status_is_retained_follows_the_streams_and_ends_offline(broker):
    journal = FakeJournal("billing")
    journal.write(5)
    consumer = Consumer(broker.spec())
    publisher = make_publisher(journal, broker.spec())
    states = []
    async with running(consumer, publisher):
        await eventually(lambda: receipted(journal))
        async with Pipe(broker.spec(), client_id="watch") as watch:
            await watch.subscribe(TOPICS.status)

            async def settled():
                states.append(decode_status((await anext(watch)).payload))
                return states[-1].consumers["billing"].backlog == 0

            await eventually(settled)
    last = states[-1]
    assert last.online
    assert (last.version, last.configuration, last.epoch) == ("0.1.0", "c0ffee", journal.epoch)
    assert (last.consumers["billing"].last_seq, last.consumers["billing"].oldest_seq) == (5, 1)
    async with Pipe(broker.spec(), client_id="watch") as watch:
        await watch.subscribe(TOPICS.status)
        kept = await anext(watch)
    assert kept.retain
    assert not decode_status(kept.payload).online


async def test_will_says_offline_when_the_head_end_dies(broker):
    journal = FakeJournal("billing")
    publisher = make_publisher(journal, broker.spec())
    async with Pipe(broker.spec(), client_id="watch") as watch:
        await watch.subscribe(TOPICS.status)
        pipe = publisher._make_pipe()
        await pipe.__aenter__()
        pipe._drop("killed")
        status = decode_status((await anext(watch)).payload)
    assert not status.online
    assert status.epoch == journal.epoch


async def set_back_by_status(broker, journal, consumer):
    async with Pipe(broker.spec(), client_id="earlier") as pipe:
        publisher = make_publisher(FakeJournal("billing"), broker.spec())
        status = publisher.status(online=False)
        status.epoch = journal.epoch
        status.consumers["billing"].last_seq = 41
        await pipe.publish(TOPICS.status, encode(status), retain=True)


async def set_back_by_receipt(broker, journal, consumer):
    await eventually(lambda: receipted(journal))
    await consumer.say(Receipt(epoch=journal.epoch, through_seq=41))


async def set_back_by_resume(broker, journal, consumer):
    await eventually(lambda: receipted(journal))
    await consumer.resume(journal.epoch, 42)


@pytest.mark.parametrize("evidence", [set_back_by_status, set_back_by_receipt, set_back_by_resume])
async def test_journal_that_was_set_back_begins_a_new_epoch_with_an_alarm(broker, evidence):
    journal = FakeJournal("billing")
    journal.write(40)
    old_epoch = journal.epoch
    consumer = Consumer(broker.spec())
    publisher = make_publisher(journal, broker.spec())
    async with running(consumer):
        await consumer.online.wait()
        if evidence is set_back_by_status:
            await evidence(broker, journal, consumer)
        async with running(publisher):
            if evidence is not set_back_by_status:
                await evidence(broker, journal, consumer)
            await eventually(lambda: journal.epochs)
            await eventually(lambda: journal.alarms() == ["new_epoch"])
            journal.write(3)
            await eventually(lambda: receipted(journal))
            async with Pipe(broker.spec(), client_id="watch") as watch:
                await watch.subscribe(TOPICS.status)
                await eventually(lambda: is_epoch(watch, journal.epoch))
    assert journal.epoch != old_epoch
    assert len(journal.epochs) == 1
    assert "41" in journal.epochs[0] or "42" in journal.epochs[0]
    expected = 43 if evidence is set_back_by_status else 40 + 3
    assert len(consumer.ids()) == expected


async def is_epoch(watch, epoch):
    return decode_status((await anext(watch)).payload).epoch == epoch


async def test_retained_status_of_this_very_journal_is_no_set_back(broker):
    journal = FakeJournal("billing")
    journal.write(40)
    consumer = Consumer(broker.spec())
    async with running(consumer):
        for _ in range(3):
            async with running(make_publisher(journal, broker.spec())):
                await eventually(lambda: receipted(journal))
                journal.write(10)
    assert journal.epochs == []


GOOD_EPOCH = "@"  # stands for the journal's epoch
FOREIGN = str(uuid.UUID(int=7))


def receipt(epoch, through):
    return {"schema": "receipt/1", "epoch": epoch, "through_seq": through}


HOSTILE = {
    "not_json": ("receipts/billing", b"\x00\xff{{{", "not_json"),
    "not_utf8": ("receipts/billing", b'{"schema":"receipt/1","epoch":"\xff"}', "not_json"),
    "other_schema": ("receipts/billing", {"schema": "feed/1"}, "wrong_schema"),
    "no_schema": ("receipts/billing", {"epoch": GOOD_EPOCH, "through_seq": 1}, "wrong_schema"),
    "list": ("receipts/billing", [1, 2, 3], "wrong_schema"),
    "huge": ("receipts/billing", b'{"x":"' + b"a" * 300 * 1024 + b'"}', "too_large"),
    "negative": ("receipts/billing", receipt(GOOD_EPOCH, -1), "bad_record"),
    "zero": ("receipts/billing", receipt(GOOD_EPOCH, 0), "bad_record"),
    "float": ("receipts/billing", receipt(GOOD_EPOCH, 20.5), "bad_record"),
    "text": ("receipts/billing", receipt(GOOD_EPOCH, "20"), "bad_record"),
    "astronomic": ("receipts/billing", receipt(GOOD_EPOCH, 10**40), "bad_record"),
    "nan": ("receipts/billing", b'{"schema":"receipt/1","through_seq":NaN}', "not_json"),
    "bad_epoch": ("receipts/billing", receipt("../../etc", 20), "bad_record"),
    "foreign_epoch": ("receipts/billing", receipt(FOREIGN, 20), "foreign_epoch"),
    "foreign_resume": (
        "receipts/billing",
        {"schema": "resume/1", "epoch": FOREIGN, "from_seq": 1},
        "foreign_epoch",
    ),
    "unknown_consumer": ("receipts/mallory", receipt(GOOD_EPOCH, 20), "unknown_consumer"),
    "odd_consumer": ("receipts/b\u00ecll\u202eing", receipt(GOOD_EPOCH, 20), "unknown_consumer"),
    "within_a_batch": ("receipts/billing", receipt(GOOD_EPOCH, 33), "not_sent"),
    "others_topic": ("receipts/archive", receipt(GOOD_EPOCH, 39), "not_sent"),
    "nested": ("receipts/billing", b"[" * 100_000, "wrong_schema"),
    "nested_field": (
        "receipts/billing",
        b'{"schema":"receipt/1","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "bad_record",
    ),
    "empty": ("receipts/billing", b"", "not_json"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_receipt_is_refused_logged_and_harms_nothing(broker, name, caplog):
    topic, body, code = HOSTILE[name]
    journal = FakeJournal("billing", "archive")
    journal.write(40, "billing")
    journal.write(41, "archive")
    consumer = Consumer(broker.spec())
    consumer.silent = True
    settings = replace(FAST, receipt_timeout_s=30.0)
    publisher = make_publisher(journal, broker.spec(), settings)
    async with running(consumer):
        await consumer.online.wait()
        async with running(publisher):
            await eventually(lambda: len(consumer.batches) == 2)
            async with Pipe(broker.spec(), client_id="mallory") as mallory:
                await mallory.publish(f"{TOPICS.root}/{topic}", payload_of(body, journal.epoch))
                await eventually(lambda: publisher.inward.refused)
            assert dict(publisher.inward.refused) == {code: 1}
            assert journal.receipts == []
            assert journal.epochs == []
            # ... and good messages still work.
            consumer.silent = False
            for batch in consumer.batches[:2]:
                consumer.kept.setdefault(batch.epoch, []).extend(batch.records)
                consumer.through[batch.epoch] = batch.last_seq
                await consumer.say(Receipt(epoch=batch.epoch, through_seq=batch.last_seq))
            journal.write(20, "billing")
            await eventually(lambda: receipted(journal))
    assert len(consumer.ids()) == 60
    lines = [r.getMessage() for r in caplog.records if r.name == "headend.feed.inward"]
    assert len(lines) == 1
    assert f"code={code}" in lines[0]
    assert lines[0].isprintable()
    assert len(lines[0]) < 400


def payload_of(body, epoch):
    return body if isinstance(body, bytes) else json.dumps(body).replace(GOOD_EPOCH, epoch).encode()


async def test_flood_of_bad_receipts_is_counted_and_logged_once(broker):
    log = io.StringIO()
    with logging_to(log, environment={}):
        await flood_of_bad_receipts(broker)
    lines = [line for line in log.getvalue().splitlines() if "headend.feed.inward" in line]
    assert len(lines) == 2
    assert "repeated 499 times" in lines[1]


async def flood_of_bad_receipts(broker):
    journal = FakeJournal("billing")
    journal.write(40)
    consumer = Consumer(broker.spec())
    publisher = make_publisher(journal, broker.spec())
    async with running(consumer, publisher):
        await eventually(lambda: receipted(journal))
        async with Pipe(broker.spec(), client_id="mallory") as mallory:
            for _ in range(500):
                await mallory.send(TOPICS.receipts("billing"), b"junk")
            await eventually(lambda: publisher.inward.refused["not_json"] == 500)
        journal.write(40)
        await eventually(lambda: receipted(journal))


async def test_storm_of_resumes_is_followed_at_a_bounded_rate(broker):
    journal = FakeJournal("billing")
    journal.write(100)
    consumer = Consumer(broker.spec())
    settings = replace(FAST, resume_gap_s=0.2)
    publisher = make_publisher(journal, broker.spec(), settings)
    async with running(consumer, publisher):
        await eventually(lambda: receipted(journal))
        counters = publisher.streams["billing"].counters
        before = counters.batches
        async with Pipe(broker.spec(), client_id="mallory") as mallory:
            storm = encode(Resume(epoch=journal.epoch, from_seq=1))
            for _ in range(300):
                await mallory.send(TOPICS.receipts("billing"), storm)
            await eventually(lambda: counters.resumes == 300)
        await eventually(lambda: consumer.doubles >= 100)
        assert counters.batches - before <= 5 * 10
        journal.write(5)
        await eventually(lambda: receipted(journal))
    assert len(consumer.ids()) == 105
