"""`headend billing backup` and `restore`: billing's database where it is a file."""

import argparse
from typing import TYPE_CHECKING

from headend import __version__
from headend.billing.backup import back_up, file_name, file_of, restore
from headend.billing.spec import configured_database
from headend.cli.backup import add_target, finish, progress_on_stderr, where
from headend.cli.output import add_config, add_json
from headend.cli.restore import backup_file, show
from headend.config import Config
from headend.domain.clock import SystemClock, iso

if TYPE_CHECKING:
    Actions = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - its only name

ACTIONS = ("backup", "restore")
SOFTWARE = f"headend {__version__}"


def add_arguments(actions: "Actions") -> None:
    """The two actions."""
    backup = actions.add_parser("backup", help="a copy of the database while billing runs")
    add_config(backup)
    add_json(backup)
    add_target(backup)
    bring = actions.add_parser("restore", help="bring a copy of the database back")
    bring.add_argument("backup", metavar="BACKUP", help="what headend billing backup wrote")
    add_config(bring)
    add_json(bring)


def run(args: argparse.Namespace, config: Config) -> int:
    """Write the backup, or bring one back (5 while billing runs)."""
    clock = SystemClock()
    spec = configured_database(config)
    database = file_of(spec)
    if args.action == "backup":
        name = file_name(config.name, clock.now_ms())
        target, pattern = where(args, database.parent / "backups", name)
        return finish(
            args,
            target,
            pattern,
            lambda watch: back_up(spec, target, clock=clock, software=SOFTWARE, watch=watch),
            clock,
        )
    backup = backup_file(args.backup)
    done = restore(backup, spec, clock=clock, software=SOFTWARE, watch=progress_on_stderr())
    show(
        {
            "kind": "billing",
            "backup": str(backup),
            "restored": str(database),
            "taken_at": iso(done.taken_ms),
            "age_s": max(0, (clock.now_ms() - done.taken_ms) // 1000),
            "schema_version": done.facts["schema_version"],
            "migrations": done.migrated,
            "newest_received_at": done.facts["newest_received_at"],
            "counts": done.facts["counts"],
            "set_aside": None if done.set_aside is None else str(done.set_aside),
            "dead_letters": [],
        },
        after=AFTER,
        as_json=args.json,
    )
    return 0


AFTER = (
    "Start billing again: it asks every head-end to send what came after the copy, as far as\n"
    "their journals keep it; what is older than that shows as a gap: headend billing status"
)
