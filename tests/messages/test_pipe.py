"""The pipe: PUBACKs with their reasons, loss noticed at once, nothing kept behind our back."""

import asyncio
import logging
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from headend.domain.clock import SystemClock
from headend.domain.errors import ConfigError, FeedError
from headend.feed.embedded_broker import embedded_broker
from headend.messages.broker import BrokerSpec, MqttVersion, TlsSpec
from headend.messages.connection import Backoff, keep_connected
from headend.messages.pipe import ConnectRefused, Pipe, PipeLost, PublishRefused, Will
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.waiting import eventually

VERSIONS = [MqttVersion.V5, MqttVersion.V311]


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path / "mosquitto") as one:
        yield one


@pytest.fixture
def guarded(tmp_path):
    with Mosquitto(
        tmp_path / "mosquitto",
        users={"he": "s3cret", "other": "pw"},
        acl={"he": ["readwrite allowed/#"], "other": ["readwrite #"]},
    ) as one:
        yield one


async def take(pipe, count):
    return [await anext(pipe) for _ in range(count)]


@pytest.mark.parametrize("version", VERSIONS)
async def test_messages_arrive_in_order_and_whole(broker, version):
    big = bytes(range(256)) * 1000
    async with (
        Pipe(broker.spec(version=version), client_id="a") as sender,
        Pipe(broker.spec(version=version), client_id="b") as receiver,
    ):
        assert sender.version is version
        await receiver.subscribe("t/#")
        await sender.publish("t/big", big)
        for i in range(150):
            await sender.send(f"t/{i}", str(i).encode())
        got = await take(receiver, 151)
    assert got[0].payload == big
    assert [m.payload for m in got[1:]] == [str(i).encode() for i in range(150)]


async def test_nobody_listening_is_no_refusal(broker):
    async with Pipe(broker.spec(), client_id="a") as pipe:
        await pipe.publish("nobody/listens", b"x")


async def test_puback_that_refuses_is_raised_with_its_reason(guarded):
    async with Pipe(guarded.spec("he"), client_id="a") as pipe:
        await pipe.publish("allowed/x", b"1")
        with pytest.raises(PublishRefused, match="forbidden/x") as refused:
            await pipe.publish("forbidden/x", b"1")
    assert refused.value.reason == "Not authorized"


async def test_wrong_password_is_refused_and_never_shown(guarded, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    (tmp_path / "wrong").write_text("wr0ng-secret\n")
    (tmp_path / "wrong").chmod(0o600)
    spec = BrokerSpec("127.0.0.1", guarded.port, username="he", password_file=tmp_path / "wrong")
    with pytest.raises(ConnectRefused) as refused:
        async with Pipe(spec, client_id="a"):
            pass
    assert refused.value.reason == "Not authorized"
    assert "wr0ng-secret" not in caplog.text + str(refused.value) + repr(spec)


async def test_missing_password_file_says_so(guarded, tmp_path):
    spec = BrokerSpec("127.0.0.1", guarded.port, username="he", password_file=tmp_path / "none")
    with pytest.raises(PipeLost, match="none"):
        async with Pipe(spec, client_id="a"):
            pass


async def test_no_broker_is_pipe_lost():
    with pytest.raises(PipeLost, match="cannot be reached"):
        async with Pipe(BrokerSpec("127.0.0.1", free_port()), client_id="a"):
            pass


@asynccontextmanager
async def tcp_server(talk):
    """A server on a free port; every conversation has ended when the block has."""
    talks = []

    async def serve(reader, writer):
        talks.append(asyncio.current_task())
        try:
            await talk(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*talks)


async def test_broker_that_never_answers_is_given_up():
    async def mute(reader, _writer):
        await reader.read(-1)

    async with tcp_server(mute) as port:
        with pytest.raises(PipeLost, match="did not answer"):
            async with Pipe(BrokerSpec("127.0.0.1", port, connect_timeout_s=0.2), client_id="a"):
                pass


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff" * 40,
        b"\x20\x80\x80\x80\x80\x80\x01",
        b"\x20\x03\x00\x00",
        b"\x20\x00",
        b"\x20\x02\x00\x63",
        b"\x20\x09\x00\x00\x06\x21\x00\x10\xee\xee\xee",
        b"",
    ],
)
async def test_broker_that_talks_nonsense_is_pipe_lost(answer):
    async def talk(reader, writer):
        await reader.read(100)
        writer.write(answer)

    async with tcp_server(talk) as port:
        with pytest.raises(PipeLost):
            async with Pipe(BrokerSpec("127.0.0.1", port, connect_timeout_s=1), client_id="a"):
                pass


