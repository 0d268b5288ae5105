"""`headend timeseries`: how far each database for charts is, what it refused, writing it again."""

import argparse
from pathlib import Path
from typing import Any

from headend.cli.daemon_client import DaemonAway, DaemonError, ask_daemon
from headend.cli.output import add_config, add_json, clean, print_json, say, table
from headend.config import Config
from headend.domain.errors import ConfigError
from headend.journal import JournalReader
from headend.journal.model import TIMESERIES_PREFIX

SCHEMA = "timeseries_status/1"
DAEMON_S = 5.0
HEADERS = ("DATABASE", "STATE", "BACKLOG", "LAG", "REFUSED", "LAST WRITTEN", "URL")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend timeseries`."""
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    status = what.add_parser("status", help="how far every database is; 1 when one needs a person")
    add_config(status)
    add_json(status)
    letters = what.add_parser(
        "dead-letters", help="lines a database refused for good, with its words"
    )
    add_config(letters)
    add_json(letters)
    letters.add_argument("--database", metavar="N", help="only of this one (its name)")
    replay = what.add_parser(
        "replay", help="write a database again from a record on (running daemon)"
    )
    add_config(replay)
    add_json(replay)
    replay.add_argument("--database", required=True, metavar="N", help="the database's name")
    replay.add_argument(
        "--from",
        dest="from_seq",
        type=int,
        default=0,
        metavar="SEQ",
        help="first record (default: the oldest that is kept)",
    )


def run(args: argparse.Namespace) -> int:
    """Print how things stand (1: a database needs a person), or do what was asked."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it

    config = load_config(Path(args.config))
    names = [section.known_as for section in config.timeseries]
    wanted = getattr(args, "database", None)
    if wanted is not None and wanted not in names:
        raise ConfigError(
            f"no database is named {wanted}",
            file=str(config.path),
            key="timeseries",
            hint=f"there are: {', '.join(names)}" if names else "none is configured",
        )
    if args.what == "replay":
        return _replay(config, args)
    if not names:
        say("no database for charts is configured")
        return 0
    if args.what == "dead-letters":
        return _dead_letters(config, [wanted] if wanted else names, as_json=args.json)
    return _status(config, as_json=args.json)


def _status(config: Config, *, as_json: bool) -> int:
    told = _daemon(config)
    shown = [status_json(config, name, told) for name in (s.known_as for s in config.timeseries)]
    if as_json:
        for one in shown:
            print_json(one)
    else:
        print(table(HEADERS, [_row(one) for one in shown], right=frozenset({2, 3, 4})))
        for one in shown:
            if one["message"]:
                print(f"{clean(one['database'])}: since {one['since']}: {clean(one['message'])}")
        if told is None:
            say("no daemon is running here: nothing is written now")
    return 1 if any(one["state"] == "stopped" for one in shown) else 0


def status_json(
    config: Config, name: str, told: dict[str, dict[str, Any]] | None
) -> dict[str, Any]:
    """How one database stands, JSON-ready (`timeseries_status/1`).

    `told`: what the running daemon says; None when none is running: then only what the journal
    and the dead letters tell is known.
    """
    from headend.timeseries.deadletters import letters  # noqa: PLC0415 - only here
    from headend.timeseries.service import letters_path  # noqa: PLC0415

    with JournalReader(config.journal_path) as journal:
        state = journal.feed_status().get(TIMESERIES_PREFIX + name)
    running = None if told is None else told.get(name)
    section = next(s for s in config.timeseries if s.known_as == name)
    shown = {
        "schema": SCHEMA,
        "database": name,
        "kind": section.kind,
        "url": section.url,
        "state": "no_daemon",
        "since": None,
        "message": None,
        "failures": 0,
        "receipted_seq": 0 if state is None else state.cursor.receipted_seq,
        "last_seq": 0 if state is None else state.cursor.last_seq,
        "oldest_seq": 1 if state is None else state.cursor.oldest_seq,
        "expired": state is not None and state.cursor.expired,
        "backlog": 0 if state is None else state.backlog,
        "lag_s": None,
        "last_written": None,
        "written_lines": None,
        "dead_letters": sum(1 for _ in letters(letters_path(config, name))),
        "statistics_waiting": None,
        "statistics_dropped": None,
    }
    if running is not None:
        shown |= {key: value for key, value in running.items() if key not in ("kind", "url")}
    return shown


def _daemon(config: Config) -> dict[str, dict[str, Any]] | None:
    try:
        answer = ask_daemon(config.socket_path, {"command": "status"}, timeout_s=DAEMON_S)
    except (DaemonAway, DaemonError):
        return None
    return {one["database"]: one for one in answer.get("timeseries", ())}


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        clean(one["database"]),
        one["state"].replace("_", " ") + (", expired" if one["expired"] else ""),
        str(one["backlog"]),
        "-" if one["lag_s"] is None else f"{one['lag_s']:.0f} s",
        str(one["dead_letters"]),
        one["last_written"] or "-",
        clean(one["url"]),
    )


def _dead_letters(config: Config, names: list[str], *, as_json: bool) -> int:
    from headend.timeseries.deadletters import letters  # noqa: PLC0415 - only here
    from headend.timeseries.service import letters_path  # noqa: PLC0415

    for name in names:
        for letter in letters(letters_path(config, name)):
            if as_json:
                print_json({**letter, "database": name})
                continue
            status = letter["status"] if letter["status"] is not None else "not sent"
            print(f"{letter['at']} {clean(name)} record {letter['seq']} ({status})")
            print(f"  {clean(str(letter['line']))}")
            print(f"  {clean(str(letter['text']))}")
    return 0


def _replay(config: Config, args: argparse.Namespace) -> int:
    request = {"command": "timeseries_replay", "database": args.database, "from_seq": args.from_seq}
    answer = ask_daemon(config.socket_path, request)
    if args.json:
        print_json(
            {
                "schema": "timeseries_replay/1",
                "database": answer["database"],
                "from_seq": answer["from_seq"],
            }
        )
    else:
        print(f"{clean(args.database)}: records from {answer['from_seq']} on are written again")
    return 0
