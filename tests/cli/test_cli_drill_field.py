"""`headend drill`: what goes wrong in the field and on the machine."""

import pytest
from drill_bench import check_passed, hold_all, short_folder

DRILLS = ("disk-full", "clock-wrong", "mass-silence", "adapter-pulled")


@pytest.mark.timeout(400)
async def test_disk_clock_silence_and_a_pulled_adapter_lose_nothing() -> None:
    with short_folder() as folder:
        held = await hold_all(DRILLS, folder)
    for one in held.values():
        check_passed(one)
    reports = {name: one.report for name, one in held.items()}
    reasons = {name: set(report["counts"]["reasons"]) for name, report in reports.items()}
    assert "journal_space" in reports["disk-full"]["alarms"]
    assert "no_room" in reasons["disk-full"]
    assert reports["clock-wrong"]["alarms"] == ["clock_jump"]
    assert reasons["clock-wrong"] <= {"overrun"}
    assert reports["mass-silence"]["alarms"] == ["mass_silence"]
    assert {reason.partition(":")[0] for reason in reasons["mass-silence"]} >= {"no_answer"}
    assert reports["adapter-pulled"]["alarms"] == ["bus_down pty-1"]
    assert "port_gone" in reasons["adapter-pulled"]
