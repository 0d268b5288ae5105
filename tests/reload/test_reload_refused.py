"""A configuration that is not good leaves the daemon exactly as it was, and is told everywhere."""

import json
from pathlib import Path

import jsonschema
import pytest
from reload_world import WAIT_S, World

from headend.config import ConfigErrors
from headend.config.changes import diff
from headend.domain.errors import ConfigError
from headend.reload import load_whole
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "reload.schema.json"


def check_schema(outcome: dict[str, object]) -> None:
    jsonschema.validate(outcome, json.loads(SCHEMA.read_text()))


async def test_a_half_saved_file_changes_nothing_and_is_one_alarm_until_a_good_one(street: World):
    before = (await street.status())["configuration"]
    whole = str(street.text)
    async with street.untouched("M-1", "M-2"):
        half = whole[: whole.index("plans:") + 30]
        street.write(half)
        outcome = await street.reloads()
        check_schema(outcome)
        assert outcome["outcome"] == "refused"
        error = outcome["errors"][0]
        assert error["file"] == str(street.file)
        assert error["line"] - half.count("\n") in (1, 2)  # its last line, or the end behind it
        assert f"configuration refused: {street.file}:{error['line']}: " in street.log()
        street.write(whole[:40])
        again = await street.reloads()
        assert again["outcome"] == "refused"
        assert (await street.status())["configuration"] == before
        (alarm,) = await eventually(street.alarms, every_s=0.1)
        assert alarm.kind == "alarm"
        assert alarm.fields["file"] == str(street.file)
        assert alarm.fields["line"] == error["line"]
        assert error["message"] == alarm.fields["reason"]
        street.write()
        good = await street.reloads()
    assert (good["outcome"], good["errors"]) == ("unchanged", [])
    both = await eventually(
        lambda: cleared(street), timeout_s=WAIT_S, every_s=0.1, what="the alarm is cleared"
    )
    assert [event.kind for event in both] == ["alarm", "alarm_cleared"]


async def cleared(street: World):
    events = await street.alarms()
    return events if len(events) > 1 else None


async def test_two_meters_with_one_address_are_refused_with_the_place(street: World):
    street.text.meters["M-5"] = ("a", 1, "x")
    street.write()
    line = 1 + next(n for n, row in enumerate(str(street.text).splitlines()) if "M-5" in row)
    async with street.untouched("M-1"):
        code, out, err = await street.command("reload", "--config", str(street.file))
        assert code == 2
        assert "stays in force" in out
        expected = f"{street.file}:{line}: meters[3].address: the address 000000000001 on bus a is"
        assert expected in err
        code, out, err = await street.command("reload", "--config", str(street.file), "--json")
        assert code == 2
        outcome = json.loads(out)
        check_schema(outcome)
        assert [error["key"] for error in outcome["errors"]] == ["meters[3].address"]
        assert outcome == (await street.status())["reload"]


async def test_what_needs_a_restart_is_refused_and_nothing_else_changes(street: World):
    street.text.headend = "{name: he1, zone: Europe/Berlin, data: data}"
    street.text.buses["a"] += ", timeout_ms: 900"
    del street.text.meters["M-2"]
    street.write()
    opened = street.a.opened
    async with street.untouched("M-1", "M-2"):
        outcome = await street.reloads()
        assert outcome["outcome"] == "refused"
        (error,) = outcome["errors"]
        assert (error["key"], error["line"]) == ("headend.zone", 1)
        assert "needs a restart" in error["message"]
    assert street.a.opened == opened
    # A restart takes it, and the alarm ends.
    await eventually(street.alarms, every_s=0.1)
    await street.stop()
    await street.start()
    assert await eventually(lambda: cleared(street), timeout_s=WAIT_S, every_s=0.1)


async def test_the_command_says_when_it_cannot_ask_and_when_it_is_the_wrong_file(street: World):
    other = street.folder / "other.yaml"
    other.write_text(str(street.text), encoding="utf-8")
    code, _, err = await street.command("reload", "--config", str(other))
    assert code == 2
    assert "which is another file" in err
    street.write("headend: {name: he1\n")
    code, _, err = await street.command("reload", "--config", str(street.file))
    assert code == 2
    assert "the daemon was not asked" in err
    assert f"{street.file}:2: is not valid YAML" in err
    street.write()
    await street.stop()
    code, _, err = await street.command("reload", "--config", str(street.file))
    assert code == 4
    assert "no daemon answers" in err


@pytest.mark.parametrize("cut", ["telemetry_days: 3", "telemetry_days: 30"])
def test_a_file_whose_last_line_has_no_end_is_taken_for_half_a_file(tmp_path: Path, cut: str):
    path = tmp_path / "headend.yaml"
    text = (
        "headend: {name: he1, zone: Asia/Shanghai, data: data}\nretention:\n  telemetry_days: 30\n"
    )
    path.write_text(text)
    assert load_whole(path).retention.telemetry_days == 30
    path.write_text(text[: text.rindex("telemetry_days")] + cut)
    with pytest.raises(ConfigError, match=r"headend.yaml:3: its last line has no end"):
        load_whole(path)


def test_a_list_of_meters_whose_last_line_has_no_end_is_taken_for_half_a_file(tmp_path: Path):
    path, rows = tmp_path / "headend.yaml", tmp_path / "meters.csv"
    path.write_text(
        "headend: {name: he1, zone: Asia/Shanghai, data: data}\n"
        'buses: {a: {link: "tcp://127.0.0.1:7001"}}\n'
        "meters: {file: meters.csv}\n"
        "plans: {p: {every: [{minutes: 15, points: [voltage_a]}]}}\n"
    )
    whole = (
        "id,service_point,bus,protocol,address,plan,capacity_kw\n"
        "M-1,SP-1,a,dlt645-2007,000000000001,p,13.2\n"
    )
    rows.write_text(whole)
    assert len(load_whole(path).meters) == 1
    rows.write_text(whole[:-3])
    with pytest.raises(ConfigError, match=r"meters.csv:2: its last line has no end"):
        load_whole(path)


def test_what_begins_with_a_brace_shows_its_end_itself(tmp_path: Path):
    path = tmp_path / "headend.yaml"
    path.write_text('{"headend": {"name": "he1", "zone": "Asia/Shanghai", "data": "data"}}')
    assert not diff(load_whole(path), load_whole(path))
    path.write_text('{"headend": {"name": "he1", "zone": "Asia/Shanghai", "data": "data"}')
    with pytest.raises(ConfigErrors):
        load_whole(path)


def test_a_file_that_changes_while_it_is_read_is_not_taken(tmp_path: Path, monkeypatch):
    path = tmp_path / "headend.yaml"
    text = "headend: {name: he1, zone: Asia/Shanghai, data: data}\n"
    path.write_text(text)
    from headend import reload as module

    real = module.load_config

    def slowly(file: Path):
        found = real(file)
        file.write_text(text + "retention: {}\n")
        return found

    monkeypatch.setattr(module, "load_config", slowly)
    with pytest.raises(ConfigError, match="was changed while it was read"):
        load_whole(path)
