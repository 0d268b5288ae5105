"""The load records of a simulated meter: real depth, holes, and the ways makers write them."""

import datetime as dt
from decimal import Decimal

import pytest

from protocols.dlt645.formats import MeterTime
from protocols.dlt645.frame import WAKE_UP
from protocols.dlt645.load_profile import (
    CLASSES,
    LoadRecord,
    LoadShape,
    decode_records,
    load_request,
    missing_times,
    times_between,
)
from protocols.dlt645.master import Assembly
from protocols.errors import ErrorReply
from simulators.energy import DAY_MS
from simulators.meter645_content import KeptSettings
from simulators.meter645_load import LoadSettings
from simulators.meter645_store import Gap
from tests.simulators.bench645 import ADDRESS, NOW_MS, Bench, SharedBench, build, parse

QUARTER_MS = 900_000
MIDNIGHT_MS = NOW_MS - (6 * 3600 + 13 * 60 + 20) * 1000


def at(day: int, hour: int = 0, minute: int = 0) -> MeterTime:
    return MeterTime(dt.date(2023, 11, day), dt.time(hour, minute))


def wall_ms(day: int, hour: int = 0, minute: int = 0) -> int:
    return MIDNIGHT_MS + (day - 15) * DAY_MS + hour * 3_600_000 + minute * 60_000


def keeping(*gaps: Gap, **load) -> KeptSettings:
    return KeptSettings(gaps=gaps, load=LoadSettings(**load))


def fetch(bench: Bench, number: int, whole: bool = False, **asked) -> list[LoadRecord]:
    """The records of a class, put together from as many frames as they take."""
    assembly = Assembly(load_request(ADDRESS, number, **asked), whole=whole)
    while True:
        raw = bench.send(assembly.request.raw).lstrip(WAKE_UP)
        assert raw
        payload = assembly.take(raw)
        if payload is not None:
            return decode_records(payload, number)


@pytest.mark.parametrize("number", CLASSES)
def test_each_class_is_read_from_a_time_on_and_equals_the_truth_of_its_instants(number):
    bench = SharedBench("three")
    records = fetch(bench, number, time=at(14, 3), count=3)
    assert [record.time for record in records] == [at(14, 3, minute) for minute in (0, 15, 30)]
    for record, minute in zip(records, (0, 15, 30), strict=True):
        assert record.flags == ()
        assert list(record.classes) == [number]
        for value in record.classes[number]:
            if not value.point.startswith("di:"):
                truth = bench.meter.measured.value(value.point, wall_ms(14, 3, minute))
                assert value.value == truth, value.point


def test_all_classes_come_in_one_record_of_103_bytes():
    (record,) = fetch(SharedBench("three"), 0, time=at(14, 3), count=1)
    assert len(record.raw) == 8 + 87 + 6 + 2 == 103
    assert tuple(record.classes) == CLASSES


def test_phases_that_are_not_there_have_no_value_in_a_record():
    (record,) = fetch(SharedBench("single"), 1, time=at(14), count=1)
    values = {one.point: one.value for one in record.classes[1]}
    assert values["voltage_a"] > 200
    assert values["voltage_b"] is values["current_c"] is None


def test_the_latest_and_the_earliest_records_are_what_they_are_called():
    bench = SharedBench()
    assert [r.time for r in fetch(bench, 4, which="latest", count=2)] == [at(15, 5, 45), at(15, 6)]
    first = fetch(bench, 4, which="earliest", count=2)
    assert [r.time for r in first] == [at(12, 6, 15), at(12, 6, 30)]


def test_more_than_fits_one_frame_goes_on_in_follow_up_frames():
    bench = SharedBench("three")
    first = parse(bench.send(load_request(ADDRESS, 0, time=at(14), count=4).raw))
    assert first.control == 0xB1
    assert len(first.data) == 200
    for whole in (False, True):
        records = fetch(bench, 0, whole, time=at(14), count=4)
        assert [record.time for record in records] == times_between(at(14), at(14, 1), 15)


def test_a_follow_up_frame_is_said_again_and_one_that_is_not_there_is_refused():
    bench = SharedBench("three")
    request = load_request(ADDRESS, 0, time=at(14), count=2)
    bench.send(request.raw)
    head = bytes.fromhex("01000006")
    again = [bench.send(build(ADDRESS, 0x12, head + b"\x01")) for _ in range(2)]
    assert again[0] == again[1]
    assert parse(again[0]).control == 0x92
    assert parse(again[0]).data[-1] == 1
    for wrong in (head + b"\x00", head + b"\x02", bytes.fromhex("0100000501")):
        assert parse(bench.send(build(ADDRESS, 0x12, wrong))).control == 0xD2
    bench.ask("00010000")  # another read ends what was begun
    assert parse(bench.send(build(ADDRESS, 0x12, head + b"\x01"))).control == 0xD2


def test_frames_are_as_large_as_the_meter_makes_them():
    bench = SharedBench("three", frame_data_max=60)
    records = fetch(bench, 0, time=at(14), count=2)
    assert [record.time for record in records] == [at(14), at(14, 0, 15)]


def test_a_hole_shows_in_the_times_of_what_comes_and_is_named():
    hole = Gap(wall_ms(14, 3), wall_ms(14, 9, 1))
    bench = SharedBench(kept=keeping(hole))
    due = times_between(at(14), at(15), 15)
    got: list[LoadRecord] = []
    while not got or got[-1].time < due[-1]:
        start = got[-1].time if got else at(13, 23, 45)
        after = times_between(start, at(16), 15)[1]
        got += fetch(bench, 4, time=after, count=8)
    missing = missing_times(due, got)
    assert missing == times_between(at(14, 3), at(14, 9, 15), 15)
    assert fetch(bench, 4, time=at(14, 3), count=1)[0].time == at(14, 9, 15)


