"""What looks at a clock say, how clocks drift, and when one was set: pure."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.acquisition.clock_jumps import ClockJumps
from headend.acquisition.meter_clocks import (
    DAY_MS,
    MeterClock,
    first_at,
    is_ours,
    next_at,
    policy_of,
    trend,
)
from headend.config.sections.control import ClockControlSection
from headend.control.clock_policy import Verdict, forbidden
from headend.domain.clock import to_ms
from headend.domain.clock_offset import Measured, drift, has_jumped, measured, narrowed
from headend.domain.meter import Event, Meter

ZONE = ZoneInfo("Asia/Shanghai")
NOON_MS = 1_780_000_000_000


def look_at(true_ms, offset_ms, sent_ms, took_ms, at_share):
    """What one exchange finds of a clock that is off by so much and shows whole seconds."""
    looked_ms = sent_ms + round(took_ms * at_share)
    shown_ms = (looked_ms + offset_ms) // 1000 * 1000
    return measured(shown_ms, sent_ms + took_ms // 2, took_ms)


@given(
    offset_ms=st.integers(-90_000_000, 90_000_000),
    looks=st.lists(
        st.tuples(st.integers(0, 60_000), st.integers(20, 3000), st.floats(0, 1)),
        min_size=1,
        max_size=5,
    ),
)
def test_the_truth_lies_within_the_bounds_whatever_the_delays(offset_ms, looks):
    found = [
        look_at(None, offset_ms, NOON_MS + sent_ms, took_ms, share)
        for sent_ms, took_ms, share in looks
    ]
    for look in found:
        assert look.low_ms - 2 <= offset_ms <= look.high_ms + 2
    together = narrowed(found)
    assert together is not None
    assert together.low_ms - 2 <= offset_ms <= together.high_ms + 2
    assert together.uncertainty_ms <= min(look.uncertainty_ms for look in found) + 1


def test_a_latency_of_900_ms_widens_the_bounds_and_moves_nothing():
    looks = [look_at(None, 0, NOON_MS + n * 1370, 900, 0.95) for n in range(3)]
    found = narrowed(looks)
    assert found.low_ms <= 0 <= found.high_ms
    assert found.uncertainty_ms <= 950


def test_looks_that_contradict_each_other_are_no_measurement():
    assert narrowed([Measured(0, 520, NOON_MS), Measured(4000, 520, NOON_MS)]) is None


@given(
    rate=st.integers(-3000, 3000),
    noise=st.lists(st.integers(-400, 400), min_size=8, max_size=20),
    wild=st.integers(0, 1),
)
def test_the_drift_is_found_though_some_measurements_are_wrong(rate, noise, wild):
    points = [
        Measured(rate * day + error, 500, NOON_MS + day * DAY_MS) for day, error in enumerate(noise)
    ]
    points[3] = Measured(points[3].offset_ms + wild * 900_000, 500, points[3].at_ms)
    found = drift(points)
    assert abs(found.ms_per_day - rate) <= 500


def test_no_drift_is_told_from_two_days_or_two_measurements():
    points = [Measured(0, 500, NOON_MS), Measured(9, 500, NOON_MS + DAY_MS)]
    assert drift(points) is None
    assert drift([*points, Measured(20, 500, NOON_MS + DAY_MS + 1)]) is None


@pytest.mark.parametrize(
    ("after_ms", "days", "jumped"),
    [(4000, 1, False), (40_000, 1, True), (40_000, 30, False), (86_400_000, 1, True)],
)
def test_a_clock_that_was_set_is_told_from_one_that_drifts(after_ms, days, jumped):
    before = Measured(0, 520, NOON_MS)
    assert has_jumped(before, Measured(after_ms, 520, NOON_MS + days * DAY_MS)) is jumped


def test_the_trend_begins_anew_when_the_clock_was_set():
    clock = MeterClock("M-1", 0)
    for day in range(5):
        clock.take(Measured(1000 * day, 500, NOON_MS + day * DAY_MS), 3)
    assert clock.drift.ms_per_day == 1000
    row = clock.take(Measured(0, 500, NOON_MS + 5 * DAY_MS), 3, was_set=True)
    assert row.began
    assert clock.drift is None
    assert trend([*clock.history]) is None


def test_meters_are_spread_over_the_day_and_come_once_a_day():
    names = [f"M-{n}" for n in range(1000)]
    hours = [next_at(name, NOON_MS) // 3_600_000 % 24 for name in names]
    assert max(hours.count(h) for h in range(24)) < 80
    for name in names:
        at_ms = next_at(name, NOON_MS)
        assert DAY_MS / 2 <= at_ms - NOON_MS <= DAY_MS * 1.5
        assert next_at(name, at_ms) == at_ms + DAY_MS
        assert NOON_MS <= first_at(name, None, NOON_MS) < NOON_MS + 3_600_000
        assert first_at(name, NOON_MS - 9 * DAY_MS, NOON_MS) == NOON_MS


def test_a_plan_comes_before_a_model_and_a_model_before_everybody():
    section = ClockControlSection(policy="ticket", models={"old_meter": "sync"})
    meter = Meter("M-1", "S-1", "b", "dlt645-2007", "000000000001", "p")
    old = Meter("M-2", "S-1", "b", "dlt645-2007", "000000000002", "p", profile="old_meter")
    assert policy_of(meter, None, section) == "ticket"
    assert policy_of(old, None, section) == "sync"
    assert policy_of(old, "leave", section) == "leave"


def clock_off(meter, offset_ms, at_ms=NOON_MS):
    clock = MeterClock(meter, 0)
    clock.take(Measured(offset_ms, 500, at_ms), 3)
    return clock


def test_many_meters_that_are_off_alike_speak_against_our_own_clock():
    others = [clock_off(f"M-{n}", 30_000 + n * 100) for n in range(6)]
    assert is_ours(30_200, others, NOON_MS)
    assert not is_ours(30_200, others, NOON_MS + 3 * DAY_MS)
    assert not is_ours(30_200, others[:4], NOON_MS)
    assert not is_ours(30_200, [*others, *(clock_off(f"R-{n}", n) for n in range(7))], NOON_MS)


def test_one_measurement_that_is_wrong_counts_until_a_right_one_follows():
    section = ClockControlSection()
    clock = clock_off("M-1", 60_000)
    assert clock.judge(section) is Verdict.SYNC
    assert clock.wrong_in_row == 1
    clock.take(Measured(100, 500, NOON_MS + DAY_MS), 3)
    assert clock.judge(section) is Verdict.LEAVE
    assert clock.wrong_in_row == 0


@pytest.mark.parametrize(
    ("when", "offset_s", "says"),
    [
        ("2026-03-10T23:59:58", 30, "midnight"),
        ("2026-03-11T00:00:02", -30, "midnight"),
        ("2026-03-10T14:00:00", 30, "full hour"),
        ("2026-03-10T13:58:58", 90, "full hour"),
        ("2026-03-01T08:25:00", 30, "settlement 01 08:30"),
        ("2026-03-01T08:08:00", 900 + 360, "settlement 01 08:30"),
        ("2026-03-02T08:25:00", 30, None),
        ("2026-03-10T14:20:00", 30, None),
        ("2026-03-10T14:20:00", 86_400, None),
    ],
)
def test_a_clock_is_not_set_at_a_moment_that_matters(when, offset_s, says):
    section = ClockControlSection(settlements=("01 08:30",))
    now_ms = to_ms(datetime.fromisoformat(when).replace(tzinfo=ZONE))
    why = forbidden(now_ms, offset_s * 1000, section, ZONE)
    assert (why is None) is (says is None)
    assert says is None or says in why


def test_a_settlement_on_the_first_is_guarded_on_the_last_of_the_month_before():
    section = ClockControlSection(
        settlements=("01 00:40",), settlement_guard_s=3600, midnight_guard_s=300
    )
    now_ms = to_ms(datetime(2026, 2, 28, 23, 50, tzinfo=ZONE))
    assert "settlement 01 00:40" in forbidden(now_ms, 1000, section, ZONE)


def jump(before_s, after_s, at_ms=NOON_MS, **more):
    fields = {"meter": "M-1", "before_s": before_s, "after_s": after_s, **more}
    return Event("clock_jump", at_ms, fields)


def test_what_a_meter_stamped_while_its_clock_was_set_is_touched_and_nothing_else():
    jumps = ClockJumps()
    assert not jumps
    jumps.add(jump("30.0", "0.2"))
    assert jumps
    assert jumps.touches("M-1", NOON_MS + 10_000, NOON_MS + 10_000)
    assert jumps.touches("M-1", NOON_MS - 900_000, NOON_MS + 500)
    assert not jumps.touches("M-1", NOON_MS + 31_000, NOON_MS + 900_000)
    assert not jumps.touches("M-2", NOON_MS, NOON_MS)
    jumps.add(jump("0.0", "60.0", NOON_MS + DAY_MS, since="2026-05-28T00:00:00Z"))
    assert jumps.touches("M-1", NOON_MS - DAY_MS, NOON_MS + DAY_MS)
