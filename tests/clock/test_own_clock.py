"""Whether the head-end believes its own clock, and what a held clock does."""

import json

import pytest

from headend.domain.clock import SystemClock
from headend.domain.kept_clock import KeptClock
from headend.domain.own_clock import (
    NOT_SET,
    NOT_SYNCHRONISED,
    WENT_BACK,
    ClockFacts,
    distrust,
)
from headend.machine_clock import (
    OwnClock,
    boot_id,
    has_battery_clock,
    has_time_service,
    is_synchronised,
)

NOW_MS = 1_780_000_000_000
HOUR_MS = 3_600_000


def facts(**more):
    known = {
        "now_ms": NOW_MS, "synchronised": False, "has_service": True, "newest_ms": None,
        "believed_ms": None, "distance_ms": NOW_MS - 60_000.0,
    }  # fmt: skip
    return ClockFacts(**(known | more))


@pytest.mark.parametrize(
    ("trust", "more", "reason"),
    [
        ("auto", {}, NOT_SYNCHRONISED),
        ("auto", {"has_service": False}, None),
        ("auto", {"synchronised": True}, None),
        ("synchronised", {"has_service": False}, NOT_SYNCHRONISED),
        ("machine", {}, None),
        ("machine", {"now_ms": 86_400_000}, NOT_SET),
        ("machine", {"newest_ms": NOW_MS + HOUR_MS}, WENT_BACK),
        ("machine", {"newest_ms": NOW_MS + 5_000}, None),
        ("auto", {"newest_ms": NOW_MS + HOUR_MS, "synchronised": True}, None),
        ("synchronised", {"believed_ms": NOW_MS - 61_000.0}, None),
        ("synchronised", {"believed_ms": NOW_MS - 60_000.0 - HOUR_MS}, NOT_SYNCHRONISED),
        ("machine", {"believed_ms": NOW_MS - 60_000.0, "newest_ms": NOW_MS + HOUR_MS}, WENT_BACK),
    ],
)
def test_a_clock_is_believed_only_where_something_speaks_for_it(trust, more, reason):
    assert distrust(trust, facts(**more)) == reason


class Machine:
    """A wall clock that can be set, and a clock that goes on."""

    def __init__(self, now_ms=NOW_MS):
        self.ahead_ms = now_ms
        self.up_s = 60.0

    def now_ms(self):
        return round(self.ahead_ms + self.up_s * 1000)

    def monotonic(self):
        return self.up_s


def own_clock(tmp_path, machine, said, trust="synchronised", boot="boot-1"):
    return OwnClock(
        KeptClock(machine),
        trust=trust,
        marker=tmp_path / "believed.json",
        boot=boot,
        synchronised=lambda: said["synchronised"],
        has_service=lambda: True,
    )


def test_a_held_clock_goes_on_evenly_from_the_newest_stamp_whatever_the_wall_clock_does(tmp_path):
    machine, said = Machine(), {"synchronised": False}
    own = own_clock(tmp_path, machine, said)
    own.begin(NOW_MS + HOUR_MS)
    assert own.distrusted == WENT_BACK
    begun_ms = own.clock.now_ms()
    assert begun_ms == NOW_MS + HOUR_MS
    machine.up_s += 100
    machine.ahead_ms += 5 * HOUR_MS
    assert own.clock.now_ms() == begun_ms + 100_000
    said["synchronised"] = True
    assert own.look() is None
    moved_s = own.believe()
    assert own.clock.now_ms() == machine.now_ms()
    assert moved_s * 1000 == machine.now_ms() - (begun_ms + 100_000)
    # What was stamped at an elapsed time is dated by the same difference.
    assert own.clock.at_elapsed(60.0) == machine.ahead_ms + 60_000


def test_waiting_alone_makes_no_wrong_clock_right(tmp_path):
    machine, said = Machine(), {"synchronised": False}
    own = own_clock(tmp_path, machine, said, trust="machine")
    own.begin(NOW_MS + HOUR_MS)
    machine.up_s += 2 * 3600
    assert own.look() == WENT_BACK
    machine.ahead_ms += HOUR_MS  # somebody has set it
    assert own.look() is None


def test_a_person_can_vouch_for_the_clock(tmp_path):
    machine, said = Machine(), {"synchronised": False}
    own = own_clock(tmp_path, machine, said)
    own.begin(None)
    assert own.look() == NOT_SYNCHRONISED
    own.vouch("li")
    assert own.look() is None
    assert own.why_believed == "li said so"


def test_a_start_in_the_same_boot_does_not_wait_again_unless_the_clock_was_set(tmp_path):
    machine, said = Machine(), {"synchronised": True}
    own_clock(tmp_path, machine, said).begin(None)
    said["synchronised"] = False
    machine.up_s += 10 * 86_400
    again = own_clock(tmp_path, machine, said)
    again.begin(NOW_MS)
    assert again.distrusted is None
    other = own_clock(tmp_path, machine, said, boot="boot-2")
    other.begin(NOW_MS)
    assert other.distrusted == NOT_SYNCHRONISED
    machine.ahead_ms += 90_000
    after = own_clock(tmp_path, machine, said)
    after.begin(NOW_MS)
    assert after.distrusted == NOT_SYNCHRONISED


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"boot": "boot-1"})])
def test_a_marker_that_says_nothing_is_no_belief(tmp_path, text):
    (tmp_path / "believed.json").write_text(text)
    own = own_clock(tmp_path, Machine(), {"synchronised": False})
    own.begin(None)
    assert own.distrusted == NOT_SYNCHRONISED


def test_the_machine_is_asked_without_harm(tmp_path):
    assert is_synchronised() in (True, False)
    mark = tmp_path / "synchronized"
    assert not is_synchronised(mark)
    mark.touch()
    assert is_synchronised(mark)
    assert len(boot_id()) in (0, 36)


def test_a_clock_with_a_battery_is_believed_where_the_time_is_taken_from_it(tmp_path):
    (tmp_path / "run/systemd/timesync").mkdir(parents=True)
    assert has_time_service(tmp_path)
    place = tmp_path / "sys/class/rtc/rtc0/since_epoch"
    place.parent.mkdir(parents=True)
    for text, kept in (("", False), ("946684800\n", False), (f"{NOW_MS // 1000 - 3}\n", True)):
        place.write_text(text)
        assert has_battery_clock(tmp_path, lambda: NOW_MS) is kept
    place.write_text(f"{SystemClock().now_ms() // 1000}")
    assert not has_time_service(tmp_path)


@pytest.mark.parametrize(
    ("there", "waits"),
    [
        ((), False),
        (("run/systemd/timesync/",), True),
        (("run/chrony/",), False),  # left by an installation that never ran
        (("run/chrony/chronyd.pid",), True),
        (("etc/systemd/system/multi-user.target.wants/chrony.service",), False),
        (
            ("run/systemd/system/", "etc/systemd/system/multi-user.target.wants/chrony.service"),
            True,
        ),
        (("run/systemd/system/", "etc/systemd/system/multi-user.target.wants/ssh.service"), False),
    ],
)
def test_a_time_service_is_waited_for_only_where_one_runs_or_will(tmp_path, there, waits):
    for name in there:
        place = tmp_path / name
        if name.endswith("/"):
            place.mkdir(parents=True)
        else:
            place.parent.mkdir(parents=True)
            place.touch()
    assert has_time_service(tmp_path) is waits
