"""The daemon polls a meter that nobody here wrote: the `dlt645` package, over TCP and a pty."""

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from headend.config import load_config
from headend.daemon import run_daemon
from headend.domain.clock import SystemClock, iso
from headend.journal import JournalReader
from tests.support.third_party_meter import third_party_meter

ADDRESS = "202401150007"
TRUTH = {
    "active_import_total": "12345.67",
    "active_export_total": "0.26",
    "voltage_a": "229.4",
    "active_power_total": "0.2831",
}


@pytest.mark.parametrize("kind", ["tcp", "pty"])
async def test_daemon_polls_a_foreign_meter(kind: str, tmp_path: Path) -> None:
    with third_party_meter(kind, ADDRESS) as link:
        newest = await polled(link, tmp_path)
    assert newest == {point: Decimal(value) for point, value in TRUTH.items()}


async def polled(link: str, tmp_path: Path) -> dict[str, Decimal]:
    until = iso(SystemClock().now_ms() + 3_600_000)
    file = tmp_path / "headend.yaml"
    file.write_text(
        "headend: {name: he1, zone: Asia/Shanghai, data: data}\n"
        f'buses: {{b: {{link: "{link}", allow_overload: true}}}}\n'
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
    return newest
