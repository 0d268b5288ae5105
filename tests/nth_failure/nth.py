"""The n-th of something fails: the counting, the loop over n, and a wait for the outside world."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

N_MAX = 2000  # a loop that never runs dry is a fault of the loop


@dataclass
class Nth:
    """Lets the first `n` - 1 of some steps pass and `times` from there on fail.

    `asked` counts them all; `hits` the failures.
    """

    n: int
    times: int = 1
    asked: int = 0
    hits: int = 0

    def fails(self) -> bool:
        """One more step: whether it is to fail."""
        self.asked += 1
        is_hit = self.n <= self.asked < self.n + self.times
        self.hits += is_hit
        return is_hit


@dataclass
class Run:
    """What one run showed. `due`: how many points its due lists hold."""

    n: int
    hits: int
    due: int
    findings: list[str] = field(default_factory=list)


@dataclass
class Loop:
    """What a loop over n came to: how far it went, what it hit, what was not as promised."""

    kind: str
    reached: int = 0
    hits: int = 0
    runs: int = 0
    findings: list[str] = field(default_factory=list)

    def line(self) -> str:
        """For people."""
        return (
            f"{self.kind}: n up to {self.reached}, {self.hits} failures in {self.runs} runs, "
            f"findings {len(self.findings)}"
        )


def in_leaps() -> Iterator[int]:
    """1, 2, 8, 32, .. for who has little time."""
    yield 1
    n = 2
    while True:
        yield n
        n *= 4


def until_untouched(kind: str, run: Callable[[int], Run], numbers: Iterator[int]) -> Loop:
    """Run for every n until a run passes untouched. That one says what a whole run is."""
    loop = Loop(kind)
    runs: list[Run] = []
    for n in numbers:
        one = run(n)
        runs.append(one)
        loop.findings += [f"{kind}, n={n}: {text}" for text in one.findings]
        if not one.hits:
            break
        loop.reached, loop.hits = n, loop.hits + one.hits
        assert n < N_MAX, f"{kind}: no end at n={n}"
    loop.runs = len(runs)
    whole = runs[-1].due
    loop.findings += [
        f"{kind}, n={one.n}: {one.due} points were due, and {whole} without a failure"
        for one in runs
        if one.due != whole
    ]
    return loop


class Patience:
    """What virtual time waits for, given up when it has not changed for `real_s` seconds.

    For answers that may never come, because the fault under test has eaten them. `given_up` is
    called each time.
    """

    def __init__(
        self, mark: Callable[[], object], real_s: float, given_up: Callable[[], None] = lambda: None
    ) -> None:
        self._mark = mark
        self._real_s = real_s
        self._given_up = given_up
        self._seen: object = None
        self._since = 0.0

    def __call__(self) -> object:
        """The mark while it is worth waiting for; None otherwise."""
        mark, now = self._mark(), time.monotonic()
        if mark != self._seen:
            self._seen, self._since = mark, now
        if mark is None or now - self._since <= self._real_s:
            return mark
        self._given_up()
        return None