def broker_without_pubacks(publishes):
    """Accepts a connection and every message, and acknowledges nothing."""

    async def talk(reader, writer):
        while True:
            try:
                head = await reader.readexactly(1)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            length = 0
            for shift in range(0, 28, 7):
                (byte,) = await reader.readexactly(1)
                length |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
            body = await reader.readexactly(length)
            if head[0] >> 4 == 1:
                writer.write(b"\x20\x03\x00\x00\x00")
            elif head[0] >> 4 == 3:
                (topic_len,) = struct.unpack_from(">H", body)
                publishes.append(body[2 : 2 + topic_len].decode())

    return tcp_server(talk)


async def test_missing_puback_ends_the_pipe_and_a_new_one_sends_nothing_old():
    publishes = []
    async with broker_without_pubacks(publishes) as port:
        spec = BrokerSpec("127.0.0.1", port, ack_timeout_s=0.2, inflight_max=3)
        async with Pipe(spec, client_id="a") as pipe:
            waiting = [await pipe.send(f"t/{i}", b"x") for i in range(3)]
            with pytest.raises(PipeLost, match="no PUBACK"):
                await pipe.send("t/3", b"x")  # no room: the fourth waits and never goes out
            for one in waiting:
                with pytest.raises(PipeLost):
                    await one
            with pytest.raises(PipeLost):
                await pipe.publish("t/4", b"x")
        async with Pipe(spec, client_id="a") as again:
            await again.send("t/new", b"x")
            await eventually(lambda: "t/new" in publishes)
    assert publishes == ["t/0", "t/1", "t/2", "t/new"]


async def test_in_flight_never_exceeds_its_bound():
    publishes = []
    async with broker_without_pubacks(publishes) as port:
        spec = BrokerSpec("127.0.0.1", port, inflight_max=5)
        async with Pipe(spec, client_id="a") as pipe, asyncio.TaskGroup() as group:
            senders = [group.create_task(pipe.publish(f"t/{i}", b"x")) for i in range(20)]
            await eventually(lambda: len(publishes) == 5)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(publishes) == 5
            for sender in senders:
                sender.cancel()


@pytest.mark.parametrize("version", VERSIONS)
async def test_killed_broker_is_noticed_by_everyone_who_waits(broker, version):
    async with Pipe(broker.spec(version=version), client_id="a") as pipe:
        await pipe.subscribe("t")
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(pytest_raises_lost(anext(pipe)))
            watching = group.create_task(pytest_raises_lost(pipe.wait_lost()))
            await asyncio.sleep(0)
            broker.kill()
            await reading
            await watching
        assert not pipe.connected
        with pytest.raises(PipeLost):
            await pipe.publish("t", b"x")


async def pytest_raises_lost(awaitable):
    with pytest.raises(PipeLost):
        await awaitable


async def test_publishing_from_the_reading_loop_never_stops_itself(broker):
    """Many more messages wait than the window holds, and each is answered where it is read."""
    spec = broker.spec(incoming_max=20, inflight_max=4)
    async with (
        Pipe(broker.spec(), client_id="a") as sender,
        Pipe(spec, client_id="b") as answering,
        Pipe(broker.spec(), client_id="c") as asking,
    ):
        await answering.subscribe("ask")
        await asking.subscribe("answer")
        async with asyncio.TaskGroup() as group:
            group.create_task(send_many(sender, 300))
            for _ in range(300):
                message = await anext(answering)
                await answering.publish("answer", message.payload)
        got = await take(asking, 300)
    assert [m.payload for m in got] == [str(i).encode() for i in range(300)]


async def test_more_than_is_taken_is_dropped_and_the_pipe_lives(broker):
    spec = broker.spec(incoming_max=1)
    async with (
        Pipe(broker.spec(), client_id="a") as sender,
        Pipe(spec, client_id="b") as slow,
    ):
        await slow.subscribe("ask")
        slow._spec = replace(spec, incoming_max=0)  # as if the queue were full
        await send_many(sender, 5)
        await eventually(lambda: slow.dropped == 5)
        slow._spec = spec
        await sender.publish("ask", b"after")
        assert (await anext(slow)).payload == b"after"


async def send_many(pipe, count):
    for i in range(count):
        await pipe.publish("ask", str(i).encode())


