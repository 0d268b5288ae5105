"""The daemon and the driver poll a device of libmodbus, which shares no code with anything here."""

import asyncio
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import pytest

from headend.bus import Bus, BusSettings
from headend.config import load_config, parse_link
from headend.config.profiles import PACKAGED, load_profile
from headend.daemon import run_daemon
from headend.domain.clock import SystemClock
from headend.drivers import ModbusSession, error_code
from headend.journal import JournalReader
from headend.transport import make_link
from tests.support.libmodbus import build, served_rtu, served_tcp
from tests.support.register_server import words_of
from tests.support.waiting import eventually

SDM = load_profile("eastron_sdm630", PACKAGED.parent)
ACREL = load_profile("acrel_adl400", PACKAGED.parent)
IMPORT, EXPORT = "active_import_total", "active_export_total"
SDM_VALUES = {
    IMPORT: Decimal("12345.67"),
    EXPORT: Decimal("0.25"),
    "voltage_a": Decimal("230.5"),
    "active_power_total": Decimal("-1.5"),
}
ACREL_VALUES = {IMPORT: Decimal("10.25"), EXPORT: Decimal("0.07"), "ct_ratio": 40}
ACREL_UNIT = 7
SERIAL = "baud=19200&parity=none"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("server", tmp_path_factory.mktemp("libmodbus"))


def configuration(folder: Path, port: int, tty: str) -> Path:
    file = folder / "headend.yaml"
    file.write_text(
        "headend: {name: he1, zone: Asia/Shanghai, data: data}\n"
        "buses:\n"
        f'  gate: {{link: "modbus-tcp://127.0.0.1:{port}"}}\n'
        f'  line: {{link: "serial://{tty}?{SERIAL}"}}\n'
        "plans:\n"
        "  p: {every: [{seconds: 5, points: "
        f"[{IMPORT}, {EXPORT}]}}, {{seconds: 5, points: [voltage_a, active_power_total]}}]}}\n"
        f"  m: {{every: [{{seconds: 5, points: [{IMPORT}, {EXPORT}]}}]}}\n"
        "meters:\n"
        "  - {id: ROOF, service_point: SP-1, bus: gate, protocol: modbus-tcp, unit: 1, "
        "profile: eastron_sdm630, plan: p}\n"
        f"  - {{id: SHOP, service_point: SP-2, bus: line, protocol: modbus-rtu, unit: {ACREL_UNIT}"
        ', profile: acrel_adl400, ct: "40", plan: m}\n',
        encoding="utf-8",
    )
    return file


async def test_the_daemon_polls_libmodbus_over_tcp_and_on_a_serial_line(
    tmp_path: Path, server: Path
) -> None:
    wanted = {("ROOF", point): value for point, value in SDM_VALUES.items()}
    wanted |= {("SHOP", point): ACREL_VALUES[point] for point in (IMPORT, EXPORT)}
    with ExitStack() as stack:
        port = stack.enter_context(served_tcp(server, words_of(SDM, **SDM_VALUES)))
        tty = stack.enter_context(served_rtu(server, ACREL_UNIT, words_of(ACREL, **ACREL_VALUES)))
        config = load_config(configuration(tmp_path, port, tty))
        stop, up = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(run_daemon(config, stop=stop, ready=up.set, clock=SystemClock()))
        try:
            async with asyncio.timeout(60):
                await up.wait()

            def read() -> dict[tuple[str, str], tuple[Decimal, str]]:
                with JournalReader(config.journal_path) as reader:
                    return {
                        (one.meter, one.point): (Decimal(one.value), str(one.verdict))
                        for one in reader.readings()
                        if one.value is not None
                    }

            await eventually(lambda: read().keys() == wanted.keys(), timeout_s=90, every_s=0.1)
            assert read() == {place: (value, "ok") for place, value in wanted.items()}
        finally:
            stop.set()
            await task


@pytest.mark.parametrize("kind", ["tcp", "rtu"])
async def test_every_register_of_libmodbus_comes_right_and_one_it_lacks_is_refused(
    kind: str, server: Path
) -> None:
    with ExitStack() as stack:
        if kind == "tcp":
            link = f"modbus-tcp://127.0.0.1:{stack.enter_context(served_tcp(server, {}))}"
        else:
            tty = stack.enter_context(served_rtu(server, ACREL_UNIT, {}))
            link = f"serial://{tty}?{SERIAL}"
        settings = BusSettings(gap_ms=1, silence_after_timeout_ms=20)
        clock = SystemClock()
        bus = Bus("b", make_link(parse_link(link)), settings, clock=clock, observer=lambda _: None)
        task = asyncio.create_task(bus.run())
        try:
            session = ModbusSession(bus, ACREL_UNIT, None, tcp=kind == "tcp", clock=clock)
            for function, first in ((3, 0), (4, 1000), (3, 59_900)):
                points = [f"reg:{function}:{first + at}:1" for at in range(100)]
                values = [result.value for result in await session.read(points)]
                assert values == list(range(first, first + 100))
            (lacking,) = await session.read(["reg:3:60000:1"])
            assert lacking.value is None
            assert lacking.error is not None
            assert error_code(lacking.error) == "refused"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
