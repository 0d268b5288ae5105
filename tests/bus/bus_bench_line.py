"""What the bus tests share: a loop with virtual time, a scripted line, a tiny protocol.

Nothing here sleeps: the loop's clock jumps to the next timer.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from headend.bus import Bus, BusRequest, BusSettings, Priority
from headend.domain.errors import PortGone
from headend.domain.exchange import Exchange
from protocols.framing import Match, Rejected

WALL_MS = 1_800_000_000_000
CHAR_S = 11 / 2400


class _Jumping(selectors.DefaultSelector):
    """Never waits: moves the loop's clock to where the wait would have ended."""

    now = 1000.0

    def select(self, timeout=None):
        events = super().select(0)
        if not events:
            if timeout is None:
                raise AssertionError("everything waits and nothing will ever happen")
            self.now += max(0.0, timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self._jumping = _Jumping()
        super().__init__(self._jumping)
        self.problems: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _loop, context: self.problems.append(context))

    def time(self):
        return self._jumping.now


class LoopClock:
    """The virtual loop's time as a Clock."""

    def __init__(self, loop):
        self._loop = loop

    def now_ms(self):
        return WALL_MS + round((self._loop.time() - 1000.0) * 1000)

    def monotonic(self):
        return self._loop.time()


def run_virtual(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)


# The test protocol: 02, length, device, kind, question, data.., sum, 03.


def frame(device: str, kind: str, question: int = 1, data: bytes = b"") -> bytes:
    body = device.encode() + kind.encode() + bytes([question]) + data
    return b"\x02" + bytes([len(body)]) + body + bytes([sum(body) % 256, 3])


class TinyDelimiter:
    start = b"\x02"

    def measure(self, buffer, at):
        if len(buffer) - at < 2:
            return None
        size = buffer[at + 1] + 4
        if buffer[at + 1] < 3:
            return Rejected("dirt")
        if len(buffer) - at < size:
            return None
        if buffer[at + size - 1] != 3:
            return Rejected("end")
        if sum(buffer[at + 2 : at + size - 2]) % 256 != buffer[at + size - 2]:
            return Rejected("checksum")
        return size


def ask(device: str = "a", question: int = 1, **more: Any) -> BusRequest:
    payload = frame(device, "q", question)

    def match(raw: bytes) -> Match:
        who, kind, what = chr(raw[2]), chr(raw[3]), raw[4]
        if kind == "q":
            return Match.ECHO if raw == payload else Match.FOREIGN
        if who != device:
            return Match.FOREIGN
        if kind == "u":
            return Match.UNSOLICITED
        if what != question:
            return Match.STALE
        return Match.REPLY if kind == "r" else Match.REFUSAL

    reply_bytes = more.pop("reply_bytes", 9)
    return BusRequest(device, payload, TinyDelimiter(), match, reply_bytes, **more)


@dataclass
class Say:
    """Bytes of a peer: `after_s` from the end of the request, `gap_s` more between two bytes."""

    data: bytes
    after_s: float = 0.1
    gap_s: float = 0.0
    bad: tuple[int, ...] = ()


@dataclass
class FakeLink:
    """A line in memory. `peer(request, nth)` says what comes back; what was sent is in `sent`."""

    peer: Callable[[bytes, int], Sequence[Say]]
    char_s: float = CHAR_S
    name: str = "fake"
    parity_seen: bool = True
    sent: list[tuple[float, bytes]] = field(default_factory=list)
    opens: int = 0
    absent: bool = False
    receiver: Any = None
    path_there: bool = True

    async def open(self, receiver):
        await asyncio.sleep(0.001)
        if self.absent:
            raise PortGone(f"{self.name} is not there", bus=self.name)
        self.opens += 1
        self.receiver = receiver

    def present(self):
        return self.path_there

    def write(self, data):
        if self.receiver is None:
            raise PortGone(f"{self.name} is not open", bus=self.name)
        loop = asyncio.get_running_loop()
        self.sent.append((loop.time(), data))
        ended_s = len(data) * self.char_s
        for say in self.peer(data, len(self.sent)):
            self.say(say, ended_s)

    def say(self, say: Say, ended_s: float = 0.0):
        loop = asyncio.get_running_loop()
        for i, byte in enumerate(say.data):
            at = ended_s + say.after_s + (i + 1) * self.char_s + i * (say.gap_s + 1e-9)
            loop.call_later(at, self._arrive, bytes([byte]), (0,) if i in say.bad else ())

    def lose(self, reason=None):
        receiver, self.receiver = self.receiver, None
        receiver.link_lost(reason)

    async def close(self):
        self.receiver = None

    def _arrive(self, data, bad):
        if self.receiver is not None:
            self.receiver.bytes_received(data, bad)


def answer(request: bytes, data: bytes = b"xyz") -> bytes:
    return frame(chr(request[2]), "r", request[4], data)


def answering(request: bytes, _nth: int) -> list[Say]:
    return [Say(answer(request))]


def silent_for(*devices: str):
    def peer(request: bytes, nth: int) -> list[Say]:
        return [] if chr(request[2]) in devices else answering(request, nth)

    return peer


@dataclass
class Bench:
    bus: Bus
    link: FakeLink
    loop: VirtualLoop
    seen: list[Exchange]
    task: "asyncio.Task[None]"

    def outcomes(self) -> list[str]:
        return [str(e.outcome) for e in self.seen]


@asynccontextmanager
async def line(peer=answering, *, observer=None, link=None, **settings: Any):
    """A running bus on a scripted line."""
    loop = asyncio.get_running_loop()
    link = link or FakeLink(peer)
    seen: list[Exchange] = []
    bus = Bus(
        "b1",
        link,
        BusSettings(**settings),
        clock=LoopClock(loop),
        observer=observer or seen.append,
    )
    task = asyncio.create_task(bus.run(), name="bus")
    try:
        yield Bench(bus, link, loop, seen, task)
    finally:
        task.cancel()
        await asyncio.wait([task])


__all__ = ["Priority", "Say"]
