"""A consumer that shares no code with us: aiomqtt and plain JSON, over MQTT 3.1.1 and 5."""

import asyncio
import json

import aiomqtt
import pytest
from feed_bench import FakeJournal, make_publisher, running

from tests.support.mosquitto import Mosquitto
from tests.support.waiting import eventually

ROOT = "meter/v1/he1"


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path / "mosquitto") as one:
        yield one


async def consume(port, version, taken, subscribed):
    """What any billing system would write: keep, then say how far."""
    async with aiomqtt.Client("127.0.0.1", port, protocol=version) as client:
        await client.subscribe(f"{ROOT}/feed/billing", qos=1)
        subscribed.set()
        async for message in client.messages:
            batch = json.loads(message.payload)
            taken.extend(record["read_id"] for record in batch["records"])
            receipt = {
                "schema": "receipt/1",
                "epoch": batch["epoch"],
                "through_seq": batch["last_seq"],
            }
            await client.publish(f"{ROOT}/receipts/billing", json.dumps(receipt), qos=1)


@pytest.mark.parametrize("version", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5])
async def test_foreign_consumer_gets_every_record_and_its_receipts_move_the_cursor(broker, version):
    journal = FakeJournal("billing")
    journal.write(450)
    taken, subscribed = [], asyncio.Event()
    stream = journal.streams["billing"]
    consumer = asyncio.create_task(consume(broker.port, version, taken, subscribed))
    try:
        await asyncio.wait_for(subscribed.wait(), 10)
        async with running(make_publisher(journal, broker.spec())):
            await eventually(lambda: stream.receipted == len(stream.records))
    finally:
        consumer.cancel()
        await asyncio.gather(consumer, return_exceptions=True)
    assert sorted(set(taken)) == [f"{i:032x}" for i in range(1, 451)]
