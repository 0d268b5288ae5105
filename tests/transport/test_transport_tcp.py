"""The TCP link against real sockets on loopback, and what make_link refuses."""

import asyncio
import socket

import pytest

from headend.domain.errors import ConfigError, PortGone
from headend.domain.link import ModbusTcpSpec, Rfc2217Spec, TcpSpec
from headend.transport import Returning, make_link, tcp_link


class Collector:
    def __init__(self):
        self.data = bytearray()
        self.lost: list[Exception | None] = []
        self.changed = asyncio.Event()

    def bytes_received(self, data, bad):
        assert not bad
        self.data += data
        self.changed.set()

    def link_lost(self, reason):
        self.lost.append(reason)
        self.changed.set()

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def write_often(link, block, times):
    for _ in range(times):
        link.write(block)


class Server:
    """Takes connections and hands them out."""

    async def __aenter__(self):
        self.peers = asyncio.Queue()
        self.server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc):
        self.server.close()
        await self.server.wait_closed()

    async def _take(self, reader, writer):
        self.peers.put_nowait((reader, writer))


async def test_bytes_pass_both_ways_and_small_writes_are_not_held_back():
    async with Server() as server:
        link = make_link(TcpSpec("127.0.0.1", server.port, baud=2400))
        got = Collector()
        await link.open(got)
        reader, writer = await server.peers.get()
        link.write(b"\xfe\xfe\x68")
        assert await reader.readexactly(3) == b"\xfe\xfe\x68"
        writer.write(b"\xff\x00\xff\xff")
        await got.until(lambda: len(got.data) == 4)
        assert got.data == b"\xff\x00\xff\xff"
        sock = link._connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
        assert not link.parity_seen
        assert link.char_s == 11 / 2400
        await link.close()
        await link.close()
        assert await reader.read() == b""
        writer.close()
        assert got.lost == []


async def test_a_closed_connection_is_told_once_and_writing_says_so():
    async with Server() as server:
        link = make_link(TcpSpec("127.0.0.1", server.port))
        assert link.char_s == 0.0
        got = Collector()
        await link.open(got)
        _, writer = await server.peers.get()
        writer.close()
        await got.until(lambda: got.lost)
        with pytest.raises(PortGone, match="not connected"):
            link.write(b"x")
        await link.close()
        assert len(got.lost) == 1
        again = Collector()
        await link.open(again)
        reader, writer = await server.peers.get()
        link.write(b"again")
        assert await reader.readexactly(5) == b"again"
        await link.close()
        writer.close()


async def test_a_refused_connection_says_what_to_look_at():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(PortGone, match="is it on, is the port right"):
        await make_link(TcpSpec("127.0.0.1", port)).open(Collector())


async def test_a_host_that_does_not_answer_ends_in_a_bounded_time(monkeypatch):
    monkeypatch.setattr(tcp_link, "CONNECT_TIMEOUT_S", 0.05)

    async def never(*_args, **_kwargs):
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    with pytest.raises(PortGone, match="does not answer"):
        await make_link(TcpSpec("127.0.0.1", 9)).open(Collector())


async def test_a_peer_that_reads_nothing_is_dropped_and_the_buffer_is_bounded():
    async with Server() as server:
        link = make_link(TcpSpec("127.0.0.1", server.port))
        got = Collector()
        await link.open(got)
        _, writer = await server.peers.get()
        writer.transport.pause_reading()
        with pytest.raises(PortGone, match="reads nothing"):
            write_often(link, bytes(4096), 10_000)
        with pytest.raises(PortGone):
            link.write(b"x")
        await link.close()
        assert got.lost == []
        writer.transport.abort()


def test_links_that_are_not_available_are_refused_clearly():
    with pytest.raises(ConfigError, match="rfc2217 are not available in this version"):
        make_link(Rfc2217Spec("h", 1))


async def test_a_modbus_tcp_server_gets_probes_and_its_link_has_no_line_speed():
    async with Server() as server:
        link = make_link(ModbusTcpSpec("127.0.0.1", server.port))
        assert (link.char_s, link.parity_seen) == (0.0, False)
        await link.open(Collector())
        reader, writer = await server.peers.get()
        link.write(b"\x00\x01")
        assert await reader.readexactly(2) == b"\x00\x01"
        sock = link._connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for option, expected in (
            (socket.TCP_KEEPIDLE, 30),
            (socket.TCP_KEEPINTVL, 10),
            (socket.TCP_KEEPCNT, 3),
            (socket.TCP_USER_TIMEOUT, 20_000),
        ):
            assert sock.getsockopt(socket.IPPROTO_TCP, option) == expected
        await link.close()
        writer.close()


def test_a_connection_has_no_path_to_watch():
    assert not isinstance(make_link(TcpSpec("h", 1)), Returning)
