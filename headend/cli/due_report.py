"""`headend due report`: how well a day was read, by bus, concentrator, area and worst meters."""

import json
from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

from headend.cli.journal_view import due_json, local
from headend.cli.output import clean, print_json, say, table
from headend.domain.clock import from_iso
from headend.journal import DueLine, SuccessReport

SCHEMA_AFTER = "due_after_closing/1"
HEAD = ("METERS", "DUE", "FIRST PASS", "BY 06:00", "24 H", "72 H", "ESTIMATED", "MISSING", "OPEN")
_MARKS = ("first_pass", "by_06", "by_24h", "by_72h")
_GROUPS = (("by_bus", "bus"), ("by_concentrator", "concentrator"), ("by_area", "area"))
_WORST_SHOWN = 20


def print_report(
    success: SuccessReport, later: Sequence[DueLine], zone: ZoneInfo, *, as_json: bool
) -> None:
    """The report, and apart from it what arrived when the day was closed (`later`).

    As JSON the first line is the report byte for byte; of a closed day a second one has its hash
    and what came afterwards.
    """
    if as_json:
        print(success.report.decode())
        if success.is_closed:
            print_json(after_closing_json(json.loads(success.report)["day"], success, later))
        return
    report = json.loads(success.report)
    closed = report["closed_at"]
    when = f"closed {local(from_iso(closed), zone)}" if closed else "not closed yet"
    print(f"{report['day']}  {when}")
    if success.is_closed:
        print(f"sha256 {success.sha256}")
    rows = [("all", *_cells(report["total"]))]
    for key, kind in _GROUPS:
        rows += [(f"{kind} {clean(group[kind] or '-')}", *_cells(group)) for group in report[key]]
    rows.append(("worst tenth", *_cells(report["worst_tenth"])))
    print(table(("", *HEAD), rows, right=frozenset(range(1, len(HEAD) + 1))))
    print(f"groups of fewer than {report['judged_from_meters']} meters: counts, no percent")
    _print_worst(report["worst_tenth"])
    for reason, count in report["by_reason"].items():
        print(f"  {count} x {clean(reason)}")
    if later:
        say(
            f"{report['day']} is closed; {len(later)} of its points were read afterwards (--json "
            "shows them): the report does not change"
        )


def after_closing_json(
    day: str, success: SuccessReport, later: Sequence[DueLine]
) -> dict[str, Any]:
    """What arrived when the day was closed; it is on the feed and changes nothing of the report."""
    return {
        "schema": SCHEMA_AFTER,
        "day": day,
        "sha256": success.sha256,
        "count": len(later),
        "points": [due_json(line) for line in later],
    }


def _cells(group: dict[str, Any]) -> tuple[str, ...]:
    marks = [_share(group, mark) for mark in _MARKS]
    numbers = [str(group[name]) for name in ("estimated", "missing", "open")]
    return (str(group["meters"]), str(group["frozen"]), *marks, *numbers)


def _share(group: dict[str, Any], mark: str) -> str:
    percent = group["percent"]
    return str(group[mark]) if percent is None else f"{group[mark]} {percent[mark]:>6} %"


def _print_worst(worst: dict[str, Any]) -> None:
    for line in worst["list"][:_WORST_SHOWN]:
        read = line["read"] + line["late"] + line["backfilled"]
        print(f"  {clean(line['meter'])}: {read} of {line['frozen']} read")
    more = max(0, len(worst["list"]) - _WORST_SHOWN) + worst["not_listed"]
    if more:
        print(f"  and {more} more")
