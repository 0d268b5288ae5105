"""Whoever asks however much, every class of work keeps its stated part of the line."""

import asyncio
from collections import Counter
from contextlib import suppress

import pytest
from bus_bench_line import answering, ask, line, run_virtual

from headend.bus import Priority
from headend.bus.queue import ON_DEMAND_IN_ROW, PATIENCE, RequestQueue
from headend.bus.shares import FIRST_TURN_S, TURN_S_MAX, Shares
from headend.domain.errors import BusError, QueueFull

DEVICES = {priority: chr(ord("a") + priority) for priority in Priority}


async def keep_asking(bench, priority, *, callers=2, device=None, **more):
    """This class asks for ever, `callers` at a time."""

    async def one():
        while True:
            with suppress(BusError):
                await bench.bus.exchange(
                    ask(device or DEVICES[priority], priority=priority, **more)
                )
            await asyncio.sleep(0)

    await asyncio.gather(*(one() for _ in range(callers)))


async def used_in(bench, seconds, *classes, **more):
    """The part of the line that each class has when all of them always have something to ask."""
    tasks = [asyncio.create_task(keep_asking(bench, p, **more)) for p in classes]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    turns = Counter(e.device for e in bench.seen)
    return {p: turns[DEVICES[p]] / turns.total() for p in classes}


@pytest.mark.parametrize("behind", [Priority.BACKFILL, Priority.EVENTS, Priority.STATISTICS])
def test_what_waits_behind_what_is_due_keeps_its_share(behind):
    async def scenario():
        async with line() as bench:
            part = await used_in(bench, 300, Priority.DUE, behind)
            least = 1 / (PATIENCE[behind] + 1)
            assert least * 0.8 <= part[behind] <= least * 1.3

    run_virtual(scenario())


def test_people_who_never_stop_asking_leave_a_fifth_of_the_line_to_everything_else():
    async def scenario():
        async with line() as bench:
            part = await used_in(bench, 400, *Priority)
            assert part[Priority.ON_DEMAND] == pytest.approx(0.8, abs=0.02)
            assert list(part.values()) == sorted(part.values(), reverse=True)
            assert part[Priority.DUE] > 0.05
            assert all(part[p] > 0.005 for p in Priority)

    run_virtual(scenario())


def test_a_long_backfill_has_the_line_when_nobody_else_wants_it():
    async def scenario():
        async with line() as bench:
            part = await used_in(bench, 60, Priority.BACKFILL)
            assert part[Priority.BACKFILL] == 1
            assert bench.bus.statistics().busy_share > 0.8

    run_virtual(scenario())


def test_a_person_waits_for_one_exchange_and_is_not_broken_off_however_much_the_others_are_owed():
    async def scenario():
        async with line() as bench:
            others = [p for p in Priority if p is not Priority.ON_DEMAND]
            tasks = [asyncio.create_task(keep_asking(bench, p)) for p in others]
            await asyncio.sleep(100)
            for n in range(60):
                await asyncio.sleep(0.037 * (1 + n % 11))
                before = len(bench.link.sent)
                for _question in range(ON_DEMAND_IN_ROW):
                    await bench.bus.exchange(ask("a", priority=Priority.ON_DEMAND))
                came = [chr(data[2]) for _, data in bench.link.sent[before:]]
                assert came[:ON_DEMAND_IN_ROW] == ["a"] * ON_DEMAND_IN_ROW, came
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    run_virtual(scenario())


def test_long_silent_turns_of_a_noisy_meter_do_not_keep_the_others_from_their_part():
    """A class pays for its turns by the line's time: slow ones come as much later."""

    async def scenario():
        def peer(request, nth):
            return [] if chr(request[2]) == "z" else answering(request, nth)

        async with line(peer, dead_after=1000, silence_after_timeout_ms=1500) as bench:
            noisy = asyncio.create_task(
                keep_asking(bench, Priority.BACKFILL, device="z", attempts=3)
            )
            due = asyncio.create_task(keep_asking(bench, Priority.DUE))
            await asyncio.sleep(600)
            for task in (noisy, due):
                task.cancel()
            await asyncio.wait([noisy, due])
            answered = sum(e.device == DEVICES[Priority.DUE] for e in bench.seen)
            silent = sum(e.device == "z" for e in bench.seen)
            assert silent >= 10
            # What is left for the rest is nine tenths of the line, at 0.21 s a turn.
            assert answered >= 0.85 * 600 / 0.21

    run_virtual(scenario())


def test_a_flood_of_one_class_takes_nobody_elses_places():
    async def scenario():
        async with line(queue_max=4) as bench:
            await bench.bus.exchange(ask())
            flood = [
                asyncio.create_task(bench.bus.exchange(ask("a", n, priority=Priority.ON_DEMAND)))
                for n in range(4)
            ]
            await asyncio.sleep(0)
            with pytest.raises(QueueFull):
                await bench.bus.exchange(ask("a", 9, priority=Priority.ON_DEMAND))
            others = [bench.bus.exchange(ask("b", priority=priority)) for priority in PATIENCE]
            await asyncio.gather(*flood, *others)
            assert bench.bus.statistics().refused_full == 1

    run_virtual(scenario())


def test_the_wait_for_the_next_turn_is_known_beforehand():
    shares = Shares({"slow": 9.0})
    assert shares.waits_s("slow") == pytest.approx(9 * FIRST_TURN_S)
    shares.used("slow", 2.0, [])
    assert shares.waits_s("slow") == pytest.approx(18.0)
    shares.used("other", 17.9, ["slow"])
    assert shares.owed("slow") < 1
    shares.used("other", 0.2, ["slow"])
    assert shares.owed("slow") >= 1
    shares.used("slow", 3600.0, [])
    assert shares.waits_s("slow") == pytest.approx(9 * TURN_S_MAX)
    assert shares.owed("other") == 0


def test_a_turn_that_nobody_waits_behind_puts_nobody_off():
    queue = RequestQueue(4)
    for _ in range(100):
        queue.served(Priority.STATISTICS, 1.0)
    assert len(queue) == 0
    with pytest.raises(IndexError):
        queue.pop()


def test_what_holds_up_a_device_that_somebody_asks_for_goes_first_as_well():
    """Whoever reads it in the background is quick then, and not passed by everything else."""

    async def scenario():
        async with line() as bench:
            due = asyncio.create_task(keep_asking(bench, Priority.DUE))
            await asyncio.sleep(5)
            slow = asyncio.create_task(
                bench.bus.exchange(ask("s", 1, priority=Priority.STATISTICS))
            )
            await asyncio.sleep(0.5)
            assert not slow.done()
            before = len(bench.link.sent)
            with bench.bus.hurry("s"):
                await slow
                await bench.bus.exchange(ask("s", 2, priority=Priority.BACKFILL))
            came = [chr(data[2]) for _, data in bench.link.sent[before:]]
            assert came[:2] == ["s", "s"]
            # Afterwards it is as before.
            slow = asyncio.create_task(
                bench.bus.exchange(ask("s", 3, priority=Priority.STATISTICS))
            )
            await asyncio.sleep(2)
            assert not slow.done()
            for task in (due, slow):
                task.cancel()
            await asyncio.wait([due, slow])

    run_virtual(scenario())
