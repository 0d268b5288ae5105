"""A street: homes, shops and roofs with panels, on several buses, all from one seed.

`plan_street` says what stands where and is ready for a configuration; `Street` runs it, in whatever
process it is made. `control` speaks to a street in another process.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Self

from protocols.modbus.register import DeviceProfile
from simulators.energy import Timeline
from simulators.measured import Register
from simulators.meter645 import Meter645, MeterSettings, TruthLog
from simulators.meterbus import MeterBus
from simulators.modbus_line import ModbusBus, SharedLine
from simulators.modbus_meter import ModbusDevice, ModbusSettings
from simulators.modbus_tcp import ModbusTcpServer
from simulators.models import make_meter, make_modbus_inverter, make_modbus_meter
from simulators.serve import CHUNK, PtyServer, Server, TcpServer
from simulators.steering import Steering
from simulators.streetplan import (
    PAST_DAYS,
    PlannedBus,
    PlannedMeter,
    StreetPlan,
    plan_street,
)
from simulators.wire import Station

__all__ = [
    "PAST_DAYS",
    "PlannedBus",
    "PlannedMeter",
    "Street",
    "StreetPlan",
    "plan_street",
]

AnyDevice = Meter645 | ModbusDevice


class Street:
    """A running street. `clock` gives wall time in milliseconds.

    `profiles`: of the Modbus devices, by the names that the plan calls them.

    Energy time runs at the plan's speed from the plan's start on, and as fast as wall time before:
    yesterday's freezes are honest days.
    """

    def __init__(
        self,
        plan: StreetPlan,
        *,
        clock: Callable[[], int],
        profiles: Mapping[str, DeviceProfile] | None = None,
        truth_log: TruthLog | None = None,
    ) -> None:
        self.plan = plan
        self.clock = clock
        self.timeline = Timeline(plan.origin_ms)
        self.timeline.change(plan.start_ms, plan.speed)
        self.meters: dict[str, AnyDevice] = {
            meter.asset_id: _device(meter, plan, profiles or {}, self.timeline, clock, truth_log)
            for meter in plan.meters
        }
        self._steering = Steering(
            self.meters, self.timeline, speed=plan.speed, clock=clock, seed=plan.seed
        )
        self.servers: dict[str, Server] = {}

    async def start(self) -> StreetPlan:
        """Open every bus; the plan with complete links. On an error what was opened is closed."""
        for meter in self.meters.values():
            meter.warm_up()
        buses: list[PlannedBus] = []
        try:
            for bus in self.plan.buses:
                server = _server(bus, [self.meters[meter.asset_id] for meter in bus.meters])
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
        return self._steering.truth(asset_id, at_ms, points)

    def switch_off(self, at_ms: int | None = None) -> int:
        """All loads and panels to zero from `at_ms` (now) on; the registers stand. Returns when."""
        return self._steering.switch_off(at_ms)

    def switch_on(self, at_ms: int | None = None) -> int:
        """Loads and panels run again at the plan's speed from `at_ms` (now) on."""
        return self._steering.switch_on(at_ms)

    def command(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One control command: `plan`, or what `steering` knows. KeyError, ValueError."""
        if request.get("do") == "plan":
            return {"plan": self.plan.to_json()}
        return self._steering.command(request)


def _device(
    meter: PlannedMeter,
    plan: StreetPlan,
    profiles: Mapping[str, DeviceProfile],
    timeline: Timeline,
    clock: Callable[[], int],
    truth_log: TruthLog | None,
) -> AnyDevice:
    """The device that a plan names; KeyError for a profile that was not handed in."""
    if meter.profile is None:
        assert meter.kind != "inverter"
        return make_meter(
            meter.kind,
            MeterSettings(
                meter.address,
                reply_delay_ms=meter.reply_delay_ms,
                wakeup=meter.wakeup,
                seed=meter.seed,
            ),
            timeline=timeline,
            clock=clock,
            utc_offset_min=plan.utc_offset_min,
            sun_offset_min=plan.sun_offset_min,
            truth_log=truth_log,
        )
    settings = ModbusSettings(
        int(meter.address),
        reply_delay_ms=meter.reply_delay_ms,
        ct=Decimal(meter.ct),
        seed=meter.seed,
    )
    profile, sun_min = profiles[meter.profile], plan.sun_offset_min
    if meter.kind == "inverter":
        return make_modbus_inverter(
            settings,
            profile,
            timeline=timeline,
            clock=clock,
            utc_offset_min=sun_min,
            truth_log=truth_log,
        )
    return make_modbus_meter(
        meter.kind,
        settings,
        profile,
        timeline=timeline,
        clock=clock,
        utc_offset_min=sun_min,
        truth_log=truth_log,
    )


def _server(bus: PlannedBus, devices: Sequence[AnyDevice]) -> Server:
    """The bus with its devices on it: both protocols on one pair, or a gateway."""
    modbus = [device for device in devices if isinstance(device, ModbusDevice)]
    if bus.is_gateway:
        return ModbusTcpServer(modbus)
    station = _station([d for d in devices if isinstance(d, Meter645)], modbus)
    if bus.path:
        return PtyServer(station, bus.path, baud=bus.baud, overhear=bool(modbus))
    return TcpServer(station, baud=bus.baud, chunk=CHUNK, overhear=bool(modbus))


def _station(meters: Sequence[Meter645], modbus: Sequence[ModbusDevice]) -> Station:
    return SharedLine(MeterBus(meters), ModbusBus(modbus)) if modbus else MeterBus(meters)
