"""`headend check`: whether a configuration is good, and what would run with it."""

import argparse
from collections import Counter
from typing import Any

from headend.cli.main import EXIT_OK, EXIT_USAGE
from headend.cli.output import add_config, add_json, print_json, say, table
from headend.config import Config, ConfigErrors, load_config
from headend.config.sections.plans import DAY_S, PlanEntry
from headend.domain.errors import ConfigError
from headend.domain.link import SerialSpec

SCHEMA = "check/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend check`."""
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print what would run (0), or every error (2)."""
    try:
        config = load_config(args.config)
    except ConfigErrors as found:
        if not args.json:
            raise
        print_json({"schema": SCHEMA, "valid": False, "errors": [_error(e) for e in found.errors]})
        return EXIT_USAGE
    shown = summary(config)
    if args.json:
        print_json(shown)
    else:
        _print(shown)
    return EXIT_OK


def summary(config: Config) -> dict[str, Any]:
    """What would run with a configuration, JSON-ready (`check/1`)."""
    on_bus = Counter(meter.bus for meter in config.meters)
    with_plan = Counter(meter.plan for meter in config.meters)
    return {
        "schema": SCHEMA,
        "valid": True,
        "errors": [],
        "headend": config.name,
        "zone": config.headend.zone,
        "hash": config.hash,
        "journal": str(config.journal_path),
        "meters": len(config.meters),
        "due_points_a_day": sum(
            with_plan[name] * _due_a_day(plan.entries()) for name, plan in config.plans.items()
        ),
        "buses": [
            {"bus": name, "link": bus.link, "meters": on_bus[name]}
            for name, bus in config.buses.items()
        ],
        "plans": [
            {
                "plan": name,
                "meters": with_plan[name],
                "reads": [_entry(entry) for entry in plan.entries()],
            }
            for name, plan in config.plans.items()
        ],
        "consumers": [
            {"consumer": consumer.name, "classes": list(consumer.classes)}
            for consumer in (config.feed.consumers if config.feed else ())
        ],
        "broker": config.feed.broker if config.feed else None,
        "timeseries": [
            {"database": section.known_as, "kind": section.kind, "url": section.url}
            for section in config.timeseries
        ],
        "status": None if config.status is None else config.status.bind,
        "notes": _notes(config, on_bus),
    }


def _due_a_day(entries: tuple[PlanEntry, ...]) -> int:
    return sum(len(e.points) * (DAY_S // e.interval_s if e.interval_s else 1) for e in entries)


def _entry(entry: PlanEntry) -> dict[str, Any]:
    return {
        "at": None if entry.at is None else entry.at.isoformat("minutes"),
        "every_s": entry.interval_s,
        "from": entry.origin,
        "points": list(entry.points),
        "tolerance_s": entry.tolerance_s,
        "window_s": entry.window_s,
    }


def _notes(config: Config, on_bus: Counter[str]) -> list[str]:
    """What is allowed and yet worth a thought."""
    notes = []
    for name, bus in config.buses.items():
        spec = bus.link_spec
        if isinstance(spec, SerialSpec) and spec.path.startswith(("/dev/ttyUSB", "/dev/ttyACM")):
            notes.append(
                f"bus {name}: {spec.path} may get another number when the adapter is plugged in "
                "again; its name below /dev/serial/by-path/ stays"
            )
        if not on_bus[name]:
            notes.append(f"bus {name} has no meters")
    if config.feed is None:
        notes.append("there is no feed: readings stay in the journal")
    if config.status is not None and config.status.allow_plaintext:
        notes.append(f"whoever reaches {config.status.bind} sees the status page")
    return notes


def _error(error: ConfigError) -> dict[str, Any]:
    return {
        "file": error.file,
        "line": error.line,
        "key": error.key,
        "message": error.message,
        "hint": error.hint,
    }


def _print(shown: dict[str, Any]) -> None:
    print(f"{shown['headend']}: good (content {shown['hash']}, zone {shown['zone']})")
    print(f"{shown['meters']} meters, {shown['due_points_a_day']} due points a day")
    print()
    print(table(("bus", "meters", "link"), [
        (b["bus"], str(b["meters"]), b["link"]) for b in shown["buses"]
    ], right=frozenset({1})))  # fmt: skip
    print()
    rows = [
        (plan["plan"], str(plan["meters"]), _when(read), ", ".join(read["points"]))
        for plan in shown["plans"]
        for read in plan["reads"]
    ]
    print(table(("plan", "meters", "when", "points"), rows, right=frozenset({1})))
    print()
    if shown["broker"]:
        consumers = [f"{c['consumer']} ({', '.join(c['classes'])})" for c in shown["consumers"]]
        print(f"feed: {shown['broker']} to {'; '.join(consumers) or 'nobody'}")
    for series in shown["timeseries"]:
        print(f"time series: {series['url']} ({series['kind']}, {series['database']})")
    if shown["status"]:
        print(f"status page: http://{shown['status']}/")
    for note in shown["notes"]:
        say(f"note: {note}")


def _when(read: dict[str, Any]) -> str:
    if read["at"] is not None:
        return f"daily {read['at']}" + (" (freeze)" if read["from"] == "freeze" else "")
    every_s = read["every_s"]
    return f"every {every_s // 60} min" if every_s % 60 == 0 else f"every {every_s} s"
