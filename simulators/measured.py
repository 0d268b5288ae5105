"""What a meter measures and counts at an instant, by point name.

Registers come from the energy model; voltage, current, power factor and frequency are made to fit
the power, with a little seeded unrest from minute to minute. Everything is integer until it becomes
the `Decimal` with the decimals a DL/T 645-2007 item has; digits behind those are cut, not rounded.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from math import isqrt
from typing import Literal

from simulators.curves import mix
from simulators.energy import (
    MINUTE_MS,
    NWH_A_KWH,
    Channel,
    Direction,
    EnergyModel,
    apparent_quanta,
    exact_kwh,
)

PHASES = ("a", "b", "c")
TARIFFS = 4
_COUNT_NWH = NWH_A_KWH // 100
_WRAP_COUNTS = 100_000_000  # XXXXXX.XX
_WRAP_SIGNED_COUNTS = 80_000_000  # the top bit is the sign

_QUANTITIES: dict[str, tuple[Direction, ...]] = {
    "active_import": ("import",),
    "active_export": ("export",),
    "reactive_import": ("q1", "q2"),
    "reactive_export": ("q3", "q4"),
    "reactive_q1": ("q1",),
    "reactive_q2": ("q2",),
    "reactive_q3": ("q3",),
    "reactive_q4": ("q4",),
    "apparent_import": ("s_import",),
    "apparent_export": ("s_export",),
    "active_combined": ("import", "export"),
}
_SIGNED = {"active_combined", "reactive_import", "reactive_export"}


@dataclass(frozen=True, slots=True)
class Register:
    """A register's truth: all of it, and what its display and its replies show (kWh, kvarh)."""

    exact: Decimal
    shown: Decimal


@dataclass(frozen=True, slots=True)
class _Place:
    quantity: str
    tariff: int
    phase: int


@cache
def register_place(point: str) -> _Place | None:
    """Where a register point stands; None when the name is not a register's."""
    found = re.fullmatch(r"(.+?)(?:_(total)|_t([1-9]\d?)|_([abc]))?", point)
    if found is None or found[1] not in _QUANTITIES:
        return None
    total = not found[3] and not found[4]
    if total and found[1].startswith("reactive_q") == bool(found[2]):
        return None  # `reactive_q1` is a total's whole name, `active_import` is none
    return _Place(found[1], int(found[3] or 0), PHASES.index(found[4]) + 1 if found[4] else 0)


