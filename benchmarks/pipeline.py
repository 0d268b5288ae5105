"""What one reading costs the daemon, from its frame's bytes to billing's receipt.

    python benchmarks/pipeline.py [--readings 16000] [--runs 5] [--profile] [--json]

One reading an exchange: the bytes of a DL/T 645 reply go through framing, matching, decoding,
validation, the journal (committed, synchronous=FULL), the feed (a real mosquitto, MQTT 5) and the
receipt of the real billing consumer, which is a process of its own and counted apart. Wire time is
left out: a port in memory hands out the replies. Processor time is user + system of the whole
daemon process (getrusage), the writer thread included.

Beside it, in the same run, the habit it replaces: each reading decoded with the plain declaration,
inserted and committed by itself, published by itself and awaited.

Exit 1 when a reading is missing at billing, or, with --strict, when the target is missed.
"""

import argparse
import asyncio
import cProfile
import io
import json
import os
import platform
import pstats
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import aiomqtt

from headend.acquisition.meter_reader import Due, MeterReader, MeterSession, Wanted
from headend.acquisition.sessions import KeptSessions
from headend.bus import BusRequest, Priority
from headend.cli.run import settle_memory
from headend.domain.clock import SystemClock, iso
from headend.domain.due import DueKey, DuePoint, day_bounds_ms, local_day
from headend.domain.exchange import Exchange, Outcome
from headend.domain.meter import Meter
from headend.drivers import Dlt645Session
from headend.feed.publisher import Publisher
from headend.feed.settings import FeedSettings
from headend.journal import ConsumerSpec, Journal, JournalSettings
from headend.messages.broker import BrokerSpec
from headend.supervisor import Supervisor
from headend.vee import RuleSet
from protocols.dlt645.catalogue import di_of, lookup
from protocols.dlt645.frame import DELIMITER, FRAME
from protocols.dlt645.items import encode
from protocols.dlt645.meter import build_reply
from protocols.dlt645.profile import MeterProfile
from protocols.framing import FrameFound, Framer, Match

ZONE = ZoneInfo("Asia/Shanghai")
POINTS = (
    "active_import_total",
    "active_export_total",
    "active_import_t1",
    "active_import_t2",
    "active_power_total",
    "voltage_a",
    "current_a",
    "power_factor_total",
)
SINGLY = MeterProfile(blocks=False)  # a request a reading: what is measured is the dear way
METERS = 100
DAY_MS = 86_400_000
READINGS_DEFAULT = 16_000
READINGS_PROFILED = 4000
YARDSTICK_ROUNDS = 20_000
BUSES = 64  # read side by side, as the buses of the bus benchmark are
TARGET_US, AIM_US = 100.0, 60.0
WAIT_S = 120.0


def value_of(point: str, meter: int, cycle: int) -> Decimal:
    """A plausible value that moves."""
    match point:
        case "voltage_a":
            return Decimal(2200 + (meter + cycle) % 99).scaleb(-1)
        case "current_a":
            return Decimal(1000 + (meter * 7 + cycle) % 999).scaleb(-3)
        case "active_power_total":
            return Decimal(10000 + (meter * 31 + cycle) % 9999).scaleb(-4)
        case "power_factor_total":
            return Decimal("0.987")
        case _:
            return Decimal(1_000_000 + meter * 1000 + cycle).scaleb(-2)


def reply_of(meter: int, point: str, cycle: int) -> bytes:
    """The frame a meter would send."""
    di = di_of(point)
    item = lookup(di)
    assert item is not None
    return build_reply(f"{meter:012d}", di, encode(item, value_of(point, meter, cycle)))


class MemoryPort:
    """A bus whose line takes no time: the prepared replies, found by the real framer."""

    def __init__(self, journal: Journal, clock: SystemClock, replies: dict[bytes, bytes]) -> None:
        self.name = "memory"
        self.parity_seen = True
        self.replies = replies
        self._framer = Framer(DELIMITER)
        self._journal = journal
        self._clock = clock

    async def exchange(self, request: BusRequest) -> Exchange:
        """The reply to this request, recorded as the bus does."""
        now_ms = self._clock.now_ms()
        reply = self.replies[request.payload]
        for event in self._framer.feed(reply):
            if isinstance(event, FrameFound) and request.match(event.raw) is Match.REPLY:
                found = Exchange(
                    self.name, request.device, request.payload, event.raw,
                    now_ms, now_ms, 0.0, 1, Outcome.REPLY,
                )  # fmt: skip
                self._journal.record_exchange(found)
                return found
        raise AssertionError(reply.hex())


