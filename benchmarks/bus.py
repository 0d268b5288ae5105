"""How close one process drives many buses to what the wire allows.

    python benchmarks/bus.py [--buses 64] [--reads 100] [--json]

Every bus is a pseudo terminal with one simulated DL/T 645 meter at 2400 8E1 that thinks for 100 ms;
the meters run in processes of their own, byte by byte at wire speed (see bus_meters.py). For each
read: the time from sending its request to sending the next one, over what it needs at least
(request on the wire + meter's delay + reply on the wire + configured gap). All buses begin at the
same time, so their bytes come in step: the hardest case. The processor time counts everything this
process does: port, bus, framing, checking of the values.

Exit 1 when a value is wrong or missing, or, with --strict, when a target is missed.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import resource
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from statistics import median

from bus_meters import CHARACTER_BITS, DI, register

from headend.bus import Bus, BusRequest, BusSettings
from headend.domain.clock import SystemClock, iso
from headend.domain.errors import BusError
from headend.domain.link import SerialSpec
from headend.supervisor import Supervisor
from headend.transport import Link, Receiver, make_link
from protocols.dlt645.catalogue import lookup
from protocols.dlt645.frame import DELIMITER, WAKE_UP
from protocols.dlt645.items import decode
from protocols.dlt645.master import match, read_request, reply_length, reply_payload

BAUD = 2400
METER_DELAY_MS = 100.0
GAP_MS = 30.0
WAKE_UP_BYTES = 4
MEDIAN_TARGET, P99_TARGET = 1.03, 1.10


class StampedLink:
    """A link that notes when each request was sent."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.name = link.name
        self.char_s = link.char_s
        self.sent_at: list[float] = []

    @property
    def parity_seen(self) -> bool:
        """As the link says."""
        return self._link.parity_seen

    async def open(self, receiver: Receiver) -> None:
        """As the link does."""
        await self._link.open(receiver)

    def write(self, data: bytes) -> None:
        """Note the time and send."""
        self.sent_at.append(asyncio.get_running_loop().time())
        self._link.write(data)

    async def close(self) -> None:
        """As the link does."""
        await self._link.close()


@dataclass
class Line:
    """One bus under measurement."""

    address: str
    link: StampedLink
    bus: Bus
    values: list[Decimal] = field(default_factory=list)
    errors: int = 0

    async def work(self, reads: int) -> None:
        """Read until `reads` are done; twice at once on a bus, so that one is always waiting."""
        request = read_request(self.address, DI)
        item = lookup(DI)
        assert item is not None
        bus_request = BusRequest(
            device=self.address,
            payload=WAKE_UP * WAKE_UP_BYTES + request.raw,
            delimiter=DELIMITER,
            match=lambda raw: match(request, raw),
            reply_bytes=reply_length(DI),
        )
        for _ in range(reads):
            try:
                exchange = await self.bus.exchange(bus_request)
            except BusError as error:
                self.errors += 1
                print(f"{self.address}: {error}", file=sys.stderr)
                continue
            assert exchange.reply is not None
            value = decode(item, reply_payload(request, exchange.reply))[0]
            assert isinstance(value, Decimal)
            self.values.append(value)


