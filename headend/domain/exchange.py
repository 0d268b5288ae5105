"""One attempt on a bus as it really happened: the bytes, the times, the outcome.

This is the evidence that a reading leads back to.
"""

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from headend.domain.values import dataclass


class Outcome(StrEnum):
    """How one attempt ended."""

    REPLY = "reply"  # a reply that matched the request
    REFUSED = "refused"  # a matching refusal
    SILENCE = "silence"  # no byte came
    INCOMPLETE = "incomplete"  # a frame began and never ended
    DAMAGED = "damaged"  # bytes came, no frame passed its checks
    ECHO_ONLY = "echo_only"  # only our own request came back
    FOREIGN = "foreign"  # whole frames came, none was the answer
    PORT_GONE = "port_gone"  # the port broke during the attempt
    CANCELLED = "cancelled"
    UNREACHED = "unreached"  # a gateway answered in the device's place: it does not reach it

    __hash__ = str.__hash__  # of a plain Enum it would be a call into Python


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """One attempt. Compared by identity: two equal-looking attempts are two attempts.

    `request` is what was sent, wake-up bytes included; `reply` the accepted frame without them
    (None when there was none; of `unreached` what the gateway said); `stray` every other byte that
    came, in order, bounded by the bus.
    `sent_ms`/`received_ms` are UTC wall stamps of the request's first byte and of the reply's last
    byte (or of giving up); `took_ms` is the same span on the monotonic clock.
    """

    bus: str
    device: str
    request: bytes
    reply: bytes | None
    sent_ms: int
    received_ms: int
    took_ms: float
    attempt: int
    outcome: Outcome
    stray: bytes = b""

    @property
    def midpoint_ms(self) -> int:
        """The instant a live register of this exchange holds for (contract: its midpoint)."""
        return (self.sent_ms + self.received_ms) // 2
