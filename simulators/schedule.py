"""When things happen on a simulated medium: at once, in virtual time, or on an event loop.

The same `Line` runs in all three: at once for proofs with many thousand frames, in virtual time for
compressed runs, on a real loop's timers behind ptys and sockets.
"""

import asyncio
import heapq
import selectors
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack

Call = Callable[[], None]
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_LOOK_AGAIN_S = 0.02  # real seconds, while a thread is at work: its answer wakes the loop earlier


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
    """Looks at its files without waiting and adds the time not waited to a virtual clock.

    While another thread is at work only so much virtual time passes as its hold allows; then the
    wait is a real one, until that thread has something to tell.
    """

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0
        self.calls_out = 0  # calls in executors whose answers the loop does not have yet
        self.holds: list[_Hold] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:  # nothing is timed: only a file or another thread can wake us
            return super().select(None)
        pass_s = min([timeout, *(hold.allows_s(self.passed_s) for hold in self.holds)])
        if self.calls_out or pass_s <= 0:
            return super().select(_LOOK_AGAIN_S)
        self.passed_s += pass_s
        return []


class _Hold:
    """How far virtual time may go on while a thread is at work.

    `mark()` is None while it is not; while it is, at most `slack_s` pass for each value.
    """

    def __init__(self, mark: Callable[[], object], slack_s: float) -> None:
        self._mark = mark
        self._slack_s = slack_s
        self._since: tuple[object, float] | None = None

    def allows_s(self, now: float) -> float:
        """Seconds from now on that may pass before the thread must have told something."""
        mark = self._mark()
        if mark is None:
            self._since = None
            return float("inf")
        if self._since is None or self._since[0] != mark:
            self._since = (mark, now)
        return self._since[1] + self._slack_s - now


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers fire without waiting: a day of sleeps passes in moments.

    Links in memory and sockets whose both ends this loop serves take no virtual time. No timer
    fires while a call in an executor is out; threads of other kinds need a `hold`.
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

    def hold(self, mark: Callable[[], object], *, slack_s: float = 0.0) -> None:
        """Let a thread that wakes this loop by itself keep up with virtual time.

        `mark()` says what it works on, None while nobody waits for it. While the mark stays the
        same, at most `slack_s` of virtual time pass.
        """
        self._no_wait.holds.append(_Hold(mark, slack_s))

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> "asyncio.Future[_T]":
        """As every loop does; virtual time stands until the answer is here."""
        future: asyncio.Future[_T] = super().run_in_executor(executor, func, *args)
        self._no_wait.calls_out += 1
        future.add_done_callback(self._call_came_back)
        return future

    def _call_came_back(self, _future: "asyncio.Future[Any]") -> None:
        self._no_wait.calls_out -= 1


def run_virtual(
    main: Callable[[VirtualTimeLoop], Any], *, start_ms: int = 1_700_000_000_000
) -> Any:  # noqa: ANN401 - whatever the coroutine returns
    """Run the coroutine that `main(loop)` gives on a `VirtualTimeLoop` and return its result."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start_ms=start_ms)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualTimeLoop)
        return runner.run(main(loop))
