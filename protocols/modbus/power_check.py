"""Power against voltage times current: whether both are of one side of the transformers."""

from collections.abc import Mapping
from decimal import Decimal

PHASES = "abc"
TOLERANCE = Decimal("0.2")  # the values of one reply are not of one instant inside the device
LEAST_KVA = Decimal("0.05")  # below it a step of the current weighs too much


def power_factor_found(values: Mapping[str, Decimal | None]) -> Decimal | None:
    """How many times too large active power is beside voltages and currents; None = it fits, or
    cannot be told.

    Values in the units of the points. Without a power factor only too much power can be told: too
    little is what a low power factor looks like.
    """
    power = values.get("active_power_total")
    apparent = Decimal(0)
    for phase in PHASES:
        voltage, current = values.get(f"voltage_{phase}"), values.get(f"current_{phase}")
        if voltage is not None and current is not None:
            apparent += abs(voltage * current) / 1000
    if power is None or apparent < LEAST_KVA or not power:
        return None
    factor = values.get("power_factor_total")
    if factor is not None and Decimal("0.2") <= abs(factor) <= 1:
        times = abs(power) / (apparent * abs(factor))
        return times if abs(times - 1) > TOLERANCE and abs(1 / times - 1) > TOLERANCE else None
    times = abs(power) / apparent
    return times if times > 1 + TOLERANCE else None
