"""Modbus conversations as the field has seen them, through the whole bus."""

import pytest
from bus_bench_line import FakeLink, Say, line, run_virtual
from bus_modbus_line import CHAR_S, question, refusal, reply

from headend.bus import BusRequest
from headend.domain.errors import NoAnswer
from headend.domain.exchange import Outcome
from protocols.dlt645.frame import DELIMITER, WAKE_UP
from protocols.dlt645.master import match as match_645
from protocols.dlt645.master import read_request as read_645
from protocols.dlt645.master import reply_length as reply_length_645
from protocols.dlt645.meter import build_reply as reply_645
from protocols.framing import Match
from protocols.modbus.master import read_request, reply_registers

REQUEST, ASKED = question(1, 0x48, 2, attempts=1)
RAW = ASKED.raw
GOOD = reply(RAW, 7)
BAD_CRC = GOOD[:-1] + bytes([GOOD[-1] ^ 0x40])
OTHER_UNIT = reply(read_request(2, 4, 0x48, 2).raw, 9)
OTHER_COUNT = reply(read_request(1, 4, 0x48, 4).raw, 9)
OTHER_FUNCTION = reply(read_request(1, 3, 0x48, 2).raw, 9)
WITH_645 = reply_645("000000000161", "00010000", bytes.fromhex("00012600"))


def modbus_line(peer, **settings):
    return line(link=FakeLink(peer, char_s=CHAR_S), **{"silence_after_timeout_ms": 50, **settings})


@pytest.mark.parametrize(
    "says",
    [
        [Say(GOOD)],
        [Say(b"\x00" + GOOD)],
        [Say(b"\xff" + GOOD)],
        [Say(b"\x01" + GOOD)],
        [Say(b"\x01\x04" + GOOD)],
        [Say(b"\x01\x04\xfa" + GOOD)],
        [Say(RAW, after_s=-len(RAW) * CHAR_S), Say(GOOD)],
        [Say(RAW + GOOD)],
        [Say(b"\x00" + RAW, after_s=0.0), Say(GOOD)],
        [Say(OTHER_UNIT + GOOD)],
        [Say(OTHER_COUNT + GOOD)],
        [Say(OTHER_FUNCTION + GOOD)],
        [Say(read_request(5, 3, 0, 2).raw + GOOD)],
        [Say(refusal(read_request(2, 4, 0x48, 2).raw, 2) + GOOD)],
        [Say(BAD_CRC + GOOD)],
        [Say(GOOD + GOOD)],
        [Say(GOOD, gap_s=0.03)],
        [Say(bytes.fromhex("40900F") + GOOD)],
        [Say(WITH_645 + GOOD)],
    ],
    ids=[
        "plain",
        "a zero from the line's turning round",
        "an FF from the line's turning round",
        "a glitch like the unit",
        "a glitch like unit and function",
        "a head that promises the longest frame",
        "echo, then the reply",
        "echo and reply in one piece",
        "an echo behind dirt",
        "another unit in front",
        "another count in front",
        "another function in front",
        "another master in front",
        "another unit's refusal in front",
        "a wrong CRC, then good",
        "twice",
        "dribbling with 30 ms",
        "three bytes of garbage",
        "a DL/T 645 frame in front",
    ],
)
def test_the_registers_are_found_in(says):
    async def scenario():
        async with modbus_line(lambda _r, _n: says) as bench:
            got = await bench.bus.exchange(REQUEST)
            assert got.reply == GOOD
            assert reply_registers(ASKED, got.reply) == (0x48, 7)

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("says", "diagnosis"),
    [
        ([], "silence"),
        ([Say(RAW, after_s=-len(RAW) * CHAR_S)], "echo_only"),
        ([Say(BAD_CRC)], "damaged"),
        ([Say(GOOD, bad=(4,))], "damaged"),
        ([Say(GOOD[:6])], "incomplete"),
        ([Say(OTHER_UNIT)], "foreign"),
        ([Say(OTHER_COUNT)], "foreign"),
        ([Say(OTHER_FUNCTION)], "foreign"),
        ([Say(WITH_645)], "damaged"),
    ],
    ids=[
        "nothing",
        "only our echo",
        "a wrong CRC",
        "a damaged byte",
        "a cut reply",
        "another unit",
        "fewer or more registers than were asked for",
        "another function",
        "a DL/T 645 frame",
    ],
)
def test_there_are_no_registers_but_a_diagnosis_in(says, diagnosis):
    async def scenario():
        async with modbus_line(lambda _r, n: says if n == 1 else [Say(GOOD)]) as bench:
            with pytest.raises(NoAnswer) as caught:
                await bench.bus.exchange(REQUEST)
            assert caught.value.diagnosis == diagnosis
            # and then the good value again
            assert (await bench.bus.exchange(REQUEST)).reply == GOOD

    run_virtual(scenario())


def test_whole_frames_that_are_no_answer_are_counted_and_kept():
    async def scenario():
        says = [Say(OTHER_UNIT + OTHER_COUNT + GOOD)]
        async with modbus_line(lambda _r, _n: says) as bench:
            got = await bench.bus.exchange(REQUEST)
            assert got.stray == OTHER_UNIT + OTHER_COUNT
            assert bench.bus.statistics().frames == {Match.FOREIGN: 1, Match.STALE: 1}

    run_virtual(scenario())


def test_an_exception_is_a_refusal_and_is_not_repeated():
    async def scenario():
        async with modbus_line(lambda r, _n: [Say(refusal(r, 2))]) as bench:
            got = await bench.bus.exchange(question(attempts=3)[0])
            assert (got.outcome, got.reply) == (Outcome.REFUSED, refusal(RAW, 2))
            assert len(bench.link.sent) == 1

    run_virtual(scenario())


def test_no_single_damaged_bit_of_a_reply_gives_registers():
    """The CRC lets no single error pass, wherever it is."""
    damaged = [
        GOOD[:at] + bytes([GOOD[at] ^ 1 << bit]) + GOOD[at + 1 :]
        for at in range(len(GOOD))
        for bit in range(8)
    ]

    async def scenario():
        peer = lambda _r, n: [Say(damaged[n - 1])]  # noqa: E731
        async with modbus_line(peer, dead_after=1_000_000) as bench:
            for _ in damaged:
                with pytest.raises(NoAnswer):
                    await bench.bus.exchange(REQUEST)
            assert len(bench.link.sent) == len(damaged)

    run_virtual(scenario())


def test_dlt645_and_modbus_take_turns_on_one_pair():
    """Each request finds its own kind of frame; neither disturbs the other."""
    address = "000000000161"
    asked = read_645(address, "00010000")
    energy = BusRequest(
        address,
        WAKE_UP * 4 + asked.raw,
        DELIMITER,
        lambda raw: match_645(asked, raw),
        reply_length_645("00010000"),
    )

    def peer(raw, nth):
        is_645 = raw.startswith(WAKE_UP)
        return [Say(WAKE_UP * 4 + WITH_645 if is_645 else reply(raw, nth))]

    async def scenario():
        async with modbus_line(peer) as bench:
            for _ in range(5):
                assert (await bench.bus.exchange(energy)).reply == WITH_645
                got = await bench.bus.exchange(REQUEST)
                assert reply_registers(ASKED, got.reply)[0] == 0x48
            assert bench.outcomes() == ["reply"] * 10
            assert set(bench.bus.statistics().devices) == {address, "unit 1"}

    run_virtual(scenario())
