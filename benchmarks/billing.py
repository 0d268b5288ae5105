"""Readings a second into billing's inbox, on a file of SQLite's and on PostgreSQL, in one run.

    python benchmarks/billing.py [--readings 50000] [--runs 3] [--json]

`Store.take` alone: messages of the feed as bytes in, committed rows out (SQLite synchronous=FULL,
PostgreSQL 127.0.0.1 with fsync and synchronous_commit on), each reading with its exchange as
evidence. `bulk` are groups of full messages, as when billing catches up; `again` the same messages
a second time, all known; `trickle` one message of twenty readings a transaction. The two databases
take turns, and the median of the runs counts. The ratio holds beyond this machine, the rates do
not.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # for the tests' own PostgreSQL

from headend.billing.store import Arrived, Store
from headend.domain.clock import SystemClock, from_iso, iso
from headend.domain.identity import content_text, read_id
from headend.messages.records import Batch, ExchangeEvidence, ReadRecord, encode_batch
from tests.support.postgresql import PostgreSQL

EPOCH = "aaaaaaaa-0000-4000-8000-000000000001"
T0 = from_iso("2026-03-01T00:00:00+08:00")
METERS = 1000
MESSAGE_READINGS = 300
GROUP_MESSAGES = 32
TRICKLE_READINGS = 20
FRAME = "FEFEFEFE68010000000000681104333334333E16"


@dataclass(frozen=True)
class Load:
    """What one store is given: groups of messages."""

    bulk: list[list[Arrived]]
    trickle: list[list[Arrived]]
    readings: int
    trickled: int


def record(seq: int) -> ReadRecord:
    """A reading that no other is like."""
    meter, value = f"M-{seq % METERS:04d}", f"{seq}.25"
    time_ms = T0 + seq // METERS * 900_000
    content = content_text(Decimal(value), "kWh", "actual", "ok", Decimal(1), "secondary")
    return ReadRecord(
        seq=seq,
        read_id=read_id(meter, "active_import_total", time_ms, None, 1, content),
        meter=meter,
        service_point=f"SP-{seq % METERS:04d}",
        point="active_import_total",
        obis="1.8.0",
        value=value,
        unit="kWh",
        time=iso(time_ms),
        interval_s=None,
        received_at=iso(time_ms + 1500),
        due_at=iso(time_ms),
        status="actual",
        verdict="ok",
        flags=[],
        revision=1,
        late=False,
        multiplier="1",
        side="secondary",
        evidence=f"x{seq}",
    )


def exchange(seq: int) -> ExchangeEvidence:
    """The frames of a reading."""
    return ExchangeEvidence(
        ref=f"x{seq}",
        request=FRAME,
        reply=FRAME + f"{seq % 10**8:08d}16",
        bus="street-a",
        received_at=iso(T0 + seq),
        attempts=1,
        software="headend bench",
    )


def messages(first: int, last: int, size: int) -> Iterator[Arrived]:
    """The stream's messages with `size` readings each."""
    for start in range(first, last + 1, size):
        end = min(start + size - 1, last)
        payload = encode_batch(
            Batch(
                headend="he1",
                epoch=EPOCH,
                consumer="billing",
                first_seq=start,
                last_seq=end,
                records=[record(seq) for seq in range(start, end + 1)],
                exchanges=[exchange(seq) for seq in range(start, end + 1)],
            )
        )
        yield Arrived("he1", "meter/v1/he1/feed/billing", payload)


def make_load(readings: int) -> Load:
    """The same for both databases."""
    full = list(messages(1, readings, MESSAGE_READINGS))
    trickled = readings // 10
    few = messages(readings + 1, readings + trickled, TRICKLE_READINGS)
    return Load(
        bulk=[full[i : i + GROUP_MESSAGES] for i in range(0, len(full), GROUP_MESSAGES)],
        trickle=[[message] for message in few],
        readings=readings,
        trickled=trickled,
    )


def rate(store: Store, groups: list[list[Arrived]], readings: int, *, new: bool) -> float:
    """Readings a second; every one is accounted for."""
    started = time.perf_counter()
    counts = [store.take(group).counts for group in groups]
    took_s = time.perf_counter() - started
    assert sum(c.new if new else c.known for c in counts) == readings
    return readings / took_s


def measure(url: str, load: Load) -> dict[str, float]:
    """The rates on an empty database."""
    store = Store(url, name="billing", clock=SystemClock(), software="bench")
    try:
        return {
            "bulk": rate(store, load.bulk, load.readings, new=True),
            "again": rate(store, load.bulk, load.readings, new=False),
            "trickle": rate(store, load.trickle, load.trickled, new=True),
        }
    finally:
        store.close()


def run(readings: int, runs: int) -> dict[str, float]:
    """Both databases in turn; medians, and PostgreSQL's share of SQLite's rate."""
    load = make_load(readings)
    found: dict[str, list[dict[str, float]]] = {"sqlite": [], "postgresql": []}
    with PostgreSQL(durable=True) as server, tempfile.TemporaryDirectory() as folder:
        for number in range(runs):
            url = f"sqlite:///{folder}/{number}.db"
            found["sqlite"].append(measure(url, load))
            found["postgresql"].append(measure(server.place().url, load))
    result = {}
    for case in ("bulk", "again", "trickle"):
        medians = {
            name: statistics.median(one[case] for one in rates) for name, rates in found.items()
        }
        for name, value in medians.items():
            result[f"{case}_{name}_per_s"] = round(value)
        result[f"{case}_ratio"] = round(medians["postgresql"] / medians["sqlite"], 2)
    return result


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readings", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = run(args.readings, args.runs)
    if args.json:
        print(json.dumps(result))
        return 0
    where = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{where}, Python {platform.python_version()}, {iso(SystemClock().now_ms())}")
    for key, value in result.items():
        print(f"  {key:28} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
