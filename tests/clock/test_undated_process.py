"""The real daemon as a process, with a clock that nobody speaks for: until a mark appears."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import jsonschema

from headend.cli.daemon_client import ask_daemon
from headend.config import load_config
from headend.domain.alarms import KINDS
from headend.domain.clock import SystemClock, from_iso
from headend.domain.errors import HeadendError
from headend.journal import JournalReader
from simulators.energy import Timeline
from simulators.meter645 import MeterSettings
from simulators.meterbus import MeterBus
from simulators.models import make_meter
from simulators.serve import TcpServer
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "clock_trust.schema.json").read_text("utf-8"))
IMPORT = "active_import_total"
CLOCK = SystemClock()
WAIT_S = 60.0
CONFIGURATION = """
headend:
  name: he1
  zone: Asia/Shanghai
  data: data
  reserve_mb: {{telemetry: 1, billing: 1}}
  clock: {{trust: synchronised, synchronised_file: synchronized}}
buses: {{a: {{link: "{link}"}}}}
meters:
  - {{id: M-1, service_point: S-1, bus: a, protocol: dlt645-2007, address: "000000000001", plan: p}}
plans: {{p: {{every: [{{seconds: 10, points: [active_import_total]}}]}}}}
"""


@contextlib.asynccontextmanager
async def running(file):
    """`headend run` until the end of the block, then stopped cleanly."""
    command = [sys.executable, "-m", "headend.cli.main", "run", "--config", str(file)]
    with (file.parent / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.DEVNULL, stderr=log, cwd=ROOT, env=os.environ
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_a_daemon_waits_for_the_mark_and_dates_what_it_has_read(tmp_path):
    meter = make_meter(
        "pv", MeterSettings("000000000001", reply_delay_ms=1, seed=1),
        timeline=Timeline(CLOCK.now_ms() - 86_400_000), clock=CLOCK.now_ms,
    )  # fmt: skip
    server = TcpServer(MeterBus([meter]))
    await server.start()
    file = tmp_path / "headend.yaml"
    file.write_text(CONFIGURATION.format(link=server.where))
    config = load_config(file)

    async def ask(command, **more):
        request = {"command": command, **more}
        try:
            return await asyncio.to_thread(ask_daemon, config.socket_path, request, timeout_s=10)
        except HeadendError:  # not there yet
            return None

    async def waiting():
        status = await ask("status")
        return status and status["clock"].get("waiting", 0) >= 1 and status

    def born():
        with JournalReader(config.journal_path) as reader:
            return list(reader.readings())

    begun_ms = CLOCK.now_ms()
    async with running(file):
        status = await eventually(waiting, timeout_s=WAIT_S, every_s=0.2)
        assert status["clock"]["reason"] == "not_synchronised"
        assert [alarm["alarm"] for alarm in status["alarms"]] == ["clock_untrusted"]
        assert born() == []
        kept_ms = CLOCK.now_ms()
        (tmp_path / "synchronized").touch()
        await eventually(born, timeout_s=WAIT_S, every_s=0.1)
        first = born()[0]
        assert begun_ms <= from_iso(first.time) <= kept_ms + 1000

        async def well():
            status = await ask("status")
            return status["clock"] == {"trusted": True} and not status["alarms"]

        await eventually(well, timeout_s=WAIT_S, every_s=0.2)
    # Started again while the mark is gone: in the same boot the clock was believed before.
    (tmp_path / "synchronized").unlink()
    (config.data_path / "clock_believed.json").unlink()
    async with running(file):
        await eventually(waiting, timeout_s=WAIT_S, every_s=0.2)
        answer = await ask("clock_trust", by="li")
        jsonschema.validate(answer, SCHEMA)
        before = len(born())
        await eventually(lambda: len(born()) > before, timeout_s=WAIT_S, every_s=0.1)
        await eventually(well, timeout_s=WAIT_S, every_s=0.2)
    with JournalReader(config.journal_path) as reader:
        kinds = [(e.kind, e.fields["reason"]) for e in reader.events(kinds=KINDS)]
    assert kinds == [
        ("alarm", "not_synchronised"), ("alarm_cleared", "synchronised"),
        ("alarm", "not_synchronised"), ("alarm_cleared", "li said so"),
    ]  # fmt: skip
    await server.close()
