"""The example broker in config/mosquitto: everybody says and hears what they may, nothing else.

What may be is written down here once more, by hand: the list of the example is not its own judge.
"""

import asyncio
import stat
from contextlib import suppress
from dataclasses import replace

import aiomqtt
import pytest
from access_bench import billing, delivered, head_end
from example_broker import EXAMPLE, ExampleBroker, passwords_are_hashed

from headend.messages.broker import MqttVersion
from headend.messages.pipe import ConnectRefused, Pipe, PipeLost, PublishRefused, Will
from tests.support.waiting import eventually

USERS = ("he1", "he2", "billing", "charts", "desk", "dashboard", "stranger")
BELOW_A_HEADEND = (
    "feed/billing",
    "feed/charts",
    "feed/stranger",
    "status",
    "receipts/billing",
    "receipts/charts",
    "receipts/stranger",
    "requests/read",
    "requests/write",
    "replies/desk/1",
    "replies/other/1",
    "live/M-0001",
)
TOPICS = (
    *(f"meter/v1/he{n}/{rest}" for n in (1, 2, 3) for rest in BELOW_A_HEADEND),
    *(f"meter/v1/{user}/status" for user in USERS if not user.startswith("he")),
    "meter/v1/he1",
    "meter/v2/he1/status",
    "bill/v1/billing/feed/ledger",
    "something",
)


def of_headend(name):
    return {
        f"meter/v1/{name}/{rest}"
        for rest in ("feed/billing", "feed/charts", "feed/stranger", "status", "live/M-0001")
    } | {f"meter/v1/{name}/replies/desk/1", f"meter/v1/{name}/replies/other/1"}


MAY_SAY = {
    "he1": of_headend("he1"),
    "he2": of_headend("he2"),
    "billing": {"meter/v1/he1/receipts/billing", "meter/v1/he2/receipts/billing"},
    "charts": {"meter/v1/he1/receipts/charts"},
    "desk": {"meter/v1/he1/requests/read"},
    "dashboard": set(),
    "stranger": set(),
}


def heard_by_headend(name):
    receipts = {f"receipts/{consumer}" for consumer in ("billing", "charts", "stranger")}
    return {f"meter/v1/{name}/{rest}" for rest in receipts | {"requests/read", "status"}}


MAY_HEAR = {
    "he1": heard_by_headend("he1"),
    "he2": heard_by_headend("he2"),
    "billing": {f"meter/v1/he{n}/{rest}" for n in (1, 2) for rest in ("feed/billing", "status")},
    "charts": {"meter/v1/he1/feed/charts", "meter/v1/he1/status"},
    "desk": {"meter/v1/he1/replies/desk/1", "meter/v1/he1/status"},
    "dashboard": {t for t in TOPICS if t.startswith("meter/v1/") and "/status" in t}
    | {f"meter/v1/he{n}/live/M-0001" for n in (1, 2, 3)},
    "stranger": set(),
}
WIDE = ("#", "meter/#", "meter/v1/+/feed/+", "meter/v1/+/receipts/+", "meter/v1/he1/#", "+/+/+/#")
END = "meter/v1/he2/status"


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    with ExampleBroker(folder, (*USERS, "sees", "says")) as one:
        yield one


def by_password(broker, user, **more):
    return broker.spec(user, **more)


def by_certificate(broker, user, **more):
    return broker.certificate(user)


WAYS = {"password": by_password, "certificate": by_certificate}


async def heard_until(pipe, topic, payload):
    """Topics and payloads up to the one that ends it."""
    found = []
    async for message in pipe:
        found.append((message.topic, message.payload))
        if found[-1] == (topic, payload):
            return found[:-1]
    raise AssertionError("the end never came")


async def everything_sent_to(pipe):
    """Topics and payloads of what the broker has for us, until it has no more.

    What was sent to us stands before the answer to a subscription in the same connection; taking
    makes room for what waits behind it.
    """
    heard = set()
    while True:
        await pipe.subscribe("something/else")
        if not len(pipe._incoming):
            return heard
        while len(pipe._incoming):
            message = await anext(pipe)
            heard.add((message.topic, message.payload))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("user", USERS)
