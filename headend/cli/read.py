"""`headend read`: points of one meter, now: over a link of its own, or through the daemon's bus."""

import argparse
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headend.bus import Bus, Priority
from headend.bus.configured import bus_settings
from headend.cli import read_modbus
from headend.cli.daemon_client import ask_daemon
from headend.cli.main import (
    EXIT_NO_ANSWER,
    EXIT_NOT_GOOD,
    EXIT_OK,
    EXIT_PORT,
    EXIT_REFUSED,
    common_exit_code,
    exit_code,
)
from headend.cli.output import (
    add_json,
    add_lang,
    clean,
    colour,
    language,
    print_json,
    run_async,
    say,
    table,
)
from headend.config import load_config, parse_link
from headend.config.meter_rules import MODBUS, PROTOCOLS_KNOWN, PROTOCOLS_NOW, link_problem
from headend.config.sections.buses import BusSection
from headend.domain.clock import SystemClock, from_iso, to_datetime
from headend.domain.errors import ConfigError
from headend.domain.link import LinkSpec, ModbusTcpSpec
from headend.drivers import Dlt645Session, ModbusSession, PointResult, reading_json
from headend.drivers.modbus_values import RAW_PREFIX as RAW_REGISTER
from headend.drivers.targets import RAW_PREFIX, target_of
from headend.supervisor import Supervisor
from headend.transport import make_link
from protocols.dlt645.frame import parse
from protocols.errors import LocalProtocolError
from protocols.quantities import quantity

ZONE_DEFAULT = "Asia/Shanghai"  # the clocks of DL/T 645 meters run on China's time
RETRIES_DEFAULT = 2
DAEMON_TIMEOUT_S = 60.0

_HEADERS = {
    "en": ("point", "value", "unit", "time", "meaning"),
    "zh": ("点", "数值", "单位", "时间", "含义"),
}

_ADDRESS = re.compile(r"(AA|[0-9]{2}){6}")

# What the daemon says of a point that failed, as exit codes.
_CODES: Mapping[str, int] = {
    "no_answer": EXIT_NO_ANSWER,
    "deadline_passed": EXIT_NO_ANSWER,
    "port_gone": EXIT_PORT,
    "port_busy": EXIT_PORT,
    "queue_full": EXIT_PORT,
    "bus": EXIT_PORT,
    "refused": EXIT_REFUSED,
    "busy": EXIT_REFUSED,
    "not_allowed": EXIT_REFUSED,
}

