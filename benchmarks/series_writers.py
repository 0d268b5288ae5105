"""The writers that `series.py` compares, each in a process of its own that tells what it spent.

    python benchmarks/series_writers.py WRITER --url U --journal FILE [--readings N]

- ours: the daemon's writer, from the file of a filled journal to its last receipt
- encode: its encoder, batches and client alone, with the journal's records in memory already
- points: influxdb-client's batching writer, one Point object a reading, readings in memory
- merged: the same, one Point object for what a meter gave for one instant (as our lines are)
- stored: the same as merged, its readings read from the journal's file as ours are

Prints one JSON line: values, processor time (user + system of this process), seconds, and for ours
the processor time of each thread.
"""

import argparse
import asyncio
import cProfile
import io
import json
import mmap
import pstats
import resource
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from series_load import (
    CONSUMER,
    HEADEND,
    SERIES,
    births,
    by_kind,
    open_journal,
    values_of,
)

from headend.cli.run import settle_memory
from headend.domain.clock import SystemClock
from headend.domain.reading import Reading
from headend.journal import Journal
from headend.journal.model import EntrySlice
from headend.supervisor import Supervisor
from headend.timeseries.alarm import StoppedAlarm
from headend.timeseries.batch import Batch
from headend.timeseries.deadletters import DeadLetters
from headend.timeseries.lines import LineEncoder
from headend.timeseries.outcome import Written
from headend.timeseries.target import Dialect, Target, open_dialect
from headend.timeseries.writer import SeriesWriter, WriterSettings
from protocols.quantities import quantity

LINES_A_REQUEST = WriterSettings().lines_max  # every writer gets the same
RECORDS_A_READ = WriterSettings().records_read
DATABASE = "meters"
LOOK_S = 0.01


def cpu_s() -> float:
    """User and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def threads_cpu_s() -> dict[str, float]:
    """Processor time of each thread that is still there."""
    return {
        thread.name: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident is not None
    }


class Meter:
    """What is spent from `begin` on; `progress` outlives a kill, at the price of a store."""

    def __init__(self, progress: Path | None, *, profiled: bool) -> None:
        self.values = 0
        self._map: mmap.mmap | None = None
        if progress is not None:
            progress.write_bytes(bytes(8))
            with progress.open("r+b") as file:
                self._map = mmap.mmap(file.fileno(), 8)
        # Processor time of the thread, so that waiting does not count.
        self._profiles = [
            (title, cProfile.Profile(time.thread_time, builtins=False))
            for title in ("main thread", "journal's reader")
            if profiled
        ]

    def watch_reader(self) -> None:
        """The journal's reading thread, when it starts, is profiled too."""

        def first_event(*_event: object) -> None:
            sys.setprofile(None)
            if threading.current_thread().name.startswith("journal-reader"):
                self._profiles[1][1].enable()

        if self._profiles:
            threading.setprofile(first_event)

    def begin(self) -> None:
        """Everything is laid out."""
        settle_memory()
        if self._profiles:
            self._profiles[0][1].enable()
        self._threads = threads_cpu_s()
        self._cpu_s, self._started = cpu_s(), time.monotonic()

    def handed(self, values: int) -> None:
        """So many more were handed to the writer."""
        self.values += values
        if self._map is not None:
            struct.pack_into("<q", self._map, 0, self.values)

    def pace(self, rate: float) -> None:
        """Not faster than so many values a second, if any."""
        if rate:
            ahead_s = self.values / rate - (time.monotonic() - self._started)
            if ahead_s > 0:
                time.sleep(ahead_s)

    def end(self) -> dict[str, Any]:
        """Everything is with the server."""
        cost = {
            "values": self.values,
            "cpu_s": cpu_s() - self._cpu_s,
            "s": time.monotonic() - self._started,
            "threads_s": {
                name: used_s - self._threads.get(name, 0.0)
                for name, used_s in threads_cpu_s().items()
            },
        }
        threading.setprofile(None)
        for title, profile in self._profiles:
            profile.disable()
            out = io.StringIO()
            out.write(f"-- profile of the {title}\n")
            pstats.Stats(profile, stream=out).sort_stats("tottime").print_stats(30)
            print(out.getvalue(), file=sys.stderr)
        return cost