class Requests:
    """Notes each request's bytes, so that replies can be laid out beforehand."""

    name = "notes"
    parity_seen = True

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def exchange(self, request: BusRequest) -> Exchange:
        """Notes it and refuses."""
        self.seen.append(request.payload)
        raise asyncio.CancelledError


@dataclass(slots=True)
class Cost:
    """Processor time of one way, per reading."""

    readings: int
    cpu_s: float
    wall_s: float
    consumer_cpu_s: float = 0.0
    threads_s: dict[str, float] = field(default_factory=dict)
    commits: int = 0
    yardstick_us: float = 0.0

    @property
    def us(self) -> float:
        """Microseconds of processor time a reading."""
        return self.cpu_s / self.readings * 1e6


def meter_of(number: int) -> Meter:
    """A meter of the benchmark."""
    name = f"M-{number:04d}"
    return Meter(
        name, f"SP-{number:04d}", "memory", "dlt645-2007", f"{number:012d}", "p",
        capacity_kw=Decimal(1_000_000),
    )  # fmt: skip


def cpu_s() -> float:
    """User and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def threads_cpu_s() -> dict[str, float]:
    """Processor time of each thread of this process so far."""
    return {
        thread.name: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident is not None
    }


class Profiles:
    """Of the event loop's thread while readings flow, and of the journal's writer.

    The writer's holds the list of due points too, which it writes down before the first reading.
    """

    def __init__(self) -> None:
        # Processor time of the thread, so that waiting does not count; what is written in C
        # (SQLite, SHA-256, JSON) counts for the function that called it.
        self._loop = cProfile.Profile(time.thread_time, builtins=False)
        self._writer = cProfile.Profile(time.thread_time, builtins=False)

    def watch_writer(self) -> None:
        """Every thread that starts from now on and writes the journal is profiled."""

        def first_event(*_event: object) -> None:
            sys.setprofile(None)
            if threading.current_thread().name == "journal-writer":
                self._writer.enable()

        threading.setprofile(first_event)

    def begin(self) -> None:
        """Readings begin to flow."""
        self._loop.enable()

    def end(self) -> None:
        """All of them are receipted."""
        self._loop.disable()
        threading.setprofile(None)

    def text(self) -> str:
        """Both, the costliest functions first."""
        out = io.StringIO()
        for title, profile in (("event loop", self._loop), ("journal writer", self._writer)):
            out.write(f"-- profile of the {title}\n")
            pstats.Stats(profile, stream=out).sort_stats("tottime").print_stats(30)
        return out.getvalue()


def process_cpu_s(pid: int) -> float:
    """User and system time of another process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def request_bytes(meter: Meter, point: str) -> bytes:
    """What the driver sends for a point."""
    notes = Requests()
    session = Dlt645Session(notes, meter.address, zone=ZONE, profile=SINGLY)
    try:
        await session.read([point])
    except asyncio.CancelledError:
        return notes.seen[0]
    raise AssertionError(point)


@dataclass(frozen=True, slots=True)
class Load:
    """What the meters will say, cycle by cycle, and what is due for it."""

    meters: list[Meter]
    frames: list[dict[bytes, bytes]]
    today: date
    start_ms: int
    due: list[DuePoint]


