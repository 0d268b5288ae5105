"""Whether the head-end may believe its own clock. Pure.

A machine without a battery starts in 1970, or at the time of its last shutdown. Readings stamped by
such a clock would be wrong for ever, and the readings after them would be judged by them.
"""

from dataclasses import dataclass
from typing import Literal

Trust = Literal["auto", "synchronised", "machine"]
"""What a configuration says: `synchronised`: only a clock that was synchronised is believed;
`machine`: the machine's clock is right; `auto`: as `synchronised` where a time service runs on a
machine without a clock of its own that goes on without power, as `machine` elsewhere."""

NOT_SYNCHRONISED = "not_synchronised"
WENT_BACK = "went_back"
NOT_SET = "not_set"

WENT_BACK_MS = 10_000  # a clock is corrected by less without having been wrong
NOT_SET_MS = 1_704_067_200_000  # 2024-01-01: no clock that is set shows a time before this program
STEADY_MS = 60_000  # a machine's two clocks part by less, over months, when nobody sets one


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """What is known of the machine's clock at one look.

    `newest_ms`: the newest stamp that was given by an earlier run, None without one. `believed_ms`:
    the distance of wall clock and elapsed time at which it was believed earlier since the machine
    was started, None when it was not; `distance_ms`: the distance now.
    """

    now_ms: int
    synchronised: bool
    has_service: bool
    newest_ms: int | None
    believed_ms: float | None
    distance_ms: float


def distrust(trust: Trust, facts: ClockFacts) -> str | None:
    """Why the clock is not believed; None when it is."""
    if facts.synchronised:
        return None
    if facts.newest_ms is not None and facts.now_ms < facts.newest_ms - WENT_BACK_MS:
        return WENT_BACK
    if facts.now_ms < NOT_SET_MS:
        return NOT_SET
    believed_ms = facts.believed_ms
    if believed_ms is not None and abs(facts.distance_ms - believed_ms) < STEADY_MS:
        return None
    must_wait = trust == "synchronised" or (trust == "auto" and facts.has_service)
    return NOT_SYNCHRONISED if must_wait else None
