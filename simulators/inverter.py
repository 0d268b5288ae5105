"""What a photovoltaic inverter measures and counts: its panels' day curve, on the way to the grid.

Yield comes from the same exact integers as a meter's registers; direct current, voltages and
temperature are made to fit the power. Powers are what is generated: never negative.
"""

from collections.abc import Callable
from decimal import Decimal
from math import isqrt

from simulators.curves import Constant, SolarCurve, mix
from simulators.energy import (
    MINUTE_MS,
    NWH_A_KWH,
    Channel,
    EnergyModel,
    Supply,
    Timeline,
    exact_kwh,
)
from simulators.measured import PHASES, Register

_YIELD = Channel("export")  # what the panels push into the grid
_LOSS_MILLE = 30  # direct current in, alternating current out
_STRINGS = 2
_DC_DV = 6200  # a string's voltage in full sun, tenths of a volt
_AC_DV = 2300


class Inverter:
    """An inverter's values by point name; kWh, kW, kvar, kVA, V, A, Hz, degrees Celsius.

    `rated_w`: peak of all phases together.
    """

    def __init__(self, model: EnergyModel, *, rated_w: int, seed: int = 0) -> None:
        self.model = model
        self._rated_w = rated_w
        self._seed = seed
        self._single = self._singles()

    def _singles(self) -> dict[str, Callable[[int], Decimal]]:
        """The points that have no phases or strings."""
        rated_kw = Decimal(self._rated_w).scaleb(-3)
        return {
            "rated_power": lambda _: rated_kw,
            "active_power_total": self._active_kw,
            "apparent_power_total": self._apparent_kva,
            "reactive_power_total": lambda at_ms: Decimal(self._reactive(at_ms)).scaleb(-6),
            "power_factor_total": lambda _: Decimal(1),
            "dc_power": lambda at_ms: Decimal(self._dc_milliwatts(at_ms)).scaleb(-6),
            "frequency": lambda at_ms: Decimal(4997 + mix(at_ms // MINUTE_MS) % 7).scaleb(-2),
            "temperature": self._temperature,
        }

    def register_points(self) -> tuple[str, ...]:
        """What counts up."""
        return ("pv_yield_total", "pv_yield_day")

    def register(self, point: str, at_ms: int) -> Register | None:
        """All of a register; None when it is none of the inverter's. `shown`: 0.01 kWh."""
        if point == "pv_yield_total":
            nwh = self.model.register_nwh(_YIELD, at_ms)
        elif point == "pv_yield_day":
            nwh = self.model.since_midnight_nwh(_YIELD, at_ms)
        else:
            return None
        return Register(exact_kwh(nwh), Decimal(nwh * 100 // NWH_A_KWH).scaleb(-2))

    def exact(self, point: str, at_ms: int) -> Decimal | str | None:
        """Any value; None when the inverter has no such point."""
        register = self.register(point, at_ms)
        if register is not None:
            return register.exact
        if point == "serial_number":
            return f"SIM{mix(self._seed) % 10**10:010d}"
        return self._instantaneous(point, at_ms)

    def _instantaneous(self, point: str, at_ms: int) -> Decimal | None:
        quantity, _, which = point.rpartition("_")
        if quantity in {"dc_voltage", "dc_current"} and which in {"1", "2"}:
            return self._string(quantity, int(which), at_ms)
        if quantity in {"voltage", "current"} and which in PHASES[: self.model.supply.phases]:
            return self._phase(quantity, PHASES.index(which), at_ms)
        ask = self._single.get(point)
        return ask(at_ms) if ask else None

    def _active_kw(self, at_ms: int) -> Decimal:
        return Decimal(sum(self._milliwatts(at_ms))).scaleb(-6)

    def _apparent_kva(self, at_ms: int) -> Decimal:
        active, reactive = sum(self._milliwatts(at_ms)), self._reactive(at_ms)
        return Decimal(isqrt(active * active + reactive * reactive)).scaleb(-6)

    def _temperature(self, at_ms: int) -> Decimal:
        warmer = sum(self._milliwatts(at_ms)) * 350 // (self._rated_w * 1000)
        return Decimal(250 + warmer).scaleb(-1)

    def _milliwatts(self, at_ms: int) -> tuple[int, ...]:
        return tuple(max(0, -quanta) * 36 // 10 for quanta in self.model.net_quanta(at_ms))

    def _reactive(self, at_ms: int) -> int:
        return sum(self.model.reactive_quanta(at_ms)) * 36 // 10

    def _dc_milliwatts(self, at_ms: int) -> int:
        return sum(self._milliwatts(at_ms)) * 1000 // (1000 - _LOSS_MILLE)

    def _string(self, quantity: str, number: int, at_ms: int) -> Decimal:
        share = self._dc_milliwatts(at_ms) // _STRINGS
        unrest = mix(self._seed, number, at_ms // MINUTE_MS) % 101 - 50
        tenths = _DC_DV + unrest if share else 0
        if quantity == "dc_voltage":
            return Decimal(tenths).scaleb(-1)
        return Decimal(share * 10 // tenths if tenths else 0).scaleb(-3)

    def _phase(self, quantity: str, phase: int, at_ms: int) -> Decimal:
        unrest = mix(self._seed, phase, at_ms // MINUTE_MS, 7) % 41 - 20
        tenths = _AC_DV + unrest
        if quantity == "voltage":
            return Decimal(tenths).scaleb(-1)
        return Decimal(self._milliwatts(at_ms)[phase] * 10 // tenths).scaleb(-3)


def make_inverter(
    *,
    timeline: Timeline,
    rated_w: int = 15_000,
    phases: int = 3,
    seed: int = 0,
    utc_offset_min: int = 480,
    initial_kwh: Decimal | None = None,
) -> Inverter:
    """An inverter of a size. `initial_kwh`: yield at the timeline's origin; None = the seed's."""
    panels = tuple(SolarCurve(rated_w // phases, mix(seed, 99)) for _ in range(phases))
    yielded = (
        mix(seed, 12) % (20_000 * NWH_A_KWH)
        if initial_kwh is None
        else int(initial_kwh * NWH_A_KWH)
    )
    model = EnergyModel(
        Supply(tuple(Constant(0) for _ in panels), panels, tan_phi_mille=20),
        timeline,
        initial={_YIELD: yielded},
        utc_offset_min=utc_offset_min,
    )
    return Inverter(model, rated_w=rated_w, seed=seed)
