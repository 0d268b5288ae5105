"""Demands of a simulated meter: means over whole periods of its clock, and their maxima.

A period is as the meter's clock has it, its mean what was counted in it over the time it really
took (of energy time, so that a street run faster shows powers that it has). The maximum counts from
the latest settlement or clearing, and bears the end of its period.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal

from protocols.dlt645.formats import MeterTime
from simulators.measured import Measured
from simulators.meter645_clock import MeterClock, meter_time

PERIOD_MIN = 15
_HOUR_MS = 3_600_000
_LIMIT = Decimal("99.9999")
_SERIES_KEPT = 64


def register_of(point: str) -> str | None:
    """The register whose means a demand point holds; None for what is no demand."""
    name = point.removeprefix("demand_")
    if name == point:
        return None
    return f"active_{name}" if name.startswith(("import", "export")) else name


@dataclass(slots=True)
class _Series:
    """The rising maxima of one register since an instant: wall time of their ends, and values."""

    through_ms: int
    exact: Decimal | None = None  # of the register at `through_ms`
    ends_ms: list[int] = field(default_factory=list)
    values: list[Decimal] = field(default_factory=list)
    times: list[MeterTime] = field(default_factory=list)


class Demand:
    """Means and maxima of what a meter counts."""

    def __init__(self, measured: Measured) -> None:
        self._measured = measured
        self._series: dict[tuple[str, int], _Series] = {}

    def mean(self, register: str, from_ms: int, until_ms: int) -> Decimal | None:
        """Mean power between two wall times, kW (kvar, kVA) with four decimals; None = no such."""
        first = self._measured.register(register, from_ms)
        last = self._measured.register(register, until_ms)
        if first is None or last is None:
            return None
        return self._over(last.exact - first.exact, from_ms, until_ms)

    def _over(self, counted: Decimal, from_ms: int, until_ms: int) -> Decimal:
        timeline = self._measured.model.timeline
        took_ms = timeline.energy_ms(until_ms) - timeline.energy_ms(from_ms)
        if took_ms <= 0:
            return Decimal("0.0000")
        mean = counted * _HOUR_MS / took_ms
        return min(mean.quantize(Decimal("0.0001"), rounding=ROUND_DOWN), _LIMIT)

    def present(self, which: str, clock: MeterClock, at_ms: int) -> Decimal | None:
        """The demand of the latest whole period: `active` (export is negative), or another."""
        period_ms = PERIOD_MIN * 60_000
        end_local = clock.local_ms(at_ms) // period_ms * period_ms
        end_ms, start_ms = clock.wall_ms(end_local), clock.wall_ms(end_local - period_ms)
        taken = self.mean(f"{which}_import_total", start_ms, end_ms)
        given = self.mean(f"{which}_export_total", start_ms, end_ms)
        if taken is None or given is None:
            return taken
        return taken + given if which == "apparent" else taken - given

    def maximum(
        self, point: str, clock: MeterClock, since_ms: int, until_ms: int
    ) -> tuple[Decimal, MeterTime | None] | None:
        """The greatest demand of a point between two instants, and when its period ended.

        None when the meter has no such register; zero without a time when no period is over yet.
        """
        register = register_of(point)
        if register is None or self._measured.register(register, until_ms) is None:
            return None
        series = self._series.get((register, since_ms))
        if series is None:
            if len(self._series) >= _SERIES_KEPT:
                self._series.clear()
            series = self._series[register, since_ms] = _Series(since_ms)
        self._extend(series, register, clock, until_ms)
        at = bisect_right(series.ends_ms, until_ms) - 1
        if at < 0:
            return Decimal("0.0000"), None
        return series.values[at], series.times[at]

    def _extend(self, series: _Series, register: str, clock: MeterClock, until_ms: int) -> None:
        period_ms = PERIOD_MIN * 60_000
        while True:
            end_local = (clock.local_ms(series.through_ms) // period_ms + 1) * period_ms
            end_ms = clock.wall_ms(end_local)
            if end_ms > until_ms:
                return
            last = self._measured.register(register, end_ms)
            assert last is not None
            if series.exact is None:
                first = self._measured.register(register, series.through_ms)
                assert first is not None
                series.exact = first.exact
            mean = self._over(last.exact - series.exact, series.through_ms, end_ms)
            series.through_ms, series.exact = end_ms, last.exact
            if not series.values or mean > series.values[-1]:
                series.ends_ms.append(end_ms)
                series.values.append(mean)
                series.times.append(meter_time(end_local))
