"""`headend reload`: has the running daemon take its configuration file anew, and says what came
of it."""

import argparse
from pathlib import Path
from typing import Any

from headend.cli.daemon_client import ask_daemon
from headend.cli.output import add_config, add_json, clean, print_json, say
from headend.domain.errors import ConfigError

TIMEOUT_S = 180.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend reload`."""
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """0: in force. 2: refused, and the daemon goes on as before. 4: no daemon."""
    from headend.config.loader import local_socket  # noqa: PLC0415 - the parser must not pay for it

    file = Path(args.config)
    try:
        path = local_socket(file)
    except ConfigError:
        say("the daemon was not asked, it goes on as before: the file does not say where it is")
        raise
    request = {"command": "reload", "file": str(file.resolve())}
    outcome = ask_daemon(path, request, timeout_s=TIMEOUT_S)
    if args.json:
        print_json(outcome)
    else:
        for line in told(outcome):
            print(line)
    refused = outcome["outcome"] == "refused"
    if refused:
        for line in complaints(outcome):
            say(line)
    return 2 if refused else 0


def told(outcome: dict[str, Any]) -> list[str]:
    """What came of it, for people."""
    configuration = clean(str(outcome["configuration"]))
    if outcome["outcome"] == "refused":
        return [f"refused: configuration {configuration} stays in force"]
    if outcome["outcome"] == "unchanged":
        return [f"nothing differs: configuration {configuration} stays in force"]
    lines = [_change(change) for change in outcome["changes"]]
    more = outcome["changes_total"] - len(lines)
    lines += [f"and {more} more"] if more > 0 else []
    return [*lines, f"configuration {configuration} is in force, after {outcome['took_s']:.1f} s"]


def complaints(outcome: dict[str, Any]) -> list[str]:
    """Everything that is wrong, as every other command says it."""
    errors = [
        ConfigError(e["message"], file=e["file"], line=e["line"], key=e["key"], hint=e["hint"])
        for e in outcome["errors"]
    ]
    lines = [clean(str(error)) for error in errors]
    more = outcome["errors_total"] - len(lines)
    return [*lines, f"and {more} more errors"] if more > 0 else lines


def _change(change: dict[str, Any]) -> str:
    name = f" {change['name']}" if change["name"] else ""
    keys = f": {', '.join(change['keys'])}" if change["keys"] else ""
    note = f" ({change['note']})" if change["note"] else ""
    return clean(f"{change['kind']}{name} {change['what']}{keys}{note}")
