"""Turns: priorities, bounds, deadlines, callers that go away."""

import asyncio

import pytest
from bus_bench_line import CHAR_S, FakeLink, Say, answer, answering, ask, frame, line, run_virtual

from headend.bus import Priority
from headend.bus.queue import Pending, RequestQueue
from headend.domain.errors import DeadlinePassed, NoAnswer, PortGone, QueueFull
from headend.domain.exchange import Outcome


def asked(bench):
    return [(chr(data[2]), data[4]) for _, data in bench.link.sent]


def test_more_urgent_requests_overtake_and_equals_keep_their_order():
    async def scenario():
        async with line() as bench:
            order = [("a", 1, 1), ("b", 2, 4), ("c", 3, 2), ("d", 4, 1), ("e", 5, 0), ("f", 6, 2)]
            await asyncio.gather(
                *(bench.bus.exchange(ask(d, q, priority=Priority(p))) for d, q, p in order)
            )
            assert asked(bench) == [("e", 5), ("a", 1), ("d", 4), ("c", 3), ("f", 6), ("b", 2)]

    run_virtual(scenario())


def test_a_person_overtakes_between_two_tries_of_a_silent_meter():
    async def scenario():
        def peer(request, nth):
            return [] if nth == 1 else answering(request, nth)

        async with line(peer) as bench:
            slow = asyncio.create_task(bench.bus.exchange(ask("a", attempts=2)))
            await asyncio.sleep(0.2)
            equal = asyncio.create_task(bench.bus.exchange(ask("c")))
            await bench.bus.exchange(ask("b", priority=Priority.ON_DEMAND))
            await asyncio.gather(slow, equal)
            assert [d for d, _ in asked(bench)] == ["a", "b", "a", "c"]

    run_virtual(scenario())


def test_a_full_queue_refuses_at_once_and_takes_again_when_there_is_room():
    async def scenario():
        async with line(queue_max=3) as bench:
            await bench.bus.exchange(ask())
            running = [asyncio.create_task(bench.bus.exchange(ask("a", n))) for n in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFull, match="its bound is reached"):
                await bench.bus.exchange(ask("a", 9))
            await asyncio.gather(*running)
            assert (await bench.bus.exchange(ask("a", 9))).outcome is Outcome.REPLY
            assert bench.bus.statistics().refused_full == 1

    run_virtual(scenario())


def test_nothing_is_sent_after_the_deadline_and_the_caller_learns_it_then():
    async def scenario():
        async with line(lambda _r, _n: []) as bench:
            start = bench.loop.time()
            first = asyncio.create_task(bench.bus.exchange(ask("a", attempts=9)))
            await asyncio.sleep(0)
            with pytest.raises(DeadlinePassed, match="nothing was sent"):
                await bench.bus.exchange(ask("b", deadline=start + 1.5))
            assert bench.loop.time() == pytest.approx(start + 1.5, abs=0.01)
            assert {d for d, _ in asked(bench)} == {"a"}
            first.cancel()
            with pytest.raises(DeadlinePassed):
                await bench.bus.exchange(ask("b", deadline=start))
            assert bench.bus.statistics().deadline_passed == 2

    run_virtual(scenario())


def test_a_deadline_ends_the_tries_but_not_the_one_on_the_wire():
    async def scenario():
        async with line(lambda _r, _n: []) as bench:
            start = bench.loop.time()
            with pytest.raises(NoAnswer) as caught:
                await bench.bus.exchange(ask("a", attempts=9, deadline=start + 2.0))
            assert caught.value.diagnosis == "silence"
            assert all(at <= start + 2.0 for at, _ in bench.link.sent)
            assert caught.value.attempts == len(bench.link.sent) == 2
            late = lambda r, _n: [Say(answer(r), after_s=0.4)]  # noqa: E731
            bench.link.peer = late
            await asyncio.sleep(2)
            got = await bench.bus.exchange(ask("a", deadline=bench.loop.time() + 0.2))
            assert got.outcome is Outcome.REPLY

    run_virtual(scenario())


def test_a_caller_cancelled_in_the_queue_leaves_nothing_behind():
    async def scenario():
        async with line() as bench:
            await bench.bus.exchange(ask())
            tasks = [asyncio.create_task(bench.bus.exchange(ask("a", n))) for n in range(1, 5)]
            await asyncio.sleep(0)
            tasks[2].cancel()
            await asyncio.wait(tasks)
            assert [q for _, q in asked(bench)] == [1, 1, 2, 4]
            assert bench.bus.statistics().queue_len == 0

    run_virtual(scenario())


