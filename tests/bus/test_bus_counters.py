"""What a bus counts: how long answers took, bytes, damage seen by the medium, and noise."""

import pytest
from bus_bench_line import Say, answer, answering, ask, frame, line, run_virtual

from headend.bus import BOUNDS_S, LatencyCounts
from headend.bus.latency import Latency
from headend.domain.errors import NoAnswer

BAD_SUM = bytearray(frame("a", "r", 1, b"xyz"))
BAD_SUM[-2] ^= 1


def test_an_answer_on_a_bound_belongs_to_it_and_a_longer_one_to_the_next():
    latency = Latency()
    for seconds in (0.0, BOUNDS_S[0], BOUNDS_S[0] + 1e-9, BOUNDS_S[-1], BOUNDS_S[-1] + 1e-9):
        latency.add(seconds)
    counts = latency.snapshot().counts
    assert counts == (2, 1, *([0] * (len(BOUNDS_S) - 3)), 1, 1)
    assert latency.snapshot().total == 5
    assert latency.snapshot().sum_s == pytest.approx(2 * BOUNDS_S[0] + 2 * BOUNDS_S[-1])


def test_the_share_of_answers_names_the_bound_they_do_not_exceed():
    latency = Latency()
    assert latency.snapshot().below_s(0.95) is None
    for _ in range(95):
        latency.add(0.04)
    for _ in range(5):
        latency.add(60.0)
    assert latency.snapshot().below_s(0.5) == 0.05
    assert latency.snapshot().below_s(0.95) == 0.05
    assert latency.snapshot().below_s(0.96) == float("inf")


def test_a_snapshot_stays_as_it_was():
    latency = Latency()
    before = latency.snapshot()
    latency.add(1.0)
    assert before == LatencyCounts()


def test_answers_are_counted_by_how_long_they_took_and_silence_is_not():
    async def scenario():
        async with line(lambda r, n: [] if n == 1 else answering(r, n)) as bench:
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(ask(attempts=1))
            got = await bench.bus.exchange(ask())
            told = bench.bus.statistics().latency
            assert told.total == 1
            assert told.sum_s == pytest.approx(got.took_ms / 1000)
            assert told.counts[[got.took_ms / 1000 <= b for b in BOUNDS_S].index(True)] == 1

    run_virtual(scenario())


def test_every_byte_on_the_line_is_counted_in_its_direction():
    async def scenario():
        async with line() as bench:
            await bench.bus.exchange(ask())
            request = frame("a", "q", 1)
            told = bench.bus.statistics()
            assert told.bytes_sent == len(request)
            assert told.bytes_received == len(answer(request))

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("say", "marked", "noise"),
    [
        (Say(bytes(BAD_SUM)), 0, "checksum"),
        (Say(frame("a", "r", 1, b"xyz"), bad=(4,)), 1, "parity"),
        (Say(frame("a", "r", 1, b"xyz")[:-1]), 0, "incomplete"),
    ],
)
def test_damage_is_counted_by_its_kind(say, marked, noise):
    async def scenario():
        async with line(lambda r, n: [say] if n == 1 else answering(r, n)) as bench:
            await bench.bus.exchange(ask(attempts=2))
            told = bench.bus.statistics()
            assert told.marked_bytes == marked
            assert told.noise[noise] == 1
            assert told.latency.total == 1

    run_virtual(scenario())


def test_a_frame_of_another_device_is_strange_and_not_late():
    async def scenario():
        other = frame("b", "r", 1, b"xyz")
        async with line(lambda r, n: [Say(other)] if n == 1 else answering(r, n)) as bench:
            await bench.bus.exchange(ask(attempts=2))
            told = bench.bus.statistics()
            assert told.strange == {"late": 0, "foreign": 1, "unasked": 0, "echoed": 0}

    run_virtual(scenario())


def test_an_answer_to_another_question_is_late():
    async def scenario():
        old = frame("a", "r", 9, b"xyz")
        async with line(lambda r, n: [Say(old)] if n == 1 else answering(r, n)) as bench:
            await bench.bus.exchange(ask(attempts=2))
            told = bench.bus.statistics()
            assert told.strange == {"late": 1, "foreign": 0, "unasked": 0, "echoed": 0}

    run_virtual(scenario())
