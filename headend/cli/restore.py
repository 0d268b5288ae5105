"""`headend restore`: bring a copy of the journal back, while no daemon runs."""

import argparse
import socket
from pathlib import Path
from typing import Any

from headend.cli.backup import progress_on_stderr
from headend.cli.output import add_config, add_json, print_json
from headend.domain.clock import SystemClock, iso
from headend.domain.errors import ConfigError, PolicyError

SCHEMA = "restore/1"
CONNECT_S = 2.0
AFTER = (
    "may be lost: what was read after {since} and had not been delivered. What had been\n"
    "delivered stays at billing. Daily freezes are read again as far as the meters keep them.\n"
    "The next start begins a new epoch; consumers go on by themselves: headend feed status"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend restore`."""
    parser.add_argument(
        "backup", metavar="BACKUP", help="what headend backup wrote, or a journal file set aside"
    )
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Bring it back, say what may be lost. 5 while a daemon runs."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it
    from headend.journal import JournalBusy  # noqa: PLC0415
    from headend.journal.restore import restore  # noqa: PLC0415

    config = load_config(Path(args.config))
    backup = backup_file(args.backup)
    if _answers(config.socket_path):
        msg = f"a daemon runs here (it answers at {config.socket_path}): stop it first"
        raise PolicyError(msg)
    clock = SystemClock()
    try:
        done = restore(
            backup,
            config.journal_path,
            headend=config.name,
            letters=config.data_path / "timeseries",
            clock=clock,
            watch=progress_on_stderr(),
        )
    except JournalBusy as error:
        raise PolicyError(str(error)) from error
    taken = done.taken_ms
    show(
        {
            "kind": "journal",
            "backup": str(backup),
            "restored": str(config.journal_path),
            "taken_at": None if taken is None else iso(taken),
            "age_s": None if taken is None else max(0, (clock.now_ms() - taken) // 1000),
            "schema_version": done.facts["schema_version"],
            "migrations": done.migrated,
            "epoch_before": done.facts["epoch"],
            "newest_received_at": done.facts["newest_received_at"],
            "counts": done.facts["counts"],
            "set_aside": None if done.set_aside is None else str(done.set_aside),
            "dead_letters": [str(path) for path in done.letters],
        },
        after=AFTER.format(since=done.facts["newest_received_at"] or "the beginning"),
        as_json=args.json,
    )
    return 0


def backup_file(name: str) -> Path:
    """The file named. ConfigError when it is not there."""
    backup = Path(name)
    if not backup.is_file():
        msg = f"there is no backup {backup}"
        raise ConfigError(msg, hint="a file that headend backup wrote")
    return backup


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(CONNECT_S)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def show(told: dict[str, Any], *, after: str, as_json: bool) -> None:
    """What was done (`restore/1`); `after`: what people have to know now."""
    if as_json:
        print_json({"schema": SCHEMA, **told})
        return
    counts = ", ".join(f"{n} {word.replace('_', ' ')}" for word, n in told["counts"].items())
    print(f"restored   {told['restored']} from {told['backup']}, checked")
    print(f"holds      {counts}")
    if told["set_aside"] is not None:
        print(f"set aside  {told['set_aside']} (what was there; remove it when all is well)")
    if told["taken_at"] is None:
        print("taken at   not known: the file does not say when it was copied")
    else:
        print(f"taken at   {told['taken_at']}, {_age(told['age_s'])} ago")
    print(after)


def _age(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s"