async def lay_out(readings: int, now_ms: int) -> Load:
    """Everything that is not the daemon's work, done before the clock runs."""
    cycles = max(1, readings // (METERS * len(POINTS)))
    meters = [meter_of(number) for number in range(1, METERS + 1)]
    requests = {
        (meter.id, point): await request_bytes(meter, point) for meter in meters for point in POINTS
    }
    frames = [
        {
            requests[meter.id, point]: reply_of(number, point, cycle)
            for number, meter in enumerate(meters, 1)
            for point in POINTS
        }
        for cycle in range(cycles)
    ]
    today = local_day(now_ms, ZONE)
    start_ms = day_bounds_ms(today, ZONE)[0]
    due = [
        DuePoint(DueKey(meter.id, point, start_ms + cycle), "memory", None, start_ms + DAY_MS)
        for cycle in range(cycles)
        for meter in meters
        for point in POINTS
    ]
    return Load(meters, frames, today, start_ms, due)


async def pipeline(
    broker: BrokerSpec, folder: Path, readings: int, billing: int, profiles: Profiles | None
) -> Cost:
    """All of it: how much the daemon's process spends."""
    if profiles is not None:
        profiles.watch_writer()
    clock = SystemClock()
    load = await lay_out(readings, clock.now_ms())
    journal = await Journal.open(
        folder / "journal.db",
        clock=clock,
        software="benchmark",
        consumers=[ConsumerSpec("billing", frozenset({"billing", "telemetry", "events"}))],
        settings=JournalSettings(zone=ZONE, reserve_bytes_telemetry=1, reserve_bytes_billing=1),
    )
    async with journal, Supervisor() as supervisor:
        await journal.freeze_due(load.today, load.due)
        publisher = Publisher(
            journal, broker, FeedSettings(), headend="bench", clock=clock,
            version="0", configuration_hash="0",
        )  # fmt: skip
        supervisor.start("feed", publisher.run)
        port = MemoryPort(journal, clock, {})

        def open_session(meter: Meter) -> MeterSession:
            return Dlt645Session(
                port, meter.address, zone=ZONE, profile=SINGLY, capacity_kw=meter.capacity_kw
            )

        async def alarm(name: str, fields: dict[str, object]) -> None:
            raise AssertionError((name, fields))

        reader = MeterReader(
            journal,
            KeptSessions(open_session),
            clock=clock,
            rules=RuleSet(),
            bases={},
            alarm=alarm,
        )
        async with asyncio.timeout(WAIT_S):
            # The consumer is there when it has said where it stands.
            while not publisher.connected or not publisher.streams["billing"].counters.resumes:
                await asyncio.sleep(0.01)
        settle_memory()
        consumer_before_s = process_cpu_s(billing)
        if profiles is not None:
            profiles.begin()
        threads_before_s = threads_cpu_s()
        before_s, started = cpu_s(), clock.monotonic()
        for cycle, replies in enumerate(load.frames):
            port.replies = replies
            due_at = Due(load.start_ms + cycle, DAY_MS, load.start_ms + DAY_MS)
            wanted = [Wanted(point, due_at) for point in POINTS]

            async def work(part: Sequence[Meter], wanted: Sequence[Wanted] = tuple(wanted)) -> None:
                for meter in part:
                    await reader.read(meter, wanted, priority=Priority.DUE)

            await asyncio.gather(*(work(load.meters[n::BUSES]) for n in range(BUSES)))
        total = len(load.due)
        async with asyncio.timeout(WAIT_S):
            while (cursor := journal.cursors()["billing"]).backlog or cursor.last_seq < total:
                await asyncio.sleep(0.02)
        cost = Cost(total, cpu_s() - before_s, clock.monotonic() - started)
        if profiles is not None:
            profiles.end()
        cost.consumer_cpu_s = process_cpu_s(billing) - consumer_before_s
        cost.threads_s = {
            name: used_s - threads_before_s.get(name, 0.0)
            for name, used_s in threads_cpu_s().items()
        }
        cost.commits = journal.statistics["commits"]
        return cost


async def baseline(broker: BrokerSpec, folder: Path, readings: int) -> Cost:
    """Insert one, commit, publish one, wait."""
    frames = [
        reply_of(n % METERS + 1, POINTS[n % len(POINTS)], n // METERS) for n in range(readings)
    ]
    connection = sqlite3.connect(folder / "baseline.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE r (id INTEGER PRIMARY KEY, meter, di, value, at, raw)")
    clock = SystemClock()
    before_s, started = cpu_s(), clock.monotonic()
    async with aiomqtt.Client(broker.host, broker.port) as client:
        for raw in frames:
            FRAME.parse(raw)
            digits = bytes((b - 0x33) & 0xFF for b in raw[14:-2])[::-1].hex()
            value = str(Decimal(digits) / 100)
            at = datetime.now(UTC).isoformat()
            row = (raw[1:7][::-1].hex(), raw[10:14].hex(), value, at, raw)
            connection.execute("INSERT INTO r (meter, di, value, at, raw) VALUES (?,?,?,?,?)", row)
            message = {"meter": row[0], "di": row[1], "value": value, "at": at, "raw": raw.hex()}
            await client.publish("bench/baseline", json.dumps(message), qos=1)
    cost = Cost(readings, cpu_s() - before_s, clock.monotonic() - started)
    connection.close()
    return cost


def start_mosquitto(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A broker of our own; its port."""
    import socket  # noqa: PLC0415 - only here

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    config = folder / "mosquitto.conf"
    config.write_text(f"user root\nlistener {port} 127.0.0.1\nallow_anonymous true\n")
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    process = subprocess.Popen([binary, "-c", str(config)], stderr=subprocess.DEVNULL)
    return process, port


def start_billing(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """The real consumer as its own process."""
    config = folder / "headend.yaml"
    config.write_text(
        "headend: {name: bench, zone: Asia/Shanghai, data: .}\n"
        'buses: {b: {link: "tcp://127.0.0.1:1"}}\n'
        "plans: {p: {every: [{minutes: 15, points: [active_import_total]}]}}\n"
        "meters: [{id: M-1, service_point: SP-1, bus: b, protocol: dlt645-2007, "
        'address: "000000000001", plan: p}]\n'
        f'feed: {{broker: "mqtt://127.0.0.1:{port}", '
        "consumers: [{name: billing, classes: [billing]}]}\n"
        'billing: {database: "sqlite:///billing.db", name: billing, headends: [bench]}\n'
    )
    log = (folder / "billing.log").open("wb")
    command = [sys.executable, "-m", "headend.cli.main", "billing", "run", "--config", str(config)]
    return subprocess.Popen(command, stdout=log, stderr=log)


@contextmanager
def servers(folder: Path) -> Iterator[tuple[BrokerSpec, int]]:
    """A broker and the billing consumer; where the one is and the process id of the other."""
    broker, port = start_mosquitto(folder)
    billing = start_billing(folder, port)
    try:
        yield BrokerSpec("127.0.0.1", port), billing.pid
    finally:
        for process in (billing, broker):
            process.terminate()
            process.wait(10)


def run(readings: int) -> tuple[Cost, Cost, int]:
    """Both ways, one after the other; how many readings billing holds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with servers(folder) as (spec, billing):
            before_us = yardstick_us()
            ours = asyncio.run(pipeline(spec, folder, readings, billing, None))
            ours.yardstick_us = (before_us + yardstick_us()) / 2
            naive = asyncio.run(baseline(spec, folder, max(500, ours.readings // 10)))
        held = sqlite3.connect(folder / "billing.db")
        (count,) = held.execute("SELECT count(*) FROM reading").fetchone()
        held.close()
        return ours, naive, count


def profile_text() -> str:
    """Where the time goes: a run of its own, because a profile slows what it looks at."""
    profiles = Profiles()
    with tempfile.TemporaryDirectory() as name, servers(Path(name)) as (spec, billing):
        asyncio.run(pipeline(spec, Path(name), READINGS_PROFILED, billing, profiles))
    return profiles.text()


def describe(ours: Cost, naive: Cost, held: int, all_us: Sequence[float]) -> dict[str, object]:
    """The figures of a run."""
    return {
        "yardstick_us": round(ours.yardstick_us, 2),
        "readings": ours.readings,
        "daemon_us_per_reading": round(ours.us, 1),
        "daemon_us_per_reading_of_all_runs": [round(us, 1) for us in all_us],
        "threads_us_per_reading": {
            name: round(used_s / ours.readings * 1e6, 1) for name, used_s in ours.threads_s.items()
        },
        "readings_per_commit": round(ours.readings / ours.commits),
        "consumer_us_per_reading": round(ours.consumer_cpu_s / ours.readings * 1e6, 1),
        "readings_per_s": round(ours.readings / ours.wall_s),
        "baseline_us_per_reading": round(naive.us, 1),
        "baseline_readings_per_s": round(naive.readings / naive.wall_s),
        "baseline_over_ours": round(naive.us / ours.us, 1),
        "held_by_billing": held,
    }


def yardstick_us() -> float:
    """Processor time of a fixed piece of Python: tells a slow machine from slow code.

    How the interpreter was built alone is worth a third, busy neighbours as much again.
    """
    begun = time.thread_time()
    kept: dict[str, Decimal] = {}
    for number in range(YARDSTICK_ROUNDS):
        value = Decimal(number).scaleb(-2)
        kept[f"M-{number % 100:04d}"] = value
    return (time.thread_time() - begun) / YARDSTICK_ROUNDS * 1e6


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readings", type=int, default=READINGS_DEFAULT)
    parser.add_argument("--runs", type=int, default=1, help="the median of so many is told")
    parser.add_argument("--profile", action="store_true", help="and where the time goes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--strict", action="store_true", help="exit 1 over the target")
    args = parser.parse_args()
    runs = sorted((run(args.readings) for _ in range(args.runs)), key=lambda one: one[0].us)
    ours, naive, held = runs[len(runs) // 2]
    result = describe(ours, naive, held, [one.us for one, _naive, _held in runs])
    if args.json:
        print(json.dumps(result))
    else:
        where = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        python = f"Python {platform.python_version()}"
        print(f"{where}, {python}, {iso(SystemClock().now_ms())}")
        for key, value in result.items():
            print(f"  {key:34} {value}")
        print(f"  target {TARGET_US:.0f} us, aim {AIM_US:.0f} us")
    if args.profile:
        print(profile_text())
    lost = [one for one in runs if one[2] != one[0].readings]
    if lost:
        print(f"billing holds {lost[0][2]} of {lost[0][0].readings} readings", file=sys.stderr)
        return 1
    return 1 if args.strict and ours.us > TARGET_US else 0


if __name__ == "__main__":
    sys.exit(main())
