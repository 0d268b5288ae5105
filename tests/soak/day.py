"""A day of a thousand meters in compressed time: does anything grow?

    python -m tests.soak.day --meters 1000 --hours 24

The real daemon (journal on the disk, synchronous=FULL; feed over mosquitto to the real billing)
reads every meter's import and export each quarter of an hour and its daily freeze. It begins at
20:00, so that the next day's list, midnight and the daily freezes are in it; a bus goes away and
comes back every few hours. Each virtual quarter of an hour the process is looked at: resident
memory, asyncio tasks, open files, waiting requests. The simulated meters are in the same process
and hold next to nothing.

Exit code 0 only when the bounds hold and every due point was read and is held by billing once.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headend.cli.run import settle_memory
from headend.commands import Parts
from headend.journal import JournalReader
from simulators.schedule import VirtualTimeLoop, run_virtual
from tests.soak.world import (
    EXPORT,
    IMPORT,
    Estate,
    Mosquitto,
    billing_process,
    daemon,
    local_ms,
)

START = "2026-11-25T20:00:00"
QUARTER_S = 900.0
EACH = 32
BAUD = 2400
MIB = 1024 * 1024
SLOPE_MAX_MB_H = 0.5
WARM_UP_H = 4.0
AWAY_EVERY_H, AWAY_S = 5.0, 1200.0
PLANS = (
    f"  p: {{daily: {{at: '00:00', points: [{IMPORT}, {EXPORT}], from: freeze}}, "
    f"every: [{{minutes: 15, points: [{IMPORT}, {EXPORT}]}}]}}\n"
    f"  m: {{every: [{{minutes: 15, points: [{IMPORT}, {EXPORT}]}}]}}"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """The process at one virtual instant."""

    hour: float
    rss_mib: float
    tasks: int
    files: int
    queued: int


@dataclass
class Result:
    """What a run showed."""

    meters: int
    hours: float
    start_ms: int = 0
    samples: list[Sample] = field(default_factory=list)
    due: int = 0
    read: int = 0
    open_: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    journal_readings: int = 0
    billing_readings: int = 0
    restarts: dict[str, int] = field(default_factory=dict)
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def steady(self) -> list[Sample]:
        """The samples behind the warm-up."""
        first = min(WARM_UP_H, self.hours / 6)
        return [one for one in self.samples if one.hour >= first]

    @property
    def slope_mib_h(self) -> float:
        """Least squares over the steady samples."""
        return slope([one.hour for one in self.steady()], [one.rss_mib for one in self.steady()])

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        steady = self.steady()
        return {
            "meters": self.meters,
            "hours": self.hours,
            "rss_slope_mib_per_hour": round(self.slope_mib_h, 3),
            "rss_mib": [round(self.samples[0].rss_mib, 1), round(self.samples[-1].rss_mib, 1)],
            "rss_max_mib": round(max(one.rss_mib for one in self.samples), 1),
            "tasks": sorted({one.tasks for one in steady}),
            "files": sorted({one.files for one in steady}),
            "queued_max": max(one.queued for one in self.samples),
            "due": self.due,
            "read": self.read,
            "open": self.open_,
            "reasons": self.missing,
            "journal_readings": self.journal_readings,
            "billing_readings": self.billing_readings,
            "restarts": self.restarts,
            "wall_s": round(self.wall_s),
            "cpu_s": round(self.cpu_s),
        }


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Of the straight line with the least squares."""
    count = len(xs)
    mean_x, mean_y = sum(xs) / count, sum(ys) / count
    over = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return over / sum((x - mean_x) ** 2 for x in xs)


