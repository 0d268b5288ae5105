"""Devices behind a Modbus TCP server: several units, gateways' refusals, connections that fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from protocols.framing import FrameFound, Framer
from protocols.modbus.adu import build_tcp, parse_tcp
from protocols.modbus.delimiter import ANY_TCP
from protocols.modbus.master import read_request
from simulators.energy import DAY_MS, Timeline
from simulators.modbus_meter import ModbusSettings
from simulators.modbus_tcp import ModbusTcpServer
from simulators.models import make_modbus_inverter, make_modbus_meter
from tests.simulators.bench_modbus import NOON_MS, profile_of

METER, INVERTER = 1, 3


class Client:
    """A master that keeps what comes, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.framer = Framer(ANY_TCP)
        self.frames: list[bytes] = []

    def ask(self, unit: int, transaction: int, *, function: int = 4, address: int = 0x48) -> None:
        self.writer.write(read_request(unit, function, address, 2, transaction=transaction).raw)

    async def frame(self) -> bytes:
        async with asyncio.timeout(10):
            while not self.frames:
                data = await self.reader.read(4096)
                if not data:
                    raise EOFError
                self.frames += [e.raw for e in self.framer.feed(data) if isinstance(e, FrameFound)]
        return self.frames.pop(0)


class Gateway:
    """A server with a meter and an inverter behind it."""

    def __init__(self, **options) -> None:
        common = {"timeline": Timeline(NOON_MS - DAY_MS), "clock": lambda: NOON_MS}
        quick = {"reply_delay_ms": 5}
        self.meter = make_modbus_meter(
            "pv3", ModbusSettings(METER, **quick), profile_of("eastron_sdm630"), **common
        )
        self.inverter = make_modbus_inverter(
            ModbusSettings(INVERTER, **quick), profile_of("sungrow_sg"), **common
        )
        self.server = ModbusTcpServer((self.meter, self.inverter), **options)
        self.clients: list[Client] = []

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.server.port))
        self.clients.append(client)
        return client


@asynccontextmanager
async def gateway(**options) -> AsyncIterator[Gateway]:
    found = Gateway(**options)
    await found.server.start()
    try:
        yield found
    finally:
        for client in found.clients:
            client.writer.close()
        await found.server.close()


async def test_units_answer_with_their_own_transactions_in_order():
    async with gateway() as found:
        client = await found.client()
        for transaction in (7, 65_535, 0):
            client.ask(METER, transaction)
        client.ask(INVERTER, 9, address=5003)
        got = [parse_tcp(await client.frame()) for _ in range(4)]
        assert [(f.transaction, f.unit) for f in got] == [(7, 1), (65_535, 1), (0, 1), (9, 3)]
        assert all(len(f.pdu) == 6 for f in got)
        assert found.server.where == f"modbus-tcp://127.0.0.1:{found.server.port}"


async def test_requests_in_pieces_and_in_one_piece_are_answered_alike():
    async with gateway() as found:
        client = await found.client()
        raw = b"".join(read_request(METER, 4, 0x48, 2, transaction=t).raw for t in (1, 2))
        for byte in raw[:15]:
            client.writer.write(bytes((byte,)))
            await client.writer.drain()
            await asyncio.sleep(0)
        client.writer.write(raw[15:])
        assert [parse_tcp(await client.frame()).transaction for _ in range(2)] == [1, 2]


@pytest.mark.parametrize(
    ("missing", "code"), [("target_silent", 0x0B), ("no_path", 0x0A), ("silent", None)]
)
async def test_a_unit_that_is_not_there(missing, code):
    async with gateway(missing=missing, gateway_timeout_ms=20) as found:
        client = await found.client()
        client.ask(9, 1)
        if code is None:
            client.ask(METER, 2)
            assert parse_tcp(await client.frame()).transaction == 2
        else:
            assert await client.frame() == build_tcp(1, 9, bytes((0x84, code)))


async def test_one_device_alone_answers_for_itself_as_255():
    async with gateway() as found:
        alone = ModbusTcpServer([found.meter])
        await alone.start()
        client = Client(*await asyncio.open_connection("127.0.0.1", alone.port))
        client.ask(255, 1)
        assert parse_tcp(await client.frame()).unit == 255
        client.writer.close()
        await alone.close()


