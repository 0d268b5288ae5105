"""`headend feed`: cursors and backlog of the feed's consumers; setting one back."""

import argparse
from pathlib import Path
from typing import Any

from headend.cli.daemon_client import DaemonAway, DaemonError, ask_daemon
from headend.cli.output import add_config, add_json, clean, print_json, say, table
from headend.journal import ConsumerState, JournalReader, is_feed_consumer

SCHEMA = "feed_status/1"
DAEMON_S = 5.0
HEADERS = (
    "CONSUMER",
    "CLASSES",
    "NEWEST",
    "RECEIPTED",
    "OLDEST",
    "BACKLOG",
    "NEWEST DAY",
    "WAITING",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend feed`."""
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    status = what.add_parser("status", help="where every consumer stands")
    add_config(status)
    add_json(status)
    replay = what.add_parser("replay", help="send a consumer its records again (running daemon)")
    add_config(replay)
    add_json(replay)
    replay.add_argument("--consumer", required=True, metavar="C", help="a configured consumer")
    replay.add_argument(
        "--from", dest="from_seq", required=True, type=int, metavar="SEQ", help="first record"
    )


def run(args: argparse.Namespace) -> int:
    """Print the cursors, or set one; 0 when done."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it

    config = load_config(Path(args.config))
    if args.what == "replay":
        request = {
            "command": "feed_replay",
            "consumer": args.consumer,
            "from_seq": args.from_seq,
        }
        answer = ask_daemon(config.socket_path, request)
        shown = {
            "schema": "feed_replay/1",
            "consumer": answer["consumer"],
            "from_seq": answer["from_seq"],
        }
        if args.json:
            print_json(shown)
        else:
            print(f"{clean(args.consumer)}: records from {answer['from_seq']} on are sent again")
        return 0
    with JournalReader(config.journal_path) as journal:
        epoch = journal.epoch
        consumers = {
            name: state for name, state in journal.feed_status().items() if is_feed_consumer(name)
        }
    connection = _connection(config.socket_path)
    if args.json:
        for name, state in consumers.items():
            print_json(consumer_json(name, state, epoch, connection))
        return 0
    if not consumers:
        say("no consumer is configured: readings stay in the journal")
        return 0
    print(f"epoch {epoch}")
    print(
        table(
            HEADERS,
            [_row(name, state) for name, state in consumers.items()],
            right=frozenset(range(2, 7)),
        )
    )
    for line in _connection_lines(connection):
        print(line)
    return 0


def _connection(socket_path: Path) -> dict[str, Any] | None:
    """What the running daemon says of its connection to the broker; None when none is running."""
    try:
        return ask_daemon(socket_path, {"command": "status"}, timeout_s=DAEMON_S).get("feed")
    except (DaemonAway, DaemonError):
        return None


def _connection_lines(connection: dict[str, Any] | None) -> list[str]:
    if connection is None:
        return ["broker: no daemon is running here that could say"]
    broker, since = clean(connection["broker"]), connection["since"]
    if connection["connected"]:
        lines = [f"broker {broker}: connected since {since}"]
    elif connection["code"] is None:
        lines = [f"broker {broker}: not connected yet"]
    else:
        tries, why = connection["failures"], clean(connection["message"] or "")
        stands = f"not connected since {since}, {tries} tries: {why} ({connection['code']})"
        lines = [f"broker {broker}: {stands}"]
    for alarm in connection["alarms"]:
        rest = [f"{k}={clean(str(v))}" for k, v in alarm.items() if k not in ("alarm", "since")]
        lines.append(f"alarm since {alarm['since']}: {clean(alarm['alarm'])} {' '.join(rest)}")
    return lines


def consumer_json(
    name: str, state: ConsumerState, epoch: str, connection: dict[str, Any] | None
) -> dict[str, Any]:
    """Where one consumer stands, JSON-ready (`feed_status/1`).

    `connection`: as the running daemon reports it, the same for every consumer.
    """
    cursor = state.cursor
    since = state.waiting_since
    return {
        "schema": SCHEMA,
        "consumer": name,
        "epoch": epoch,
        "active": state.active,
        "classes": list(state.classes),
        "last_seq": cursor.last_seq,
        "receipted_seq": cursor.receipted_seq,
        "oldest_seq": cursor.oldest_seq,
        "backlog": state.backlog,
        "expired": cursor.expired,
        "waiting_since": None if since is None else since.isoformat(),
        "newest_day": None if state.newest_day is None else state.newest_day.isoformat(),
        "newest_day_records": state.newest_day_records,
        "connection": connection,
    }


def _row(name: str, state: ConsumerState) -> tuple[str, ...]:
    cursor = state.cursor
    waiting = "" if state.waiting_since is None else f"since {state.waiting_since}"
    if cursor.expired:
        waiting += ", expired"
    if not state.active:
        waiting = "no longer configured"
    return (
        clean(name),
        ",".join(state.classes),
        str(cursor.last_seq),
        str(cursor.receipted_seq),
        str(cursor.oldest_seq),
        str(state.backlog),
        "" if state.newest_day is None else f"{state.newest_day_records} ({state.newest_day})",
        waiting,
    )
