"""What a service point took and gave, to the last digit, or unknown with a reason."""

from dataclasses import replace
from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.billing.differences import (
    EXPORT_POINT,
    IMPORT_POINT,
    MeterEvent,
    RegisterReading,
    ServicePoint,
    Unknown,
)
from headend.domain.clock import from_iso
from headend.domain.due import day_bounds_ms

SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")
DAY = date(2026, 3, 1)
START, END = day_bounds_ms(DAY, SHANGHAI)
HOUR = 3_600_000
NOON = START + 12 * HOUR


def register(value: str | None, time_ms: int, *, meter="M-1", point=IMPORT_POINT, **more):
    number = None if value is None else Decimal(value)
    name = f"{meter}@{time_ms}={value}{point}"
    more = {"unit": "kWh", "read_id": name} | more
    return RegisterReading(meter, "SP-1", point, time_ms, number, **more)


def exchanged(at_ms, *, old="M-1", new="M-2", old_final=None, new_initial=None, name="x"):
    fields = {
        "service_point": "SP-1",
        "old_meter": old,
        "new_meter": new,
        "old_final": {IMPORT_POINT: "150.07"} if old_final is None else old_final,
        "new_initial": {IMPORT_POINT: "0.26"} if new_initial is None else new_initial,
    }
    return MeterEvent(name, "meter_exchange", at_ms, fields)


def rolled(at_ms, *, meter="M-1", digits=6, point=IMPORT_POINT, name="r"):
    fields = {"meter": meter, "point": point, "digits": digits}
    return MeterEvent(name, "rollover", at_ms, fields)


def day(readings, events=(), direction="import", zone=SHANGHAI, of=DAY):
    return ServicePoint("SP-1", readings, events).day(of, zone, direction)


def test_a_day_is_its_end_register_minus_its_start_register():
    found = day([register("100.01", START), register("112.34", END)])
    assert found.energy == Decimal("12.33")
    assert found.reason is None
    assert len(found.sources) == 2


def test_a_register_read_for_the_boundary_counts_for_it():
    late = register("112.34", END + 20_000, due_ms=END)
    assert day([register("100", START), late]).energy == Decimal("12.34")


def test_of_two_registers_for_a_boundary_the_nearer_one_counts():
    exact = register("112.00", END)
    live = register("112.01", END + 20_000, due_ms=END)
    assert day([register("100", START), live, exact]).energy == Decimal("12.00")


def test_import_and_export_are_never_netted():
    readings = [
        register("100", START),
        register("101", END),
        register("50", START, point=EXPORT_POINT),
        register("57", END, point=EXPORT_POINT),
    ]
    assert day(readings).energy == Decimal(1)
    assert day(readings, direction="export").energy == Decimal(7)


def test_a_missing_register_is_unknown_and_never_zero():
    assert day([register("100", START)]).energy is None
    assert day([register("100", START)]).reason is Unknown.NO_END
    assert day([register("100", END)]).reason is Unknown.NO_START
    assert day([]).reason is Unknown.NO_START


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "fail"},
        {"verdict": "held"},
        {"status": "null"},
        {"value": None},
    ],
)
def test_what_may_not_be_billed_is_no_register(change):
    bad = replace(register("0.00", END), **change)
    assert day([register("100", START), bad]).reason is Unknown.NO_END


@pytest.mark.parametrize("status", ["manual", "estimated", "substituted"])
def test_a_status_stays_visible_in_the_difference(status):
    found = day([register("100", START), register("101", END, status=status)])
    assert found.energy == 1
    assert found.statuses == tuple(sorted(("actual", status)))


def test_one_bad_zero_is_not_the_lifetime_total_of_the_next_day():
    zero = register("0.00", END, verdict="fail")
    next_day = date(2026, 3, 2)
    later = day_bounds_ms(next_day, SHANGHAI)[1]
    readings = [register("53700", START), zero, register("53710", later)]
    assert day(readings).energy is None
    assert day(readings, of=next_day).energy is None


def test_a_register_that_ran_back_without_an_event_is_unknown():
    found = day([register("100", START), register("99.99", END)])
    assert (found.energy, found.reason) == (None, Unknown.BACKWARD)


def test_a_rollover_adds_the_width_of_the_register():
    readings = [register("999999.90", START), register("10.05", END)]
    found = day(readings, [rolled(NOON)])
    assert found.energy == Decimal("10.15")
    assert found.parts[0].rollovers == ("r",)


def test_a_rollover_may_name_the_limit_of_a_binary_counter():
    readings = [register("42949672.90", START), register("10.05", END)]
    limit = {"meter": "M-1", "point": IMPORT_POINT, "limit": "42949672.96"}
    found = day(readings, [MeterEvent("r", "rollover", NOON, limit)])
    assert found.energy == Decimal("10.11")
    for bad in ("", "0", "-1", "1e9", 5, "Infinity"):
        event = MeterEvent("r", "rollover", NOON, {**limit, "limit": bad})
        assert day(readings, [event]).reason is Unknown.BAD_EVENT


