"""A month of a thousand meters with everything that goes wrong, in compressed time.

    python -m tests.district.soak --meters 1000 --buses 40 --days 30

The real daemon, feed and billing; the lines, the broker and the time are in memory. Every meter's
daily registers are read, a tenth of the meters each quarter of an hour besides. One frame of a
hundred is lost and as many are damaged; a bus is down for 36 hours, the head-end dies over a
midnight, two meters are exchanged (one is told of two days late), a register rolls over, one meter
is without power over a midnight, clocks go wrong, one meter in two hundred says nothing.

Exit code 0 only when every day's states sum to its list, the meters that could be reached were read
in the first round, what they still hold came within 72 hours, and every bill is what the meters
counted, or is marked where nobody can know it. `--out`: the report and billing's rows, the same
bytes for the same seed.
"""

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

from headend.cli.run import settle_memory
from tests.district.audit import Audit, audit
from tests.district.run import live
from tests.district.script import Size, calm, troubled
from tests.soak.world import local_ms

MIDNIGHT = "2026-11-25T00:00:00"
MEMORY = Path("/dev/shm")
DAYS_MIN = 5


def run(size: Size, seed: int, *, is_calm: bool = False, folder: Path | None = None) -> Audit:
    """One district in a folder of its own."""
    own = folder or Path(
        tempfile.mkdtemp(prefix="headend-district-", dir=MEMORY if MEMORY.is_dir() else None)
    )
    own.mkdir(parents=True, exist_ok=True)
    make = calm if is_calm else troubled
    try:
        return audit(live(make(seed, size, local_ms(MIDNIGHT)), own, _say))
    finally:
        if folder is None:
            shutil.rmtree(own)


def _say(text: str) -> None:
    logging.getLogger(__name__).warning("%s", text)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--meters", type=int, default=1000)
    parser.add_argument("--buses", type=int, default=40)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calm", action="store_true", help="nothing goes wrong")
    parser.add_argument("--folder", type=Path, help="where it lives; kept when given")
    parser.add_argument("--out", type=Path, help="report.json and rows.txt are written there")
    options = parser.parse_args()
    if options.days < DAYS_MIN and not options.calm:
        parser.error(f"what goes wrong takes {DAYS_MIN} days; fewer with --calm")
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s")
    logging.getLogger(__name__).setLevel(logging.WARNING)
    settle_memory()
    size = Size(options.meters, options.buses, options.days)
    started, cpu = time.monotonic(), time.process_time()
    found = run(size, options.seed, is_calm=options.calm, folder=options.folder)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "report.json").write_bytes(found.report)
        (options.out / "rows.txt").write_bytes(found.rows)
    report = json.loads(found.report)
    for day in report.pop("by_day"):
        print(json.dumps(day))
    print(json.dumps(report))
    took = f"{time.monotonic() - started:.0f} s, {time.process_time() - cpu:.0f} s of processor"
    print(f"{took}: {'held' if not found.faults else f'{len(found.faults)} faults'}")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
