"""Keeps an end of the feed connected: one pipe after the other, with back-off between them."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from headend.domain.clock import Clock
from headend.messages.connect_words import Code
from headend.messages.log_limit import LogLimit
from headend.messages.pipe import Pipe, PipeLost, SubscribeRefused

log = logging.getLogger(__name__)


FILES_LOOK_S = 1.0
STILL_SO_S = 3600.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts: doubling from `first_s` to `max_s`, spread by `spread`.

    A session that lived `healthy_s` begins anew with `first_s`. `random` gives [0, 1).
    After a refused login the pauses go from `login_first_s` to `login_max_s` instead: a wrong
    password does not become right by trying, and brokers shut out who tries often.
    """

    first_s: float = 0.2
    max_s: float = 30.0
    healthy_s: float = 10.0
    spread: float = 0.25
    login_first_s: float = 30.0
    login_max_s: float = 600.0
    random: Callable[[], float] = field(default=random.random)

    def pause_s(self, failures: int) -> float:
        """The pause after so many failures in a row (1 = the first)."""
        return self._spread(self.first_s, self.max_s, failures)

    def login_pause_s(self, refusals: int) -> float:
        """The pause after so many refused logins in a row."""
        return self._spread(self.login_first_s, self.login_max_s, refusals)

    def _spread(self, first_s: float, max_s: float, times: int) -> float:
        base = min(first_s * 2.0 ** min(times - 1, 32), max_s)
        return base * (1.0 - self.spread + 2.0 * self.spread * self.random())


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """How an end's connection stands. `code` and `text`: why there is none.

    `since_ms`: when it came to stand so. `failures`: attempts in a row that failed.
    """

    is_connected: bool
    since_ms: int
    code: Code | None = None
    text: str | None = None
    failures: int = 0


class ConnectionWatch:
    """The state of one end's connection, kept by `keep_connected`; `on_change` is told of changes.

    A change is another reason, or connected or not; further failures for the same reason are none.
    """

    def __init__(
        self, clock: Clock, on_change: Callable[[ConnectionState], None] | None = None
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self.state = ConnectionState(is_connected=False, since_ms=clock.now_ms())

    def connected(self) -> None:
        """The broker let us in."""
        self._enter(ConnectionState(is_connected=True, since_ms=self._clock.now_ms()))

    def failed(self, code: Code, text: str) -> bool:
        """It did not, or threw us out; whether that is news."""
        old = self.state
        is_news = old.is_connected or old.code is not code
        if is_news:
            now_ms = self._clock.now_ms()
            self._enter(
                ConnectionState(
                    is_connected=False, since_ms=now_ms, code=code, text=text, failures=1
                )
            )
        else:
            self.state = replace(old, text=text, failures=old.failures + 1)
        return is_news

    def _enter(self, state: ConnectionState) -> None:
        self.state = state
        if self._on_change is not None:
            self._on_change(state)


async def keep_connected(
    make_pipe: Callable[[], Pipe],
    session: Callable[[Pipe], Awaitable[None]],
    *,
    name: str,
    clock: Clock,
    backoff: Backoff | None = None,
    watch: ConnectionWatch | None = None,
    files: Callable[[], object] = lambda: None,
) -> None:
    """Run `session` on a new pipe, again and again; returns only when a session returns.

    A lost pipe cancels the session; the next one gets a new pipe, because a used one would send
    old messages again. Errors of the session that are not the pipe's are raised. `name` says who
    is speaking, in the log: once when the reason changes, then once an hour. `files` gives
    something that changes with the files a connection stands on: then it is tried at once.
    """
    backoff = backoff or Backoff()
    watch = watch or ConnectionWatch(clock)
    limit = LogLimit(log, clock, every_s=STILL_SO_S)
    failures = refusals = 0
    while True:
        started = clock.monotonic()
        stamp = files()
        try:
            async with make_pipe() as pipe:
                log.info("end=%s broker connected mqtt=%s", name, pipe.version)
                watch.connected()
                refusals = 0
                ended_by = await _run_session(pipe, session)
            if ended_by is None:
                return
        except PipeLost as error:
            ended_by = error
        code = ended_by.code if isinstance(ended_by, PipeLost) else Code.REFUSED
        text = ended_by.text if isinstance(ended_by, PipeLost) else str(ended_by)
        was_healthy = clock.monotonic() - started >= backoff.healthy_s
        # A connection that breaks again and again is one state, although it stands in between.
        if watch.failed(code, text) and (code is not Code.LOST or was_healthy):
            limit.forget(code)
        limit.warning(code, "end=%s code=%s %s (trying again)", name, code, ended_by)
        if was_healthy:
            failures = 0
        failures += 1
        if code is Code.LOGIN_REFUSED:
            refusals += 1
            await _pause(backoff.login_pause_s(refusals), files, stamp)
        else:
            await _pause(backoff.pause_s(failures), files, stamp)


async def _pause(pause_s: float, files: Callable[[], object], stamp: object) -> None:
    """Wait, but no longer when the files are others than at the attempt."""
    while pause_s > 0:
        await asyncio.sleep(min(pause_s, FILES_LOOK_S))
        pause_s -= FILES_LOOK_S
        if files() != stamp:
            return


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