@pytest.mark.parametrize("at_ms", [START, END + 1])
def test_a_rollover_outside_the_day_does_not_count(at_ms):
    readings = [register("999999.90", START), register("10.05", END)]
    assert day(readings, [rolled(at_ms)]).reason is Unknown.BACKWARD


@pytest.mark.parametrize("other", [{"meter": "M-9"}, {"point": EXPORT_POINT}])
def test_a_rollover_of_something_else_does_not_count(other):
    readings = [register("999999.90", START), register("10.05", END)]
    assert day(readings, [rolled(NOON, **other)]).reason is Unknown.BACKWARD


@pytest.mark.parametrize("digits", [None, 0, 99, "6", 2.5])
def test_a_rollover_without_a_width_is_a_bad_event(digits):
    readings = [register("999999.90", START), register("10.05", END)]
    assert day(readings, [rolled(NOON, digits=digits)]).reason is Unknown.BAD_EVENT


def test_an_exchange_is_the_old_meters_rest_and_the_new_meters_beginning():
    readings = [register("100.01", START), register("7.77", END, meter="M-2")]
    found = day(readings, [exchanged(NOON)])
    assert found.energy == (Decimal("150.07") - Decimal("100.01")) + (
        Decimal("7.77") - Decimal("0.26")
    )
    assert found.energy == Decimal("57.57")
    assert [part.start.meter for part in found.parts] == ["M-1", "M-2"]
    assert found.statuses == ("actual", "manual")


def test_an_exchange_told_twice_counts_once():
    readings = [register("100.01", START), register("7.77", END, meter="M-2")]
    assert day(readings, [exchanged(NOON), exchanged(NOON)]).energy == Decimal("57.57")


def test_two_exchanges_on_one_day_are_three_parts():
    events = [
        exchanged(NOON, name="x1"),
        exchanged(
            NOON + HOUR,
            old="M-2",
            new="M-3",
            old_final={IMPORT_POINT: "1.26"},
            new_initial={IMPORT_POINT: "5"},
            name="x2",
        ),
    ]
    readings = [
        register("100.07", START),
        register("1.00", NOON + HOUR // 2, meter="M-2"),
        register("6", END, meter="M-3"),
    ]
    assert day(readings, reversed(events)).energy == Decimal(50) + Decimal(1) + Decimal(1)
    without_middle = [readings[0], readings[2]]
    # The transformers stay when a meter goes: those around it hold for it, when they agree.
    assert day(without_middle, events).energy == Decimal(50) + Decimal(1) + Decimal(1)
    other = [readings[0], replace(readings[2], multiplier=Decimal(40))]
    assert day(other, events).reason is Unknown.NO_RATIO


def test_days_around_an_exchange_at_midnight_add_up():
    later = day_bounds_ms(date(2026, 3, 2), SHANGHAI)[1]
    readings = [
        register("100.00", START),
        register("150.00", END),  # read just before; the declared 150.07 is what counts
        register("9.26", later, meter="M-2"),
    ]
    events = [exchanged(END)]
    first = day(readings, events)
    second = day(readings, events, of=date(2026, 3, 2))
    assert first.energy == Decimal("50.07")
    assert second.energy == Decimal("9.00")
    assert ServicePoint("SP-1", readings, events).span("import").energy == Decimal("59.07")


def test_a_changed_meter_without_an_event_is_not_billed():
    readings = [register("100", START), register("107", END, meter="M-2")]
    assert day(readings).reason is Unknown.METER_CHANGED


def test_two_meters_at_one_boundary_without_an_event_are_not_billed():
    readings = [register("1", START), register("2", END), register("3", END, meter="M-2")]
    assert day(readings).reason is Unknown.METER_CHANGED


def test_a_third_meter_nobody_declared_is_not_billed():
    readings = [register("100.01", START), register("7.77", END, meter="M-9")]
    assert day(readings, [exchanged(NOON)]).reason is Unknown.METER_CHANGED


@pytest.mark.parametrize(
    "registers", [{}, {IMPORT_POINT: "many"}, {IMPORT_POINT: "NaN"}, {IMPORT_POINT: 5}, "?"]
)
def test_an_exchange_without_its_registers_is_a_bad_event(registers):
    readings = [register("100.01", START), register("7.77", END, meter="M-2")]
    assert day(readings, [exchanged(NOON, old_final=registers)]).reason is Unknown.BAD_EVENT


def test_an_exchange_of_another_service_point_changes_nothing():
    event = exchanged(NOON)
    other = replace(event, fields={**event.fields, "service_point": "SP-2"})
    assert day([register("1", START), register("2", END)], [other]).energy == 1


def test_secondary_values_are_multiplied_and_primary_ones_are_not():
    secondary = [
        register(v, t, multiplier=Decimal(4000)) for v, t in (("1.01", START), ("1.03", END))
    ]
    assert day(secondary).energy == Decimal("80.00")
    primary = [replace(r, side="primary") for r in secondary]
    assert day(primary).energy == Decimal("0.02")


def test_a_ratio_that_changed_in_between_is_not_billed():
    readings = [register("1", START), register("2", END, multiplier=Decimal(10))]
    assert day(readings).reason is Unknown.RATIO_CHANGED


def test_the_ratio_of_each_meter_holds_for_its_own_part():
    readings = [
        register("150.06", START, multiplier=Decimal(100)),
        register("0.28", END, meter="M-2", multiplier=Decimal(40)),
    ]
    assert day(readings, [exchanged(NOON)]).energy == Decimal("1.00") + Decimal("0.80")


def test_the_widest_numbers_of_the_feed_lose_no_digit():
    wide, ratio = "1" * 30 + "." + "3" * 18, Decimal("7" * 30 + ".5")
    readings = [register("0", START, multiplier=ratio), register(wide, END, multiplier=ratio)]
    digits = int(wide.replace(".", "")) * int(str(ratio).replace(".", ""))
    energy = day(readings).energy
    assert energy.as_tuple().exponent == -19
    assert int("".join(map(str, energy.as_tuple().digits))) == digits


def test_a_unit_that_changed_is_not_billed():
    readings = [register("1", START), register("2", END, unit="Wh")]
    assert day(readings).reason is Unknown.UNIT_CHANGED


@pytest.mark.parametrize(
    ("of", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 5, 1), 24)]
)
def test_a_local_day_has_the_hours_it_has(of, hours):
    start, end = day_bounds_ms(of, BERLIN)
    assert end - start == hours * HOUR
    found = day([register("0", start), register(str(hours), end)], zone=BERLIN, of=of)
    assert found.energy == hours
    assert (found.from_ms, found.to_ms) == (start, end)


