"""The daemon closes what it missed, and fetches a stretch when somebody asks for it."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest

from headend.config import load_config
from headend.daemon import run_daemon
from headend.domain.clock import SystemClock, iso
from headend.domain.due import DueState, day_bounds_ms, local_day
from headend.journal import Journal, JournalReader, JournalSettings
from simulators.meter645 import Gap, KeptSettings, Meter645, MeterClock, MeterSettings
from simulators.meterbus import MeterBus
from simulators.serve import TcpServer
from tests.acquisition.fill_bench import DAY_MS, EXPORT, IMPORT, QUARTER_MS, ZONE, Steady

ADDRESS = "000000000001"
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "backfill.schema.json"
WAIT_S = 60.0

pytestmark = pytest.mark.timeout(150)


class World:
    """A meter with days behind it, and a head-end that was away for them."""

    def __init__(self, folder: Path) -> None:
        self.clock = SystemClock()
        self.now_ms = self.clock.now_ms()
        self.today_ms = day_bounds_ms(local_day(self.now_ms, ZONE), ZONE)[0]
        self.slept = (self.today_ms - DAY_MS + 3_600_000, self.today_ms - DAY_MS + 7_200_000)
        self.device = Meter645(
            MeterSettings(ADDRESS, reply_delay_ms=1, kept=KeptSettings(gaps=(Gap(*self.slept),))),
            Steady(self.today_ms - 4 * DAY_MS),
            clock=self.clock.now_ms,
            meter_clock=MeterClock(480),
        )
        self.server = TcpServer(MeterBus([self.device]))
        self.file = folder / "headend.yaml"

    def write(self, *, load_records: bool, daily: bool = True) -> None:
        where = f"tcp://127.0.0.1:{self.server.port}"
        wanted = f"{{load_records: {str(load_records).lower()}, daily: {str(daily).lower()}}}"
        self.file.write_text(
            "headend: {name: he1, zone: Asia/Shanghai, data: data}\n"
            f'buses: {{a: {{link: "{where}", gap_ms: 0, timeout_ms: 20000}}}}\n'
            "meters: [{id: M-1, service_point: SP-1, bus: a, protocol: dlt645-2007, "
            f'address: "{ADDRESS}", plan: p}}]\n'
            f"plans: {{p: {{daily: {{points: [{IMPORT}, {EXPORT}], tolerance_s: 60}}, "
            f"every: [{{minutes: 15, points: [{IMPORT}, {EXPORT}], tolerance_s: 30}}], "
            f'backfill: {wanted}, until: "{iso(self.today_ms)}"}}}}\n'
        )

    async def was_there(self, days: int) -> None:
        """A head-end that last ran so many days ago."""
        config = load_config(self.file)
        config.data_path.mkdir()
        settings = JournalSettings(zone=ZONE)
        journal = await Journal.open(
            config.journal_path, clock=self.clock, software="t", consumers=[], settings=settings
        )
        async with journal:
            day = local_day(self.now_ms, ZONE) - timedelta(days=days + 1)
            await journal.freeze_due(day, [])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop, up = asyncio.Event(), asyncio.Event()
        daemon = asyncio.create_task(run_daemon(load_config(self.file), stop=stop, ready=up.set))
        try:
            async with asyncio.timeout(WAIT_S):
                await up.wait()
            yield
        finally:
            stop.set()
            await daemon

    def states(self) -> Counter[DueState]:
        with JournalReader(load_config(self.file).journal_path) as reader:
            return Counter(
                line.state for day in reader.due_days() for line in reader.due_lines(day)
            )

    def in_hole(self) -> int:
        """Due instants the meter slept through."""
        return len(range(-(-self.slept[0] // QUARTER_MS) * QUARTER_MS, self.slept[1], QUARTER_MS))

    async def command(self, *more: str) -> tuple[int, list[dict], str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headend.cli.main", "backfill", "--config", str(self.file),
            "--meter", "M-1", *more, stdout=PIPE, stderr=PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, [json.loads(ln) for ln in out.splitlines()], err.decode()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.server.start()
    try:
        yield made
    finally:
        await made.server.close()


async def test_the_daemon_closes_what_it_missed_while_it_was_away(world: World) -> None:
    world.write(load_records=True)
    await world.was_there(days=1)
    wanted = 2 * (96 - world.in_hole())
    async with world.running(), asyncio.timeout(WAIT_S):
        while await asyncio.to_thread(lambda: world.states()[DueState.BACKFILLED]) < wanted:
            await asyncio.sleep(0.2)
    assert world.states() == {
        DueState.BACKFILLED: wanted,
        DueState.OPEN: 2 * world.in_hole(),
    }


async def test_somebody_asks_for_a_stretch_and_is_told_what_the_meter_lacks(world: World) -> None:
    world.write(load_records=False, daily=False)
    span = ("--from", iso(world.today_ms - DAY_MS), "--to", iso(world.today_ms), "--json")
    async with world.running():
        code, (told,), _ = await world.command(*span)
        jsonschema.validate(told, json.loads(SCHEMA.read_text()))
        assert code == 1
        assert told["born"] == 2 * (96 - world.in_hole())
        assert [gap["reason"] for gap in told["gaps"]] == ["no_record"]
        code, (again,), _ = await world.command(*span)
        assert (code, again["born"], again["records"]) == (1, 0, 0)
        assert again["gaps"] == told["gaps"]
        hour = iso(world.today_ms - DAY_MS // 2)
        code, (good,), _ = await world.command(
            "--from", hour, "--to", iso(world.today_ms - DAY_MS // 2 + 3_600_000), "--json"
        )
        assert (code, good["gaps"]) == (0, [])
    code, _, said = await world.command(*span)
    assert code == 4
    assert "no daemon" in said
