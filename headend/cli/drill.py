"""`headend drill`: an outage on a simulated street, and what it costs: nothing that is billed.

Each drill says what it does, does it, waits until the daemon shows it, ends it, waits until all is
as before, and then compares the books.
"""

import argparse
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from headend.cli.drills import NAMES
from headend.cli.drills.words import word
from headend.cli.output import add_json, add_lang, language, print_json, run_async, say, table
from headend.cli.staging import empty_folder
from headend.domain.errors import ConfigError

MARK = ".headend-drill"
SOCKET = "data/headend.sock"
SOCKET_BYTES_MAX = 107  # of a path in Linux
FAULT_S = 30.0
FAULT_MAX_S = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend drill`."""
    parser.add_argument("drill", nargs="?", choices=NAMES, metavar="DRILL", help=", ".join(NAMES))
    parser.add_argument("--list", action="store_true", help="say what each drill does, and end")
    parser.add_argument(
        "--for", dest="fault_s", type=_seconds, default=FAULT_S, metavar="S",
        help="how long the fault lasts (default: 30 s; at least two rounds of readings)",
    )  # fmt: skip
    parser.add_argument(
        "--dir", type=Path, metavar="D",
        help="where configuration, data and logs are left (default: nowhere, they are removed)",
    )  # fmt: skip
    # A consumer instead of ours (arguments of Python): for a drill of the drill.
    parser.add_argument("--consumer", help=argparse.SUPPRESS)
    add_json(parser)
    add_lang(parser)
    parser.epilog = (
        "Exit code 0 only if nothing was lost and all that should show itself did, else 1."
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= FAULT_MAX_S:
        msg = f"{text!r} is no duration: seconds, from 1 to {FAULT_MAX_S:.0f}, such as 30"
        raise argparse.ArgumentTypeError(msg)
    return seconds


def run(args: argparse.Namespace) -> int:
    """Hold the drill; 0 only if nothing was lost."""
    chosen = language(args.lang)
    if args.list:
        return _list(chosen, as_json=args.json)
    if args.drill is None:
        raise ConfigError("no drill is named", hint=f"one of {', '.join(NAMES)}; or --list")
    say(word(f"does.{args.drill}", chosen))
    with _folder(args.dir) as directory:
        return run_async(lambda: _hold(args, directory, chosen))


async def _hold(args: argparse.Namespace, directory: Path, chosen: str) -> int:
    from headend.cli.drills.stories import Options, hold  # noqa: PLC0415 - only a drill pays for it

    consumer = None if args.consumer is None else tuple(args.consumer.split())
    report = await hold(args.drill, Options(directory, args.fault_s, chosen, consumer))
    if args.json:
        print_json(report.to_json())
    else:
        print(report.text(chosen))
    return 0 if report.passed else 1


def _list(chosen: str, *, as_json: bool) -> int:
    does = {name: word(f"does.{name}", chosen) for name in NAMES}
    if as_json:
        for name, text in does.items():
            print_json({"schema": "drill_kind/1", "drill": name, "does": text})
    else:
        print(table(("DRILL", ""), does.items()))
    return 0


@contextlib.contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    """The drill's own folder; removed at the end unless it was asked for."""
    if wanted is not None:
        if len(os.fsencode(wanted.absolute() / SOCKET)) > SOCKET_BYTES_MAX:
            msg = f"{wanted.absolute()} is too long a path for the daemon's local socket in it"
            raise ConfigError(msg, hint=f"at most {SOCKET_BYTES_MAX} bytes with /{SOCKET}")
        yield empty_folder(wanted, MARK, "drill")
        return
    made = Path(tempfile.mkdtemp(prefix="headend-drill-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)
