"""Load records: as the standard has them, and as makers write them."""

import datetime as dt
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from dlt645_samples import by_id, raw_of
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645.formats import MeterTime
from protocols.dlt645.frame import parse
from protocols.dlt645.load_profile import (
    ALL_CLASSES,
    CLASS_BYTES,
    CLASSES,
    LoadRecord,
    LoadShape,
    class_of,
    count_in_one_frame,
    decode_records,
    encode_record,
    load_di,
    load_request,
    missing_times,
    record_bytes,
    times_between,
)
from protocols.dlt645.master import match, reply_payload
from protocols.dlt645.meter import build_reply
from protocols.errors import BadContent, LocalProtocolError
from protocols.framing import Match
from protocols.quantities import quantity

OWN = "000000000161"
WHEN = MeterTime(dt.date(2026, 9, 1), dt.time(15, 0))
VALUES: dict[int, list[Decimal | None]] = {
    1: [Decimal(n) for n in ("230.1", "229.8", "231.0", "1.234", "-1.500", "0.000", "49.98")],
    2: [Decimal(n) for n in ("-0.1234", "0.0400", "-0.1634", "0.0000", "0.0100", "0.0050",
                             "0.0050", "0.0000")],
    3: [Decimal(n) for n in ("-0.987", "0.999", "-0.950", "0.000")],
    4: [Decimal(n) for n in ("123.45", "67.89", "1.00", "0.50")],
    5: [Decimal(n) for n in ("0.80", "0.20", "0.10", "0.40")],
    6: [Decimal(n) for n in ("0.1500", "0.0050")],
}  # fmt: skip


def payload_of(name: str) -> bytes:
    return parse(raw_of(by_id()[name])).data[4:]


def values_of(record: LoadRecord) -> dict[int, list[Any]]:
    return {number: [one.value for one in rows] for number, rows in record.classes.items()}


def test_a_full_record_gives_all_six_classes() -> None:
    (record,) = decode_records(payload_of("x02"), ALL_CLASSES)
    assert record.time == WHEN
    assert values_of(record) == VALUES
    assert (record.flags, record.is_suspect, record.is_bad) == ((), False, False)
    assert len(record.raw) == record_bytes(ALL_CLASSES) == 103


def test_a_record_of_one_class_is_read_with_and_without_the_separators_before_it() -> None:
    (with_all,) = decode_records(payload_of("x04"), 1)
    assert values_of(with_all) == {1: VALUES[1]}
    assert with_all.flags == ()
    (without,) = decode_records(payload_of("x05"), 4)
    assert values_of(without) == {4: VALUES[4]}
    assert without.flags == ("no_separators",)
    assert not without.is_suspect


def test_a_record_that_its_meter_calls_bad_gives_no_values() -> None:
    (record,) = decode_records(payload_of("x06"), 1)
    assert (record.time, record.classes, record.is_bad) == (WHEN, {}, True)
    assert record.is_suspect
    assert missing_times([WHEN], [record]) == [WHEN]


def test_an_empty_reply_is_no_record() -> None:
    assert decode_records(payload_of("x07"), ALL_CLASSES) == []


def test_the_requests_are_the_captured_ones() -> None:
    whole = load_request(OWN, ALL_CLASSES, time=WHEN)
    assert whole.raw == raw_of(by_id()["x01"])
    assert match(whole, raw_of(by_id()["x02"])) is Match.REPLY
    assert decode_records(reply_payload(whole, raw_of(by_id()["x02"])), ALL_CLASSES)
    first = load_request(OWN, 1, which="earliest")
    assert first.raw == raw_of(by_id()["x03"])


@pytest.mark.parametrize("name", ["x02", "x04", "x05"])
def test_the_meters_side_builds_the_captured_record(name: str) -> None:
    number = {"x02": 0, "x04": 1, "x05": 4}[name]
    shape = LoadShape(separators="data_only" if name == "x05" else "all")
    built = encode_record(WHEN, VALUES, number=number, shape=shape)
    captured = payload_of(name)
    # n counts otherwise in some of them, and is in the sum.
    assert built[3:-2] == captured[3:-2]
    assert len(built) == len(captured)
    assert decode_records(built, number) == decode_records(built, number)


