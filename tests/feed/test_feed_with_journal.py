"""The feed over the real journal: what was born arrives, with the ids both ends compute."""

import shutil
from decimal import Decimal

import pytest
from feed_bench import HEADEND, Consumer, make_publisher, running

from headend.domain.clock import SystemClock
from headend.domain.exchange import Exchange, Outcome
from headend.domain.meter import Event
from headend.domain.reading import Reading
from headend.feed.embedded_broker import embedded_broker
from headend.journal.journal import Journal
from headend.journal.model import Birth, ConsumerSpec, JournalSettings
from headend.messages.broker import BrokerSpec, MqttVersion
from headend.messages.ids import identify
from headend.messages.records import EventRecord, FreezeRecord, ReadRecord
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.waiting import eventually

T0_MS = 1_795_564_800_000
CONSUMERS = [ConsumerSpec("billing", frozenset({"billing", "events"}))]
SETTINGS = JournalSettings(free_bytes=lambda: 1 << 40)


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path / "mosquitto") as one:
        yield one


def open_journal(path):
    return Journal.open(
        path, clock=SystemClock(), software="0.1.0", consumers=CONSUMERS, settings=SETTINGS
    )


def exchange():
    return Exchange(
        bus="street-a",
        device="M-0001",
        request=bytes.fromhex("FEFEFEFE68010000000000681104333334333316"),
        reply=bytes.fromhex("680100000000006891083333343300000000B716"),
        sent_ms=T0_MS,
        received_ms=T0_MS + 300,
        took_ms=300.0,
        attempt=1,
        outcome=Outcome.REPLY,
    )


def birth(number, *points):
    one = exchange()
    return Birth(
        tuple(
            Reading(
                meter="M-0001",
                service_point="SP-1",
                point=point,
                value=Decimal(number) / 100,
                unit="kWh",
                time_ms=T0_MS + number * 900_000,
                received_ms=T0_MS + number * 900_000 + 300,
                exchange=one,
            )
            for point in points
        )
    )


async def write(journal, first, count):
    ids = []
    for number in range(first, first + count):
        points = ("active_import_total",)
        if number % 3 == 0:
            points += ("active_export_total",)
        ids += [a.read_id for a in await journal.append(birth(number, *points))]
    return ids


def arrived(consumer):
    return [
        one.read_id
        for records in consumer.kept.values()
        for record in records
        if isinstance(record, ReadRecord | FreezeRecord)
        for one in identify(record)
    ]


def settled(journal):
    return all(c.backlog == 0 and c.last_seq > 0 for c in journal.cursors().values())


async def test_what_the_journal_bore_arrives_once_with_its_ids_and_its_bytes(broker, tmp_path):
    consumer = Consumer(broker.spec())
    async with await open_journal(tmp_path / "journal.db") as journal:
        born = await write(journal, 0, 60)
        await journal.append_event(Event("rollover", T0_MS, {"meter": "M-0001"}))
        async with running(consumer, make_publisher(journal, broker.spec())):
            await eventually(lambda: settled(journal))
            born += await write(journal, 60, 30)
            await eventually(lambda: settled(journal))
    assert arrived(consumer) == born
    (event,) = [r for r in consumer.kept[journal.epoch] if isinstance(r, EventRecord)]
    assert (event.event, event.fields) == ("rollover", {"meter": "M-0001"})
    evidence = {e.ref: e for b in consumer.batches for e in b.exchanges}
    for records in consumer.kept.values():
        for record in records:
            if isinstance(record, ReadRecord | FreezeRecord):
                assert evidence[record.evidence].reply == exchange().reply.hex().upper()


async def test_restored_copy_of_the_journal_begins_a_new_epoch_and_nothing_is_lost(
    broker, tmp_path
):
    path = tmp_path / "journal.db"
    consumer = Consumer(broker.spec())
    async with running(consumer):
        await consumer.online.wait()
        async with await open_journal(path) as journal:
            born = await write(journal, 0, 20)
            async with running(make_publisher(journal, broker.spec())):
                await eventually(lambda: settled(journal))
        shutil.copy(path, tmp_path / "yesterday.db")
        async with await open_journal(path) as journal:
            lost = await write(journal, 20, 20)
            async with running(make_publisher(journal, broker.spec())):
                await eventually(lambda: settled(journal))
            first_epoch = journal.epoch
        shutil.copy(tmp_path / "yesterday.db", path)
        async with await open_journal(path) as journal:
            assert journal.epoch == first_epoch
            async with running(make_publisher(journal, broker.spec())):
                await eventually(lambda: journal.epoch != first_epoch)
                later = await write(journal, 40, 20)
                await eventually(lambda: settled(journal))
            second_epoch = journal.epoch
    assert arrived(consumer) == born + lost + later
    alarms = [r for r in consumer.kept[second_epoch] if isinstance(r, EventRecord)]
    assert [a.fields["alarm"] for a in alarms] == ["new_epoch"]


async def test_embedded_broker_carries_the_feed_through_its_own_restart(tmp_path):
    port = free_port()
    spec = BrokerSpec("127.0.0.1", port, version=MqttVersion.V311)
    consumer = Consumer(spec)
    async with await open_journal(tmp_path / "journal.db") as journal:
        publisher = make_publisher(journal, spec)
        async with running(consumer, publisher):
            async with embedded_broker("127.0.0.1", port):
                born = await write(journal, 0, 30)
                await eventually(lambda: settled(journal))
            await eventually(lambda: not publisher.connected)
            born += await write(journal, 30, 30)
            async with embedded_broker("127.0.0.1", port):
                await eventually(lambda: settled(journal))
    assert arrived(consumer) == born
    assert publisher.topics.headend == HEADEND
