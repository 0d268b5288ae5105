"""`headend meter`: what is told of one meter through the running daemon."""

import argparse
import getpass
from pathlib import Path

from headend.cli import meter_events
from headend.cli.daemon_client import ask_daemon
from headend.cli.output import add_config, add_json, print_json

EXAMPLE = """example:
  headend meter exchange --config headend.yaml --old M-0001 --new M-0001B \\
    --at 2026-11-25T10:30:00+08:00 --reason "display broken" \\
    --old-final active_import_total=12345.67 --old-final active_export_total=0.00 \\
    --new-initial active_import_total=0.12 --new-initial active_export_total=0.00
Every register that is read at the service point needs both values."""

FORGET = """\
A meter is not asked again for what it once refused: items it does not have, blocks it does not
give. That is kept over restarts, and holds until the meter's address or profile changes or another
meter hangs there. After a change inside the meter (new firmware, another parameter set) have it
forgotten; the meter is then asked for everything again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend meter`."""
    what = parser.add_subparsers(dest="what", metavar="EVENT", required=True)
    exchange = what.add_parser(
        "exchange",
        help="a meter left its service point and another one came",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config(exchange)
    add_json(exchange)
    exchange.add_argument("--old", required=True, metavar="METER", help="asset id that left")
    exchange.add_argument("--new", required=True, metavar="METER", help="asset id that came")
    exchange.add_argument(
        "--new-address", metavar="A", help="the new meter's bus address (default: the old one's)"
    )
    exchange.add_argument("--at", required=True, metavar="TIME", help="ISO 8601 with an offset")
    for name, text in (
        ("--old-final", "last register of the old meter"),
        ("--new-initial", "first register of the new meter"),
    ):
        exchange.add_argument(
            name, action="append", required=True, metavar="POINT=VALUE", help=f"{text}; repeat it"
        )
    exchange.add_argument("--by", default=getpass.getuser(), help="who did it (default: you)")
    exchange.add_argument("--reason", required=True, help="why")
    meter_events.add_arguments(what)
    forget = what.add_parser(
        "forget",
        help="forget what a meter has shown that it lacks; it is asked for everything again",
        description=FORGET,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config(forget)
    add_json(forget)
    forget.add_argument("--meter", required=True, metavar="METER", help="its asset id")


def run(args: argparse.Namespace) -> int:
    """Tell the daemon; 0 when the journal has it."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it

    config = load_config(Path(args.config))
    if args.what in meter_events.ACTIONS:
        return meter_events.run(args, config)
    return (_forget if args.what == "forget" else _exchange)(args, config.socket_path)


def _forget(args: argparse.Namespace, socket: Path) -> int:
    answer = ask_daemon(socket, {"command": "meter_forget", "meter": args.meter})
    if args.json:
        print_json({"schema": "meter_forget/1"} | {k: answer[k] for k in ("meter", "forgot")})
    elif answer["forgot"]:
        print(f"{args.meter}: forgotten; it is asked for everything again")
    else:
        print(f"{args.meter}: there was nothing to forget")
    return 0


def _exchange(args: argparse.Namespace, socket: Path) -> int:
    request = {
        "command": "meter_exchange",
        "at": meter_events.checked_instant(args.at),
        "old_meter": args.old,
        "new_meter": args.new,
        "new_address": args.new_address,
        "old_final": meter_events.register_values(args.old_final),
        "new_initial": meter_events.register_values(args.new_initial),
        "by": args.by,
        "reason": args.reason,
    }
    answer = ask_daemon(socket, request)
    if args.json:
        print_json(
            {"schema": "meter_exchange/1"}
            | {key: answer[key] for key in ("event_id", "meter", "service_point", "readings")}
        )
    else:
        print(f"{args.old} -> {answer['meter']} at {answer['service_point']}, {args.at}")
        print(f"readings withdrawn or moved to the new meter: {answer['readings']}")
    return 0
