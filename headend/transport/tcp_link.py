"""A transparent converter as a link: the bytes of the line over one TCP connection."""

import asyncio
import socket
from typing import cast

from headend.domain.errors import PortGone
from headend.domain.link import TcpSpec
from headend.transport.link import Receiver
from headend.transport.serial_link import char_bits

CONNECT_TIMEOUT_S = 5.0
WRITE_BUFFER_MAX = 64 * 1024  # more unsent than this means that the peer reads nothing
KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_PROBES = 3
USER_TIMEOUT_MS = 20_000  # unacknowledged data for this long ends the connection


class TcpLink:
    """One connection to host:port. Nothing on the way shows a parity error."""

    parity_seen = False

    def __init__(self, spec: TcpSpec) -> None:
        self.name = f"{spec.host}:{spec.port}"
        self.char_s = char_bits(spec.parity, 1) / spec.baud if spec.baud else 0.0
        self._spec = spec
        self._connection: _Connection | None = None

    async def open(self, receiver: Receiver) -> None:
        """Connect within CONNECT_TIMEOUT_S. PortGone."""
        await self.close()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(
                    lambda: _Connection(receiver), self._spec.host, self._spec.port
                )
        except TimeoutError as error:
            msg = f"{self.name} does not answer within {CONNECT_TIMEOUT_S:g} s: is it reachable?"
            raise PortGone(msg, bus=self.name) from error
        except OSError as error:
            msg = f"no connection to {self.name}: {error}; is the converter on, is the port right?"
            raise PortGone(msg, bus=self.name) from error
        self._connection = connection

    def write(self, data: bytes) -> None:
        """Send. PortGone when the connection is lost or the peer has stopped reading."""
        connection = self._connection
        transport = None if connection is None else connection.transport
        if connection is None or transport is None or transport.is_closing():
            msg = f"{self.name} is not connected"
            raise PortGone(msg, bus=self.name)
        transport.write(data)
        if transport.get_write_buffer_size() > WRITE_BUFFER_MAX:
            connection.drop()  # the caller learns of it here, so link_lost stays silent
            msg = f"{self.name} reads nothing any more; the connection is dropped"
            raise PortGone(msg, bus=self.name)

    async def close(self) -> None:
        """Drop the connection; what is unsent is of no use any more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()


class _Connection(asyncio.Protocol):
    """The asyncio side of one connection; forgets its receiver once it is told to go."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver: Receiver | None = receiver
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        sock = cast("socket.socket | None", transport.get_extra_info("socket"))
        if sock is not None:
            _set_options(sock)

    def data_received(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.bytes_received(data, ())

    def connection_lost(self, exc: Exception | None) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.link_lost(exc)

    def drop(self) -> None:
        self._receiver = None
        if self.transport is not None:
            self.transport.abort()


def _set_options(sock: socket.socket) -> None:
    """No delay for small writes; a dead peer is noticed within about half a minute."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
