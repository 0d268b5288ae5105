"""A street: homes, shops and roofs with panels, on several buses, all from one seed.

`plan_street` says what stands where and is ready for a configuration; `Street` runs it, in whatever
process it is made. `control` speaks to a street in another process.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from simulators.curves import mix
from simulators.energy import DAY_MS, Timeline
from simulators.faults import parse_fault, seeded
from simulators.measured import Register
from simulators.meter645 import Meter645, MeterSettings, TruthLog
from simulators.meterbus import MeterBus
from simulators.models import FACTS, Kind, make_meter
from simulators.serve import CHUNK, PtyServer, Server, TcpServer

PAST_DAYS = 3  # how long the meters have hung already: so many midnights are frozen in them
# Every eight homes hold each kind, and three roofs with panels.
_MIX: tuple[Kind, ...] = ("single", "pv", "three", "single", "pv3", "single", "pv", "three")


@dataclass(frozen=True, slots=True)
class PlannedMeter:
    """One meter, as a configuration names it.

    `capacity_kw` bounds what can flow through it in either direction, the demo's speed included.
    """

    asset_id: str
    service_point: str
    bus: str
    address: str
    kind: Kind
    phases: int
    has_pv: bool
    capacity_kw: Decimal
    seed: int
    reply_delay_ms: int
    wakeup: int


@dataclass(frozen=True, slots=True)
class PlannedBus:
    """One bus. `link` is its URL; of a TCP port it is complete once the street runs."""

    name: str
    link: str
    baud: int
    path: Path | None
    meters: tuple[PlannedMeter, ...]


@dataclass(frozen=True, slots=True)
class StreetPlan:
    """What stands where. `origin_ms`: since when the meters have hung."""

    seed: int
    speed: int
    origin_ms: int
    start_ms: int
    utc_offset_min: int
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
) -> StreetPlan:
    """Spread `meters` over the buses in turn. ValueError for numbers that make no street."""
    names = [f"pty-{n + 1}" for n in range(buses_pty)] + [f"tcp-{n + 1}" for n in range(buses_tcp)]
    if not names or meters < len(names) or not 1 <= speed <= 3600:
        msg = f"{meters} meters on {len(names)} buses at speed {speed} make no street"
        raise ValueError(msg)
    placed: dict[str, list[PlannedMeter]] = {name: [] for name in names}
    for number in range(meters):
        bus = names[number % len(names)]
        placed[bus].append(_planned_meter(number, bus, seed, speed, reply_delay_ms))
    buses: list[PlannedBus] = []
    for name in names:
        path = directory.absolute() / name if name.startswith("pty") else None
        link = f"serial://{path}?baud={baud}&parity=even&stop=1" if path else "tcp://127.0.0.1:0"
        buses.append(PlannedBus(name, link, baud, path, tuple(placed[name])))
    local_ms = start_ms + utc_offset_min * 60_000
    origin_ms = start_ms - local_ms % DAY_MS - PAST_DAYS * DAY_MS - 1  # just before a midnight
    return StreetPlan(seed, speed, origin_ms, start_ms, utc_offset_min, tuple(buses))


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


class Street:
    """A running street. `clock` gives wall time in milliseconds.

    Energy time runs at the plan's speed from the plan's start on, and as fast as wall time before:
    yesterday's freezes are honest days.
    """

    def __init__(
        self,
        plan: StreetPlan,
        *,
        clock: Callable[[], int],
        truth_log: TruthLog | None = None,
    ) -> None:
        self.plan = plan
        self.clock = clock
        self.timeline = Timeline(plan.origin_ms)
        self.timeline.change(plan.start_ms, plan.speed)
        self.meters: dict[str, Meter645] = {
            meter.asset_id: make_meter(
                meter.kind,
                MeterSettings(
                    meter.address,
                    reply_delay_ms=meter.reply_delay_ms,
                    wakeup=meter.wakeup,
                    seed=meter.seed,
                ),
                timeline=self.timeline,
                clock=clock,
                utc_offset_min=plan.utc_offset_min,
                truth_log=truth_log,
            )
            for meter in plan.meters
        }
        self.servers: dict[str, Server] = {}

    async def start(self) -> StreetPlan:
        """Open every bus; the plan with complete links. On an error what was opened is closed."""
        for meter in self.meters.values():
            meter.warm_up()
        buses: list[PlannedBus] = []
        try:
            for bus in self.plan.buses:
                station = MeterBus(self.meters[meter.asset_id] for meter in bus.meters)
                server: Server = (
                    PtyServer(station, bus.path, baud=bus.baud)
                    if bus.path
                    else TcpServer(station, baud=bus.baud, chunk=CHUNK)
                )
                await server.start()
                self.servers[bus.name] = server
                buses.append(replace(bus, link=server.where))
        except BaseException:
            await self.close()
            raise
        self.plan = replace(self.plan, buses=tuple(buses))
        return self.plan

    async def close(self) -> None:
        """Close every bus."""
        for server in self.servers.values():
            await server.close()
        self.servers.clear()

    async def __aenter__(self) -> Self:
        """Started."""
        await self.start()
        return self

    async def __aexit__(self, *_unused: object) -> None:
        """Closed."""
        await self.close()

    def truth(
        self, asset_id: str, at_ms: int | None = None, points: Iterable[str] | None = None
    ) -> dict[str, Register]:
        """Registers of a meter at a wall time (now): those asked for that it has, or all."""
        return self.meters[asset_id].truth(self.clock() if at_ms is None else at_ms, points)

    def switch_off(self, at_ms: int | None = None) -> int:
        """All loads and panels to zero from `at_ms` (now) on; the registers stand. Returns when."""
        when = self.clock() if at_ms is None else at_ms
        self.timeline.switch_off(when)
        return when

    def switch_on(self, at_ms: int | None = None) -> int:
        """Loads and panels run again at the plan's speed from `at_ms` (now) on."""
        when = self.clock() if at_ms is None else at_ms
        self.timeline.change(when, self.plan.speed)
        return when

    def command(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One control command (`do`): plan, truth, off, on, fault, clear. KeyError, ValueError."""
        match request.get("do"):
            case "plan":
                return {"plan": self.plan.to_json()}
            case "truth":
                return self._truth_json(request)
            case "off":
                return {"at_ms": self.switch_off(request.get("at_ms"))}
            case "on":
                return {"at_ms": self.switch_on(request.get("at_ms"))}
            case "fault":
                meter = self.meters[request["meter"]]
                seed = mix(meter.settings.seed, len(meter.faults))
                meter.add_fault(parse_fault(request["fault"], rng=seeded(seed)))
                return {"faults": [fault.name for fault in meter.faults]}
            case "clear":
                meter = self.meters[request["meter"]]
                meter.clear_faults(request.get("fault"))
                return {"faults": [fault.name for fault in meter.faults]}
        msg = f"unknown command {request.get('do')!r}; known: plan, truth, off, on, fault, clear"
        raise ValueError(msg)

    def _truth_json(self, request: Mapping[str, Any]) -> dict[str, Any]:
        at_ms = int(request.get("at_ms") or self.clock())
        asked = request.get("meters") or list(self.meters)
        points = request.get("points")
        return {
            "at_ms": at_ms,
            "meters": {
                asset_id: {
                    point: {"exact": f"{register.exact:f}", "shown": str(register.shown)}
                    for point, register in self.truth(asset_id, at_ms, points).items()
                }
                for asset_id in asked
            },
        }
