"""Good readings go through the encoder by a short way: it gives what the long one gives."""

from dataclasses import replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from headend.domain.reading import Verdict
from headend.timeseries.lines import LineEncoder
from tests.journal.journal_kit import reading

NUMBERS = st.one_of(
    st.decimals(-(10**40), 10**40, allow_nan=False),
    st.decimals(min_value=-(10**9), max_value=10**9, places=4),
    st.sampled_from([Decimal(text) for text in ("-0", "-0.00", "1E+2", "1E-9", "100", "0.0")]),
)


@settings(deadline=None)  # the machine is shared
@given(value=NUMBERS, point=st.sampled_from(["active_import_total", "voltage_a", "time", "x y"]))
def test_a_good_value_has_the_line_of_a_suspect_one_but_for_its_quality(
    value: Decimal, point: str
) -> None:
    good = replace(reading("1", point=point), value=value)
    encoder = LineEncoder("he1")

    def text(verdict: Verdict) -> str:
        one = replace(good, verdict=verdict)
        return " ".join(line.text() for line in encoder.encode([(one, "", 1, 0)]))

    assert text(Verdict.OK).replace("_quality=0i", "_quality=1i") == text(Verdict.SUSPECT)
