"""Making a day's list costs the buses nothing: it is made once, and they go on meanwhile."""

import asyncio
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from headend.acquisition.duekeeper import DueKeeper
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.acquisition.registry import Registry
from headend.domain.clock import to_ms
from headend.domain.due import DuePoint
from headend.domain.meter import Meter

ZONE = ZoneInfo("Asia/Shanghai")
TODAY = date(2026, 11, 25)
PLANS = {
    "p": ReadPlan(
        "p",
        (PlanEntry(("active_import_total",), interval_s=900, tolerance_ms=1000, window_ms=1000),),
    )
}


class Clock:
    """Stands at 23:30."""

    def now_ms(self) -> int:
        return to_ms(datetime(2026, 11, 25, 23, 30, tzinfo=ZONE))

    def monotonic(self) -> float:
        return 0.0


class Lists:
    """The journal as the keeper of due points sees it."""

    def __init__(self) -> None:
        self.frozen: dict[date, list[DuePoint]] = {TODAY: []}
        self.asked = 0

    async def last_frozen_day(self) -> date:
        return max(self.frozen)

    async def open_days(self) -> list[date]:
        return []

    async def freeze_due(self, day: date, points: Sequence[DuePoint]) -> int:
        self.asked += 1
        self.frozen.setdefault(day, list(points))
        return len(points)


def meters(number: int) -> list[Meter]:
    return [
        Meter(f"M-{n}", f"SP-{n}", "b", "dlt645-2007", f"{n:012d}", "p") for n in range(1, number)
    ]


def keeper_of(lists: Lists, registry: Registry) -> DueKeeper:
    return DueKeeper(lists, registry, PLANS, zone=ZONE, clock=Clock())


async def test_the_next_days_list_is_made_once_and_not_every_minute() -> None:
    lists = Lists()
    keeper = keeper_of(lists, Registry(meters(5), []))
    for _minute in range(3):
        await keeper.prepare()
    assert lists.asked == 1
    assert len(lists.frozen[TODAY + timedelta(days=1)]) == 4 * 96


async def test_others_go_on_while_a_list_is_made() -> None:
    steps = 0

    async def other() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await keeper_of(Lists(), Registry(meters(301), [])).prepare()
    task.cancel()
    assert steps >= 300


async def test_a_meter_that_comes_while_the_list_is_made_is_on_it() -> None:
    lists, known = Lists(), meters(4)

    class Growing(Registry):
        """One more meter from the third look on."""

        looks = 0

        def all(self) -> tuple[Meter, ...]:
            self.looks += 1
            return tuple(known if self.looks > 2 else known[:-1])

    await keeper_of(lists, Growing(known, [])).prepare()
    frozen = lists.frozen[TODAY + timedelta(days=1)]
    assert {point.key.meter for point in frozen} == {"M-1", "M-2", "M-3"}