@pytest.mark.parametrize("number", [ALL_CLASSES, *CLASSES])
@pytest.mark.parametrize("separators", ["all", "no_leading", "data_only"])
@pytest.mark.parametrize("year_first", [False, True])
@pytest.mark.parametrize("count", ["content", "whole"])
def test_every_way_of_writing_a_record_is_read(
    number: int, separators: Any, year_first: bool, count: Any
) -> None:
    shape = LoadShape(separators, year_first, count)
    raw = encode_record(WHEN, VALUES, number=number, shape=shape)
    one, two = decode_records(raw + raw, number)
    assert one == two
    assert one.time == WHEN
    assert values_of(one) == (VALUES if number == ALL_CLASSES else {number: VALUES[number]})
    assert not one.is_suspect
    # 01-09-26 is a time in either order: only what cannot be one tells the order.
    later = MeterTime(dt.date(2026, 9, 1), dt.time(15, 45))
    (record,) = decode_records(encode_record(later, VALUES, number=number, shape=shape), number)
    assert (record.time == later) or not year_first


def test_a_time_with_the_year_first_is_read_where_the_other_order_is_none() -> None:
    when = MeterTime(dt.date(2026, 9, 17), dt.time(15, 45))
    raw = encode_record(when, {4: VALUES[4]}, shape=LoadShape(year_first=True))
    assert raw[3:8] == bytes.fromhex("2609171545")
    (record,) = decode_records(raw, ALL_CLASSES)
    assert (record.time, record.flags) == (when, ("year_first",))


def test_classes_that_are_off_keep_their_separator() -> None:
    some: dict[int, list[Decimal | None]] = {2: VALUES[2], 6: VALUES[6]}
    raw = encode_record(WHEN, some)
    assert raw[8:9] == b"\xaa"
    (record,) = decode_records(raw, ALL_CLASSES)
    assert values_of(record) == some
    (none,) = decode_records(encode_record(WHEN, {}), ALL_CLASSES)
    assert (none.classes, none.flags) == ({}, ())


def test_bytes_like_a_separator_are_data_where_data_stand() -> None:
    # 77 on the wire is AA without its 33; here AA stands behind the first byte of a value.
    raw = bytearray(encode_record(WHEN, {4: VALUES[4]}, number=4))
    at = raw.index(0x45)
    raw[at + 1] = 0xAA
    raw[-2] = sum(raw[:-2]) & 0xFF
    (record,) = decode_records(bytes(raw), 4)
    assert record.flags == ("not_bcd",)
    assert record.classes == {}
    assert record.is_suspect


def test_a_wrong_sum_makes_a_record_suspect_and_loses_nothing() -> None:
    good = encode_record(WHEN, VALUES)
    wrong = good[:-2] + bytes(((good[-2] + 1) & 0xFF,)) + good[-1:]
    first, second = decode_records(wrong + good, ALL_CLASSES)
    assert first.flags == ("checksum",)
    assert values_of(first) == VALUES
    assert first.is_suspect
    assert not second.is_suspect


def test_values_a_meter_does_not_have_are_none() -> None:
    phases: list[Decimal | None] = [VALUES[1][0], None, None, VALUES[1][3], None, None, None]
    (record,) = decode_records(encode_record(WHEN, {1: phases}, number=1), 1)
    assert values_of(record) == {1: phases}


@pytest.mark.parametrize(
    "payload",
    [
        "A0A0", "A0A01C0015010926", "00" * 30, "A0A016" + "0015010926" + "00" * 40,
        "A0A0160015010926" + "AAAAAAAAAAAA" + "00" + "E4",
    ],
)  # fmt: skip
def test_what_is_no_record_is_told_with_its_place(payload: str) -> None:
    with pytest.raises(BadContent) as caught:
        decode_records(bytes.fromhex(payload), ALL_CLASSES)
    assert (caught.value.code, caught.value.offset) == ("bad_record", 0)
    good = encode_record(WHEN, VALUES)
    with pytest.raises(BadContent) as caught:
        decode_records(good + bytes.fromhex(payload), ALL_CLASSES)
    # Rubbish behind a record makes that one doubtful too: where does it end?
    assert caught.value.offset in (0, len(good))


