"""No sequence of reads, outages and events, told in any order, makes energy appear or vanish.

HEADEND_ENERGY_EXAMPLES: how many stories (30); beyond 50 other ones each time.
"""

import asyncio
import os
import tempfile
from datetime import date, timedelta
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from headend.billing.differences import DIRECTIONS
from tests.declarations.place_world import POINTS, START_MS, WIDTH, ZONE, World

EXAMPLES = int(os.environ.get("HEADEND_ENERGY_EXAMPLES", "30"))
FIRST_DAY = date(2026, 3, 1)

cents = st.tuples(st.integers(0, 30_000), st.integers(0, 3_000))
steps = st.one_of(
    st.tuples(st.just("go on"), st.integers(1, 30), cents),
    st.tuples(st.just("read")),
    st.tuples(st.just("read")),
    st.tuples(st.just("late"), st.integers(0, 50)),
    st.tuples(st.just("midnight"), cents),
    st.tuples(
        st.just("exchange"),
        st.tuples(st.sampled_from([0, 12, WIDTH - 900]), st.sampled_from([0, 7])),
        st.booleans(),
    ),
    st.tuples(st.just("ratio"), st.sampled_from([1, 40, 60])),
    st.tuples(st.just("reset"), st.sampled_from([0, 3])),
    st.tuples(st.just("zero"), st.integers(1, 2)),
    st.tuples(st.just("declare"), st.integers(0, 9)),
    st.tuples(st.just("mistake"), st.booleans()),
    st.tuples(st.just("take back")),
    st.tuples(st.just("restart")),
)
first_registers = st.sampled_from([(500_000, 0), (WIDTH - 15_000, WIDTH - 900), (0, 0)])


async def do(world: World, step: tuple) -> None:  # noqa: C901 - one line for each kind of step
    match step:
        case ("go on", hours, flowed):
            world.go_on(hours, flowed)
        case ("midnight", flowed):
            day_ms = 24 * 3_600_000
            left = day_ms - (world.clock.ms - START_MS) % day_ms
            world.clock.ms += left - 3_600_000
            world.go_on(1, flowed)
            await world.take()
        case ("read",):
            world.tick()
            await world.take()
        case ("late", which):
            instants = sorted(world.truth)
            await world.take(frozen_ms=instants[which % len(instants)])
        case ("exchange", first, other_address):
            world.exchange(first, other_address=other_address)
        case ("ratio", ct):
            world.new_ratio(ct)
        case ("reset", value):
            world.reset(value)
        case ("zero", times) if not world.may_be_zero:
            world.tick()
            world.zeros = times
            await world.take()
            world.zeros = 0
        case ("declare", which):
            await world.declare(which)
        case ("mistake", ratio):
            await world.be_mistaken(ratio=ratio)
        case ("take back",):
            await world.take_back()
        case ("restart",):
            await world.restart()


async def story(first: tuple[int, int], told: list[tuple]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with World(Path(folder), registers=first) as world:
            await world.take()
            for step in told:
                await do(world, step)
            await world.tell_everything()
            await check(world)
            await world.restart()
            await check(world)


async def check(world: World) -> None:
    world.go_on(1, (10, 10))
    now_ms = world.clock.ms
    await world.take()
    point = await world.billed()
    for direction, name in DIRECTIONS.items():
        span = point.span(direction)
        assert span.reason is None, (direction, span.reason)
        assert span.to_ms > now_ms
        assert span.energy == world.energy(name, span.from_ms, span.to_ms)
        known = [point.day(FIRST_DAY + timedelta(days=n), ZONE, direction) for n in range(20)]
        for one in known:
            if one.energy is not None:
                start_ms, end_ms = one.parts[0].start.time_ms, one.parts[-1].end.time_ms
                assert one.energy == world.energy(name, start_ms, end_ms)
        # Each meter by itself: what is counted of it is its last register minus its first.
        for part in span.parts:
            rolled = len(part.rollovers) and WIDTH // 100
            assert part.energy == (part.end.value + rolled - part.start.value) * part.factor
    assert {row.point for row in world.rows} <= set(POINTS)


NEAR = (WIDTH - 15_000, WIDTH - 900)
# Stories that went wrong once: a rollover before a declared register, a late answer of another
# meter in the place of a true one, a ratio declared upon a mistake.
ROLLED = [("go on", 16, (8484, 1658)), ("reset", 3), ("read",), ("restart",)]
ANOTHERS_PAST = [
    ("read",), ("go on", 23, (29454, 259)), ("zero", 1), ("late", 24), ("read",),
    ("go on", 4, (0, 1200)), ("exchange", (0, 7), False), ("midnight", (0, 607)), ("late", 4),
]  # fmt: skip
ON_A_MISTAKE = [
    ("mistake", True), ("ratio", 40), ("declare", 3), ("late", 16), ("go on", 12, (26718, 188)),
    ("exchange", (12, 0), True), ("go on", 9, (0, 0)), ("read",), ("go on", 8, (29563, 0)),
]  # fmt: skip


@example(NEAR, ROLLED)
@example(NEAR, ANOTHERS_PAST)
@example((0, 0), ON_A_MISTAKE)
@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 50)
@given(first_registers, st.lists(steps, min_size=3, max_size=14))
def test_no_story_makes_energy_appear_or_vanish(first, told):
    asyncio.run(story(first, told))
