"""A late reply never becomes the answer to another question, whatever became of its own."""

import asyncio
import random

import pytest
from bus_bench_line import FakeLink, Say, answering, ask, line, run_virtual
from bus_modbus_line import CHAR_S, Sluggish, question, refusal, registers, reply, unreached

from headend.bus import Late
from headend.domain.errors import NoAnswer, PortGone
from headend.domain.exchange import Outcome
from protocols.framing import Match
from protocols.modbus.master import reply_registers

REQUEST_S = 8 * CHAR_S
REPLY_S = 9 * CHAR_S
OWN_S = 0.3  # the time-out of every request here


def slow_line(peer, **settings):
    link = FakeLink(peer, char_s=CHAR_S)
    return line(link=link, **{"silence_after_timeout_ms": 50, "gap_ms": 5, **settings})


def words_of(asked, exchange):
    assert exchange.reply is not None
    return list(reply_registers(asked, exchange.reply))


def late_then_quick(late_s):
    """The reply's last byte comes `late_s` after the end of the request; the others are quick."""

    def peer(raw, nth):
        after_s = late_s - REPLY_S if nth == 1 else 0.02
        return [Say(reply(raw, nth), after_s=after_s)]

    return peer


LATE = pytest.mark.parametrize("late_s", [0.31, 0.45, 0.599])


@LATE
def test_late_reply_is_not_taken_for_another_question_of_the_same_shape(late_s):
    async def scenario():
        async with slow_line(late_then_quick(late_s)) as bench:
            first, _ = question(address=10, attempts=1, timeout_s=OWN_S)
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(first)
            second, asked = question(address=20, timeout_s=OWN_S)
            got = await bench.bus.exchange(second)
            assert words_of(asked, got) == [20, 2]
            assert bench.bus.statistics().stray_bytes == 9

    run_virtual(scenario())


@LATE
def test_late_reply_does_not_serve_the_retry_of_its_own_question(late_s):
    """Else the retry's own reply would be left over, and one question behind for ever."""

    async def scenario():
        async with slow_line(late_then_quick(late_s)) as bench:
            for address in (10, 20, 30):
                request, asked = question(address=address, timeout_s=OWN_S)
                words = words_of(asked, await bench.bus.exchange(request))
                assert words == [address, len(bench.link.sent)]

    run_virtual(scenario())


@LATE
def test_late_reply_is_not_taken_after_its_caller_has_gone(late_s):
    async def scenario():
        async with slow_line(late_then_quick(late_s)) as bench:
            first, _ = question(address=10, timeout_s=OWN_S)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(bench.bus.exchange(first), 0.05)
            second, asked = question(address=20, timeout_s=OWN_S)
            assert words_of(asked, await bench.bus.exchange(second)) == [20, 2]
            assert [e.outcome for e in bench.seen] == [Outcome.SILENCE, Outcome.REPLY]

    run_virtual(scenario())


@LATE
def test_late_reply_is_not_taken_after_the_port_was_lost_and_opened_again(late_s):
    async def scenario():
        async with slow_line(late_then_quick(late_s), reopen_first_s=0.001) as bench:
            first, _ = question(address=10, timeout_s=OWN_S)
            task = asyncio.create_task(bench.bus.exchange(first))
            await asyncio.sleep(0.1)  # the port opens, the request goes out
            assert len(bench.link.sent) == 1
            bench.link.lose()
            with pytest.raises(PortGone):
                await task
            second, asked = question(address=20, timeout_s=OWN_S)
            assert words_of(asked, await bench.bus.exchange(second)) == [20, 2]

    run_virtual(scenario())


def test_false_beginning_of_a_reply_does_not_shorten_the_wait_for_the_true_one():
    """A glitch like the head of a frame ends the attempt early; the reply is still to come."""

    def peer(raw, nth):
        if nth > 1:
            return [Say(reply(raw, nth), after_s=0.02)]
        return [Say(raw[:2], after_s=0.01), Say(reply(raw, nth), after_s=2 * OWN_S - REPLY_S)]

    async def scenario():
        async with slow_line(peer, inter_byte_ms=30) as bench:
            first, _ = question(address=10, attempts=1, timeout_s=OWN_S)
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(first)
            second, asked = question(address=20, timeout_s=OWN_S)
            assert words_of(asked, await bench.bus.exchange(second)) == [20, 2]

    run_virtual(scenario())


