"""`headend readings`: what the journal holds, while the daemon runs or not."""

import argparse
from pathlib import Path
from zoneinfo import ZoneInfo

from headend.cli.journal_view import local, parse_instant, record_json
from headend.cli.output import add_config, add_json, clean, print_json, say, table
from headend.domain.clock import from_iso
from headend.journal import JournalReader
from headend.messages.records import ReadRecord

HEADERS = ("TIME", "METER", "POINT", "VALUE", "UNIT", "STATUS", "VERDICT", "REV", "FLAGS")
PAGE_ROWS = 1000  # a table's columns are aligned over so many rows at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend readings`."""
    add_config(parser)
    add_json(parser)
    parser.add_argument("--meter", metavar="M", help="asset id (default: every meter)")
    parser.add_argument("--point", metavar="P", help="point name (default: every point)")
    parser.add_argument("--from", dest="since", metavar="T", help="first instant held for")
    parser.add_argument("--to", dest="until", metavar="T", help="instant to stop before")
    parser.add_argument(
        "--revisions", action="store_true", help="every revision, not the newest alone"
    )


def run(args: argparse.Namespace) -> int:
    """Print the readings by instant; 0 even when there are none."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it

    config = load_config(Path(args.config))
    since_ms = parse_instant(args.since, "--from", config.zone)
    until_ms = parse_instant(args.until, "--to", config.zone)
    count = 0
    page: list[ReadRecord] = []
    with JournalReader(config.journal_path) as journal:
        for record in journal.readings(
            meter=args.meter,
            point=args.point,
            from_ms=since_ms,
            to_ms=until_ms,
            all_revisions=args.revisions,
        ):
            count += 1
            if args.json:
                print_json(record_json(record))
                continue
            page.append(record)
            if len(page) == PAGE_ROWS:
                _print(page, config.zone)
                page.clear()
    if page:
        _print(page, config.zone)
    if not count:
        say("no readings: nothing of this kind has been read (headend due tells why)")
    return 0


def _print(page: list[ReadRecord], zone: ZoneInfo) -> None:
    rows = [
        (
            local(from_iso(r.time), zone),
            clean(r.meter),
            clean(r.point),
            "-" if r.value is None else r.value,
            clean(r.unit),
            r.status,
            r.verdict,
            str(r.revision),
            clean(",".join(r.flags)),
        )
        for r in page
    ]
    print(table(HEADERS, rows, right=frozenset({3, 7})))
