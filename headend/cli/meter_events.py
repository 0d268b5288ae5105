"""`headend meter ratio|reset|rollover|address|move|number|withdraw|events`: dated meter events."""

import argparse
import getpass
from decimal import Decimal, InvalidOperation
from typing import Any

from headend.cli.daemon_client import ask_daemon
from headend.cli.output import add_config, add_json, clean, print_json, say, table
from headend.config import Config
from headend.domain.clock import from_iso, iso
from headend.domain.errors import ConfigError
from headend.domain.lives import METER_EVENTS, declared_ms, effective, id_of, meters_of
from headend.domain.meter import Event
from headend.journal import JournalReader

SHORT_ID_CHARS = 12
DATED = """\
It holds from --at, however late it is declared: readings since then are withdrawn and borne again
as they are right, in one step with the event. What was declared wrongly is taken back with
`headend meter withdraw`, and declared again."""

RATIO = """example:
  headend meter ratio --config headend.yaml --meter M-0100 --ct 60 --at 2026-11-25T10:30:00+08:00 \\
    --register active_import_total=812.40 --register active_export_total=0.00 --reason "new CTs"
--register: what the meter showed at that moment; every register that is read there."""

RESET = """example:
  headend meter reset --config headend.yaml --meter M-0001 --at 2026-11-25T10:30:00+08:00 \\
    --before active_import_total=5012.88 --after active_import_total=0.00 --reason "battery changed"
Only the registers that were set; of each both values."""

ACTIONS = ("ratio", "reset", "rollover", "address", "move", "number", "withdraw", "events")


