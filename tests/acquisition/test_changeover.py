"""Other meters and plans while others are read: what is carried on, and what no longer comes."""

import asyncio
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from headend.acquisition.changeover import Changeover
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.acquisition.poller import Job, Poller
from headend.acquisition.registry import Registry
from headend.domain.due import DueKey
from headend.domain.meter import Meter
from tests.acquisition.bench_meter import IMPORT, bench, meter_named
from tests.acquisition.test_due_and_polling import bounded, engine_of
from tests.support.waiting import eventually

ZONE = ZoneInfo("Asia/Shanghai")
MIDNIGHT_MS = 1_795_536_000_000 - 8 * 3_600_000  # of a local day
MINUTE_MS = 60_000
LIVE = "active_power_total"
REGISTER = "active_import_total"


def meter(name: str, bus: str = "a", plan: str = "p", **more: Decimal) -> Meter:
    return Meter(name, f"SP-{name}", bus, "dlt645-2007", name.zfill(12), plan, **more)


def every(minutes: int, *points: str) -> PlanEntry:
    return PlanEntry(points, 30_000, 60_000, interval_s=minutes * 60)


def plan(*entries: PlanEntry) -> ReadPlan:
    return ReadPlan("p", entries)


def change(old, new, old_plan=None, new_plan=None) -> Changeover:
    quarter = plan(every(15, REGISTER))
    return Changeover.between(
        Registry(old, []),
        {"p": old_plan or quarter},
        Registry(new, []),
        {"p": new_plan or old_plan or quarter},
    )


class Standing:
    """A clock that stands."""

    ms = MIDNIGHT_MS + 7 * MINUTE_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


def poller(bus, registry, plans, clock=None) -> Poller:
    return Poller(
        bus, registry, plans, None, None, zone=ZONE, clock=clock or Standing(), plan_first=False
    )


def upcoming(made: Poller) -> list[tuple[str, int, tuple[str, ...]]]:
    """Meter, minutes after midnight, points."""
    return sorted(
        (name, (due_ms - MIDNIGHT_MS) // MINUTE_MS, entry.points)
        for due_ms, _order, name, _index, entry in made._upcoming
    )


def test_only_what_differs_is_concerned():
    made = change([meter("1"), meter("2"), meter("3")], [meter("2"), meter("3", "b"), meter("4")])
    assert made.meters() == ["1", "3", "4"]
    assert made.buses() == {"a", "b"}
    assert not change([meter("1"), meter("2")], [meter("2"), meter("1")]).meters()


def test_a_plan_that_reads_otherwise_concerns_every_meter_that_has_it():
    made = change(
        [meter("1"), meter("2")],
        [meter("1"), meter("2")],
        plan(every(15, REGISTER)),
        plan(every(5, REGISTER)),
    )
    assert made.meters() == ["1", "2"]


def test_what_was_due_and_will_not_be_read_is_told_with_its_reason():
    from_ms, until_ms = MIDNIGHT_MS + 7 * MINUTE_MS, MIDNIGHT_MS + 60 * MINUTE_MS
    slower = change(
        [meter("1"), meter("2")],
        [meter("1")],
        plan(every(15, REGISTER)),
        plan(every(30, REGISTER)),
    )
    told = list(slower.no_longer_read(from_ms, until_ms, ZONE))

    def key(name: str, minute: int) -> DueKey:
        return DueKey(name, REGISTER, MIDNIGHT_MS + minute * MINUTE_MS)

    assert told == [
        (key("1", 15), "plan_changed"),
        (key("1", 45), "plan_changed"),
        (key("2", 15), "meter_removed"),
        (key("2", 30), "meter_removed"),
        (key("2", 45), "meter_removed"),
    ]
    added = change([meter("1")], [meter("1"), meter("2")])
    assert list(added.no_longer_read(from_ms, until_ms, ZONE)) == []


def test_a_line_that_stays_keeps_its_next_instant_and_a_new_one_begins_from_now_on():
    stays, gone, comes = every(15, REGISTER), every(15, LIVE), every(5, LIVE)
    registry, plans = Registry([meter("1")], []), {"p": plan(gone, stays)}
    clock = Standing()
    made = poller("a", registry, plans, clock)
    made._plan_all()
    assert upcoming(made) == [("1", 15, (REGISTER,)), ("1", 15, (LIVE,))]
    # An instant has come just now and nobody has looked yet: it must not be passed over.
    clock.ms = MIDNIGHT_MS + 15 * MINUTE_MS + 100
    carried = made.give_up(["1"])
    assert upcoming(made) == []
    plans["p"] = plan(stays, comes)
    made.take_over(carried)
    assert upcoming(made) == [("1", 15, (REGISTER,)), ("1", 20, (LIVE,))]


def test_an_instant_that_waits_is_served_although_its_line_is_no_longer_planned():
    stays, gone, comes = every(15, REGISTER), every(15, LIVE), every(5, LIVE)
    registry, plans = Registry([meter("1")], []), {"p": plan(gone, stays)}
    made = poller("a", registry, plans)
    waiting = {
        ("1", 0): Job("1", gone, MIDNIGHT_MS, [LIVE], 0),
        ("1", 1): Job("1", stays, MIDNIGHT_MS, [REGISTER], 0),
    }
    made._ready.update(waiting)
    carried = made.give_up(["1"])
    plans["p"] = plan(stays, comes)
    made.take_over(carried)
    # The line that stays has moved up; the one that is gone is in nobody's way.
    assert made._ready["1", 0] is waiting["1", 1]
    assert waiting["1", 0] in made._ready.values()
    assert ("1", 1) not in made._ready


def test_a_meter_on_another_bus_takes_its_work_along_and_leaves_the_others_alone():
    entry = every(15, REGISTER)
    registry, plans = Registry([meter("1"), meter("2")], []), {"p": plan(entry)}
    a, b = poller("a", registry, plans), poller("b", registry, plans)
    a._plan_all()
    job = a._ready["1", 0] = Job("1", entry, MIDNIGHT_MS, [REGISTER], 0)
    carried = a.give_up(["1"])
    registry.become(Registry([meter("1", "b"), meter("2")], []))
    a.take_over(carried)
    b.take_over(carried)
    assert upcoming(a) == [("2", 15, (REGISTER,))]
    assert upcoming(b) == [("1", 15, (REGISTER,))]
    assert list(b._ready.values()) == [job]
    assert not a._ready


async def test_a_read_that_waited_while_its_meter_went_is_not_made(tmp_path: Path):
    async with bench(tmp_path) as made:
        planned = bounded(made, 1)
        engine, _keeper = await engine_of(made, planned)
        turn = engine.turn("M-1")
        async with turn:
            reading = asyncio.create_task(engine.read_now("M-1", [IMPORT]))
            await eventually(lambda: turn._waiters)
            now, none = Registry([meter_named()], []), Registry([], [])
            assert engine.change_over(Changeover.between(now, planned, none, planned)) == []
        (taken,) = await reading
        assert (taken.result, taken.reason) == (None, "configuration_changed")
        assert made.rows() == []
