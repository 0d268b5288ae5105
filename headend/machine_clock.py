"""The clock of the machine the daemon runs on: kept over jumps, with what Linux says of it."""

import time
from pathlib import Path

from headend.domain.clock import SystemClock
from headend.domain.kept_clock import KeptClock

# systemd-timesyncd touches it each time it has set or confirmed the clock.
SYNCHRONISED = Path("/run/systemd/timesync/synchronized")


def machine_clock(*, synchronised: Path = SYNCHRONISED) -> KeptClock:
    """The daemon's clock on a real machine."""

    def synchronised_ms() -> int | None:
        try:
            return synchronised.stat().st_mtime_ns // 1_000_000
        except OSError:
            return None

    return KeptClock(SystemClock(), elapsed=_elapsed, synchronised_ms=synchronised_ms)


def _elapsed() -> float:
    """Seconds since the machine was started, its sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
