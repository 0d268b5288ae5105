"""Units a register may have, and how they become the unit of a point: powers of ten, exactly."""

from functools import lru_cache

from protocols.quantities import quantity

# unit -> (the unit points have, power of ten)
UNITS: dict[str, tuple[str, int]] = {
    "Wh": ("kWh", -3),
    "kWh": ("kWh", 0),
    "MWh": ("kWh", 3),
    "varh": ("kvarh", -3),
    "kvarh": ("kvarh", 0),
    "Mvarh": ("kvarh", 3),
    "VAh": ("kVAh", -3),
    "kVAh": ("kVAh", 0),
    "W": ("kW", -3),
    "kW": ("kW", 0),
    "MW": ("kW", 3),
    "var": ("kvar", -3),
    "kvar": ("kvar", 0),
    "VA": ("kVA", -3),
    "kVA": ("kVA", 0),
    "mV": ("V", -3),
    "V": ("V", 0),
    "kV": ("V", 3),
    "mA": ("A", -3),
    "A": ("A", 0),
    "Hz": ("Hz", 0),
    "degC": ("°C", 0),
    "deg": ("°", 0),
    "%": ("", -2),
    "1": ("", 0),
    "": ("", 0),
}


def shift_of(unit: str, wanted: str) -> int | None:
    """The power of ten that turns `unit` into `wanted`; None when it cannot become that."""
    found = UNITS.get(unit)
    return found[1] if found is not None and found[0] == wanted else None


@lru_cache(maxsize=1024)
def shift_to_point(unit: str, point: str) -> int:
    """The power of ten that turns a register's unit into its point's; 0 for a raw register."""
    if point.startswith("reg:"):
        return 0
    return shift_of(unit, quantity(point).unit) or 0
