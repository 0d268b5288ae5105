"""One task's way to wait for a callback or a time, without a task or a queue of its own."""

import asyncio


class Waiter:
    """At most one task waits; `wake` without a waiting task does nothing and is not remembered.

    The waiting task therefore looks at what it waits for before it waits, and again afterwards.
    """

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None

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
        timer = asyncio.get_running_loop().call_at(when, self.wake)
        try:
            await self.wait()
        finally:
            timer.cancel()