@pytest.mark.parametrize(
    "pdu", [b"\x06\x00\x00\x00\x01", b"\x2b\x0e\x01\x00", b"\x03\x00\x00\x00\x02"]
)
async def test_a_function_the_device_does_not_have_is_refused(pdu):
    async with gateway() as found:
        client = await found.client()
        client.writer.write(build_tcp(5, METER, pdu))
        assert await client.frame() == build_tcp(5, METER, bytes((pdu[0] | 0x80, 1)))


async def test_a_read_request_of_no_length_is_refused():
    async with gateway() as found:
        client = await found.client()
        client.writer.write(build_tcp(5, METER, b"\x04\x00\x00"))
        assert await client.frame() == build_tcp(5, METER, b"\x84\x03")


async def test_wrong_transaction_and_wrong_unit():
    async with gateway() as found:
        client = await found.client()
        found.meter.add_fault_text("wrong_transaction:nth=1", 1)
        found.meter.add_fault_text("wrong_unit:nth=2", 1)
        client.ask(METER, 40)
        client.ask(METER, 41)
        first, second = [parse_tcp(await client.frame()) for _ in range(2)]
        assert (first.transaction, first.unit) == (39, METER)
        assert (second.transaction, second.unit) == (41, METER + 1)


async def test_half_open_takes_everything_and_answers_nothing_until_a_new_connection():
    async with gateway() as found:
        client = await found.client()
        found.meter.add_fault_text("half_open:nth=1", 1)
        client.ask(METER, 1)
        client.ask(INVERTER, 2, address=5003)
        other = await found.client()
        other.ask(METER, 3)
        assert parse_tcp(await other.frame()).transaction == 3
        assert client.frames == []
        assert not client.reader.at_eof()
        found.server.go_half_open()
        other.ask(METER, 4)
        third = await found.client()
        third.ask(METER, 5)
        assert parse_tcp(await third.frame()).transaction == 5
        assert found.server.clients == 3


async def test_hang_up_cuts_the_connection_and_the_port_stays():
    async with gateway() as found:
        client = await found.client()
        found.meter.add_fault_text("hang_up:nth=1", 1)
        client.ask(METER, 1)
        with pytest.raises((EOFError, ConnectionResetError)):
            await client.frame()
        again = await found.client()
        again.ask(METER, 2)
        assert parse_tcp(await again.frame()).transaction == 2


async def test_the_line_behind_a_gateway_serves_one_request_at_a_time():
    async with gateway(baud=9600) as found:
        loop = asyncio.get_running_loop()
        one, two = await found.client(), await found.client()
        began = loop.time()
        one.ask(METER, 1)
        two.ask(METER, 1)
        await one.frame()
        await two.frame()
        # request + reply + a gap each way = 24 characters of 11 bits, twice, and two delays
        assert loop.time() - began >= 2 * (0.005 + 23 * 11 / 9600)


async def test_the_port_is_kept_through_close_and_start():
    async with gateway() as found:
        port = found.server.port
        await found.client()
        await found.server.close()
        assert found.server.clients == 0
        await found.server.start()
        assert found.server.port == port
        client = await found.client()
        client.ask(METER, 1)
        assert parse_tcp(await client.frame()).unit == METER


async def test_a_gateway_gets_another_unit_while_it_runs():
    async with gateway(gateway_timeout_ms=1) as found:
        client = await found.client()
        client.ask(5, 1, function=3, address=0x0A)
        assert (await client.frame())[-1] == 0x0B
        found.server.add(
            make_modbus_meter(
                "three",
                ModbusSettings(5, ct=Decimal(40)),
                profile_of("acrel_adl400"),
                timeline=Timeline(NOON_MS - DAY_MS),
                clock=lambda: NOON_MS,
            )
        )
        client.ask(5, 2, function=3, address=0x0A)
        assert len(await client.frame()) == 13
        assert {device.settings.unit for device in found.server} == {METER, INVERTER, 5}
