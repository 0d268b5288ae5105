"""What a point costs on its way into a time-series database, and what a kill costs.

    python benchmarks/series.py [--readings 80000] [--runs 5] [--profile] [--json]

A point is one value of one meter for one instant, whatever line it stands on; the quality flag that
goes with every value is no point of its own. Both sides write the same series, fields (value and
quality) and times, up to 2000 lines a request, to the same process, which answers at once and takes
both paths (`/write`, `/api/v2/write`). Processor time is user + system of the writing process.

Five writers, one after the other in every run (`series_writers.py`):

    encode  our encoder, batches and client; the journal's records are in memory
    ours    our writer as the daemon runs it, from the file of a filled journal to the last receipt
    points  influxdb-client's batching writer, one Point a value; the values are in memory
    merged  the same, one Point for up to four values: what our lines hold
    stored  merged, with the same journal read as ours reads it

So encode beside points and merged is encoding and sending alone, ours beside stored is the whole
way on both sides, and ours beside points and merged is the whole way against half of one. While
everything is well the daemon does not read the file: the newest records are in memory.

Then ours once into a real InfluxDB, every point counted there. And `kill -9` in the middle of ours
and of points (handed over at ten batches a second), while the server takes 20 ms for an answer:
ours is started again from its cursor, the library has none. Exit 1 when ours loses a point; with
--strict, when encoding and sending is not five times cheaper than merged.
"""

import argparse
import json
import os
import platform
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # for the tests' own InfluxDB

from series_load import POINTS, fill_journal
from series_sink import SLOW_S
from series_writers import DATABASE, LINES_A_REQUEST

from headend.domain.clock import SystemClock, iso
from protocols.quantities import quantity
from tests.support.influxdb import BINARY, InfluxDB

HERE = Path(__file__).parent
WRITERS = ("encode", "merged", "ours", "stored", "points")
READINGS_DEFAULT = 80_000
TARGET = 5.0
KILL_BATCHES_A_S = 10.0  # that the library is given
WAIT_S = 120.0
LOOK_S = 0.002


@dataclass(frozen=True, slots=True)
class Sink:
    """The counting server."""

    url: str

    def get(self, path: str) -> dict[str, int]:
        """What it counted."""
        with urllib.request.urlopen(self.url + path, timeout=WAIT_S) as answer:  # noqa: S310
            found: dict[str, int] = json.load(answer)
            return found

    def reset(self, path: str = "/reset") -> None:
        """It knows nothing any more; `/reset/slow`: and takes some time to answer."""
        request = urllib.request.Request(self.url + path, method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=WAIT_S):  # noqa: S310
            pass


@contextmanager
def sink() -> Iterator[Sink]:
    """A sink of our own."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "series_sink.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Sink(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


@dataclass(slots=True)
class World:
    """A folder with a filled journal, which every writer gets a copy of."""

    folder: Path
    readings: int
    lines: int = LINES_A_REQUEST
    copies: int = 0

    def fresh_journal(self) -> Path:
        """A copy that no writer has seen."""
        self.copies += 1
        folder = self.folder / f"copy-{self.copies}"
        folder.mkdir()
        return Path(shutil.copy(self.folder / "journal.db", folder))

    def command(self, writer: str, url: str, journal: Path, *more: str) -> list[str]:
        """To run a writer."""
        return [
            sys.executable, str(HERE / "series_writers.py"), writer, "--url", url,
            "--journal", str(journal), "--readings", str(self.readings),
            "--lines", str(self.lines), *more,
        ]  # fmt: skip

    def run(self, writer: str, url: str, *more: str) -> dict[str, Any]:
        """A writer, from its start to its end; what it spent."""
        journal = self.fresh_journal()
        done = subprocess.run(
            self.command(writer, url, journal, *more),
            stdout=subprocess.PIPE,
            text=True,
            timeout=WAIT_S,
            check=True,
        )
        shutil.rmtree(journal.parent)
        cost: dict[str, Any] = json.loads(done.stdout)
        assert cost["values"] == self.readings, cost
        return cost


def measure(world: World, server: Sink, writers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Every writer once; each brought every value, in the requests it was allowed."""
    costs = {}
    for writer in writers:
        server.reset()
        costs[writer] = world.run(writer, server.url)
        counted = server.get("/count")
        assert counted["values"] == world.readings, (writer, counted)
        costs[writer]["lines"] = counted["lines"]
    return costs


def into_influxdb(world: World) -> dict[str, Any]:
    """Ours into a real InfluxDB; every point is counted there."""
    with InfluxDB(world.folder / "influxdb", database=DATABASE) as influx:
        cost = world.run("ours", influx.url)
        cost["held"] = sum(influx.count(quantity(point).kind, point) for point in POINTS)
    return cost


def killed_ours(world: World, server: Sink) -> dict[str, int]:
    """Killed when a third has arrived, started again from the cursor in its journal."""
    lines = world.readings // 12  # four values a line
    while True:
        server.reset("/reset/slow")
        journal = world.fresh_journal()
        command = world.command("ours", server.url, journal)
        if _kill_in_the_middle(command, server, lines, 2 * SLOW_S):
            break
    before = server.get("/count")["values"]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=WAIT_S, check=True)
    after = server.get("/count")["values"]
    return {"arrived_at_kill": before, "arrived": after, "lost": world.readings - after}