def add_arguments(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """One parser for each."""
    ratio = _dated(what, "ratio", "other instrument transformers in front of a meter", RATIO)
    ratio.add_argument("--ct", metavar="N", default="1", help="current ratio (default: 1)")
    ratio.add_argument("--pt", metavar="N", default="1", help="voltage ratio (default: 1)")
    _pairs(ratio, "--register", "what the meter showed then")
    reset = _dated(what, "reset", "a meter's registers were set to other values", RESET)
    _pairs(reset, "--before", "the register before")
    _pairs(reset, "--after", "the register after")
    rollover = _dated(what, "rollover", "a register began anew and could not be seen to")
    rollover.add_argument("--point", required=True, metavar="POINT", help="which register")
    rollover.add_argument("--digits", type=int, default=6, metavar="N", help="digits before the "
                          "decimal point (default: 6)")  # fmt: skip
    address = _dated(what, "address", "the same meter answers under another address")
    address.add_argument("--address", required=True, metavar="A", help="its new bus address")
    move = _dated(what, "move", "a meter belongs to another area")
    move.add_argument("--area", required=True, metavar="AREA", help="the area it belongs to now")
    number = _dated(what, "number", "the same meter has another meter number")
    number.add_argument("--number", required=True, metavar="N", help="the number it shows now")
    withdraw = what.add_parser(
        "withdraw",
        help="take a declared event back: everything is as if it had not been declared",
        description="The event stays, and so does that it was taken back, by whom and why.",
    )
    withdraw.add_argument("id", metavar="EVENT_ID", help="or its beginning; see: meter events")
    _common(withdraw)
    events = what.add_parser("events", help="what was declared, with the ids to take it back by")
    add_config(events)
    add_json(events)
    events.add_argument("--meter", metavar="METER", help="only of this meter")


def _dated(what: Any, name: str, text: str, epilog: str = "") -> argparse.ArgumentParser:  # noqa: ANN401 - argparse's own
    parser: argparse.ArgumentParser = what.add_parser(
        name,
        help=text,
        description=DATED,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--meter", required=True, metavar="METER", help="its asset id")
    parser.add_argument("--at", required=True, metavar="TIME", help="ISO 8601 with an offset")
    _common(parser)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)
    parser.add_argument("--by", default=getpass.getuser(), help="who did it (default: you)")
    parser.add_argument("--reason", required=True, help="why")


def _pairs(parser: argparse.ArgumentParser, option: str, text: str) -> None:
    parser.add_argument(
        option, action="append", required=True, metavar="POINT=VALUE", help=f"{text}; repeat it"
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Declare it; 0 when the journal has it."""
    if args.what == "events":
        return _list(args, config)
    request: dict[str, Any] = {
        "command": f"meter_{args.what}",
        "by": args.by,
        "reason": args.reason,
    }
    if args.what == "withdraw":
        request["id"] = args.id
    else:
        request |= {"meter": args.meter, "at": checked_instant(args.at)}
    if args.what == "ratio":
        request |= {"ct": args.ct, "pt": args.pt, "registers": register_values(args.register)}
    elif args.what == "reset":
        request |= {"before": register_values(args.before), "after": register_values(args.after)}
    else:
        names = ("point", "digits", "address", "area", "number")
        request |= {name: getattr(args, name) for name in names if hasattr(args, name)}
    answer = ask_daemon(config.socket_path, request)
    keys = ("event_id", "event", "at", "meter", "service_point", "withdrawn", "born")
    if args.json:
        print_json({"schema": "meter_event/1"} | {key: answer[key] for key in keys})
    else:
        print(f"{answer['event']} {answer['meter']} at {answer['service_point']}, {answer['at']}")
        print(f"readings withdrawn: {answer['withdrawn']}, borne again: {answer['born']}")
        print(f"event id: {answer['event_id'][:SHORT_ID_CHARS]}")
    return 0


def checked_instant(text: str) -> str:
    """The text of a time with an offset; ConfigError otherwise."""
    try:
        from_iso(text)
    except ValueError:
        msg = f"--at {text} is not a time with an offset"
        raise ConfigError(msg, hint="for example 2026-11-25T10:30:00+08:00") from None
    return text


def register_values(pairs: list[str]) -> dict[str, str]:
    """POINT=VALUE of an option given several times; ConfigError for what is none, or twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        point, _, value = pair.partition("=")
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite() or number < 0:
            msg = f"{pair} is not POINT=VALUE"
            raise ConfigError(msg, hint="for example active_import_total=12345.67")
        if point in found:
            msg = f"{point} is given twice"
            raise ConfigError(msg)
        found[point] = value
    return found


# -- the list


def _list(args: argparse.Namespace, config: Config) -> int:
    with JournalReader(config.journal_path) as reader:
        told = reader.events(kinds=METER_EVENTS)
    in_force = set(map(id_of, effective(told)))
    shown = [e for e in told if args.meter is None or args.meter in meters_of(e)]
    if args.json:
        for event in shown:
            print_json(_json(event, in_force))
        return 0
    if not shown:
        say("nothing was declared")
        return 0
    headers = ("id", "at", "event", "service point", "what", "by", "in force")
    print(table(headers, [_line(event, in_force) for event in shown]))
    return 0


def _json(event: Event, in_force: set[str]) -> dict[str, Any]:
    return {
        "schema": "meter_events/1",
        "event_id": id_of(event),
        "event": event.kind,
        "at": iso(event.at_ms),
        "declared_at": iso(declared_ms(event)),
        "in_force": id_of(event) in in_force,
        "fields": event.fields,
    }


def _line(event: Event, in_force: set[str]) -> tuple[str, ...]:
    fields = event.fields
    hidden = {"service_point", "by", "reason", "declared_at"}
    said = ", ".join(f"{k}={_text(v)}" for k, v in fields.items() if k not in hidden)
    if event.kind == "event_withdrawn":
        mark = "-"
    else:
        mark = "yes" if id_of(event) in in_force else "taken back"
    return (
        id_of(event)[:SHORT_ID_CHARS],
        iso(event.at_ms),
        event.kind,
        clean(str(fields.get("service_point", ""))),
        clean(said),
        clean(str(fields.get("by", "headend"))),
        mark,
    )


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}={v}" for k, v in value.items()) + "}"
    return str(value)
