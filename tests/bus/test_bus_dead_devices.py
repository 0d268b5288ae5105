"""A silent meter costs the others no more than the stated share, and is back once it speaks."""

import asyncio
import itertools

import pytest
from bus_bench_line import Say, answer, answering, ask, frame, line, run_virtual, silent_for

from headend.bus import BusSettings, Priority
from headend.bus.devices import CREDIT_MAX_S, DEVICES_MAX, DeviceBook
from headend.domain.errors import NoAnswer
from headend.domain.exchange import Outcome

SILENT = frozenset({Outcome.SILENCE})


async def kill(bench, device, requests=2):
    for _ in range(requests):
        with pytest.raises(NoAnswer):
            await bench.bus.exchange(ask(device, attempts=3))
    assert bench.bus.statistics().devices[device].dead


def sent_to(bench, device):
    return [at for at, data in bench.link.sent if chr(data[2]) == device]


def test_a_dead_meter_is_refused_without_touching_the_line():
    async def scenario():
        async with line(silent_for("a")) as bench:
            await kill(bench, "a")
            before = len(bench.link.sent)
            with pytest.raises(NoAnswer, match="asked again no sooner than") as caught:
                await bench.bus.exchange(ask("a"))
            assert (caught.value.diagnosis, caught.value.attempts) == ("dead_waiting", 0)
            assert len(bench.link.sent) == before
            assert bench.bus.statistics().dead_waiting == 1

    run_virtual(scenario())


def test_requests_queued_before_a_meter_died_are_refused_too():
    async def scenario():
        async with line(silent_for("a")) as bench:
            tasks = [bench.bus.exchange(ask("a", n, attempts=1)) for n in range(5)]
            errors = await asyncio.gather(*tasks, return_exceptions=True)
            assert [e.diagnosis for e in errors] == ["silence"] * 2 + ["dead_waiting"] * 3
            assert len(bench.link.sent) == 2

    run_virtual(scenario())


def test_probes_are_single_tries_ever_further_apart():
    async def scenario():
        settings = {"dead_share": 1.0, "probe_max_s": 16.0}
        async with line(silent_for("a"), **settings) as bench:
            await kill(bench, "a")
            before = len(bench.link.sent)
            for _ in range(6000):
                with pytest.raises(NoAnswer):
                    await bench.bus.exchange(ask("a", attempts=3))
                await asyncio.sleep(0.01)
            probes = sent_to(bench, "a")[before:]
            pauses = [round(b - a) for a, b in itertools.pairwise(probes)]
            # the back-off counts from the end of a probe, which itself takes 0.7 s
            assert pauses == [3, 5, 9, 17, 17]

    run_virtual(scenario())


def test_one_silent_meter_of_ten_leaves_the_others_their_rate_within_the_stated_bound():
    async def scenario(peer):
        devices = "abcdefghij"
        async with line(peer) as bench:
            answered = 0
            until = bench.loop.time() + 1200
            while bench.loop.time() < until:
                for device in devices:
                    try:
                        await bench.bus.exchange(ask(device))
                        answered += device != "d"
                    except NoAnswer:
                        assert device == "d"
            return answered, bench.bus.statistics()

    async def both():
        all_well, _ = await scenario(answering)
        one_dead, stats = await scenario(silent_for("d"))
        # nine of ten answered in the first run for every ten requests
        rate = one_dead / all_well
        assert stats.dead_s <= 0.05 * stats.elapsed_s + CREDIT_MAX_S + 2
        recognised_s = 2 * 3 * 1.3
        assert rate >= 1 - 0.05 - (recognised_s + CREDIT_MAX_S + 2) / 1200
        assert stats.devices["d"].dead

    run_virtual(both())


def test_many_dead_meters_together_get_no_more_than_the_share():
    async def scenario():
        dead = "abcdefghijklmnopqrst"
        async with line(silent_for(*dead), probe_max_s=10.0) as bench:
            until = bench.loop.time() + 1800
            while bench.loop.time() < until:
                for device in dead + "z":
                    try:
                        await bench.bus.exchange(ask(device))
                    except NoAnswer:
                        assert device != "z"
            stats = bench.bus.statistics()
            assert stats.dead_s <= 0.05 * stats.elapsed_s + CREDIT_MAX_S + 2
            assert all(stats.devices[d].dead for d in dead)
            # and every one of them is probed
            assert min(len(sent_to(bench, d)) for d in dead) > 6

    run_virtual(scenario())


