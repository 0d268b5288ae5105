"""Tells the service manager how the process is, and feeds its watchdog.

The protocol is sd_notify(3): datagrams of `KEY=VALUE` lines to the socket named by NOTIFY_SOCKET.
Nobody there (a terminal, a test) costs nothing and changes nothing.

The watchdog watches steps, not success: it is fed while the event loop turns and every watched
task goes on taking steps, and a port that is absent and tried again is a step. So one pulled
adapter never restarts the others, and a task that hangs does end the process.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Self

from headend.domain.clock import Clock

log = logging.getLogger(__name__)

FEEDS_A_LIMIT = 3  # how often the watchdog is fed within its limit; one feed may be lost
LOOK_S_MAX = 10.0  # how often tasks are looked at, at the least
STATUS_CHARS_MAX = 500


class Notifier:
    """The service manager's ear. Every call returns at once and never raises.

    `address` None: nobody listens. `watchdog_s`: the manager's limit between two feeds; None:
    it has set none for this process.
    """

    def __init__(self, address: str | None, *, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s if address else None
        self._address = address
        self._failed = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """As NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID say."""
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET")
        if not address or address[0] not in "/@":
            return cls(None)
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        # The variables are inherited: another process may be meant.
        is_ours = not pid or pid == str(os.getpid())
        watchdog_s = int(usec) / 1e6 if is_ours and usec.isascii() and usec.isdigit() else 0.0
        return cls(address, watchdog_s=watchdog_s or None)

    def ready(self, status: str) -> None:
        """Up, or reloaded: from now on it can be used."""
        self._send("READY=1", _status(status))

    def reloading(self, clock: Clock) -> None:
        """A new configuration is being taken; `ready` says that this is over."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(clock.monotonic() * 1e6)}")

    def stopping(self) -> None:
        """Going down by itself or because it was told to."""
        self._send("STOPPING=1", _status("going down"))

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        self._send(_status(text))

    def feed(self) -> None:
        """One sign of life, where the manager waits for them."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        # A leading @ stands for the zero byte of an abstract name.
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # A manager that does not listen must not hold us up.
                sender.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                log.warning("notify_socket=%s cannot be told: %s", self._address, error)
        else:
            self._failed = False


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())[:STATUS_CHARS_MAX]}"


@dataclass(frozen=True, slots=True)
class Steps:
    """Where a task is: `mark` differs after every step.

    None: there is nothing to do, which takes no steps. `bound_s`: longer without a step, and it
    hangs.
    """

    mark: Hashable | None
    bound_s: float


@dataclass(frozen=True, slots=True)
class Stuck:
    """A task that has taken no step for longer than it may."""

    name: str
    for_s: float
    bound_s: float


@dataclass(slots=True)
class _Seen:
    mark: Hashable | None
    still_s: float = 0.0


class StepWatch:
    """Decides from what it is shown which tasks hang. Pure: the time is handed in.

    Time in which nobody looked (the machine slept, the process was stopped) counts for no more
    than one look: nobody could take steps in it.
    """

    def __init__(self, look_s: float) -> None:
        self._counted_s_max = 2 * look_s
        self._seen: dict[str, _Seen] = {}
        self._looked_at: float | None = None

    def look(self, now: float, tasks: Mapping[str, Steps]) -> list[Stuck]:
        """The tasks that hang at `now` (monotonic seconds); those not named are forgotten."""
        passed_s = 0.0 if self._looked_at is None else now - self._looked_at
        passed_s = min(max(passed_s, 0.0), self._counted_s_max)
        self._looked_at = now
        seen: dict[str, _Seen] = {}
        stuck = []
        for name, steps in tasks.items():
            before = self._seen.get(name)
            if before is None or steps.mark is None or before.mark != steps.mark:
                seen[name] = _Seen(steps.mark)
                continue
            before.still_s += passed_s
            seen[name] = before
            if before.still_s > steps.bound_s:
                stuck.append(Stuck(name, before.still_s, steps.bound_s))
        self._seen = seen
        return stuck


class Watchdog:
    """Feeds the manager's watchdog while nothing hangs. `run` is a supervised task.

    `tasks` and `status` are asked at every look. Without a manager hanging tasks are logged all
    the same.
    """

    def __init__(
        self,
        notifier: Notifier,
        *,
        tasks: Callable[[], Mapping[str, Steps]],
        status: Callable[[], str],
        clock: Clock,
    ) -> None:
        self._notifier = notifier
        self._tasks = tasks
        self._status = status
        self._clock = clock
        limit_s = notifier.watchdog_s
        self.look_s = LOOK_S_MAX if limit_s is None else min(LOOK_S_MAX, limit_s / FEEDS_A_LIMIT)
        self._watch = StepWatch(self.look_s)
        self._stuck: frozenset[str] = frozenset()
        self._told = ""

    async def run(self) -> None:
        """Look and feed, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(self.look_s)

    def look(self) -> None:
        """One look: feed, or say what hangs."""
        stuck = self._watch.look(self._clock.monotonic(), self._tasks())
        for one in stuck:
            if one.name not in self._stuck:
                log.error(
                    "task=%s has taken no step for %.0f s (bound %.0f s): "
                    "the watchdog is not fed until it goes on",
                    one.name, one.for_s, one.bound_s,
                )  # fmt: skip
        names = frozenset(one.name for one in stuck)
        for name in self._stuck - names:
            log.warning("task=%s takes steps again, or is no longer there", name)
        self._stuck = names
        if not names:
            self._notifier.feed()
        self._tell(f"hangs: {', '.join(sorted(names))}" if names else self._status())

    def _tell(self, status: str) -> None:
        if status != self._told:
            self._told = status
            self._notifier.status(status)
