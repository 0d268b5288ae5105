"""Looks into the journal's file for many askers: a few threads, a time limit, a short memory.

What several ask for at once is read once. When it takes too long the asker is told so and goes on
without; the thread finishes, and what it found is there for the next one.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from headend.domain.clock import Clock
from headend.domain.errors import JournalError
from headend.journal import JournalReader

log = logging.getLogger(__name__)

THREADS = 2
FLYING_MAX = 8  # reads that may be under way or wait for a thread
TIME_LIMIT_S = 3.0
KEPT_MAX = 64
CLOSE_WAIT_S = 3.0

T = TypeVar("T")


class Unavailable(JournalError):
    """The journal could not be looked into just now."""


class Desk:
    """Use `ask`; `close` at the end. All of it on one event loop."""

    def __init__(self, path: Path, clock: Clock, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._path = path
        self._clock = clock
        self._time_limit_s = time_limit_s
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="status")
        self._flying: dict[Hashable, asyncio.Future[Any]] = {}
        self._kept: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()

    async def ask(
        self, key: Hashable, look: Callable[[JournalReader], T], *, fresh_s: float = 5.0
    ) -> T:
        """What `look` finds; an answer for `key` that is younger than `fresh_s` is given again.

        `look` runs in a thread and must not keep the reader. Unavailable when it takes too long,
        too many ask, or the journal cannot be read.
        """
        kept = self._kept.get(key)
        if kept is not None and self._clock.monotonic() - kept[0] < fresh_s:
            found: T = kept[1]
            return found
        flying = self._flying.get(key)
        if flying is None:
            if len(self._flying) >= FLYING_MAX:
                msg = "too many ask for the journal at once"
                raise Unavailable(msg)
            flying = asyncio.get_running_loop().run_in_executor(self._pool, self._look, look)
            self._flying[key] = flying
            flying.add_done_callback(lambda done: self._landed(key, done))
        try:
            async with asyncio.timeout(self._time_limit_s):
                answer: T = await asyncio.shield(flying)
        except TimeoutError:
            msg = f"the journal did not answer within {self._time_limit_s:g} s"
            raise Unavailable(msg) from None
        return answer

    async def close(self) -> None:
        """Wait a moment for the threads to let go of the file; nothing is asked any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._flying:
            await asyncio.wait(list(self._flying.values()), timeout=CLOSE_WAIT_S)

    def _look(self, look: Callable[[JournalReader], T]) -> T:
        with JournalReader(self._path) as reader:
            return look(reader)

    def _landed(self, key: Hashable, done: "asyncio.Future[Any]") -> None:
        self._flying.pop(key, None)
        if done.cancelled():
            return
        error = done.exception()  # also marks it as seen: the asker may have gone away
        if error is not None:
            log.debug("journal not read for %s: %s", key, error)
            return
        self._kept[key] = (self._clock.monotonic(), done.result())
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
