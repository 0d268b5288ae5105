"""What stands on a street and where, all from one seed, ready for a configuration."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

from simulators.curves import mix
from simulators.energy import DAY_MS
from simulators.models import FACTS, Kind

PlannedKind = Kind | Literal["inverter"]

PAST_DAYS = 3  # how long the meters have hung already: so many midnights are frozen in them
# Every eight homes hold each kind, and three roofs with panels.
_MIX: tuple[Kind, ...] = ("single", "pv", "three", "single", "pv3", "single", "pv", "three")
GATEWAY = "gateway-1"
SUNNY_MINUTE = 11 * 60  # of the curves' day: panels shine, and do so for hours to come


@dataclass(frozen=True, slots=True)
class PlannedMeter:
    """One meter or inverter, as a configuration names it.

    `address`: twelve digits, or the Modbus unit. `capacity_kw` bounds what can flow through it in
    either direction, the demo's speed included. `profile` None = a 645 meter.
    """

    asset_id: str
    service_point: str
    bus: str
    address: str
    kind: PlannedKind
    phases: int
    has_pv: bool
    capacity_kw: Decimal
    seed: int
    reply_delay_ms: int
    wakeup: int
    protocol: str = "dlt645-2007"
    profile: str | None = None
    ct: int = 1

    @property
    def is_inverter(self) -> bool:
        """It yields; it has no import and export."""
        return self.kind == "inverter"


@dataclass(frozen=True, slots=True)
class PlannedBus:
    """One bus. `link` is its URL; of a TCP port it is complete once the street runs."""

    name: str
    link: str
    baud: int
    path: Path | None
    meters: tuple[PlannedMeter, ...]

    @property
    def is_gateway(self) -> bool:
        """A Modbus TCP server; else a line of its own, or behind a converter."""
        return self.link.startswith("modbus-tcp:")


@dataclass(frozen=True, slots=True)
class StreetPlan:
    """What stands where. `origin_ms`: since when the meters have hung.

    `sun_offset_min` places the curves' midnight as `utc_offset_min` places the meters' own.
    """

    seed: int
    speed: int
    origin_ms: int
    start_ms: int
    utc_offset_min: int
    sun_offset_min: int
    buses: tuple[PlannedBus, ...]

    @property
    def meters(self) -> tuple[PlannedMeter, ...]:
        """All meters, bus by bus."""
        return tuple(meter for bus in self.buses for meter in bus.meters)

    def to_json(self) -> dict[str, Any]:
        """For programs: plain texts and numbers."""
        plan = asdict(self)
        for bus in plan["buses"]:
            bus["path"] = str(bus["path"]) if bus["path"] else None
            for meter in bus["meters"]:
                meter["capacity_kw"] = str(meter["capacity_kw"])
        return plan

    @classmethod
    def from_json(cls, plan: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        buses = tuple(
            PlannedBus(
                name=bus["name"],
                link=bus["link"],
                baud=bus["baud"],
                path=Path(bus["path"]) if bus["path"] else None,
                meters=tuple(
                    PlannedMeter(**{**meter, "capacity_kw": Decimal(meter["capacity_kw"])})
                    for meter in bus["meters"]
                ),
            )
            for bus in plan["buses"]
        )
        return cls(**{**plan, "buses": buses})


def plan_street(
    *,
    seed: int,
    start_ms: int,
    meters: int = 8,
    buses_pty: int = 2,
    buses_tcp: int = 1,
    directory: Path,
    speed: int = 1,
    baud: int = 9600,
    utc_offset_min: int = 480,
    reply_delay_ms: int = 60,
    modbus: bool = False,
    sunny: bool = False,
) -> StreetPlan:
    """Spread `meters` over the buses in turn. ValueError for numbers that make no street.

    `modbus`: beside them an SDM630 and an ADL400 on the first pairs, and a gateway with an ADL400
    and an inverter behind it. `sunny`: at `start_ms` it is late morning for loads and panels,
    whatever the clock says.
    """
    names = [f"pty-{n + 1}" for n in range(buses_pty)] + [f"tcp-{n + 1}" for n in range(buses_tcp)]
    if not names or meters < len(names) or not 1 <= speed <= 3600:
        msg = f"{meters} meters on {len(names)} buses at speed {speed} make no street"
        raise ValueError(msg)
    placed: dict[str, list[PlannedMeter]] = {name: [] for name in names}
    for number in range(meters):
        bus = names[number % len(names)]
        placed[bus].append(_planned_meter(number, bus, seed, speed, reply_delay_ms))
    buses: list[PlannedBus] = []
    if modbus:
        _place_modbus(placed, meters, seed, speed, reply_delay_ms)
    for name in names:
        path = directory.absolute() / name if name.startswith("pty") else None
        link = f"serial://{path}?baud={baud}&parity=even&stop=1" if path else "tcp://127.0.0.1:0"
        buses.append(PlannedBus(name, link, baud, path, tuple(placed[name])))
    if modbus:
        behind = tuple(placed[GATEWAY])
        buses.append(PlannedBus(GATEWAY, "modbus-tcp://127.0.0.1:0", baud, None, behind))
    sun_offset_min = utc_offset_min
    if sunny:
        sun_offset_min = SUNNY_MINUTE - start_ms // 60_000 % 1440
    local_ms = start_ms + utc_offset_min * 60_000
    origin_ms = start_ms - local_ms % DAY_MS - PAST_DAYS * DAY_MS - 1  # just before a midnight
    return StreetPlan(
        seed, speed, origin_ms, start_ms, utc_offset_min, sun_offset_min, tuple(buses)
    )


def _place_modbus(
    placed: dict[str, list[PlannedMeter]], number: int, seed: int, speed: int, reply_delay_ms: int
) -> None:
    """The Modbus devices, numbered on behind the other meters."""
    names = list(placed)
    first, second = names[0], names[min(1, len(names) - 1)]
    places: tuple[tuple[str, int, PlannedKind, str, int], ...] = (
        (first, 1, "pv3", "eastron_sdm630", 1),
        (second, 2, "three", "acrel_adl400", 40),
        (GATEWAY, 1, "pv3", "acrel_adl400", 20),
        (GATEWAY, 2, "inverter", "sungrow_sg", 1),
    )
    for bus, unit, kind, profile, ct in places:
        number += 1
        facts = FACTS["pv3" if kind == "inverter" else kind]
        meter = PlannedMeter(
            asset_id=f"M-{number:04d}",
            service_point=f"SP-{number:04d}",
            bus=bus,
            address=str(unit),
            kind=kind,
            phases=facts.phases,
            has_pv=facts.has_pv,
            capacity_kw=facts.capacity_kw * speed * ct,
            seed=mix(seed, number),
            reply_delay_ms=reply_delay_ms,
            wakeup=0,
            protocol="modbus-tcp" if bus == GATEWAY else "modbus-rtu",
            profile=profile,
            ct=ct,
        )
        placed.setdefault(bus, []).append(meter)


def _planned_meter(
    number: int, bus: str, seed: int, speed: int, reply_delay_ms: int
) -> PlannedMeter:
    kind = _MIX[number % len(_MIX)]
    facts = FACTS[kind]
    own = mix(seed, number)
    # Eight digits of the seed's, four of the place: no two meters of a street share an address.
    address = f"{own % 10**8:08d}{number + 1:04d}"
    return PlannedMeter(
        asset_id=f"M-{number + 1:04d}",
        service_point=f"SP-{number + 1:04d}",
        bus=bus,
        address=address,
        kind=kind,
        phases=facts.phases,
        has_pv=facts.has_pv,
        capacity_kw=facts.capacity_kw * speed,
        seed=own,
        reply_delay_ms=reply_delay_ms + own % 40,
        wakeup=(0, 4, 1, 2)[own % 4],
    )
