"""One conversation at a time: time-outs, gaps, echoes, noise, retries, what is an answer."""

import asyncio
import itertools

import pytest
from bus_bench_line import CHAR_S, FakeLink, Say, answer, answering, ask, frame, line, run_virtual

from headend.domain.errors import NoAnswer
from headend.domain.exchange import Outcome

BAD_SUM = bytearray(frame("a", "r", 1, b"xyz"))
BAD_SUM[-2] ^= 1


def nth(*scripts):
    """The nth request gets the nth script; after the last one: a good answer."""

    def peer(request, number):
        if number <= len(scripts):
            return scripts[number - 1]
        return answering(request, number)

    return peer


def test_a_reply_is_returned_with_its_bytes_and_its_times():
    async def scenario():
        async with line() as bench:
            got = await bench.bus.exchange(ask())
            request = frame("a", "q", 1)
            assert got.outcome is Outcome.REPLY
            assert got.reply == answer(request)
            assert got.request == request
            assert (got.bus, got.device, got.attempt, got.stray) == ("b1", "a", 1, b"")
            wire_s = (len(request) + len(got.reply)) * CHAR_S + 0.1
            assert got.took_ms == pytest.approx(wire_s * 1000, abs=0.01)
            assert got.received_ms - got.sent_ms == pytest.approx(wire_s * 1000, abs=1)
            assert bench.seen == [got]

    run_virtual(scenario())


def test_the_gap_is_kept_from_the_last_byte_on_the_line():
    async def scenario():
        async with line(gap_ms=30) as bench:
            first = await bench.bus.exchange(ask())
            ended = bench.loop.time()
            await bench.bus.exchange(ask(question=2))
            assert bench.link.sent[1][0] - ended == pytest.approx(0.030, abs=0.0001)
            assert first.outcome is Outcome.REPLY

    run_virtual(scenario())


def test_two_callers_never_share_the_line():
    async def scenario():
        async with line() as bench:
            await asyncio.gather(*(bench.bus.exchange(ask("abc"[i % 3], i)) for i in range(9)))
            for (sent, data), (after, _) in itertools.pairwise(bench.link.sent):
                reply_s = (len(data) + len(answer(data))) * CHAR_S + 0.1 + 0.030
                assert after - sent == pytest.approx(reply_s, abs=0.0001)

    run_virtual(scenario())


def test_silence_is_repeated_and_then_told_as_silence():
    async def scenario():
        async with line(lambda _r, _n: []) as bench:
            with pytest.raises(NoAnswer) as caught:
                await bench.bus.exchange(ask(attempts=3))
            assert caught.value.diagnosis == "silence"
            assert caught.value.attempts == 3
            assert bench.outcomes() == ["silence"] * 3
            assert [e.attempt for e in bench.seen] == [1, 2, 3]

    run_virtual(scenario())


def test_the_time_out_counts_from_the_end_of_the_request_on_the_wire():
    async def scenario():
        peer = lambda _r, _n: []  # noqa: E731
        async with line(peer, reply_timeout_ms=500, margin_ms=100) as bench:
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(ask(attempts=1))
            wire_s = (7 + 9 + 4) * CHAR_S  # request, reply, its wake-up bytes
            assert bench.seen[0].took_ms == pytest.approx((wire_s + 0.6) * 1000, abs=0.1)

    run_virtual(scenario())


def test_a_reply_at_the_latest_turnaround_is_still_taken():
    async def scenario():
        async with line(lambda r, _n: [Say(answer(r), after_s=0.5)]) as bench:
            assert (await bench.bus.exchange(ask(attempts=1))).outcome is Outcome.REPLY

    run_virtual(scenario())


def test_late_reply_is_not_taken_for_the_next_request():
    async def scenario():
        late = Say(frame("a", "r", 1, b"OLD"), after_s=1.0)
        async with line(nth([late])) as bench:
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(ask(question=1, attempts=1))
            got = await bench.bus.exchange(ask(question=1))
            assert got.reply == frame("a", "r", 1, b"xyz")
            assert got.stray == late.data
            assert bench.bus.statistics().stray_bytes == len(late.data)

    run_virtual(scenario())


def test_after_a_time_out_the_line_must_be_silent_before_the_next_request():
    async def scenario():
        request_s = 7 * CHAR_S
        late = Say(frame("a", "r", 1, b"OLD"), after_s=1.0)
        async with line(nth([late]), silence_after_timeout_ms=500) as bench:
            await bench.bus.exchange(ask(attempts=2))
            last_byte = request_s + 1.0 + len(late.data) * CHAR_S
            (first, _), (second, _) = bench.link.sent
            assert second - first == pytest.approx(last_byte + 0.5, abs=0.001)

    run_virtual(scenario())


