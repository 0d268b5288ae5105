"""The daemon with Modbus devices as they are: a SunSpec one, and one with another ratio."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from headend.commands import Parts
from headend.config import load_config
from headend.config.profiles import PACKAGED, load_profile
from headend.daemon import run_daemon
from headend.domain import alarms
from headend.domain.clock import SystemClock
from headend.domain.reading import Verdict
from headend.journal import JournalReader
from tests.support.register_server import RegisterServer, sunspec_words, words_of
from tests.support.waiting import eventually

CHINT = load_profile("chint_dtsu666", PACKAGED.parent)
IMPORT = "active_import_total"
SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "schemas" / "modbus_device.schema.json").read_text()
)

pytestmark = pytest.mark.timeout(180)


def configuration(folder: Path, link: str, ct: str) -> Path:
    file = folder / "headend.yaml"
    file.write_text(
        "headend: {name: he1, zone: Asia/Shanghai, data: data}\n"
        f'buses: {{gate: {{link: "{link}"}}}}\n'
        "plans:\n"
        "  roof: {every: [{seconds: 5, points: [active_power_total, frequency]}]}\n"
        f"  meter: {{every: [{{seconds: 5, points: [{IMPORT}, voltage_a]}}]}}\n"
        "meters:\n"
        "  - {id: ROOF, service_point: SP-1, bus: gate, protocol: modbus-tcp, unit: 1, "
        "profile: sunspec, plan: roof}\n"
        "  - {id: SHOP, service_point: SP-2, bus: gate, protocol: modbus-tcp, unit: 2, "
        f'profile: chint_dtsu666, ct: "{ct}", plan: meter}}\n',
        encoding="utf-8",
    )
    return file


@asynccontextmanager
async def daemon(folder: Path, link: str, ct: str) -> AsyncIterator[Parts]:
    config = load_config(configuration(folder, link, ct))
    stop, up = asyncio.Event(), asyncio.Event()
    made: list[Parts] = []
    task = asyncio.create_task(
        run_daemon(config, stop=stop, ready=up.set, clock=SystemClock(), stood_up=made.append)
    )
    try:
        async with asyncio.timeout(60):
            await up.wait()
        yield made[0]
    finally:
        stop.set()
        await task


def newest(parts: Parts, meter: str, point: str) -> Any:
    with JournalReader(parts.journal.path) as reader:
        found = list(reader.readings(meter=meter, point=point, all_revisions=True))
    return found[-1] if found else None


async def stands(parts: Parts) -> list[tuple[str, str]]:
    told = await parts.journal.meter_events(alarms.KINDS)
    return [(alarm.name, alarm.subject) for alarm in alarms.standing(told)]


async def test_a_sunspec_device_is_read_and_a_wrong_ratio_is_not_billed(tmp_path: Path) -> None:
    values = {IMPORT: Decimal(10), "voltage_a": Decimal(230)}
    chint = words_of(CHINT, ct_ratio=Decimal(40), pt_ratio=Decimal(1), **values)
    sunspec = sunspec_words(active_power_total=Decimal("1.5"), frequency=Decimal(50))
    with RegisterServer({1: sunspec, 2: chint}) as server:
        async with daemon(tmp_path, server.link, ct="60") as parts:
            power = await eventually(
                lambda: newest(parts, "ROOF", "active_power_total"), timeout_s=60, every_s=0.2
            )
            assert Decimal(power.value) == Decimal("1.5")
            await eventually(lambda: stands(parts), timeout_s=60, every_s=0.2)
            assert await stands(parts) == [("ratio_mismatch", "SHOP")]
            voltage = await eventually(
                lambda: newest(parts, "SHOP", "voltage_a"), timeout_s=60, every_s=0.2
            )
            assert (voltage.verdict, *voltage.flags) == (Verdict.SUSPECT, "ratio")
            energy = newest(parts, "SHOP", IMPORT)
            assert energy is None or energy.verdict == Verdict.HELD
        walked = [one for one in server.asked if one[0] == 1 and one[2:] == (40_000, 2)]
        assert len(walked) == 1
        # The configuration is corrected; the walk was kept.
        async with daemon(tmp_path, server.link, ct="40") as parts:
            for state in (await parts.journal.learned()).values():
                jsonschema.validate(json.loads(state.state), SCHEMA)
            assert set(await parts.journal.learned()) == {"ROOF", "SHOP"}

            async def cleared() -> bool:
                return not await stands(parts)

            await eventually(cleared, timeout_s=60, every_s=0.2)
            good = await eventually(
                lambda: (one := newest(parts, "SHOP", IMPORT)) and one.verdict == "ok" and one,
                timeout_s=60,
                every_s=0.2,
            )
            assert (Decimal(good.value), Decimal(good.multiplier)) == (10, 40)
        walked = [one for one in server.asked if one[0] == 1 and one[2:] == (40_000, 2)]
        assert len(walked) == 1
