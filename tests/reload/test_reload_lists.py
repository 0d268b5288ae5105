"""Lists of due points across a change of meters: a list never shrinks, and a new meter waits for
the next one."""

from collections import Counter
from pathlib import Path

from headend.acquisition.changeover import Changeover
from headend.acquisition.duekeeper import DueKeeper
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.acquisition.registry import Registry
from headend.domain.due import DueState
from headend.domain.meter import Meter
from headend.journal import JournalReader, JournalSettings
from tests.journal.journal_kit import DAY_MS, Bench

HOUR_MS = 3_600_000
ZONE = JournalSettings().zone


def meter(name: str) -> Meter:
    return Meter(name, f"SP-{name}", "a", "dlt645-2007", name[2:].zfill(12), "p")


async def test_a_meter_that_came_is_on_the_next_list_and_one_that_went_stays_on_this(
    tmp_path: Path,
):
    bench = Bench(tmp_path / "journal.db", consumers=())
    plans = {
        "p": ReadPlan(
            "p", (PlanEntry(("active_import_total",), 300_000, 900_000, interval_s=3600),)
        )
    }
    registry = Registry([meter("M-1"), meter("M-2")], [])
    async with await bench.open() as journal:
        keeper = DueKeeper(journal, registry, plans, zone=ZONE, clock=bench.clock)
        await keeper.prepare()
        first = await journal.last_frozen_day()
        assert first is not None
        # M-2 goes, M-3 comes.
        then = Registry([meter("M-1"), meter("M-3")], [])
        over = Changeover.between(registry, plans, then, plans)
        registry.become(then)
        end_ms = bench.clock.ms + DAY_MS
        await journal.due_failed_many(list(over.no_longer_read(bench.clock.ms, end_ms, ZONE)))
        await keeper.prepare()
        bench.clock.ms += 13 * HOUR_MS
        await keeper.prepare()
        bench.clock.ms += 4 * DAY_MS
        await keeper.prepare()
    with JournalReader(bench.path) as reader:
        days = reader.due_days()
        lists = {
            day: Counter((x.key.meter, x.state, x.reason) for x in reader.due_lines(day))
            for day in days[:2]
        }
    missing, never = DueState.MISSING, "never_tried"
    (today, on_it), (tomorrow, on_the_next) = lists.items()
    assert today == first < tomorrow
    assert {name for name, _, _ in on_it} == {"M-1", "M-2"}
    assert {(state, reason) for name, state, reason in on_it if name == "M-2"} == {
        (missing, "meter_removed")
    }
    assert on_the_next == {("M-1", missing, never): 24, ("M-3", missing, never): 24}
