"""Bytes over one TCP connection: a transparent converter, or a Modbus TCP server or gateway."""

import asyncio
import socket
from dataclasses import dataclass
from typing import cast

from headend.domain.errors import PortGone
from headend.domain.link import ModbusTcpSpec, TcpSpec
from headend.transport.link import Receiver
from headend.transport.serial_link import char_bits

CONNECT_TIMEOUT_S = 5.0
WRITE_BUFFER_MAX = 64 * 1024  # more unsent than this means that the peer reads nothing


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """When a peer that says nothing any more is given up.

    After `idle_s` of silence `probes` probes, `interval_s` apart, that are not acknowledged; or
    data that is not acknowledged for `user_timeout_ms`.
    """

    idle_s: int
    interval_s: int
    probes: int
    user_timeout_ms: int


CONVERTER = KeepAlive(idle_s=10, interval_s=5, probes=3, user_timeout_ms=20_000)
MODBUS_SERVER = KeepAlive(idle_s=30, interval_s=10, probes=3, user_timeout_ms=20_000)


class TcpLink:
    """One connection to host:port. Nothing on the way shows a parity error."""

    parity_seen = False

    def __init__(self, spec: TcpSpec | ModbusTcpSpec) -> None:
        self.name = f"{spec.host}:{spec.port}"
        # Of the lines behind a Modbus gateway nothing is known here.
        baud = spec.baud if isinstance(spec, TcpSpec) else 0
        parity = spec.parity if isinstance(spec, TcpSpec) else "none"
        self.char_s = char_bits(parity, 1) / baud if baud else 0.0
        self._keep_alive = CONVERTER if isinstance(spec, TcpSpec) else MODBUS_SERVER
        self._spec = spec
        self._connection: _Connection | None = None

    async def open(self, receiver: Receiver) -> None:
        """Connect within CONNECT_TIMEOUT_S. PortGone."""
        await self.close()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(
                    lambda: _Connection(receiver, self._keep_alive),
                    self._spec.host,
                    self._spec.port,
                )
        except TimeoutError as error:
            msg = f"{self.name} does not answer within {CONNECT_TIMEOUT_S:g} s: is it reachable?"
            raise PortGone(msg, bus=self.name) from error
        except OSError as error:
            msg = f"no connection to {self.name}: {error}; is it on, is the port right?"
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

    def __init__(self, receiver: Receiver, keep_alive: KeepAlive) -> None:
        self._receiver: Receiver | None = receiver
        self._keep_alive = keep_alive
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        sock = cast("socket.socket | None", transport.get_extra_info("socket"))
        if sock is not None:
            _set_options(sock, self._keep_alive)

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


def _set_options(sock: socket.socket, keep_alive: KeepAlive) -> None:
    """No delay for small writes; a dead peer is noticed, as far as the platform can."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", keep_alive.idle_s),
        ("TCP_KEEPINTVL", keep_alive.interval_s),
        ("TCP_KEEPCNT", keep_alive.probes),
        ("TCP_USER_TIMEOUT", keep_alive.user_timeout_ms),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
