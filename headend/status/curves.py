"""A register's readings of a day as a curve of mean power, and the curve as numbers of a drawing.

Pure. Between two readings of a register lies an energy, and so a mean power: that is a step of the
curve. Where nothing is known there is no step. Floats are for the drawing only; energies stay
exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

STEPS_MAX = 288  # one in five minutes: finer than a screen shows
HOUR_MS = 3_600_000
SCALE_MIN_KW = 0.01

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 6, 8, 22


@dataclass(frozen=True, slots=True)
class Sample:
    """What a register showed at an instant, of the primary side."""

    time_ms: int
    value: Decimal


@dataclass(frozen=True, slots=True)
class Step:
    """Energy between two readings: kWh, and so many kW on average."""

    from_ms: int
    to_ms: int
    energy: Decimal

    @property
    def kw(self) -> float:
        """Mean power."""
        return float(self.energy) * HOUR_MS / (self.to_ms - self.from_ms)


@dataclass(frozen=True, slots=True)
class Curve:
    """A day of one direction. `breaks`: how often the register went back (an exchange, a reset)."""

    steps: tuple[Step, ...]
    breaks: int

    @property
    def total(self) -> Decimal:
        """Energy between the first and the last reading, leaving out where it went back."""
        return sum((step.energy for step in self.steps), Decimal(0))

    @property
    def peak(self) -> Step | None:
        """The step with the highest mean power."""
        return max(self.steps, key=lambda step: step.kw, default=None)


def day_curve(samples: Sequence[Sample], day_ms: tuple[int, int]) -> Curve:
    """The curve of a local day [start, end), from readings in the order of their instants."""
    start_ms, end_ms = day_ms
    slot_ms = max(1, (end_ms - start_ms) // STEPS_MAX)
    kept: list[Sample] = []
    for sample in samples:
        if not start_ms <= sample.time_ms <= end_ms:
            continue
        # The first reading of a slot stands for it; the day's last one closes the curve.
        if (
            kept
            and (sample.time_ms - start_ms) // slot_ms == (kept[-1].time_ms - start_ms) // slot_ms
        ):
            continue
        kept.append(sample)
    last = next((s for s in reversed(samples) if start_ms <= s.time_ms <= end_ms), None)
    if last is not None and last.time_ms != kept[-1].time_ms:
        if len(kept) > 1:
            kept[-1] = last
        else:
            kept.append(last)
    steps, breaks = [], 0
    for before, after in pairwise(kept):
        energy = after.value - before.value
        if energy < 0:
            breaks += 1
        else:
            steps.append(Step(before.time_ms, after.time_ms, energy))
    return Curve(tuple(steps), breaks)


@dataclass(frozen=True, slots=True)
class Hour:
    """Energy of a local hour as far as it is known, for the table beside the drawing."""

    from_ms: int
    energy: Decimal | None


def by_hour(curve: Curve, day_ms: tuple[int, int]) -> list[Hour]:
    """Energy of each hour of the day: every step belongs to the hour it ends in.

    None for an hour in which no step ends.
    """
    start_ms, end_ms = day_ms
    sums: dict[int, Decimal] = {}
    for step in curve.steps:
        hour = (step.to_ms - 1 - start_ms) // HOUR_MS
        sums[hour] = sums.get(hour, Decimal(0)) + step.energy
    hours = -(-(end_ms - start_ms) // HOUR_MS)
    return [Hour(start_ms + n * HOUR_MS, sums.get(n)) for n in range(hours)]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of an axis: where, and what instant or value."""

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """A curve in the coordinates of a picture WIDTH x HEIGHT. Paths are SVG's own language."""

    line: str
    area: str
    across: tuple[Tick, ...]  # instants, ms
    up: tuple[Tick, ...]  # kW


def draw(curve: Curve, day_ms: tuple[int, int], ticks_ms: Sequence[int], top_kw: float) -> Drawing:
    """Lay a curve out. `top_kw`: the upper end of the scale; `ticks_ms`: instants to be marked."""
    start_ms, end_ms = day_ms
    top_kw = top_kw or 1.0

    def x(time_ms: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (time_ms - start_ms) / (end_ms - start_ms)

    def y(kw: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(1.0, kw / top_kw))

    line: list[str] = []
    area: list[str] = []
    ends_ms: int | None = None
    for step in curve.steps:
        left, right, high = x(step.from_ms), x(step.to_ms), y(step.kw)
        line.append(f"{'V' if step.from_ms == ends_ms else f'M{left:.1f} '}{high:.1f}H{right:.1f}")
        area.append(f"M{left:.1f} {y(0):.1f}V{high:.1f}H{right:.1f}V{y(0):.1f}Z")
        ends_ms = step.to_ms
    return Drawing(
        "".join(line),
        "".join(area),
        tuple(Tick(x(at), at) for at in ticks_ms),
        tuple(Tick(y(kw), kw) for kw in (0.0, top_kw / 2, top_kw)),
    )


def scale_top(peak_kw: float) -> float:
    """A round number of kW at or above a peak: 1, 2, 4, 5, 10 times a power of ten.

    SCALE_MIN_KW at least; 1 when there is nothing to be drawn.
    """
    if peak_kw <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(max(peak_kw, SCALE_MIN_KW)))
    return next(
        power * step for step in (1, 2, 4, 5, 10, 20) if power * step >= max(peak_kw, SCALE_MIN_KW)
    )
