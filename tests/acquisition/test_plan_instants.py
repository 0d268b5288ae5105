"""Due instants follow the local clock, through clock changes and odd zones."""

from datetime import date, time
from zoneinfo import ZoneInfo

from headend.acquisition.plans import PlanEntry, instants
from headend.domain.clock import from_iso, iso
from headend.domain.due import day_bounds_ms

SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")
KATHMANDU = ZoneInfo("Asia/Kathmandu")


def every(seconds: int, **more: int) -> PlanEntry:
    return PlanEntry(("active_import_total",), 60_000, 60_000, interval_s=seconds, **more)


def daily(hour: int = 0) -> PlanEntry:
    return PlanEntry(("active_import_total",), 60_000, 60_000, at=time(hour))


def test_daily_reading_is_due_at_local_midnight() -> None:
    start, end = from_iso("2026-11-24T00:00:00+08:00"), from_iso("2026-11-26T00:00:00+08:00")
    found = [iso(t) for t in instants(daily(), start, end, SHANGHAI)]
    assert found == ["2026-11-23T16:00:00Z", "2026-11-24T16:00:00Z"]


def test_interval_plan_counts_from_local_midnight_in_a_quarter_hour_zone() -> None:
    start = from_iso("2026-11-24T00:01:00+05:45")
    first = next(instants(every(3600), start, start + 86_400_000, KATHMANDU))
    assert iso(first) == "2026-11-23T19:15:00Z"  # 01:00 local


def test_days_with_a_clock_change_have_92_and_100_quarters() -> None:
    for day, quarters in ((date(2026, 3, 29), 92), (date(2026, 10, 25), 100)):
        start, end = day_bounds_ms(day, BERLIN)
        found = list(instants(every(900), start, end, BERLIN))
        assert len(found) == quarters
        assert len(set(found)) == quarters


def test_start_is_included_and_end_is_not() -> None:
    start = from_iso("2026-11-24T00:00:00+08:00")
    assert list(instants(every(900), start, start + 900_000, SHANGHAI)) == [start]


def test_plan_bounds_cut_the_instants() -> None:
    start = from_iso("2026-11-24T00:00:00+08:00")
    bounded = every(10, from_ms=start + 20_000, until_ms=start + 50_000)
    found = list(instants(bounded, start, start + 86_400_000, SHANGHAI))
    assert [(t - start) // 1000 for t in found] == [20, 30, 40]