def test_after_a_time_out_nothing_is_sent_before_twice_the_time_out():
    async def scenario():
        async with slow_line(lambda _r, _n: []) as bench:
            request, _ = question(attempts=2, timeout_s=OWN_S)
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(request)
            (first, _), (second, _) = bench.link.sent
            assert second - first == pytest.approx(REQUEST_S + 2 * OWN_S, abs=1e-3)
        async with slow_line(lambda _r, _n: [], silence_after_timeout_ms=800) as bench:
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(request)
            (first, _), (second, _) = bench.link.sent
            assert second - first == pytest.approx(REQUEST_S + OWN_S + 0.8, abs=1e-3)

    run_virtual(scenario())


def test_the_next_request_of_another_protocol_waits_for_the_late_reply_too():
    """A DL/T 645 request on the same pair would meet it on the wire."""

    async def scenario():
        async with slow_line(late_then_quick(0.5)) as bench:
            first, _ = question(address=10, attempts=1, timeout_s=OWN_S)
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(first)
            bench.link.peer = answering
            await bench.bus.exchange(ask())
            (sent, _), (after, _) = bench.link.sent
            assert after - sent >= REQUEST_S + 2 * OWN_S

    run_virtual(scenario())


def test_requests_that_name_their_answers_wait_as_before():
    async def scenario():
        async with line(lambda _r, _n: [], silence_after_timeout_ms=50) as bench:
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(ask(attempts=2, timeout_s=1.0))
            (first, request), (second, _) = bench.link.sent
            wire_s = len(request) * bench.link.char_s
            assert second - first == pytest.approx(wire_s + 1.0 + 0.05, abs=1e-3)

    run_virtual(scenario())


# -- numbered requests


def tcp_line(peer, **settings):
    link = FakeLink(peer, char_s=0.0)
    return line(link=link, **{"gap_ms": 0, "reply_timeout_ms": 300, "margin_ms": 0, **settings})


def test_numbered_requests_wait_for_nothing_and_skip_what_is_late():
    def peer(raw, nth):
        return [Say(reply(raw, nth, tcp=True), after_s=0.6 if nth == 1 else 0.3)]

    async def scenario():
        async with tcp_line(peer) as bench:
            first, _ = question(address=10, transaction=7, attempts=1, timeout_s=OWN_S, quiet_s=0)
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(first)
            gone_at = bench.loop.time()
            second, asked = question(address=20, transaction=8, timeout_s=OWN_S, quiet_s=0)
            got = await bench.bus.exchange(second)
            assert bench.link.sent[1][0] - gone_at < 0.001
            assert words_of(asked, got) == [20, 2]
            assert got.stray == reply(first.payload, 1, tcp=True)
            assert bench.bus.statistics().frames == {Match.STALE: 1}

    run_virtual(scenario())


def test_late_reply_of_a_numbered_request_serves_its_own_retry():
    """One retry layer, one number: a device that stalls for a while is understood at once."""

    def peer(raw, nth):
        return [Say(reply(raw, nth, tcp=True), after_s=0.6 if nth == 1 else 0.35)]

    async def scenario():
        async with tcp_line(peer) as bench:
            request, asked = question(address=10, transaction=7, timeout_s=OWN_S, quiet_s=0)
            got = await bench.bus.exchange(request)
            assert words_of(asked, got) == [10, 1]
            assert got.attempt == 2
            later, asked = question(address=20, transaction=8, timeout_s=OWN_S, quiet_s=0)
            assert words_of(asked, await bench.bus.exchange(later)) == [20, 3]

    run_virtual(scenario())


# -- the proof by many


