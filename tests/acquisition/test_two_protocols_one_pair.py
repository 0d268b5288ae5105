"""The daemon reads DL/T 645 and Modbus meters on one pair, and a Modbus TCP server beside it."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headend.config import Config, load_config
from headend.daemon import run_daemon
from headend.domain.clock import SystemClock, iso
from headend.journal import JournalReader
from headend.messages.records import ReadRecord
from protocols.framing import FrameFound, Framer
from protocols.modbus.decode import encode
from protocols.modbus.device import (
    build_exception,
    build_reply,
    parse_request,
    request_delimiter,
)
from simulators.energy import Timeline
from simulators.meter645 import MeterSettings
from simulators.meterbus import MeterBus
from simulators.models import make_meter
from simulators.serve import PtyServer
from simulators.wire import Transmission
from tests.support.modbus_device import SDM
from tests.support.third_party_modbus import third_party_modbus
from tests.support.waiting import eventually

ADDRESS = "202600000017"
UNIT, SILENT = 17, 18
IMPORT, EXPORT = "active_import_total", "active_export_total"
ON_THE_PAIR = {IMPORT: "12345.67", EXPORT: "0.25", "voltage_a": "230.5"}


class Pair:
    """One 645 meter and one Modbus meter on the same two wires."""

    def __init__(self) -> None:
        clock = SystemClock()
        meter = make_meter(
            "pv",
            MeterSettings(ADDRESS, reply_delay_ms=20, seed=7),
            timeline=Timeline(clock.now_ms() - 86_400_000),
            clock=clock.now_ms,
        )
        self._of_645 = MeterBus([meter])
        self._framer = Framer(request_delimiter(tcp=False))
        self.words: dict[int, int] = {}
        for point, value in ON_THE_PAIR.items():
            register = SDM.register(point)
            for at, word in enumerate(encode(register, Decimal(value))):
                self.words[register.address + at] = word

    def receive(self, data: bytes, bad: Sequence[int]) -> Sequence[Transmission]:
        said = list(self._of_645.receive(data, bad))
        for event in self._framer.feed(data, bad):
            asked = parse_request(event.raw, tcp=False) if isinstance(event, FrameFound) else None
            if asked is None or asked.unit != UNIT:
                continue
            wanted = range(asked.address, asked.address + asked.count)
            if all(at in self.words for at in wanted):
                reply = build_reply(asked, [self.words[at] for at in wanted])
            else:
                reply = build_exception(asked, 2)
            said.append(Transmission(0.02, reply))
        return said

    def idle(self) -> None:
        self._of_645.idle()
        self._framer.idle()


def configuration(folder: Path, pair: str, gateway: str) -> Path:
    until = iso(SystemClock().now_ms() + 3_600_000)
    file = folder / "headend.yaml"
    file.write_text(
        "headend: {name: he1, zone: Asia/Shanghai, data: data}\n"
        "buses:\n"
        f'  pair: {{link: "{pair}", dead_after: 1}}\n'
        f'  gate: {{link: "{gateway}"}}\n'
        "meters:\n"
        "  - {id: OLD, service_point: SP-1, bus: pair, protocol: dlt645-2007, "
        f'address: "{ADDRESS}", plan: p}}\n'
        "  - {id: NEW, service_point: SP-2, bus: pair, protocol: modbus-rtu, "
        f"unit: {UNIT}, profile: eastron_sdm630, plan: p}}\n"
        "  - {id: DEAD, service_point: SP-3, bus: pair, protocol: modbus-rtu, "
        f"unit: {SILENT}, profile: eastron_sdm630, plan: p}}\n"
        "  - {id: NET, service_point: SP-4, bus: gate, protocol: modbus-tcp, "
        'unit: 2, profile: acrel_adl400, ct: "40", pt: "100", plan: p}\n'
        f'plans: {{p: {{until: "{until}", '
        f"every: [{{seconds: 5, points: [{IMPORT}, {EXPORT}, voltage_a]}}]}}}}\n",
        encoding="utf-8",
    )
    return file


@asynccontextmanager
async def daemon(folder: Path) -> AsyncIterator[Config]:
    server = PtyServer(Pair(), baud=9600)
    await server.start()
    with third_party_modbus("tcp") as gateway:
        config = load_config(configuration(folder, server.where, gateway))
        stop, up = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(run_daemon(config, stop=stop, ready=up.set))
        try:
            async with asyncio.timeout(30):
                await up.wait()
            yield config
        finally:
            stop.set()
            await task
            await server.close()


def records(config: Config, meter: str) -> list[ReadRecord]:
    with JournalReader(config.journal_path) as reader:
        return list(reader.readings(meter=meter))


async def read(config: Config, meter: str, *points: str) -> tuple[int, list[dict[str, Any]]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headend.cli.main", "read", "--config", str(config.path),
        "--meter", meter, "--json", *points,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()]


@pytest.mark.timeout(120)
async def test_both_protocols_are_read_on_one_pair_beside_a_silent_meter(tmp_path: Path) -> None:
    async with daemon(tmp_path) as config:

        def served(meter: str, instants: int) -> bool:
            found = [r for r in records(config, meter) if r.due_at is not None]
            due = {r.due_at for r in found if r.point == IMPORT}
            return len(due) >= instants and {r.point for r in found} >= {EXPORT, "voltage_a"}

        for meter in ("OLD", "NEW", "NET"):
            await eventually(lambda m=meter: served(m, 3), timeout_s=60, what=meter)
        assert records(config, "DEAD") == []
        newest = {r.point: r for r in records(config, "NEW")}
        assert {p: newest[p].value for p in ON_THE_PAIR} == ON_THE_PAIR
        assert (newest[IMPORT].side, newest[IMPORT].multiplier) == ("primary", "1")
        assert newest[IMPORT].time == newest[EXPORT].time
        net = {r.point: r for r in records(config, "NET")}
        assert (net[IMPORT].value, net[IMPORT].side, net[IMPORT].multiplier) == (
            "10.25",
            "secondary",
            "4000",
        )
        assert (net["voltage_a"].value, net["voltage_a"].side) == ("5770.0", "primary")
        old = {r.point: r for r in records(config, "OLD")}
        assert (old[IMPORT].side, old[IMPORT].multiplier) == ("secondary", "1")
        await through_the_daemon(config)


async def through_the_daemon(config: Config) -> None:
    code, (energy,) = await read(config, "NEW", IMPORT)
    assert (code, energy["value"], energy["verdict"]) == (0, "12345.67", "ok")
    assert energy["request"].startswith(f"{UNIT:02X}0400480002")
    code, (energy, voltage) = await read(config, "NET", IMPORT, "voltage_a")
    assert (code, energy["value"], energy["multiplier"]) == (0, "10.25", "4000")
    assert voltage["side"] == "primary"
    code, (lacking,) = await read(config, "NEW", "clock")
    assert (code, lacking["error"]["code"]) == (1, "no_such_point")
    code, (refused,) = await read(config, "NET", "frequency")
    assert (code, refused["error"]["code"]) == (5, "refused")
    code, (silent,) = await read(config, "DEAD", IMPORT)
    assert (code, silent["error"]["code"]) == (3, "no_answer")
