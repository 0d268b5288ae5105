"""When things happen on a simulated medium: at once, in virtual time, or on an event loop.

The same `Line` runs in all three: at once for proofs with many thousand frames, in virtual time for
compressed runs, on a real loop's timers behind ptys and sockets.
"""

import asyncio
import heapq
import selectors
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

Call = Callable[[], None]


class Schedule(Protocol):
    """A time axis in seconds and a way to be called on it."""

    def now(self) -> float:
        """Seconds; the zero means nothing."""
        ...

    def at(self, when: float, call: Call) -> None:
        """Call once `when` has come; calls for the same instant keep their order."""
        ...


class AtOnce:
    """No time passes: calls run before the outermost `at` returns, in the order they were made."""

    def __init__(self) -> None:
        self._waiting: deque[Call] = deque()
        self._running = False

    def now(self) -> float:
        """Always 0."""
        return 0.0

    def at(self, when: float, call: Call) -> None:  # noqa: ARG002 - the schedule's signature
        """Run the call now, or behind the one that is running."""
        self._waiting.append(call)
        if self._running:
            return
        self._running = True
        try:
            while self._waiting:
                self._waiting.popleft()()
        finally:
            self._running = False
            self._waiting.clear()


class VirtualClock:
    """Time that passes only when told to; also a clock for whoever asks for stamps."""

    def __init__(self, *, start_ms: int = 1_700_000_000_000) -> None:
        self._start_ms = start_ms
        self._now = 0.0
        self._count = 0
        self._heap: list[tuple[float, int, Call]] = []

    def now(self) -> float:
        """Seconds since this clock was made."""
        return self._now

    def monotonic(self) -> float:
        """The same as `now`."""
        return self._now

    def now_ms(self) -> int:
        """Wall stamp: the start plus what has passed, whole milliseconds."""
        return self._start_ms + int(self._now * 1000)

    def at(self, when: float, call: Call) -> None:
        """Call when time reaches `when` (a time gone by = at the next step)."""
        self._count += 1
        heapq.heappush(self._heap, (max(when, self._now), self._count, call))

    def advance(self, seconds: float) -> None:
        """Let time pass and make every call that falls due, at its own instant."""
        until = self._now + seconds
        while self._heap and self._heap[0][0] <= until:
            self._step()
        self._now = until

    def run(self, *, steps_max: int = 1_000_000) -> None:
        """Until nothing waits; RuntimeError after `steps_max` calls (something feeds itself)."""
        for _ in range(steps_max):
            if not self._heap:
                return
            self._step()
        msg = f"calls were still waiting after {steps_max} steps"
        raise RuntimeError(msg)

    def _step(self) -> None:
        when, _, call = heapq.heappop(self._heap)
        self._now = when
        call()


class LoopSchedule:
    """The timers of an event loop (real, or a `VirtualTimeLoop`)."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()

    def now(self) -> float:
        """The loop's time."""
        return self._loop.time()

    def at(self, when: float, call: Call) -> None:
        """Through `call_at`; never synchronously."""
        self._loop.call_at(when, call)


class _NoWaitSelector(selectors.DefaultSelector):
    """Looks at its files without waiting and adds the time not waited to a virtual clock."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:  # nothing is timed: only a file or another thread can wake us
            return super().select(None)
        self.passed_s += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers fire without waiting: a day of sleeps passes in moments.

    For in-memory links only. Work in other threads takes no virtual time, so while a thread is busy
    time-outs may fire that would not in real time: keep such waits free of deadlines.
    """

    def __init__(self, *, start_ms: int = 1_700_000_000_000) -> None:
        self._no_wait = _NoWaitSelector()
        self._start_ms = start_ms
        super().__init__(self._no_wait)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._no_wait.passed_s

    def monotonic(self) -> float:
        """The same as `time`: this loop can be handed out as a clock."""
        return self.time()

    def now_ms(self) -> int:
        """Wall stamp in virtual time."""
        return self._start_ms + int(self.time() * 1000)


def run_virtual(
    main: Callable[[VirtualTimeLoop], Any], *, start_ms: int = 1_700_000_000_000
) -> Any:  # noqa: ANN401 - whatever the coroutine returns
    """Run the coroutine that `main(loop)` gives on a `VirtualTimeLoop` and return its result."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start_ms=start_ms)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualTimeLoop)
        return runner.run(main(loop))
