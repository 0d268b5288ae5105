"""A broker that is away is nobody's fault here: an hour of it, and the watchdog is fed throughout.

In compressed time, with the real daemon, the real consumer and the real connecting.
"""

import asyncio
import logging
from itertools import pairwise
from unittest import mock

import pytest

from headend.billing.consumer import BillingConsumer
from headend.billing.store import Store
from headend.cli.billing import STEP_S_MAX
from headend.liveness import POLLER_STEP_S_MAX
from headend.messages.broker import BrokerSpec
from headend.messages.pipe import Pipe
from headend.notify import Notifier, Steps, Watchdog
from headend.supervisor import Supervisor
from simulators.schedule import run_virtual
from tests.soak.world import IMPORT, Estate, HeldPipe, daemon
from tests.support.mosquitto import Mosquitto, free_port

HOUR_S = 3600.0
WHILE_S = 4 * POLLER_STEP_S_MAX
LIMIT_S = 60.0
PLAN = f"  p: {{every: [{{minutes: 15, points: [{IMPORT}]}}]}}"


class Manager(Notifier):
    """A service manager that notes when the watchdog was fed."""

    def __init__(self, loop):
        super().__init__("@nobody", watchdog_s=LIMIT_S)
        self._loop = loop
        self.fed_at = []

    def feed(self):
        self.fed_at.append(self._loop.time())

    def _send(self, *lines):
        pass

    def longest_s(self):
        """The longest time from one feed to the next, up to now."""
        times = [*self.fed_at, self._loop.time()]
        return max(b - a for a, b in pairwise(times))


async def an_hour_of_billing(loop, folder, broker, pipe=Pipe):
    """`billing run`'s consumer and its watchdog. Returns for how long nothing was fed at most, and
    how the connection stood.
    """
    manager = Manager(loop)
    database = f"sqlite:///{folder}/billing.db"
    store = Store(database, name="billing", clock=loop, software="test")
    consumer = BillingConsumer(
        broker=broker, store=store, name="billing", headends=["he1"], clock=loop
    )
    watchdog = Watchdog(
        manager,
        tasks=lambda: {"billing": Steps(consumer.steps, STEP_S_MAX)},
        status=lambda: consumer.status_line,
        clock=loop,
    )
    with mock.patch("headend.billing.consumer.Pipe", pipe):
        async with Supervisor() as supervisor:
            supervisor.start("watchdog", watchdog.run)
            supervisor.start("billing", consumer.run)
            await asyncio.sleep(HOUR_S)
            assert not any(state.restarts for state in supervisor.states.values())
    state = consumer.connection.state
    await consumer.close()
    store.close()
    return manager.longest_s(), state


@pytest.fixture
def hushed(caplog):
    caplog.set_level(logging.CRITICAL)


@pytest.mark.usefixtures("hushed")
def test_billing_is_not_ended_while_no_broker_is_there(tmp_path):
    broker = BrokerSpec("127.0.0.1", free_port())
    longest_s, state = run_virtual(lambda loop: an_hour_of_billing(loop, tmp_path, broker))
    assert state.code == "unreachable"
    assert state.failures > 60
    assert longest_s < LIMIT_S


@pytest.mark.usefixtures("hushed")
def test_billing_is_not_ended_while_the_broker_refuses_its_login(tmp_path):
    """Then it tries at most every few minutes, which is longer than a step may take."""
    with Mosquitto(tmp_path, users={"billing": "right"}) as server:
        broker = server.spec("billing")
        broker.password_file.write_text("wrong\n")
        longest_s, state = run_virtual(
            lambda loop: an_hour_of_billing(loop, tmp_path, broker, HeldPipe)
        )
    assert state.code == "login_refused"
    assert 3 < state.failures < 30
    assert longest_s < LIMIT_S


@pytest.mark.usefixtures("hushed")
def test_billing_is_not_ended_while_the_broker_accepts_and_says_nothing(tmp_path):
    async def live(loop):
        async def say_nothing(reader, writer):
            await reader.read()
            writer.close()

        async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await an_hour_of_billing(loop, tmp_path, BrokerSpec("127.0.0.1", port))

    longest_s, state = run_virtual(live)
    assert state.code == "silent"
    assert longest_s < LIMIT_S


@pytest.mark.usefixtures("hushed")
def test_billing_that_hangs_while_the_broker_is_away_is_ended(tmp_path):
    """The loop bites: a try that never comes back takes no steps."""

    class HangingPipe(Pipe):
        async def __aenter__(self):
            await asyncio.Event().wait()

    broker = BrokerSpec("127.0.0.1", free_port())
    longest_s, _state = run_virtual(
        lambda loop: an_hour_of_billing(loop, tmp_path, broker, HangingPipe)
    )
    assert longest_s > HOUR_S - STEP_S_MAX - LIMIT_S


@pytest.mark.usefixtures("hushed")
def test_the_daemon_is_not_ended_while_no_broker_is_there(tmp_path):
    async def live(loop):
        estate, manager = Estate(loop, buses=1, each=1, baud=9600), Manager(loop)
        config = estate.configure(tmp_path, PLAN, broker=f"mqtt://127.0.0.1:{free_port()}")
        async with daemon(config, estate, notifier=manager) as parts:
            await asyncio.sleep(WHILE_S)
            assert parts.publisher.connection.state.failures > 30
            assert not any(state.restarts for state in parts.supervisor.states.values())
            assert parts.journal.cursors()["billing"].backlog >= 1
            return manager.longest_s()

    assert run_virtual(live) < LIMIT_S
