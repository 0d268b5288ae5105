"""What the daemon has measured of clocks is told by the command, from the journal alone."""

import json
from pathlib import Path

import jsonschema

from headend.cli.main import main
from headend.config import load_config
from headend.domain.clock import SystemClock, from_iso
from headend.journal import ClockMeasured, JournalReader
from simulators.schedule import run_virtual
from tests.soak.world import IMPORT, Estate, daemon
from tests.support.waiting import eventually

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
PLAN = f"  p: {{every: [{{minutes: 60, points: [{IMPORT}]}}], clock: ticket}}"


def shown(capsys, *arguments):
    """The JSON lines of the command, and its exit code."""
    code = main(["clock", "list", *arguments, "--json"])
    schema = json.loads((SCHEMAS / "clock_state.schema.json").read_text("utf-8"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line in lines:
        jsonschema.validate(line, schema)
    return code, lines


def test_the_daemon_measures_by_itself_and_the_command_tells_it(tmp_path, capsys):
    async def story(loop):
        estate = Estate(loop, buses=1, each=2, baud=9600)
        config = estate.configure(tmp_path, PLAN, broker=None)
        estate.meters["M-00002"].device.meter_clock.error_ms = 90_000
        async with daemon(config, estate) as parts:
            await eventually(
                lambda: len([c for c in parts.clocks.clocks.values() if c.history]) == 2,
                timeout_s=3700,
                every_s=30,
            )
        return config

    # By the machine's time: the command looks two months back.
    config = run_virtual(story, start_ms=SystemClock().now_ms() - 86_400_000)
    code, (right, wrong) = shown(capsys, "--config", str(config.path))
    assert code == 1
    assert (right["verdict"], wrong["verdict"]) == ("leave", "sync")
    assert abs(float(right["offset_s"])) <= float(right["uncertainty_s"])
    assert abs(float(wrong["offset_s"]) - 90) <= float(wrong["uncertainty_s"])
    assert wrong["policy"] == "ticket"
    assert shown(capsys, "M-00001", "--config", str(config.path))[0] == 0
    assert main(["clock", "list", "--config", str(config.path), "--lang", "zh"]) == 1
    assert "超差" in capsys.readouterr().out
    assert main(["clock", "list", "M-9", "--config", str(config.path)]) == 2
    with JournalReader(config.journal_path) as reader:
        (rows, _) = reader.clock_history().values()
    assert from_iso(right["measured_at"]) == rows[-1].at_ms
    assert isinstance(rows[-1], ClockMeasured)


def test_a_plan_that_wants_it_has_a_clock_set_by_the_daemon_and_the_audit_knows(tmp_path, capsys):
    plan = f"  p: {{every: [{{minutes: 60, points: [{IMPORT}]}}], clock: sync}}"

    async def story(loop):
        estate = Estate(loop, buses=1, each=2, baud=9600)
        config = estate.configure(tmp_path, plan, broker=None)
        password = tmp_path / "password"
        password.write_text("04 000000\n")
        password.chmod(0o600)
        text = config.path.read_text() + "control: {enabled: true, password_file: password}\n"
        config.path.write_text(text)
        config = load_config(config.path)
        meter = estate.meters["M-00002"].device
        meter.meter_clock.error_ms = 90_000
        async with daemon(config, estate) as parts:
            await eventually(lambda: parts.clocks.set, timeout_s=4 * 3600, every_s=30)
            away_ms = meter.meter_clock.local_ms(loop.now_ms()) - loop.now_ms() - 480 * 60_000
        return config, away_ms

    config, away_ms = run_virtual(story, start_ms=SystemClock().now_ms() - 86_400_000)
    assert abs(away_ms) < 1000
    audit = (config.data_path / "control_audit.jsonl").read_text().splitlines()
    intent, ended = [json.loads(line) for line in audit]
    assert (intent["subject"], intent["by"], ended["outcome"]) == ("M-00002", "headend", "set")
    with JournalReader(config.journal_path) as reader:
        (jump,) = reader.events(kinds=("clock_jump",))
    assert jump.fields["meter"] == "M-00002"
    code, (_, state) = shown(capsys, "--config", str(config.path))
    assert code == 0
    assert state["verdict"] == "leave"
    assert state["set_at"] == state["measured_at"]