async def ours(options: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    """The journal's file -> the writer as the daemon starts it -> receipts."""
    clock = SystemClock()
    meter.watch_reader()
    target = Target(kind="influxdb1", url=options.url, database=DATABASE)
    await open_dialect(target, clock).close()  # its libraries are loaded before the clock runs
    async with await open_journal(options.journal) as journal, Supervisor() as supervisor:
        writer = SeriesWriter(
            journal,
            target,
            name=SERIES,
            headend=HEADEND,
            clock=clock,
            letters=DeadLetters(options.journal.with_suffix(".dead_letters.jsonl")),
            alarm=StoppedAlarm(SERIES, journal.append_event, clock),
            settings=WriterSettings(lines_max=options.lines),
        )
        meter.begin()
        meter.handed(values_of(options.readings))  # the journal's; the sink counts what came
        supervisor.start("writer", writer.run)
        while journal.cursors()[CONSUMER].backlog:
            await asyncio.sleep(LOOK_S)
        cost = meter.end()
        assert writer.letters.count == 0
        return cost


async def encode(options: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    """Records of the journal in memory -> lines -> requests."""
    async with await open_journal(options.journal) as journal:
        slices = [found async for found in read_all(journal)]
    dialect = open_dialect(
        Target(kind="influxdb1", url=options.url, database=DATABASE), SystemClock()
    )
    meter.begin()
    encoder, batch = LineEncoder(HEADEND), Batch(options.lines)
    for found in slices:
        for seq, entry in found.entries:
            lines = encoder.encode(entry.items)
            if not batch.add(seq, lines):
                await _send(dialect, batch)
                batch = Batch(options.lines)
                batch.add(seq, lines)
            meter.handed(len(entry.items))
    await _send(dialect, batch)
    cost = meter.end()
    await dialect.close()
    return cost


async def read_all(journal: Journal) -> AsyncIterator[EntrySlice]:
    """The stream of the series, slice by slice, as the writer reads it."""
    through = 0
    while True:
        found = await journal.read_entries(CONSUMER, through + 1, records_max=RECORDS_A_READ)
        if found.through_seq <= through:
            return
        through = found.through_seq
        yield found


async def _send(dialect: Dialect, batch: Batch) -> None:
    outcome = await dialect.write(b"".join([pending.encoded() for pending in batch.pending()]))
    assert isinstance(outcome, Written), outcome


class Library:
    """influxdb-client's batching writer."""

    def __init__(self, options: argparse.Namespace, meter: Meter) -> None:
        from influxdb_client import InfluxDBClient, WriteOptions  # noqa: PLC0415 - ours needs none

        self._client = InfluxDBClient(url=options.url, token="t", org="o")  # noqa: S106 - no secret
        self._writer = self._client.write_api(write_options=WriteOptions(batch_size=options.lines))
        self._meter = meter
        self._rate = options.rate

    def write(self, part: Sequence[Reading]) -> None:
        """One Point object with the same series, fields and time as our line."""
        from influxdb_client import Point  # noqa: PLC0415
        from influxdb_client.domain.write_precision import WritePrecision  # noqa: PLC0415

        first = part[0]
        point = (
            Point(quantity(first.point).kind)
            .tag("headend", HEADEND)
            .tag("meter", first.meter)
            .tag("service_point", first.service_point)
            .time(first.time_ms, WritePrecision.MS)
        )
        for reading in part:
            assert reading.value is not None
            point.field(reading.point, float(reading.value))
            point.field(f"{reading.point}_quality", 0)
        self._writer.write(DATABASE, "o", point, WritePrecision.MS)
        self._meter.handed(len(part))
        self._meter.pace(self._rate)

    def finish(self) -> dict[str, Any]:
        """Its last batches go out when it is closed; what all of it cost."""
        self._writer.close()
        cost = self._meter.end()
        self._client.close()
        return cost


def points(options: argparse.Namespace, meter: Meter, *, merged: bool) -> dict[str, Any]:
    """Readings in memory -> Point objects -> the library's batches."""
    parts = [part for birth in births(options.readings) for part in by_kind(birth)]
    if not merged:
        parts = [(reading,) for part in parts for reading in part]
    library = Library(options, meter)
    meter.begin()
    for part in parts:
        library.write(part)
    return library.finish()


async def stored(options: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    """The journal's file -> Point objects, one for a meter and instant -> the library's batches."""
    async with await open_journal(options.journal) as journal:
        library = Library(options, meter)
        meter.begin()
        async for found in read_all(journal):
            readings = [item[0] for _seq, entry in found.entries for item in entry.items]
            for _series, part in groupby(readings, _series_and_time):
                library.write(list(part))
        return library.finish()


def _series_and_time(reading: Reading) -> tuple[str, str, str, int]:
    kind = quantity(reading.point).kind
    return kind, reading.meter, reading.service_point, reading.time_ms


def main() -> int:
    """One writer, once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("writer", choices=("ours", "encode", "points", "merged", "stored"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--readings", type=int, default=80_000, help="of what is in memory")
    parser.add_argument("--lines", type=int, default=LINES_A_REQUEST, help="of a request")
    parser.add_argument("--rate", type=float, default=0.0, help="values a second handed over")
    parser.add_argument("--progress", type=Path, help="file that holds how many were handed over")
    parser.add_argument("--profile", action="store_true", help="to standard error")
    options = parser.parse_args()
    meter = Meter(options.progress, profiled=options.profile)
    match options.writer:
        case "ours":
            cost = asyncio.run(ours(options, meter))
        case "encode":
            cost = asyncio.run(encode(options, meter))
        case "stored":
            cost = asyncio.run(stored(options, meter))
        case name:
            cost = points(options, meter, merged=name == "merged")
    print(json.dumps(cost), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
