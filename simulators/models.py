"""Ready-made meters: a flat, a shop on three phases, a home with panels on its roof.

Sizes are kept inside the connection each has, so that no honest reading ever looks impossible.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from math import isqrt
from typing import Literal

from protocols.modbus.register import DeviceProfile
from simulators.curves import HOUSEHOLD, SHOP, LoadCurve, SolarCurve, mix
from simulators.energy import NWH_A_KWH, Channel, Direction, EnergyModel, Supply, Timeline
from simulators.inverter import make_inverter
from simulators.measured import Measured
from simulators.meter645 import Meter645, MeterClock, MeterSettings, TruthLog
from simulators.modbus_meter import ModbusDevice, ModbusSettings
from simulators.modbus_source import Source

Kind = Literal["single", "three", "pv", "pv3"]
KINDS: tuple[Kind, ...] = ("single", "three", "pv", "pv3")


@dataclass(frozen=True, slots=True)
class KindFacts:
    """What a kind of meter stands for. `capacity_kw`: phases x 220 V x the main fuse."""

    phases: int
    has_pv: bool
    capacity_kw: Decimal
    load_peak_w: tuple[int, int]  # per phase, smallest and largest
    panel_peak_w: tuple[int, int]


FACTS: dict[Kind, KindFacts] = {
    "single": KindFacts(1, False, Decimal("13.2"), (3000, 8000), (0, 0)),  # noqa: FBT003 - a table
    "three": KindFacts(3, False, Decimal("39.6"), (4000, 10_000), (0, 0)),  # noqa: FBT003
    "pv": KindFacts(1, True, Decimal("13.2"), (3000, 6000), (5000, 9000)),  # noqa: FBT003
    "pv3": KindFacts(3, True, Decimal("39.6"), (2000, 5000), (4000, 8000)),  # noqa: FBT003
}


_NOMINAL_V = 220

_WAYS: tuple[tuple[Direction, Direction, Direction], ...] = (
    ("import", "q1", "s_import"),
    ("export", "q2", "s_export"),
)


def make_supply(kind: Kind, seed: int, *, times: int = 1) -> Supply:
    """Loads and panels of a kind: sizes and unrest from the seed; all powers `times` as large."""
    facts = FACTS[kind]
    shape = SHOP if kind == "three" else HOUSEHOLD
    loads = tuple(
        LoadCurve(times * _between(facts.load_peak_w, seed, phase), shape, mix(seed, phase, 1))
        for phase in range(facts.phases)
    )
    weather = mix(seed, 99)  # one sky over all panels of a roof
    panels = tuple(
        SolarCurve(times * _between(facts.panel_peak_w, seed, phase, 2), weather)
        if facts.has_pv
        else None
        for phase in range(facts.phases)
    )
    return Supply(loads, panels, tan_phi_mille=100 + mix(seed, 3) % 250)


def make_initial(kind: Kind, seed: int) -> dict[Channel, int]:
    """What a meter that has hung for some years shows: tariff registers, down to the last nWh."""
    phases = FACTS[kind].phases
    initial: dict[Channel, int] = {}
    for tariff in range(1, 5):
        imported = mix(seed, 10, tariff) % (6000 * phases * NWH_A_KWH)
        exported = mix(seed, 12, tariff) % (3000 * phases * NWH_A_KWH) if FACTS[kind].has_pv else 0
        for active, reactive, apparent, nwh in (*_WAYS[0], imported), (*_WAYS[1], exported):
            share = nwh // 5  # of reactive energy, about what the loads go on with
            initial[Channel(active, tariff)] = nwh
            initial[Channel(reactive, tariff)] = share
            initial[Channel(apparent, tariff)] = isqrt(nwh * nwh + share * share)
    if phases > 1:
        for direction in {channel.direction for channel in initial}:
            total = sum(initial[Channel(direction, tariff)] for tariff in range(1, 5))
            for phase in range(1, phases + 1):
                initial[Channel(direction, 0, phase)] = total // phases
    return initial


def make_meter(
    kind: Kind,
    settings: MeterSettings,
    *,
    timeline: Timeline,
    clock: Callable[[], int],
    utc_offset_min: int = 480,
    sun_offset_min: int | None = None,
    drift_ppm: int = 0,
    clock_error_ms: int = 0,
    initial: dict[Channel, int] | None = None,
    truth_log: TruthLog | None = None,
) -> Meter645:
    """A meter of a kind; everything about it follows from `settings.seed`.

    `sun_offset_min`: what places the midnight of loads and panels, where it is not the meter's.
    """
    model = EnergyModel(
        make_supply(kind, settings.seed),
        timeline,
        initial=make_initial(kind, settings.seed) if initial is None else initial,
        utc_offset_min=utc_offset_min if sun_offset_min is None else sun_offset_min,
    )
    return Meter645(
        settings,
        Measured(model, seed=settings.seed),
        clock=clock,
        meter_clock=MeterClock(
            utc_offset_min=utc_offset_min,
            error_ms=clock_error_ms,
            drift_ppm=drift_ppm,
            set_at_ms=clock(),
        ),
        truth_log=truth_log,
    )


def make_modbus_meter(
    kind: Kind,
    settings: ModbusSettings,
    profile: DeviceProfile,
    *,
    timeline: Timeline,
    clock: Callable[[], int],
    utc_offset_min: int = 480,
    initial: dict[Channel, int] | None = None,
    truth_log: TruthLog | None = None,
) -> ModbusDevice:
    """A Modbus meter of a kind. Behind transformers flows CT x PT times what a home draws.

    `initial` are contents of the primary side.
    """
    times = int(settings.ct * settings.pt)
    if times != settings.ct * settings.pt:
        msg = f"a simulated meter's ratios make a whole number, not {settings.ct * settings.pt}"
        raise ValueError(msg)
    if initial is None:
        initial = {c: nwh * times for c, nwh in make_initial(kind, settings.seed).items()}
    model = EnergyModel(
        make_supply(kind, settings.seed, times=times),
        timeline,
        initial=initial,
        utc_offset_min=utc_offset_min,
    )
    source = Measured(
        model, seed=settings.seed, times=times, nominal_v=int(_NOMINAL_V * settings.pt)
    )
    return ModbusDevice(settings, profile, source, clock=clock, truth_log=truth_log)


def make_modbus_inverter(
    settings: ModbusSettings,
    profile: DeviceProfile,
    *,
    timeline: Timeline,
    clock: Callable[[], int],
    utc_offset_min: int = 480,
    rated_w: int = 15_000,
    initial_kwh: Decimal | None = None,
    truth_log: TruthLog | None = None,
    grid: Source | None = None,
) -> ModbusDevice:
    """An inverter of a size with its registers. `grid`: what its own meter measures."""
    source = make_inverter(
        timeline=timeline,
        rated_w=rated_w,
        seed=settings.seed,
        utc_offset_min=utc_offset_min,
        initial_kwh=initial_kwh,
    )
    return ModbusDevice(settings, profile, source, clock=clock, truth_log=truth_log, grid=grid)


def _between(ends: tuple[int, int], *parts: int) -> int:
    low, high = ends
    return low + mix(*parts) % (high - low + 1)
