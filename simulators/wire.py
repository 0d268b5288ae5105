"""A half-duplex medium with baud-true time, and an in-memory link onto it.

`Line` is the medium: what the master writes takes its time on the wire, reaches the stations, and
what they answer takes its time back. Two that speak at once damage each other, as on RS-485.
`WireLink` gives a master the line as a link (open, write, close, parity marks); `serve` puts ptys
and sockets in its place.

One character takes 11 bits at 8E1: 36 bytes at 2400 bit/s are 165 ms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from simulators.damage import Damaged, Damager
from simulators.schedule import AtOnce, Schedule

TB_S = 0.5  # the longest pause inside a frame: a line quiet for longer ends what was begun


@dataclass(frozen=True, slots=True)
class Transmission:
    """Bytes a station sends, `delay_s` after the last byte of what it answers.

    `bad`: indexes of characters it sends with a wrong parity bit.
    """

    delay_s: float
    data: bytes
    bad: tuple[int, ...] = ()


class Station(Protocol):
    """What hangs on a line: hears every byte, may answer."""

    def receive(self, data: bytes, bad: Sequence[int]) -> Sequence[Transmission]:
        """Bytes heard (`bad`: indexes with a parity error); what the station sends for them."""
        ...

    def idle(self) -> None:
        """The line was quiet for longer than a pause inside a frame."""
        ...


class Receiver(Protocol):
    """Where a link delivers to."""

    def bytes_received(self, data: bytes, bad: Sequence[int]) -> None:
        """Bytes from the line; `bad`: indexes of marked ones."""
        ...

    def link_lost(self, reason: Exception | None) -> None:
        """The link is gone."""
        ...


def char_seconds(baud: int | None, *, bits: int = 11) -> float:
    """Seconds a character takes: start, eight data, parity, stop = 11 bits; 0.0 without a baud."""
    return bits / baud if baud else 0.0


@dataclass(slots=True)
class _OnAir:
    """One transmission on the wire. Its bytes may still be damaged by another's until delivered."""

    start: float
    char_s: float
    data: bytearray
    bad: set[int] = field(default_factory=set)

    @property
    def end(self) -> float:
        return self.start + len(self.data) * self.char_s


class Line:
    """The medium between one master and its stations.

    `deliver(data, bad)` gets what reaches the master; in pieces of `chunk` characters, each at the
    instant its last character is over (None = whole transmissions). `echo`: the master hears its
    own bytes. `overhear`: stations hear each other, as on one pair of wires; what they make of it
    is theirs to say. `to_station` / `to_master` damage what passes in that direction.
    """

    def __init__(
        self,
        station: Station,
        deliver: Callable[[bytes, Sequence[int]], None],
        *,
        schedule: Schedule | None = None,
        baud: int | None = None,
        chunk: int | None = None,
        echo: bool = False,
        overhear: bool = False,
        to_station: Damager | None = None,
        to_master: Damager | None = None,
    ) -> None:
        self.station = station
        self.to_station = to_station
        self.to_master = to_master
        self.echo = echo
        self.overhear = overhear
        self.char_s = char_seconds(baud)
        self.collisions = 0
        self._deliver = deliver
        self._schedule: Schedule = schedule or AtOnce()
        self._chunk = chunk
        self._air: list[_OnAir] = []
        self._master_free = float("-inf")
        self._heard_until = float("-inf")
        self._open = True

    def send(self, data: bytes) -> None:
        """The master sends; behind what it is still sending. Never blocks."""
        if not data or not self._open:
            return
        start = max(self._schedule.now(), self._master_free)
        seen = self.to_station(data) if self.to_station else Damaged(data)
        air = _OnAir(start, self.char_s, bytearray(seen.data), set(seen.bad))
        self._collide(air)
        self._master_free = start + len(data) * self.char_s
        self._schedule.at(self._master_free, lambda: self._arrive(air))
        if self.echo:
            self._schedule.at(self._master_free, lambda: self._hand_over(data, ()))

    def close(self) -> None:
        """Nothing is heard or delivered any more."""
        self._open = False
        self._air.clear()

    def _arrive(self, air: _OnAir) -> None:
        """The last byte of a transmission is over: the stations have heard it."""
        if not self._open:
            return
        if air.start - self._heard_until > TB_S or isinstance(self._schedule, AtOnce):
            self.station.idle()
        self._heard_until = air.end
        replies = self.station.receive(bytes(air.data), sorted(air.bad))
        if not replies:
            return
        # From the end on the wire, not from now: a timer that came late delays nothing twice.
        batch = [self._transmission(air.end, reply) for reply in replies]
        for index, spoken in enumerate(batch):
            self._collide(spoken, at_once=batch[:index])
            self._plan(spoken)
            if self.overhear:
                self._schedule.at(spoken.end, partial(self._arrive, spoken))

    def _transmission(self, after: float, reply: Transmission) -> _OnAir:
        seen = self.to_master(reply.data) if self.to_master else Damaged(reply.data)
        if reply.bad and len(seen.data) == len(reply.data):
            # A parity bit that is wrong twice is right again.
            seen = Damaged(seen.data, tuple(sorted(set(seen.bad) ^ set(reply.bad))))
        return _OnAir(after + reply.delay_s, self.char_s, bytearray(seen.data), set(seen.bad))

    def _plan(self, air: _OnAir) -> None:
        """Deliver piece by piece, each when its last character is over."""
        size = self._chunk or max(1, len(air.data))
        for first in range(0, len(air.data), size):
            last = min(first + size, len(air.data))
            when = air.start + last * air.char_s
            self._schedule.at(when, partial(self._piece, air, first, last))

    def _piece(self, air: _OnAir, first: int, last: int) -> None:
        bad = [at - first for at in sorted(air.bad) if first <= at < last]
        self._hand_over(bytes(air.data[first:last]), bad)

    def _hand_over(self, data: bytes, bad: Sequence[int]) -> None:
        if self._open:
            self._deliver(data, bad)

    def _collide(self, new: _OnAir, at_once: Sequence[_OnAir] = ()) -> None:
        """Two at a time spoil each other. Without a baud only replies of one instant can."""
        if not self.char_s:
            for other in at_once:
                if other.start == new.start:
                    self.collisions += 1
                    _garble(new, other, 0, 0)
            return
        now = self._schedule.now()
        self._air = [air for air in self._air if air.end > now]
        for other in self._air:
            if other.start < new.end and new.start < other.end:
                self.collisions += 1
                shift = round((new.start - other.start) / self.char_s)
                _garble(new, other, max(0, -shift), max(0, shift))
        self._air.append(new)


