"""How the process is: measured by a task of its own that wakes up twice a second.

What it measures is how late it is woken (the event loop's lag), and once in a while how busy every
line has been, so that a load of the last minutes can be told and not one since the start.
"""

import asyncio
import os
import resource
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from headend.bus import Bus
from headend.domain.clock import Clock

BEAT_S = 0.5
LAG_WINDOW_S = 60.0
LOAD_EVERY_S = 10.0
LOAD_WINDOW_S = 300.0

_STAT, _UPTIME = Path("/proc/self/stat"), Path("/proc/uptime")
_STATM = Path("/proc/self/statm")
_FDS = Path("/proc/self/fd")

_BusMark = tuple[float, dict[str, tuple[float, float]]]  # at, bus -> (busy_s, elapsed_s)


class Pulse:
    """Owned by the status task. `buses` is asked anew each time: they may come and go."""

    def __init__(self, clock: Clock, buses: Callable[[], Mapping[str, Bus]]) -> None:
        self._clock = clock
        self._buses = buses
        age_s = process_age_s()
        self.started_ms = clock.now_ms() - int(age_s * 1000)
        self._started = clock.monotonic() - age_s
        self.lag_s = 0.0
        self._lags: deque[tuple[float, float]] = deque(maxlen=int(LAG_WINDOW_S / BEAT_S))
        self._marks: deque[_BusMark] = deque(maxlen=int(LOAD_WINDOW_S / LOAD_EVERY_S) + 1)

    async def run(self) -> None:
        """Beat until cancelled."""
        loop = asyncio.get_running_loop()
        marked = float("-inf")
        while True:
            wanted = loop.time() + BEAT_S
            await asyncio.sleep(BEAT_S)
            now = loop.time()
            self.lag_s = max(0.0, now - wanted)
            self._lags.append((now, self.lag_s))
            if now - marked >= LOAD_EVERY_S:
                marked = now
                self._marks.append((now, _busy(self._buses())))

    @property
    def up_s(self) -> float:
        """For how long the process has been there."""
        return self._clock.monotonic() - self._started

    def lag_max_s(self) -> float:
        """The longest lag of the last minute."""
        oldest = asyncio.get_running_loop().time() - LAG_WINDOW_S
        return max((lag for at, lag in self._lags if at >= oldest), default=0.0)

    def load(self, name: str, busy_s: float, elapsed_s: float) -> float:
        """Part of a line's time in use over the last minutes, 0..1; since the start before that."""
        before = next((marks[name] for _at, marks in self._marks if name in marks), (0.0, 0.0))
        if before[1] >= elapsed_s or before[0] > busy_s:
            before = (0.0, 0.0)  # a bus of this name was made anew
        span_s = elapsed_s - before[1]
        return min(1.0, max(0.0, (busy_s - before[0]) / span_s)) if span_s > 0 else 0.0


def _busy(buses: Mapping[str, Bus]) -> dict[str, tuple[float, float]]:
    found = {}
    for name, bus in buses.items():
        statistics = bus.statistics()
        found[name] = (statistics.busy_s, statistics.elapsed_s)
    return found


def process_age_s() -> float:
    """For how long this process has been there; 0.0 where the system does not tell."""
    try:
        # Behind the name in brackets, which may hold anything: the 20th field is the start.
        started = int(_STAT.read_text().rpartition(")")[2].split()[19])
        up_s = float(_UPTIME.read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return 0.0
    return max(0.0, up_s - started / os.sysconf("SC_CLK_TCK"))


def rss_bytes() -> int:
    """Memory of this process; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def open_files() -> tuple[int, int]:
    """File descriptors that are open, and how many may be; 0 where the system does not tell."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return len(os.listdir(_FDS)) - 1, soft  # noqa: PTH208 - the one that lists is not counted
    except OSError:
        return 0, soft


def cpu_s() -> float:
    """Processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
