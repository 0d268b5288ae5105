"""`headend read` against a simulated meter in a process of its own: real ptys, real sockets."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from headend.cli.main import main
from headend.domain.clock import from_iso
from protocols.dlt645.catalogue import lookup
from protocols.dlt645.items import decode
from protocols.dlt645.master import read_request, reply_payload

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "reading.schema.json").read_text(encoding="utf-8"))
ADDRESS = "000000000001"
SILENT = "di:02030000"  # the simulated meter does not answer this one
REFUSED = "di:03110001"  # it has no such record
DAMAGED = "di:02060000"  # its reply holds a digit that is none


@contextlib.contextmanager
def simulated(*arguments: str) -> Iterator[str]:
    """A simulated meter; gives its link."""
    command = [sys.executable, "-m", "headend.cli.main", "simulate", "dlt645"]
    with subprocess.Popen(
        [*command, "--address", ADDRESS, "--delay-ms", "5", "--speed", "0", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            word, _, where = process.stdout.readline().strip().partition(" ")
            assert word == "READY"
            yield where
        finally:
            process.terminate()
            process.wait(timeout=15)


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A meter with export on a pty."""
    path = tmp_path_factory.mktemp("pty") / "meter"
    with simulated(
        "--pty", str(path), "--kind", "pv", "--baud", "38400",
        "--import-kwh", "12345.67", "--export-kwh", "0.26",
        "--fault", "silent:di=02030000", "--fault", "non_bcd:di=02060000",
    ) as where:  # fmt: skip
        yield where


