"""What is asked of a bus, and what those who ask see of it."""

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from headend.domain.exchange import Exchange
from protocols.framing import Delimiter, Match

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from headend.domain.values import dataclass


class Priority(IntEnum):
    """Who goes first. A lower number overtakes, between two attempts too."""

    ON_DEMAND = 0
    DUE = 1
    BACKFILL = 2
    EVENTS = 3
    STATISTICS = 4


@dataclass(frozen=True, slots=True)
class BusRequest:
    """One question to one device.

    device: who is asked: the key of dead-meter accounting.
    payload: exactly what goes out, wake-up bytes included.
    match: what a whole frame is to this request; pure and quick.
    reply_bytes: length of the expected reply frame, for the time-out.
    attempts: how often it may be sent at most; only silence and damage are repeated.
    timeout_s: from the end of the request on the wire to the end of the reply; None: turnaround
        of the bus + margin + the reply's time on the wire.
    deadline: Clock.monotonic(); nothing is sent after it.
    """

    device: str
    payload: bytes
    delimiter: Delimiter
    match: Callable[[bytes], Match]
    reply_bytes: int
    priority: Priority = Priority.DUE
    attempts: int = 3
    timeout_s: float | None = None
    deadline: float | None = None


class BusPort(Protocol):
    """A bus as drivers see it."""

    @property
    def name(self) -> str:
        """The bus's name in the configuration."""
        ...

    @property
    def parity_seen(self) -> bool:
        """Damaged bytes are marked by the medium."""
        ...

    async def exchange(self, request: BusRequest) -> Exchange:
        """Outcome REPLY or REFUSED; NoAnswer, PortGone, DeadlinePassed, QueueFull otherwise."""
        ...
