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
