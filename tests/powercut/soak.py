"""`python -m tests.powercut.soak --rounds 20`: power cuts and n-th failures at length.

A round tells the journal's story under one of three conditions and billing's under two, cuts both
at every step of their files with other seeds, and cuts a start again where one was cut. With
`--failures` every way to fail is tried for every n first, each failure with power cuts behind it.
Exit code 0 only when nothing was found; the first finding ends it and is printed.
"""

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.powercut import billing_failures, billing_story, journal_failures
from tests.powercut.failures import WAYS
from tests.powercut.images import cuts
from tests.powercut.journal_check import Broken, Tally
from tests.powercut.journal_cuts import CONDITIONS, check_cuts, check_second_cuts, sampled, tell
from tests.powercut.journal_story import HandClock, open_journal
from tests.powercut.vfs import recording

# In memory where there is any: many thousand small files are synced.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


async def journal_round(folder: Path, seed: int, tally: Tally) -> int:
    """Cuts of the journal; how many second ones among them."""
    name = [*CONDITIONS][seed % len(CONDITIONS)]
    run = await tell(folder / "journal", CONDITIONS[name])
    await check_cuts(run, tally, sampled(run, seed=seed, variants=3, count=None))
    second = 0
    for cut in sampled(run, seed=seed + 1, variants=1, count=4):
        second += await check_second_cuts(run, tally, cut, seed=seed, variants=1, count=20)
    return second


def billing_round(folder: Path, seed: int) -> int:
    """Cuts of billing's file; how many."""
    home = folder / "billing"
    home.mkdir()
    pages = (4000, 15)[seed % 2]
    with (
        billing_story.with_pragmas(f"PRAGMA wal_autocheckpoint={pages}"),
        recording(home) as recorder,
    ):
        trail = billing_story.live(home, recorder)
    count = 0
    for cut in cuts(recorder, seed=seed, variants=2):
        disk = folder / f"billing-{cut.at}-{cut.nth}"
        cut.lay_out(disk)
        try:
            billing_story.check_billing(disk, trail, cut.at)
        except Exception as error:
            raise Broken(f"billing, step {cut.at}, image {cut.nth}: {error}") from error
        shutil.rmtree(disk)
        count += 1
    return count


async def failures(folder: Path) -> int:
    """Every way to fail, for every n; how many failures there were."""
    (folder / "template").mkdir()
    async with await open_journal(folder / "template", HandClock()):
        pass
    (folder / "billing").mkdir()
    billing_story.open_store(folder / "billing").close()
    total = 0
    for name, way in WAYS.items():
        for template in (folder / "template", None):
            touched, _errors = await journal_failures.every_failure(
                folder, way, template=template, cut_every=3
            )
            total += touched
        touched, _errors = billing_failures.every_failure(
            folder, way, folder / "billing", cut_every=3
        )
        total += touched
        print(f"{name}: {total} failures so far", file=sys.stderr, flush=True)
    return total


async def run(rounds: int, seed: int, *, with_failures: bool) -> str:
    """The line to print at the end."""
    begun = time.monotonic()
    tally, second, billing, failed = Tally(), 0, 0, 0
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        if with_failures:
            folder = Path(made) / "failures"
            folder.mkdir()
            failed = await failures(folder)
        for number in range(rounds):
            folder = Path(made) / f"round-{number}"
            folder.mkdir()
            second += await journal_round(folder, seed + number, tally)
            billing += billing_round(folder, seed + number)
            shutil.rmtree(folder)
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return (
        f"{rounds} rounds, seed {seed}: {tally.images} disks of the journal ({second} of them cut"
        f" twice), {billing} of billing; {tally.records} records and {tally.traced} readings"
        f" with their evidence compared; {failed} n-th failures; findings 0;"
        f" {time.monotonic() - begun:.0f} s"
    )


def main() -> int:
    """Run the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--failures", action="store_true", help="n-th failures first")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    try:
        print(asyncio.run(run(args.rounds, args.seed, with_failures=args.failures)))
    except Broken as error:
        print(f"seed {args.seed}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
