"""`headend backfill`: a stretch of a meter's past, from its memory into the journal."""

import argparse
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from headend.cli.daemon_client import ask_daemon
from headend.cli.journal_view import local, parse_instant
from headend.cli.output import add_config, add_json, clean, print_json, say, table
from headend.domain.clock import from_iso, iso
from headend.domain.errors import ConfigError

SECONDS_A_REQUEST = 10
TIMEOUT_S = 180.0
EPILOG = """examples:
  headend backfill --config headend.yaml --meter M-0001 --from 2026-03-03 --to 2026-03-10
  headend backfill --config headend.yaml --meter M-0001 --from 2026-03-03 --to 2026-03-10 --json

What the journal has is not asked for, and neither is what the meter has said not to have, unless
--again asks for it. It can be stopped and begun again at any time. Reading by plan goes first.

Exit codes: 0 everything of the stretch is there, 1 the meter lacks some of it (it is listed), 3 no
answer, 4 no daemon or no port."""
_HEADERS = ("FROM", "TO", "WHERE", "REASON")
_SUMS = ("steps", "records", "born", "held")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend backfill`."""
    add_config(parser)
    add_json(parser)
    parser.add_argument("points", nargs="*", metavar="POINT", help="default: those of its plan")
    parser.add_argument("--meter", metavar="M", required=True, help="asset id")
    parser.add_argument("--from", dest="since", metavar="T", required=True, help="first instant")
    parser.add_argument("--to", dest="until", metavar="T", required=True, help="stop before it")
    parser.add_argument(
        "--again", action="store_true", help="ask too for what the meter said not to have"
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(args: argparse.Namespace) -> int:
    """Fetch it, a few seconds a request; what was fetched is kept whatever happens then."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it

    config = load_config(Path(args.config))
    since_ms = parse_instant(args.since, "--from", config.zone)
    until_ms = parse_instant(args.until, "--to", config.zone)
    if since_ms is None or until_ms is None:
        msg = "--from and --to are both needed"
        raise ConfigError(msg)
    request: dict[str, Any] = {
        "command": "backfill",
        "meter": args.meter,
        "from": iso(since_ms),
        "to": iso(until_ms),
        "again": args.again,
        "seconds": SECONDS_A_REQUEST,
    }
    if args.points:
        request["points"] = args.points
    total = dict.fromkeys(_SUMS, 0)
    while True:
        reply = ask_daemon(config.socket_path, request, timeout_s=TIMEOUT_S)
        for name in _SUMS:
            total[name] += reply[name]
        if reply["next"] is None:
            break
        request["at"] = reply["next"]
        at = local(from_iso(reply["next"]), config.zone)
        say(f"{clean(args.meter)}: {total['records']} records, {total['born']} readings, at {at}")
    outcome = {name: value for name, value in reply.items() if name != "next"} | total
    if args.json:
        print_json(outcome)
    else:
        _print(outcome, config.zone)
    return 1 if outcome["gaps"] else 0


def _print(outcome: dict[str, Any], zone: ZoneInfo) -> None:
    held = f", {outcome['held']} of them held" if outcome["held"] else ""
    print(
        f"{clean(outcome['meter'])}: {outcome['records']} records fetched, "
        f"{outcome['born']} readings new{held}"
    )
    gaps = [
        (
            local(from_iso(gap["from"]), zone),
            local(from_iso(gap["to"]), zone),
            clean(gap["store"]),
            clean(gap["reason"]),
        )
        for gap in outcome["gaps"]
    ]
    if gaps:
        print("the meter does not have:")
        print(table(_HEADERS, gaps))
