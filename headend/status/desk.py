"""Looks into the journal's file for many askers: a few threads, a time limit, a short memory.

What several ask for at once is read once. What took long is kept for longer, so that looking costs
a bounded part of a thread however often it is done. When it takes too long the asker gets what was
found a little while ago, or is told so and goes on without; the thread finishes, and what it found
is there for the next one.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from headend.domain.clock import Clock
from headend.domain.errors import JournalError
from headend.journal import JournalReader

log = logging.getLogger(__name__)

THREADS = 2
FLYING_MAX = 8  # reads that may be under way or wait for a thread
TIME_LIMIT_S = 3.0
KEPT_MAX = 64
KEPT_FOR_ITS_COST = 20  # an answer is kept for so many times what it took, at least
KEPT_FOR_ITS_COST_MAX_S = 120.0
STALE_S = 60.0  # an answer of this age is still better than none
CLOSE_WAIT_S = 3.0

T = TypeVar("T")


class Unavailable(JournalError):
    """The journal could not be looked into just now."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was found, when, and how long it took."""

    found: Any
    at: float
    took_s: float

    def is_fresh(self, now: float, fresh_s: float) -> bool:
        costly_s = min(KEPT_FOR_ITS_COST * self.took_s, KEPT_FOR_ITS_COST_MAX_S)
        return now - self.at < max(fresh_s, costly_s) if fresh_s else False


class Desk:
    """Use `ask`; `close` at the end. All of it on one event loop."""

    def __init__(self, path: Path, clock: Clock, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._path = path
        self._clock = clock
        self._time_limit_s = time_limit_s
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="status")
        self._flying: dict[Hashable, asyncio.Future[_Answer]] = {}
        self._kept: OrderedDict[Hashable, _Answer] = OrderedDict()

    async def ask(
        self, key: Hashable, look: Callable[[JournalReader], T], *, fresh_s: float = 5.0
    ) -> T:
        """What `look` finds; an answer for `key` that is younger than `fresh_s` is given again.

        `look` runs in a thread and must not keep the reader. Unavailable (a JournalError) when it
        takes too long or too many ask, and nothing is known of the last minute; JournalError when
        the journal cannot be read.
        """
        kept = self._kept.get(key)
        now = self._clock.monotonic()
        if kept is not None and kept.is_fresh(now, fresh_s):
            return cast("T", kept.found)
        try:
            return cast("T", (await self._found(key, look)).found)
        except Unavailable:
            if kept is not None and fresh_s and now - kept.at < STALE_S:
                return cast("T", kept.found)
            raise

    async def _found(self, key: Hashable, look: Callable[[JournalReader], Any]) -> _Answer:
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
                return await asyncio.shield(flying)
        except TimeoutError:
            msg = f"the journal did not answer within {self._time_limit_s:g} s"
            raise Unavailable(msg) from None

    async def close(self) -> None:
        """Wait a moment for the threads to let go of the file; nothing is asked any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._flying:
            await asyncio.wait(list(self._flying.values()), timeout=CLOSE_WAIT_S)

    def _look(self, look: Callable[[JournalReader], Any]) -> _Answer:
        began = self._clock.monotonic()
        with JournalReader(self._path) as reader:
            found = look(reader)
        at = self._clock.monotonic()
        return _Answer(found, at, at - began)

    def _landed(self, key: Hashable, done: "asyncio.Future[_Answer]") -> None:
        self._flying.pop(key, None)
        if done.cancelled():
            return
        error = done.exception()  # also marks it as seen: the asker may have gone away
        if error is not None:
            log.debug("journal not read for %s: %s", key, error)
            return
        self._kept[key] = done.result()
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
