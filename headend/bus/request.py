"""What is asked of a bus, and what those who ask see of it."""

from collections.abc import Callable
from enum import Enum, IntEnum
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


class Late(Enum):
    """What a reply that comes after its time-out looks like, and so what has to be waited for.

    NAMED: it says which question it answers (device and item), so at worst it answers the same
        question again: the bus's own silence after a time-out is enough.
    ANONYMOUS: it looks like the answer to every question of the same shape. After a time-out
        nothing is sent until the line has been quiet for the bus's silence, and in no case sooner
        than twice the time-out after the request: a reply delayed by up to that never meets
        another question.
    NUMBERED: it carries the number of its request. Nothing has to be waited for.
    """

    NAMED = "named"
    ANONYMOUS = "anonymous"
    NUMBERED = "numbered"


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
    quiet_s, quiet_chars: the line is quiet for so long (seconds, character times of the line) at
        least before it is sent, counted from the last byte on it, theirs or ours; the bus's own
        gap holds beside it.
    late: what a reply that comes too late could be taken for.
    after_open_s: not sent sooner than this after the port was opened: devices that cannot be asked
        at once when a connection is made.
    at_sending: gives the request that really goes out, each time its turn to be sent has come: for
        bytes that say what time it is.
    recorded: what stands in records in place of the payload, a password blotted out. Bytes that
        come back beside the answer are then only counted: they may be an echo of it.
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
    quiet_s: float = 0.0
    quiet_chars: float = 0.0
    late: Late = Late.NAMED
    at_sending: "Callable[[], BusRequest] | None" = None
    recorded: bytes | None = None
    after_open_s: float = 0.0


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
