"""What registers can ask for beyond what is measured: sums, averages, names, another meter.

A map has more points than a source: this makes the others out of those, so that any profile can be
served from one truth.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from math import isqrt
from typing import Protocol

PHASES = "abc"
_GRID = "grid_"
# What a map calls a sum or a balance is no register of the source, but two of them.
_PAIRS: Mapping[str, tuple[str, str, int]] = {
    "active_sum_total": ("active_import_total", "active_export_total", 1),
    "reactive_sum_total": ("reactive_import_total", "reactive_export_total", 1),
    "active_net_total": ("active_import_total", "active_export_total", -1),
    "reactive_net_total": ("reactive_import_total", "reactive_export_total", -1),
}
_LINES: Mapping[str, tuple[str, str]] = {
    "voltage_ab": ("voltage_a", "voltage_b"),
    "voltage_bc": ("voltage_b", "voltage_c"),
    "voltage_ca": ("voltage_c", "voltage_a"),
}

Value = Decimal | str | None


class Source(Protocol):
    """What stands behind a device: `Measured` of a meter, `Inverter`."""

    def exact(self, point: str, at_ms: int) -> Value:
        """A value of the primary side, all of it, in the unit of the point; None = has it not."""
        ...

    def register_points(self) -> tuple[str, ...]:
        """The points that count up."""
        ...


class Derived:
    """A source with all that follows from it. `grid`: what an inverter's own meter at the grid
    connection measures. `constants`: what the device says of itself, by point.
    """

    def __init__(
        self,
        source: Source,
        *,
        grid: Source | None = None,
        constants: Mapping[str, Decimal | str] | None = None,
    ) -> None:
        self.source = source
        self._grid = grid
        self._constants = dict(constants or {})

    def register_points(self) -> tuple[str, ...]:
        """Those of the source, and those of the meter at the grid connection."""
        own = self.source.register_points()
        grid = () if self._grid is None else self._grid.register_points()
        return (*own, *(_GRID + point for point in grid))

    def exact(self, point: str, at_ms: int) -> Value:
        """As `Source.exact`."""
        if point.startswith(_GRID):
            behind = point.removeprefix(_GRID)
            return None if self._grid is None else self._grid.exact(behind, at_ms)
        found = self.source.exact(point, at_ms)
        if found is not None:
            return found
        if point in self._constants:
            return self._constants[point]
        return self._made(point, lambda name: self._number(name, at_ms))

    def _number(self, point: str, at_ms: int) -> Decimal | None:
        value = self.source.exact(point, at_ms)
        return value if isinstance(value, Decimal) else None

    def _made(self, point: str, ask: Callable[[str], Decimal | None]) -> Decimal | None:
        """A point that follows from others; None when those are not there."""
        if point in _PAIRS:
            first, second, sign = _PAIRS[point]
            one, other = ask(first), ask(second)
            if one is None and other is None:
                return None
            return (one or Decimal(0)) + sign * (other or Decimal(0))
        if point in _LINES:
            one, other = (ask(name) for name in _LINES[point])
            return None if one is None or other is None else _line_voltage(one, other)
        quantity, _, which = point.rpartition("_")
        if quantity in ("voltage", "current") and which in ("avg", "total"):
            values = [v for phase in PHASES if (v := ask(f"{quantity}_{phase}")) is not None]
            if not values:
                return None
            total = sum(values, Decimal(0))
            return total if which == "total" else total / len(values)
        return None


def _line_voltage(one: Decimal, other: Decimal) -> Decimal:
    """Between two phases 120 degrees apart, cut to a tenth of a volt."""
    a, b = (int(voltage * 10) for voltage in (one, other))
    return Decimal(isqrt(a * a + b * b + a * b)).scaleb(-1)