def test_a_line_that_is_never_quiet_is_spoken_on_after_a_bounded_wait():
    async def scenario():
        async with line(quiet_wait_max_ms=2000) as bench:
            await bench.bus.exchange(ask())
            bench.link.say(Say(b"\x55" * 1000, after_s=0.0))
            await asyncio.sleep(0.01)
            asked = bench.loop.time()
            with pytest.raises(NoAnswer) as caught:
                await bench.bus.exchange(ask(attempts=1, reply_bytes=9))
            assert bench.link.sent[1][0] - asked == pytest.approx(2.0, abs=0.01)
            assert caught.value.diagnosis == "damaged"

    run_virtual(scenario())


def test_an_echo_in_front_is_dropped_and_the_reply_taken():
    async def scenario():
        def peer(request, _nth):
            return [Say(request, after_s=-len(request) * CHAR_S), Say(answer(request))]

        async with line(peer) as bench:
            got = await bench.bus.exchange(ask())
            assert got.outcome is Outcome.REPLY
            assert got.stray == got.request

    run_virtual(scenario())


def test_only_an_echo_is_told_as_echo_only():
    async def scenario():
        async with line(lambda r, _n: [Say(r, after_s=0.0)]) as bench:
            with pytest.raises(NoAnswer) as caught:
                await bench.bus.exchange(ask(attempts=1))
            assert caught.value.diagnosis == "echo_only"

    run_virtual(scenario())


def test_an_echo_behind_dirt_is_known_by_its_match():
    async def scenario():
        async with line(lambda r, _n: [Say(b"\x00" + r, after_s=0.0), Say(answer(r))]) as bench:
            got = await bench.bus.exchange(ask())
            assert got.outcome is Outcome.REPLY
            assert got.stray == b"\x00" + got.request

    run_virtual(scenario())


def test_noise_before_and_a_rest_behind_do_not_hide_the_reply():
    async def scenario():
        noisy = b"\x00\x55\x02" + frame("a", "r", 1, b"xyz") + frame("z", "r", 1, b"other")
        async with line(nth([Say(noisy)])) as bench:
            got = await bench.bus.exchange(ask(reply_bytes=20))
            assert got.reply == answer(got.request)
            again = await bench.bus.exchange(ask(question=2))
            assert got.stray + again.stray == b"\x00\x55\x02" + frame("z", "r", 1, b"other")

    run_virtual(scenario())


def test_a_doubled_first_byte_is_survived():
    async def scenario():
        async with line(lambda r, _n: [Say(answer(r)[:1] + answer(r))]) as bench:
            got = await bench.bus.exchange(ask(attempts=1))
            assert got.reply == answer(got.request)
            assert got.stray == b"\x02"

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("says", "diagnosis"),
    [
        ([Say(bytes(BAD_SUM))], "damaged"),
        ([Say(b"\x55\x55")], "damaged"),
        ([Say(frame("a", "r", 1, b"xyz"), bad=(4,))], "damaged"),
        ([Say(frame("a", "r", 1, b"xyz")[:5])], "incomplete"),
        ([Say(frame("z", "r", 1, b"xyz"))], "foreign"),
        ([Say(frame("a", "r", 9, b"xyz"))], "foreign"),
    ],
)
def test_each_failure_is_told_apart_and_the_next_try_gets_the_good_value(says, diagnosis):
    async def scenario():
        async with line(nth(says)) as bench:
            got = await bench.bus.exchange(ask(attempts=2))
            assert got.reply == answer(got.request)
            assert bench.outcomes() == [diagnosis, "reply"]
            assert bench.seen[0].stray == says[0].data
        async with line(lambda _r, _n: says) as bench:
            with pytest.raises(NoAnswer) as caught:
                await bench.bus.exchange(ask(attempts=1))
            assert caught.value.diagnosis == diagnosis

    run_virtual(scenario())


def test_the_diagnosis_is_the_most_telling_of_all_attempts():
    async def scenario():
        scripts = ([], [Say(bytes(BAD_SUM))], [])
        async with line(nth(*scripts)) as bench:
            with pytest.raises(NoAnswer) as caught:
                await bench.bus.exchange(ask(attempts=3))
            assert caught.value.diagnosis == "damaged"
            assert "silence, damaged, silence" in str(caught.value)

    run_virtual(scenario())


def test_a_refusal_is_returned_and_never_repeated():
    async def scenario():
        async with line(lambda r, _n: [Say(frame(chr(r[2]), "e", r[4], b"\x02"))]) as bench:
            got = await bench.bus.exchange(ask(attempts=3))
            assert got.outcome is Outcome.REFUSED
            assert len(bench.link.sent) == 1

    run_virtual(scenario())


def test_an_unsolicited_report_does_not_end_the_wait_for_the_reply():
    async def scenario():
        def peer(request, _nth):
            return [Say(frame("a", "u", 7)), Say(answer(request), after_s=0.4)]

        async with line(peer) as bench:
            got = await bench.bus.exchange(ask(attempts=1))
            assert got.reply == answer(got.request)
            assert got.stray == frame("a", "u", 7)

    run_virtual(scenario())


