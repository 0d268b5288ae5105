"""The first rule set: what is believed, what is held, and why."""

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from headend.domain.reading import Verdict
from headend.vee import Base, Candidate, RuleSet, judge

HOUR_MS = 3_600_000
RULES = RuleSet()


def register(value: str, *, hours: float = 1.0, **more: object) -> Candidate:
    candidate = Candidate(
        point="active_import_total",
        kind="register",
        unit="kWh",
        value=Decimal(value),
        time_ms=int(hours * HOUR_MS),
        capacity_kw=Decimal(10),
    )
    return replace(candidate, **more)  # type: ignore[arg-type]


def base(value: str) -> Base:
    return Base(Decimal(value), 0)


def test_first_register_of_a_meter_is_believed() -> None:
    assert judge(RULES, register("12345.67"), None).verdict is Verdict.OK


def test_register_that_stands_still_is_believed() -> None:
    assert judge(RULES, register("100.00"), base("100.00")).verdict is Verdict.OK


@given(
    st.integers(0, 99_999_999),
    st.integers(0, 1),
    st.integers(0, 10 * 366 * 24 * HOUR_MS),
    st.decimals(0, 1_000_000, places=3),
    st.decimals("0.001", 1_000_000, places=3),
)
def test_a_step_of_one_count_is_within_what_the_connection_allows_at_any_time(
    counts: int, step: int, after_ms: int, capacity_kw: Decimal, multiplier: Decimal
) -> None:
    one = Decimal("0.01")
    most = capacity_kw * (Decimal(after_ms) / HOUR_MS) / multiplier + one
    assert step * one <= most
    new = Candidate(
        "active_import_total", "register", "kWh", min(counts + step, 99_999_999) * one, after_ms,
        multiplier, capacity_kw,
    )  # fmt: skip
    assert judge(RULES, new, Base(counts * one, 0)).verdict is Verdict.OK


def test_one_bad_zero_is_held_as_backward() -> None:
    found = judge(RULES, register("0.00"), base("53700.00"))
    assert (found.verdict, found.flags) == (Verdict.HELD, ("backward",))
    assert "53700.00" in found.reason


def test_more_than_the_connection_allows_is_held() -> None:
    found = judge(RULES, register("110.02"), base("100.00"))
    assert (found.verdict, found.flags) == (Verdict.HELD, ("too_fast",))


def test_exactly_what_the_connection_allows_and_one_count_is_believed() -> None:
    assert judge(RULES, register("110.01"), base("100.00")).verdict is Verdict.OK


def test_multiplier_counts_for_what_the_connection_allows() -> None:
    found = judge(RULES, register("100.50", multiplier=Decimal(40)), base("100.00"))
    assert found.flags == ("too_fast",)


def test_rollover_within_capacity_is_believed_and_named() -> None:
    found = judge(RULES, register("3.00"), base("999995.00"))
    assert (found.verdict, found.flags, found.rolled_over) == (Verdict.OK, ("rollover",), True)


def test_rollover_that_the_connection_cannot_have_made_is_held() -> None:
    assert judge(RULES, register("3.00"), base("999000.00")).flags == ("backward",)


def test_register_with_too_many_digits_is_held() -> None:
    assert judge(RULES, register("1000000.00"), None).flags == ("out_of_range",)


def test_wrong_clock_makes_a_good_register_suspect_and_a_held_one_stays_held() -> None:
    late = register("100.00", clock_offset_s=-400.0)
    assert judge(RULES, late, base("100.00")).verdict is Verdict.SUSPECT
    assert judge(RULES, late, base("100.00")).flags == ("clock",)
    bad = register("0.00", clock_offset_s=-400.0)
    assert judge(RULES, bad, base("100.00")).verdict is Verdict.HELD
    assert judge(RULES, bad, base("100.00")).flags == ("backward", "clock")


def test_clock_within_tolerance_says_nothing() -> None:
    assert judge(RULES, register("100.00", clock_offset_s=300.0), None).flags == ()


def instantaneous(value: str, unit: str) -> Candidate:
    return Candidate("x", "instantaneous", unit, Decimal(value), 0, capacity_kw=Decimal(10))


def test_instantaneous_values_are_bounded_by_their_unit_and_the_connection() -> None:
    good = [("230.1", "V"), ("0.0", "V"), ("50.01", "Hz"), ("-1.000", ""), ("-15", "kW")]
    bad = [("6553.5", "V"), ("500.1", "Hz"), ("1.001", ""), ("15.0001", "kW"), ("-15.1", "kvar")]
    for value, unit in good:
        assert judge(RULES, instantaneous(value, unit), None).verdict is Verdict.OK
    for value, unit in bad:
        assert judge(RULES, instantaneous(value, unit), None).flags == ("out_of_range",)


@given(
    old=st.decimals(0, 999_999, places=2),
    new=st.decimals(-10, 1_100_000, places=2),
    hours=st.floats(0.001, 1000),
)
def test_a_believed_register_never_moved_more_than_the_connection_allows(
    old: Decimal, new: Decimal, hours: float
) -> None:
    candidate = register(str(new), hours=hours)
    found = judge(RULES, candidate, Base(old, 0))
    if found.verdict is Verdict.OK:
        moved = new - old + (Decimal(1_000_000) if found.rolled_over else 0)
        allowed = Decimal(candidate.time_ms) / HOUR_MS * 10 + Decimal("0.01")
        assert 0 <= moved <= allowed
