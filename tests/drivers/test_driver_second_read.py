"""When two reads confirm each other: the rule itself."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.drivers.second_read import confirms, most_between

COUNT = Decimal("0.01")


def live(first: str, second: str, *, kw: str = "10", ms: int = 500) -> bool:
    return confirms(
        [Decimal(first)],
        [Decimal(second)],
        counts_up=True,
        capacity_kw=Decimal(kw),
        elapsed_ms=ms,
    )


def frozen(first: object, second: object) -> bool:
    return confirms(
        [first],  # type: ignore[list-item]
        [second],  # type: ignore[list-item]
        counts_up=False,
        capacity_kw=Decimal(1000),
        elapsed_ms=3_600_000,
    )


@pytest.mark.parametrize(
    ("first", "second", "confirmed"),
    [
        ("12.34", "12.34", True),
        ("12.34", "12.35", True),  # 10 kW for half a second is 0.0014 kWh: one count may turn
        ("12.34", "12.36", False),
        ("12.34", "12.33", False),  # a register never runs backwards
        ("999999.99", "0.00", False),  # at the wrap a further read decides
        ("0.00", "80.00", False),
    ],
)
def test_a_live_register_may_grow_by_what_can_flow(
    first: str, second: str, *, confirmed: bool
) -> None:
    assert live(first, second) is confirmed


def test_the_bound_is_rounded_up_to_whole_counts() -> None:
    assert most_between(Decimal(10), 0, COUNT) == 0
    assert most_between(Decimal(10), 1, COUNT) == COUNT
    assert most_between(Decimal(36), 1000, COUNT) == COUNT  # exactly one count
    assert most_between(Decimal(37), 1000, COUNT) == 2 * COUNT
    assert most_between(Decimal(10), -5000, COUNT) == 0  # the wall clock was set back


def test_frozen_values_maxima_and_nulls_must_be_equal() -> None:
    assert frozen(Decimal("1.00"), Decimal("1.00"))
    assert not frozen(Decimal("1.00"), Decimal("1.01"))
    assert frozen(None, None)
    assert not frozen(None, Decimal("1.00"))
    assert not confirms(
        [Decimal(1)], [None], counts_up=True, capacity_kw=Decimal(1), elapsed_ms=1000
    )


def test_replies_of_another_length_confirm_nothing() -> None:
    assert not confirms(
        [Decimal(1)], [Decimal(1), Decimal(1)], counts_up=True, capacity_kw=Decimal(1), elapsed_ms=9
    )


@given(
    power_w=st.integers(0, 100_000),
    ms=st.integers(0, 600_000),
    start_mwh=st.integers(0, 99_999_999),
)
def test_an_honest_meter_is_never_doubted(power_w: int, ms: int, start_mwh: int) -> None:
    """Whatever flows within the capacity, cut down to counts at both ends, is confirmed."""
    # in milliwatt-hours x 3600: exact integers
    start = start_mwh * 3600
    end = start + power_w * ms
    counts = [Decimal(energy // 36_000_000) / 100 for energy in (start, end)]
    first, second = (c.quantize(COUNT) for c in counts)
    assert confirms([first], [second], counts_up=True, capacity_kw=Decimal(100), elapsed_ms=ms)
