"""Payloads of items: bytes <-> values."""

import datetime as dt
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from dlt645_values import values_of
from hypothesis import assume, example, given
from hypothesis import strategies as st

from protocols.dlt645.catalogue import Item, lookup
from protocols.dlt645.declared import decode_declared
from protocols.dlt645.formats import make_layout
from protocols.dlt645.items import MeterTime, Value, decode, encode
from protocols.errors import BadContent, LocalProtocolError

# One item of every layout the catalogue has.
DECODABLE = [
    "00010000", "00000000", "0001FF00", "0000FF00", "00010700", "000100FF", "05060101", "05060001",
    "05061001", "01010000", "0101FF00", "01030000", "02010100", "0201FF00", "02020100", "0202FF00",
    "02030000", "0203FF00", "02060000", "0206FF00", "02800001", "02800002", "02800007", "0280000B",
    "02800022", "02800023", "020A01FF", "03010000", "03050000", "03300D00", "04000101", "04000102",
    "0400010C", "04000106", "04000103", "04000205", "04000306", "04000402", "04000404", "04000409",
    "04000501", "040005FF", "04000508", "04000601", "1D000101",
]  # fmt: skip


def item(di: str) -> Item:
    found = lookup(di)
    assert found is not None
    return found


def hex_of(text: str) -> bytes:
    return bytes.fromhex(text)


@st.composite
def item_values(draw: st.DrawFn) -> tuple[Item, tuple[Value, ...]]:
    one = item(draw(st.sampled_from(DECODABLE)))
    assert one.layout is not None
    rounds = draw(st.integers(one.layout.rounds_min, min(one.layout.rounds_max, 6)))
    return one, tuple(draw(values_of(field)) for field in one.layout.fields * rounds)


bcd_bytes = st.integers(0, 99).map(lambda n: int(f"{n:02d}", 16))
likely_bytes = st.one_of(bcd_bytes, st.sampled_from([0xFF, 0x80, 0x00]), st.integers(0, 255))


@st.composite
def item_payloads(draw: st.DrawFn) -> tuple[Item, bytes]:
    one = item(draw(st.sampled_from(DECODABLE)))
    assert one.layout is not None
    size = one.layout.round_bytes * draw(st.integers(0, 3)) + draw(st.sampled_from([0, 0, 0, 1]))
    size = one.length if one.length is not None and draw(st.booleans()) else size
    source = bcd_bytes if draw(st.booleans()) else likely_bytes
    return one, bytes(draw(st.lists(source, min_size=size, max_size=size)))


@given(item_values())
def test_what_was_encoded_is_decoded_again(case: tuple[Item, tuple[Value, ...]]) -> None:
    one, values = case
    assert decode(one, encode(one, *values)) == values


@given(item_payloads())
def test_the_fast_decoder_is_the_declared_one(case: tuple[Item, bytes]) -> None:
    assert_both_decoders_agree(*case)


def assert_both_decoders_agree(one: Item, payload: bytes) -> None:
    try:
        declared = decode_declared(one, payload)
    except BadContent:
        with pytest.raises(BadContent):
            decode(one, payload)
        return
    values = decode(one, payload)
    assert values == declared
    # Equal numbers are not enough: the decimals are the item's own.
    assert [str(value) for value in values] == [str(value) for value in declared]


@given(st.sampled_from(["00010000", "02030000", "02020100"]), st.binary(min_size=3, max_size=4))
@example("02030000", b"\xff\xff\xff")
@example("02030000", b"\x00\x00\x80")
@example("02030000", b"\x45\x23\x81")
@example("00010000", b"\x00\x00\x00\x80")
def test_the_hot_path_is_the_declared_one_on_any_bytes(di: str, payload: bytes) -> None:
    assert_both_decoders_agree(item(di), payload)


@given(st.sampled_from(DECODABLE), st.binary(max_size=60))
def test_random_bytes_give_values_or_bad_content(di: str, payload: bytes) -> None:
    one = item(di)
    error: BadContent | None = None
    try:
        values = decode(one, payload)
    except BadContent as caught:
        error = caught
    else:
        assert one.layout is not None
        assert len(payload) == one.layout.round_bytes * len(values) // len(one.layout.fields)
    if error is not None:
        assert error.raw == payload
        assert error.offset is not None
        assert 0 <= error.offset <= len(payload)


@given(item_payloads())
def test_good_bytes_are_built_again_from_their_values(case: tuple[Item, bytes]) -> None:
    one, payload = case
    assert one.layout is not None
    assume(all(field.kind not in ("text", "date") for field in one.layout.fields))
    assume(one.di != "0400010C")  # the weekday is built from the date, not kept
    try:
        values = decode(one, payload)
    except BadContent:
        return
    built = encode(one, *values)
    # Two ways to say nothing or nought: all FF or an empty slot, plus or minus zero.
    assert built == payload or decode(one, built) == values
    if None not in values and not any(value == 0 for value in values):
        assert built == payload


@pytest.mark.parametrize(
    ("di", "payload", "values"),
    [
        ("00010000", "26000000", ["0.26"]),
        ("00010000", "67452301", ["12345.67"]),
        ("00010000", "00000080", ["800000.00"]),
        ("00000000", "34120080", ["-12.34"]),
        ("00000000", "00000080", ["0.00"]),
        ("02030000", "452381", ["-1.2345"]),
        ("02060000", "0105", ["0.501"]),
        ("02060000", "0085", ["-0.500"]),
        ("02800002", "9849", ["49.98"]),
        ("0201FF00", "5622FFFFFFFF", ["225.6", None, None]),
        ("0001FF00", "2901000062000000600000000300000002000000",
         ["1.29", "0.62", "0.60", "0.03", "0.02"]),
        ("00010000", "FFFFFFFF", [None]),
        ("02030000", "FFFFFF", [None]),
        ("04000402", "185560060000", ["000006605518"]),
        ("04000404", "56302E303232", ["220.0V"]),
        ("04000503", "5000", ["0050"]),
        ("05061001", "341280" + "000000" * 7, ["-0.1234", *["0.0000"] * 7]),
    ],
)  # fmt: skip
def test_a_payload_gives_exactly_these_values(
    di: str, payload: str, values: list[str | None]
) -> None:
    found = decode(item(di), hex_of(payload))
    assert [None if value is None else str(value) for value in found] == values


