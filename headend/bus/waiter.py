"""One task's way to wait for a callback or a time, without a task or a queue of its own."""

import asyncio

_NEVER = float("inf")


class Waiter:
    """At most one task waits; `wake` without a waiting task does nothing and is not remembered.

    The waiting task therefore looks at what it waits for before it waits, and again afterwards.
    """

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None
        # One timer for many waits: most are over long before it, and making one costs more.
        self._timer: asyncio.TimerHandle | None = None
        self._until = _NEVER

    def wake(self) -> None:
        """Let the waiting task go on."""
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    async def wait(self) -> None:
        """Until somebody wakes the task."""
        assert self._future is None
        self._future = asyncio.get_running_loop().create_future()
        try:
            await self._future
        finally:
            self._future = None

    async def wait_until(self, when: float) -> None:
        """Until a time of the loop's clock, or until somebody wakes the task."""
        self._until = when
        if self._timer is None or self._timer.when() > when:
            self._arm(when)
        try:
            await self.wait()
        finally:
            self._until = _NEVER

    def rest(self) -> None:
        """Nobody waits any more, or not on this loop: leave nothing behind on it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, when: float) -> None:
        self.rest()
        self._timer = asyncio.get_running_loop().call_at(when, self._due, when)

    def _due(self, when: float) -> None:
        """The timer of this wait, or of one before it."""
        self._timer = None
        if when >= self._until:
            self.wake()
        elif self._until < _NEVER:
            self._arm(self._until)
