"""How long answers take, as counts in fixed classes: cheap to add to, cheap to tell.

The classes are made for meters: at 2400 baud an answer takes a fifth of a second, at 9600 with a
quick meter a twentieth, over a network little, and a tired meter takes more than a second.
"""

from bisect import bisect_left
from dataclasses import dataclass

BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0)
"""Upper bounds, inclusive. What took longer than the last one is counted behind it."""


@dataclass(frozen=True, slots=True)
class LatencyCounts:
    """A snapshot. `counts` has one entry a bound of BOUNDS_S and one for what took longer."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    sum_s: float = 0.0

    @property
    def total(self) -> int:
        """Answers that were counted."""
        return sum(self.counts)

    def below_s(self, share: float) -> float | None:
        """The bound that `share` (0..1) of the answers do not exceed.

        None without answers; infinity when it lies beyond the last bound.
        """
        wanted, seen = share * self.total, 0
        if not self.total:
            return None
        for bound, count in zip(BOUNDS_S, self.counts, strict=False):
            seen += count
            if seen >= wanted:
                return bound
        return float("inf")


class Latency:
    """Counts. One call an answer."""

    __slots__ = ("_counts", "_sum_s")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        """One answer took so long, from the request's first byte to the reply's last."""
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._sum_s += seconds

    def snapshot(self) -> LatencyCounts:
        """What was counted so far."""
        return LatencyCounts(tuple(self._counts), self._sum_s)