@dataclass(frozen=True)
class Result:
    """What came out of one run."""

    buses: int
    reads: int
    wanted_s: float
    ratios: list[float]
    cpu_s: float
    elapsed_s: float
    right: int

    def share(self, part: float) -> float:
        """The ratio that `part` (0..1) of the reads do not exceed."""
        ordered = sorted(self.ratios)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def start_meters(stack: ExitStack, buses: int, processes: int) -> list[tuple[str, str]]:
    """Start the meter processes; address and path of every meter."""
    script = str(Path(__file__).with_name("bus_meters.py"))
    ends: list[tuple[str, str]] = []
    share = -(-buses // processes)
    for first in range(0, buses, share):
        count = min(share, buses - first)
        command = [sys.executable, script, str(first + 1), str(count), str(BAUD)]
        child = stack.enter_context(
            subprocess.Popen(
                [*command, str(METER_DELAY_MS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        )
        # Leaving the stack closes its standard input, which ends it, and then waits for it.
        assert child.stdin is not None
        stack.callback(child.stdin.close)
        assert child.stdout is not None
        ends += [(address, path) for address, path in json.loads(child.stdout.readline())]
    return ends


async def measure(ends: list[tuple[str, str]], reads: int) -> Result:
    """Drive all buses in this one process until each has done its reads."""
    clock = SystemClock()
    lines = []
    for address, path in ends:
        link = StampedLink(make_link(SerialSpec(path, baud=BAUD, parity="even")))
        bus = Bus(address, link, BusSettings(gap_ms=GAP_MS), clock=clock, observer=lambda _e: None)
        lines.append(Line(address, link, bus))
    gc.collect()
    loop = asyncio.get_running_loop()
    async with Supervisor() as supervisor:
        for line in lines:
            supervisor.start(line.address, line.bus.run)
        usage, began = resource.getrusage(resource.RUSAGE_SELF), loop.time()
        async with asyncio.TaskGroup() as group:
            for line in lines:
                # one read more than is measured: its sending ends the last interval
                group.create_task(line.work(reads // 2 + 1))
                group.create_task(line.work(reads - reads // 2))
        elapsed_s = loop.time() - began
        after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    char_s = CHARACTER_BITS / BAUD
    request_bytes = WAKE_UP_BYTES + len(read_request(ends[0][0], DI).raw)
    reply_bytes = WAKE_UP_BYTES + reply_length(DI)
    wanted_s = (request_bytes + reply_bytes) * char_s + (METER_DELAY_MS + GAP_MS) / 1000
    ratios = [
        (after_s - sent_s) / wanted_s
        for line in lines
        for sent_s, after_s in zip(line.link.sent_at, line.link.sent_at[1:], strict=False)
    ]
    right = sum(
        sorted(line.values) == [register(line.address, n + 1) for n in range(reads + 1)]
        for line in lines
    )
    return Result(len(lines), reads, wanted_s, ratios, cpu_s, elapsed_s, right)


def machine() -> str:
    """The machine in a few words."""
    model = next(
        (
            text.split(":", 1)[1].strip()
            for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if text.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} cores {model}, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def report(result: Result, *, as_json: bool) -> bool:
    """Print the result; whether the targets are met."""
    mid, p99, worst = median(result.ratios), result.share(0.99), max(result.ratios)
    met = mid <= MEDIAN_TARGET and p99 <= P99_TARGET
    done = len(result.ratios)
    per_read_us = result.cpu_s / (done + result.buses) * 1e6
    when = iso(SystemClock().now_ms())
    if as_json:
        facts = {
            "schema": "benchmark-bus/1",
            "time": when,
            "machine": machine(),
            "buses": result.buses,
            "reads": done,
            "wanted_ms": round(result.wanted_s * 1000, 2),
            "median": round(mid, 4),
            "p99": round(p99, 4),
            "max": round(worst, 4),
            "cpu_per_read_us": round(per_read_us, 1),
            "buses_right": result.right,
            "targets_met": met,
        }
        print(json.dumps(facts))
        return met
    cpu_share = result.cpu_s / result.elapsed_s
    print(f"bus benchmark {when}, {machine()}")
    print(
        f"{result.buses} buses x {result.reads} reads, {BAUD} 8E1 on pseudo terminals, "
        f"one process, {result.elapsed_s:.1f} s"
    )
    print(
        f"needed at least {result.wanted_s * 1000:.1f} ms a read: request and reply on the wire, "
        f"meter {METER_DELAY_MS:.0f} ms, gap {GAP_MS:.0f} ms"
    )
    print(
        f"time per read / that: median {mid:.4f} (target {MEDIAN_TARGET}), "
        f"p99 {p99:.4f} (target {P99_TARGET}), max {worst:.4f}"
    )
    print(f"processor time: {per_read_us:.0f} us a read, {cpu_share:.1%} of one core")
    print(f"buses with every value right: {result.right} of {result.buses}")
    print("targets met" if met else "TARGETS MISSED")
    return met


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--buses", type=int, default=64)
    parser.add_argument("--reads", type=int, default=100, help="measured reads on each bus")
    parser.add_argument("--processes", type=int, default=4, help="of simulated meters")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--json", action="store_true", help="one JSON line")
    options = parser.parse_args()
    with ExitStack() as stack:
        ends = start_meters(stack, options.buses, min(options.processes, options.buses))
        result = asyncio.run(measure(ends, options.reads))
    met = report(result, as_json=options.json)
    return 0 if result.right == result.buses and (met or not options.strict) else 1


if __name__ == "__main__":
    sys.exit(main())
