"""`headend check`: what would run, and every error; held against its schema."""

import json
from pathlib import Path

import jsonschema
import pytest

from headend.cli.main import main

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "check.schema.json").read_text(encoding="utf-8"))
EXAMPLES = sorted((ROOT / "config").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_every_example_is_good(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    jsonschema.validate(shown, SCHEMA)
    assert shown["valid"]
    assert shown["meters"] == sum(bus["meters"] for bus in shown["buses"])


def test_what_would_run_is_shown_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "config" / "laptop.yaml"
    assert main(["check", "--config", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "laptop: good" in out
    # one daily pair and two points a minute
    assert "1 meters, 2882 due points a day" in out
    assert "daily 00:00" in out
    assert "every 1 min" in out
    assert "/dev/serial/by-path/" in err


def test_errors_are_told_on_stderr_with_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("headend: {name: he1, zone: UTC, data: .}\nbusses: {}\n")
    assert main(["check", "--config", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"headend check: {path}:2: busses: busses is not known as a section (did you mean buses?)\n"
    )


def test_errors_for_programs_are_json_on_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("headend: {name: he1, zone: UTC, data: .}\nbuses: 1\nx: 2\n")
    assert main(["check", "--config", str(path), "--json"]) == 2
    shown = json.loads(capsys.readouterr().out)
    jsonschema.validate(shown, SCHEMA)
    assert [(e["line"], e["key"]) for e in shown["errors"]] == [(2, "buses"), (3, "x")]


def test_a_missing_file_is_a_configuration_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", "nowhere.yaml"]) == 2
    assert "No such file" in capsys.readouterr().err
