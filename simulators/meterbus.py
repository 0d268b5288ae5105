"""Several meters on one line: each hears everything, each answers for itself."""

from collections.abc import Iterable, Iterator, Sequence

from protocols.dlt645.frame import DELIMITER
from protocols.framing import FrameFound, Framer
from simulators.meter645 import Meter645
from simulators.wire import Transmission

_ADDRESS = slice(6, 0, -1)  # A5..A0 of a frame, high first
_WILD = 0xAA


class MeterBus:
    """A `Station` made of meters. Two meters of one address may hang on it, as they may in life."""

    def __init__(self, meters: Iterable[Meter645] = ()) -> None:
        self._meters: list[Meter645] = []
        self._by_address: dict[bytes, list[Meter645]] = {}
        self._framer = Framer(DELIMITER)
        for meter in meters:
            self.add(meter)

    def add(self, meter: Meter645) -> None:
        """Hang a meter on the line."""
        self._meters.append(meter)
        self._by_address.setdefault(bytes.fromhex(meter.address), []).append(meter)

    def remove(self, meter: Meter645) -> None:
        """Take a meter off the line."""
        self._meters.remove(meter)
        self._by_address[bytes.fromhex(meter.address)].remove(meter)

    def __iter__(self) -> Iterator[Meter645]:
        """The meters, as they were hung on."""
        return iter(tuple(self._meters))

    def receive(self, data: bytes, bad: Sequence[int]) -> list[Transmission]:
        """What the meters send because of these bytes; parity-damaged frames are not heard."""
        sent: list[Transmission] = []
        for event in self._framer.feed(data, bad):
            if isinstance(event, FrameFound):
                for meter in self._spoken_to(event.raw):
                    sent += meter.on_frame(event.raw)
        return sent

    def idle(self) -> None:
        """Give up what was begun; whatever stands in it is too old to be answered."""
        if self._framer.pending:
            self._framer.idle()

    def _spoken_to(self, raw: bytes) -> Sequence[Meter645]:
        address = raw[_ADDRESS]
        if address[0] == _WILD:
            return self._meters
        return self._by_address.get(address, ())
