"""The clock of the machine the daemon runs on: kept over jumps, with what Linux says of it."""

import ctypes
import json
import time
from collections.abc import Callable
from pathlib import Path

from headend.domain.clock import SystemClock
from headend.domain.kept_clock import KeptClock
from headend.domain.own_clock import NOT_SET, WENT_BACK, ClockFacts, Trust, distrust

# systemd-timesyncd touches it each time it has set or confirmed the clock.
SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
# A time service that runs, or has run since the start.
SERVICES_RUN = (
    "run/systemd/timesync",
    "run/chrony/chronyd.pid",
    "run/chronyd.pid",
    "run/ntpd.pid",
    "run/ntpsec/ntpd.pid",
    "run/openntpd.pid",
)
# One that systemd is going to start: we may be earlier.
BOOTED = "run/systemd/system"
UNITS = "etc/systemd/system"
SERVICES = ("systemd-timesyncd", "chrony", "chronyd", "ntp", "ntpd", "ntpsec", "openntpd")
BATTERY_CLOCK = "sys/class/rtc/rtc0/since_epoch"
BATTERY_AGREES_S = 5.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_UNSYNCHRONISED = 0x0040  # STA_UNSYNC of adjtimex(2)
_TIME_ERROR = 5  # what it returns then


class _Timex(ctypes.Structure):
    """As much of `struct timex` as is looked at, and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),  # 0: nothing is changed
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def machine_clock(*, synchronised: Path = SYNCHRONISED) -> KeptClock:
    """The daemon's clock on a real machine."""

    def synchronised_ms() -> int | None:
        try:
            return synchronised.stat().st_mtime_ns // 1_000_000
        except OSError:
            return None

    return KeptClock(SystemClock(), elapsed=_elapsed, synchronised_ms=synchronised_ms)


def is_synchronised(file: Path | None = None) -> bool:
    """Whether the clock has been synchronised since the machine was started.

    `file`: believe this file's existence alone; it must lie where nothing survives a start.
    Otherwise systemd-timesyncd's mark counts, or the kernel's word, which chrony and ntpd give.
    """
    if file is not None:
        return file.exists()
    return SYNCHRONISED.exists() or kernel_synchronised()


def has_time_service(root: Path = Path("/")) -> bool:
    """Whether anything on this machine might still say that the clock is synchronised.

    Not where a clock with a battery shows the same time: it went on while the machine was off. A
    service that is only installed does not count where systemd does not run: in a container the
    host keeps the clock.
    """
    if has_battery_clock(root):
        return False
    if any((root / place).exists() for place in SERVICES_RUN):
        return True
    if not (root / BOOTED).exists():
        return False
    found = (root / UNITS).glob("*.wants/*.service")
    return any(unit.stem in SERVICES for unit in found)


def has_battery_clock(root: Path = Path("/"), now_ms: Callable[[], int] | None = None) -> bool:
    """Whether the machine has a clock that goes on without power, and the time is taken from it."""
    try:
        kept_s = int((root / BATTERY_CLOCK).read_text("ascii"))
    except (OSError, ValueError):
        return False
    now_s = (now_ms or SystemClock().now_ms)() / 1000
    return abs(now_s - kept_s) <= BATTERY_AGREES_S


def kernel_synchronised() -> bool:
    """What the kernel was told by whoever disciplines its clock; False when it cannot say."""
    timex = _Timex()
    try:
        state = int(ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)))
    except (OSError, AttributeError):
        return False
    return 0 <= state < _TIME_ERROR and not timex.status & _UNSYNCHRONISED


def boot_id() -> str:
    """Names the time since the machine was started; empty where the machine does not say."""
    try:
        return BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def _elapsed() -> float:
    """Seconds since the machine was started, its sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


SET_MS = 1000.0  # by how much the wall clock moves against elapsed time when somebody sets it


class OwnClock:
    """The daemon's own clock, and whether it is believed.

    Not believed, it is held: it goes on evenly and means nothing. `boot` names the time since the
    machine was started; `marker` is a file of ours that tells a daemon started again in that time
    that the clock was believed. `synchronised` and `has_service` say what the machine says.
    """

    def __init__(
        self,
        clock: KeptClock,
        *,
        trust: Trust,
        marker: Path,
        boot: str,
        synchronised: Callable[[], bool],
        has_service: Callable[[], bool] = has_time_service,
    ) -> None:
        self.clock = clock
        self.boot = boot
        self.distrusted: str | None = None  # the reason; None: it is believed
        self._trust = trust
        self._marker = marker
        self._synchronised = synchronised
        self._has_service = has_service
        self._newest_ms: int | None = None
        self._begun_ms = 0.0  # the distance of the machine's two clocks when we began
        self._word: str | None = None

    def begin(self, newest_ms: int | None) -> None:
        """Decide at the start. `newest_ms`: the newest stamp an earlier run has given."""
        self._newest_ms = newest_ms
        self._begun_ms = self._distance_ms()
        self.distrusted = self._judge()
        if self.distrusted is None:
            self._mark()
        else:
            self.clock.hold(newest_ms or 0)

    def look(self) -> str | None:
        """Why it is still not believed; None once it can be: `believe` then."""
        if self.distrusted is None or not self.clock.is_held:
            return None
        if self._word is not None or self._synchronised():
            return None
        is_wrong = self.distrusted in (WENT_BACK, NOT_SET)
        if is_wrong and abs(self._distance_ms() - self._begun_ms) < SET_MS:
            return self.distrusted  # nobody has set it, and waiting makes no wrong clock right
        return self._judge()

    def vouch(self, by: str) -> None:
        """A person says that the machine's clock is right."""
        self._word = by

    @property
    def why_believed(self) -> str:
        """What the belief stands on."""
        if self._word is not None:
            return f"{self._word} said so"
        return "synchronised" if self._synchronised() else "set"

    def believe(self) -> float:
        """Follow the machine's clock from now on; by how many seconds time went on.

        `distrusted` stays until everything that needs the time `has_begun`.
        """
        moved_s = self.clock.follow()
        self._mark()
        return moved_s

    def has_begun(self) -> None:
        """What waited is dated and everything goes on by this clock."""
        self.distrusted = None

    def _judge(self) -> str | None:
        facts = ClockFacts(
            now_ms=self.clock.machine.now_ms(),
            synchronised=self._synchronised(),
            has_service=self._has_service(),
            newest_ms=self._newest_ms,
            believed_ms=self._marked_ms(),
            distance_ms=self._distance_ms(),
        )
        return distrust(self._trust, facts)

    def _distance_ms(self) -> float:
        return self.clock.machine.now_ms() - self.clock.elapsed() * 1000

    def _mark(self) -> None:
        text = json.dumps({"boot": self.boot, "distance_ms": self._distance_ms()})
        try:
            self._marker.write_text(text, "ascii")
        except OSError:
            return  # then a start in the same boot waits for the time service again

    def _marked_ms(self) -> float | None:
        try:
            found = json.loads(self._marker.read_text("ascii"))
            return float(found["distance_ms"]) if found["boot"] == self.boot else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