async def read_many(bus, link, seed, reads, late):
    """Reads with random questions and cancellations; how many gave a value, which were wrong."""
    rng = random.Random(seed)
    wrong, answered = [], 0
    for _ in range(reads):
        unit, address = rng.choice((1, 1, 1, 2)), 10 * rng.randrange(1, 50)
        attempts = rng.randrange(1, 4)
        request, asked = question(unit, address, attempts=attempts, timeout_s=OWN_S, late=late)
        before = len(link.sent)
        patience_s = rng.random() * 1.5 if rng.random() < 0.15 else None
        try:
            got = await asyncio.wait_for(bus.exchange(request), patience_s)
        except (NoAnswer, TimeoutError):
            continue
        answered += 1
        words = words_of(asked, got)
        # Its own address, and said in answer to one of its own requests.
        ours = words[0] == address and before < words[1] <= len(link.sent)
        if not ours or link.sent[words[1] - 1][1] != request.payload:
            wrong.append((words, address))
    return answered, wrong


def proof(lines, reads, late):
    found = []

    async def one(seed):
        peer = Sluggish(seed, 2 * OWN_S)
        async with slow_line(peer, dead_after=1_000_000) as bench:
            found.append(await read_many(bench.bus, bench.link, seed, reads, late))

    async def scenario():
        await asyncio.gather(*(one(seed) for seed in range(lines)))

    run_virtual(scenario())
    return sum(answered for answered, _ in found), [w for _, wrong in found for w in wrong]


def test_five_thousand_reads_on_thirty_two_sluggish_lines_give_not_one_wrong_register():
    answered, wrong = proof(lines=32, reads=157, late=Late.ANONYMOUS)
    assert wrong == []
    assert answered > 3000


def test_the_same_lines_without_the_rule_give_wrong_registers():
    """So the proof above can fail."""
    _, wrong = proof(lines=2, reads=150, late=Late.NAMED)
    assert len(wrong) > 5


# -- quiet before a request


def test_a_device_gets_the_quiet_time_it_needs_after_anybody_spoke():
    async def scenario():
        async with slow_line(lambda r, n: [Say(reply(r, n), after_s=0.02)]) as bench:
            request, _ = question(quiet_s=0.1)
            await bench.bus.exchange(request)
            ended = bench.loop.time()
            await bench.bus.exchange(request)
            assert bench.link.sent[1][0] - ended == pytest.approx(0.1, abs=1e-4)
            ended = bench.loop.time()
            quick, _ = question(quiet_s=0.0, quiet_chars=0.0)
            await bench.bus.exchange(quick)
            assert bench.link.sent[2][0] - ended == pytest.approx(0.005, abs=1e-4)
            slow, _ = question(quiet_s=0.0, quiet_chars=50)
            ended = bench.loop.time()
            await bench.bus.exchange(slow)
            assert bench.link.sent[3][0] - ended == pytest.approx(50 * CHAR_S, abs=1e-4)

    run_virtual(scenario())


def test_who_needs_less_quiet_does_not_shorten_it_for_who_needs_more():
    """The line was waited for on behalf of one that is gone; the next has its own needs."""

    async def scenario():
        async with slow_line(lambda r, n: [Say(reply(r, n), after_s=0.02)]) as bench:
            first, _ = question(quiet_s=0.0)
            await bench.bus.exchange(first)
            ended = bench.loop.time()
            gone = asyncio.create_task(bench.bus.exchange(first))
            needy, _ = question(unit=2, quiet_s=0.2)
            task = asyncio.create_task(bench.bus.exchange(needy))
            await asyncio.sleep(0)
            gone.cancel()
            await task
            assert bench.link.sent[1][0] - ended == pytest.approx(0.2, abs=1e-3)

    run_virtual(scenario())


def test_a_noisy_line_does_not_hold_a_request_for_ever():
    async def scenario():
        async with slow_line(lambda r, n: [Say(reply(r, n))], quiet_wait_max_ms=1000) as bench:
            request, _ = question(quiet_s=0.2, attempts=1, timeout_s=OWN_S)
            await bench.bus.exchange(request)
            bench.link.say(Say(b"\x55" * 3000, after_s=0.0))
            await asyncio.sleep(0.01)
            asked = bench.loop.time()
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(question(quiet_s=0.2, attempts=1, timeout_s=OWN_S)[0])
            assert bench.link.sent[1][0] - asked == pytest.approx(1.0, abs=0.02)

    run_virtual(scenario())


