"""`headend read` against Modbus servers that nobody here wrote (pymodbus), over every medium."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from headend.cli.main import main
from protocols.modbus.master import read_request
from tests.support.third_party_modbus import BUSY, FAILED, UNREACHED, third_party_modbus

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "reading.schema.json").read_text(encoding="utf-8"))
SDM = ("--profile", "eastron_sdm630")


@pytest.fixture(scope="module", params=["tcp", "rtu-tcp", "pty"])
def link(request: pytest.FixtureRequest) -> Iterator[str]:
    with third_party_modbus(request.param) as where:
        yield where


@pytest.fixture(scope="module")
def tcp() -> Iterator[str]:
    with third_party_modbus("tcp") as where:
        yield where


def read(
    link: str, unit: int, *arguments: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and readings, each held against the schema."""
    protocol = "modbus-tcp" if link.startswith("modbus-tcp") else "modbus-rtu"
    options = ["--link", link, "--protocol", protocol, "--address", str(unit), "--json"]
    code = main(["read", *options, *arguments])
    readings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for reading in readings:
        jsonschema.validate(reading, SCHEMA)
    return code, readings


def test_a_foreign_server_is_read_exactly(link: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        "active_import_total": ("12345.67", "kWh"),
        "active_export_total": ("0.25", "kWh"),
        "voltage_a": ("230.5", "V"),
        "voltage_c": ("229.8", "V"),
        "active_power_total": ("-1.5000", "kW"),
        "frequency": ("49.98", "Hz"),
    }
    code, readings = read(link, 1, *SDM, *expected, capsys=capsys)
    assert code == 0
    assert {r["point"]: (r["value"], r["unit"]) for r in readings} == expected
    one, two = readings[:2]
    assert (one["time"], one["reply"]) == (two["time"], two["reply"])
    assert {(r["meter"], r["side"], r["multiplier"]) for r in readings} == {("1", "primary", "1")}


def test_the_bytes_lead_back_to_the_value(link: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, (reading,) = read(link, 1, "reg:4:72:float32", capsys=capsys)
    assert (code, reading["value"]) == (0, "12345.67")
    transaction = 1 if link.startswith("modbus-tcp") else None
    asked = read_request(1, 4, 72, 2, transaction=transaction)
    assert reading["request"] == asked.raw.hex().upper()
    assert "4640E6AE" in reading["reply"]


@pytest.mark.parametrize(
    ("unit", "points", "expected", "error"),
    [
        (1, ["reg:4:0:2", "reg:4:9000:1"], 1, "refused"),
        (1, ["reg:4:9000:1"], 5, "refused"),
        (FAILED, ["reg:4:0:2"], 5, "refused"),
        (BUSY, ["reg:4:0:2"], 5, "busy"),
        (UNREACHED, ["reg:4:0:2"], 3, "no_answer"),
        (77, ["reg:4:0:2"], 5, "refused"),
    ],
    ids=["one of two", "no such register", "failed", "busy", "behind a gateway", "no such unit"],
)
def test_the_exit_code_tells_what_failed(
    unit: int,
    points: list[str],
    expected: int,
    error: str,
    tcp: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, readings = read(tcp, unit, "--retries", "1", *points, capsys=capsys)
    assert code == expected
    last = readings[-1]
    assert (last["value"], last["error"]["code"]) == (None, error)
    if error == "no_answer":
        assert (last["error"]["diagnosis"], last["attempts"]) == ("unreached", 2)


def test_ratios_go_into_what_is_measured_and_beside_what_is_counted(
    tcp: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, (energy, voltage) = read(
        tcp, 2, "--profile", "acrel_adl400", "--ct", "40", "--pt", "100",
        "active_import_total", "voltage_a", capsys=capsys,
    )  # fmt: skip
    # The server knows these registers as holding registers too.
    assert (code, energy["value"], voltage["value"]) == (0, "10.25", "5770.0")
    assert (energy["side"], energy["multiplier"]) == ("secondary", "4000")
    assert (voltage["side"], voltage["multiplier"]) == ("primary", "1")


def test_framing_of_the_other_kind_gives_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    """A transparent converter asked in Modbus TCP, and the other way round."""
    with third_party_modbus("rtu-tcp") as where:
        wrong = where.replace("tcp://", "modbus-tcp://")
        code, (reading,) = read(
            wrong, 1, "--retries", "0", "--timeout", "0.3", "reg:4:0:2", capsys=capsys
        )
    assert (code, reading["value"]) == (3, None)


def test_a_silent_host_and_a_closed_port_are_told_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"modbus-tcp://127.0.0.1:{server.getsockname()[1]}"
        options = ("--retries", "0", "--timeout", "0.2", "reg:4:0:2")
        code, (reading,) = read(where, 1, *options, capsys=capsys)
        assert (code, reading["error"]["diagnosis"]) == (3, "silence")
    code, (reading,) = read(where, 1, *options, capsys=capsys)
    assert (code, reading["error"]["code"]) == (4, "port_gone")


def test_people_see_the_points_of_the_profile(tcp: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The protocol goes with the link when it is not given."""
    options = ["--link", tcp, "--address", "1", *SDM, "--lang", "zh"]
    assert main(["read", *options, "active_import_total", "reg:4:72:2"]) == 0
    _, named, raw = capsys.readouterr().out.splitlines()
    assert named.split()[:3] == ["active_import_total", "12345.67", "kWh"]
    assert "正向有功总电能" in named
    assert raw.split()[:2] == ["reg:4:72:2", str(0x4640E6AE)]


LINK = ["--link", "modbus-tcp://127.0.0.1:9"]
RTU = ["--link", "/dev/x", "--protocol", "modbus-rtu"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*LINK, "--address", "1", "voltage_a"], "without a profile only raw registers"),
        ([*LINK, "--address", "1", *SDM, "volts_a"], "nearest is 'voltage_a'"),
        ([*LINK, "--address", "1", "reg:5:0:1"], "function 3 or 4"),
        ([*LINK, "--address", "1", "--profile", "eastron", "v"], "eastron_sdm630"),
        ([*LINK, "--address", "256", "reg:4:0:1"], "0 to 255"),
        ([*RTU, "--address", "0", "reg:4:0:1"], "1 to 247"),
        ([*RTU, "--address", "000000000001", "reg:4:0:1"], "is not a Modbus unit"),
        ([*RTU, "--address", "1", "--freeze", "1", "reg:4:0:1"], "keeps no daily freeze"),
        ([*RTU, "--address", "1", *SDM, "--ct", "40", "voltage_a"], "applied already"),
        (["--link", "/dev/x", "--protocol", "modbus-tcp", "--address", "1", "p"], "not spoken"),
        ([*LINK, "--protocol", "modbus-rtu", "--address", "1", "p"], "not spoken"),
        ([*LINK, "--protocol", "dlt645-2007", "--address", "000000000001", "p"], "not spoken"),
        (["--link", "/dev/x", "--address", "000000000001", "reg:4:0:1"], "is a Modbus register"),
        (["--link", "/dev/x", "--address", "000000000001", "--ct", "2", "p"], "is for Modbus"),
        (["--config", "f", "--meter", "m", *SDM, "p"], "exclude each other"),
    ],
)
def test_wrong_usage_is_code_two_and_says_what_is_right(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["read", *arguments]) == 2
    assert said in capsys.readouterr().err
