"""`headend meter ...` on a running daemon: what it takes, what it refuses, what it changes."""

import argparse
import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import jsonschema

from headend.cli import meter
from headend.cli.daemon_client import ask_daemon
from headend.cli.main import exit_code
from headend.config import Config, load_config
from headend.daemon import run_daemon
from headend.domain.clock import SystemClock, iso
from headend.domain.errors import HeadendError
from headend.journal import JournalReader
from simulators.energy import Timeline
from simulators.meter645 import Meter645, MeterSettings
from simulators.meterbus import MeterBus
from simulators.models import make_meter
from simulators.serve import TcpServer
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
ADDRESS = "202600000017"
IMPORT, EXPORT = "active_import_total", "active_export_total"
WAIT_S = 60.0
CONFIG = """\
headend: {{name: he1, zone: Asia/Shanghai, data: data}}
buses: {{b: {{link: "{link}", gap_ms: 0, allow_overload: true}}}}
meters:
  - {{id: M-1, service_point: SP-1, bus: b, protocol: dlt645-2007, address: "{address}", plan: p,
     capacity_kw: "13.2", area: T-1, ct: "{ct}"}}
plans: {{p: {{every: [{{seconds: 1, points: [{points}]}}]}}}}
"""


def device() -> Meter645:
    """A meter whose registers stand still."""
    clock = SystemClock()
    timeline = Timeline(clock.now_ms() - 86_400_000)
    timeline.switch_off(clock.now_ms())
    settings = MeterSettings(ADDRESS, reply_delay_ms=1, seed=5)
    return make_meter("pv", settings, timeline=timeline, clock=clock.now_ms)


def write(folder: Path, link: str, **changes: str) -> Path:
    file = folder / "headend.yaml"
    words = {"link": link, "address": ADDRESS, "points": f"{IMPORT}, {EXPORT}", "ct": "40"}
    file.write_text(CONFIG.format(**(words | changes)))
    return file


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[None]:
    stop, up = asyncio.Event(), asyncio.Event()
    daemon = asyncio.create_task(run_daemon(config, stop=stop, ready=up.set))
    try:
        await asyncio.wait_for(up.wait(), WAIT_S)
        yield
    finally:
        stop.set()
        await daemon


class Desk:
    """The command line, beside the daemon in this process."""

    def __init__(self, file: Path) -> None:
        self.file = file

    async def say(self, *words: str, code: int = 0) -> str:
        parser = argparse.ArgumentParser()
        meter.add_arguments(parser)
        args = parser.parse_args([*words, "--config", str(self.file)])
        out = io.StringIO()

        def run() -> int:
            with contextlib.redirect_stdout(out):
                try:
                    return meter.run(args)
                except HeadendError as error:
                    print(error)
                    return exit_code(error)

        assert await asyncio.to_thread(run) == code, out.getvalue()
        return out.getvalue()

    async def told(self, *words: str) -> list[dict]:
        found = [json.loads(line) for line in (await self.say(*words, "--json")).splitlines()]
        for one in found:
            name = one["schema"].split("/")[0]
            schema = json.loads((ROOT / f"docs/schemas/{name}.schema.json").read_text())
            jsonschema.validate(one, schema)
        return found


def current(config: Config) -> list:
    if not config.journal_path.exists():
        return []
    with JournalReader(config.journal_path) as reader:
        return list(reader.readings(meter="M-1", point=IMPORT))


async def test_events_are_declared_listed_and_taken_back_while_meters_are_read(
    tmp_path: Path,
) -> None:
    hanging = device()
    server = TcpServer(MeterBus([hanging]))
    await server.start()
    file = write(tmp_path, server.where)
    config = load_config(file)
    desk = Desk(file)
    shown = hanging.truth(SystemClock().now_ms())
    registers = [f"{point}={shown[point].shown}" for point in (IMPORT, EXPORT)]
    async with running(config):
        await eventually(lambda: len(current(config)) >= 3, timeout_s=WAIT_S, what="is read")
        first = current(config)[0].time
        who = ("--meter", "M-1", "--at", first, "--reason", "test")
        lacking = await desk.say("ratio", *who, "--ct", "60", "--register", registers[0], code=2)
        assert f"register lacks {EXPORT}" in lacking
        given = [word for one in registers for word in ("--register", one)]
        (ratio,) = await desk.told("ratio", *who, "--ct", "60", *given)
        assert ratio["withdrawn"] >= 6
        assert ratio["born"] == ratio["withdrawn"]
        assert {row.multiplier for row in current(config)} == {"60"}
        # a file brought up to date is taken, any other ratio is not
        write(tmp_path, server.where, ct="60")
        assert (await _reloaded(config))["outcome"] != "refused"
        write(tmp_path, server.where, ct="75")
        refused = await _reloaded(config)
        assert refused["outcome"] == "refused"
        assert "ct is 75 here, and 60 by what was declared" in refused["errors"][0]["message"]
        write(tmp_path, server.where)
        # what is taken back leaves what was before it
        (back,) = await desk.told("withdraw", ratio["event_id"][:12], "--reason", "wrong meter")
        assert back["event"] == "event_withdrawn"
        assert {row.multiplier for row in current(config)} == {"40"}
        again = await desk.say("withdraw", ratio["event_id"], "--reason", "again", code=2)
        assert "is taken back already" in again
        # a reset: the register counts on from there
        before = [word for one in registers for word in ("--before", one)]
        after = [word for one in registers for word in ("--after", one)]
        (reset,) = await desk.told("reset", *who, *before, *after)
        assert reset["event"] == "reset"
        ahead = iso(SystemClock().now_ms() + 3_600_000)
        early = ("--meter", "M-1", "--at", ahead, "--reason", "test")
        assert "has not come yet" in await desk.say("move", *early, "--area", "T-2", code=2)
        (moved,) = await desk.told("move", *who, "--area", "T-2")
        assert moved["withdrawn"] == 0
        unknown = ("--meter", "M-9", "--at", first, "--reason", "test")
        assert "no meter M-9" in await desk.say("move", *unknown, "--area", "T-2", code=2)
        assert "is not a" in await desk.say("address", *who, "--address", "x1", code=2)
        (address,) = await desk.told("address", *who, "--address", "202600000099")
        assert address["withdrawn"] >= 6  # whoever answered under the old one was another
        (home,) = await desk.told("withdraw", address["event_id"], "--reason", "not true")
        assert home["born"] >= 6
        listed = await desk.told("events", "--meter", "M-1")
        held = {(one["event"], one["in_force"]) for one in listed}
        assert {("ratio_change", False), ("reset", True), ("area_move", True)} <= held
        text = await desk.say("events")
        assert "taken back" in text
        count = len(current(config))
        await eventually(lambda: len(current(config)) > count, timeout_s=WAIT_S, what="goes on")
        assert {row.multiplier for row in current(config)} == {"40"}
    await server.close()


async def _reloaded(config: Config) -> dict:
    return await asyncio.to_thread(ask_daemon, config.socket_path, {"command": "reload"})
