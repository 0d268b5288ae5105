"""`headend backup`: a copy of the journal while the daemon runs."""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headend import __version__
from headend.archive import SUFFIX, Watch, keep_newest
from headend.cli.output import add_config, add_json, print_json, say
from headend.config import Config
from headend.domain.clock import Clock, SystemClock
from headend.domain.errors import ConfigError

MIB = 1024 * 1024
SCHEMA = "backup/1"
TOLD_EVERY_S = 2.0
NICE = 10
# A backup must leave the daemon more than the level at which it would refuse telemetry.
RESERVE_SHARE = 1.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend backup`."""
    add_config(parser)
    add_json(parser)
    add_target(parser)


def add_target(parser: argparse.ArgumentParser) -> None:
    """Where a backup goes, and how many stay."""
    parser.add_argument(
        "--to",
        metavar="FILE",
        help="a file that is not there yet, or a folder: the name then says when it was made "
        "(default: the folder `backups` beside what is copied; better another disk)",
    )
    parser.add_argument(
        "--keep", type=int, metavar="N", help="of the backups in that folder keep the newest N"
    )


def run(args: argparse.Namespace) -> int:
    """Write the backup, say what is in it."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it
    from headend.journal.backup import Source, back_up, file_name  # noqa: PLC0415
    from headend.timeseries.service import letters_path  # noqa: PLC0415

    config = load_config(Path(args.config))
    clock = SystemClock()
    name = file_name(config.name, clock.now_ms())
    target, pattern = where(args, config.data_path / "backups", name)
    source = Source(
        headend=config.name,
        journal=config.journal_path,
        letters=[letters_path(config, section.known_as) for section in config.timeseries],
        reserve=reserve_bytes(config),
    )
    return finish(
        args,
        target,
        pattern,
        lambda watch: back_up(
            source, target, clock=clock, software=f"headend {__version__}", watch=watch
        ),
        clock,
    )


def reserve_bytes(config: Config) -> int:
    """What must stay free on the journal's disk."""
    return int(config.headend.reserve_mb.telemetry * MIB * RESERVE_SHARE)


def where(args: argparse.Namespace, usual: Path, name: str) -> tuple[Path, str | None]:
    """The file to be made, and the pattern of the ones before it in its folder.

    `usual`: the folder when none is named.

    ConfigError for a file that is there already or a `--keep` that makes no sense.
    """
    to = None if args.to is None else Path(args.to)
    is_folder = to is None or to.is_dir() or args.to.endswith("/")
    folder = usual if to is None else to
    target = folder / name if is_folder else folder
    if args.keep is not None and args.keep < 1:
        msg = f"--keep {args.keep} would keep nothing"
        raise ConfigError(msg, hint="1 or more")
    if args.keep is not None and not is_folder:
        msg = f"--keep needs a folder, --to names the file {target}"
        raise ConfigError(msg, hint="--to FOLDER/ --keep N")
    if target.exists():
        msg = f"{target} is there already and is not overwritten"
        raise ConfigError(msg, hint="another name, or a folder: the name then says when")
    stem = name[: -len(SUFFIX)].rpartition("-")[0]
    return target, f"{stem}-????????T??????Z{SUFFIX}" if args.keep is not None else None


def finish(
    args: argparse.Namespace,
    target: Path,
    pattern: str | None,
    make: Callable[[Watch], dict[str, Any]],
    clock: Clock,
) -> int:
    """Make the backup, then remove old ones, and print what there is."""
    if hasattr(os, "nice"):
        os.nice(NICE)  # the daemon's work comes first
    begun = clock.monotonic()
    manifest = make(progress_on_stderr())
    removed = keep_newest(target.parent, pattern, args.keep) if pattern is not None else []
    shown = {
        "schema": SCHEMA,
        "file": str(target),
        "bytes": target.stat().st_size,
        "took_s": round(clock.monotonic() - begun, 3),
        "removed": [str(path) for path in removed],
        "manifest": manifest,
    }
    if args.json:
        print_json(shown)
    else:
        _print(shown)
    return 0


def progress_on_stderr() -> Watch:
    """Tells how far it is, every few seconds."""
    told = time.monotonic()

    def watch(word: str, done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= TOLD_EVERY_S and total:
            told = now
            say(f"{word} {done // MIB} of {total // MIB} MiB ({100 * done // total} %)")

    return watch


def _print(shown: dict[str, Any]) -> None:
    manifest = shown["manifest"]
    print(f"{shown['file']}  {shown['bytes'] / MIB:.1f} MiB, checked")
    print(f"taken at   {manifest['taken_at']}  schema {manifest['schema_version']}")
    counts = ", ".join(f"{n} {word.replace('_', ' ')}" for word, n in manifest["counts"].items())
    print(f"holds      {counts}")
    for consumer in manifest.get("consumers", ()):
        print(
            f"consumer   {consumer['name']}: record {consumer['last_seq']}, "
            f"receipted through {consumer['receipted_seq']}"
        )
    for member in manifest["members"]:
        print(f"member     {member['name']}  {member['bytes']} bytes  sha256 {member['sha256']}")
    for path in shown["removed"]:
        print(f"removed    {path}")