async def test_everybody_publishes_what_they_may_and_nothing_else(broker, user, way):
    """What may not be is refused with its reason (MQTT 5), and nobody gets it."""
    spec = WAYS[way](broker, user)
    refused = {}
    async with Pipe(broker.spec("sees"), client_id="sees") as sees:
        await sees.subscribe("#")
        for topic in TOPICS:
            async with Pipe(spec, client_id="x") as pipe:
                assert pipe.version is MqttVersion.V5
                try:
                    await pipe.publish(topic, f"{user} {topic}".encode())
                except PublishRefused as error:
                    refused[topic] = error.reason
        async with Pipe(broker.spec("says"), client_id="says") as says:
            await says.publish(END, b"the end")
        arrived = await heard_until(sees, END, b"the end")
    assert refused == dict.fromkeys(set(TOPICS) - MAY_SAY[user], "Not authorized")
    assert {topic for topic, payload in arrived} == MAY_SAY[user]
    assert all(payload == f"{user} {topic}".encode() for topic, payload in arrived)


@pytest.mark.parametrize("user", USERS)
async def test_a_refusal_that_mqtt_3_1_1_does_not_tell_delivers_nothing_either(broker, user):
    """The broker takes the message, says nothing and lets it fall."""
    spec = broker.spec(user, version=MqttVersion.V311)
    async with Pipe(broker.spec("sees"), client_id="sees") as sees:
        await sees.subscribe("#")
        for topic in sorted(set(TOPICS) - MAY_SAY[user]):
            async with Pipe(spec, client_id="x") as pipe:
                await pipe.publish(topic, b"forbidden")
        async with Pipe(broker.spec("says"), client_id="says") as says:
            await says.publish(END, b"the end")
        assert await heard_until(sees, END, b"the end") == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("user", USERS)
async def test_everybody_hears_what_they_may_and_nothing_else(broker, user, way, monkeypatch):
    """Whatever they subscribe to: names, wildcards, shared subscriptions; retained ones too."""
    monkeypatch.setattr("headend.messages.pipe.check_filter", lambda text: text)
    shared = [f"$share/group/{topic}" for topic in ("meter/v1/he1/feed/billing", "#")]
    async with (
        Pipe(broker.spec("says"), client_id="says") as says,
        Pipe(WAYS[way](broker, user), client_id="x") as pipe,
    ):
        for topic in TOPICS:
            await says.publish(topic, b"kept", retain=True)
        for topic in (*TOPICS, *WIDE, *shared, "$SYS/#"):
            await pipe.subscribe(topic)
        for topic in TOPICS:
            await says.publish(topic, b"now")
        heard = await everything_sent_to(pipe)
        for topic in TOPICS:
            await says.publish(topic, b"", retain=True)
    assert {topic for topic, payload in heard if payload == b"now"} == MAY_HEAR[user]
    assert {topic for topic, payload in heard if payload == b"kept"} == MAY_HEAR[user]


@pytest.mark.parametrize("user", [u for u in USERS if u != "he1"])
async def test_nobody_leaves_a_last_will_in_the_name_of_a_head_end(broker, user):
    topic = "meter/v1/he1/status"
    async with Pipe(broker.spec("sees"), client_id="sees") as sees:
        await sees.subscribe("meter/#")
        dying = Pipe(broker.spec(user), client_id="x", will=Will(topic, b"he1 is dead"))
        with suppress(ConnectRefused):
            await dying.__aenter__()
        dying._drop("killed")
        async with Pipe(broker.spec("says"), client_id="says") as says:
            await says.publish(END, b"the end")
        assert await heard_until(sees, END, b"the end") == []