def test_whoever_had_the_port_before_is_given_time_to_be_answered():
    async def scenario():
        async with slow_line(answering, silence_after_timeout_ms=400) as bench:
            bench.link.peer = lambda r, n: [Say(reply(r, n))]
            began = bench.loop.time()
            await bench.bus.exchange(question()[0])
            assert bench.link.sent[0][0] - began >= 0.4

    run_virtual(scenario())


# -- gateways


def asked_through_a_gateway(unit=1, **more):
    _, asked = question(unit, transaction=unit)
    return question(unit, transaction=unit, match=unreached(asked), quiet_s=0, **more)


def test_what_a_gateway_says_for_a_silent_device_is_that_devices_silence():
    def peer(raw, nth):
        unit = raw[6]
        said = refusal(raw, 0x0B, tcp=True) if unit == 9 else reply(raw, nth, tcp=True)
        return [Say(said, after_s=0.05)]

    async def scenario():
        async with tcp_line(peer, dead_after=2, drop_after_silent=3) as bench:
            for attempts in (2, 1):  # one that was silent a request long is tried once
                with pytest.raises(NoAnswer) as caught:
                    await bench.bus.exchange(asked_through_a_gateway(9, attempts=2)[0])
                assert caught.value.diagnosis == "unreached"
                assert caught.value.attempts == attempts
            with pytest.raises(NoAnswer) as caught:
                await bench.bus.exchange(asked_through_a_gateway(9)[0])
            assert caught.value.diagnosis == "dead_waiting"
            good, asked = asked_through_a_gateway(1)
            assert words_of(asked, await bench.bus.exchange(good))[0] == 0
            found = bench.bus.statistics()
            assert found.devices["unit 9"].dead
            assert not found.devices["unit 1"].dead
            assert found.opens == 1  # the gateway is alive: its connection is kept
            assert bench.seen[0].reply == refusal(bench.link.sent[0][1], 0x0B, tcp=True)
            assert bench.seen[0].outcome is Outcome.UNREACHED

    run_virtual(scenario())


def test_a_connection_that_gives_not_one_byte_is_made_anew_and_then_serves():
    async def scenario():
        async with tcp_line(lambda _r, _n: [], drop_after_silent=4) as bench:
            opened = bench.link.open

            async def open_again(receiver):
                await opened(receiver)
                if bench.link.opens > 1:
                    bench.link.peer = lambda r, n: [Say(reply(r, n, tcp=True))]

            bench.link.open = open_again
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(question(1, transaction=1, attempts=3, quiet_s=0)[0])
            got = await bench.bus.exchange(question(2, transaction=2, attempts=3, quiet_s=0)[0])
            assert got.outcome is Outcome.REPLY
            assert bench.bus.statistics().opens == 2

    run_virtual(scenario())


def test_one_silent_device_among_living_ones_does_not_cost_the_connection():
    def peer(raw, nth):
        return [] if raw[6] == 9 else [Say(reply(raw, nth, tcp=True))]

    async def scenario():
        async with tcp_line(peer, drop_after_silent=4, dead_after=1000) as bench:
            for nth in range(5):
                with pytest.raises(NoAnswer):
                    await bench.bus.exchange(question(9, transaction=nth, attempts=3, quiet_s=0)[0])
                await bench.bus.exchange(question(1, transaction=100 + nth, quiet_s=0)[0])
            assert bench.bus.statistics().opens == 1

    run_virtual(scenario())


def test_the_registers_of_this_bench_tell_whose_they_are():
    _, asked = question(address=30, count=4)
    assert registers(asked, 5) == [30, 5, 32, 33]
    assert unreached(asked)(refusal(asked.raw, 0x0B)) is Match.UNREACHED