EXAMPLES = """examples:
  headend read --link /dev/ttyUSB0 --address 000000000001 active_import_total voltage_a
  headend read --link tcp://192.0.2.7:4001?baud=2400 --address 000000000001 di:0001FF00 --json
  headend read --link modbus-tcp://192.0.2.9 --address 1 --profile eastron_sdm630 voltage_a
  headend read --link /dev/ttyUSB1?baud=9600 --protocol modbus-rtu --address 1 reg:4:72:float32
  headend read --config headend.yaml --meter M-0001 active_import_total"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend read`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--link",
        metavar="L",
        help="serial:///dev/..., tcp://host:port, modbus-tcp://host, COM3, ...",
    )
    parser.add_argument(
        "--protocol", metavar="P", help=f"{', '.join(PROTOCOLS_NOW)} (default: by the link)"
    )
    parser.add_argument(
        "--address", metavar="A", help="twelve digits, AA stands for any two; a Modbus unit"
    )
    read_modbus.add_arguments(parser)
    parser.add_argument("--config", metavar="FILE", help="read through the running daemon's bus")
    parser.add_argument("--meter", metavar="M", help="with --config: the meter's id")
    parser.add_argument("--timeout", type=_seconds, metavar="S", help="seconds for one reply")
    parser.add_argument("--retries", type=_retries, metavar="N", help="default: 2")
    parser.add_argument("--freeze", type=int, metavar="N", help="the Nth last daily freeze")
    parser.add_argument("--zone", default=ZONE_DEFAULT, help=f"of the clock ({ZONE_DEFAULT})")
    add_json(parser)
    add_lang(parser)
    parser.add_argument(
        "points", nargs="+", metavar="POINT", help="a name, di:00010000, or reg:4:72:2"
    )


def run(args: argparse.Namespace) -> int:
    """Read and print; 0, or the code all failures have in common, or 1."""
    if args.config is not None:
        return _through_daemon(args)
    if args.meter is not None:
        raise ConfigError("--meter needs --config", hint="a link needs --address")
    if args.link is None or args.address is None:
        hint = "or --config FILE --meter M"
        raise ConfigError("--link and --address say where to read", hint=hint)
    spec = parse_link(args.link)
    protocol = _protocol(args.protocol, spec)
    args.retries = RETRIES_DEFAULT if args.retries is None else args.retries
    zone = _zone(args.zone)
    if protocol in MODBUS:
        target = read_modbus.modbus_target(args, spec, protocol)
        return run_async(lambda: _over_link(args, spec, zone, target))
    _check_dlt645(args, spec, protocol)
    return run_async(lambda: _over_link(args, spec, zone, None))


def _check_dlt645(args: argparse.Namespace, spec: LinkSpec, protocol: str) -> None:
    unfit = next((o for o in read_modbus.OPTIONS if getattr(args, o) is not None), None)
    if unfit is not None:
        raise ConfigError(f"--{unfit} is for Modbus", hint="--protocol modbus-rtu or modbus-tcp")
    problem = link_problem(protocol, spec)
    if problem is not None:
        raise ConfigError(problem.message, hint=problem.hint)
    if not _ADDRESS.fullmatch(args.address.upper()):
        hint = "twelve digits, as on the meter's plate, with leading zeros"
        raise ConfigError(f"{args.address} is not a DL/T 645 address", hint=hint)
    if args.freeze is not None and not 1 <= args.freeze <= 62:
        raise ConfigError("--freeze counts from the newest: 1 to 62")
    _check_points(args.points)


async def _over_link(
    args: argparse.Namespace,
    spec: LinkSpec,
    zone: ZoneInfo,
    modbus: read_modbus.ModbusTarget | None,
) -> int:
    # What goes wrong is told once, as the error of a point.
    logging.getLogger("headend").setLevel(logging.CRITICAL)
    link, clock = make_link(spec), SystemClock()
    settings = bus_settings(BusSection(link=args.link))
    bus = Bus(link.name, link, settings, clock=clock, observer=lambda _exchange: None)
    session: Dlt645Session | ModbusSession
    if modbus is not None:
        session = modbus.session(bus, args, clock)
    else:
        session = Dlt645Session(
            bus, args.address.upper(), zone=zone, attempts=args.retries + 1, timeout_s=args.timeout
        )
    async with Supervisor() as supervisor:
        supervisor.start("bus", bus.run)
        if args.freeze is None:
            results = await session.read(args.points, priority=Priority.ON_DEMAND)
        else:
            results = await session.read_frozen(
                args.points, nth=args.freeze, priority=Priority.ON_DEMAND
            )
    readings = [reading_json(_who(args.address.upper(), result), result) for result in results]
    _show(readings, args, zone)
    return common_exit_code(
        [EXIT_OK if r.error is None else exit_code(r.error) for r in results],
    )


def _through_daemon(args: argparse.Namespace) -> int:
    for option in ("link", "address", "protocol", "retries", "freeze", *read_modbus.OPTIONS):
        if getattr(args, option) is not None:
            raise ConfigError(f"--{option} and --config exclude each other")
    if args.meter is None:
        raise ConfigError("--config needs --meter", hint="the meter's id in the configuration")
    timeout_s = DAEMON_TIMEOUT_S if args.timeout is None else args.timeout
    request = {
        "command": "read",
        "meter": args.meter,
        "points": args.points,
        "timeout_s": timeout_s,
    }
    config = load_config(args.config)
    reply = ask_daemon(config.socket_path, request, timeout_s=timeout_s + 10)
    readings = reply.get("results", [])
    _show(readings, args, config.zone)
    return common_exit_code([_code(reading.get("error")) for reading in readings])


def _code(error: Mapping[str, Any] | None) -> int:
    return EXIT_OK if error is None else _CODES.get(str(error.get("code")), EXIT_NOT_GOOD)


def _protocol(protocol: str | None, spec: LinkSpec) -> str:
    """The protocol that was asked for, or the one that goes with the link."""
    if protocol is None:
        return "modbus-tcp" if isinstance(spec, ModbusTcpSpec) else PROTOCOLS_NOW[0]
    if protocol in PROTOCOLS_NOW:
        return protocol
    hint = f"available: {', '.join(PROTOCOLS_NOW)}"
    if protocol in (*PROTOCOLS_KNOWN, "auto"):
        raise ConfigError(f"{protocol} is not available in this version", hint=hint)
    raise ConfigError(f"there is no protocol {protocol}", hint=hint)


def _check_points(points: Sequence[str]) -> None:
    """A mistyped name is told before the line is touched."""
    for point in points:
        try:
            target_of(point)
        except LocalProtocolError as error:
            if point.startswith(RAW_REGISTER):
                message = f"{point} is a Modbus register"
                hint = "--protocol modbus-rtu or modbus-tcp"
                raise ConfigError(message, hint=hint) from error
            raise ConfigError(str(error), hint="or a raw one, such as di:00010000") from error


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(f"{name} is not a time zone", hint="such as Asia/Shanghai") from error


def _who(asked: str, result: PointResult) -> str:
    """The address that answered; what was asked, as long as only a wildcard answered."""
    if "AA" not in asked or result.exchange is None or result.exchange.reply is None:
        return asked
    return parse(result.exchange.reply).address


def _show(readings: Sequence[Mapping[str, Any]], args: argparse.Namespace, zone: ZoneInfo) -> None:
    if args.json:
        for reading in readings:
            print_json(reading)
        return
    lang = language(args.lang)
    rows = [_row(reading, lang, zone) for reading in readings]
    print(table(_HEADERS[lang], rows, right=frozenset({1})))
    for reading in readings:
        error = reading.get("error")
        if error is not None:
            say(colour(f"{reading['point']}: {clean(str(error['message']))}", "red", sys.stderr))


def _row(reading: Mapping[str, Any], lang: str, zone: ZoneInfo) -> tuple[str, ...]:
    value = reading.get("value")
    if value is None and reading.get("values"):
        value = " ".join("-" if v is None else str(v) for v in reading["values"])
    if reading["point"] == "clock" and str(value).isdecimal():
        value = to_datetime(int(str(value)) * 1000).astimezone(zone).isoformat(timespec="seconds")
    time = reading.get("time")
    return (
        str(reading["point"]),
        "-" if value is None else clean(str(value)),
        str(reading.get("unit") or ""),
        _local(str(time), zone) if time else "",
        _label(str(reading["point"]), lang),
    )


def _local(time: str, zone: ZoneInfo) -> str:
    return to_datetime(from_iso(time)).astimezone(zone).isoformat(" ", "seconds")


def _label(point: str, lang: str) -> str:
    if point.startswith(RAW_PREFIX):
        item = target_of(point).item
        if item is None:
            return ""
        return item.name_zh if lang == "zh" else item.name_en
    if point.startswith(RAW_REGISTER):
        return ""
    known = quantity(point)
    return known.label_zh if lang == "zh" else known.label_en


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