def test_bytes_that_dribble_below_the_inter_byte_limit_are_one_frame():
    async def scenario():
        async with line(lambda r, _n: [Say(answer(r), gap_s=0.39)]) as bench:
            got = await bench.bus.exchange(ask(attempts=1))
            assert got.reply == answer(got.request)

    run_virtual(scenario())


def test_a_frame_that_pauses_longer_than_the_limit_is_dropped():
    async def scenario():
        whole = frame("a", "r", 1, b"xyz")
        halves = [Say(whole[:5], after_s=0.02), Say(whole[5:], after_s=0.62)]
        async with line(nth(halves)) as bench:
            got = await bench.bus.exchange(ask(attempts=2))
            assert bench.outcomes() == ["incomplete", "reply"]
            assert got.attempt == 2
            assert got.stray == whole[5:]

    run_virtual(scenario())


def test_a_head_that_promises_too_much_costs_no_more_than_the_normal_time_out():
    async def scenario():
        async with line(lambda _r, _n: [Say(b"\x02\xffa", after_s=0.05)]) as bench:
            with pytest.raises(NoAnswer) as caught:
                await bench.bus.exchange(ask(attempts=1))
            assert caught.value.diagnosis == "incomplete"
            normal_s = 0.6 + (7 + 9 + 4) * CHAR_S
            assert bench.seen[0].took_ms / 1000 < normal_s

    run_virtual(scenario())


def test_a_head_that_promises_too_much_and_goes_on_with_noise_ends_too():
    async def scenario():
        noise = Say(b"\x02\xffa" + b"\x55" * 252, after_s=0.1, gap_s=0.2)
        async with line(lambda _r, n: [noise] if n == 1 else []) as bench:
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(ask(attempts=1))
            # at most reply_bytes + 8 bytes are waited for once the time-out has passed
            assert bench.seen[0].took_ms / 1000 < 0.2 + (9 + 8 + 2) * (0.2 + CHAR_S)

    run_virtual(scenario())


def test_a_good_frame_swallowed_by_a_false_head_is_found():
    async def scenario():
        async with line(lambda r, _n: [Say(b"\x02\x80zz" + answer(r))]) as bench:
            got = await bench.bus.exchange(ask(attempts=1))
            assert got.reply == answer(got.request)
            assert got.stray == b"\x02\x80zz"

    run_virtual(scenario())


def test_two_answers_in_one_go_give_one_value():
    async def scenario():
        async with line(lambda r, _n: [Say(answer(r) + answer(r, b"two"))]) as bench:
            got = await bench.bus.exchange(ask())
            assert got.reply == answer(got.request)
            second = await bench.bus.exchange(ask(question=2))
            assert got.stray + second.stray == answer(got.request, b"two")

    run_virtual(scenario())


def test_what_is_kept_of_noise_is_bounded_and_the_rest_is_counted():
    async def scenario():
        async with line(lambda _r, n: [Say(b"\x55" * 100)] if n == 1 else [], stray_max=32) as b:
            with pytest.raises(NoAnswer):
                await b.bus.exchange(ask(attempts=1))
            assert len(b.seen[0].stray) == 32
            b.link.say(Say(b"\x55" * 100))
            await asyncio.sleep(2)
            assert b.bus.statistics().stray_bytes == 200

    run_virtual(scenario())


def test_a_medium_of_unknown_speed_gets_the_time_of_a_slow_line():
    async def scenario():
        link = FakeLink(lambda _r, _n: [], char_s=0.0)
        async with line(link=link) as bench:
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(ask(attempts=1))
            slow_s = (7 + 9 + 4) * 11 / 1200
            assert bench.seen[0].took_ms == pytest.approx((0.6 + slow_s) * 1000, abs=0.1)

    run_virtual(scenario())


def test_packets_of_a_network_may_pause_within_a_frame():
    async def scenario():
        def peer(request, _nth):
            whole = answer(request)
            return [Say(whole[:4], after_s=0.0), Say(whole[4:], after_s=0.7)]

        async with line(link=FakeLink(peer, char_s=0.0), reply_timeout_ms=700) as bench:
            got = await bench.bus.exchange(ask(attempts=1))
            assert got.reply == answer(got.request)

    run_virtual(scenario())


def test_late_reply_to_the_first_try_does_not_shift_the_answers_of_the_same_question():
    """The late reply settles the second try; that try's own reply meets a silent line."""

    def peer(request, number):
        if number == 1:
            return [Say(answer(request, b"one"), 1.3)]
        if number == 2:
            return [Say(answer(request, b"two"), 0.4)]
        return [Say(answer(request, b"three"), 0.4)]

    async def scenario():
        async with line(peer, reply_timeout_ms=500, silence_after_timeout_ms=500) as bench:
            first = await bench.bus.exchange(ask())
            second = await bench.bus.exchange(ask())
            assert first.reply == answer(first.request, b"one")
            assert second.reply == answer(second.request, b"three")

    run_virtual(scenario())
