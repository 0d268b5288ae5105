"""What a bus tells about itself: counters for status pages, watchdogs and plans."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from headend.bus.latency import LatencyCounts
from headend.domain.exchange import Outcome
from protocols.framing import Match

STRANGE: Mapping[str, Match] = {
    "late": Match.STALE,
    "foreign": Match.FOREIGN,
    "unasked": Match.UNSOLICITED,
    "echoed": Match.ECHO,
}
"""Kinds of whole frames that are no answer, as people and metrics are told them."""


class BusState(StrEnum):
    """What the bus is doing about its port."""

    STOPPED = "stopped"  # nobody runs it
    OPENING = "opening"  # first try
    OPEN = "open"
    GONE = "gone"  # not there; tried again
    BUSY = "busy"  # held by another program; tried again


@dataclass(frozen=True, slots=True)
class DeviceStatistics:
    """One device as the bus knows it. `next_probe_s`: seconds until a dead one is asked again."""

    attempts: int
    answers: int
    failed_in_row: int
    dead: bool
    next_probe_s: float


@dataclass(frozen=True, slots=True)
class BusStatistics:
    """A snapshot; counters since the bus was made.

    exchanges: attempts that reached the wire; outcomes: the same by how they ended.
    answered / failed: requests that ended with an answer / with NoAnswer.
    frames: whole good frames that were no answer to the request on the line, by what they were:
        STALE late, FOREIGN another device's, UNSOLICITED unasked for (reports, another master),
        ECHO our own request come back. Between attempts too, where the answer to the request before
        is late. Their bytes are stray bytes as well, except those of an exact echo.
    busy_s: time spent in attempts; elapsed_s: since the bus was first run; dead_s: the part of the
        line's time (attempt and the silence after it) that probes of dead devices took.
    steps: grows whenever the bus's task does anything at all, "port absent, trying again" too,
        and at least every few seconds on an idle line: a watchdog's food.
    marked_bytes: bytes that came with a parity or framing error, where the medium shows it.
    noise: pieces of an attempt's bytes that were no good frame, by the framer's reason.
    latency: of the attempts that were answered, refusals included.
    """

    state: BusState
    exchanges: int
    outcomes: dict[Outcome, int]
    answered: int
    failed: int
    refused_full: int
    deadline_passed: int
    dead_waiting: int
    stray_bytes: int
    observer_failures: int
    opens: int
    queue_len: int
    steps: int
    busy_s: float
    elapsed_s: float
    dead_s: float
    devices: dict[str, DeviceStatistics]
    bytes_sent: int = 0
    bytes_received: int = 0
    marked_bytes: int = 0
    noise: Mapping[str, int] = field(default_factory=dict)
    frames: Mapping[Match, int] = field(default_factory=dict)
    latency: LatencyCounts = field(default_factory=LatencyCounts)

    @property
    def strange(self) -> dict[str, int]:
        """`frames` by the names of STRANGE, every one of them."""
        return {name: self.frames.get(match, 0) for name, match in STRANGE.items()}

    @property
    def busy_share(self) -> float:
        """Part of the time the line was in use, 0..1."""
        return self.busy_s / self.elapsed_s if self.elapsed_s > 0 else 0.0
