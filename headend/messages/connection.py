"""Keeps an end of the feed connected: one pipe after the other, with back-off between them."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from headend.domain.clock import Clock
from headend.messages.log_limit import LogLimit
from headend.messages.pipe import Pipe, PipeLost, SubscribeRefused

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts: doubling from `first_s` to `max_s`, spread by `spread`.

    A session that lived `healthy_s` begins anew with `first_s`. `random` gives [0, 1).
    """

    first_s: float = 0.2
    max_s: float = 30.0
    healthy_s: float = 10.0
    spread: float = 0.25
    random: Callable[[], float] = field(default=random.random)

    def pause_s(self, failures: int) -> float:
        """The pause after so many failures in a row (1 = the first)."""
        base = min(self.first_s * 2.0 ** min(failures - 1, 32), self.max_s)
        return base * (1.0 - self.spread + 2.0 * self.spread * self.random())


async def keep_connected(
    make_pipe: Callable[[], Pipe],
    session: Callable[[Pipe], Awaitable[None]],
    *,
    name: str,
    clock: Clock,
    backoff: Backoff | None = None,
) -> None:
    """Run `session` on a new pipe, again and again; returns only when a session returns.

    A lost pipe cancels the session; the next one gets a new pipe, because a used one would send
    old messages again. Errors of the session that are not the pipe's are raised. `name` says who
    is speaking, in the log.
    """
    backoff = backoff or Backoff()
    limit = LogLimit(log, clock)
    failures = 0
    while True:
        started = clock.monotonic()
        try:
            async with make_pipe() as pipe:
                log.info("end=%s broker connected mqtt=%s", name, pipe.version)
                limit.forget("lost")
                ended_by = await _run_session(pipe, session)
            if ended_by is None:
                return
        except PipeLost as error:
            ended_by = error
        limit.warning("lost", "end=%s %s (trying again)", name, ended_by)
        if clock.monotonic() - started >= backoff.healthy_s:
            failures = 0
        failures += 1
        await asyncio.sleep(backoff.pause_s(failures))


async def _run_session(
    pipe: Pipe, session: Callable[[Pipe], Awaitable[None]]
) -> PipeLost | SubscribeRefused | None:
    """The session to its end, in a task of its own: what the broker ended it with, or None.

    Of its own, because a task group whose child fails leaves a cancellation counted on the task
    that waits for it, and with one counted `asyncio.timeout` of Python before 3.11.3 (Debian 12
    has 3.11.2) ends the task instead of raising TimeoutError. For the same reason the lost pipe
    is returned here and not raised. Any other error leaves as itself.
    """
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(_watched(pipe, session))
    except BaseExceptionGroup as errors:
        raise _first_cause(errors) from errors
    return running.result()


async def _watched(
    pipe: Pipe, session: Callable[[Pipe], Awaitable[None]]
) -> PipeLost | SubscribeRefused | None:
    """The session, cancelled when the pipe is lost."""
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(pipe.wait_lost())
            await session(pipe)
            watcher.cancel()
    except BaseExceptionGroup as errors:
        cause = _first_cause(errors)
        if isinstance(cause, PipeLost | SubscribeRefused):
            return cause
        raise cause from errors
    return None


def _first_cause(error: BaseException) -> BaseException:
    """The error that is not a lost pipe, if there is one among them; else the lost pipe."""
    causes: list[BaseException] = []
    pending = [error]
    while pending:
        one = pending.pop(0)
        if isinstance(one, BaseExceptionGroup):
            pending.extend(one.exceptions)
        else:
            causes.append(one)
    others = [one for one in causes if not isinstance(one, PipeLost | SubscribeRefused)]
    return (others or causes)[0]
