"""`headend due`: what was due on a local day, and what became of it."""

import argparse
import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from headend.cli.due_report import print_report
from headend.cli.journal_view import due_json, local, parse_day
from headend.cli.output import add_config, add_json, clean, print_json, say, table
from headend.domain.clock import SystemClock
from headend.domain.due import DueState, local_day
from headend.domain.errors import ConfigError
from headend.journal import DueLine, JournalReader

if TYPE_CHECKING:
    from headend.config import Config

STATES = tuple(state.value for state in DueState)
EPILOG = """A day's list is written down before anything is read and never gets shorter; every share
is of that list. 72 hours after its end the day is closed: its report keeps its bytes for ever, and
what arrives later is shown apart. In the report a value counts by when it was received, from the
first local midnight at or after the instant it is for: by 06:00, within 24 h, within 72 h. First
pass: read in its window the first time it was tried, with the retries of that time. Groups of fewer
than 20 meters are not judged by percent. Exit code 1: nothing was due that day."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend due`."""
    parser.add_argument(
        "what",
        nargs="?",
        choices=("report",),
        help="report: how much was read at the first pass, by 06:00, within 24 h and 72 h; by bus, "
        "concentrator and area, and the worst tenth of the meters",
    )
    add_config(parser)
    add_json(parser)
    parser.add_argument("--day", metavar="D", help="local day, such as 2026-03-01 (default: today)")
    parser.add_argument("--list", action="store_true", help="every point instead of the counts")
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(args: argparse.Namespace) -> int:
    """Print a day's counts, or its points; 1 when nothing was written down as due that day."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it

    config = load_config(Path(args.config))
    if args.day is None:
        day = local_day(SystemClock().now_ms(), config.zone)
    else:
        day = parse_day(args.day, "--day")
    if args.what == "report":
        if args.list:
            msg = "report and --list are two views"
            raise ConfigError(msg, hint="leave one of them out")
        return _report(config, day, as_json=args.json)
    with JournalReader(config.journal_path) as journal:
        summary = journal.due(day)
        report = journal.due_report(day)
        lines = journal.due_lines(day) if args.list else []
    if not summary["frozen"]:
        say(f"nothing was written down as due on {day}")
    if args.list:
        _print_lines(lines, config.zone, as_json=args.json)
    elif args.json:
        # A closed day's report is what it was on the day it was closed, byte for byte.
        print(report.decode() if report is not None else json.dumps(summary, ensure_ascii=False))
    else:
        _print_summary(day, summary if report is None else json.loads(report))
    if report is not None and summary["after_close"]:
        say(
            f"{day} is closed; {summary['after_close']} of its points were read afterwards "
            "(--list shows them): the report does not change"
        )
    return 0 if summary["frozen"] else 1


def _report(config: "Config", day: date, *, as_json: bool) -> int:
    with JournalReader(config.journal_path) as journal:
        success = journal.due_success(day, config.zone)
        later = journal.due_after_closing(day)
    if success is None:
        say(f"nothing was written down as due on {day}")
        return 1
    print_report(success, later, config.zone, as_json=as_json)
    return 0


def _print_lines(lines: list[DueLine], zone: ZoneInfo, *, as_json: bool) -> None:
    if as_json:
        for line in lines:
            print_json(due_json(line))
        return
    rows = [
        (
            local(line.key.due_ms, zone),
            clean(line.key.meter),
            clean(line.key.point),
            clean(line.bus),
            line.state.value + (" (read after closing)" if line.after_close else ""),
            clean(line.reason or ""),
        )
        for line in lines
    ]
    print(table(("DUE", "METER", "POINT", "BUS", "STATE", "REASON"), rows))


def _print_summary(day: date, summary: dict[str, Any]) -> None:
    closed = summary["closed_at"]
    print(f"{day}  " + (f"closed {closed}" if closed else "not closed yet"))
    total = {"bus": "all", **summary}
    rows = [
        (clean(line["bus"]), str(line["frozen"]), *(str(line[s]) for s in STATES), _share(line))
        for line in (*summary["by_bus"], total)
    ]
    headers = ("BUS", "DUE", *(state.upper() for state in STATES), "READ %")
    print(table(headers, rows, right=frozenset(range(1, len(headers)))))
    for reason, count in summary["by_reason"].items():
        print(f"  {count} x {clean(reason)}")


def _share(line: dict[str, Any]) -> str:
    """Read in time, of everything that was due."""
    if not line["frozen"]:
        return "-"
    return f"{100 * line['read'] / line['frozen']:.2f}"
