"""A bus whose settings change keeps its port; one that retires leaves nobody waiting."""

import asyncio

import pytest
from bus_bench_line import answering, ask, line, run_virtual

from headend.bus import BusSettings
from headend.domain.errors import NoAnswer, PortGone, QueueFull


def test_another_gap_holds_from_the_next_request_on_and_the_port_stays_open():
    async def scenario():
        async with line() as bench:
            await bench.bus.exchange(ask())
            bench.bus.change(BusSettings(gap_ms=2000.0))
            started = asyncio.get_running_loop().time()
            await bench.bus.exchange(ask())
            await bench.bus.exchange(ask())
            assert asyncio.get_running_loop().time() - started >= 2.0
            assert bench.bus.statistics().opens == 1

    run_virtual(scenario())


def test_another_bound_of_the_queue_holds_at_once():
    async def scenario():
        async with line() as bench:
            await bench.bus.exchange(ask())
            bench.bus.change(BusSettings(queue_max=1))
            waiting = asyncio.create_task(bench.bus.exchange(ask("a", 1)))
            await asyncio.sleep(0)
            with pytest.raises(QueueFull):
                await bench.bus.exchange(ask("a", 2))
            await waiting

    run_virtual(scenario())


def test_a_device_found_dead_is_asked_again_within_the_new_longest_pause():
    async def scenario():
        silent = True

        def peer(request, nth):
            return [] if silent else answering(request, nth)

        async with line(peer, dead_after=1, probe_first_s=500.0) as bench:
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(ask(attempts=1))
            silent = False
            bench.bus.change(BusSettings(probe_max_s=5.0))
            await asyncio.sleep(6.0)
            await bench.bus.exchange(ask())

    run_virtual(scenario())


def test_who_asks_a_bus_that_has_retired_is_told_at_once():
    async def scenario():
        async with line() as bench:
            await bench.bus.exchange(ask())
            bench.bus.retire()
            with pytest.raises(PortGone, match="being stopped"):
                await bench.bus.exchange(ask())

    run_virtual(scenario())
