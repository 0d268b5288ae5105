"""A Modbus TCP server: one device that speaks it itself, or a gateway with several units behind it.

A gateway asks its units one after the other, whoever wants to know, and says exception 0x0A or 0x0B
for a unit that it does not have. Everything is answered with its own transaction, in the order in
which it came.
"""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Literal

from protocols.errors import RemoteProtocolError
from protocols.framing import FrameFound, Framer
from protocols.modbus.adu import TcpFrame, parse_tcp
from protocols.modbus.device import parse_request, request_delimiter
from simulators.modbus_faults import Answer
from simulators.modbus_meter import ModbusDevice
from simulators.wire import char_seconds

NO_PATH, TARGET_SILENT = 0x0A, 0x0B
Missing = Literal["target_silent", "no_path", "silent"]
_UNREAD_MAX = 65_536  # bytes a client may leave unread before more are dropped
_GAP_CHARS = 3.5  # on the line behind a gateway, each way
_LINE_BYTES = 8 + 2  # of a request on that line, and of its reply without the PDU


class ModbusTcpServer:
    """Units behind a listening port; speaks Modbus TCP.

    `baud`: of the line behind a gateway; None = the units are reached without wire time. `missing`:
    what a unit that is not there brings, after `gateway_timeout_ms`. A unit 255 or 0 that is not
    there means the only one that is.
    """

    def __init__(
        self,
        devices: Iterable[ModbusDevice] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        baud: int | None = None,
        missing: Missing = "target_silent",
        gateway_timeout_ms: int = 1000,
    ) -> None:
        self.host = host
        self.port = port
        self.dropped = 0
        self.requests = 0
        self._units = {device.settings.unit: device for device in devices}
        self._char_s = char_seconds(baud)
        self._missing = missing
        self._gateway_timeout_s = gateway_timeout_ms / 1000
        self._server: asyncio.Server | None = None
        self._clients: set[_Client] = set()
        self._line_free = float("-inf")

    @property
    def where(self) -> str:
        """The link URL, once started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"modbus-tcp://{host}:{self.port}"

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    def __iter__(self) -> Iterator[ModbusDevice]:
        """The devices."""
        return iter(tuple(self._units.values()))

    def add(self, device: ModbusDevice) -> None:
        """One more unit, or another one in its place."""
        self._units[device.settings.unit] = device

    async def start(self) -> None:
        """Listen; with port 0 the system chooses, and keeps it through `close` and `start`."""
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
        await server.wait_closed()

    def drop_clients(self) -> None:
        """Cut every connection; the port stays open for new ones."""
        for client in tuple(self._clients):
            client.abort()
        self._clients.clear()

    def go_half_open(self) -> None:
        """Whoever is connected is heard, and never answered again; new connections are well."""
        for client in self._clients:
            client.mute = True

    # -- what a connection asks of it

    def connected(self, client: "_Client") -> None:
        """A client is there."""
        self._clients.add(client)

    def disconnected(self, client: "_Client") -> None:
        """A client is gone."""
        self._clients.discard(client)

    def asked(self, client: "_Client", raw: bytes) -> None:
        """A whole frame has come; what it brings is sent when its time has come."""
        self.requests += 1
        try:
            frame = parse_tcp(raw)
        except RemoteProtocolError:
            return
        answers, connection = self._answers(frame)
        if connection == "half_open":
            client.mute = True
        elif connection == "hang_up":
            client.abort()
        loop = asyncio.get_running_loop()
        begins = max(loop.time(), self._line_free)
        for one in answers:
            wire_s = self._wire_s(one)
            loop.call_at(begins + one.delay_s + wire_s, client.send, one.frame(frame.transaction))
            self._line_free = max(self._line_free, begins + one.delay_s + wire_s)

    def _wire_s(self, answer: Answer) -> float:
        return (_LINE_BYTES + len(answer.pdu) + 2 * _GAP_CHARS) * self._char_s

    def _answers(self, frame: TcpFrame) -> tuple[tuple[Answer, ...], str | None]:
        device = self._device(frame.unit)
        if device is None:
            return self._unreached(frame), None
        asked = parse_request(frame.raw, tcp=True)
        if asked is not None:
            heard = device.on_request(asked)
            return heard.answers, heard.connection
        if frame.pdu[0] in device.functions:
            refusal = Answer(0.0, frame.unit, bytes((frame.pdu[0] | 0x80, 0x03)))
            return (refusal,), None  # a read request of a length that none has
        return (device.on_function(frame.unit, frame.pdu[0]),), None

    def _device(self, unit: int) -> ModbusDevice | None:
        device = self._units.get(unit)
        if device is None and unit in (0, 255) and len(self._units) == 1:
            (device,) = self._units.values()
        return device

    def _unreached(self, frame: TcpFrame) -> tuple[Answer, ...]:
        if self._missing == "silent":
            return ()
        function = frame.pdu[0] | 0x80
        if self._missing == "no_path":
            return (Answer(0.0, frame.unit, bytes((function, NO_PATH))),)
        pdu = bytes((function, TARGET_SILENT))
        return (Answer(self._gateway_timeout_s, frame.unit, pdu),)


class _Client(asyncio.Protocol):
    """One connection. `mute`: it is half open from now on."""

    def __init__(self, server: ModbusTcpServer) -> None:
        self.mute = False
        self._server = server
        self._framer = Framer(request_delimiter(tcp=True))
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connected(self)

    def data_received(self, data: bytes) -> None:
        for event in self._framer.feed(data):
            if isinstance(event, FrameFound) and not self.mute:
                self._server.asked(self, event.raw)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        self._server.disconnected(self)

    def send(self, data: bytes) -> None:
        """Unless nobody is there, or the connection is mute."""
        if self._transport is None or self.mute:
            return
        if self._transport.get_write_buffer_size() > _UNREAD_MAX:
            self._server.dropped += len(data)
        else:
            self._transport.write(data)

    def abort(self) -> None:
        """Cut it."""
        if self._transport is not None:
            self._transport.abort()
