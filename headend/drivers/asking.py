"""What asking for points puts on a line: the figures that plans are made of."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ask:
    """One question with its answer.

    what: the identifier, or function and registers. request_bytes: everything that goes out,
    wake-up bytes included. reply_bytes: the frame that is expected; reply_wakeup: what meters as a
    rule send before it. times: 2 where the line cannot
    see damaged bytes and the value goes to a bill. quiet_s, quiet_chars: silence before it that the
    protocol or the device needs. frames: exchanges it takes, when the reply goes on in others; the
    bytes are those of all of them. points: what comes out of it; unused: registers of it that
    nobody wants, because leaving them out would cost another question.
    """

    what: str
    request_bytes: int
    reply_bytes: int
    reply_wakeup: int = 0
    times: int = 1
    quiet_s: float = 0.0
    quiet_chars: float = 0.0
    frames: int = 1
    points: tuple[str, ...] = ()
    unused: int = 0


@dataclass(frozen=True, slots=True)
class LinePace:
    """How fast one line is.

    char_s: seconds a byte takes (0: no wire time that counts). gap_s: silence before each request.
    turnaround_s: from the end of a request to the first byte of its reply. failed_s: what a request
    without an answer costs beyond its own bytes: the time-out, and the silence after it.
    lost_share: part of the requests that get none.
    """

    char_s: float
    gap_s: float
    turnaround_s: float
    failed_s: float = 0.0
    lost_share: float = 0.0

    def ask_s(self, ask: Ask) -> float:
        """Seconds until the next request may follow, once."""
        quiet_s = max(self.gap_s, ask.quiet_s, ask.quiet_chars * self.char_s)
        on_the_wire = ask.request_bytes + ask.reply_wakeup + ask.reply_bytes
        return on_the_wire * self.char_s + ask.frames * (quiet_s + self.turnaround_s)

    def needs_s(self, asks: Iterable[Ask]) -> float:
        """All of them as often as they are asked, when every request is answered."""
        return sum(ask.times * self.ask_s(ask) for ask in asks)

    def retries_s(self, asks: Iterable[Ask]) -> float:
        """What the requests that get no answer add, on average."""
        lost_s = sum(
            ask.times * (self.failed_s + ask.request_bytes * self.char_s + self.gap_s)
            for ask in asks
        )
        return lost_s * self.lost_share / (1 - self.lost_share)
