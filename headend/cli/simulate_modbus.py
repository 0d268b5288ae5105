"""`headend simulate modbus`: meters and inverters of any profile, on a line or a TCP port."""

import argparse
import re
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from headend.cli.simulate_options import (
    as_host_port,
    as_kwh,
    as_whole,
    initial_registers,
    offset_min,
    timeline_of,
)
from headend.config.profiles import SUNSPEC, load_profile
from headend.domain.clock import SystemClock
from headend.domain.errors import ConfigError
from protocols.modbus.sunspec import any_sunspec

if TYPE_CHECKING:
    from simulators.energy import Timeline
    from simulators.meter645 import TruthLog
    from simulators.modbus_meter import ModbusDevice
    from simulators.serve import Server

_KINDS = ("single", "three", "pv", "pv3")
_MISSING = ("target_silent", "no_path", "silent")
_DEVICE = re.compile(r"(\d{1,3}):(.+)")


class _Planned(NamedTuple):
    """One device: its unit, and the name or file of its profile."""

    unit: int
    profile: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend simulate modbus`."""
    add = parser.add_argument
    add(
        "--profile",
        default="eastron_sdm630",
        metavar="P",
        help="name or file; sunspec (eastron_sdm630)",
    )
    add("--unit", type=_unit, action="append", help="of that profile; once for each (default 1)")
    add(
        "--device", type=_device, action="append", default=[], metavar="UNIT:PROFILE",
        help="one more device, of another profile",
    )  # fmt: skip
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pty", type=Path, metavar="PATH", help="a pty, under this symlink")
    where.add_argument(
        "--tcp", type=as_host_port, metavar="HOST:PORT", help="RTU bytes on a TCP port (0 = any)"
    )
    where.add_argument(
        "--modbus-tcp", type=as_host_port, metavar="HOST:PORT", help="Modbus TCP (port 0 = any)"
    )
    add("--missing", choices=_MISSING, default=_MISSING[0], help="a unit that a gateway lacks")
    add("--baud", type=as_whole(0), help="line speed (pty: 9600; TCP: none)")
    add("--parity", choices=("none", "even", "odd"), default="none", help="of the pty's link")
    add("--delay-ms", type=as_whole(0), default=40, help="pause before a reply (default 40)")
    add("--ct", type=_ratio, default=Decimal(1), metavar="N", help="in front of secondary meters")
    add("--pt", type=_ratio, default=Decimal(1), metavar="N", help="likewise, voltage")
    add("--kind", choices=_KINDS, default="pv3", help="connection and what hangs behind a meter")
    add("--rated-w", type=as_whole(1), default=15_000, help="an inverter's rated power")
    add("--fault", action="append", default=[], metavar="NAME[:key=value,...]", type=_fault)
    add("--speed", type=as_whole(0), default=1, help="energy runs this much faster; 0 = stands")
    add("--import-kwh", type=as_kwh, metavar="KWH", help="import at the start, primary side")
    add("--export-kwh", type=as_kwh, metavar="KWH", help="export at the start, primary side")
    add("--yield-kwh", type=as_kwh, metavar="KWH", help="an inverter's yield at the start")
    add("--control", type=Path, metavar="SOCKET", help="truth, on, off and faults over this socket")


async def start(args: argparse.Namespace, log: "TruthLog | None") -> AsyncExitStack:
    """Open the line or port with its devices on it and say READY. ConfigErrors, OSError."""
    planned = [_Planned(unit, args.profile) for unit in args.unit or ([] if args.device else [1])]
    planned += args.device
    units = [one.unit for one in planned]
    if len(set(units)) < len(units):
        message = f"a unit is there once, not {units}"
        raise ConfigError(message, hint="--unit and --device name different ones")
    told = (args.import_kwh, args.export_kwh, args.yield_kwh)
    timeline = timeline_of(args, SystemClock().now_ms(), told=any(one is not None for one in told))
    devices = {
        str(one.unit): _make(args, one, number, timeline, log) for number, one in enumerate(planned)
    }
    for device in devices.values():
        device.warm_up()
    server = _server(args, list(devices.values()))
    stack = AsyncExitStack()
    await server.start()
    stack.push_async_callback(server.close)
    if args.control is not None:
        from simulators.control import ControlServer  # noqa: PLC0415 - only when it is wanted
        from simulators.steering import Steering  # noqa: PLC0415

        steering = Steering(
            devices, timeline, speed=args.speed, clock=SystemClock().now_ms, seed=args.seed
        )
        control = ControlServer(steering, args.control)
        try:
            await control.start()
        except OSError:
            await stack.aclose()
            raise
        stack.push_async_callback(control.close)
    print(f"READY {server.where}", flush=True)
    return stack


def _make(
    args: argparse.Namespace,
    planned: _Planned,
    number: int,
    timeline: "Timeline",
    log: "TruthLog | None",
) -> "ModbusDevice":
    from simulators.curves import mix  # noqa: PLC0415 - the parser must not pay for it
    from simulators.inverter import make_inverter  # noqa: PLC0415
    from simulators.modbus_meter import ModbusSettings  # noqa: PLC0415
    from simulators.modbus_sunspec import sunspec_device  # noqa: PLC0415
    from simulators.models import (  # noqa: PLC0415
        make_initial,
        make_modbus_inverter,
        make_modbus_meter,
    )

    sunspec = planned.profile == SUNSPEC
    profile = any_sunspec() if sunspec else load_profile(planned.profile, Path.cwd())
    seed = mix(args.seed, number)
    secondary = profile.side == "secondary"
    settings = ModbusSettings(
        planned.unit,
        reply_delay_ms=args.delay_ms,
        ct=args.ct if secondary else Decimal(1),
        pt=args.pt if secondary else Decimal(1),
        seed=seed,
    )
    clock = SystemClock().now_ms
    zone_min = offset_min(clock(), args.zone)
    if sunspec:
        roof = make_inverter(
            timeline=timeline, rated_w=args.rated_w, seed=seed, utc_offset_min=zone_min,
            initial_kwh=args.yield_kwh,
        )  # fmt: skip
        device = sunspec_device(settings, roof, clock=clock, truth_log=log)
    elif profile.kind == "inverter":
        device = make_modbus_inverter(
            settings, profile, timeline=timeline, clock=clock, utc_offset_min=zone_min,
            rated_w=args.rated_w, initial_kwh=args.yield_kwh, truth_log=log,
        )  # fmt: skip
    else:
        times = int(settings.ct * settings.pt)
        kept = {c: nwh * times for c, nwh in make_initial(args.kind, seed).items()}
        device = make_modbus_meter(
            args.kind, settings, profile, timeline=timeline, clock=clock, utc_offset_min=zone_min,
            initial=initial_registers(args, kept), truth_log=log,
        )  # fmt: skip
    for index, text in enumerate(args.fault):
        device.add_fault_text(text, mix(seed, index))
    return device


def _server(args: argparse.Namespace, devices: "list[ModbusDevice]") -> "Server":
    from simulators.modbus_line import ModbusBus  # noqa: PLC0415 - the parser must not pay for it
    from simulators.modbus_tcp import ModbusTcpServer  # noqa: PLC0415
    from simulators.serve import PtyServer, TcpServer  # noqa: PLC0415

    if args.modbus_tcp is not None:
        host, port = args.modbus_tcp
        return ModbusTcpServer(devices, host, port, baud=args.baud or None, missing=args.missing)
    bus = ModbusBus(devices)
    if args.tcp is not None:
        host, port = args.tcp
        return TcpServer(bus, host, port, baud=args.baud or None)
    return PtyServer(bus, args.pty, baud=args.baud or 9600, parity=args.parity)


def _unit(text: str) -> int:
    if not text.isdecimal() or int(text) > 255:
        raise argparse.ArgumentTypeError(f"a unit is 0 to 255, not {text!r}")
    return int(text)


def _device(text: str) -> _Planned:
    found = _DEVICE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"UNIT:PROFILE is wanted, not {text!r}")
    return _Planned(_unit(found[1]), found[2])


def _ratio(text: str) -> Decimal:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a ratio is a whole number from 1 on, not {text!r}")
    return Decimal(text)


def _fault(text: str) -> str:
    from simulators.modbus_faults import parse_modbus_fault  # noqa: PLC0415 - when one is wanted

    try:
        parse_modbus_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