class Measured:
    """Everything one meter can say of an instant.

    `combined`: how active_combined_total is made of import and export; `sum` or `difference` (then
    it may be negative). `times`: how much stouter the connection is than a home's.
    """

    def __init__(
        self,
        model: EnergyModel,
        *,
        seed: int = 0,
        combined: Literal["sum", "difference"] = "sum",
        nominal_v: int = 220,
        times: int = 1,
    ) -> None:
        self.model = model
        self._seed = seed
        self._combined = combined
        self._nominal_dv = nominal_v * 10
        self._watts_a_dv = 400 * times

    @property
    def is_combined_sum(self) -> bool:
        """Whether active_combined is import plus export, not import less export."""
        return self._combined == "sum"

    def register_points(self) -> tuple[str, ...]:
        """Every register point of this meter: totals, tariffs, its own phases."""
        suffixes = [f"_t{tariff}" for tariff in range(1, TARIFFS + 1)]
        names: list[str] = []
        for quantity in _QUANTITIES:
            names.append(quantity if quantity.startswith("reactive_q") else f"{quantity}_total")
            names += [quantity + suffix for suffix in suffixes]
            if quantity != "active_combined":
                names += [f"{quantity}_{PHASES[i]}" for i in range(self.model.supply.phases)]
        return tuple(names)

    def register(self, point: str, at_ms: int) -> Register | None:
        """Truth of a register point; None when this meter has no such register."""
        place = register_place(point)
        if place is None or place.tariff > TARIFFS or place.phase > self.model.supply.phases:
            return None
        nwh = 0
        for index, direction in enumerate(_QUANTITIES[place.quantity]):
            # A single-phase meter's phase a is all it has; it keeps no second register for it.
            phase = place.phase if self.model.supply.phases > 1 else 0
            part = self.model.register_nwh(Channel(direction, place.tariff, phase), at_ms)
            minus = index == 1 and place.quantity == "active_combined"
            nwh += -part if minus and self._combined == "difference" else part
        wrap = _WRAP_SIGNED_COUNTS if place.quantity in _SIGNED else _WRAP_COUNTS
        counts = abs(nwh) // _COUNT_NWH % wrap
        shown = Decimal(-counts if nwh < 0 else counts).scaleb(-2)
        return Register(exact_kwh(nwh), shown)

    def exact(self, point: str, at_ms: int) -> Decimal | None:
        """As `value`, but of a register all of it: for meters whose steps are others."""
        register = self.register(point, at_ms)
        return self.value(point, at_ms) if register is None else register.exact

    def value(self, point: str, at_ms: int) -> Decimal | None:
        """Any number this meter can say; None when it has no such point."""
        register = self.register(point, at_ms)
        if register is not None:
            return register.shown
        if point == "frequency":
            minute = at_ms // MINUTE_MS
            return Decimal(4997 + mix(minute) % 7).scaleb(-2)  # one grid: no meter's own seed
        quantity, _, which = point.rpartition("_")
        if which == "n" and quantity == "current":
            return self._neutral_current(at_ms)
        if which != "total" and which not in PHASES[: self.model.supply.phases]:
            return None
        phase = PHASES.index(which) if which != "total" else None
        match quantity:
            case "voltage" if phase is not None:
                return Decimal(self._voltage_dv(phase, at_ms)).scaleb(-1)
            case "current" if phase is not None:
                return Decimal(self._current_ma(phase, at_ms)).scaleb(-3)
            case "active_power" | "reactive_power" | "apparent_power" | "power_factor":
                return self._power(quantity, phase, at_ms)
        return None

    def _power(self, quantity: str, phase: int | None, at_ms: int) -> Decimal:
        active, reactive, apparent = self._powers(phase, at_ms)
        match quantity:
            case "active_power":
                return _kilo(active)
            case "reactive_power":
                return _kilo(reactive)
            case "apparent_power":
                return _kilo(apparent)
        factor = abs(active) * 1000 // apparent if apparent else 1000
        return Decimal(-factor if active < 0 else factor).scaleb(-3)

    def _powers(self, phase: int | None, at_ms: int) -> tuple[int, int, int]:
        """Active, reactive, apparent power in quanta; of all phases together for None."""
        part = slice(None) if phase is None else slice(phase, phase + 1)
        active = sum(self.model.net_quanta(at_ms)[part])
        reactive = sum(self.model.reactive_quanta(at_ms)[part])
        return active, reactive, apparent_quanta(active, reactive)

    def _voltage_dv(self, phase: int, at_ms: int) -> int:
        """Tenths of a volt: the nominal, a little unrest, lower under load, higher when feeding."""
        unrest = mix(self._seed, phase, at_ms // MINUTE_MS) % 41 - 20
        watts = self.model.net_quanta(at_ms)[phase] * 9 // 2500
        return self._nominal_dv + unrest - watts // self._watts_a_dv

    def _current_ma(self, phase: int, at_ms: int) -> int:
        """Milliamperes: apparent power over voltage, with the sign of the active power."""
        active, _, apparent = self._powers(phase, at_ms)
        current = apparent * 36 // self._voltage_dv(phase, at_ms)
        return -current if active < 0 else current

    def _neutral_current(self, at_ms: int) -> Decimal:
        """What the phases do not cancel: all of it on one phase, the star's rest on three."""
        currents = [self._current_ma(i, at_ms) for i in range(self.model.supply.phases)]
        if len(currents) == 1:
            return Decimal(currents[0]).scaleb(-3)
        a, b, c = currents
        return Decimal(isqrt(a * a + b * b + c * c - a * b - b * c - a * c)).scaleb(-3)


def _kilo(quanta: int) -> Decimal:
    """KW (kvar, kVA) with four decimals, cut: one unit of the item is 0.1 W."""
    tenths = abs(quanta) * 36 // 1000
    return Decimal(-tenths if quanta < 0 else tenths).scaleb(-4)
