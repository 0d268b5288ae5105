"""`headend modbus`: putting a Modbus device into service. Reads only, nothing is ever written."""

import argparse
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from headend.cli.output import add_json, add_lang, run_async
from headend.domain.errors import ConfigError

if TYPE_CHECKING:
    from headend.drivers.modbus_commission import Probe

EPILOG = """examples:
  headend modbus diagnose --link modbus-tcp://192.0.2.9 --unit 1 --profile eastron_sdm630
  headend modbus diagnose --link tcp://192.0.2.7:4001?baud=9600 --unit 3 --ct 40
  headend modbus skeleton --link /dev/ttyUSB0?baud=9600 --unit 1 --from 0 --to 99 --function 4
  headend modbus skeleton --dump registers.txt --name my_meter > devices/my_meter.yaml"""

DUMP_HELP = """\
A dump has a line for each run of registers, `FUNCTION:ADDRESS: WORD WORD ...` (numbers as they are,
or 0x...), addresses counted from 0; lines of `mbpoll -0` such as `[72]: 0x4640` are taken too."""

DIAGNOSE_HELP = """\
Reads what every grid gives away (voltages, frequency), the transformers' ratios and the power, one
register more on both sides where the device allows it, and says what would explain what came: the
order of words, addresses off by one, a scale, a sign, a ratio, the other framing. Without --profile
every profile that comes with the program is tried, and those that fit are named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands below `headend modbus`."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    diagnose = what.add_parser(
        "diagnose", help="why a device gives nonsense, or nothing", description=DIAGNOSE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _add_link(diagnose, required=True)
    diagnose.add_argument("--profile", metavar="P", help="a device profile, name or file; sunspec")
    diagnose.add_argument("--ct", metavar="N", help="current transformers' ratio (1)")
    diagnose.add_argument("--pt", metavar="N", help="voltage transformers' ratio (1)")
    skeleton = what.add_parser(
        "skeleton", help="a profile begun from a device's registers", epilog=DUMP_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _add_link(skeleton, required=False)
    add = skeleton.add_argument
    add(
        "--from", dest="first", type=_register, metavar="R", help="first register, from 0, or 0x..."
    )
    add("--to", dest="last", type=_register, metavar="R", help="last register")
    add("--function", type=int, choices=(3, 4), help="3 holding, 4 input registers (default 3)")
    add("--count", type=_count, default=32, metavar="N", help="registers a request (default 32)")
    add("--dump", metavar="FILE", help="take the registers from a file instead of a device")
    add("--save-dump", metavar="FILE", help="keep what was read, for --dump")
    add("--name", default="my_device", metavar="NAME", help="the profile's id (my_device)")
    add("--device", default="", metavar="TEXT", help="what stands on the device")
    for sub in (diagnose, skeleton):
        add_json(sub)
        add_lang(sub)


def _add_link(parser: argparse.ArgumentParser, *, required: bool) -> None:
    add = parser.add_argument
    add("--link", required=required, metavar="L",
        help="serial:///dev/..., tcp://host:port, modbus-tcp://host, COM3, ...")  # fmt: skip
    add("--unit", type=int, default=1, metavar="N", help="the device's number on its bus (1)")
    add("--protocol", choices=("modbus-rtu", "modbus-tcp"), help="default: by the link")
    add("--timeout", type=_seconds, metavar="S", help="seconds for one reply")
    add("--retries", type=_retries, default=1, metavar="N", help="default: 1")


def run(args: argparse.Namespace) -> int:
    """Do it; each says its exit codes."""
    if args.what == "diagnose":
        from headend.cli import modbus_diagnose as chosen  # noqa: PLC0415 - only what is used

        return chosen.run(args)
    from headend.cli import modbus_skeleton  # noqa: PLC0415

    return modbus_skeleton.run(args)


def over_link(
    args: argparse.Namespace, work: Callable[["Probe"], Awaitable[int]], *, quiet_s: float = 0.1
) -> int:
    """Open the link, do the work with a probe, close it. `quiet_s`: what the device needs."""
    from headend.bus import Bus  # noqa: PLC0415 - the parser must not pay for all this
    from headend.bus.configured import bus_settings  # noqa: PLC0415
    from headend.config import parse_link  # noqa: PLC0415
    from headend.config.meter_rules import address_problem, link_problem  # noqa: PLC0415
    from headend.config.sections.buses import BusSection  # noqa: PLC0415
    from headend.domain.clock import SystemClock  # noqa: PLC0415
    from headend.domain.link import ModbusTcpSpec, SerialSpec  # noqa: PLC0415
    from headend.drivers.modbus_commission import Probe  # noqa: PLC0415
    from headend.supervisor import Supervisor  # noqa: PLC0415
    from headend.transport import make_link  # noqa: PLC0415

    spec = parse_link(args.link)
    if args.protocol is None:
        args.protocol = "modbus-tcp" if isinstance(spec, ModbusTcpSpec) else "modbus-rtu"
    for problem in (
        link_problem(args.protocol, spec), address_problem(args.protocol, str(args.unit))
    ):  # fmt: skip
        if problem is not None:
            raise ConfigError(problem.message, hint=problem.hint)
    probe = Probe(
        args.unit,
        tcp=args.protocol == "modbus-tcp",
        network=not isinstance(spec, SerialSpec),
        attempts=args.retries + 1,
        timeout_s=args.timeout,
        quiet_s=quiet_s,
    )

    async def inner() -> int:
        logging.getLogger("headend").setLevel(logging.CRITICAL)  # what goes wrong is told once
        link = make_link(spec)
        settings = bus_settings(BusSection(link=args.link))
        bus = Bus(link.name, link, settings, clock=SystemClock(), observer=probe.saw)
        async with Supervisor() as supervisor:

            async def connect_anew() -> None:
                await supervisor.stop("bus")
                supervisor.start("bus", bus.run)

            probe.use(bus, connect_anew)
            supervisor.start("bus", bus.run)
            return await work(probe)

    return run_async(inner)


def _register(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no number such as 72 or 0x48") from None
    if not 0 <= value <= 0xFFFF:
        raise argparse.ArgumentTypeError("registers are 0 to 65535")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 125:
        raise argparse.ArgumentTypeError("1 to 125 registers")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError("seconds, above 0 and at most 3600")
    return value


def _retries(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 20:
        raise argparse.ArgumentTypeError("0 to 20")
    return value


__all__ = ["add_arguments", "over_link", "run"]
