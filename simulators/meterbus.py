"""Several meters on one line: each hears everything, each answers for itself."""

from collections.abc import Iterable, Iterator, Sequence

from protocols.dlt645.frame import DELIMITER
from protocols.framing import FrameFound, Framer
from simulators.faults import seeded
from simulators.meter645 import Meter645
from simulators.wire import Transmission

_ADDRESS = slice(6, 0, -1)  # A5..A0 of a frame, high first
_TO_SEVERAL = (0xAA, 0x99)  # what the address of a wildcard or broadcast begins with
_WRITES = frozenset((0x04, 0x0A, 0x14, 0x15))  # what can give a meter another address


class MeterBus:
    """A `Station` made of meters. Two meters of one address may hang on it, as they may in life.

    When several answer one frame their replies collide on the line. `capture`: the share of such
    collisions in which one of them, drawn by `seed`, is so much stronger that it alone is heard.
    `speed`: bit/s of the line, where that is known: a meter that changed its own to another speed
    does not understand it.
    """

    def __init__(
        self,
        meters: Iterable[Meter645] = (),
        *,
        capture: float = 0.0,
        seed: int = 0,
        speed: int | None = None,
    ) -> None:
        if not 0.0 <= capture <= 1.0:
            msg = f"a share is 0..1, not {capture}"
            raise ValueError(msg)
        self.capture = capture
        self.speed = speed
        self.captured = 0
        self._rng = seeded(seed)
        self._meters: list[Meter645] = []
        self._by_address: dict[bytes, list[Meter645]] = {}
        self._framer = Framer(DELIMITER)
        for meter in meters:
            self.add(meter)

    def add(self, meter: Meter645) -> None:
        """Hang a meter on the line."""
        self._meters.append(meter)
        self._index()

    def remove(self, meter: Meter645) -> None:
        """Take a meter off the line."""
        self._meters.remove(meter)
        self._index()

    def __iter__(self) -> Iterator[Meter645]:
        """The meters, as they were hung on."""
        return iter(tuple(self._meters))

    def at_speed(self, speed: int) -> int | None:
        """The master's side runs at `speed` from now on; the pace of bytes then, None = as before.

        Only a meter that was told to change its speed sets the pace of its line anew.
        """
        self.speed = speed
        return speed if any(meter.state.speed == speed for meter in self._meters) else None

    def receive(self, data: bytes, bad: Sequence[int]) -> list[Transmission]:
        """What the meters send because of these bytes; parity-damaged frames are not heard."""
        sent: list[Transmission] = []
        for event in self._framer.feed(data, bad):
            if isinstance(event, FrameFound):
                sent += self._answers(event.raw)
        return sent

    def idle(self) -> None:
        """Give up what was begun; whatever stands in it is too old to be answered."""
        if self._framer.pending:
            self._framer.idle()

    def _answers(self, raw: bytes) -> list[Transmission]:
        answers = [meter.on_frame(raw) for meter in self._spoken_to(raw) if meter.hears(self.speed)]
        if raw[8] in _WRITES:
            self._index()
        answers = [answer for answer in answers if answer]
        if len(answers) > 1 and self.capture and self._rng.random() < self.capture:
            self.captured += 1
            answers = [self._rng.choice(answers)]
        return [one for answer in answers for one in answer]

    def _spoken_to(self, raw: bytes) -> Sequence[Meter645]:
        address = raw[_ADDRESS]
        if address[0] in _TO_SEVERAL:
            return self._meters
        return self._by_address.get(address, ())

    def _index(self) -> None:
        self._by_address = {}
        for meter in self._meters:
            self._by_address.setdefault(bytes.fromhex(meter.address), []).append(meter)
