"""A meter that shows another number holds its bill until somebody says what it means."""

from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from headend.acquisition.identity_watch import IdentityWatch, WatchTimes
from headend.domain import alarms
from headend.domain.errors import ConfigError, NoAnswer
from headend.domain.lives import NUMBER
from headend.domain.meter import MeterExchange
from headend.drivers import PointResult
from tests.declarations.place_world import EXPORT, IMPORT, World

DAY_H = 24


class Numbers:
    """The session that asks for numbers: as a meter answers, or does not."""

    def __init__(self) -> None:
        self.answers: list[str | None] = []
        self.number: str | None = "000000001111"

    def __call__(self, _meter) -> "Numbers":
        return self

    async def read(self, points, **_how) -> list[PointResult]:
        shown = self.answers.pop(0) if self.answers else self.number
        error = None
        if shown is None:
            error = NoAnswer("silent", bus="b", attempts=1, diagnosis="silence", waited_ms=1)
        return [PointResult(p, "", None, "", None, None, 1, error, texts=(shown,)) for p in points]


@asynccontextmanager
async def watched(folder: Path):
    async with World(folder) as world:
        await world.take()
        numbers = Numbers()

        def make() -> IdentityWatch:
            return IdentityWatch(
                world.declarations, world.reader, numbers, clock=world.clock, times=WatchTimes()
            )

        yield world, numbers, make


async def look(world: World, watch: IdentityWatch) -> None:
    (meter,) = world.registry.all()
    await watch.look(meter)


async def standing(world: World) -> list[str]:
    told = await world.journal.meter_events(alarms.KINDS)
    return [alarm.name for alarm in alarms.standing(told)]


async def billed_import(world: World):
    return (await world.billed()).span("import")


async def exchanged_unseen(world: World) -> None:
    """The new meter's registers lie just above the old one's: nothing else would tell."""
    registers = tuple(world.device.registers.values())
    world.exchange((registers[0] + 40, registers[1]), other_address=False)


async def test_another_number_holds_the_bill_and_asks_and_the_declaration_lets_it_go(
    tmp_path: Path,
) -> None:
    async with watched(tmp_path) as (world, numbers, make):
        watch = make()
        await look(world, watch)
        world.go_on(DAY_H, (500, 0))
        await world.take()
        await look(world, watch)
        await exchanged_unseen(world)
        numbers.number = "000000002222"
        world.go_on(1, (30, 0))
        await world.take()  # believed: it fits
        await look(world, watch)
        assert await standing(world) == ["meter_changed"]
        assert (await billed_import(world)).reason == "meter_changed"
        world.go_on(1, (30, 0))
        await world.take()
        assert [r.verdict for r in world.rows].count("held") == 0  # held is not told to billing
        assert (await billed_import(world)).reason == "meter_changed"
        assert await world.declare(0)
        assert await standing(world) == []
        watch.take_doubts()
        world.go_on(1, (30, 0))
        await world.take()
        span = await billed_import(world)
        assert span.energy == world.energy(IMPORT, span.from_ms, span.to_ms)
        assert {part.start.meter for part in span.parts} == {"M-1", "M-2"}
        await look(world, watch)  # the new meter is known by its own number from now on
        place = world.registry.lives.place("SP-1", "M-2")
        assert place.numbered("M-2").number == "000000002222"
        assert await standing(world) == []


async def test_the_doubt_survives_a_restart(tmp_path: Path) -> None:
    async with watched(tmp_path) as (world, numbers, make):
        await look(world, make())
        numbers.number = "000000002222"
        world.go_on(1, (30, 0))
        await look(world, make())
        await world.restart()
        make().take_doubts()
        world.go_on(1, (30, 0))
        taken = len(world.truth)
        await world.take()
        assert taken
        assert (await world.journal.bases())["M-1", IMPORT].value == Decimal("5000.00")
        assert await standing(world) == ["meter_changed"]


async def test_the_same_meter_with_another_number_is_billed_again_with_all_that_was_held(
    tmp_path: Path,
) -> None:
    async with watched(tmp_path) as (world, numbers, make):
        watch = make()
        await look(world, watch)
        numbers.number = "000000002222"
        world.go_on(1, (30, 0))
        await look(world, watch)
        world.go_on(1, (30, 3))
        await world.take()
        assert (await world.journal.bases())["M-1", IMPORT].value == Decimal("5000.00")
        await world.declarations.number(
            "M-1", world.clock.ms, number="000000002222", by="fitter", reason="new parameters"
        )
        watch.take_doubts()
        assert world.reader.doubts == {}
        assert await standing(world) == []
        span = await billed_import(world)
        assert span.energy == Decimal("0.60")
        assert (await world.billed()).span("export").energy == Decimal("0.03")
        assert {row.point for row in world.rows if row.value} == {IMPORT, EXPORT}


async def test_a_number_that_is_shown_once_is_not_believed(tmp_path: Path) -> None:
    async with watched(tmp_path) as (world, numbers, make):
        watch = make()
        await look(world, watch)
        for odd in (["000000002222", "000000001111"], ["000000002222", None], [None]):
            numbers.answers = list(odd)
            await look(world, watch)
        assert await standing(world) == []
        assert len(await world.journal.meter_events((NUMBER,))) == 1


@pytest.mark.parametrize("nothing", ["000000000000", "FFFFFFFFFFFF", ""])
async def test_a_meter_without_a_number_is_left_alone(tmp_path: Path, nothing: str) -> None:
    async with watched(tmp_path) as (world, numbers, make):
        numbers.number = nothing
        await look(world, make())
        assert await world.journal.meter_events((NUMBER,)) == []


async def test_the_known_number_again_ends_the_doubt(tmp_path: Path) -> None:
    async with watched(tmp_path) as (world, numbers, make):
        watch = make()
        await look(world, watch)
        numbers.number = "000000002222"
        world.go_on(1, (30, 0))
        await look(world, watch)
        numbers.number = "000000001111"
        world.go_on(1, (30, 0))
        await look(world, watch)
        assert await standing(world) == []
        await world.take()
        assert (await billed_import(world)).energy == Decimal("0.60")


async def test_an_exchange_is_refused_where_the_number_speaks_against_its_date(
    tmp_path: Path,
) -> None:
    async with watched(tmp_path) as (world, numbers, make):
        watch = make()
        before_ms = world.clock.ms
        world.go_on(1, (30, 0))
        await look(world, watch)
        await exchanged_unseen(world)
        numbers.number = "000000002222"
        world.go_on(1, (30, 0))
        await look(world, watch)
        now = {IMPORT: Decimal("5000.30"), EXPORT: Decimal(0)}
        told = MeterExchange(before_ms, "", "M-1", "M-2", "", now, now, "fitter", "test")
        with pytest.raises(ConfigError, match="the exchange lies between"):
            await world.declarations.exchange(told)