def test_a_caller_cancelled_on_the_wire_does_not_spoil_the_next_exchange():
    async def scenario():
        async with line() as bench:
            task = asyncio.create_task(bench.bus.exchange(ask("a", 1)))
            await asyncio.sleep(0.1)
            assert len(bench.link.sent) == 1
            task.cancel()
            got = await bench.bus.exchange(ask("a", 1))
            assert bench.outcomes() == ["reply", "reply"]
            assert got.stray == b""
            first_ended = bench.link.sent[0][0] + 0.1 + (7 + 10) * CHAR_S
            assert bench.link.sent[1][0] == pytest.approx(first_ended + 0.03, abs=0.002)

    run_virtual(scenario())


def test_a_cancelled_request_is_not_repeated():
    async def scenario():
        async with line(lambda _r, _n: []) as bench:
            task = asyncio.create_task(bench.bus.exchange(ask(attempts=5)))
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.sleep(10)
            assert bench.outcomes() == ["silence"]

    run_virtual(scenario())


def test_stopping_the_bus_answers_everybody_and_records_the_attempt():
    async def scenario():
        async with line(lambda _r, _n: []) as bench:
            tasks = [asyncio.create_task(bench.bus.exchange(ask("a", n))) for n in range(3)]
            await asyncio.sleep(0.1)
            bench.task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(error, PortGone) for error in done)
            assert bench.outcomes() == ["cancelled"]
            assert bench.link.receiver is None
            again = asyncio.create_task(bench.bus.run())
            bench.link.peer = answering
            assert (await bench.bus.exchange(ask())).outcome is Outcome.REPLY
            again.cancel()
            await asyncio.wait([again])

    run_virtual(scenario())


def test_an_observer_that_raises_is_reported_and_the_bus_works_on():
    async def scenario():
        def broken(_exchange):
            raise ZeroDivisionError("observer")

        async with line(observer=broken) as bench:
            for n in range(3):
                assert (await bench.bus.exchange(ask("a", n))).outcome is Outcome.REPLY
            assert bench.bus.statistics().observer_failures == 3
            assert [type(p["exception"]) for p in bench.loop.problems] == [ZeroDivisionError] * 3

    run_virtual(scenario())


def test_the_observer_has_seen_every_attempt_before_the_caller_goes_on():
    async def scenario():
        async with line() as bench:
            for n in range(5):
                got = await bench.bus.exchange(ask("a", n))
                assert bench.seen[-1] is got

    run_virtual(scenario())


def test_statistics_count_what_happened():
    async def scenario():
        def peer(request, nth):
            return [Say(b"\x55" + answer(request))] if nth % 2 else []

        async with line(peer) as bench:
            for n in range(4):
                await bench.bus.exchange(ask("a", n, attempts=2))
            stats = bench.bus.statistics()
            assert stats.exchanges == len(bench.seen) == 7
            assert stats.outcomes == {Outcome.REPLY: 4, Outcome.SILENCE: 3}
            assert (stats.answered, stats.failed, stats.stray_bytes) == (4, 0, 4)
            took_s = sum(e.took_ms for e in bench.seen) / 1000
            assert stats.busy_s == pytest.approx(took_s, abs=0.01)
            assert 0 < stats.busy_share < 1
            assert stats.devices["a"].attempts == 7
            assert stats.devices["a"].answers == 4
            assert stats.steps > 0

    run_virtual(scenario())


def test_an_idle_bus_takes_steps():
    async def scenario():
        async with line() as bench:
            await asyncio.sleep(1)
            before = bench.bus.statistics().steps
            await asyncio.sleep(60)
            assert bench.bus.statistics().steps >= before + 10

    run_virtual(scenario())


def test_a_request_that_asks_nothing_is_a_mistake_of_the_caller():
    async def scenario():
        async with line() as bench:
            with pytest.raises(ValueError, match="at least one attempt"):
                await bench.bus.exchange(ask(attempts=0))
            assert bench.link.sent == []

    run_virtual(scenario())


def test_parity_is_told_as_the_link_sees_it():
    async def scenario():
        async with line(link=FakeLink(answering, parity_seen=False)) as bench:
            assert not bench.bus.parity_seen
        async with line() as bench:
            assert bench.bus.parity_seen

    run_virtual(scenario())


def test_the_queue_gives_out_in_order_and_forgets_what_is_taken_out():
    queue = RequestQueue(10)
    pendings = [Pending(p, n, ask(), None, 0.0) for n, p in enumerate([3, 1, 2, 1, 0, 3])]
    for pending in pendings:
        queue.push(pending)
    assert queue.discard(pendings[2])
    assert not queue.discard(pendings[2])
    assert [queue.pop().number for _ in range(len(queue))] == [4, 1, 3, 0, 5]
    assert frame("a", "q") == ask().payload
