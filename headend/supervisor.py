"""Starts, names, watches, restarts and stops the daemon's tasks.

Every long-lived task has a name and an owner. A task that ends by itself or dies is restarted
with back-off and counted; its death is logged once with its cause. This is the one place that may
catch every exception.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 30.0
HEALTHY_AFTER_S = 60.0


@dataclass(slots=True)
class TaskState:
    """What the supervisor knows of one task."""

    name: str
    restarts: int = 0
    last_error: str | None = None
    running: bool = False


class Supervisor:
    """Owns the tasks that are handed to it. Use as an async context manager.

    Leaving the context cancels every task, newest first, and waits for each. A task that dies of
    one of the `fatal` errors is not restarted: the whole is beyond what a restart of one task can
    mend, and `run_until` raises it.
    """

    def __init__(
        self,
        on_death: Callable[[TaskState], None] | None = None,
        fatal: tuple[type[Exception], ...] = (),
    ) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.states: dict[str, TaskState] = {}
        self._on_death = on_death
        self._fatal = fatal
        self._fatal_error: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop_all()

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Start `run` under `name` and keep it running. A second start of a name is an error."""
        if name in self._tasks:
            msg = f"a task named {name} is running already"
            raise ValueError(msg)
        state = TaskState(name)
        self.states[name] = state
        self._tasks[name] = asyncio.create_task(self._keep(state, run), name=name)

    async def stop(self, name: str) -> None:
        """Cancel one task and wait until it has ended. Unknown names are ignored."""
        task = self._tasks.pop(name, None)
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.states[name].running = False

    async def remove(self, name: str) -> None:
        """Stop one task for good: nothing is kept of it. Unknown names are ignored."""
        await self.stop(name)
        self.states.pop(name, None)

    def running(self) -> frozenset[str]:
        """The names that are kept running."""
        return frozenset(self._tasks)

    async def run_until(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises the first fatal error, once there is one."""
        wanted = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait((wanted, self._fatal_error), return_when=asyncio.FIRST_COMPLETED)
            if self._fatal_error.done():
                raise self._fatal_error.result()
        finally:
            wanted.cancel()

    async def stop_all(self) -> None:
        """Stop every task, the newest first: what was started last stands on the earlier ones."""
        for name in reversed(list(self._tasks)):
            await self.stop(name)

    async def _keep(self, state: TaskState, run: Callable[[], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = BACKOFF_FIRST_S
        while True:
            started = loop.time()
            error = await self._run_once(state, run)
            if isinstance(error, self._fatal):
                if not self._fatal_error.done():
                    self._fatal_error.set_result(error)
                return
            state.restarts += 1
            if self._on_death is not None:
                self._on_death(state)
            if loop.time() - started > HEALTHY_AFTER_S:
                backoff_s = BACKOFF_FIRST_S
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    async def _run_once(
        self, state: TaskState, run: Callable[[], Awaitable[None]]
    ) -> BaseException | None:
        """One life of a task, in a task of its own: what it leaves behind dies with it.

        A cancellation that comes from inside it is a death like any other; only our own, by
        `stop`, ends the keeping.
        """
        life = asyncio.ensure_future(run())
        if isinstance(life, asyncio.Task):
            life.set_name(state.name)  # the log says which task spoke
        state.running = True
        try:
            await asyncio.wait((life,))
        finally:
            state.running = False
            if not life.done():
                life.cancel()
                await asyncio.gather(life, return_exceptions=True)
        if life.cancelled():
            state.last_error = "cancelled from inside"
            log.error(
                "task=%s was cancelled from inside restarts=%d",
                state.name,
                state.restarts,
                extra={"about": state.name},
            )
            return None
        error = life.exception()
        if error is None:
            state.last_error = "ended by itself"
        else:
            state.last_error = f"{type(error).__name__}: {error}"
            about = {"about": state.name}
            log.error(
                "task=%s died restarts=%d", state.name, state.restarts, exc_info=error, extra=about
            )
        return error
