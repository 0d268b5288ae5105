"""Whether a bus can keep its plan: the arithmetic, held to a simulated line."""

import heapq
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.acquisition import plan_check
from headend.acquisition.plan_check import DAY_S, Load, bus_load, fits


def load(needs_s, *, every_s=None, at_s=0, within_s=300.0, meter="M"):
    return Load(meter, every_s, at_s, within_s, needs_s)


def test_a_round_that_takes_as_long_as_it_may_just_fits():
    assert bus_load([load(10.0, every_s=900, within_s=300.0)] * 30).fits
    assert not bus_load([load(10.0, every_s=900, within_s=300.0)] * 31).fits


def test_what_may_wait_does_not_stand_in_the_way_but_for_the_one_that_is_being_read():
    urgent = [load(10.0, every_s=900, within_s=300.0)] * 29
    patient = [load(10.0, within_s=3600.0)] * 32
    assert bus_load([*urgent, *patient]).fits
    assert not bus_load([*urgent, load(10.0, every_s=900, within_s=300.0), *patient]).fits


def test_more_work_than_time_does_not_fit_however_long_it_may_take():
    found = bus_load([load(31.0, every_s=60, within_s=30.0), load(60_000.0, within_s=259_200.0)])
    assert found.share > 1
    assert not found.fits


def test_the_fullest_moment_is_named():
    found = bus_load([load(1.0, every_s=60, within_s=30.0), load(20.0, at_s=7200, within_s=25.0)])
    assert (found.fullest.at_s, found.fullest.within_s, found.fullest.needs_s) == (7200, 25.0, 21.0)
    assert found.cycle_s == 60
    assert found.needs_s == pytest.approx(1 + 20 / 1440)


def test_a_bus_without_meters_fits():
    assert bus_load([]).fits
    assert fits([])


def late_ones(loads, *, horizon_s):
    """Simulates the line from midnight: everything that was finished too late."""
    order = count()
    due = []
    for one in loads:
        at_s = 0 if one.every_s else one.at_s
        while at_s < horizon_s:
            due.append((at_s, next(order), one))
            at_s += one.every_s or DAY_S
    due.sort(key=lambda entry: entry[:2], reverse=True)
    now_s, waiting, late = 0.0, [], []
    while due or waiting:
        if not waiting:
            now_s = max(now_s, due[-1][0])
        while due and due[-1][0] <= now_s:
            at_s, number, one = due.pop()
            heapq.heappush(waiting, (at_s + one.within_s, number, one))
        until_s, _, one = heapq.heappop(waiting)
        now_s += one.needs_s
        if now_s > until_s + 1e-6:
            late.append((until_s, one))
    return late


LOADS = st.lists(
    st.one_of(
        st.builds(
            load,
            st.integers(1, 40).map(lambda n: n / 4),
            every_s=st.sampled_from([30, 60, 120, 300]),
            within_s=st.sampled_from([15.0, 30.0, 60.0, 120.0]),
        ),
        st.builds(
            load,
            st.integers(1, 200).map(lambda n: n / 4),
            at_s=st.sampled_from([0, 60, 90, 150, 400]),
            within_s=st.sampled_from([20.0, 60.0, 300.0, 1800.0]),
        ),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(LOADS)
def test_a_plan_that_is_said_to_fit_is_kept_by_a_line_that_serves_the_most_urgent_first(loads):
    if bus_load(loads).fits:
        assert late_ones(loads, horizon_s=2400) == []


@settings(deadline=None, max_examples=60)
@given(LOADS)
def test_what_is_said_not_to_fit_is_within_one_meter_of_what_a_line_can_do(loads):
    """Sharp: only whoever may be read at the wrong moment stands between the two verdicts."""
    found = bus_load(loads)
    if found.fits or found.share > 1:
        return
    moment = found.fullest
    longest_s = max(one.needs_s for one in loads)
    assert moment.needs_s > moment.within_s
    if moment.needs_s - longest_s > moment.within_s:
        assert late_ones(loads, horizon_s=int(moment.at_s + moment.within_s) + 1)


def test_a_plan_that_falls_ever_further_behind_is_known_at_once(monkeypatch):
    """A cycle of a second has 86,400 deadlines a day: the first ones are enough to refuse it."""
    full = [load(0.15, every_s=1, within_s=0.5)] * 20 + [load(1.5, within_s=3600.0)] * 20
    looked_at = 0
    demand_s = plan_check._Group.demand_s

    def counted(group, start_s, until_s):
        nonlocal looked_at
        looked_at += 1
        return demand_s(group, start_s, until_s)

    monkeypatch.setattr(plan_check._Group, "demand_s", counted)
    assert not fits(full)
    assert looked_at == 0
    assert not bus_load(full).fits
    assert 0 < looked_at < 20_000


@given(LOADS)
def test_whether_it_fits_is_the_same_known_soon_or_in_full(loads):
    assert fits(loads) == bus_load(loads).fits
