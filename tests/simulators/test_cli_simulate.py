"""`headend simulate` says READY when it can be used, answers, and leaves nothing behind."""

import asyncio
import json
import os
import signal
import sys
from decimal import Decimal
from pathlib import Path
from typing import Self

import pytest

from headend.cli.main import main
from protocols.dlt645.catalogue import lookup
from protocols.dlt645.items import decode
from protocols.dlt645.master import read_request, reply_payload
from simulators.control import StreetControl
from simulators.truthlog import read_truth
from tests.simulators.bench645 import ADDRESS
from tests.simulators.test_sim_serve import PtyClient


class Running:
    """`headend simulate ...` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        self.ready = ""

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headend.cli.main", "simulate", *self.arguments,
            stdout=asyncio.subprocess.PIPE, limit=2**20,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = (await asyncio.wait_for(self.process.stdout.readline(), 30)).decode()
        word, _, self.ready = line.strip().partition(" ")
        assert word == "READY", line
        return self

    async def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 30)

    async def __aexit__(self, *_unused: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


async def read(fd_client: PtyClient, di: str) -> tuple:
    request = read_request(ADDRESS, di)
    os.write(fd_client.fd, request.raw)
    fd_client.data.clear()
    return decode(lookup(di), reply_payload(request, await fd_client.frame()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_meter_on_a_pty_is_ready_answers_and_leaves_no_symlink(tmp_path, number):
    path, log = tmp_path / "meter", tmp_path / "truth.jsonl"
    arguments = (
        "dlt645", "--pty", str(path), "--address", ADDRESS, "--kind", "pv", "--delay-ms", "0",
        "--baud", "115200", "--speed", "0", "--import-kwh", "12345.67", "--export-kwh", "0.09",
        "--truth-log", str(log),
    )  # fmt: skip
    async with Running(*arguments) as running:
        assert running.ready == f"serial://{path}?baud=115200&parity=even&stop=1"
        client = PtyClient(path)
        assert await read(client, "00010000") == (Decimal("12345.67"),)
        assert await read(client, "00020000") == (Decimal("0.09"),)
        client.close()
        assert [served.values for served in read_truth(log)] == [("12345.67",), ("0.09",)]
        assert await running.stop(number) == 0
    assert not path.is_symlink()


async def test_faults_and_several_meters_on_a_tcp_port():
    arguments = (
        "dlt645", "--tcp", "127.0.0.1:0", "--address", ADDRESS, "--address", "000000000002",
        "--delay-ms", "0", "--fault", "silent:nth=1", "--fault", "wrong_address:every=2",
    )  # fmt: skip
    async with Running(*arguments) as running:
        host, _, port = running.ready.removeprefix("tcp://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        request = read_request("000000000002", "00010000").raw
        writer.write(request)  # silent
        writer.write(request)  # a reply of the wrong address
        raw = await asyncio.wait_for(reader.readexactly(20), 10)
        assert raw[1:7] == bytes.fromhex("030000000000")
        writer.close()
        await writer.wait_closed()
        assert await running.stop(signal.SIGTERM) == 0


async def test_a_street_prints_its_plan_and_is_steered_over_its_socket(tmp_path):
    async with Running("street", "--dir", str(tmp_path), "--meters", "9", "--json") as running:
        ready = json.loads(running.ready)
        assert sum(len(bus["meters"]) for bus in ready["buses"]) == 9
        assert (tmp_path / "pty-1").exists()
        control = StreetControl(tmp_path / "street.sock")
        assert ready["control"] == str(tmp_path / "street.sock")
        await control.switch_off()
        first = await control.truth()
        assert first == await control.truth()
        await control.close()
        assert await running.stop(signal.SIGINT) == 0
    assert list(tmp_path.iterdir()) == []


async def test_a_street_without_a_directory_cleans_up_the_one_it_made():
    async with Running("street") as running:
        control = json.loads(running.ready)["control"]
        assert await running.stop(signal.SIGTERM) == 0
    assert not await asyncio.to_thread(Path(control).parent.exists)


@pytest.mark.parametrize(
    "arguments",
    [
        ["dlt645", "--fault", "jmp"],
        ["dlt645", "--address", "12"],
        ["dlt645", "--tcp", "nowhere"],
        ["dlt645", "--tcp", "127.0.0.1:1", "--pty", "x"],
        ["dlt645", "--import-kwh", "1000000"],
        ["dlt645", "--zone", "Mars/Olympus"],
        ["modbus", "--fault", "wrong_checksum"],
        ["modbus", "--unit", "256"],
        ["modbus", "--device", "sungrow_sg"],
        ["modbus", "--ct", "0"],
        ["modbus", "--modbus-tcp", "127.0.0.1:1", "--tcp", "127.0.0.1:2"],
        ["street", "--speed", "0"],
        ["toaster"],
        [],
    ],
)
def test_arguments_that_cannot_be_are_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    assert ended.value.code == 2
    assert "error" in capsys.readouterr().err


def test_a_street_with_fewer_meters_than_buses_is_a_usage_error(tmp_path, capsys):
    assert main(["simulate", "street", "--meters", "1", "--dir", str(tmp_path)]) == 2
    assert "make no street" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--profile", "eastron_sdm63"], "eastron_sdm630"),
        (["--device", "1:sungrow_sg", "--unit", "1"], "a unit is there once"),
    ],
)
def test_modbus_devices_that_cannot_be_are_usage_errors(arguments, told, capsys):
    assert main(["simulate", "modbus", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_place_that_is_taken_is_a_port_error(tmp_path, capsys):
    taken = tmp_path / "file"
    taken.write_text("mine")
    assert main(["simulate", "dlt645", "--pty", str(taken)]) == 4
    assert "File exists" in capsys.readouterr().err


async def test_a_sunspec_inverter_is_found_by_its_models_and_read():
    arguments = ("--modbus-tcp", "127.0.0.1:0", "--profile", "sunspec", "--yield-kwh", "100.5")
    async with Running("modbus", *arguments) as running:
        options = ["--link", running.ready, "--address", "1", "--profile", "sunspec", "--json"]
        reading = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headend.cli.main", "read", *options, "pv_yield_total", "model",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, _ = await asyncio.wait_for(reading.communicate(), 60)
        energy, model = map(json.loads, said.splitlines())
        assert Decimal(energy["value"]) >= Decimal("100.5")
        assert (model["value"], energy["unit"], energy["side"]) == ("S103", "kWh", "primary")
