"""What a grid can be: bounds for telling whether registers were read the right way.

Not for judging readings: the bounds are as wide as anything connected to a low-voltage grid.
"""

from collections.abc import Mapping
from decimal import Decimal

Bounds = tuple[Decimal, Decimal]

_PHASE_V: Bounds = (Decimal(80), Decimal(300))
_LINE_V: Bounds = (Decimal(140), Decimal(520))
_HZ: Bounds = (Decimal(45), Decimal(65))
_FACTOR: Bounds = (Decimal(-1), Decimal(1))
BOUNDS: Mapping[str, Bounds] = {
    **{f"{way}voltage_{phase}": _PHASE_V for phase in "abc" for way in ("", "grid_")},
    "voltage_avg": _PHASE_V,
    "voltage_ab": _LINE_V,
    "voltage_bc": _LINE_V,
    "voltage_ca": _LINE_V,
    "frequency": _HZ,
    "grid_frequency": _HZ,
    **{f"power_factor_{which}": _FACTOR for which in ("total", "a", "b", "c")},
    "grid_power_factor_total": _FACTOR,
}
# What shows a wrong way of reading: a power factor is within its bounds far too easily.
TELLING = frozenset(point for point, bounds in BOUNDS.items() if bounds is not _FACTOR)


def is_plausible(point: str, value: Decimal | None) -> bool | None:
    """Whether a value can be, a voltage being that of the meter's own terminals.

    None for a point that has no bounds. No value at all is as good as any: a device may lack a
    phase.
    """
    bounds = BOUNDS.get(point)
    if bounds is None:
        return None
    return value is None or bounds[0] <= value <= bounds[1]
