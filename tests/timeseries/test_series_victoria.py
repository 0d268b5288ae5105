"""The 2.x client path against a real server that speaks it: VictoriaMetrics. It shows that what is
sent arrives digit by digit; it is no oracle for what survives a kill."""

from decimal import Decimal
from pathlib import Path

from headend.timeseries.target import Target
from tests.journal.journal_kit import NOON_MS, reading
from tests.support.victoria import Victoria
from tests.timeseries.series_kit import HEADEND, STEP_MS, Key, World

TOKEN = "a token"


def target_of(victoria: Victoria, folder: Path) -> Target:
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN + "\n")
    return Target(
        kind="influxdb2",
        url=victoria.url,
        org="o",
        bucket="meters",
        token_file=token,
        timeout_s=5.0,
        connect_timeout_s=1.0,
    )


def held(victoria: Victoria) -> dict[Key, Decimal]:
    """Everything it has, named as the journal does."""
    found = {}
    for (metric, *pairs), points in victoria.points().items():
        tags = dict(pair.split("=", 1) for pair in pairs)
        assert tags.pop("headend") == HEADEND
        tags.pop("db", None)
        measurement, _, field = metric.partition("_")
        for variant in ("estimated_", "rejected_"):
            if field.startswith(variant):
                measurement, field = f"{measurement}_{variant[:-1]}", field.removeprefix(variant)
        at = (tags.pop("meter"), tags.pop("service_point", ""), tags.pop("interval_s", ""))
        assert not tags
        for time_ms, value in points.items():
            found[(measurement, *at, field, time_ms)] = value
    return found


async def test_every_value_is_read_back_by_its_digits(tmp_path: Path, victoria: Victoria) -> None:
    world = World(tmp_path, target_of(victoria, tmp_path))
    async with world.running():
        await world.fill(30)
        await world.append(
            reading("99999999.99", meter="M,9 =1"),
            reading("0.25", point="active_import_interval", interval_s=900, meter="M-9"),
            reading("-12.3456", point="active_power_total", unit="kW", meter="M-9"),
        )
        await world.written()
        assert world.dead_letters() == []
        assert held(victoria) == world.expected()


async def test_absent_and_stopped_in_between_it_gets_everything(tmp_path: Path) -> None:
    victoria = Victoria(tmp_path / "victoria")
    world = World(tmp_path, target_of(victoria, tmp_path))
    async with world.running():
        await world.fill(10)
        assert "no connection" in (await world.says("retrying"))["message"]
        victoria.start()
        try:
            await world.written()
            victoria.pause()
            await world.fill(10, first=10)
            victoria.go_on()
            await world.written()
            victoria.stop()
            await world.append(reading("5.5", time_ms=NOON_MS + 30 * STEP_MS))
            await world.says("retrying")
            victoria.start()
            await world.written()
            assert held(victoria) == world.expected()
        finally:
            victoria.stop()


async def test_a_token_that_is_refused_is_alarmed(tmp_path: Path) -> None:
    with Victoria(tmp_path / "victoria", user="u", password="p") as victoria:
        world = World(tmp_path, target_of(victoria, tmp_path))
        async with world.running():
            await world.fill(1)
            report = await world.says("stopped")
            assert "access refused (answer 401)" in report["message"]
            assert TOKEN not in str(report)
            (alarm,) = await world.alarms(1)
            assert alarm.fields["alarm"] == "timeseries_stopped"
