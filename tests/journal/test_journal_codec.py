"""The hot path's shortcuts give what the domain's own functions give."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headend.domain.clock import iso
from headend.domain.identity import canonical_number, content_text
from headend.domain.reading import Side, Status, Verdict
from headend.journal.codec import (
    OUTCOMES,
    canonical_text,
    content_of,
    insert_sql,
    iso_cache,
    number_text,
    outcome_code,
)

numbers = st.decimals(allow_nan=False, allow_infinity=False)


@given(numbers)
@example(Decimal("-0.00"))
@example(Decimal("-0"))
@example(Decimal("1E+3"))
@example(Decimal(100))
@example(Decimal("0E-8"))
def test_a_number_keeps_its_value_and_has_no_exponent(value):
    text = number_text(value)
    assert "E" not in text
    assert Decimal(text) == value
    assert text == format(value, "f")
    assert canonical_text(text) == canonical_number(value)


@pytest.mark.parametrize("value", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_what_is_no_number_has_no_text(value):
    with pytest.raises(ValueError, match="not a number"):
        number_text(Decimal(value))


@given(
    st.none() | numbers,
    st.sampled_from(["kWh", "V", ""]),
    st.sampled_from(list(Status)),
    st.sampled_from(list(Verdict)),
    numbers,
    st.sampled_from(list(Side)),
)
def test_content_is_the_domain_s(value, unit, status, verdict, multiplier, side):
    text = None if value is None else number_text(value)
    fast = content_of(text, unit, status, verdict, str(multiplier), side)
    assert fast == content_text(value, unit, status, verdict, multiplier, side)


@given(st.lists(st.integers(0, 4_102_444_800_000), min_size=1, max_size=50))
def test_cached_times_are_the_domain_s(stamps):
    text = iso_cache(size_max=3)
    for stamp in stamps:
        assert text(stamp) == iso(stamp)


def test_every_outcome_has_its_code():
    assert [OUTCOMES[outcome_code(o)] for o in OUTCOMES] == list(OUTCOMES)
    assert insert_sql("t", 3) == "INSERT INTO t VALUES (?,?,?)"