def test_a_record_known_to_be_damaged_says_so_and_one_without_values_has_none():
    bench = SharedBench(
        kept=keeping(
            Gap(wall_ms(14, 1), wall_ms(14, 1, 15), "bad"),
            Gap(wall_ms(14, 2), wall_ms(14, 2, 15), "ff"),
        )
    )
    (bad,) = fetch(bench, 4, time=at(14, 1), count=1)
    assert bad.is_bad
    assert bad.classes == {}
    (empty,) = fetch(bench, 4, time=at(14, 2), count=1)
    assert [one.value for one in empty.classes[4]] == [None] * 4


def test_the_oldest_records_give_way_when_the_store_is_full():
    bench = SharedBench(kept=keeping(depth=96))
    (first,) = fetch(bench, 4, which="earliest", count=1)
    assert first.time == at(14, 6, 15)
    bench.now_ms += 2 * DAY_MS
    (first,) = fetch(bench, 4, which="earliest", count=1)
    assert first.time == at(16, 6, 15)


def test_classes_have_intervals_of_their_own_and_can_be_off():
    bench = SharedBench(kept=keeping(intervals_min=(15, 60, 60, 30, 60, 60), mode=0b001011))
    assert [r.time for r in fetch(bench, 2, time=at(14, 1), count=2)] == [at(14, 1), at(14, 2)]
    classes = [tuple(r.classes) for r in fetch(bench, 0, time=at(14, 1), count=3)]
    assert classes == [(1, 2, 4), (1,), (1, 4)]
    assert fetch(bench, 3, time=at(14), count=1) == []


@pytest.mark.parametrize("separators", ["all", "no_leading", "data_only"])
def test_separators_of_empty_classes_are_left_out_as_the_maker_does(separators):
    bench = SharedBench(kept=keeping(shape=LoadShape(separators)))
    (record,) = fetch(bench, 4, time=at(14), count=1)
    assert record.flags == (() if separators == "all" else ("no_separators",))
    assert len(record.raw) == {"all": 32, "no_leading": 29, "data_only": 27}[separators]
    assert len(fetch(bench, 0, time=at(14), count=1)[0].classes) == 6


def test_makers_count_n_and_the_sum_in_their_own_ways_and_store_the_year_first():
    usual = fetch(SharedBench(), 4, time=at(14), count=1)[0]
    other = fetch(
        SharedBench(kept=keeping(shape=LoadShape(count="whole"))), 4, time=at(14), count=1
    )[0]
    assert other.raw[2] - usual.raw[2] == 5
    (record,) = fetch(SharedBench(kept=keeping(wrong_sum=1)), 4, time=at(14), count=1)
    assert record.flags == ("checksum",)
    assert record.classes == usual.classes
    (record,) = fetch(
        SharedBench(kept=keeping(shape=LoadShape(year_first=True))), 4, time=at(14), count=1
    )
    assert record.time == at(14)
    assert record.flags == ("year_first",)


def test_records_that_are_not_there_are_answered_with_the_identifier_alone_or_refused():
    later = {"time": at(20), "count": 1}
    frame = parse(SharedBench().send(load_request(ADDRESS, 4, **later).raw))
    assert (frame.control, len(frame.data)) == (0x91, 4)
    with pytest.raises(ErrorReply, match="no_data"):
        fetch(SharedBench(kept=keeping(empty="refuse")), 4, **later)


@pytest.mark.parametrize(
    "data",
    [
        "01000406",  # no count
        "0100040601",  # from a time on, and no time
        "00000406010000140123",  # the earliest, and a time
        "010004060A0000140B23",  # digits that are none
    ],
)
def test_a_request_for_load_records_that_is_none_is_refused(data):
    assert parse(SharedBench().send(build(ADDRESS, 0x11, bytes.fromhex(data)))).control == 0xD1


def test_the_regional_identifier_is_answered_only_where_it_is_known():
    request = build(ADDRESS, 0x11, bytes.fromhex("FF00000601"))
    assert parse(SharedBench().send(request)).control == 0xD1
    frame = parse(SharedBench(kept=keeping(regional=True)).send(request))
    (record,) = decode_records(frame.data[4:], 0)
    assert record.time == at(15, 6)


def test_records_bear_the_meters_own_time_and_a_clock_set_back_keeps_both():
    bench = SharedBench()
    bench.meter.set_clock(wall_ms(15, 4, 50) + 480 * 60_000)
    bench.now_ms += 20 * 60_000
    times = [r.time for r in fetch(bench, 4, which="latest", count=3)]
    assert times == [at(15, 5, 45), at(15, 6), at(15, 5)]  # as they were kept
    twice = [r for r in fetch(bench, 4, time=at(15, 5), count=9) if r.time == at(15, 5)]
    assert len(twice) == 2
    assert twice[0].classes != twice[1].classes


def test_every_record_that_leaves_is_in_the_truth_log():
    bench = SharedBench()
    fetch(bench, 4, time=at(14), count=2)
    (served,) = bench.served
    assert served.di == "06040001"
    assert served.points[0] == "active_import_total@2023-11-14T00:00:00"
    assert len(served.values) == 8
    assert Decimal(served.values[0]) <= Decimal(served.values[4])