async def test_nobody_throws_out_a_head_end_by_taking_its_client_id(broker):
    async with Pipe(broker.certificate("he1"), client_id="headend-he1") as he1:
        async with Pipe(broker.certificate("dashboard"), client_id="headend-he1") as other:
            await other.subscribe("meter/v1/he1/status")
        await he1.publish("meter/v1/he1/status", b"still here")
        assert he1.connected


@pytest.mark.parametrize("way", ["no user", "wrong password", "unknown user", "no certificate"])
async def test_whoever_has_no_name_is_not_let_in(broker, tmp_path, way):
    spec = {
        "no user": broker.spec,
        "wrong password": lambda: _wrong(broker, tmp_path, "he1"),
        "unknown user": lambda: _wrong(broker, tmp_path, "nobody"),
        "no certificate": lambda: _without_certificate(broker),
    }[way]()
    with pytest.raises(PipeLost) as caught:
        async with Pipe(spec, client_id="x"):
            pass
    assert caught.value.code == ("own_missing" if way == "no certificate" else "login_refused")


def _wrong(broker, folder, user):
    path = folder / "password"
    path.write_text("not it\n")
    path.chmod(0o600)
    return replace(broker.spec(), username=user, password_file=path)


def _without_certificate(broker):
    spec = broker.certificate("he1")
    return replace(spec, tls=replace(spec.tls, cert_file=None, key_file=None))


async def test_a_message_above_the_feeds_limit_is_not_carried(broker):
    async with Pipe(broker.certificate("he1"), client_id="x") as pipe:
        await pipe.publish("meter/v1/he1/feed/billing", bytes(256 * 1024))
        with pytest.raises((PublishRefused, PipeLost)):
            await pipe.publish("meter/v1/he1/feed/billing", bytes(256 * 1024 + 1))


async def test_both_ends_work_through_the_example_as_it_stands(tmp_path, broker):
    """Two head-ends, one by certificate and one by password; billing takes both."""
    async with (
        head_end(tmp_path, broker.certificate("he1")) as he1,
        head_end(tmp_path, broker.spec("he2"), name="he2") as he2,
        billing(tmp_path, broker.certificate("billing"), headends=("he1", "he2")) as bill,
    ):
        await he1.write(30)
        await he2.write(30)
        await delivered(he1, bill, 30)
        await eventually(he2.is_receipted)
        assert await he1.has_events()
        assert await he2.has_events()
        assert bill.alarms() == {}


async def test_a_third_party_client_asks_for_a_reading_and_gets_the_answer(tmp_path, broker):
    async with head_end(tmp_path, broker.certificate("he1")) as he1:
        await eventually(lambda: he1.publisher.connected)
        async with aiomqtt.Client(
            "localhost", broker.port, username="desk", password=broker.users["desk"]
        ) as desk:
            await desk.subscribe("meter/v1/he1/replies/desk/#", qos=1)
            request = (
                b'{"id":"1","reply_to":"meter/v1/he1/replies/desk/1","meter":"M-0001",'
                b'"points":["active_import_total"],"deadline":"2099-01-01T00:00:00Z"}'
            )
            await desk.publish("meter/v1/he1/requests/read", request, qos=1)
            async with asyncio.timeout(10):
                answer = await anext(aiter(desk.messages))
    assert b'"not_offered"' in answer.payload


def test_the_example_holds_no_secret_and_is_complete():
    assert {path.name for path in EXAMPLE.iterdir()} == {"README.md", "acl", "mosquitto.conf"}
    text = (EXAMPLE / "mosquitto.conf").read_text()
    # Every listener names its own access list: with per_listener_settings nothing is inherited.
    listeners = text.split("\nlistener ")[1:]
    assert len(listeners) == 2
    for listener in listeners:
        assert "acl_file " in listener
        assert "allow_anonymous false" in listener
    assert "autosave_on_changes true" in text
    assert "autosave_interval 1" in text


def test_the_passwords_of_the_broker_are_not_kept_in_the_clear(broker):
    path = broker.folder / "passwords"
    assert passwords_are_hashed(path)
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 in (0, 0o004)
