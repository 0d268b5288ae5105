"""A line with its stations behind a real pty or a TCP port.

The pty paces bytes as a serial line would (a pty itself has no baud rate); the TCP port acts like a
transparent converter in front of such a line. Replies come in pieces of `CHUNK` characters, as from
a UART's FIFO, the last at the instant its last character is over.
"""

import asyncio
import contextlib
import os
import termios
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from simulators.damage import Damager
from simulators.schedule import LoopSchedule
from simulators.wire import Line, Station, char_seconds

CHUNK = 8
_READ_MAX = 4096
_SPEEDS = {getattr(termios, f"B{speed}"): speed for speed in (600, 1200, 2400, 4800, 9600, 19200)}
_UNREAD_MAX = 65_536  # bytes a TCP reader may leave unread before more are dropped


class Server(Protocol):
    """Something that offers a line to the world."""

    @property
    def where(self) -> str:
        """The link URL a head-end is told."""
        ...

    async def start(self) -> None:
        """Offer it; OSError when the place cannot be had."""
        ...

    async def close(self) -> None:
        """Take it back and leave nothing behind; never raises."""
        ...


class PtyServer:
    """A pseudo terminal, under a symlink when `path` is given. `unplug` and `plug` as by hand.

    `on_speed(baud)` is told the speed whoever has opened the pty has set, before what they sent is
    heard; the pace of the line becomes what it gives back, if it gives any.
    """

    def __init__(
        self,
        station: Station,
        path: Path | None = None,
        *,
        baud: int = 2400,
        chunk: int | None = CHUNK,
        echo: bool = False,
        overhear: bool = False,
        parity: str = "even",
        to_station: Damager | None = None,
        to_master: Damager | None = None,
        on_speed: Callable[[int], int | None] | None = None,
    ) -> None:
        self._on_speed = on_speed
        self.path = path
        self.device = ""
        self.dropped = 0  # bytes nobody read in time: a line does not wait
        self._station = station
        self._baud = baud
        self._parity = parity
        self._chunk = chunk
        self._echo = echo
        self._overhear = overhear
        self._damage = (to_station, to_master)
        self._line: Line | None = None
        self._fds: tuple[int, int] | None = None

    @property
    def where(self) -> str:
        """The link URL, once started."""
        return f"serial://{self.path or self.device}?baud={self._baud}&parity={self._parity}&stop=1"

    @property
    def line(self) -> Line:
        """The line behind the pty, while it is plugged in."""
        assert self._line is not None, "not started"
        return self._line

    async def start(self) -> None:
        """Open the pty and set the symlink. OSError when a file that is no symlink stands there."""
        self.plug()

    async def close(self) -> None:
        """Close the pty and take the symlink away, if it still is ours."""
        self.unplug()

    def plug(self) -> None:
        """A new pty behind the same path; nothing when there is one."""
        if self._fds is not None:
            return
        ours, theirs = os.openpty()
        try:
            tty.setraw(theirs)
            os.set_blocking(ours, False)
            self.device = os.ttyname(theirs)
            if self.path is not None:
                _point(self.path, self.device)
        except OSError:
            os.close(ours)
            os.close(theirs)
            raise
        self._fds = (ours, theirs)  # theirs stays open: else reading ours fails until someone opens
        self._line = Line(
            self._station,
            self._deliver,
            schedule=LoopSchedule(),
            baud=self._baud,
            chunk=self._chunk,
            echo=self._echo,
            overhear=self._overhear,
            to_station=self._damage[0],
            to_master=self._damage[1],
        )
        asyncio.get_running_loop().add_reader(ours, self._readable)

    def unplug(self) -> None:
        """The adapter is pulled out: readers of the device see an error, the path is gone."""
        if self._fds is None:
            return
        ours, theirs = self._fds
        self._fds = None
        asyncio.get_running_loop().remove_reader(ours)
        self.line.close()
        if self.path is not None and _points_at(self.path, self.device):
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(ours)
        os.close(theirs)

    def _readable(self) -> None:
        assert self._fds is not None
        try:
            data = os.read(self._fds[0], _READ_MAX)
        except (BlockingIOError, InterruptedError):
            return
        if self._on_speed is not None:
            self._follow_speed(self._on_speed, self._fds[1])
        self.line.send(data)

    def _follow_speed(self, told: Callable[[int], int | None], theirs: int) -> None:
        speed = _SPEEDS.get(termios.tcgetattr(theirs)[5])
        pace = None if speed is None else told(speed)
        if pace is not None:
            self.line.char_s = char_seconds(pace)

    def _deliver(self, data: bytes, _bad: object) -> None:
        """Marks are lost here: a pty carries no parity."""
        if self._fds is None:
            return
        try:
            written = os.write(self._fds[0], data)
        except BlockingIOError:
            written = 0
        self.dropped += len(data) - written


def _point(path: Path, device: str) -> None:
    """A symlink to the device; one that a killed simulator left is replaced, a file never."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    path.symlink_to(device)


def _points_at(path: Path, device: str) -> bool:
    try:
        return str(path.readlink()) == device
    except OSError:
        return False


class TcpServer:
    """A listening TCP port. Whoever is connected hears all that comes; all may speak.

    `baud` None: no wire time, only the stations' own delays.
    """

    def __init__(
        self,
        station: Station,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        baud: int | None = None,
        chunk: int | None = None,
        echo: bool = False,
        overhear: bool = False,
        to_station: Damager | None = None,
        to_master: Damager | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.dropped = 0
        self._station = station
        self._baud = baud
        self._chunk = chunk
        self._echo = echo
        self._overhear = overhear
        self._damage = (to_station, to_master)
        self._line: Line | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Transport] = set()

    @property
    def where(self) -> str:
        """The link URL, once started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        baud = f"?baud={self._baud}" if self._baud else ""
        return f"tcp://{host}:{self.port}{baud}"

    @property
    def line(self) -> Line:
        """The line behind the port."""
        assert self._line is not None, "not started"
        return self._line

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    async def start(self) -> None:
        """Listen; with port 0 the system chooses, and keeps it through `close` and `start`."""
        self._line = Line(
            self._station,
            self._deliver,
            schedule=LoopSchedule(),
            baud=self._baud,
            chunk=self._chunk,
            echo=self._echo,
            overhear=self._overhear,
            to_station=self._damage[0],
            to_master=self._damage[1],
        )
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop whoever is connected."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        self.drop_clients()
        self.line.close()
        await server.wait_closed()

    def drop_clients(self) -> None:
        """Cut every connection; the port stays open for new ones."""
        for client in tuple(self._clients):
            client.abort()
        self._clients.clear()

    def connected(self, client: asyncio.Transport) -> None:
        """A client is there."""
        self._clients.add(client)

    def disconnected(self, client: asyncio.Transport) -> None:
        """A client is gone."""
        self._clients.discard(client)

    def _deliver(self, data: bytes, _bad: object) -> None:
        """Marks are lost here: nothing on a TCP connection can carry them."""
        for client in self._clients:
            if client.get_write_buffer_size() > _UNREAD_MAX:
                self.dropped += len(data)
            else:
                client.write(data)


class _Client(asyncio.Protocol):
    """One connection to a `TcpServer`."""

    def __init__(self, server: TcpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connected(transport)

    def data_received(self, data: bytes) -> None:
        self._server.line.send(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        assert self._transport is not None
        self._server.disconnected(self._transport)
