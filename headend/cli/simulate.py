"""`headend simulate`: one simulated meter, or a whole street, on ptys and TCP ports.

Prints `READY <where>` once it can be used, and runs until SIGINT or SIGTERM; then nothing of it is
left: no process, no symlink, no socket.
"""

import argparse
import asyncio
import signal
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from headend.cli import simulate_modbus
from headend.cli.output import print_json
from headend.cli.simulate_options import (
    as_address,
    as_host_port,
    as_kwh,
    as_whole,
    as_zone,
    initial_registers,
    offset_min,
    street_profiles,
    timeline_of,
)
from headend.domain.clock import SystemClock
from headend.domain.errors import ConfigError

if TYPE_CHECKING:
    from simulators.energy import Timeline
    from simulators.meter645 import Meter645, TruthLog
    from simulators.serve import Server

_KINDS = ("single", "three", "pv", "pv3")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend simulate`."""
    kinds = parser.add_subparsers(metavar="KIND", dest="kind_of_device", required=True)
    meter = kinds.add_parser("dlt645", help="DL/T 645-2007 meters on one bus", allow_abbrev=False)
    _add_meter_arguments(meter)
    modbus = kinds.add_parser(
        "modbus", help="Modbus meters and inverters on a line or a TCP port", allow_abbrev=False
    )
    simulate_modbus.add_arguments(modbus)
    street = kinds.add_parser(
        "street", help="homes, shops and panels on several buses", allow_abbrev=False
    )
    _add_street_arguments(street)
    for one in (meter, modbus, street):
        one.add_argument("--seed", type=int, default=1, help="same seed, same meters (default 1)")
        one.add_argument("--zone", type=as_zone, default="Asia/Shanghai", help="the meters' zone")
        one.add_argument(
            "--truth-log", type=Path, metavar="FILE", help="every value served goes here"
        )


def _add_meter_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--address", type=as_address, action="append", help="twelve digits; once for each meter")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pty", type=Path, metavar="PATH", help="a pty, under this symlink")
    where.add_argument("--tcp", type=as_host_port, metavar="HOST:PORT", help="a TCP port (0 = any)")
    add("--kind", choices=_KINDS, default="single", help="connection and what hangs behind it")
    add("--baud", type=as_whole(0), help="line speed (pty: 2400; TCP: none)")
    add("--delay-ms", type=as_whole(0), default=100, help="pause before a reply (default 100)")
    add("--wakeup", type=as_whole(0), default=0, help="FE bytes before a reply (0..4)")
    add("--fault", action="append", default=[], metavar="NAME[:key=value,...]", type=_fault)
    add(
        "--speed",
        type=as_whole(0),
        default=1,
        help="energy runs this much faster; 0 = stands still",
    )
    add("--import-kwh", type=as_kwh, metavar="KWH", help="active import at the start, in tariff 1")
    add("--export-kwh", type=as_kwh, metavar="KWH", help="active export at the start, in tariff 1")
    add("--drift-ppm", type=int, default=0, help="the meter's clock: + is fast")
    add("--clock-error-s", type=int, default=0, help="the meter's clock: + is ahead")


def _add_street_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--meters", type=as_whole(1), default=8)
    add("--buses-pty", type=as_whole(0), default=2)
    add("--buses-tcp", type=as_whole(0), default=1)
    add(
        "--dir", type=Path, metavar="D", help="for symlinks and control socket (default: a new one)"
    )
    add("--speed", type=as_whole(1), default=1, help="energy runs this much faster")
    add("--baud", type=as_whole(1), default=9600)
    add("--delay-ms", type=as_whole(0), default=60, help="pause before a reply, at least")
    add("--modbus", action="store_true", help="with Modbus meters on the pairs, and a gateway")
    add("--json", action="store_true", help="accepted for programs; READY is JSON anyway")


def run(args: argparse.Namespace) -> int:
    """Run until told to stop; 0 then. OSError when a pty or port cannot be had."""
    with ExitStack() as stack:
        log = None
        if args.truth_log is not None:
            from simulators.truthlog import TruthFile  # noqa: PLC0415 - only when it is wanted

            log = stack.enter_context(TruthFile(args.truth_log))
        if args.kind_of_device == "street":
            directory = args.dir or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="headend-street-"))
            )
            directory.mkdir(parents=True, exist_ok=True)
            asyncio.run(_until_stopped(lambda: _street(args, directory, log)))
        else:
            start = simulate_modbus.start if args.kind_of_device == "modbus" else _meters
            asyncio.run(_until_stopped(lambda: start(args, log)))
    return 0


async def _until_stopped(start: Callable[[], Awaitable[AsyncExitStack]]) -> None:
    """Start, wait for SIGINT or SIGTERM, close."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with await start():
        await stop.wait()


async def _meters(args: argparse.Namespace, log: "TruthLog | None") -> AsyncExitStack:
    from simulators.meterbus import MeterBus  # noqa: PLC0415 - the parser must not pay for it

    told = args.import_kwh is not None or args.export_kwh is not None
    timeline = timeline_of(args, SystemClock().now_ms(), told=told)
    addresses = args.address or ["000000000001"]
    bus = MeterBus(
        _meter(args, address, number, timeline, log) for number, address in enumerate(addresses)
    )
    for meter in bus:
        meter.warm_up()
    server: Server
    if args.tcp is not None:
        from simulators.serve import TcpServer  # noqa: PLC0415

        host, port = args.tcp
        server = TcpServer(bus, host, port, baud=args.baud or None)
    else:
        from simulators.serve import PtyServer  # noqa: PLC0415

        server = PtyServer(bus, args.pty, baud=args.baud or 2400)
    await server.start()
    stack = AsyncExitStack()
    stack.push_async_callback(server.close)
    print(f"READY {server.where}", flush=True)
    return stack


def _meter(
    args: argparse.Namespace,
    address: str,
    number: int,
    timeline: "Timeline",
    log: "TruthLog | None",
) -> "Meter645":
    from simulators.curves import mix  # noqa: PLC0415
    from simulators.faults import parse_fault, seeded  # noqa: PLC0415
    from simulators.meter645 import MeterSettings  # noqa: PLC0415
    from simulators.models import make_initial, make_meter  # noqa: PLC0415

    seed = mix(args.seed, number)
    meter = make_meter(
        args.kind,
        MeterSettings(address, reply_delay_ms=args.delay_ms, wakeup=args.wakeup, seed=seed),
        timeline=timeline,
        clock=SystemClock().now_ms,
        utc_offset_min=offset_min(SystemClock().now_ms(), args.zone),
        drift_ppm=args.drift_ppm,
        clock_error_ms=args.clock_error_s * 1000,
        initial=initial_registers(args, make_initial(args.kind, seed)),
        truth_log=log,
    )
    for index, text in enumerate(args.fault):
        meter.add_fault(parse_fault(text, rng=seeded(mix(seed, index))))
    return meter


async def _street(
    args: argparse.Namespace, directory: Path, log: "TruthLog | None"
) -> AsyncExitStack:
    from simulators.control import ControlServer  # noqa: PLC0415 - the parser must not pay for it
    from simulators.street import Street, plan_street  # noqa: PLC0415

    clock = SystemClock()
    try:
        plan = plan_street(
            seed=args.seed,
            start_ms=clock.now_ms(),
            meters=args.meters,
            buses_pty=args.buses_pty,
            buses_tcp=args.buses_tcp,
            directory=directory,
            speed=args.speed,
            baud=args.baud,
            utc_offset_min=offset_min(clock.now_ms(), args.zone),
            reply_delay_ms=args.delay_ms,
            modbus=args.modbus,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    stack = AsyncExitStack()
    profiles = street_profiles(plan)
    street = await stack.enter_async_context(
        Street(plan, clock=clock.now_ms, profiles=profiles, truth_log=log)
    )
    control = ControlServer(street, directory / "street.sock")
    await control.start()
    stack.push_async_callback(control.close)
    print("READY", end=" ")
    print_json({**street.plan.to_json(), "control": str(control.path.absolute())})
    return stack


def _fault(text: str) -> str:
    from simulators.faults import parse_fault  # noqa: PLC0415 - only when a fault is wanted

    try:
        parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