def _garble(one: _OnAir, other: _OnAir, one_from: int, other_from: int) -> None:
    """Two drivers against each other: where they differ both read low, and parity is off."""
    overlap = min(len(one.data) - one_from, len(other.data) - other_from)
    for step in range(overlap):
        i, j = one_from + step, other_from + step
        if one.data[i] != other.data[j]:
            one.data[i] = other.data[j] = one.data[i] & other.data[j]
            one.bad.add(i)
            other.bad.add(j)


class WireLink:
    """A master's link onto a `Line` in memory.

    `parity_seen` False: bytes arrive as damaged as they are, without marks. `gone(message)` makes
    the exception a write on a lost link raises, so that a host can have its own.
    """

    def __init__(
        self,
        station: Station,
        *,
        name: str = "wire",
        schedule: Schedule | None = None,
        baud: int | None = None,
        parity_seen: bool = True,
        chunk: int | None = None,
        echo: bool = False,
        overhear: bool = False,
        to_station: Damager | None = None,
        to_master: Damager | None = None,
        gone: Callable[[str], Exception] = ConnectionResetError,
    ) -> None:
        self.name = name
        self.parity_seen = parity_seen
        self.char_s = char_seconds(baud)
        self.unplugged = False
        self.line = Line(
            station,
            self._bytes,
            schedule=schedule,
            baud=baud,
            chunk=chunk,
            echo=echo,
            overhear=overhear,
            to_station=to_station,
            to_master=to_master,
        )
        self._receiver: Receiver | None = None
        self._gone = gone

    async def open(self, receiver: Receiver) -> None:
        """Begin to deliver to `receiver`; what `gone` makes while the link is unplugged."""
        self.attach(receiver)

    def attach(self, receiver: Receiver) -> None:
        """`open` for callers without an event loop."""
        if self.unplugged:
            raise self._gone(f"{self.name} is not there")
        self._receiver = receiver

    def write(self, data: bytes) -> None:
        """Send; never blocks. What `gone` makes when the link is closed or unplugged."""
        if self._receiver is None:
            raise self._gone(f"{self.name} is not open")
        self.line.send(data)

    async def close(self) -> None:
        """Nothing is delivered any more, though the stations talk on; never raises."""
        self._receiver = None

    def unplug(self, reason: Exception | None = None) -> None:
        """The port is pulled out: the receiver is told, opening fails until `plug`."""
        receiver, self._receiver = self._receiver, None
        self.unplugged = True
        if receiver is not None:
            receiver.link_lost(reason or self._gone(f"{self.name} was pulled out"))

    def plug(self) -> None:
        """The port is back and may be opened again."""
        self.unplugged = False

    def _bytes(self, data: bytes, bad: Sequence[int]) -> None:
        if self._receiver is not None:
            self._receiver.bytes_received(data, bad if self.parity_seen else ())
