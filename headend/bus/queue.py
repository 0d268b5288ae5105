"""The waiting requests of one bus: by priority and with shares, first come first served within one.

Bounds, so that no class of work starves another (times are the line's, silences included):

- A request ON_DEMAND goes next, behind the exchange on the wire alone, unless this class has just
  had `ON_DEMAND_IN_ROW` turns in a row: then one turn is for whoever else is owed one.
- While more urgent requests wait all the time, the class behind them is owed a turn whenever others
  have used the line for `PATIENCE` times as long as its own last turn took; who is owed the most
  goes first. So in the long run BACKFILL has at least a tenth of the line against DUE, EVENTS a
  twentieth and STATISTICS a fiftieth; all of them together a fifth against ON_DEMAND.
- Each class has its own places: a flood of one does not keep another's requests from being taken.
- Who waits for a device that somebody asks for (`hurry`) counts as ON_DEMAND meanwhile: whatever
  holds that device up behind more urgent work would hold the person up as well.
- Within a class a request that has to be sent again keeps its place; its attempts are its bound.
"""

import heapq
from asyncio import Future
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from headend.bus.request import BusRequest, Priority
from headend.bus.shares import Shares
from headend.domain.exchange import Exchange, Outcome

ON_DEMAND_IN_ROW = 4
PATIENCE = {
    Priority.DUE: 4.0,
    Priority.BACKFILL: 9.0,
    Priority.EVENTS: 19.0,
    Priority.STATISTICS: 49.0,
}


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
    """At most `size_max` waiting requests of each class, and the one that is being repeated."""

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self._heaps: dict[int, list[Pending]] = {int(priority): [] for priority in Priority}
        self._shares = Shares[int]({int(p): patience for p, patience in PATIENCE.items()})
        self._on_demand_in_row = 0
        self._hurried: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return any(self._heaps.values())

    def __len__(self) -> int:
        return sum(len(heap) for heap in self._heaps.values())

    def is_full(self, priority: int) -> bool:
        """No new request of this class is taken."""
        return len(self._heaps[priority]) >= self.size_max

    @property
    def first(self) -> Pending:
        """Who is next; IndexError when nobody waits."""
        return self._next_heap()[0]

    def push(self, pending: Pending) -> None:
        """Put a request in its place."""
        if pending.request.device in self._hurried:
            pending.priority = int(Priority.ON_DEMAND)
        heapq.heappush(self._heaps[pending.priority], pending)

    def pop(self) -> Pending:
        """Take the first; IndexError when there is none."""
        return heapq.heappop(self._next_heap())

    def served(self, priority: int, seconds: float) -> None:
        """A request of this class had its turn and used so much of the line's time."""
        is_on_demand = priority == Priority.ON_DEMAND
        self._on_demand_in_row = self._on_demand_in_row + 1 if is_on_demand else 0
        self._shares.used(priority, seconds, [p for p, heap in self._heaps.items() if heap])

    @contextmanager
    def hurry(self, device: str) -> Iterator[None]:
        """Every request for a device counts as ON_DEMAND, also those that wait already."""
        self._hurried[device] += 1
        for heap in self._heaps.values():
            for pending in [p for p in heap if p.request.device == device]:
                self.discard(pending)
                self.push(pending)
        try:
            yield
        finally:
            self._hurried[device] -= 1
            if not self._hurried[device]:
                del self._hurried[device]

    def discard(self, pending: Pending) -> bool:
        """Take one out, wherever it stands; False when it is not (or no longer) there."""
        heap = self._heaps[pending.priority]
        for index, other in enumerate(heap):
            if other is pending:
                heap[index] = heap[-1]
                heap.pop()
                heapq.heapify(heap)
                return True
        return False

    def drain(self) -> list[Pending]:
        """Take all, in order."""
        taken = [pending for heap in self._heaps.values() for pending in sorted(heap)]
        for heap in self._heaps.values():
            heap.clear()
        return taken

    def _next_heap(self) -> list[Pending]:
        """The class whose turn it is; an empty one when nobody waits."""
        waiting = [priority for priority, heap in self._heaps.items() if heap]  # by urgency
        if not waiting:
            return self._heaps[Priority.ON_DEMAND]
        first, *others = waiting
        if others and (first != Priority.ON_DEMAND or self._on_demand_in_row >= ON_DEMAND_IN_ROW):
            most_owed = max(others, key=self._shares.owed)
            if self._shares.owed(most_owed) >= 1:
                return self._heaps[most_owed]
        return self._heaps[first]
