"""When a meter's clock is set, and when it is not."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.config.sections.control import ClockControlSection
from headend.control.clock_policy import (
    Measured,
    Verdict,
    agreed,
    forbidden,
    measured,
    verdict,
)
from headend.domain.clock import from_iso
from headend.domain.errors import PolicyError

ZONE = ZoneInfo("Asia/Shanghai")
POLICY = ClockControlSection()


def at(text: str) -> int:
    return from_iso(f"2026-03-0{text}+08:00")


@given(
    true_ms=st.integers(0, 10**12),
    offset_ms=st.integers(-(10**7), 10**7),
    took_ms=st.integers(20, 4000),
    share=st.floats(0, 1),
)
def test_the_truth_lies_within_what_a_look_says(true_ms, offset_ms, took_ms, share):
    """Wherever in the exchange the meter looked, whatever part of the second was past."""
    looked_ms = true_ms + round(took_ms * share)
    shown_ms = (looked_ms + offset_ms) // 1000 * 1000
    look = measured(shown_ms, true_ms + took_ms // 2, took_ms)
    assert abs(look.offset_ms - offset_ms) <= look.uncertainty_ms + 1


def test_one_look_is_not_enough():
    with pytest.raises(PolicyError, match="one measurement"):
        agreed([Measured(90_000, 600, 0)])


def test_looks_that_cannot_both_be_right_are_no_ground():
    with pytest.raises(PolicyError, match="disagree"):
        agreed([Measured(90_000, 600, 0), Measured(95_000, 600, 0)])


def test_the_surest_of_two_looks_counts():
    assert agreed([Measured(9_000, 1500, 0), Measured(9_400, 600, 5)]).offset_ms == 9_400


@pytest.mark.parametrize(
    ("offset_ms", "uncertainty_ms", "expected"),
    [
        (0, 600, Verdict.LEAVE),
        (5_000, 0, Verdict.LEAVE),
        (-5_500, 600, Verdict.LEAVE),  # it may be no more than the five seconds
        (5_700, 600, Verdict.SYNC),
        (-899_000, 600, Verdict.SYNC),
        (901_000, 600, Verdict.TICKET),
        (-86_400_000, 900, Verdict.TICKET),  # the date is one day off
    ],
)
def test_small_differences_are_left_and_large_ones_need_a_person(
    offset_ms, uncertainty_ms, expected
):
    assert verdict(Measured(offset_ms, uncertainty_ms, 0), POLICY) is expected


@pytest.mark.parametrize(
    ("now", "offset_s", "words"),
    [
        ("1T23:59:58", 0, "midnight"),
        ("2T00:04:59", 0, "midnight"),
        ("1T23:40:00", 700, "the meter's clock is too close to midnight"),
        ("1T10:00:00", 0, "full hour"),
        ("1T10:56:00", 0, "full hour"),
        ("1T10:52:00", 240, "the meter's clock is too close to the full hour"),
        ("1T10:29:50", 20, "15-minute interval"),
        ("1T10:31:00", -90, "15-minute interval"),
    ],
)
def test_nothing_is_set_where_something_could_happen_twice_or_never(now, offset_s, words):
    assert words in (forbidden(at(now), offset_s * 1000, POLICY, ZONE) or "")


@pytest.mark.parametrize(
    ("now", "offset_s"), [("1T10:10:00", 30), ("1T10:40:00", -60), ("1T10:10:00", 1800)]
)
def test_between_them_it_may_be_set(now, offset_s):
    assert forbidden(at(now), offset_s * 1000, POLICY, ZONE) is None