def test_a_meter_that_answers_again_is_back_at_once():
    async def scenario():
        async with line(silent_for("a")) as bench:
            await kill(bench, "a")
            bench.link.peer = answering
            await asyncio.sleep(30)
            assert (await bench.bus.exchange(ask("a"))).outcome is Outcome.REPLY
            for n in range(20):
                assert (await bench.bus.exchange(ask("a", n))).outcome is Outcome.REPLY
            assert not bench.bus.statistics().devices["a"].dead

    run_virtual(scenario())


def test_a_person_asks_a_dead_meter_at_once_and_wakes_it_for_all():
    async def scenario():
        async with line(silent_for("a")) as bench:
            await kill(bench, "a")
            with pytest.raises(NoAnswer) as caught:
                await bench.bus.exchange(ask("a", priority=Priority.ON_DEMAND))
            assert (caught.value.diagnosis, caught.value.attempts) == ("silence", 1)
            bench.link.peer = answering
            got = await bench.bus.exchange(ask("a", priority=Priority.ON_DEMAND))
            assert got.outcome is Outcome.REPLY
            assert (await bench.bus.exchange(ask("a"))).outcome is Outcome.REPLY

    run_virtual(scenario())


def test_a_refusal_is_a_sign_of_life():
    async def scenario():
        def peer(request, nth):
            return [Say(frame("a", "e", request[4], b"\x02"))] if nth % 4 == 0 else []

        async with line(peer) as bench:
            for n in range(20):
                try:
                    got = await bench.bus.exchange(ask("a", n, attempts=2))
                    assert got.outcome is Outcome.REFUSED
                except NoAnswer as error:
                    assert error.diagnosis == "silence"  # noqa: PT017
            assert not bench.bus.statistics().devices["a"].dead

    run_virtual(scenario())


def test_damage_does_not_make_a_meter_dead():
    async def scenario():
        broken = bytearray(answer(frame("a", "q", 1)))
        broken[-2] ^= 1
        async with line(lambda _r, _n: [Say(bytes(broken))]) as bench:
            for _ in range(5):
                with pytest.raises(NoAnswer):
                    await bench.bus.exchange(ask("a", attempts=1))
            assert not bench.bus.statistics().devices["a"].dead

    run_virtual(scenario())


def test_when_a_whole_line_comes_back_all_its_meters_do():
    async def scenario():
        async with line() as bench:
            devices = "abcdefgh"
            for device in devices:
                await bench.bus.exchange(ask(device))
            bench.link.peer = lambda _r, _n: []
            for device in devices:
                await kill(bench, device)
            await asyncio.sleep(600)
            bench.link.peer = answering
            for device in devices:
                assert (await bench.bus.exchange(ask(device))).outcome is Outcome.REPLY

    run_virtual(scenario())


def test_meters_dead_among_living_ones_are_not_revived_by_the_living():
    async def scenario():
        async with line(silent_for("a", "b")) as bench:
            await bench.bus.exchange(ask("z"))
            await kill(bench, "a")
            await kill(bench, "b")
            await bench.bus.exchange(ask("z"))
            devices = bench.bus.statistics().devices
            assert devices["a"].dead
            assert devices["b"].dead

    run_virtual(scenario())


def test_the_names_that_are_remembered_are_bounded_and_dead_ones_kept():
    book = DeviceBook(BusSettings())
    book.failed("dead", SILENT, 1.0)
    book.failed("dead", SILENT, 2.0)
    for n in range(DEVICES_MAX + 100):
        book.attempted(str(n), Outcome.REPLY, 3.0, 0.3)
    known = book.statistics(3.0)
    assert len(known) == DEVICES_MAX
    assert known["dead"].dead
    assert str(DEVICES_MAX + 99) in known
