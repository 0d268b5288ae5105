"""Masters that nobody here wrote read the simulated devices: mbpoll (libmodbus) and pymodbus."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from protocols.modbus.decode import decode
from simulators.control import StreetControl
from tests.simulators.bench_modbus import profile_of
from tests.simulators.test_cli_simulate import Running

DEVICES = ("--device", "1:eastron_sdm630", "--device", "2:acrel_adl400", "--device", "3:sungrow_sg")
TOLD = (
    "--ct", "40", "--speed", "0", "--delay-ms", "5",
    "--import-kwh", "4321.09", "--export-kwh", "8.56", "--yield-kwh", "76543.9",
)  # fmt: skip
BAUD = "19200"


@asynccontextmanager
async def simulated(tmp_path, kind: str) -> AsyncIterator[str]:
    """`headend simulate modbus` as a TCP port or a pty; gives the port's number or the path."""
    where = {
        "modbus-tcp": ("--modbus-tcp", "127.0.0.1:0"),
        "rtu-tcp": ("--tcp", "127.0.0.1:0"),
        "pty": ("--pty", str(tmp_path / "line"), "--baud", BAUD),
    }[kind]
    async with Running("modbus", *where, *DEVICES, *TOLD) as running:
        place = running.ready.partition("?")[0]
        yield place.removeprefix("serial://") if kind == "pty" else place.rpartition(":")[2]
        assert await running.stop(signal.SIGTERM) == 0


async def mbpoll(kind: str, place: str, unit: int, *arguments: str) -> list[str]:
    """The values that mbpoll prints; AssertionError when it fails."""
    if kind == "pty":
        way, target = ("-m", "rtu", "-b", BAUD, "-P", "none"), (place,)
    else:
        way, target = ("-m", "tcp", "-p", place), ("127.0.0.1",)
    command = ("mbpoll", *way, "-1", "-0", "-o", "3", "-a", str(unit), *arguments, *target)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    text = out.decode()
    assert process.returncode == 0, text
    return re.findall(r"^\[\d+\]:\s+(\S+)", text, re.MULTILINE)


@pytest.mark.parametrize("kind", ["modbus-tcp", "pty"])
async def test_mbpoll_reads_the_meters_and_the_inverter(tmp_path, kind):
    async with simulated(tmp_path, kind) as place:
        energies = await mbpoll(kind, place, 1, "-t", "3:float", "-B", "-r", "72", "-c", "2")
        assert energies == ["4321.09", "8.56"]
        # 4321.09 kWh / 40 = 108.027.. in steps of 0.01 kWh
        counts = await mbpoll(kind, place, 2, "-t", "4:int", "-B", "-r", "10", "-c", "1")
        assert counts == ["10802"]
        total = await mbpoll(kind, place, 3, "-t", "3:int", "-r", "5003", "-c", "1")
        assert total == ["76543"]
        (voltage,) = await mbpoll(kind, place, 1, "-t", "3:float", "-B", "-r", "0", "-c", "1")
        assert 200 < float(voltage) < 260


async def test_mbpoll_is_told_what_a_device_does_not_have(tmp_path):
    async with simulated(tmp_path, "modbus-tcp") as place:
        with pytest.raises(AssertionError, match="Illegal data address"):
            await mbpoll("modbus-tcp", place, 2, "-t", "4", "-r", "500", "-c", "1")
        with pytest.raises(AssertionError, match="Illegal function"):
            await mbpoll("modbus-tcp", place, 1, "-t", "4", "-r", "72", "-c", "2")
        with pytest.raises(AssertionError, match="Target device failed to respond"):
            await mbpoll("modbus-tcp", place, 9, "-t", "4", "-r", "72", "-c", "2")


def pymodbus_client(kind: str, place: str):
    common = {"retries": 0, "timeout": 3}
    if kind == "pty":
        return AsyncModbusSerialClient(place, baudrate=int(BAUD), **common)
    framer = FramerType.SOCKET if kind == "modbus-tcp" else FramerType.RTU
    return AsyncModbusTcpClient("127.0.0.1", port=int(place), framer=framer, **common)


@pytest.mark.parametrize("kind", ["modbus-tcp", "rtu-tcp", "pty"])
async def test_pymodbus_reads_every_register_of_every_map(tmp_path, kind):
    async with simulated(tmp_path, kind) as place:
        client = pymodbus_client(kind, place)
        assert await client.connect()
        found = {}
        for unit, name in enumerate(("eastron_sdm630", "acrel_adl400", "sungrow_sg"), 1):
            for register in profile_of(name).registers.values():
                read = (
                    client.read_holding_registers
                    if register.function == 3
                    else client.read_input_registers
                )
                reply = await read(register.address, count=register.words, device_id=unit)
                assert not reply.isError(), (name, register)
                value = decode(register, reply.registers, ct=Decimal(40), apply_ratio=unit == 2)
                found[unit, register.point] = value
        client.close()
    assert found[1, "active_import_total"] == Decimal("4321.09")
    assert found[1, "active_export_total"] == Decimal("8.56")
    assert found[2, "active_import_total"] == Decimal("108.02") * 40
    assert found[2, "active_export_total"] == Decimal("0.21") * 40
    assert found[2, "ct_ratio"] == 40
    assert found[3, "pv_yield_total"] == 76_543
    assert found[3, "rated_power"] == 15
    assert found[3, "status"] is None


async def test_faults_and_truth_over_the_control_socket(tmp_path):
    socket = tmp_path / "control"
    arguments = ("--modbus-tcp", "127.0.0.1:0", "--control", str(socket), *TOLD)
    async with Running("modbus", "--unit", "7", *arguments) as running:
        control = StreetControl(socket)
        truth = (await control.truth(points=["active_import_total"]))["7"]["active_import_total"]
        assert truth.shown == Decimal("4321.09")
        place = running.ready.rpartition(":")[2]
        await control.command("fault", meter="7", fault="busy")
        with pytest.raises(AssertionError, match="busy"):
            await mbpoll("tcp", place, 7, "-t", "3:float", "-B", "-r", "72", "-c", "1")
        await control.command("clear", meter="7")
        values = await mbpoll("tcp", place, 7, "-t", "3:float", "-B", "-r", "72", "-c", "1")
        assert values == ["4321.09"]
        await control.close()
        assert await running.stop(signal.SIGINT) == 0
    assert list(tmp_path.iterdir()) == []
