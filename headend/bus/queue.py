"""The waiting requests of one bus: by priority, first come first served within one."""

import heapq
from asyncio import Future
from dataclasses import dataclass, field

from headend.bus.request import BusRequest
from headend.domain.exchange import Exchange, Outcome


@dataclass(slots=True, order=True)
class Pending:
    """One request on its way. Keeps its place in the order when it has to be sent again."""

    priority: int
    number: int
    request: BusRequest = field(compare=False)
    future: Future[Exchange] = field(compare=False)
    entered_at: float = field(compare=False)
    attempts: int = field(default=0, compare=False)
    outcomes: list[Outcome] = field(default_factory=list, compare=False)


class RequestQueue:
    """At most `size_max` waiting requests, one more for the one that is being repeated."""

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self._heap: list[Pending] = []

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def full(self) -> bool:
        """No new request is taken."""
        return len(self._heap) >= self.size_max

    @property
    def first(self) -> Pending:
        """Who is next; IndexError when nobody waits."""
        return self._heap[0]

    def push(self, pending: Pending) -> None:
        """Put a request in its place."""
        heapq.heappush(self._heap, pending)

    def pop(self) -> Pending:
        """Take the first; IndexError when there is none."""
        return heapq.heappop(self._heap)

    def discard(self, pending: Pending) -> bool:
        """Take one out, wherever it stands; False when it is not (or no longer) there."""
        for index, other in enumerate(self._heap):
            if other is pending:
                self._heap[index] = self._heap[-1]
                self._heap.pop()
                heapq.heapify(self._heap)
                return True
        return False

    def drain(self) -> list[Pending]:
        """Take all, in order."""
        taken = sorted(self._heap)
        self._heap.clear()
        return taken
