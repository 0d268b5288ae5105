"""The commands that read the journal, on a real configuration, while the writer has it open."""

import json
from datetime import date
from pathlib import Path

import jsonschema
import pytest
from journal_kit import NOON_MS, Bench, reading

from headend.cli.main import main
from headend.domain.due import DueKey, DuePoint
from headend.domain.reading import Verdict
from headend.journal import Birth

DAY = date(2026, 3, 1)
SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
CONFIG = """\
headend: {name: he1, zone: Asia/Shanghai, data: ./data}
buses:
  street-a: {link: "tcp://127.0.0.1:4001"}
meters:
  - {id: M-1, service_point: SP-M-1, bus: street-a, protocol: dlt645-2007,
     address: "000000000001", plan: household}
plans:
  household: {daily: {at: "00:00", points: [active_import_total]}}
"""


def schema_of(name):
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text())


def conforms(line, name):
    value = json.loads(line)
    jsonschema.validate(value, schema_of(name), format_checker=jsonschema.FormatChecker())
    return value


@pytest.fixture
async def place(tmp_path):
    """A configuration and its journal with a day's work in it, open for writing."""
    config = tmp_path / "headend.yaml"
    config.write_text(CONFIG)
    bench = Bench(tmp_path / "data" / "journal.db")
    async with await bench.open() as journal:
        keys = [DueKey(f"M-{n}", "active_import_total", NOON_MS) for n in (1, 2, 3)]
        await journal.freeze_due(
            DAY, [DuePoint(key, "street-a", "T-7", key.due_ms + 60_000) for key in keys]
        )
        await journal.append(Birth((reading("12345.60", due_ms=NOON_MS),)))
        await journal.append(Birth((reading("12345.70"),)))
        held = reading("0.00", meter="M-2", due_ms=NOON_MS, verdict=Verdict.HELD, flags=("zero",))
        await journal.append(Birth((held,)))
        await journal.due_failed(keys[2], "no_answer:silence")
        await journal.append(Birth((reading("230.1", point="voltage_a", unit="V"),)))
        await journal.receipt("billing", 1)
        await journal.last_frozen_day()
        yield config


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


async def test_readings_as_json_are_read_records(place, capsys):
    code, lines, err = run(capsys, "readings", "--config", place, "--json")
    assert (code, err) == (0, "")
    records = [conforms(line, "reading_record") for line in lines]
    assert {(r["meter"], r["point"], r["value"], r["revision"]) for r in records} == {
        ("M-1", "active_import_total", "12345.70", 2),
        ("M-1", "voltage_a", "230.1", 1),
        ("M-2", "active_import_total", "0.00", 1),
    }


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--meter", "M-1"], 2),
        (["--point", "voltage_a"], 1),
        (["--meter", "M-1", "--point", "active_import_total", "--revisions"], 2),
        (["--from", "2026-03-01T20:00"], 3),  # local: noon UTC
        (["--from", "2026-03-01T20:00:01"], 0),
        (["--to", "2026-03-01T12:00:00Z"], 0),
        (["--to", "2026-03-02"], 3),
        (["--meter", "nobody"], 0),
    ],
)
async def test_readings_are_chosen_by_meter_point_and_time(place, capsys, options, count):
    code, lines, err = run(capsys, "readings", "--config", place, "--json", *options)
    assert code == 0
    assert len(lines) == count
    assert ("no readings" in err) == (count == 0)


async def test_readings_for_people_are_a_table_in_local_time(place, capsys):
    code, lines, _err = run(capsys, "readings", "--config", place, "--meter", "M-1")
    assert code == 0
    assert lines[0].split()[:4] == ["TIME", "METER", "POINT", "VALUE"]
    assert any(line.startswith("2026-03-01 20:00:00  M-1") for line in lines[1:])


async def test_due_counts_every_point_once(place, capsys):
    code, (line,), _err = run(capsys, "due", "--config", place, "--day", "2026-03-01", "--json")
    assert code == 0
    summary = conforms(line, "due")
    assert summary["frozen"] == 3
    assert summary["read"] == 1
    assert summary["open"] == 2
    assert summary["by_reason"] == {"held": 1, "no_answer:silence": 1}
    assert summary["by_bus"][0]["bus"] == "street-a"
    code, lines, _err = run(
        capsys, "due", "--config", place, "--day", "2026-03-01", "--list", "--json"
    )
    assert [conforms(line, "due")["state"] for line in lines] == ["read", "open", "open"]
    code, lines, _err = run(capsys, "due", "--config", place, "--day", "2026-03-01")
    assert code == 0
    assert any(line.startswith("street-a") for line in lines)


async def test_a_day_without_a_list_is_not_good(place, capsys):
    code, (line,), err = run(capsys, "due", "--config", place, "--day", "2020-01-01", "--json")
    assert code == 1
    assert conforms(line, "due")["frozen"] == 0
    assert "nothing was written down" in err


async def test_trace_leads_back_to_the_bytes(place, capsys):
    _code, lines, _err = run(
        capsys, "readings", "--config", place, "--point", "active_import_total", "--json",
        "--revisions",
    )  # fmt: skip
    first = json.loads(lines[0])
    code, (line,), _err = run(capsys, "trace", first["read_id"], "--config", place, "--json")
    assert code == 0
    shown = conforms(line, "trace")
    assert shown["reading"] == first
    assert [r["revision"] for r in shown["revisions"]] == [1, 2]
    assert shown["exchange"]["ref"] == first["evidence"]
    assert shown["exchange"]["request"].startswith("FEFEFEFE68")
    assert shown["exchange"]["took_ms"] == 150.25
    assert shown["due"]["state"] == "read"
    assert shown["software"] == "0.1.0"
    code, lines, _err = run(capsys, "trace", first["read_id"], "--config", place)
    assert code == 0
    assert any(line.startswith("request") and "FE FE FE FE 68" in line for line in lines)


@pytest.mark.parametrize("wrong", ["0" * 32, "not an id"])
async def test_an_unknown_id_is_not_good(place, capsys, wrong):
    code, lines, err = run(capsys, "trace", wrong, "--config", place, "--json")
    assert (code, lines) == (1, [])
    assert "no reading" in err


async def test_feed_status_shows_cursor_and_backlog(place, capsys):
    code, lines, _err = run(capsys, "feed", "status", "--config", place, "--json")
    assert code == 0
    found = {s["consumer"]: s for s in (conforms(line, "feed_status") for line in lines)}
    assert found["billing"]["last_seq"] == 2
    assert found["billing"]["receipted_seq"] == 1
    assert found["billing"]["backlog"] == 1
    assert found["board"]["backlog"] == 3
    assert found["board"]["waiting_since"] == "2026-03-01"
    code, lines, _err = run(capsys, "feed", "status", "--config", place)
    assert code == 0
    assert lines[1].startswith("CONSUMER")


@pytest.mark.parametrize(
    "arguments",
    [
        ("readings", "--from", "yesterday"),
        ("readings", "--to", "2026-13-01"),
        ("due", "--day", "1.3.2026"),
    ],
)
async def test_a_time_that_is_none_is_a_usage_error(place, capsys, arguments):
    code, lines, err = run(capsys, *arguments, "--config", place)
    assert (code, lines) == (2, [])
    assert "for example" in err


async def test_without_a_journal_every_command_says_so(tmp_path, capsys):
    config = tmp_path / "headend.yaml"
    config.write_text(CONFIG)
    for arguments in (["readings"], ["due"], ["trace", "0" * 32], ["feed", "status"]):
        code, lines, err = run(capsys, *arguments, "--config", config)
        assert (code, lines) == (1, [])
        assert "there is no journal" in err