def read(
    link: str, *arguments: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and readings, each held against the schema."""
    code = main(["read", "--link", link, "--address", ADDRESS, "--json", *arguments])
    readings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for reading in readings:
        jsonschema.validate(reading, SCHEMA)
    return code, readings


def test_points_are_read_exactly(meter: str, capsys: pytest.CaptureFixture[str]) -> None:
    points = ("active_import_total", "active_export_total", "voltage_a", "frequency")
    code, readings = read(meter, *points, capsys=capsys)
    assert code == 0
    assert [r["point"] for r in readings] == list(points)
    assert [r["value"] for r in readings[:2]] == ["12345.67", "0.26"]
    assert [r["unit"] for r in readings] == ["kWh", "kWh", "V", "Hz"]
    assert all(r["meter"] == ADDRESS and r["status"] == "actual" for r in readings)


def test_the_bytes_lead_back_to_the_value(meter: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, (reading,) = read(meter, "active_import_total", capsys=capsys)
    assert code == 0
    request = read_request(ADDRESS, "00010000")
    assert reading["request"] == "FEFEFEFE" + request.raw.hex().upper()
    payload = reply_payload(request, bytes.fromhex(reading["reply"]))
    item = lookup("00010000")
    assert item is not None
    assert str(decode(item, payload)[0]) == reading["value"]
    took = from_iso(reading["received_at"]) - from_iso(reading["time"])
    assert 0 <= took <= reading["took_ms"]


def test_raw_identifiers_blocks_the_clock_and_the_freeze(
    meter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, (single, block, clock) = read(meter, "di:00010000", "di:0001FF00", "clock", capsys=capsys)
    assert code == 0
    assert (single["point"], single["value"]) == ("di:00010000", "12345.67")
    assert block["value"] is None
    assert block["values"][0] == "12345.67"
    assert abs(from_iso(clock["meter_time"]) - from_iso(clock["time"])) < 2000
    code, (frozen,) = read(meter, "--freeze", "1", "active_import_total", capsys=capsys)
    assert code == 0
    assert frozen["time"].endswith("T16:00:00Z")  # local midnight of the meter


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ((SILENT,), 3),
        ((REFUSED,), 5),
        ((DAMAGED,), 1),
        (("active_import_total", REFUSED), 1),
        ((REFUSED, SILENT), 1),
        ((REFUSED, REFUSED), 5),
    ],
)
def test_the_exit_code_tells_what_failed(
    points: tuple[str, ...], expected: int, meter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, readings = read(meter, "--retries", "0", "--timeout", "0.3", *points, capsys=capsys)
    assert code == expected
    assert len(readings) == len(points)


def test_a_failed_point_has_a_code_and_no_value(
    meter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, readings = read(
        meter, "--retries", "1", "--timeout", "0.3", REFUSED, DAMAGED, SILENT, capsys=capsys
    )
    assert [r["error"]["code"] for r in readings] == ["refused", "not_bcd", "no_answer"]
    assert readings[0]["error"]["reasons"] == ["no_data"]
    assert readings[2]["error"]["diagnosis"] == "silence"
    assert readings[2]["attempts"] == 2
    assert all(r["value"] is None for r in readings)


def test_people_get_a_table_in_their_language(
    meter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--link", meter, "--address", ADDRESS, "--retries", "0", "--timeout", "0.3"]
    assert main(["read", *options, "--lang", "zh", "active_import_total", SILENT]) == 1
    out, err = capsys.readouterr()
    header, good, bad = out.splitlines()
    assert header.split() == ["点", "数值", "单位", "时间", "含义"]
    assert good.split()[:3] == ["active_import_total", "12345.67", "kWh"]
    assert good.endswith("正向有功总电能")
    assert "+08:00" in good
    assert bad.split()[1] == "-"
    assert SILENT in err


def test_a_converter_that_echoes_is_read_like_any_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with simulated("--tcp", "127.0.0.1:0", "--import-kwh", "7.00", "--fault", "echo") as where:
        code, (reading,) = read(where, "active_import_total", capsys=capsys)
    assert code == 0
    assert reading["value"] == "7.00"


def test_nobody_at_the_port_is_code_four(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    code, (reading,) = read(f"tcp://127.0.0.1:{port}", "voltage_a", capsys=capsys)
    assert (code, reading["error"]["code"]) == (4, "port_gone")
    code, (reading,) = read(str(tmp_path / "none"), "voltage_a", capsys=capsys)
    assert (code, reading["error"]["code"]) == (4, "port_gone")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["voltage_a"], "--link and --address"),
        (["--link", "nowhere", "--address", ADDRESS, "voltage_a"], "is not a link"),
        (["--link", "/dev/x", "--address", "1", "voltage_a"], "twelve digits"),
        (["--link", "/dev/x", "--address", ADDRESS, "volts_a"], "voltage_a"),
        (["--link", "/dev/x", "--address", ADDRESS, "di:12"], "eight hex digits"),
        (["--link", "/dev/x", "--address", ADDRESS, "--protocol", "dlt698.45", "p"], "not avail"),
        (
            ["--link", "/dev/x", "--address", ADDRESS, "--protocol", "modbus-rtu", "p"],
            "Modbus unit",
        ),
        (["--link", "/dev/x", "--address", ADDRESS, "--protocol", "dlt", "p"], "no protocol dlt"),
        (["--link", "/dev/x", "--address", ADDRESS, "--zone", "Mars", "voltage_a"], "time zone"),
        (["--link", "/dev/x", "--address", ADDRESS, "--freeze", "0", "voltage_a"], "1 to 62"),
        (["--meter", "M-1", "voltage_a"], "--meter needs --config"),
        (["--config", "f", "voltage_a"], "needs --meter"),
        (["--config", "f", "--link", "l", "--meter", "m", "voltage_a"], "exclude each other"),
    ],
)
def test_wrong_usage_is_code_two_and_says_what_is_right(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["read", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_ctrl_c_ends_a_read_and_leaves_the_port_free(
    meter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "headend.cli.main", "read", "--link", meter]
    options = ["--address", "000000000009", "--timeout", "60", "voltage_a"]
    path = meter.removeprefix("serial://").partition("?")[0]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as process:
        device = Path(path).resolve()
        while not _has_open(process.pid, device):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "headend read: interrupted\n"
    code, _ = read(meter, "active_import_total", capsys=capsys)
    assert code == 0


def _has_open(pid: int, path: Path) -> bool:
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if Path(os.readlink(link)) == path:  # noqa: PTH115 - readlink gives what it says
                    return True
    return False


# -- through the daemon

CONFIG = """\
headend: {name: he1, zone: Asia/Shanghai, data: ./data}
buses: {a: {link: /dev/ttyUSB0}}
meters:
  - {id: M-1, service_point: SP-1, bus: a, protocol: dlt645-2007, address: "000000000001", plan: p}
plans: {p: {every: [{minutes: 15, points: [voltage_a]}]}}
"""


@contextlib.contextmanager
def answering(path: Path, reply: bytes) -> Iterator[list[dict[str, Any]]]:
    """A daemon's socket that gives one reply; the requests it got."""
    requests: list[dict[str, Any]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            client, _ = server.accept()
            with client, client.makefile("rb") as stream:
                requests.append(json.loads(stream.readline()))
                client.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield requests
        finally:
            thread.join(timeout=10)
            path.unlink()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "headend.yaml"
    path.write_text(CONFIG)
    return path


READING = {
    "schema": "reading/1", "meter": "M-1", "point": "voltage_a", "value": "229.4", "unit": "V",
    "time": "2026-03-01T00:00:00Z", "received_at": "2026-03-01T00:00:00Z", "took_ms": 300,
    "attempts": 1, "status": "actual", "request": "68", "reply": "68",
}  # fmt: skip


def failed(code: str) -> dict[str, Any]:
    error = {"code": code, "message": "m"}
    return {**READING, "value": None, "time": None, "status": None, "error": error}


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([READING], 0),
        ([failed("no_answer")], 3),
        ([failed("port_gone")], 4),
        ([failed("refused")], 5),
        ([READING, failed("refused")], 1),
        ([failed("not_bcd")], 1),
    ],
)
def test_the_running_daemon_reads_for_us(
    results: list[dict[str, Any]],
    expected: int,
    config: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reply = json.dumps({"id": 1, "ok": True, "results": results}).encode() + b"\n"
    with answering(config.parent / "data" / "headend.sock", reply) as requests:
        code = main(["read", "--config", str(config), "--meter", "M-1", "--json", "voltage_a"])
    assert code == expected
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == results
    (request,) = requests
    assert request["command"] == "read"
    assert (request["meter"], request["points"]) == ("M-1", ["voltage_a"])


@pytest.mark.parametrize(
    ("reply", "expected", "said"),
    [
        (b'{"id":1,"ok":false,"error":{"code":"usage","message":"no meter M-1"}}\n', 2, "no meter"),
        (b'{"id":1,"ok":false,"error":{"code":"refused","message":"not now"}}\n', 5, "not now"),
        (b'{"id":1,"ok":false,"error":{"code":"bus","message":"bus"}}\n', 4, "bus"),
        (b'{"id":1,"ok":false,"error":{"code":"odd","message":"odd"}}\n', 1, "odd"),
        (b"hello\n", 1, "is no headend daemon"),
        (b"[1]\n", 1, "is no headend daemon"),
        (b"", 4, "hung up"),
        (b'{"id":1', 4, "hung up"),
    ],
)
def test_what_the_daemon_cannot_do_is_told_with_its_code(
    reply: bytes, expected: int, said: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(config.parent / "data" / "headend.sock", reply):
        code = main(["read", "--config", str(config), "--meter", "M-1", "voltage_a"])
    assert code == expected
    assert said in capsys.readouterr().err


def test_without_a_daemon_it_is_said_how_to_start_one(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["read", "--config", str(config), "--meter", "M-1", "voltage_a"]) == 4
    assert "headend run --config" in capsys.readouterr().err
