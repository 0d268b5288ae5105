"""`headend trace`: the way of one reading back to the bytes it came from."""

import argparse
from pathlib import Path
from typing import Any

from headend.cli.journal_view import due_json, record_json
from headend.cli.output import add_config, add_json, clean, print_json, say
from headend.domain.clock import iso
from headend.journal import JournalReader, Trace

SCHEMA = "trace/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend trace`."""
    add_config(parser)
    add_json(parser)
    parser.add_argument("id", metavar="READ_ID", help="as readings --json gives it, or its start")


def run(args: argparse.Namespace) -> int:
    """Print the way back; 1 when no such reading is kept."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it

    config = load_config(Path(args.config))
    with JournalReader(config.journal_path) as journal:
        found = journal.trace(args.id)
    if found is None:
        say(f"no reading {clean(args.id)} in {config.journal_path}: a typing error, or retention")
        return 1
    shown = trace_json(found)
    if args.json:
        print_json(shown)
    else:
        _print(shown)
    return 0


def trace_json(trace: Trace) -> dict[str, Any]:
    """The way back, JSON-ready (`trace/1`)."""
    reading = trace.stored.reading
    return {
        "schema": SCHEMA,
        "read_id": trace.stored.read_id,
        "epoch": trace.epoch,
        "class": trace.record_class.name.lower(),
        "software": trace.stored.software,
        "source": reading.source.value,
        "meter_time": None if reading.meter_time_ms is None else iso(reading.meter_time_ms),
        "published": reading.verdict != "held",
        "reading": record_json(trace.record),
        "revisions": [
            {
                "read_id": s.read_id,
                "revision": s.revision,
                "value": None if s.reading.value is None else format(s.reading.value, "f"),
                "unit": s.reading.unit,
                "status": s.reading.status.value,
                "verdict": s.reading.verdict.value,
                "flags": list(s.reading.flags),
                "received_at": iso(s.reading.received_ms),
            }
            for s in trace.revisions
        ],
        "due": None if trace.due is None else due_json(trace.due),
        "exchange": _exchange_json(trace),
    }


def _exchange_json(trace: Trace) -> dict[str, Any] | None:
    exchange = trace.exchange
    if exchange is None:
        return None
    return {
        "ref": trace.exchange_ref,
        "bus": exchange.bus,
        "device": exchange.device,
        "request": exchange.request.hex().upper(),
        "reply": None if exchange.reply is None else exchange.reply.hex().upper(),
        "stray": exchange.stray.hex().upper(),
        "sent_at": iso(exchange.sent_ms),
        "received_at": iso(exchange.received_ms),
        "took_ms": round(exchange.took_ms, 3),
        "attempt": exchange.attempt,
        "outcome": exchange.outcome.value,
        "software": trace.exchange_software,
    }


def _print(shown: dict[str, Any]) -> None:
    reading = shown["reading"]
    value = "no value" if reading["value"] is None else f"{reading['value']} {reading['unit']}"
    _line("reading", shown["read_id"])
    _line("what", f"{reading['meter']} {reading['point']} = {value}")
    _line("held for", reading["time"])
    _line("service point", reading["service_point"])
    _line("status", f"{reading['status']}, verdict {reading['verdict']}")
    _line("flags", ", ".join(reading["flags"]) or "none")
    _line("multiplier", f"{reading['multiplier']} ({reading['side']} side)")
    if not shown["published"]:
        _line("feed", "held: not published until a second read or a person decides")
    for old in shown["revisions"]:
        mark = "  <- this one" if old["read_id"] == shown["read_id"] else ""
        old_value = "no value" if old["value"] is None else old["value"]
        _line(
            f"revision {old['revision']}",
            f"{old_value} {old['status']}/{old['verdict']} {old['received_at']}{mark}",
        )
    due = shown["due"]
    if due is None:
        _line("due", "it served no due point")
    else:
        _line("due", f"{due['due_at']}, {due['state']}, window until {due['window_end']}")
    exchange = shown["exchange"]
    if exchange is None:
        _line("bytes", "none kept")
    else:
        _line("bus", f"{exchange['bus']}, device {exchange['device']}")
        _line("request", _spaced(exchange["request"]))
        _line("reply", _spaced(exchange["reply"] or ""))
        if exchange["stray"]:
            _line("other bytes", _spaced(exchange["stray"]))
        _line("sent", f"{exchange['sent_at']}, attempt {exchange['attempt']}")
        _line("received", f"{exchange['received_at']}, after {exchange['took_ms']:.0f} ms")
    _line("read because", shown["source"])
    _line("software", shown["software"])


def _line(name: str, text: str) -> None:
    print(f"{name:<14}  {clean(text)}")


def _spaced(text: str) -> str:
    return " ".join(text[i : i + 2] for i in range(0, len(text), 2))
