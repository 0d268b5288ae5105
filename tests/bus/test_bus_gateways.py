"""Many units behind one gateway: what a dead one costs, and how a gateway is found again.

Simulated devices and the real driver, in a loop whose time jumps.
"""

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from bus_bench_line import run_virtual

from headend.bus import Bus, BusState
from headend.bus.configured import bus_settings
from headend.config.profiles import PACKAGED, load_profile
from headend.config.sections.buses import BusSection
from headend.domain.errors import PortGone
from headend.drivers import ModbusSession, transaction_ids
from headend.transport.tcp_link import CONNECT_TIMEOUT_S
from protocols.modbus.decode import encode
from protocols.modbus.device import build_exception, build_reply, parse_request

ABB = load_profile("abb_b23_b24", PACKAGED.parent)
POINT = "voltage_a"
UNITS = range(1, 33)
SETTINGS = bus_settings(BusSection(link="modbus-tcp://192.0.2.1"))
TARGET_SILENT = 0x0B


class LoopClock:
    def now_ms(self):
        return round(self.monotonic() * 1000)

    def monotonic(self):
        return asyncio.get_running_loop().time()


@dataclass
class Gateway:
    """A link to a gateway: units answer after `delay_s`, dead ones as `dead` says, or it is away.

    `refuses_s`: how long a connection takes to fail while it is `away`. `mute`: it takes
    connections and says nothing.
    """

    dead: dict[int, float | None] = field(default_factory=dict)  # None: silence; else 0B after it
    delay_s: float = 0.1
    away: bool = False
    mute: bool = False
    refuses_s: float = 0.001
    tries: list[float] = field(default_factory=list)
    requests: int = 0
    receiver: object = None
    name = "gateway"
    parity_seen = False
    char_s = 0.0

    async def open(self, receiver):
        self.tries.append(asyncio.get_running_loop().time())
        if self.away:
            await asyncio.sleep(self.refuses_s)
            raise PortGone("no connection", bus=self.name)
        self.receiver = receiver

    def write(self, data):
        self.requests += 1
        request = parse_request(data, tcp=True)
        if self.away or self.mute:
            return
        loop = asyncio.get_running_loop()
        if request.unit not in self.dead:
            words = encode(ABB.register(POINT), Decimal(230))
            loop.call_later(self.delay_s, self._say, build_reply(request, words))
        elif (after_s := self.dead[request.unit]) is not None:
            loop.call_later(after_s, self._say, build_exception(request, TARGET_SILENT))

    def _say(self, data):
        if self.receiver is not None:
            self.receiver.bytes_received(data, ())

    def lose(self):
        receiver, self.receiver = self.receiver, None
        receiver.link_lost(None)

    async def close(self):
        self.receiver = None


class Street:
    """Every unit has a session; a round asks each once, as fast as the gateway lets it."""

    def __init__(self, gateway, units=UNITS):
        self.gateway = gateway
        clock = LoopClock()
        self.bus = Bus("g", gateway, SETTINGS, clock=clock, observer=lambda _exchange: None)
        ids = transaction_ids()
        self.sessions = {
            unit: ModbusSession(self.bus, unit, ABB, tcp=True, clock=clock, transactions=ids)
            for unit in units
        }
        self.good: dict[int, int] = dict.fromkeys(units, 0)
        self.last_good = 0.0

    async def round(self):
        async def one(unit):
            (result,) = await self.sessions[unit].read([POINT])
            if result.error is None:
                self.good[unit] += 1
                self.last_good = asyncio.get_running_loop().time()

        await asyncio.gather(*(one(unit) for unit in self.sessions))
        await asyncio.sleep(0.01)

    async def run_for(self, seconds):
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until:
            await self.round()

    async def __aenter__(self):
        self.task = asyncio.ensure_future(self.bus.run())
        return self

    async def __aexit__(self, *_exc):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture(scope="module")