@given(st.binary(max_size=250), st.integers(0, 6))
def test_any_bytes_give_records_or_bad_content(payload: bytes, number: int) -> None:
    for data in (payload, b"\xa0\xa0" + payload):
        try:
            records = decode_records(data, number)
        except BadContent:
            continue
        assert b"".join(record.raw for record in records) == data


def test_a_damaged_byte_never_gives_a_wrong_value_unseen() -> None:
    random = Random(1)
    good = encode_record(WHEN, VALUES)
    for _ in range(1500):
        raw = bytearray(good)
        at = random.randrange(len(raw))
        raw[at] ^= 1 << random.randrange(8)
        try:
            (record,) = decode_records(bytes(raw), ALL_CLASSES)
        except BadContent:
            continue
        assert record.is_suspect


def test_each_class_has_the_bytes_of_the_standard() -> None:
    assert CLASS_BYTES == {1: 17, 2: 24, 3: 8, 4: 16, 5: 16, 6: 6}
    assert [record_bytes(n) for n in (1, 4, 6)] == [33, 32, 22]
    assert [count_in_one_frame(n) for n in (0, 1, 2, 3, 4, 5, 6)] == [1, 5, 4, 8, 6, 6, 8]


def test_every_value_is_a_point_or_an_identifier() -> None:
    (record,) = decode_records(encode_record(WHEN, VALUES), ALL_CLASSES)
    for rows in record.classes.values():
        for one in rows:
            if not one.point.startswith("di:"):
                assert quantity(one.point).unit == one.unit


@pytest.mark.parametrize(
    ("di", "number"),
    [
        ("06000000", 0), ("06010001", 1), ("06060002", 6), ("060000FF", 0), ("06070000", None),
        ("06010003", None), ("06010100", None), ("00010000", None), ("9010", None),
        ("060100FF", 1), ("0601", None),
    ],
)  # fmt: skip
def test_an_identifier_says_which_class_it_asks_for(di: str, number: int | None) -> None:
    assert class_of(di) == (None if di == "060100FF" else number)
    if number is not None and not di.endswith("FF"):
        assert load_di(number, ("earliest", "from", "latest")[int(di[-1])]) == di  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        {"number": 7, "time": WHEN}, {"number": 0, "count": 0, "time": WHEN},
        {"number": 0, "count": 100, "time": WHEN}, {"number": 0},
        {"number": 0, "which": "latest", "time": WHEN},
        {"number": 0, "time": MeterTime(dt.date(1999, 1, 1), dt.time(0))},
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_not_sent(arguments: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        load_request(OWN, **arguments)


def test_a_class_with_too_few_values_is_not_built() -> None:
    with pytest.raises(LocalProtocolError):
        encode_record(WHEN, {4: VALUES[4][:3]})


def test_the_hole_of_a_day_is_named() -> None:
    start = MeterTime(dt.date(2026, 2, 28), dt.time(0, 0))
    due = times_between(start, MeterTime(dt.date(2026, 3, 1), dt.time(0, 0)), 15)
    assert len(due) == 96
    records = [LoadRecord(time, {}) for time in due if time.time.hour != 13]
    hole = missing_times(due, records)
    assert [time.time for time in hole] == [dt.time(13, minute) for minute in (0, 15, 30, 45)]
    assert missing_times(due, [LoadRecord(time, {}) for time in due]) == []


def test_records_are_due_at_whole_intervals_of_the_day() -> None:
    start = MeterTime(dt.date(2026, 12, 31), dt.time(23, 31, 5))
    due = times_between(start, MeterTime(dt.date(2027, 1, 1), dt.time(0, 46)), 15)
    assert [str(time) for time in due] == [
        "2026-12-31T23:45:00", "2027-01-01T00:00:00", "2027-01-01T00:15:00", "2027-01-01T00:30:00",
        "2027-01-01T00:45:00",
    ]  # fmt: skip
    for minutes in (0, 7, -15, 2880):
        with pytest.raises(LocalProtocolError):
            times_between(start, start, minutes)


def test_a_long_reply_of_records_comes_in_parts() -> None:
    raw = encode_record(WHEN, VALUES)
    reply = build_reply(OWN, "06000001", raw)
    assert len(reply) == 119