def killed_points(world: World, server: Sink) -> dict[str, int]:
    """Killed when a third has arrived. What was handed over and did not arrive is lost."""
    progress = world.folder / "handed"
    rate = KILL_BATCHES_A_S * world.lines
    command = world.command(
        "points", server.url, world.folder / "none", "--rate", str(rate), "--progress",
        str(progress),
    )  # fmt: skip
    while True:
        server.reset("/reset/slow")
        if _kill_in_the_middle(command, server, world.readings // 3, 1 / KILL_BATCHES_A_S):
            break
    (handed,) = struct.unpack("<q", progress.read_bytes())
    values = server.get("/count")["values"]
    return {"handed_over": handed, "arrived": values, "lost": handed - values}


def _kill_in_the_middle(command: Sequence[str], server: Sink, lines: int, within_s: float) -> bool:
    """Run until so many lines arrived and a moment longer, then kill -9; whether it still ran."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + WAIT_S
        while server.get("/lines")["lines"] < lines:
            if process.poll() is not None:
                assert process.returncode == 0
                return False
            assert time.monotonic() < until
            time.sleep(LOOK_S)
        # Any moment between two batches is as good as any other.
        time.sleep(random.uniform(0.0, within_s))  # noqa: S311
        return process.poll() is None
    finally:
        process.kill()
        process.wait()


def us(cost: dict[str, Any]) -> float:
    """Microseconds of processor time a point."""
    return float(cost["cpu_s"]) / int(cost["values"]) * 1e6


def describe(runs: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the runs; ratios of the same run, their median."""
    found: dict[str, Any] = {"points": next(iter(runs[0].values()))["values"], "runs": len(runs)}
    for writer in runs[0]:
        costs = [run[writer] for run in runs]
        found[f"{writer}_us_per_point"] = round(median(map(us, costs)), 2)
        found[f"{writer}_us_per_point_of_all_runs"] = [round(us(cost), 2) for cost in costs]
        found[f"{writer}_points_per_s"] = round(median(c["values"] / c["s"] for c in costs))
        found[f"{writer}_points_per_line"] = costs[0]["values"] / costs[0]["lines"]
    if "ours" in runs[0]:
        reader_s = [
            sum(s for name, s in run["ours"]["threads_s"].items() if name.startswith("journal"))
            for run in runs
        ]
        per_point = round(median(reader_s) / found["points"] * 1e6, 2)
        found["ours_journal_threads_us_per_point"] = per_point
    for theirs, ours in (
        ("points", "encode"), ("merged", "encode"),
        ("points", "ours"), ("merged", "ours"), ("stored", "ours"),
    ):  # fmt: skip
        if runs[0].keys() >= {theirs, ours}:
            ratio = median(us(run[theirs]) / us(run[ours]) for run in runs)
            found[f"{theirs}_over_{ours}"] = round(ratio, 1)
    return found


def run_all(args: argparse.Namespace) -> dict[str, Any]:
    """Everything; the figures. Kills as many as runs."""
    with tempfile.TemporaryDirectory() as name, sink() as server:
        filled = fill_journal(Path(name) / "journal.db", args.readings)
        world = World(Path(name), filled, args.lines)
        found = describe([measure(world, server, args.writers) for _ in range(args.runs)])
        if not args.no_influxdb:
            real = into_influxdb(world)
            found["influxdb_us_per_point"] = round(us(real), 2)
            found["influxdb_points_per_s"] = round(real["values"] / real["s"])
            found["influxdb_held"] = real["held"]
        for key, killed in (("ours", killed_ours), ("points", killed_points)):
            kills = [killed(world, server) for _ in range(args.runs)]
            found[f"killed_{key}"] = kills[0]
            found[f"killed_{key}_lost_of_all_runs"] = [kill["lost"] for kill in kills]
        return found


def profile(readings: int) -> None:
    """Where ours spends its time: a run of its own, because a profile slows what it looks at."""
    with tempfile.TemporaryDirectory() as name, sink() as server:
        world = World(Path(name), fill_journal(Path(name) / "journal.db", readings))
        world.run("ours", server.url, "--profile")


def where() -> str:
    """The machine and the versions."""
    influxd = subprocess.run([BINARY, "version"], capture_output=True, text=True, check=False)
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, aiohttp {version('aiohttp')}, "
        f"influxdb-client {version('influxdb-client')}, {influxd.stdout.partition(' (')[0]}, "
        f"{iso(SystemClock().now_ms())}"
    )


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--readings", type=int, default=READINGS_DEFAULT)
    parser.add_argument("--runs", type=int, default=5, help="medians of so many are told")
    parser.add_argument("--lines", type=int, default=LINES_A_REQUEST, help="of a request, at most")
    parser.add_argument("--writers", nargs="+", choices=WRITERS, default=WRITERS)
    parser.add_argument("--no-influxdb", action="store_true", help="leave the real one out")
    parser.add_argument("--profile", action="store_true", help="and where the time goes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--strict", action="store_true", help="exit 1 below the target")
    args = parser.parse_args()
    result = run_all(args)
    if args.json:
        print(json.dumps(result))
    else:
        print(where())
        print(f"  up to {args.lines} lines a request, {len(POINTS)} points a meter and instant")
        for key, value in result.items():
            print(f"  {key:40} {value}")
        print(f"  target: encode at least {TARGET:.0f} times cheaper than merged")
    if args.profile:
        profile(args.readings)
    held = result.get("influxdb_held", result["points"])
    if any(result["killed_ours_lost_of_all_runs"]) or held != result["points"]:
        print("points of ours are missing", file=sys.stderr)
        return 1
    return 1 if args.strict and result.get("merged_over_encode", TARGET) < TARGET else 0


if __name__ == "__main__":
    sys.exit(main())
