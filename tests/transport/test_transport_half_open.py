"""A peer that is gone without a word: its packets are really dropped, and it is noticed.

A filter on the peer's socket drops every packet that reaches it, acknowledgements of the kernel
included, as a router does that has forgotten the connection or a box that has lost its supply.
"""

import asyncio
import ctypes
import errno
import socket
import struct
from decimal import Decimal
from typing import Any

import pytest

from headend.bus import Bus, BusSettings
from headend.config.profiles import PACKAGED, load_profile
from headend.domain.clock import SystemClock
from headend.domain.link import ModbusTcpSpec, TcpSpec
from headend.drivers import ModbusSession
from headend.supervisor import Supervisor
from headend.transport import make_link, tcp_link
from protocols.modbus.decode import encode
from protocols.modbus.device import build_reply, parse_request
from tests.support.waiting import eventually

ABB = load_profile("abb_b23_b24", PACKAGED.parent)
SO_ATTACH_FILTER = 26
RETURN_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # one instruction: keep 0 bytes of the packet
SOON = tcp_link.KeepAlive(idle_s=1, interval_s=1, probes=2, user_timeout_ms=1500)


def drop_packets(sock: Any) -> None:
    """From now on nothing reaches this socket, and so nothing is acknowledged."""
    code = ctypes.create_string_buffer(RETURN_NOTHING)
    program = struct.pack("HP", 1, ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


class Lost:
    def __init__(self) -> None:
        self.reasons: list[Exception | None] = []

    def bytes_received(self, data: bytes, bad: object) -> None:
        raise AssertionError((data, bad))

    def link_lost(self, reason: Exception | None) -> None:
        self.reasons.append(reason)


@pytest.fixture(params=[TcpSpec, ModbusTcpSpec])
def spec(request, monkeypatch):
    monkeypatch.setattr(tcp_link, "CONVERTER", SOON)
    monkeypatch.setattr(tcp_link, "MODBUS_SERVER", SOON)
    return request.param


@pytest.mark.parametrize("speaks", [True, False], ids=["data not acknowledged", "nothing to say"])
async def test_a_peer_whose_packets_are_dropped_is_given_up(spec, speaks):
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)  # noqa: FBT003 - socket's own
        link = make_link(spec("127.0.0.1", server.getsockname()[1]))
        lost = Lost()
        await link.open(lost)
        peer, _ = await loop.sock_accept(server)
        with peer:
            drop_packets(peer)
            if speaks:
                link.write(b"anybody there")
            await eventually(lambda: lost.reasons, timeout_s=60)
            assert isinstance(lost.reasons[0], OSError)
            assert lost.reasons[0].errno == errno.ETIMEDOUT
        await link.close()


async def test_after_a_half_open_connection_the_next_one_is_read_from(monkeypatch):
    """Through bus and driver: it is noticed, connected anew, and no value is wrong."""
    monkeypatch.setattr(tcp_link, "MODBUS_SERVER", SOON)
    peers: list[Any] = []  # asyncio gives a socket that takes options only

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("socket"))
        try:
            while asked := parse_request(await reader.readexactly(12), tcp=True):
                writer.write(build_reply(asked, encode(ABB.register("voltage_a"), Decimal(230))))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    clock = SystemClock()
    settings = BusSettings(gap_ms=0, dead_after=1000, reopen_first_s=0.02)
    link = make_link(ModbusTcpSpec("127.0.0.1", port))
    bus = Bus("b", link, settings, clock=clock, observer=lambda _exchange: None)
    session = ModbusSession(bus, 1, ABB, tcp=True, clock=clock, timeout_s=0.5)

    async def value() -> Decimal | None:
        (result,) = await session.read(["voltage_a"], attempts=1)
        return result.value

    async with Supervisor() as supervisor:
        supervisor.start("bus", bus.run)
        assert await value() == 230
        drop_packets(peers[0])
        assert await value() is None
        assert await eventually(value, timeout_s=60) == 230
        assert len(peers) == 2
    server.close()
    await server.wait_closed()
