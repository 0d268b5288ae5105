"""A meter is not asked again for what it refused until that is forgotten, not by a restart."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest

from headend.acquisition.memory import WRITE_EVERY_S, MeterMemory
from headend.acquisition.meter_reader import MeterSession
from headend.commands import Parts
from headend.config import load_config
from headend.daemon import run_daemon
from headend.domain.clock import SystemClock
from headend.domain.errors import JournalFull
from headend.domain.meter import Meter
from headend.drivers import PointResult
from headend.journal import STATE_CHARS_MAX, KeptState
from simulators.energy import Timeline
from simulators.meter645 import MeterSettings
from simulators.meterbus import MeterBus
from simulators.models import make_meter
from simulators.serve import TcpServer
from simulators.wire import Transmission

METER = Meter("M-1", "SP-1", "bus", "dlt645-2007", "000000000001", "plan")
VOLTAGES = ["voltage_a", "voltage_b", "voltage_c"]
BLOCK = bytes(b + 0x33 & 0xFF for b in bytes.fromhex("00FF0102"))
CLOCK = SystemClock()
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "meter_forget.schema.json"

pytestmark = pytest.mark.timeout(120)


# -- by itself


class HandClock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Kept:
    rows: dict[str, KeptState] = field(default_factory=dict)
    writes: int = 0
    full: bool = False

    def learn(self, meter: str, kept: KeptState) -> None:
        self.rows[meter] = kept
        self.writes += 1

    async def forget(self, *meters: str) -> int:
        if self.full:
            raise JournalFull("no room")
        return sum(self.rows.pop(meter, None) is not None for meter in meters)


@dataclass(frozen=True)
class Count:
    n: int

    def to_json(self) -> dict[str, Any]:
        return {"n": self.n}


class Session:
    """Learns one thing whenever it is told to."""

    def __init__(self, recalled: Mapping[str, Any] | None) -> None:
        self.learned = Count(0 if recalled is None else recalled["n"])
        self.learns = False

    async def read(self, points: Sequence[str], **_how: object) -> list[PointResult]:
        if self.learns:
            self.learned = Count(self.learned.n + 1)
        return []

    async def read_frozen(self, points: Sequence[str], **_how: object) -> list[PointResult]:
        return await self.read(points)


class Bench:
    def __init__(self) -> None:
        self.kept, self.clock = Kept(), HandClock()
        self.opened: list[Session] = []
        self.reopened: list[str] = []
        self.start()

    def start(self) -> None:
        self.memory = MeterMemory(self.kept, self.kept.rows, clock=self.clock)
        self.memory.reopen = self.reopened.extend

        def open_session(meter: Meter) -> MeterSession:
            self.opened.append(Session(self.memory.recall(meter)))
            return cast("MeterSession", self.opened[-1])

        self.open = self.memory.sessions(open_session)

    async def learn(self, session: MeterSession) -> None:
        self.opened[-1].learns = True
        await session.read([])
        self.opened[-1].learns = False


async def test_what_was_learned_is_given_to_the_next_session() -> None:
    bench = Bench()
    await bench.learn(bench.open(METER))
    bench.start()
    bench.open(METER)
    assert bench.opened[-1].learned == Count(1)


@pytest.mark.parametrize(
    "other",
    [
        replace(METER, address="000000000002"),
        replace(METER, profile="a_model"),
        replace(METER, protocol="dlt645-1997"),
        replace(METER, id="M-2"),
    ],
)
async def test_another_device_is_asked_for_everything(other: Meter) -> None:
    bench = Bench()
    await bench.learn(bench.open(METER))
    bench.start()
    bench.open(other)
    assert bench.opened[-1].learned == Count(0)


async def test_what_is_not_new_is_not_written_and_what_is_at_most_once_a_minute() -> None:
    bench = Bench()
    session = bench.open(METER)
    await session.read([])
    assert bench.kept.writes == 0
    for _ in range(5):
        await bench.learn(session)
    assert (bench.kept.writes, bench.kept.rows["M-1"].state) == (1, '{"n":1}')
    bench.clock.seconds += WRITE_EVERY_S
    await session.read([])
    assert (bench.kept.writes, bench.kept.rows["M-1"].state) == (2, '{"n":5}')
    await session.read([])
    await bench.learn(session)
    bench.memory.flush()
    assert (bench.kept.writes, bench.kept.rows["M-1"].state) == (3, '{"n":6}')


async def test_what_is_forgotten_while_it_is_read_does_not_come_back() -> None:
    bench = Bench()
    session = bench.open(METER)
    await bench.learn(session)
    assert await bench.memory.forget("M-1")
    assert bench.reopened == ["M-1"]
    await bench.learn(session)
    bench.memory.flush()
    assert not bench.kept.rows
    bench.open(METER)
    assert bench.opened[-1].learned == Count(0)
    assert not await bench.memory.forget("M-1")


async def test_states_of_meters_that_are_gone_are_dropped_and_a_full_disk_stops_nothing() -> None:
    bench = Bench()
    await bench.learn(bench.open(METER))
    await bench.learn(bench.open(replace(METER, id="M-2")))
    bench.start()
    bench.kept.full = True
    await bench.memory.keep_only(["M-1"])
    assert bench.memory.recall(replace(METER, id="M-2")) is None
    bench.kept.full = False
    bench.start()
    await bench.memory.keep_only(["M-1"])
    assert list(bench.kept.rows) == ["M-1"]


@pytest.mark.parametrize("state", ["", "{", "[]", '"x"'])
async def test_a_state_that_cannot_be_read_is_none(state: str) -> None:
    bench = Bench()
    bench.kept.rows["M-1"] = KeptState("dlt645-2007", METER.address, state, 0)
    bench.start()
    assert bench.memory.recall(METER) is None


async def test_a_state_without_bounds_is_not_kept() -> None:
    class Endless(Count):
        def to_json(self) -> dict[str, Any]:
            return {"n": "x" * STATE_CHARS_MAX}

    bench = Bench()
    session = bench.open(METER)
    bench.opened[-1].learned = Endless(7)
    await session.read([])
    assert not bench.kept.rows


# -- the daemon


class HeardBus(MeterBus):
    """Remembers what was said to it."""

    def __init__(self, meters: Iterable[Any]) -> None:
        super().__init__(meters)
        self.heard = bytearray()

    def receive(self, data: bytes, bad: Sequence[int]) -> list[Transmission]:
        self.heard += data
        return super().receive(data, bad)

    def block_asked(self) -> bool:
        """Whether the block of voltages was asked for since the last look."""
        asked, self.heard = BLOCK in self.heard, bytearray()
        return asked


def refusing_meter() -> HeardBus:
    timeline = Timeline(CLOCK.now_ms() - 86_400_000)
    settings = MeterSettings(METER.address, reply_delay_ms=1, seed=3)
    meter = make_meter("pv3", settings, timeline=timeline, clock=CLOCK.now_ms)
    meter.add_fault_text("refuse:di=0201FF00", 0)
    return HeardBus([meter])


def write(file: Path, link: str, *, profile: str = "") -> None:
    file.write_text(
        "headend: {name: he1, zone: Asia/Shanghai, data: data}\n"
        f'buses: {{a: {{link: "{link}", gap_ms: 0, timeout_ms: 20000}}}}\n'
        "meters: [{id: M-1, service_point: SP-1, bus: a, protocol: dlt645-2007, "
        f'address: "{METER.address}", plan: p{profile}}}]\n'
        f"plans: {{p: {{every: [{{minutes: 15, points: [{', '.join(VOLTAGES)}]}}], "
        'from: "2099-01-01T00:00:00Z"}}\n'
    )


@asynccontextmanager
async def daemon(file: Path) -> AsyncIterator[Parts]:
    stop, up = asyncio.Event(), asyncio.Event()
    parts: list[Parts] = []
    running = asyncio.create_task(
        run_daemon(load_config(file), stop=stop, ready=up.set, stood_up=parts.append)
    )
    try:
        async with asyncio.timeout(60):
            await up.wait()
        yield parts[0]
    finally:
        stop.set()
        await running


async def voltages(parts: Parts) -> None:
    taken = await parts.engine.read_now("M-1", VOLTAGES, timeout_s=60)
    assert [one.reading is not None for one in taken] == [True] * 3


async def test_the_daemon_knows_after_a_restart_what_a_meter_refused_and_forgets_on_request(
    tmp_path: Path,
) -> None:
    file = tmp_path / "headend.yaml"
    line = refusing_meter()
    server = TcpServer(line)
    await server.start()

    async def forget(meter: str) -> dict[str, Any] | tuple[int, str]:
        arguments = ["meter", "forget", "--config", str(file), "--meter", meter, "--json"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headend.cli.main", *arguments, stdout=PIPE, stderr=PIPE
        )
        out, err = await process.communicate()
        if process.returncode:
            return process.returncode, err.decode()
        told: dict[str, Any] = json.loads(out)
        jsonschema.validate(told, json.loads(SCHEMA.read_text()))
        return told

    try:
        write(file, server.where)
        async with daemon(file) as parts:
            await voltages(parts)
            assert line.block_asked()
            await voltages(parts)
            assert not line.block_asked()
        async with daemon(file) as parts:
            await voltages(parts)
            assert not line.block_asked(), "the restart has forgotten it"
            known = {"schema": "meter_forget/1", "meter": "M-1", "forgot": True}
            assert await forget("M-1") == known
            await voltages(parts)
            assert line.block_asked()
            assert await forget("M-1") == known
            assert await forget("M-1") == {**known, "forgot": False}
            code, told = await forget("M-9")
            assert code == 2
            assert "no meter M-9 in force" in told
        async with daemon(file) as parts:
            await voltages(parts)
            assert line.block_asked()
        write(file, server.where, profile=", profile: iot_three_phase")
        async with daemon(file) as parts:
            await voltages(parts)
            assert line.block_asked(), "another model is another device"
    finally:
        await server.close()
