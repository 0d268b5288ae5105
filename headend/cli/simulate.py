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

from headend.cli import simulate_dlt645, simulate_modbus
from headend.cli.output import print_json
from headend.cli.simulate_options import as_whole, as_zone, offset_min, street_profiles
from headend.domain.clock import SystemClock
from headend.domain.errors import ConfigError

if TYPE_CHECKING:
    from simulators.meter645 import TruthLog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend simulate`."""
    kinds = parser.add_subparsers(metavar="KIND", dest="kind_of_device", required=True)
    meter = kinds.add_parser("dlt645", help="DL/T 645 meters on one bus", allow_abbrev=False)
    simulate_dlt645.add_arguments(meter)
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
            start = (
                simulate_modbus.start if args.kind_of_device == "modbus" else simulate_dlt645.start
            )
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
