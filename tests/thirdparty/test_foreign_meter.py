"""A meter that nobody here wrote: the `dlt645` package as server, over TCP and over a pty.

Its known faults are worked around here, not in the product: the address of a reply goes out in
the order it came in (an address that reads the same both ways hides that), it answers for foreign
addresses, and it knows no blocks and no freezes.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from dlt645 import MeterServerService

from headend.config import load_config
from headend.daemon import run_daemon
from headend.domain.clock import SystemClock, iso
from headend.journal import JournalReader
from tests.support.pty_pair import PtyPair

ADDRESS = "112233332211"
TRUTH = {
    "active_import_total": ("00010000", "12345.67"),
    "active_export_total": ("00020000", "89.01"),
    "voltage_a": ("02010100", "230.1"),
    "active_power_total": ("02030000", "1.2345"),
    "power_factor_total": ("02060000", "0.987"),
}


def load(service: MeterServerService) -> None:
    service.set_address(ADDRESS)
    for di, value in TRUTH.values():
        number = int(di, 16)
        put = service.set_00 if di.startswith("00") else service.set_02
        assert put(number, float(value)), di


@pytest.fixture
def over_tcp() -> Iterator[str]:
    service = MeterServerService.new_tcp_server("127.0.0.1", 0, 5.0)
    load(service)
    assert service.start()
    try:
        yield f"tcp://127.0.0.1:{service.server.port}?baud=9600"
    finally:
        service.stop()


@pytest.fixture
def over_pty(tmp_path: Path) -> Iterator[str]:
    with PtyPair(tmp_path) as pair:
        service = MeterServerService.new_rtu_server(str(pair.far), 8, 1, 9600, "N", 1.0)
        load(service)
        assert service.start()
        try:
            yield f"serial://{pair.near}?baud=9600&parity=none"
        finally:
            service.stop()


@pytest.fixture(params=["tcp", "pty"])
def link(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"over_{request.param}")


def test_headend_read_reads_every_point_of_a_foreign_meter(link: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headend.cli.main", "read", "--json", "--link", link,
         "--protocol", "dlt645-2007", "--address", ADDRESS, *TRUTH],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read = {line["point"]: line["value"] for line in map(json.loads, done.stdout.splitlines())}
    assert read == {point: value for point, (_di, value) in TRUTH.items()}


async def test_daemon_polls_a_foreign_meter(link: str, tmp_path: Path) -> None:
    until = iso(SystemClock().now_ms() + 3_600_000)
    file = tmp_path / "headend.yaml"
    file.write_text(
        "headend: {name: he1, zone: Asia/Shanghai, data: data}\n"
        f'buses: {{b: {{link: "{link}"}}}}\n'
        "meters:\n"
        "  - {id: M-1, service_point: SP-1, bus: b, protocol: dlt645-2007, "
        f'address: "{ADDRESS}", plan: p}}\n'
        f'plans: {{p: {{until: "{until}", '
        f"every: [{{seconds: 2, points: [{', '.join(TRUTH)}]}}]}}}}\n"
    )
    config = load_config(file)
    stop = asyncio.Event()
    up = asyncio.Event()
    task = asyncio.create_task(run_daemon(config, stop=stop, ready=up.set))
    try:
        async with asyncio.timeout(30):
            await up.wait()
            while True:
                with JournalReader(config.journal_path) as reader:
                    rows = [r for r in reader.readings(meter="M-1") if r.verdict == "ok"]
                newest = {row.point: Decimal(row.value or "nan") for row in rows}
                if set(newest) == set(TRUTH):
                    break
                await asyncio.sleep(0.1)
    finally:
        stop.set()
        await task
    assert newest == {point: Decimal(value) for point, (_di, value) in TRUTH.items()}
