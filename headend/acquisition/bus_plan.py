"""The plan check of a configuration: what each bus needs, whether it fits, and what would help."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from headend.acquisition import plan_check
from headend.acquisition.plan_check import BusLoad, Load, bus_load
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.bus.settings import BusSettings
from headend.domain.meter import Meter
from headend.drivers.asking import Ask, LinePace

DAY_S = 86_400
FASTER_BAUDS = (2400, 4800, 9600, 19_200, 38_400, 57_600, 115_200)
# Intervals that people use, in seconds.
_INTERVALS_S = (
    1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 300, 600, 900, 1200, 1800, 3600, 7200, 10_800, 14_400,
    21_600, 28_800, 43_200, 86_400,
)  # fmt: skip


class Asking(Protocol):
    """A meter's session, as far as a plan needs it."""

    def asks(
        self, points: Sequence[str], *, frozen: bool = False, parity_seen: bool | None = None
    ) -> list[Ask]:
        """What reading these points puts on the line."""
        ...


@dataclass(frozen=True, slots=True)
class LineFacts:
    """A bus as a plan sees it. `baud` 0: the medium has no speed that is known.

    `measured_s`: how long these meters really think, by meter id; where it is not known the
    configured `turnaround_s` counts.
    """

    baud: int
    char_bits: int
    parity_seen: bool
    turnaround_s: float
    lost_share: float
    settings: BusSettings
    measured_s: dict[str, float]

    @property
    def char_s(self) -> float:
        """Seconds a byte takes."""
        return self.char_bits / self.baud if self.baud else 0.0

    def pace(self, meter: str) -> LinePace:
        """The line when it is spoken to one meter."""
        settings = self.settings
        silence_s = max(settings.silence_after_timeout_ms, settings.gap_ms) / 1000
        return LinePace(
            char_s=self.char_s,
            gap_s=settings.gap_ms / 1000,
            turnaround_s=self.measured_s.get(meter, self.turnaround_s),
            failed_s=(settings.reply_timeout_ms + settings.margin_ms) / 1000 + silence_s,
            lost_share=self.lost_share,
        )


@dataclass(frozen=True, slots=True)
class PlannedRead:
    """One plan line of one meter, with what it takes each time."""

    meter: str
    plan: str
    entry: PlanEntry
    asks: tuple[Ask, ...]
    needs_s: float
    retries_s: float
    pace: LinePace

    @property
    def within_s(self) -> float:
        """So long after its instant it counts as read in time."""
        window_s = self.entry.window_ms / 1000
        if self.entry.source == "freeze":
            return window_s
        return min(window_s, self.entry.tolerance_ms / 1000)

    @property
    def load(self) -> Load:
        """Its share of the bus, retries included."""
        at = self.entry.at
        return Load(
            self.meter,
            self.entry.interval_s,
            at.hour * 3600 + at.minute * 60 + at.second,
            self.within_s,
            self.needs_s + self.retries_s,
        )


@dataclass(frozen=True, slots=True)
class BusPlan:
    """What one bus has to do. `advice`: each change that would make it fit by itself.

    `measured_meters`: how many of them are counted with answer times that were measured.
    """

    bus: str
    meters: int
    reads: tuple[PlannedRead, ...]
    load: BusLoad
    advice: tuple[tuple[str, str], ...]  # (what, value)
    measured_meters: int = 0

    @property
    def round_s(self) -> float:
        """The line's time when everything is read once, without retries."""
        return sum(read.needs_s for read in self.reads)

    def to_json(self, *, reads: bool = True) -> dict[str, Any]:
        """As `headend plan --json` shows it (`plan/1`)."""
        fullest = self.load.fullest
        shown: dict[str, Any] = {
            "schema": "plan/1",
            "bus": self.bus,
            "meters": self.meters,
            "measured_meters": self.measured_meters,
            "cycle_s": self.load.cycle_s,
            "needs_s": seconds(self.load.needs_s),
            "round_s": seconds(self.round_s),
            "retries_s": seconds(sum(read.retries_s for read in self.reads)),
            "share": seconds(self.load.share),
            "fits": self.load.fits,
            "fullest": None
            if fullest is None
            else {
                "at": clock_text(fullest.at_s),
                "within_s": seconds(fullest.within_s),
                "needs_s": seconds(fullest.needs_s),
            },
            "advice": [{"change": what, "to": value} for what, value in self.advice],
        }
        if reads:
            shown["reads"] = [_read_json(read) for read in self.reads]
        return shown


