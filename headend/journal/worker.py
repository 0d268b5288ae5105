"""The writer thread: a bounded queue in, one transaction a group, one hop back a group."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from headend.journal.model import JournalSettings
from headend.journal.writer import GroupOp, Op, Outcomes, SoloOp, Writer

IDLE_CHECKPOINT_S = 2.0
LOOK_S = 1.0  # how often the file's name is looked at while nothing is written


class WriterThread:
    """Groups what is handed over and has the writer commit it.

    A group is committed at once when the last commit is `group_gap_ms` ago (or four times as long
    as that commit took, on slow storage), so a lone reading waits for nothing and a stream of
    them shares its commits; at the latest `group_wait_ms` after its first waiting member, or when
    `group_rows` are there. What nobody waits for rides along, or goes within `lazy_ms`.
    """

    def __init__(
        self,
        writer: Writer,
        settings: JournalSettings,
        loop: asyncio.AbstractEventLoop,
        finished: Callable[[Outcomes, int], None],
        ended: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._settings = settings
        self._loop = loop
        self._finished = finished
        self._ended = ended
        self._condition = threading.Condition()
        self._queue: deque[Op] = deque()
        self._rows = 0
        self._urgent_since: float | None = None
        self._lazy_since: float | None = None
        self._closing = False
        self._sleeping = False
        self._worked = False
        self._last_end = 0.0
        self._last_took = 0.0
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, ops: Iterable[Op]) -> None:
        """Hand operations over, in order (from the event loop; never blocks for long)."""
        # Real time, not the injected clock: how long the thread waits is no business of a
        # simulation's calendar.
        now = time.monotonic()
        with self._condition:
            for op in ops:
                self._queue.append(op)
                self._rows += op.rows
                if op.lazy:
                    if self._lazy_since is None:
                        self._lazy_since = now
                elif self._urgent_since is None:
                    self._urgent_since = now
            if self._sleeping:
                self._condition.notify()

    def close(self) -> None:
        """Commit what was handed over, then end. `ended` is called on the loop."""
        with self._condition:
            self._closing = True
            self._condition.notify()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    # -- in the thread

    def _run(self) -> None:
        try:
            while True:
                ops = self._take()
                if ops is None:
                    break
                if ops:
                    self._commit(ops)
                elif self._worked:
                    self._worked = False
                    self._writer.tidy()
                else:
                    self._writer.look_at_file()
                if self._writer.is_replaced:
                    break  # nothing more can be kept: the process ends, the next start goes on
        finally:
            try:
                self._writer.close()
            finally:  # whatever it was: who waits for this thread must not wait for ever
                self._loop.call_soon_threadsafe(self._ended)

    def _take(self) -> list[Op] | None:
        """The next group; None at the end; empty when none has come for a while."""
        with self._condition:
            while True:
                wait_s = self._wait_s()
                if self._closing:
                    return self._next_group() if self._queue else None
                if wait_s is None:
                    if not self._sleep(IDLE_CHECKPOINT_S if self._worked else LOOK_S):
                        return []
                elif wait_s > 0:
                    self._sleep(wait_s)
                else:
                    self._worked = True
                    return self._next_group()

    def _sleep(self, wait_s: float | None) -> bool:
        self._sleeping = True
        notified = self._condition.wait(wait_s)
        self._sleeping = False
        return notified

    def _wait_s(self) -> float | None:
        """Seconds until the next commit; None when there is nothing to commit."""
        if not self._queue:
            return None
        if self._rows >= self._settings.group_rows:
            return 0.0
        now = time.monotonic()
        if self._urgent_since is None:
            assert self._lazy_since is not None
            return self._lazy_since + self._settings.lazy_ms / 1000 - now
        gap_s = max(self._settings.group_gap_ms / 1000, 4 * self._last_took)
        latest = self._urgent_since + self._settings.group_wait_ms / 1000
        return min(self._last_end + gap_s, latest) - now

    def _next_group(self) -> list[Op]:
        ops: list[Op] = []
        rows = 0
        queue = self._queue
        while queue and rows < self._settings.group_rows_max:
            solo = isinstance(queue[0], SoloOp)
            if solo and ops:
                break
            op = queue.popleft()
            rows += op.rows
            ops.append(op)
            if solo:
                break
        self._rows -= rows
        now = time.monotonic()
        urgent = any(not op.lazy for op in queue)
        self._urgent_since = now if urgent else None
        self._lazy_since = now if queue else None
        return ops

    def _commit(self, ops: list[Op]) -> None:
        begun = time.monotonic()
        first = ops[0]
        if isinstance(first, SoloOp):
            outcomes = self._writer.commit_solo(first)
        else:
            group: list[GroupOp] = [op for op in ops if not isinstance(op, SoloOp)]
            outcomes = self._writer.commit_group(group)
        self._last_end = time.monotonic()
        self._last_took = self._last_end - begun
        self._loop.call_soon_threadsafe(self._finished, outcomes, sum([op.rows for op in ops]))
