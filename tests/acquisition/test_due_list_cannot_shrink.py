"""Whatever happens to the meters, a day's list keeps its length, and each point ends in one state.

What happens on a day is drawn: meters leave and come by configuration, are exchanged, answer or
do not, late or at once; the daemon starts anew in between, or is away for days.
"""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.acquisition.duekeeper import DueKeeper
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.acquisition.registry import Registry
from headend.domain.clock import from_iso
from headend.domain.due import DueKey, DueState, day_bounds_ms
from headend.domain.meter import Event, Meter
from headend.domain.reading import Source
from headend.journal import Birth, Journal, JournalReader
from tests.journal.journal_kit import Bench, reading

ZONE = ZoneInfo("Asia/Shanghai")
DAY = date(2026, 3, 2)
HOUR_MS = 3_600_000
POINT = "active_import_total"
METERS = 6
EVERY_S = 21_600
A_DAY = 86_400 // EVERY_S


def meter(name: str) -> Meter:
    return Meter(name, f"SP-{name}", "a", "dlt645-2007", "1".zfill(12), "p", area="T-1")


def plans_of(*points: str) -> dict[str, ReadPlan]:
    entry = PlanEntry(points, tolerance_ms=900_000, window_ms=1_800_000, interval_s=EVERY_S)
    return {"p": ReadPlan("p", (entry,))}


class Station:
    """A journal and a keeper of due points that can be started anew at any time."""

    def __init__(self, path: Path) -> None:
        self.bench = Bench(path, settings={"zone": ZONE})
        self.bench.clock.ms = day_bounds_ms(DAY, ZONE)[0] - HOUR_MS
        self.meters = [f"M-{n}" for n in range(METERS)]
        self.points: tuple[str, ...] = (POINT,)

    async def look(self, journal: Journal) -> None:
        """As a daemon that has just been started with the meters and plans of now."""
        registry = Registry([meter(name) for name in self.meters], [])
        plans = plans_of(*self.points)
        clock = self.bench.clock
        await DueKeeper(journal, registry, plans, zone=ZONE, clock=clock).prepare()

    def counts(self, day: date = DAY) -> tuple[int, int]:
        """How many points were frozen, and how many are on the list in exactly one state."""
        with JournalReader(self.bench.path) as reader:
            now = reader.due(day)
            assert len({line.key for line in reader.due_lines(day)}) == now["frozen"]
        return now["frozen"], sum(now[state.value] for state in DueState)


HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(["leave", "come", "exchange", "read", "late", "fail", "start", "plan"]),
        st.integers(0, METERS - 1),
        st.integers(0, A_DAY - 1),
    ),
    max_size=16,
)


async def happen(station: Station, journal: Journal, what: str, n: int, slot: int) -> None:
    due_ms = day_bounds_ms(DAY, ZONE)[0] + slot * EVERY_S * 1000
    name = station.meters[n % len(station.meters)] if station.meters else "M-0"
    match what:
        case "leave":
            station.meters = [m for m in station.meters if m != name]
        case "come":
            station.meters = sorted({*station.meters, f"N-{n}"})
        case "plan":
            station.points = (POINT, "active_export_total")[: 1 + n % 2]
        case "exchange" if f"{name}x" not in station.meters and station.meters:
            await journal.apply_meter_event(
                Event("meter_exchange", due_ms, {"old_meter": name, "new_meter": f"{name}x"}),
                lambda r: (replace(r, meter=f"{name}x"),),
                meter=name,
                from_ms=due_ms,
                successor=f"{name}x",
            )
            station.meters = [f"{name}x" if m == name else m for m in station.meters]
        case "read" | "late":
            made = reading("7.00", meter=name, time_ms=due_ms, due_ms=due_ms, late=what == "late")
            await journal.append(Birth((made,)))
        case "fail":
            await journal.due_failed(DueKey(name, POINT, due_ms), "no_answer:silence")
        case _:
            await station.look(journal)


@given(HAPPENINGS)
@settings(max_examples=12, deadline=None)
async def test_the_list_keeps_its_length_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, happenings: list[tuple[str, int, int]]
) -> None:
    station = Station(tmp_path_factory.mktemp("j") / "journal.db")
    bench, frozen = station.bench, METERS * A_DAY
    async with await bench.open() as journal:
        await station.look(journal)  # the day before, at 23:00: the list of DAY is made
    half = len(happenings) // 2
    for part in (happenings[:half], happenings[half:]):
        async with await bench.open() as journal:  # the daemon is started anew
            await station.look(journal)
            for one in part:
                await happen(station, journal, *one)
            await journal.last_frozen_day()
            assert station.counts() == (frozen, frozen)
    bench.clock.ms = day_bounds_ms(DAY, ZONE)[1] + 72 * HOUR_MS
    async with await bench.open() as journal:
        await station.look(journal)
        with JournalReader(bench.path) as reader:
            closed = reader.due_success(DAY, ZONE)
            assert closed is not None
            assert closed.is_closed
        for one in happenings:
            await happen(station, journal, *one)
        assert station.counts() == (frozen, frozen)
    with JournalReader(bench.path) as reader:
        assert reader.due_success(DAY, ZONE) == closed
        assert reader.due(DAY)["open"] == 0


async def test_a_day_is_closed_72_hours_after_its_end_and_not_before(tmp_path: Path) -> None:
    station = Station(tmp_path / "journal.db")
    clock = station.bench.clock
    async with await station.bench.open() as journal:
        await station.look(journal)
        clock.ms = day_bounds_ms(DAY, ZONE)[1] + 72 * HOUR_MS - 1
        await station.look(journal)
        assert DAY in await journal.open_days()
        # Until then a value from the meter's own memory still counts.
        due_ms = day_bounds_ms(DAY, ZONE)[0]
        fills = reading(
            "7.00", meter="M-1", time_ms=due_ms, due_ms=due_ms, late=True, source=Source.BACKFILL
        )
        await journal.append(Birth((replace(fills, received_ms=clock.ms),)))
        clock.ms += 1
        await station.look(journal)
        assert DAY not in await journal.open_days()
    with JournalReader(station.bench.path) as reader:
        report = reader.due(DAY)
    assert (report["backfilled"], report["missing"]) == (1, METERS * A_DAY - 1)


async def test_meters_that_never_answer_stay_on_every_days_list(tmp_path: Path) -> None:
    station = Station(tmp_path / "journal.db")
    async with await station.bench.open() as journal:
        for n in range(5):
            day = DAY + timedelta(days=n)
            await station.look(journal)
            start_ms = day_bounds_ms(day, ZONE)[0]
            answered = [
                reading(str(n), meter=f"M-{k}", time_ms=start_ms, due_ms=start_ms)
                for k in range(METERS - 1)
            ]
            await journal.append_many([Birth((one,)) for one in answered])
            station.bench.clock.ms += 24 * HOUR_MS
        for n in range(5):
            assert station.counts(DAY + timedelta(days=n)) == (METERS * A_DAY, METERS * A_DAY)


async def test_a_configuration_that_takes_meters_out_at_the_last_moment_does_not_help(
    tmp_path: Path,
) -> None:
    station = Station(tmp_path / "journal.db")
    async with await station.bench.open() as journal:
        await station.look(journal)
        station.meters = ["M-0"]
        station.bench.clock.ms = from_iso("2026-03-02T23:59:59+08:00")
        await station.look(journal)
    assert station.counts() == (METERS * A_DAY, METERS * A_DAY)
    assert station.counts(DAY + timedelta(days=1)) == (A_DAY, A_DAY)
