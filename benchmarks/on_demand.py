"""How long a read that somebody asks for takes while everything else wants the line as well.

    python benchmarks/on_demand.py [--reads 300] [--baud 9600 --baud 2400] [--json]

The real daemon with one bus of 32 DL/T 645 meters at 8E1, 40 ms of a meter's time, in compressed
time on a line in memory that takes as long as its bytes. The plan wants more than the line can do,
so what is due never ends; beside it backfill, events and statistics each ask without a pause. Then
two registers of a meter drawn by lot are asked for, as through the local socket, every half to
three seconds; the time until the answer is there, and in the journal, is taken. Half of the reads
are of the very meter that is just being read by plan.

Exit code 1 when at 9600 Bd one read in twenty takes longer than three seconds.
"""

import argparse
import asyncio
import json
import logging
import random
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # for the simulated estate of the long tests

from headend.bus import Priority
from headend.commands import Parts, read_now
from headend.config import load_config
from headend.domain.clock import iso
from headend.domain.errors import BusError
from headend.drivers.configured import ConfiguredSessions
from simulators.schedule import VirtualTimeLoop, run_virtual
from tests.soak.world import EXPORT, IMPORT, Estate, daemon, local_ms

BUS, METERS = "bus-01", 32
BAUDS = (9600, 2400)
PLAN = f"every: [{{seconds: 10, points: [{IMPORT}, {EXPORT}], tolerance_s: 5}}]"
START = "2026-11-25T12:00:00"
BOUND_BAUD, BOUND_S = 9600, 3.0
SEED = 7
TIMEOUT_S = 60.0
WARM_UP_S = 15.0
PAUSE_S = (0.5, 3.0)  # between two reads
BELOW = (Priority.BACKFILL, Priority.EVENTS, Priority.STATISTICS)


@dataclass
class Measured:
    """One line's figures, in seconds."""

    baud: int
    took_s: list[float] = field(default_factory=list)
    failed: int = 0
    busy_share: float = 0.0

    def quantile(self, share: float) -> float:
        """So much of the reads took no longer."""
        ordered = sorted(self.took_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "baud": self.baud,
            "reads": len(self.took_s),
            "failed": self.failed,
            "p50_s": round(self.quantile(0.5), 3),
            "p95_s": round(self.quantile(0.95), 3),
            "max_s": round(max(self.took_s), 3),
            "busy_share": round(self.busy_share, 3),
        }


def measure(baud: int, reads: int) -> Measured:
    """So many reads on a line of this speed."""
    found = Measured(baud)
    with tempfile.TemporaryDirectory() as folder:
        run_virtual(lambda loop: _live(loop, Path(folder), found, reads), start_ms=local_ms(START))
    return found


async def _live(loop: VirtualTimeLoop, folder: Path, found: Measured, reads: int) -> None:
    estate = Estate(loop, buses=1, each=METERS, baud=found.baud)
    lasts_s = 2 * WARM_UP_S + reads * (PAUSE_S[1] + BOUND_S)  # no longer list than is needed
    until = iso(loop.now_ms() + int(lasts_s * 1000))
    config = estate.configure(folder, f'  p: {{until: "{until}", {PLAN}}}', broker=None)
    text = config.path.read_text().replace('parity=even"', 'parity=even", allow_overload: true')
    config.path.write_text(text)
    config = load_config(config.path)
    async with daemon(config, estate) as parts:
        sessions = ConfiguredSessions(config, parts.buses, clock=loop)

        async def keep_asking(priority: Priority) -> None:
            rng = random.Random(priority)  # noqa: S311 - not for secrets
            while True:
                with suppress(BusError):
                    meter = rng.choice(config.meters)
                    await sessions(meter).read([IMPORT], priority=priority)

        flood = [asyncio.ensure_future(keep_asking(priority)) for priority in BELOW]
        await asyncio.sleep(WARM_UP_S)
        before, since = parts.buses[BUS].statistics().busy_s, loop.time()
        await _ask(loop, parts, found, reads)
        busy_s = parts.buses[BUS].statistics().busy_s - before
        found.busy_share = busy_s / (loop.time() - since)
        for task in flood:
            task.cancel()
        await asyncio.wait(flood)


async def _ask(loop: VirtualTimeLoop, parts: Parts, found: Measured, reads: int) -> None:
    rng = random.Random(SEED)  # noqa: S311 - not for secrets
    names = [meter.id for meter in parts.registry.all()]
    for number in range(reads):
        await asyncio.sleep(rng.uniform(*PAUSE_S))
        busy = [name for name in names if parts.engine.turn(name).locked()]
        meter = busy[0] if busy and number % 2 else rng.choice(names)
        began = loop.time()
        answers = await read_now(parts, meter, [IMPORT, EXPORT], TIMEOUT_S)
        found.took_s.append(loop.time() - began)
        found.failed += any(answer["value"] is None for answer in answers)


def show(found: Measured) -> str:
    """A line for people."""
    return (
        f"{found.baud:>5} Bd: p50 {found.quantile(0.5):.2f} s, p95 {found.quantile(0.95):.2f} s,"
        f" max {max(found.took_s):.2f} s; {len(found.took_s)} reads of two registers,"
        f" {found.failed} failed; the line was busy {found.busy_share:.0%} of the time"
    )


def main() -> int:
    """Print the figures of each speed; 1 when the bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--reads", type=int, default=300)
    parser.add_argument("--baud", type=int, action="append")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    kept = True
    for baud in args.baud or BAUDS:
        found = measure(baud, args.reads)
        print(json.dumps(found.to_json()) if args.json else show(found), flush=True)
        kept &= not found.failed and (baud < BOUND_BAUD or found.quantile(0.95) <= BOUND_S)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