def plan_bus(
    bus: str,
    meters: Sequence[Meter],
    plans: dict[str, ReadPlan],
    open_session: Callable[[Meter], Asking],
    line: LineFacts,
) -> BusPlan:
    """What the plans of these meters ask of their bus."""
    asked = {
        (meter.id, index): tuple(
            open_session(meter).asks(
                entry.points, frozen=entry.source == "freeze", parity_seen=line.parity_seen
            )
        )
        for meter in meters
        for index, entry in enumerate(plans[meter.plan].entries)
    }

    def reads_on(
        some: Sequence[Meter],
        facts: LineFacts,
        change: Callable[[PlanEntry], PlanEntry] = lambda entry: entry,
    ) -> list[PlannedRead]:
        found = []
        for meter in some:
            pace = facts.pace(meter.id)
            for index, entry in enumerate(plans[meter.plan].entries):
                asks = asked[meter.id, index]
                if facts.parity_seen and not line.parity_seen:
                    asks = tuple(replace(ask, times=1) for ask in asks)
                needs_s, retries_s = pace.needs_s(asks), pace.retries_s(asks)
                entry_now = change(entry)
                found.append(
                    PlannedRead(meter.id, meter.plan, entry_now, asks, needs_s, retries_s, pace)
                )
        return found

    reads = reads_on(meters, line)
    load = bus_load(read.load for read in reads)
    advice = [] if load.fits else _advice(meters, line, reads_on)
    measured = sum(meter.id in line.measured_s for meter in meters)
    return BusPlan(bus, len(meters), tuple(reads), load, tuple(advice), measured)


def _advice(
    meters: Sequence[Meter],
    line: LineFacts,
    reads_on: Callable[..., list[PlannedRead]],
) -> list[tuple[str, str]]:
    """Changes of one thing alone that make it fit, the cheapest to make first."""

    def fits(*args: object) -> bool:
        return plan_check.fits(read.load for read in reads_on(*args))

    found: list[tuple[str, str]] = []
    for interval_s in _INTERVALS_S:
        if fits(meters, line, _at_least(interval_s)):
            found.append(("every", f"{interval_s} s"))
            break
    if not line.parity_seen and fits(meters, replace(line, parity_seen=True)):
        found.append(("parity_seen", "true"))
    for baud in FASTER_BAUDS:
        if line.baud and baud > line.baud and fits(meters, replace(line, baud=baud)):
            found.append(("baud", str(baud)))
            break
    low, high = 0, len(meters)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(meters[:middle], line) else (low, middle - 1)
    found.append(("meters", str(low)))
    return found


def _at_least(interval_s: int) -> Callable[[PlanEntry], PlanEntry]:
    """No line of a plan comes more often than this; its time to be read grows with it."""

    def change(entry: PlanEntry) -> PlanEntry:
        if entry.interval_s is None or entry.interval_s >= interval_s:
            return entry
        factor = interval_s / entry.interval_s
        return replace(
            entry,
            interval_s=interval_s,
            tolerance_ms=min(int(entry.tolerance_ms * factor), interval_s * 500),
            window_ms=int(entry.window_ms * factor),
        )

    return change


def _read_json(read: PlannedRead) -> dict[str, Any]:
    entry = read.entry
    return {
        "meter": read.meter,
        "plan": read.plan,
        "every_s": entry.interval_s,
        "at": None if entry.interval_s else entry.at.isoformat("minutes"),
        "from": entry.source,
        "within_s": seconds(read.within_s),
        "needs_s": seconds(read.needs_s),
        "retries_s": seconds(read.retries_s),
        "asks": [
            {
                "what": ask.what,
                "frames": ask.frames,
                "request_bytes": ask.request_bytes,
                "reply_bytes": ask.reply_bytes + ask.reply_wakeup,
                "times": ask.times,
                "takes_s": seconds(read.pace.ask_s(ask)),
                "points": list(ask.points),
                "unused": ask.unused,
            }
            for ask in read.asks
        ],
    }


def seconds(value: float) -> float:
    """To a thousandth."""
    return round(value, 3)


def clock_text(second: int) -> str:
    """A second of the day as people read it."""
    second %= DAY_S
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
