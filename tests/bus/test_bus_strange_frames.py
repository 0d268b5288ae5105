"""Frames that are no answer are counted by kind, with the bytes of real meters; none is a value."""

import asyncio

import pytest
from bus_bench_line import Say, line, run_virtual

from headend.bus import BusRequest
from headend.domain.errors import NoAnswer
from headend.domain.exchange import Outcome
from protocols.dlt645.frame import DELIMITER, WAKE_UP, build
from protocols.dlt645.master import follow_up, match, read_request, reply_length, reply_payload
from protocols.dlt645.meter import build_parts, build_refusal, build_reply

METER, OTHER = "000000000161", "182126034194"
ENERGY, VOLTAGE, REPORT_STATE = "00010000", "02010100", "04001501"
VALUE = bytes.fromhex("00012600")
ASKED = read_request(METER, ENERGY)
PAYLOAD = WAKE_UP * 4 + ASKED.raw
GOOD = build_reply(METER, ENERGY, VALUE)
ECHO = Say(PAYLOAD, after_s=-0.09)
BAD_SUM = GOOD[:-2] + bytes([GOOD[-2] ^ 1, 0x16])
NONE = {"late": 0, "foreign": 0, "unasked": 0, "echoed": 0}
PARTS = build_parts(METER, ENERGY, bytes(range(40)), data_max=20)


def request(asked=ASKED, attempts=1) -> BusRequest:
    return BusRequest(
        asked.address,
        WAKE_UP * 4 + asked.raw,
        DELIMITER,
        lambda raw: match(asked, raw),
        reply_length(asked.di),
        attempts=attempts,
    )


KINDS = {
    "late": [
        build_reply(METER, VOLTAGE, b"\x94\x22"),  # an answer to another question
        build(METER, 0x92, bytes.fromhex("00000100") + b"\x26\x01"),  # a part nobody asked for now
        build_refusal(METER, 0x14, 0x04),  # of something that was written
    ],
    "foreign": [
        build_reply(OTHER, ENERGY, b"\x99\x99\x99\x00"),
        build_refusal(OTHER, 0x11, 0x02),
        # The very value from a meter whose address differs in one bit.
        build_reply("000000000160", ENERGY, VALUE),
    ],
    "unasked": [
        build_reply(METER, REPORT_STATE, b"\x00" * 12),
        read_request(METER, VOLTAGE).raw,  # another master asks our meter
        read_request(OTHER, ENERGY).raw,
    ],
    "echoed": [PAYLOAD, ASKED.raw],
}


@pytest.mark.parametrize(
    ("kind", "raw"), [(kind, raw) for kind, raws in KINDS.items() for raw in raws]
)
def test_a_whole_frame_that_is_no_answer_is_counted_by_kind_and_the_answer_believed(kind, raw):
    async def scenario():
        async with line(lambda _r, _n: [Say(b"\xfe" + raw + GOOD)]) as bench:
            got = await bench.bus.exchange(request())
            assert reply_payload(ASKED, got.reply) == VALUE
            assert bench.bus.statistics().strange == {**NONE, kind: 1}

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("kind", "raw"), [(kind, raw) for kind, raws in KINDS.items() for raw in raws]
)
def test_alone_it_is_never_a_value_and_then_the_good_value_comes(kind, raw):
    async def scenario():
        async with line(lambda _r, n: [Say(raw if n == 1 else GOOD)]) as bench:
            with pytest.raises(NoAnswer) as caught:
                await bench.bus.exchange(request())
            assert caught.value.diagnosis == ("echo_only" if kind == "echoed" else "foreign")
            assert (await bench.bus.exchange(request())).reply == GOOD
            assert bench.bus.statistics().strange == {**NONE, kind: 1}

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("raw", "bad", "reason"),
    [
        (BAD_SUM, (), "checksum"),
        (GOOD[:-1] + b"\x17", (), "end"),
        (GOOD, (12,), "parity"),
        (GOOD[:17], (), "incomplete"),
        (b"\x00\x33\xff", (), "dirt"),
    ],
)
def test_damage_is_counted_by_reason_and_is_no_frame_of_any_kind(raw, bad, reason):
    async def scenario():
        async with line(lambda _r, n: [Say(raw, bad=bad)] if n == 1 else [Say(GOOD)]) as bench:
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(request())
            assert (await bench.bus.exchange(request())).reply == GOOD
            told = bench.bus.statistics()
            assert set(told.noise) == {reason}
            assert told.marked_bytes == len(bad)
            assert told.strange == NONE

    run_virtual(scenario())


def test_an_answer_after_its_time_out_is_late_and_never_the_next_ones():
    """It comes while nobody waits: it is counted, shown with the next attempt, believed by none."""

    async def scenario():
        old = build_reply(METER, ENERGY, b"\x11\x11\x11\x11")
        async with line(lambda _r, n: [Say(old, after_s=1.0)] if n == 1 else [Say(GOOD)]) as bench:
            with pytest.raises(NoAnswer):
                await bench.bus.exchange(request())
            got = await bench.bus.exchange(request())
            assert (got.reply, got.stray) == (GOOD, old)
            assert bench.bus.statistics().strange == {**NONE, "late": 1}

    run_virtual(scenario())


def test_what_comes_between_two_requests_is_counted_by_kind():
    async def scenario():
        async with line(lambda _r, _n: [Say(GOOD)]) as bench:
            await bench.bus.exchange(request())
            for raw in (GOOD, KINDS["foreign"][0], KINDS["unasked"][0], PAYLOAD, BAD_SUM):
                bench.link.say(Say(raw))
                await asyncio.sleep(2)
            bench.link.say(Say(b"\x68\x11" + KINDS["foreign"][1]))  # behind a false head
            await asyncio.sleep(2)
            assert (await bench.bus.exchange(request())).reply == GOOD
            told = bench.bus.statistics()
            assert told.strange == {"late": 1, "foreign": 2, "unasked": 1, "echoed": 1}
            assert told.exchanges == 2

    run_virtual(scenario())


def test_a_frame_with_damaged_bytes_between_two_requests_is_of_no_kind():
    async def scenario():
        async with line(lambda _r, _n: [Say(GOOD)]) as bench:
            await bench.bus.exchange(request())
            bench.link.say(Say(GOOD, bad=(11,)))
            await asyncio.sleep(2)
            assert (await bench.bus.exchange(request())).reply == GOOD
            told = bench.bus.statistics()
            assert (told.strange, told.marked_bytes) == (NONE, 1)

    run_virtual(scenario())


def test_a_part_with_another_number_is_late_and_the_right_one_believed():
    second = follow_up(ASKED, 2)

    async def scenario():
        async with line(lambda _r, _n: [Say(PARTS[1] + PARTS[2])]) as bench:
            got = await bench.bus.exchange(request(second))
            assert got.reply == PARTS[2]
            assert bench.bus.statistics().strange == {**NONE, "late": 1}

    run_virtual(scenario())


def test_a_refusal_answers_and_is_of_no_kind():
    async def scenario():
        refusal = build_refusal(METER, 0x11, 0x02)
        async with line(lambda _r, _n: [ECHO, Say(refusal)]) as bench:
            got = await bench.bus.exchange(request(attempts=3))
            assert (got.outcome, got.reply) == (Outcome.REFUSED, refusal)
            assert bench.bus.statistics().strange == {**NONE, "echoed": 1}

    run_virtual(scenario())
