"""Whole frames that come while nobody waits for one: counted by kind, never believed.

What a late meter says after its time-out, another master's talk, a second copy of an answer. They
are held against the request that was on the line last; what answers that one is late by now.
"""

from collections.abc import Sequence

from headend.bus.request import BusRequest
from protocols.framing import Event, FrameFound, Framer, Match

_TOO_LATE = frozenset({Match.REPLY, Match.REFUSAL, Match.UNREACHED})


class Between:
    """The time after one attempt, until the next."""

    __slots__ = ("_framer", "_request")

    def __init__(self, request: BusRequest) -> None:
        self._request = request
        self._framer: Framer | None = None

    def feed(self, data: bytes, bad: Sequence[int]) -> list[Match]:
        """Take bytes as they came; the kind of each whole good frame among them."""
        if self._framer is None:
            self._framer = Framer(self._request.delimiter)
        return self._kinds(self._framer.feed(data, bad))

    def end(self) -> list[Match]:
        """The next request goes out: what is held back is looked through once more."""
        return [] if self._framer is None else self._kinds(self._framer.idle())

    def _kinds(self, events: list[Event]) -> list[Match]:
        found = [self._request.match(e.raw) for e in events if isinstance(e, FrameFound)]
        return [Match.STALE if match in _TOO_LATE else match for match in found]