async def test_will_speaks_when_the_connection_breaks_and_not_on_a_goodbye(broker):
    async with Pipe(broker.spec(), client_id="w") as watcher:
        await watcher.subscribe("status")
        async with Pipe(broker.spec(), client_id="a", will=Will("status", b"gone")):
            pass
        dying = Pipe(broker.spec(), client_id="a", will=Will("status", b"gone again"))
        await dying.__aenter__()
        dying._drop("the cable was pulled")
        message = await anext(watcher)
    assert message.payload == b"gone again"


def speaks_3_1_1(connack):
    """A broker that knows MQTT 3.1.1; what it says to a 5 is `connack` (empty: nothing)."""

    async def talk(reader, writer):
        connect = await reader.read(200)
        writer.write(b"\x20\x02\x00\x00" if connect[8] == 4 else connack)
        await reader.read(-1)

    return tcp_server(talk)


@pytest.mark.parametrize("connack", [b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00", b""])
async def test_auto_speaks_3_1_1_with_a_broker_that_does_not_know_5(connack):
    async with speaks_3_1_1(connack) as port:
        spec = BrokerSpec("127.0.0.1", port, connect_timeout_s=0.3)
        async with Pipe(spec, client_id="a") as pipe:
            assert pipe.version is MqttVersion.V311
            assert pipe.connected
        with pytest.raises(PipeLost):
            async with Pipe(replace(spec, version=MqttVersion.V5), client_id="a"):
                pass


async def test_embedded_broker_carries_messages():
    async with embedded_broker("127.0.0.1", free_port()) as port:
        spec = BrokerSpec("127.0.0.1", port, version=MqttVersion.V311)
        async with Pipe(spec, client_id="a") as pipe:
            await pipe.subscribe("t")
            await pipe.publish("t", b"x")
            assert (await anext(pipe)).payload == b"x"


async def test_shared_subscriptions_are_refused(broker):
    async with Pipe(broker.spec(), client_id="a") as pipe:
        with pytest.raises(FeedError, match="shared"):
            await pipe.subscribe("$share/g/meter/v1/he1/feed/billing")


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_cancelled_connecting_leaves_nothing_behind(broker):
    async with Pipe(broker.spec(), client_id="a") as pipe:  # what the first one opens for good
        await pipe.publish("t", b"x")
    before, tasks = open_files(), len(asyncio.all_tasks())
    for _ in range(20):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(Pipe(broker.spec(), client_id="a").__aenter__())
            await asyncio.sleep(0)
            task.cancel()
    await eventually(lambda: open_files() <= before)
    assert len(asyncio.all_tasks()) == tasks
    async with Pipe(broker.spec(), client_id="a") as pipe:
        await pipe.publish("t", b"x")
        assert pipe.connected


def test_plain_text_beyond_this_machine_is_refused_unless_allowed():
    with pytest.raises(ConfigError, match=r"broker\.example"):
        BrokerSpec("broker.example")
    BrokerSpec("broker.example", allow_plaintext=True)
    BrokerSpec("broker.example", tls=TlsSpec())
    for host in ("localhost", "127.0.0.9", "::1"):
        BrokerSpec(host)


async def test_keep_connected_uses_a_new_pipe_each_time_and_backs_off(broker):
    made = []
    sessions = []

    def make():
        made.append(Pipe(broker.spec(), client_id="a"))
        return made[-1]

    async def session(pipe):
        sessions.append(pipe)
        if len(sessions) == 1:
            broker.kill()
            await asyncio.Event().wait()  # ends only by the loss of the pipe

    async with asyncio.TaskGroup() as group:
        task = group.create_task(
            keep_connected(
                make,
                session,
                name="test",
                clock=SystemClock(),
                backoff=Backoff(first_s=0.01, max_s=0.05),
            )
        )
        await eventually(lambda: len(made) >= 4)
        broker.start()
        await task
    assert len(sessions) == 2
    assert len({id(pipe) for pipe in made}) == len(made)


async def test_keep_connected_raises_what_is_not_the_pipes_fault(broker):
    async def session(_pipe):
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError):
        await keep_connected(
            lambda: Pipe(broker.spec(), client_id="a"), session, name="t", clock=SystemClock()
        )


def test_backoff_doubles_to_its_bound_and_is_spread():
    still = Backoff(first_s=0.2, max_s=3.0, spread=0.0)
    assert [still.pause_s(n) for n in range(1, 8)] == [0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0]
    low = Backoff(first_s=1.0, spread=0.25, random=lambda: 0.0)
    assert low.pause_s(1) == 0.75
    assert still.pause_s(10_000) == 3.0
