"""Readings on demand over the feed: answered, or refused with a reason."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from feed_bench import FAST, HEADEND, Consumer, FakeJournal, make_publisher, running

from headend.domain.errors import NoAnswer
from headend.messages.pipe import Pipe
from headend.messages.requests import PointAnswer, decode_read_reply
from headend.messages.topics import Topics
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import eventually

TOPICS = Topics(HEADEND)
REPLY = TOPICS.replies + "desk-1"


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path / "mosquitto") as one:
        yield one


def ask(**more):
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    fields = {
        "id": "q1",
        "reply_to": REPLY,
        "meter": "M-0001",
        "points": ["active_import_total"],
        "deadline": deadline.isoformat(timespec="milliseconds"),
    }
    return json.dumps({**fields, **more}).encode()


def answer(point):
    return PointAnswer(
        point=point, value="12345.67", unit="kWh", time="2026-11-25T00:00:00Z", attempts=1
    )


async def read_now(meter, points, timeout_s):
    if meter == "M-0001":
        return [answer(point) for point in points]
    if meter == "M-DEAD":
        raise NoAnswer(
            "nothing came", bus="street-a", waited_ms=900, attempts=3, diagnosis="silence"
        )
    raise KeyError(meter)


async def replies_to(broker, publisher, *payloads):
    """What comes back on the reply topic, one answer a payload."""
    async with running(publisher), Pipe(broker.spec(), client_id="desk") as desk:
        await desk.subscribe(REPLY)
        await eventually(lambda: publisher.connected)
        for payload in payloads:
            await desk.publish(TOPICS.read_requests, payload)
        return [decode_read_reply((await anext(desk)).payload) for _ in payloads]


async def test_request_is_answered_with_what_was_read(broker):
    publisher = make_publisher(FakeJournal("billing"), broker.spec(), read_now=read_now)
    (reply,) = await replies_to(broker, publisher, ask(points=["active_import_total", "clock"]))
    assert reply.refused is None
    assert (reply.id, reply.headend, reply.meter) == ("q1", HEADEND, "M-0001")
    assert reply.results == [answer("active_import_total"), answer("clock")]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"meter": "M-NONE"}, "unknown"),
        ({"meter": "M-DEAD"}, "no_answer"),
        ({"points": ["clock"] * 65}, "too_many_points"),
        ({"deadline": "2020-01-01T00:00:00Z"}, "deadline"),
        ({"deadline": "2999-01-01T00:00:00Z"}, "deadline"),
        ({"deadline": "2999-02-30T00:00:00Z"}, "bad_deadline"),
    ],
)
async def test_request_that_cannot_be_met_is_refused_with_a_reason(broker, more, code):
    publisher = make_publisher(FakeJournal("billing"), broker.spec(), read_now=read_now)
    (reply,) = await replies_to(broker, publisher, ask(**more))
    assert reply.refused.code == code
    assert reply.refused.message
    assert reply.results == []


async def test_head_end_that_reads_nothing_on_demand_says_so(broker):
    publisher = make_publisher(FakeJournal("billing"), broker.spec())
    (reply,) = await replies_to(broker, publisher, ask())
    assert reply.refused.code == "not_offered"


async def test_request_that_outlives_its_deadline_is_refused(broker):
    async def slow(_meter, _points, _timeout_s):
        await asyncio.Event().wait()

    publisher = make_publisher(FakeJournal("billing"), broker.spec(), read_now=slow)
    soon = datetime.now(UTC) + timedelta(seconds=1.5)
    (reply,) = await replies_to(broker, publisher, ask(deadline=soon.isoformat()))
    assert reply.refused.code == "deadline"


async def test_more_requests_than_the_bound_are_refused_and_the_others_answered(broker):
    gate = asyncio.Event()
    taken = []

    async def slow(_meter, points, _timeout_s):
        taken.append(points)
        await gate.wait()
        return [answer(point) for point in points]

    publisher = make_publisher(FakeJournal("billing"), broker.spec(), read_now=slow)
    most = FAST.requests_max
    async with running(publisher), Pipe(broker.spec(), client_id="desk") as desk:
        await desk.subscribe(REPLY)
        await eventually(lambda: publisher.connected)
        for i in range(most + 5):
            await desk.publish(TOPICS.read_requests, ask(id=f"q{i}"))
        early = [decode_read_reply((await anext(desk)).payload) for _ in range(5)]
        assert len(taken) <= FAST.request_workers
        gate.set()
        late = [decode_read_reply((await anext(desk)).payload) for _ in range(most)]
    assert {r.refused.code for r in early} == {"busy"}
    assert all(r.refused is None for r in late)
    assert {r.id for r in early + late} == {f"q{i}" for i in range(most + 5)}


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"nonsense", "not_json"),
        (ask(id=None), "bad_record"),
        (ask(id="x" * 65), "bad_record"),
        (ask(id="a\nb"), "bad_record"),
        (ask(points=[]), "bad_record"),
        (ask(points="active_import_total"), "bad_record"),
        (ask(deadline=12), "bad_record"),
        (ask(schema="other/1"), "wrong_schema"),
        (ask(x="y" * 300_000), "too_large"),
        (ask(reply_to="meter/v1/he1/feed/billing"), "bad_reply_to"),
        (ask(reply_to="meter/v1/he2/replies/x"), "bad_reply_to"),
        (ask(reply_to="meter/v1/he1/replies/"), "bad_reply_to"),
        (ask(reply_to="meter/v1/he1/replies/#"), "bad_reply_to"),
        (ask(reply_to="meter/v1/he1/replies/a//b"), "bad_reply_to"),
        (ask(reply_to="meter/v1/he1/replies/a\x00b"), "bad_reply_to"),
        (ask(reply_to="$SYS/x"), "bad_reply_to"),
    ],
)
async def test_hostile_request_is_refused_and_the_next_good_one_answered(broker, payload, code):
    journal = FakeJournal("billing")
    consumer = Consumer(broker.spec())
    publisher = make_publisher(journal, broker.spec(), read_now=read_now)
    async with running(consumer, publisher), Pipe(broker.spec(), client_id="desk") as desk:
        await desk.subscribe("meter/v1/#")
        await eventually(lambda: publisher.connected)
        await desk.publish(TOPICS.read_requests, payload)
        await eventually(lambda: publisher.requests.refused)
        assert dict(publisher.requests.refused) == {code: 1}
        await desk.publish(TOPICS.read_requests, ask(id="good"))
        topics = []
        async for message in desk:
            topics.append(message.topic)
            if message.topic == REPLY:
                break
        journal.write(5)
        await eventually(lambda: journal.streams["billing"].receipted == 5)
    assert set(topics) <= {TOPICS.status, TOPICS.read_requests, REPLY}
