"""Registers are exact sums, whatever is asked, in whatever order."""

import itertools
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.curves import SHOP, Constant, LoadCurve, SolarCurve
from simulators.energy import (
    DAY_MS,
    MINUTE_MS,
    NWH_A_KWH,
    WRAP_NWH,
    Channel,
    EnergyModel,
    Supply,
    TariffTable,
    Timeline,
    exact_kwh,
    quanta_of_watts,
    shown_kwh,
    watts_of_quanta,
)

ORIGIN = 1_700_000_000_123
IMPORT, EXPORT = Channel("import"), Channel("export")


def pv_model(**more) -> EnergyModel:
    supply = Supply((LoadCurve(5000, seed=3),), (SolarCurve(7000, seed=4),))
    return EnergyModel(supply, Timeline(ORIGIN), **more)


def three_phase_model() -> EnergyModel:
    loads = tuple(LoadCurve(4000, SHOP, seed) for seed in (1, 2, 3))
    return EnergyModel(Supply(loads, (SolarCurve(9000, 5), None, None)), Timeline(ORIGIN))


MODEL = pv_model()
THREE_PHASES = three_phase_model()
instants = st.integers(ORIGIN, ORIGIN + 4 * DAY_MS)


def brute_force(model: EnergyModel, channel: Channel, start_ms: int, end_ms: int) -> int:
    """Sum power over every stretch of constant power, the slow way."""
    total, at = 0, start_ms
    while at < end_ms:
        until = min(end_ms, (at // MINUTE_MS + 1) * MINUTE_MS)
        net = sum(model.net_quanta(at))
        total += max(0, net if channel.direction == "import" else -net) * (until - at)
        at = until
    return total


def test_one_kilowatt_for_an_hour_is_one_kilowatt_hour_to_the_quantum():
    model = EnergyModel(Supply((Constant(1000),), (None,)), Timeline(ORIGIN))
    hour = model.register_nwh(IMPORT, ORIGIN + 3_600_000)
    assert hour == quanta_of_watts(1000) * 3_600_000
    assert exact_kwh(hour) == Decimal("0.9999972")  # 1000 W cut to whole quanta of 3.6 mW
    assert watts_of_quanta(quanta_of_watts(9)) == 9


@settings(max_examples=30, deadline=None)
@given(instants, instants)
def test_the_integral_equals_the_sum_of_its_minutes(a, b):
    start, end = sorted((a, b))
    end = min(end, start + DAY_MS // 8)
    for channel in (IMPORT, EXPORT):
        got = MODEL.register_nwh(channel, end) - MODEL.register_nwh(channel, start)
        assert got == brute_force(MODEL, channel, start, end)


@settings(max_examples=60, deadline=None)
@given(st.lists(instants, min_size=2, max_size=12))
def test_any_partition_of_a_span_sums_to_the_whole(cuts):
    cuts.sort()
    for channel in (IMPORT, EXPORT, Channel("import", 2), Channel("q1"), Channel("s_export", 3)):
        readings = [MODEL.register_nwh(channel, cut) for cut in cuts]
        assert readings == sorted(readings)
        parts = [b - a for a, b in itertools.pairwise(readings)]
        assert sum(parts) == readings[-1] - readings[0]


@settings(max_examples=60, deadline=None)
@given(instants)
def test_tariffs_sum_to_the_total_to_the_last_digit(at_ms):
    for direction in ("import", "export", "q1", "q2", "s_import"):
        tariffs = sum(MODEL.register_nwh(Channel(direction, t), at_ms) for t in (1, 2, 3, 4))
        assert tariffs == MODEL.register_nwh(Channel(direction), at_ms)


@settings(max_examples=60, deadline=None)
@given(instants)
def test_in_one_instant_energy_flows_one_way_only(at_ms):
    model = THREE_PHASES
    moved = {
        direction: model.register_nwh(Channel(direction), at_ms + 1)
        - model.register_nwh(Channel(direction), at_ms)
        for direction in ("import", "export")
    }
    assert min(moved.values()) == 0
    net = sum(model.net_quanta(at_ms))
    assert moved["import"] - moved["export"] == net


def test_a_pv_home_counts_both_ways_and_nets_neither_away():
    day_later = ORIGIN + DAY_MS
    assert MODEL.register_nwh(IMPORT, day_later) > NWH_A_KWH
    assert MODEL.register_nwh(EXPORT, day_later) > NWH_A_KWH


def test_phases_count_each_for_itself():
    model = three_phase_model()
    at_ms = ORIGIN + DAY_MS
    phases = [model.register_nwh(Channel("export", 0, phase), at_ms) for phase in (1, 2, 3)]
    assert phases[0] > 0
    assert phases[1:] == [0, 0]
    assert phases[0] > model.register_nwh(EXPORT, at_ms)  # the other phases use some of it


def test_the_order_of_asking_changes_nothing():
    asked = [ORIGIN + n * DAY_MS // 3 for n in range(30)]
    forwards = [pv_model().register_nwh(IMPORT, at) for at in asked]
    model = pv_model()
    assert [model.register_nwh(IMPORT, at) for at in reversed(asked)] == forwards[::-1]


def test_the_same_seed_gives_the_same_meter_and_another_seed_another():
    end = ORIGIN + DAY_MS
    assert pv_model().register_nwh(IMPORT, end) == MODEL.register_nwh(IMPORT, end)
    other = EnergyModel(Supply((LoadCurve(5000, seed=8),), (None,)), Timeline(ORIGIN))
    assert other.register_nwh(IMPORT, end) != MODEL.register_nwh(IMPORT, end)


def test_registers_begin_where_they_are_told_and_totals_follow_their_tariffs():
    initial = {Channel("import", 1): 5 * NWH_A_KWH + 1, Channel("import", 3): 7}
    model = pv_model(initial=initial)
    assert model.register_nwh(IMPORT, ORIGIN) == 5 * NWH_A_KWH + 8
    with pytest.raises(ValueError, match="starts at 0"):
        pv_model(initial={IMPORT: -1})


def test_registers_stand_before_the_origin():
    assert MODEL.register_nwh(IMPORT, ORIGIN - DAY_MS) == MODEL.register_nwh(IMPORT, ORIGIN) == 0


def test_what_is_shown_is_cut_and_wraps_at_a_million():
    assert shown_kwh(12_345_679_999_999_999) == Decimal("12345.67")
    assert shown_kwh(WRAP_NWH - 1) == Decimal("999999.99")
    assert shown_kwh(WRAP_NWH) == Decimal("0.00")


def test_switched_off_registers_stand_to_the_last_digit_and_power_is_zero():
    model = pv_model()
    off = ORIGIN + 5 * 3_600_000 + 777
    before = model.register_nwh(IMPORT, off)
    model.timeline.switch_off(off)
    assert model.register_nwh(IMPORT, off) == before
    assert model.register_nwh(IMPORT, off + DAY_MS) == before
    assert model.net_quanta(off + 1) == (0,)
    assert model.register_nwh(IMPORT, off - 1) <= before  # the past stays true


def test_speed_multiplies_what_flows_and_is_exact_over_any_change():
    timeline = Timeline(ORIGIN)
    timeline.change(ORIGIN + 1000, 60)
    assert timeline.energy_ms(ORIGIN + 1000) == ORIGIN + 1000
    assert timeline.energy_ms(ORIGIN + 2000) == ORIGIN + 61_000
    timeline.change(ORIGIN + 2000, Fraction(1, 3))
    assert timeline.energy_ms(ORIGIN + 2002) == ORIGIN + 61_000
    assert timeline.energy_ms(ORIGIN + 2003) == ORIGIN + 61_001
    with pytest.raises(ValueError, match="past"):
        timeline.change(ORIGIN, 1)
    with pytest.raises(ValueError, match="negative"):
        timeline.change(ORIGIN + 3000, -1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 3600)), max_size=6))
def test_energy_time_never_falls(changes):
    timeline = Timeline(ORIGIN)
    at = ORIGIN
    for gap, speed in changes:
        at += gap
        timeline.change(at, speed)
    seen = [timeline.energy_ms(ORIGIN + step * 997) for step in range(80)]
    assert seen == sorted(seen)


def test_a_tariff_table_covers_the_day_or_is_refused():
    assert len(TariffTable().tariffs()) == 1440
    assert TariffTable(((0, 4), (480, 1))).tariffs()[479:481] == (4, 1)
    for bad in ((), ((1, 2),), ((0, 1), (50, 2), (50, 3))):
        with pytest.raises(ValueError, match="rises from minute 0"):
            TariffTable(bad)


def test_curves_stay_below_their_peak_and_the_night_is_dark():
    for seed in range(5):
        assert min(LoadCurve(3000, seed=seed).day_watts(seed)) >= 0
        assert max(LoadCurve(3000, seed=seed).day_watts(seed)) <= 3000
        sun = SolarCurve(5000, seed).day_watts(seed)
        assert max(sun) <= 5000
        assert sun[:361] == [0] * 361
        assert sun[720] > 2500


def test_a_supply_whose_phases_do_not_pair_up_is_refused():
    with pytest.raises(ValueError, match="1 or 3 phases"):
        Supply((Constant(1), Constant(1)), (None, None))
