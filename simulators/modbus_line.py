"""Modbus devices on a line: a `Station` for each protocol, and all of them on one pair of wires."""

from collections.abc import Iterable, Iterator, Sequence

from protocols.errors import RemoteProtocolError
from protocols.framing import FrameFound, Framer
from protocols.modbus.adu import parse_rtu
from protocols.modbus.device import parse_request, request_delimiter
from protocols.modbus.master import ReadRequest
from simulators.faults import seeded
from simulators.modbus_meter import ModbusDevice
from simulators.wire import Station, Transmission


class ModbusBus:
    """A `Station` made of RTU devices, also behind a converter that passes the line's bytes on.

    Two devices of one unit may hang on it, as they may in life: both answer.
    """

    def __init__(self, devices: Iterable[ModbusDevice] = ()) -> None:
        self._devices: list[ModbusDevice] = []
        self._by_unit: dict[int, list[ModbusDevice]] = {}
        self._framer = Framer(request_delimiter(tcp=False))
        for device in devices:
            self.add(device)

    def add(self, device: ModbusDevice) -> None:
        """Hang a device on the line."""
        self._devices.append(device)
        self._by_unit.setdefault(device.settings.unit, []).append(device)

    def remove(self, device: ModbusDevice) -> None:
        """Take a device off the line."""
        self._devices.remove(device)
        self._by_unit[device.settings.unit].remove(device)

    def __iter__(self) -> Iterator[ModbusDevice]:
        """The devices, as they were hung on."""
        return iter(tuple(self._devices))

    def receive(self, data: bytes, bad: Sequence[int]) -> list[Transmission]:
        """What the devices send because of these bytes; damaged requests are not heard."""
        sent: list[Transmission] = []
        found = False
        for event in self._framer.feed(data, bad):
            if not isinstance(event, FrameFound):
                continue
            found = True
            asked = parse_request(event.raw, tcp=False)
            if asked is not None:
                sent += self._answers(asked)
        if not found and not bad:
            sent += self._other_function(data)
        return sent

    def idle(self) -> None:
        """Give up what was begun."""
        if self._framer.pending:
            self._framer.idle()

    def _answers(self, asked: ReadRequest) -> Iterator[Transmission]:
        for device in self._by_unit.get(asked.unit, ()):
            for one in device.on_request(asked).answers:
                yield Transmission(one.delay_s, one.frame(None))

    def _other_function(self, data: bytes) -> Iterator[Transmission]:
        """A whole frame with a function that these devices do not have is refused."""
        try:
            frame = parse_rtu(data)
        except RemoteProtocolError:
            return
        if frame.pdu[0] & 0x80:
            return  # another device's exception, overheard
        for device in self._by_unit.get(frame.unit, ()):
            one = device.on_function(frame.unit, frame.pdu[0])
            yield Transmission(one.delay_s, one.frame(None))


class Babbler:
    """A broken driver: bytes that nobody asked for, some time after whatever is said on the line.

    `probability` of speaking after what the master sends; `bytes_max` random bytes, up to
    `delay_max_ms` later, so that it also speaks while others do.
    """

    def __init__(
        self,
        *,
        probability: float = 0.2,
        bytes_max: int = 12,
        delay_max_ms: int = 300,
        seed: int = 0,
    ) -> None:
        self._probability = probability
        self._bytes_max = bytes_max
        self._delay_max_ms = delay_max_ms
        self._rng = seeded(seed)
        self.spoken = 0

    def receive(self, data: bytes, bad: Sequence[int]) -> list[Transmission]:  # noqa: ARG002
        """Now and then junk."""
        if self._rng.random() >= self._probability:
            return []
        self.spoken += 1
        junk = self._rng.randbytes(1 + self._rng.randrange(self._bytes_max))
        return [Transmission(self._rng.randrange(self._delay_max_ms + 1) / 1000, junk)]

    def idle(self) -> None:
        """Nothing is ever half heard."""


class SharedLine:
    """Stations of several protocols on one pair: each hears all, and ignores what is not for it."""

    def __init__(self, *stations: Station) -> None:
        self._stations = stations

    def receive(self, data: bytes, bad: Sequence[int]) -> list[Transmission]:
        """What all of them send."""
        return [sent for station in self._stations for sent in station.receive(data, bad)]

    def idle(self) -> None:
        """Every one gives up what it had begun."""
        for station in self._stations:
            station.idle()