def look(hour: float, parts: Parts) -> Sample:
    """The process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        hour,
        pages * os.sysconf("SC_PAGE_SIZE") / MIB,
        len(asyncio.all_tasks()),
        sum(1 for _ in Path("/proc/self/fd").iterdir()),
        sum(bus.statistics().queue_len for bus in parts.buses.values()),
    )


async def live(
    loop: VirtualTimeLoop, folder: Path, broker: str, result: Result, options: argparse.Namespace
) -> None:
    """The virtual hours."""
    buses = -(-result.meters // EACH)
    each = -(-result.meters // buses)
    estate = Estate(loop, buses=buses, each=each, baud=BAUD, modbus_buses=buses >= 4)
    result.meters = len(estate.meters)
    config = estate.configure(folder, PLANS, broker=broker)
    names = list(estate.links)
    with billing_process(config.path, folder / "billing.log"):
        async with daemon(config, estate) as parts:
            settle_memory()
            if options.trace:
                tracemalloc.start(12)
            quarters = round(result.hours * 4)
            away_every = round(min(AWAY_EVERY_H, result.hours / 2) * 4)
            before: tracemalloc.Snapshot | None = None
            for quarter in range(1, quarters + 1):
                bus = names[(quarter // away_every) % len(names)]
                is_away = quarter % away_every == away_every // 2
                if is_away:
                    loop.call_later(QUARTER_S / 3, estate.links[bus].unplug)
                    loop.call_later(QUARTER_S / 3 + AWAY_S, estate.links[bus].plug)
                await asyncio.sleep(quarter * QUARTER_S - (loop.now_ms() - result.start_ms) / 1000)
                sample = look(quarter / 4, parts)
                result.samples.append(sample)
                if options.trace:
                    before = _tell_growth(quarter, before)
                if not quarter % 4:
                    options.say(
                        f"hour {sample.hour:g}: rss {sample.rss_mib:.1f} MiB, tasks "
                        f"{sample.tasks}, files {sample.files}, {parts.journal.statistics}"
                    )
            result.restarts = {
                name: state.restarts
                for name, state in parts.supervisor.states.items()
                if state.restarts
            }
            async with asyncio.timeout(600):
                while parts.journal.cursors()["billing"].backlog:
                    await asyncio.sleep(1)
    count(config.journal_path, folder / "billing.db", loop.now_ms(), result)


def _tell_growth(quarter: int, before: tracemalloc.Snapshot | None) -> tracemalloc.Snapshot | None:
    """Of a traced run: what the last four hours have left behind."""
    if quarter % 16 != 0:
        return before
    gc.collect()
    now = tracemalloc.take_snapshot()
    for line in [] if before is None else now.compare_to(before, "traceback")[:12]:
        print(f"{line.size_diff / 1024:+.0f} KiB {line.count_diff:+d}")
        print("\n".join(line.traceback.format(6)[-6:]))
    return now


def count(journal: Path, billing: Path, now_ms: int, result: Result) -> None:
    """Hold the due list, the journal and billing side by side."""
    with JournalReader(journal) as reader:
        for day in reader.due_days():
            for line in reader.due_lines(day, until_ms=now_ms - int(QUARTER_S * 1000)):
                result.due += 1
                if line.read_id is not None:
                    result.read += 1
                elif line.reason is None:
                    result.open_ += 1
                else:
                    result.missing[line.reason] = result.missing.get(line.reason, 0) + 1
        result.journal_readings = sum(1 for _ in reader.readings())
    with sqlite3.connect(billing) as held:
        (result.billing_readings,) = held.execute("SELECT count(*) FROM reading").fetchone()
    held.close()


def run(meters: int, hours: float, folder: Path, options: argparse.Namespace) -> Result:
    """One run in a folder of its own."""
    result = Result(meters, hours, local_ms(options.start))
    started, cpu = time.monotonic(), time.process_time()
    with Mosquitto(folder / "broker") as broker:
        run_virtual(
            lambda loop: live(loop, folder, broker.url, result, options),
            start_ms=result.start_ms,
        )
    result.wall_s = time.monotonic() - started
    result.cpu_s = time.process_time() - cpu
    return result


def findings(result: Result) -> list[str]:
    """What is not as it has to be, in words."""
    shown = result.to_json()
    found = []
    if len(shown["tasks"]) > 1 and max(shown["tasks"]) - min(shown["tasks"]) > 2:
        found.append(f"the number of tasks is not steady: {shown['tasks']}")
    if len(shown["files"]) > 1 and max(shown["files"]) - min(shown["files"]) > 2:
        found.append(f"the number of open files is not steady: {shown['files']}")
    if result.hours >= 24 and result.slope_mib_h > SLOPE_MAX_MB_H:
        found.append(f"memory grows by {result.slope_mib_h:.2f} MiB an hour")
    if result.journal_readings != result.billing_readings:
        found.append(
            f"billing holds {result.billing_readings} of {result.journal_readings} readings"
        )
    if result.open_:
        found.append(f"{result.open_} due points have neither a reading nor a reason")
    strange = set(result.missing) - {"port_gone", "overrun"}
    if strange:
        found.append(f"due points are open for reasons nobody gave: {sorted(strange)}")
    if result.restarts:
        found.append(f"tasks died: {result.restarts}")
    return found


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--meters", type=int, default=1000)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--start", default=START, help="local time it begins at")
    parser.add_argument("--folder", type=Path, help="kept when given")
    parser.add_argument("--trace", action="store_true", help="and say where memory grows (slow)")
    options = parser.parse_args()
    options.say = lambda text: print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
    logging.basicConfig(level=logging.ERROR)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="headend-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    result = run(options.meters, options.hours, folder, options)
    if options.folder is None:
        shutil.rmtree(folder)
    print(f"{os.cpu_count()} cores, {platform.python_implementation()} {platform.python_version()}")
    print(json.dumps(result.to_json()))
    found = findings(result)
    for text in found:
        print(f"not good: {text}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
