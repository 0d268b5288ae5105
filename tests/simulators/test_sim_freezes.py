"""A simulated meter freezes by its own clock: days, hours, months, settlements; and with holes."""

import datetime as dt

import pytest

from protocols.dlt645.formats import MeterTime
from protocols.errors import ErrorReply
from simulators.energy import DAY_MS
from simulators.meter645_content import KeptSettings
from simulators.meter645_store import Gap, every, monthly
from tests.simulators.bench645 import NOW_MS, SharedBench

HOUR_MS = 3_600_000
MIDNIGHT_MS = NOW_MS - (6 * 3600 + 13 * 60 + 20) * 1000


def stamp(month: int, day: int, hour: int = 0) -> MeterTime:
    return MeterTime(dt.date(2023, month, day), dt.time(hour))


def test_hours_are_frozen_with_their_time_and_both_totals():
    bench = SharedBench("pv")
    assert bench.read("05040001") == (stamp(11, 15, 6),)
    assert bench.read("05040008") == (stamp(11, 14, 23),)
    truth = bench.meter.truth(MIDNIGHT_MS + 6 * HOUR_MS)
    totals = truth["active_import_total"].shown, truth["active_export_total"].shown
    assert (bench.read("05040101") + bench.read("05040201")) == totals
    assert bench.read("0504FF01") == (stamp(11, 15, 6), *totals)


def test_months_and_settlements_are_kept_at_their_day():
    bench = SharedBench("pv")
    bench.now_ms += 17 * DAY_MS  # the second of December
    assert bench.read("05070001") == (stamp(12, 1),)
    points = [f"active_import_{n}" for n in ("total", "t1", "t2", "t3", "t4")]
    truth = bench.meter.truth(MIDNIGHT_MS + 16 * DAY_MS, points)
    shown = tuple(truth[point].shown for point in points)
    assert bench.read("05070101") == bench.read("0001FF01") == shown
    assert bench.read("00010001") == shown[:1]
    assert bench.read("00010201") == shown[2:3]
    with pytest.raises(ErrorReply):
        bench.read("00010002")


def test_a_settlement_day_can_be_another():
    bench = SharedBench(kept=KeptSettings(settlement=(14, 2)))
    at_ms = MIDNIGHT_MS - 22 * HOUR_MS
    shown = bench.meter.truth(at_ms)["active_import_total"].shown
    assert bench.read("00010001") == (shown,)


def test_frozen_powers_are_those_of_the_instant():
    bench = SharedBench("three")
    frozen = bench.read("05061001")
    points = [f"{q}_power_{p}" for q in ("active", "reactive") for p in ("total", "a", "b", "c")]
    assert frozen == tuple(bench.meter.measured.value(p, MIDNIGHT_MS) for p in points)


def test_a_midnight_slept_through_is_not_there_and_numbering_passes_over_it():
    hole = Gap(MIDNIGHT_MS - DAY_MS - HOUR_MS, MIDNIGHT_MS - DAY_MS + HOUR_MS)
    bench = SharedBench(kept=KeptSettings(gaps=(hole,)))
    times = [bench.read(f"050600{nth:02X}") for nth in (1, 2)]
    assert times == [(stamp(11, 15),), (stamp(11, 13),)]
    hours = [bench.read(f"050400{nth:02X}")[0].time.hour for nth in range(28, 33)]
    assert hours == [3, 2, 1, 22, 21]


def test_a_freeze_can_be_there_without_its_values_and_only_of_some_stores():
    hole = Gap(MIDNIGHT_MS, MIDNIGHT_MS + 1, "ff", frozenset({"daily_freeze"}))
    bench = SharedBench(kept=KeptSettings(gaps=(hole,)))
    assert bench.read("05060001") == (stamp(11, 15),)
    assert bench.read("05060101") == (None,) * 5
    assert bench.read("05040107") != (None,)


def test_stores_are_as_deep_as_they_are():
    bench = SharedBench(kept=KeptSettings(days=2, hours=3))
    assert bench.read("05060002") is not None
    assert bench.read("05040003") is not None
    for di in ("05060003", "05040004"):
        with pytest.raises(ErrorReply):
            bench.read(di)


def test_due_instants_are_those_behind_the_first_up_to_the_last():
    assert list(every(10)(10, 30, 9)) == [20, 30]
    assert list(every(10)(0, 30, 2)) == [20, 30]
    newest = monthly()(0, 70 * DAY_MS, 9)
    assert [ms // DAY_MS for ms in newest] == [31, 59]
    assert list(monthly()(0, 70 * DAY_MS, 1)) == [59 * DAY_MS]