def test_dates_and_times_are_read_in_wire_order() -> None:
    assert decode(item("04000101"), hex_of("01110116")) == (dt.date(2016, 1, 11),)
    assert decode(item("04000102"), hex_of("555321")) == (dt.time(21, 53, 55),)
    stamp = MeterTime(dt.date(2015, 10, 9), dt.time(0, 0))
    assert decode(item("05060001"), hex_of("0000091015")) == (stamp,)
    clock = MeterTime(dt.date(2026, 11, 24), dt.time(23, 55, 7))
    assert decode(item("0400010C"), hex_of("07552302241126")) == (clock,)


def test_a_demand_is_its_value_and_its_time() -> None:
    when = MeterTime(dt.date(2026, 11, 24), dt.time(23, 55))
    assert decode(item("01010000"), hex_of("0000005523241126")) == (Decimal("0.0000"), when)
    two = decode(item("0101FF00"), hex_of("3412005523241126" + "7856340000000000"))
    assert two == (Decimal("0.1234"), when, Decimal("34.5678"), None)


def test_a_meter_time_becomes_an_instant_only_with_a_zone() -> None:
    stamp = MeterTime(dt.date(2015, 10, 9), dt.time(0, 0))
    assert str(stamp) == "2015-10-09T00:00:00"
    assert stamp.at(ZoneInfo("Asia/Shanghai")).isoformat() == "2015-10-09T00:00:00+08:00"
    assert stamp < MeterTime(dt.date(2015, 10, 9), dt.time(0, 1))


@pytest.mark.parametrize(
    ("di", "payload", "code", "offset"),
    [
        ("00010000", "2600", "short_data", 2),
        ("00010000", "", "short_data", 0),
        ("00010000", "2600000000", "long_data", 5),
        ("02010100", "000000", "long_data", 3),
        ("0201FF00", "00000000", "short_data", 4),
        ("0001FF00", "0000000000", "short_data", 5),
        ("0001FF00", "", "short_data", 0),
        ("0001FF00", "00" * 4 * 65, "long_data", 260),
        ("00010000", "34CBE335", "not_bcd", 0),
        ("0001FF00", "260000003400000A", "not_bcd", 4),
        ("00010000", "FFFFFFFE", "not_bcd", 0),
        ("0201FF00", "5622FFFE0000", "not_bcd", 2),
        ("04000101", "01320116", "bad_date", 0),
        ("04000101", "01290223", "bad_date", 0),
        ("04000102", "555360", "bad_time", 0),
        ("04000102", "5553FA", "not_bcd", 0),
        ("05060001", "0024091015", "bad_date", 0),
        ("04000404", "563080303232", "not_ascii", 0),
        ("01010000", "3412005523241326", "bad_date", 3),
    ],
)
def test_what_cannot_be_the_item_is_refused_and_says_where(
    di: str, payload: str, code: str, offset: int
) -> None:
    with pytest.raises(BadContent) as caught:
        decode(item(di), hex_of(payload))
    assert (caught.value.code, caught.value.offset) == (code, offset)


def test_an_empty_slot_of_the_past_has_no_time() -> None:
    assert decode(item("05060001"), bytes(5)) == (None,)


@pytest.mark.parametrize(
    ("di", "values", "code"),
    [
        ("00010000", (Decimal("-0.01"),), "out_of_range"),
        ("00010000", (Decimal(1000000),), "out_of_range"),
        ("00010000", (Decimal("1E+400"),), "out_of_range"),
        ("00010000", (Decimal("NaN"),), "out_of_range"),
        ("00010000", (Decimal("0.001"),), "too_many_decimals"),
        ("00000000", (Decimal("800000.00"),), "out_of_range"),
        ("00000000", (Decimal("-800000.00"),), "out_of_range"),
        ("00010000", (1.5,), "wrong_type"),
        ("00010000", (), "value_count"),
        ("00010000", (Decimal(1), Decimal(1)), "value_count"),
        ("0201FF00", (Decimal(1), Decimal(1)), "value_count"),
        ("04000101", (dt.date(1999, 1, 1),), "out_of_range"),
        ("04000101", (dt.time(1),), "wrong_type"),
        ("05060001", (dt.date(2020, 1, 1),), "wrong_type"),
        ("04000402", ("12",), "out_of_range"),
        ("04000402", (Decimal(12),), "wrong_type"),
        ("04000404", ("230.0Volt",), "out_of_range"),
        ("04000404", (Decimal(230),), "wrong_type"),
        ("04000501", ("12",), "out_of_range"),
        ("04000501", (None,), "wrong_type"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(
    di: str, values: tuple[Value, ...], code: str
) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        encode(item(di), *values)
    assert caught.value.code == code


def test_an_item_without_a_known_layout_is_not_decoded() -> None:
    load_record = item("06000001")
    assert load_record.layout is None
    with pytest.raises(LocalProtocolError) as caught:
        decode(load_record, b"\xa0\xa0")
    assert caught.value.code == "not_decodable"
    with pytest.raises(LocalProtocolError):
        encode(load_record, Decimal(1))


def test_a_format_that_contradicts_its_length_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        make_layout("XXXXXX.XX", "3", signed=False)
