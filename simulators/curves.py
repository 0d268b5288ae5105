"""Power by time of day: what a home or a shop draws and what its panels give, in whole watts.

Every curve is a pure function of the day: the same seed always draws the same day, in any
order of asking. Nothing here integrates; `energy` does that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MINUTES_A_DAY = 1440

# Share of the peak in per mille for each hour of a day.
HOUSEHOLD = (
    180, 150, 140, 140, 150, 200, 420, 560, 430, 330, 300, 360,
    460, 380, 300, 300, 350, 560, 820, 1000, 960, 760, 480, 280,
)  # fmt: skip
SHOP = (
    110, 100, 100, 100, 110, 140, 240, 480, 760, 900, 960, 1000,
    980, 960, 960, 950, 950, 980, 1000, 940, 780, 420, 180, 130,
)  # fmt: skip

_MASK64 = (1 << 64) - 1


def mix(*parts: int) -> int:
    """64 well-mixed bits of the parts: the same everywhere and for ever (splitmix64 rounds)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state + (part & _MASK64) + 0x9E3779B97F4A7C15) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        state ^= state >> 31
    return state


class Curve(Protocol):
    """Watts (never negative) through each minute of one day."""

    def day_watts(self, day: int) -> Sequence[int]:
        """1440 powers, minute 0 = local midnight, of day `day` (days since 1970-01-01)."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """The same power at all times; what tests and calibration benches want."""

    power_w: int

    def day_watts(self, day: int) -> Sequence[int]:  # noqa: ARG002 - the day is the curve's argument
        """The constant, 1440 times."""
        return (self.power_w,) * MINUTES_A_DAY


@dataclass(frozen=True, slots=True)
class LoadCurve:
    """A load that follows its hours, wanders a little, and switches a big appliance now and then.

    Never above `peak_w`: whoever states the peak may size a connection by it.
    """

    peak_w: int
    shape: tuple[int, ...] = HOUSEHOLD
    seed: int = 0

    def day_watts(self, day: int) -> Sequence[int]:
        """Between full hours the shape is joined by straight lines; chance changes every 5 min."""
        watts: list[int] = []
        for spell in range(MINUTES_A_DAY // 5):
            hour, within = divmod(5 * spell, 60)
            here, there = self.shape[hour], self.shape[(hour + 1) % 24]
            draw = mix(self.seed, day, spell)
            appliance = 6_000_000 if (draw >> 20) % 10 == 0 else 0  # a tenth of the peak more
            for minute in range(within, within + 5):
                draw = draw * 5 + 1  # wander within the spell
                share = here * (60 - minute) + there * minute  # per mille x 60
                wander = 650 + (draw >> 9) % 250  # 65 % .. 90 %
                power = self.peak_w * (share * wander + appliance) // 60_000_000
                watts.append(min(self.peak_w, power))
        return watts


@dataclass(frozen=True, slots=True)
class SolarCurve:
    """A photovoltaic roof: a bell between sunrise and sunset, with better and worse days."""

    peak_w: int
    seed: int = 0
    sunrise_minute: int = 360
    sunset_minute: int = 1080

    def day_watts(self, day: int) -> Sequence[int]:
        """Zero at night, exactly; never above the peak."""
        span = self.sunset_minute - self.sunrise_minute
        weather = 600 + mix(self.seed, day) % 350  # 60 % .. 95 % of a clear day
        cloud = 0
        watts = [0] * MINUTES_A_DAY
        for since in range(1, span):
            bell = (4 * since * (span - since)) ** 2  # the parabola squared; span**4 at noon
            if since % 10 == 1:
                cloud = mix(self.seed, day, since) % 50
            watts[self.sunrise_minute + since] = (
                self.peak_w * bell * (weather + cloud) // (span**4 * 1000)
            )
        return watts
