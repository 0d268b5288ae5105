"""Requests a second, and what one costs, from a Modbus TCP device of libmodbus in C.

    python benchmarks/modbus.py [--requests 4000] [--runs 9] [--json]

Three masters read 80 registers, and 2, over one connection and over 32, one request in flight on
each, in turn in every run of this one process (libmodbus in a process of its own, a thread a
connection): all on the same machine at the same time, against the same server.

    ours       what a device's session does for a request: bus, time-out, framing, and every check
               (transaction, protocol, length, unit, function, byte count); the record of the
               exchange is made. The bus's gap and the device's turnaround are 0
    pymodbus   its asynchronous client; its answers are not held against the question (a reply with
               fewer registers, or of another unit, passes); on the same event loop
    libmodbus  in C, blocking

A fourth row, `session`, is ours from points to values: 40 counters of a profile become exact
decimals with their exchange (80 registers), or one (2 registers); nothing else does that.

The ratio is the median over the runs of ours to pymodbus of the same run. Exit 1 when a register is
wrong or, with --strict, when a goal is missed: 80 registers 1.5 times as many requests a second on
32 connections and 1.2 times on one, 2 registers not fewer.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

# This file has the name of a package of ours beside it, and tests are beside the folder.
sys.path[:] = [path for path in sys.path if Path(path) != Path(__file__).parent]
sys.path.insert(0, str(Path(__file__).parents[1]))

from pymodbus.client import AsyncModbusTcpClient

from headend.bus import Bus, BusSettings, Priority
from headend.config import parse_link
from headend.domain.clock import SystemClock
from headend.drivers import ModbusSession, transaction_ids
from headend.drivers.modbus_ask import Asker, Talk
from headend.transport import make_link
from protocols.modbus.profile import DeviceProfile, profile_from
from protocols.modbus.register import Span
from tests.support.libmodbus import build, served_tcp

UNIT = 1
WORDS = (80, 2)
CONNECTIONS = (1, 32)
MASTERS = ("ours", "pymodbus", "libmodbus", "session")
SETTINGS = BusSettings(gap_ms=0)
GOALS = {(80, 32): 1.5, (80, 1): 1.2, (2, 32): 1.0, (2, 1): 1.0}
ATTEMPTS = 3

Ask = Callable[[int], Awaitable[None]]  # one request on a connection, its answer checked


@dataclass
class Run:
    """What one master did in one run."""

    requests: int
    seconds: float
    cpu_s: float


@dataclass
class Place:
    """Every run of one number of registers on one number of connections."""

    words: int
    connections: int
    runs: dict[str, list[Run]] = field(default_factory=lambda: {name: [] for name in MASTERS})

    def rate(self, master: str) -> float:
        """Requests a second."""
        return median(run.requests / run.seconds for run in self.runs[master])

    def cpu_us(self, master: str) -> float:
        """Processor time of the master a request."""
        return median(1e6 * run.cpu_s / run.requests for run in self.runs[master])

    def ratio(self, one: str, other: str) -> float:
        """Of the rates in the same run."""
        pairs = zip(self.runs[one], self.runs[other], strict=True)
        return median((a.requests / a.seconds) / (b.requests / b.seconds) for a, b in pairs)

    @property
    def goal(self) -> float:
        """The least ratio of ours to pymodbus."""
        return GOALS[self.words, self.connections]


class Wrong(Exception):
    """An answer that is not what the server holds."""


def points_of(words: int) -> list[str]:
    """A point for every two registers."""
    return [f"active_import_t{1 + n}" for n in range(words // 2)]


def profile_of(words: int) -> DeviceProfile:
    """So many registers as counters of one request, two registers each."""
    rows = [
        {"point": point, "address": 2 * n, "type": "uint32", "unit": "kWh", "scale": "0.01"}
        for n, point in enumerate(points_of(words))
    ]
    return profile_from(
        {
            "id": "bench",
            "device": "registers of a benchmark",
            "kind": "meter",
            "function": 4,
            "gaps": "ok",
            "turnaround_ms": 0,
            "registers": rows,
        },
        name="bench",
    )


@asynccontextmanager
async def our_buses(port: int, count: int) -> AsyncIterator[list[Bus]]:
    """So many connections, each the bus of one."""
    clock, told = SystemClock(), parse_link(f"modbus-tcp://127.0.0.1:{port}")
    buses = [
        Bus(f"b{n}", make_link(told), SETTINGS, clock=clock, observer=lambda _exchange: None)
        for n in range(count)
    ]
    tasks = [asyncio.ensure_future(bus.run()) for bus in buses]
    try:
        yield buses
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def ours(port: int, count: int, words: int) -> AsyncIterator[Ask]:
    """What a session asks with, registers as they come."""
    span, wanted, clock = Span(4, 0, words), tuple(range(words)), SystemClock()
    async with our_buses(port, count) as buses:
        askers = [
            Asker(bus, UNIT, clock=clock, quiet_s=0.0, timeout_s=None,
                  transactions=transaction_ids())
            for bus in buses
        ]  # fmt: skip

        async def ask(connection: int) -> None:
            talk = Talk(Priority.DUE, None, ATTEMPTS)
            if await askers[connection].ask(span, talk, []) != wanted:
                raise Wrong

        yield ask


@asynccontextmanager
async def sessions(port: int, count: int, words: int) -> AsyncIterator[Ask]:
    """Whole sessions, values of a profile."""
    profile, clock = profile_of(words), SystemClock()
    points = points_of(words)
    wanted = [Decimal(2 * n << 16 | 2 * n + 1) / 100 for n in range(len(points))]
    async with our_buses(port, count) as buses:
        made = [
            ModbusSession(bus, UNIT, profile, tcp=True, clock=clock, transactions=transaction_ids())
            for bus in buses
        ]

        async def ask(connection: int) -> None:
            if [result.value for result in await made[connection].read(points)] != wanted:
                raise Wrong

        yield ask


@asynccontextmanager
async def pymodbus(port: int, count: int, words: int) -> AsyncIterator[Ask]:
    """Its client, registers as they come."""
    wanted = list(range(words))
    clients = [AsyncModbusTcpClient("127.0.0.1", port=port) for _ in range(count)]
    for client in clients:
        await client.connect()

    async def ask(connection: int) -> None:
        reply = await clients[connection].read_input_registers(0, count=words, device_id=UNIT)
        if reply.registers != wanted:
            raise Wrong

    try:
        yield ask
    finally:
        for client in clients:
            client.close()


LOOPS = {"ours": ours, "pymodbus": pymodbus, "session": sessions}


def timed(master: str, port: int, connections: int, words: int, requests: int) -> Run:
    """One run of one of the masters on asyncio."""

    async def main() -> Run:
        async with LOOPS[master](port, connections, words) as ask:
            each = requests // connections

            async def one(connection: int, count: int) -> None:
                for _ in range(count):
                    await ask(connection)

            async def side_by_side(count: int) -> None:
                await asyncio.gather(*(one(n, count) for n in range(connections)))

            await side_by_side(2)  # connected, and every path taken once
            gc.collect()
            started, cpu = time.perf_counter(), time.process_time()
            await side_by_side(each)
            seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
            return Run(each * connections, seconds, cpu_s)

    return asyncio.run(main())


def timed_c(client: Path, port: int, connections: int, words: int, requests: int) -> Run:
    """One run of libmodbus."""
    each = requests // connections
    command = [str(client), *map(str, (port, connections, each, words))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Wrong(done.stderr)
    seconds, cpu_s = map(float, done.stdout.split())
    return Run(each * connections, seconds, cpu_s)


def measure(requests: int, runs: int) -> list[Place]:
    """All masters take turns in each run, so that a busy machine is busy for everybody."""
    places = [Place(words, count) for words in WORDS for count in CONNECTIONS]
    with tempfile.TemporaryDirectory() as folder:
        server, client = build("server", Path(folder)), build("client", Path(folder))
        with served_tcp(server, {}) as port:
            for run in range(runs):
                for place in places:
                    told = (port, place.connections, place.words, requests)
                    turn = run % len(MASTERS)
                    for master in MASTERS[turn:] + MASTERS[:turn]:
                        found = (
                            timed_c(client, *told)
                            if master == "libmodbus"
                            else timed(master, *told)
                        )
                        place.runs[master].append(found)
    return places


def to_json(place: Place) -> Mapping[str, Any]:
    """For programs."""
    return {
        "registers": place.words,
        "connections": place.connections,
        "requests_per_s": {name: round(place.rate(name)) for name in MASTERS},
        "cpu_us": {name: round(place.cpu_us(name), 1) for name in MASTERS},
        "ratio_to_pymodbus": round(place.ratio("ours", "pymodbus"), 2),
        "goal": place.goal,
        "ratio_of_session": round(place.ratio("session", "pymodbus"), 2),
        "libmodbus_to_pymodbus": round(place.ratio("libmodbus", "pymodbus"), 2),
    }


def text_of(place: Place) -> str:
    """For people."""
    each = ", ".join(
        f"{name} {place.rate(name):,.0f}/s {place.cpu_us(name):.1f} us" for name in MASTERS
    )
    ratio = place.ratio("ours", "pymodbus")
    told = "" if ratio >= place.goal else "  SHORT"
    return (
        f"{place.words} registers, {place.connections} connections: {each}; ours to pymodbus "
        f"{ratio:.2f} (goal {place.goal}){told}, with decoding "
        f"{place.ratio('session', 'pymodbus'):.2f}, libmodbus "
        f"{place.ratio('libmodbus', 'pymodbus'):.2f}"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=4000, help="of each master in a run")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a goal is missed")
    args = parser.parse_args()
    places = measure(args.requests, args.runs)
    if args.json:
        for place in places:
            print(json.dumps(to_json(place)))
    else:
        print(
            f"{os.cpu_count()} cores, {platform.python_implementation()} "
            f"{platform.python_version()}, median of {args.runs} runs of {args.requests} requests"
        )
        for place in places:
            print(text_of(place))
    missed = any(place.ratio("ours", "pymodbus") < place.goal for place in places)
    return 1 if args.strict and missed else 0


if __name__ == "__main__":
    sys.exit(main())
