"""Retention drops old days of a class, and never what a consumer still waits for."""

from pathlib import Path
from zoneinfo import ZoneInfo

from headend.journal import JournalReader
from headend.journal.retention import Retention
from tests.acquisition.bench_meter import bench

DAY_MS = 86_400_000


async def test_telemetry_goes_after_its_days_and_billing_stays(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.read(("active_import_total", "voltage_a"))
        retention = Retention(
            made.journal,
            zone=ZoneInfo("Asia/Shanghai"),
            clock=made.clock,
            billing_days=400,
            telemetry_days=30,
        )
        made.clock.ahead_ms += 29 * DAY_MS
        await made.journal.receipt("billing", 2)
        await retention.look()
        assert points(made.journal.path) == {"active_import_total", "voltage_a"}
        made.clock.ahead_ms += 3 * DAY_MS
        await retention.look()
        assert points(made.journal.path) == {"active_import_total"}


async def test_what_a_consumer_has_not_receipted_is_kept(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.read(("voltage_a",))
        retention = Retention(
            made.journal,
            zone=ZoneInfo("Asia/Shanghai"),
            clock=made.clock,
            billing_days=400,
            telemetry_days=1,
        )
        made.clock.ahead_ms += 5 * DAY_MS
        await retention.look()
        assert points(made.journal.path) == {"voltage_a"}


def points(path: Path) -> set[str]:
    with JournalReader(path) as reader:
        return {row.point for row in reader.readings()}
