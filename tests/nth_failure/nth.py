"""The n-th of something fails: the counting, the loop over n, and a wait for the outside world."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

MANY = 16
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
    """What one run showed. `asked`: its steps that could have failed, `hits`: those that did.

    `due`: how many points its due lists hold.
    """

    n: int
    asked: int
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


def until_untouched(kind: str, run: Callable[[int], Run]) -> Loop:
    """Run for every n until a run passes untouched. That one says what a whole run is."""
    runs: list[Run] = []
    for n in count(1):
        assert n < N_MAX, f"{kind}: no end at n={n}"
        runs.append(run(n))
        if not runs[-1].hits:
            break
    return _judged(kind, runs)


def for_a_few(kind: str, run: Callable[[int], Run]) -> Loop:
    """Run untouched, and then for the first two n, the last two, and one between where many are.

    Two, because runs differ by a step now and then.
    """
    whole = run(N_MAX)
    last = whole.asked
    numbers = {1, 2, last - 1, last} | ({last // 2} if last >= MANY else set())
    return _judged(kind, [*(run(n) for n in sorted(numbers) if n >= 1), whole])


def _judged(kind: str, runs: list[Run]) -> Loop:
    """What the runs came to; the last of them was touched by nothing."""
    whole = runs[-1]
    loop = Loop(kind, runs=len(runs))
    for one in runs:
        if one.hits:
            loop.reached, loop.hits = one.n, loop.hits + one.hits
        findings = list(one.findings)
        if one.due != whole.due:
            findings.append(f"{one.due} points were due, and {whole.due} without a failure")
        loop.findings += [f"{kind}, n={one.n}: {text}" for text in findings]
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
