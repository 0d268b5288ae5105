"""`headend plan`: what it prints, and its exit codes."""

import json
from pathlib import Path

import jsonschema
import pytest

from headend.cli.main import main

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "plan.schema.json").read_text())
HEAD = """
headend: {{name: he1, zone: Asia/Shanghai, data: ./data}}
buses:
  line: {{link: "{link}"}}
plans:
  p: {{every: [{{{every}, points: [active_import_total, active_export_total]}}]}}
meters:
"""
METER = (
    "  - {{id: M-{n}, service_point: SP-{n}, bus: line, protocol: dlt645-2007, "
    'address: "{n:012d}", plan: p}}\n'
)


def configuration(
    folder: Path,
    *,
    meters: int,
    every: str = "minutes: 15",
    link: str = "tcp://127.0.0.1:1?baud=2400",
) -> str:
    path = folder / "headend.yaml"
    lines = "".join(METER.format(n=n) for n in range(1, meters + 1))
    path.write_text(HEAD.format(link=link, every=every) + lines)
    return str(path)


def planned(path: str, capsys: pytest.CaptureFixture[str]) -> dict:
    code = main(["plan", "--config", path, "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    jsonschema.validate(found, SCHEMA)
    assert code == (0 if found["fits"] else 1)
    return found


@pytest.mark.parametrize("name", ["example.yaml", "fleet.yaml", "modbus.yaml", "laptop.yaml"])
def test_every_example_fits_and_its_plan_has_the_schemas_shape(name, capsys):
    assert main(["plan", "--config", str(ROOT / "config" / name), "--json"]) == 0
    for line in capsys.readouterr().out.splitlines():
        jsonschema.validate(json.loads(line), SCHEMA)


def test_the_arithmetic_is_that_of_bytes_turnaround_and_gaps(tmp_path, capsys):
    found = planned(configuration(tmp_path, meters=1), capsys)
    # 4 FE + 16 bytes out, 4 FE + 20 bytes back, both registers read twice (no parity is seen).
    once_s = (20 + 24) * 11 / 2400 + 0.100 + 0.030
    assert found["round_s"] == pytest.approx(4 * once_s, abs=0.001)
    assert [ask["times"] for ask in found["reads"][0]["asks"]] == [2, 2]
    assert found["cycle_s"] == 900


def test_a_plan_that_cannot_be_kept_says_what_would_help_and_the_help_is_true(tmp_path, capsys):
    path = configuration(tmp_path, meters=64, every="seconds: 60")
    found = planned(path, capsys)
    assert not found["fits"]
    advice = {entry["change"]: entry["to"] for entry in found["advice"]}
    seconds = int(advice["every"].split()[0])
    assert planned(configuration(tmp_path, meters=64, every=f"seconds: {seconds}"), capsys)["fits"]
    most = int(advice["meters"])
    assert planned(configuration(tmp_path, meters=most, every="seconds: 60"), capsys)["fits"]
    more = configuration(tmp_path, meters=most + 1, every="seconds: 60")
    assert not planned(more, capsys)["fits"]


def test_a_faster_line_is_named_where_it_helps(tmp_path, capsys):
    link = "serial:///dev/ttyS9?baud=1200"
    found = planned(configuration(tmp_path, meters=40, every="seconds: 60", link=link), capsys)
    advice = {entry["change"]: entry["to"] for entry in found["advice"]}
    faster = link.replace("1200", advice["baud"])
    path = configuration(tmp_path, meters=40, every="seconds: 60", link=faster)
    assert planned(path, capsys)["fits"]


def test_people_are_told_in_their_language(tmp_path, capsys):
    path = configuration(tmp_path, meters=64, every="seconds: 60")
    assert main(["plan", "--config", path, "--lang", "zh"]) == 1
    shown = capsys.readouterr().out
    assert "时间不够" in shown
    assert "采集间隔不小于" in shown
    assert main(["plan", "--config", path, "--lang", "en", "--reads"]) == 1
    shown = capsys.readouterr().out
    assert "DOES NOT FIT" in shown
    assert "00010000 (twice)" in shown


def test_an_unknown_bus_is_a_usage_error(tmp_path, capsys):
    path = configuration(tmp_path, meters=1)
    assert main(["plan", "--config", path, "--bus", "lime"]) == 2
    assert "there is no bus lime" in capsys.readouterr().err


@pytest.mark.parametrize(("lang", "word"), [("en", "Modbus requests"), ("zh", "Modbus 请求")])
def test_modbus_requests_are_shown_with_their_points_and_their_cost(lang, word, capsys):
    config = str(ROOT / "config" / "modbus.yaml")
    assert main(["plan", "--config", config, "--reads", "--lang", lang]) == 0
    text = capsys.readouterr().out
    assert word in text
    (row,) = [line.split() for line in text.splitlines() if " 0..53 " in line]
    assert row[:4] == ["C-2", "4", "0..53", "50"]
    assert row[-2:] == ["voltage_a", "active_power_total"]
    assert int(row[4]) > 200  # ms at 9600 baud, with what the meter thinks
