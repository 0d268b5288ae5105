"""`python -m tests.kill.soak --rounds 1000`: the kill loop at length, with its table at the end.

Exit code 0 only when every check was without findings, and (from 1,000 rounds on) every window
was struck often enough.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from tests.kill.harness import KillLoop, KillLoopError, describe, windows_and_victims
from tests.kill.world import World

KILLS_A_WINDOW = 50


def main() -> int:
    """Run the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, help="repeats a schedule; by default a new one")
    parser.add_argument("--folder", type=Path, help="kept when given, or when something is wrong")
    parser.add_argument("--until", metavar="HH:MM", help="begin no round after this time (UTC)")
    parser.add_argument(
        "--servers", action="store_true", help="billing on PostgreSQL, an InfluxDB beside it"
    )
    args = parser.parse_args()
    seed = int(time.time()) if args.seed is None else args.seed
    folder = args.folder or Path(tempfile.mkdtemp(prefix="headend-kill-"))
    say(f"seed {seed}, folder {folder}, {args.rounds} rounds")
    with World(folder, servers=args.servers) as world:
        loop = KillLoop(world, seed, say=say)
        try:
            tally = loop.run(args.rounds, until=_instant(args.until))
        except KillLoopError as error:
            say(str(error))
            print(describe(loop.tally), flush=True)
            return 1
    print(describe(tally), flush=True)
    struck: Counter[str] = Counter()
    for (window, _victim), times in tally.kills.items():
        struck[window] += times
    windows, _victims = windows_and_victims(servers=args.servers)
    rare = [window for window in windows if struck[window] < KILLS_A_WINDOW]
    if args.folder is None:
        shutil.rmtree(folder)
    if rare and args.rounds >= 1000:
        say(f"struck fewer than {KILLS_A_WINDOW} times: {', '.join(rare)}")
        return 1
    return 0


def say(text: str) -> None:
    """A line of progress."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


def _instant(text: str | None) -> float | None:
    if text is None:
        return None
    hour, _, minute = text.partition(":")
    now = datetime.now(UTC)
    then = now.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
    return then.timestamp()


if __name__ == "__main__":
    sys.exit(main())
