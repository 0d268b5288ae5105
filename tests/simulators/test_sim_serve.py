"""Real ptys and sockets: a small client reads a meter over each, at the speed of the line."""

import asyncio
import os
import tty
from pathlib import Path

import pytest

from protocols.dlt645.frame import DELIMITER
from protocols.dlt645.master import match, read_request
from protocols.framing import FrameFound, Framer, Match
from simulators.serve import PtyServer, TcpServer
from tests.simulators.bench645 import ADDRESS, Bench
from tests.support.waiting import eventually

REQUEST = read_request(ADDRESS, "00010000")


class PtyClient:
    """Opens a device raw and reads without blocking the loop."""

    def __init__(self, path: Path | str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self.fd)
        self._came = asyncio.Event()
        self.data = bytearray()
        self.error: OSError | None = None
        asyncio.get_running_loop().add_reader(self.fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self.fd, 4096)
        except OSError as error:
            self.error = error
            data = b""
        if not data:  # hung up: nothing more will come
            asyncio.get_running_loop().remove_reader(self.fd)
        self.data += data
        self._came.set()

    async def frame(self) -> bytes:
        """The next whole frame."""
        framer, at = Framer(DELIMITER), 0
        async with asyncio.timeout(30):
            while True:
                for event in framer.feed(bytes(self.data[at:])):
                    if isinstance(event, FrameFound):
                        return event.raw
                at = len(self.data)
                self._came.clear()
                await self._came.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.fd)
        os.close(self.fd)


async def test_a_meter_on_a_pty_is_read_at_the_speed_of_its_line(tmp_path):
    bench = Bench(reply_delay_ms=20)
    bench.meter.warm_up()
    path = tmp_path / "deep" / "meter"
    server = PtyServer(bench.bus, path, baud=2400)
    await server.start()
    client = PtyClient(path)
    loop = asyncio.get_running_loop()
    start = loop.time()
    os.write(client.fd, REQUEST.raw)
    raw = await client.frame()
    took = loop.time() - start
    assert match(REQUEST, raw) is Match.REPLY
    assert took >= (len(REQUEST.raw) + len(raw)) * 11 / 2400 + 0.020 - 0.001
    client.close()
    await server.close()
    assert not path.is_symlink()
    assert server.where == f"serial://{path}?baud=2400&parity=even&stop=1"


async def test_a_pty_that_is_pulled_out_hangs_up_and_is_there_again_under_the_same_path(tmp_path):
    bench = Bench(reply_delay_ms=0)
    path = tmp_path / "meter"
    server = PtyServer(bench.bus, path, baud=115_200)
    await server.start()
    client = PtyClient(path)
    server.unplug()
    assert not path.exists()
    async with asyncio.timeout(30):
        await client._came.wait()
    assert client.data == b""  # EIO or end of file, never bytes
    client.close()
    server.plug()
    server.plug()  # once more does nothing
    client = PtyClient(path)
    os.write(client.fd, REQUEST.raw)
    assert match(REQUEST, await client.frame()) is Match.REPLY
    client.close()
    await server.close()
    await server.close()


async def test_a_stale_symlink_is_replaced_and_a_file_never(tmp_path):
    path = tmp_path / "meter"
    path.symlink_to("/dev/pts/no-such")
    server = PtyServer(Bench().bus, path)
    await server.start()
    assert path.exists()
    await server.close()
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        await server.start()
    assert path.read_text() == "mine"


async def test_a_symlink_that_another_took_over_is_left_alone(tmp_path):
    path = tmp_path / "meter"
    first, second = PtyServer(Bench().bus, path), PtyServer(Bench().bus, path)
    await first.start()
    await second.start()
    await first.close()
    assert path.exists()
    await second.close()
    assert not path.is_symlink()


async def test_a_pty_nobody_reads_drops_bytes_and_does_not_stop(tmp_path):
    bench = Bench(reply_delay_ms=0)
    bench.fault("noise:bytes=30000")
    server = PtyServer(bench.bus, tmp_path / "meter", baud=10_000_000, chunk=None)
    await server.start()
    client = PtyClient(server.device)
    asyncio.get_running_loop().remove_reader(client.fd)
    os.write(client.fd, REQUEST.raw)
    await eventually(lambda: server.dropped > 0)
    client.close()
    await server.close()


async def ask(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST.raw)
    raw = await asyncio.wait_for(reader.readexactly(20), 10)
    writer.close()
    await writer.wait_closed()
    return raw


async def test_a_meter_behind_a_tcp_port_is_read():
    server = TcpServer(Bench(reply_delay_ms=0).bus)
    await server.start()
    assert match(REQUEST, await ask(server.port)) is Match.REPLY
    assert server.where == f"tcp://127.0.0.1:{server.port}"
    await server.close()


async def test_a_tcp_line_can_have_the_time_of_a_serial_one():
    server = TcpServer(Bench(reply_delay_ms=0).bus, baud=2400)
    await server.start()
    start = asyncio.get_running_loop().time()
    await ask(server.port)
    assert asyncio.get_running_loop().time() - start >= 36 * 11 / 2400 - 0.001
    assert server.where.endswith("?baud=2400")
    await server.close()


async def test_everybody_on_a_converter_hears_the_reply_and_a_cut_connection_comes_back():
    server = TcpServer(Bench(reply_delay_ms=0).bus)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await eventually(lambda: server.clients == 1)
    await ask(server.port)
    assert len(await asyncio.wait_for(reader.readexactly(20), 10)) == 20
    server.drop_clients()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 10)
    writer.close()
    port = server.port
    await server.close()
    with pytest.raises(ConnectionRefusedError):
        await ask(port)
    await server.start()
    assert server.port == port
    assert match(REQUEST, await ask(port)) is Match.REPLY
    await server.close()