def rates():
    """Good readings of the 31 others in ten minutes, by how the 32nd is dead."""
    found = {}

    async def measure(name, gateway, units):
        async with Street(gateway, units) as street:
            await street.run_for(600)
            found[name] = sum(street.good[unit] for unit in UNITS[:-1])

    run_virtual(measure("not there", Gateway(delay_s=0.4), UNITS[:-1]))
    for dead in (None, 1.0):
        run_virtual(measure(dead, Gateway({32: dead}, delay_s=0.4), UNITS))
    return found


@pytest.mark.parametrize("dead", [None, 1.0], ids=["silent", "the gateway says so"])
def test_a_dead_unit_among_32_costs_the_others_less_than_5_percent_of_their_rate(dead, rates):
    assert rates["not there"] > 1000
    assert rates[dead] > 0.95 * rates["not there"]


def test_gateways_are_served_side_by_side():
    """A silent gateway costs another one nothing: every connection has a queue of its own."""
    counts = []

    async def scenario(mute):
        quick, other = Gateway(), Gateway(mute=mute)
        async with Street(quick, range(1, 5)) as one, Street(other, range(1, 5)) as two:
            await asyncio.gather(one.run_for(20), two.run_for(20))
            counts.append(sum(one.good.values()))

    run_virtual(scenario(mute=False))
    run_virtual(scenario(mute=True))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("refuses_s", [0.001, CONNECT_TIMEOUT_S], ids=["refused", "no answer"])
def test_a_gateway_that_was_away_is_found_again_within_10_s_and_not_stormed(refuses_s):
    async def scenario():
        loop = asyncio.get_running_loop()
        gateway = Gateway(refuses_s=refuses_s)
        async with Street(gateway, range(1, 9)) as street:
            await street.round()
            gateway.away = True
            gateway.lose()
            began = loop.time()
            while loop.time() < began + 1800:
                await street.round()
                await asyncio.sleep(20)
            tries = len(gateway.tries) - 1
            assert tries <= 1800 / 4 + 10
            assert street.bus.statistics().state is BusState.GONE
            gateway.away = False
            back = loop.time()
            while street.last_good < back:
                await street.round()
                await asyncio.sleep(0.1)
            assert street.last_good - back <= 10
            await street.round()
            assert min(street.good.values()) >= 2  # every unit, at once
            assert len(gateway.tries) == tries + 2  # one connection is enough

    run_virtual(scenario())


def test_a_gateway_that_went_mute_is_asked_for_and_found_again_within_10_s():
    """It takes connections and says nothing, as one whose line side has hung up."""

    async def scenario():
        loop = asyncio.get_running_loop()
        gateway = Gateway()
        async with Street(gateway, range(1, 17)) as street:
            await street.round()
            gateway.mute = True
            began, tries, requests = loop.time(), len(gateway.tries), gateway.requests
            while loop.time() < began + 1200:
                await street.round()
                await asyncio.sleep(3)
            assert len(gateway.tries) - tries <= 1200 / 40 + 10  # one in eight silent requests
            assert gateway.requests - requests <= 1200 / 5 + 100
            gateway.mute = False
            back = loop.time()
            while street.last_good < back:
                await street.round()
                await asyncio.sleep(0.1)
            assert street.last_good - back <= 10
            for _ in range(3):
                await street.round()
            assert min(street.good.values()) >= 2  # all that fell silent with it

    run_virtual(scenario())


def test_a_device_that_needs_a_pause_after_connecting_is_not_asked_at_once():
    async def scenario():
        loop = asyncio.get_running_loop()
        gateway = Gateway(delay_s=0.1)
        async with Street(gateway, [1]) as street:
            asker = street.sessions[1]._asker
            asker._after_open_s = 1.5
            await street.round()
            assert 1.6 <= street.last_good - gateway.tries[0] < 2
            began = loop.time()
            await street.round()
            assert loop.time() - began < 0.5

    run_virtual(scenario())


def test_a_dead_unit_costs_no_connection_while_others_answer():
    async def scenario():
        gateway = Gateway({7: None, 8: None, 9: 1.0})
        async with Street(gateway, range(1, 11)) as street:
            await street.run_for(60)
            assert len(gateway.tries) == 1

    run_virtual(scenario())