def test_a_span_goes_from_the_first_to_the_last_good_register():
    readings = [
        register("90", START - 5, verdict="fail"),
        register("100.01", START + 1),
        register("120", NOON),
        register("133.37", NOON + 7),
        register(None, NOON + 9, status="null"),
    ]
    found = ServicePoint("SP-1", readings).span("import")
    assert found.energy == Decimal("33.36")
    assert found.day is None


def test_a_span_of_a_single_register_is_zero_and_of_none_unknown():
    assert ServicePoint("SP-1", [register("5", START)]).span("import").energy == 0
    assert ServicePoint("SP-1", []).span("import").reason is Unknown.NO_READINGS


def test_the_days_to_show_are_those_a_register_bounds():
    point = ServicePoint("SP-1", [register("1", START), register("2", NOON)])
    assert point.days(SHANGHAI) == [date(2026, 2, 28), DAY]
    due = ServicePoint("SP-1", [register("1", START + 3, due_ms=START)])
    assert due.days(SHANGHAI) == [date(2026, 2, 28), DAY]


@given(
    st.lists(st.integers(0, 10**6), min_size=3, max_size=12),
    st.integers(1, 10),
    st.randoms(use_true_random=False),
)
def test_days_add_up_to_the_span_whatever_the_order(steps, exchange_after, random):
    """Cents: what the days say together is what first and last register say."""
    zone = BERLIN
    first = date(2026, 3, 27)
    days = [date.fromordinal(first.toordinal() + i) for i in range(len(steps))]
    readings, events, total = [], [], 0
    meter, stand = "M-1", 12_345
    change = min(exchange_after, len(steps) - 1)
    for index, (of, step) in enumerate(zip(days, steps, strict=True)):
        at = day_bounds_ms(of, zone)[0]
        if index:
            stand += step
            total += step
        readings.append(register(str(Decimal(stand).scaleb(-2)), at, meter=meter))
        if index == change - 1:
            stand += 77
            total += 77
            final = {IMPORT_POINT: str(Decimal(stand).scaleb(-2))}
            new = {IMPORT_POINT: "0.03"}
            events.append(exchanged(at + HOUR, old_final=final, new_initial=new))
            meter, stand = "M-2", 3
    random.shuffle(readings)
    point = ServicePoint("SP-1", readings, events)
    found = [point.day(of, zone, "import").energy for of in days[:-1]]
    assert None not in found
    assert sum(found) == point.span("import").energy == Decimal(total).scaleb(-2)


def test_times_are_read_as_the_feed_writes_them():
    assert from_iso("2026-02-28T16:00:00Z") == START
