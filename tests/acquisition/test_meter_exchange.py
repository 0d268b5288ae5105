"""A declared exchange moves what the new meter already said, and billing counts across it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from headend.billing.views import BillingView
from headend.config import Config, load_config
from headend.daemon import run_daemon
from headend.domain.clock import SystemClock, iso
from headend.journal import JournalReader
from simulators.energy import Timeline
from simulators.meter645 import Meter645, MeterSettings
from simulators.meterbus import MeterBus
from simulators.models import make_meter
from simulators.serve import TcpServer
from tests.support.mosquitto import Mosquitto

ADDRESS = "202600000017"
IMPORT, EXPORT = "active_import_total", "active_export_total"
WAIT_S = 40.0


def device(seed: int) -> Meter645:
    """A meter whose registers stand still at what the seed gave it."""
    clock = SystemClock()
    timeline = Timeline(clock.now_ms() - 86_400_000)
    timeline.switch_off(clock.now_ms())
    return make_meter(
        "pv", MeterSettings(ADDRESS, reply_delay_ms=1, seed=seed), timeline=timeline,
        clock=clock.now_ms,
    )  # fmt: skip


def shown(meter: Meter645) -> dict[str, Decimal]:
    truth = meter.truth(SystemClock().now_ms())
    return {point: truth[point].shown for point in (IMPORT, EXPORT)}


def configured(folder: Path, link: str, broker: str) -> Config:
    file = folder / "headend.yaml"
    file.write_text(
        "headend: {name: he1, zone: Asia/Shanghai, data: data}\n"
        f'buses: {{b: {{link: "{link}", gap_ms: 0, allow_overload: true}}}}\n'
        "meters: [{id: M-OLD, service_point: SP-1, bus: b, protocol: dlt645-2007, "
        f'address: "{ADDRESS}", plan: p, capacity_kw: "13.2"}}]\n'
        f"plans: {{p: {{every: [{{seconds: 1, points: [{IMPORT}, {EXPORT}]}}]}}}}\n"
        f'feed: {{broker: "{broker}", '
        "consumers: [{name: billing, classes: [billing, events]}]}\n"
        'billing: {database: "sqlite:///data/billing.db", name: billing, headends: [he1]}\n'
    )
    return load_config(file)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[None]:
    """The daemon here, billing in a process of its own."""
    stop, up = asyncio.Event(), asyncio.Event()
    daemon = asyncio.create_task(run_daemon(config, stop=stop, ready=up.set))

    billing = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headend.cli.main", "billing", "run", "--config", str(config.path),
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await asyncio.wait_for(up.wait(), WAIT_S)
        yield
    finally:
        billing.terminate()
        await billing.wait()
        stop.set()
        await daemon


async def command(*arguments: str, code: int = 0) -> str:
    """What a `headend` command says; it must end with `code`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headend.cli.main", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == code, out.decode()
    return out.decode()


async def until(condition) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


def count(config: Config, meter: str, **match: str) -> int:
    with JournalReader(config.journal_path) as reader:
        return sum(
            all(getattr(row, key) == value for key, value in match.items())
            for row in reader.readings(meter=meter)
        )


@pytest.mark.timeout(150)
async def test_exchange_declared_afterwards_withdraws_and_bears_again_and_billing_counts_across(
    tmp_path: Path,
) -> None:
    old, new = device(1), device(2)
    old_final, new_first = shown(old), shown(new)
    bus = MeterBus([old])
    server = TcpServer(bus)
    await server.start()
    folder = tmp_path / "broker"
    folder.mkdir()
    with Mosquitto(folder) as broker:
        config = configured(tmp_path, server.where, broker.url)
        async with running(config):
            await until(lambda: config.journal_path.exists() and count(config, "M-OLD") >= 4)
            bus.remove(old)
            at_ms = SystemClock().now_ms()
            bus.add(new)
            # the new meter's registers are not the old one's: held, unpublished, alarmed
            await until(lambda: count(config, "M-OLD", verdict="held") >= 2)
            refused = await command(
                "meter", "exchange", "--config", str(config.path), "--old", "M-OLD", "--new",
                "M-NEW", "--at", iso(at_ms), "--old-final", f"{IMPORT}={old_final[IMPORT]}",
                "--new-initial", f"{IMPORT}={new_first[IMPORT]}", "--reason", "test", code=2,
            )  # fmt: skip
            assert f"old_final lacks {EXPORT}" in refused
            said = await command(
                "meter", "exchange", "--config", str(config.path), "--old", "M-OLD", "--new",
                "M-NEW", "--at", iso(at_ms), "--old-final", f"{IMPORT}={old_final[IMPORT]}",
                "--old-final", f"{EXPORT}={old_final[EXPORT]}",
                "--new-initial", f"{IMPORT}={new_first[IMPORT]}",
                "--new-initial", f"{EXPORT}={new_first[EXPORT]}", "--reason", "test",
            )  # fmt: skip
            assert "M-OLD -> M-NEW at SP-1" in said
            await until(lambda: count(config, "M-NEW", verdict="ok") >= 4)
            # what the old meter seemed to say afterwards has lost its value
            with JournalReader(config.journal_path) as reader:
                later = list(reader.readings(meter="M-OLD", from_ms=at_ms))
                due = reader.due_lines(reader.due_days()[-1])
            assert later
            assert {(r.status, r.value, "withdrawn" in r.flags) for r in later} == {
                ("null", None, True)
            }
            meters_due = {line.key.meter for line in due if line.key.due_ms >= at_ms}
            assert meters_due == {"M-NEW"}

            url = config.billing_database_url
            assert url is not None

            def billed() -> bool:
                with BillingView(url) as view:
                    point = view.service_point("SP-1")
                    found = [point.span(direction) for direction in ("import", "export")]
                return [d.energy for d in found] == [Decimal("0.00")] * 2 and all(
                    len(d.parts) == 2 for d in found
                )

            await until(billed)
        # after a restart the file still names the old meter; the event holds
        async with running(config):
            before = count(config, "M-NEW", verdict="ok")
            await until(lambda: count(config, "M-NEW", verdict="ok") > before)
    await server.close()
