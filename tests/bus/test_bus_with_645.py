"""DL/T 645 conversations as the field has seen them, through the whole bus."""

import asyncio

import pytest
from bus_bench_line import FakeLink, Say, line, run_virtual

from headend.bus import BusRequest
from headend.domain.errors import NoAnswer
from headend.domain.exchange import Outcome
from protocols.dlt645.frame import DELIMITER, WAKE_UP, build
from protocols.dlt645.master import match, read_request, reply_length, reply_payload
from protocols.dlt645.meter import build_refusal, build_reply

METER, OTHER = "000000000161", "182126034194"
ENERGY, VOLTAGE, REPORT_STATE = "00010000", "02010100", "04001501"
VALUE = bytes.fromhex("00012600")
GOOD = build_reply(METER, ENERGY, VALUE)
BAD_SUM = GOOD[:-2] + bytes([GOOD[-2] ^ 1, 0x16])
BAD_END = GOOD[:-1] + b"\x17"
LENGTH_FF = GOOD[:9] + b"\xff" + GOOD[10:12]
FALSE_HEAD = bytes.fromhex("681122334455 66 68 91 C8")


def read(di=ENERGY, address=METER, attempts=1):
    request = read_request(address, di)
    return BusRequest(
        device=address,
        payload=WAKE_UP * 4 + request.raw,
        delimiter=DELIMITER,
        match=lambda raw: match(request, raw),
        reply_bytes=reply_length(di),
        attempts=attempts,
    ), request


REQUEST = read()[0].payload


@pytest.mark.parametrize(
    "says",
    [
        [Say(GOOD)],
        [Say(WAKE_UP * 9 + GOOD)],
        [Say(b"\x00\x68\xff\x33" + GOOD)],
        [Say(FALSE_HEAD + GOOD)],
        [Say(REQUEST, after_s=-0.09), Say(GOOD)],
        [Say(b"\x68" + GOOD)],
        [Say(build_reply(METER, VOLTAGE, b"\x00\x22") + GOOD)],
        [Say(build_reply(OTHER, ENERGY, b"\x99\x99\x99\x00") + GOOD)],
        [Say(build_reply(METER, REPORT_STATE, b"\x00" * 12) + GOOD)],
        [Say(BAD_SUM + GOOD)],
        [Say(GOOD + GOOD)],
        [Say(GOOD + build_reply(OTHER, ENERGY, VALUE))],
        [Say(GOOD, gap_s=0.4)],
        [Say(build(METER, 0x11, b"\x00" * 4) + GOOD)],
        [Say(WAKE_UP, after_s=-0.08), Say(GOOD, after_s=0.48)],
        [Say(b"\x68", after_s=-0.08), Say(GOOD, after_s=0.48)],
    ],
    ids=[
        "plain",
        "nine wake-up bytes",
        "noise with a start byte",
        "a false head in front",
        "echo, then the reply",
        "first byte doubled",
        "late voltage in front",
        "another meter in front",
        "unasked report in front",
        "bad checksum, then good",
        "twice",
        "another meter behind",
        "dribbling with 400 ms",
        "another master in front",
        "a glitch like a wake-up byte, then a slow meter",
        "a glitch like a start byte, then a slow meter",
    ],
)
def test_the_value_is_found_in(says):
    async def scenario():
        async with line(lambda _r, _n: says) as bench:
            bus_request, request = read()
            got = await bench.bus.exchange(bus_request)
            assert got.reply == GOOD
            assert reply_payload(request, got.reply) == VALUE

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("says", "diagnosis"),
    [
        ([], "silence"),
        ([Say(REQUEST, after_s=-0.09)], "echo_only"),
        ([Say(BAD_SUM)], "damaged"),
        ([Say(BAD_END)], "damaged"),
        ([Say(GOOD, bad=(12,))], "damaged"),
        ([Say(LENGTH_FF)], "incomplete"),
        ([Say(GOOD[:14])], "incomplete"),
        ([Say(GOOD, gap_s=0.6)], "incomplete"),
        ([Say(build_reply(OTHER, ENERGY, VALUE))], "foreign"),
        ([Say(build_reply(METER, VOLTAGE, b"\x00\x22"))], "foreign"),
    ],
    ids=[
        "nothing",
        "only our echo",
        "a wrong checksum",
        "a wrong end byte",
        "a damaged byte",
        "a length of FF",
        "a cut reply",
        "a reply with pauses",
        "another meter",
        "another item",
    ],
)
def test_there_is_no_value_but_a_diagnosis_in(says, diagnosis):
    async def scenario():
        async with line(lambda _r, n: says if n == 1 else [Say(GOOD)]) as bench:
            with pytest.raises(NoAnswer) as caught:
                await bench.bus.exchange(read()[0])
            assert caught.value.diagnosis == diagnosis
            # and then the good value again
            assert (await bench.bus.exchange(read()[0])).reply == GOOD

    run_virtual(scenario())


def test_a_refusal_is_no_link_error_and_is_not_repeated():
    async def scenario():
        refusal = build_refusal(METER, 0x11, 0x02)
        async with line(lambda _r, _n: [Say(refusal)]) as bench:
            got = await bench.bus.exchange(read(attempts=3)[0])
            assert (got.outcome, got.reply) == (Outcome.REFUSED, refusal)
            assert len(bench.link.sent) == 1

    run_virtual(scenario())


def test_the_late_answer_to_the_first_try_gives_one_value_and_one_stray():
    async def scenario():
        late = build_reply(METER, ENERGY, b"\x00\x00\x00\x00")

        def peer(_request, nth):
            return [Say(late, after_s=1.0)] if nth == 1 else [Say(GOOD)]

        async with line(peer) as bench:
            got = await bench.bus.exchange(read(attempts=2)[0])
            assert got.reply == GOOD
            assert got.stray == late

    run_virtual(scenario())


def test_marked_bytes_of_a_link_never_become_a_value():
    """Whatever single byte of a reply is marked as damaged, the reply is not believed."""

    async def scenario():
        link = FakeLink(lambda _r, n: [Say(GOOD, bad=(n - 1,))] if n <= len(GOOD) else [Say(GOOD)])
        async with line(link=link) as bench:
            for _ in GOOD:
                with pytest.raises(NoAnswer):
                    await bench.bus.exchange(read()[0])
            assert (await bench.bus.exchange(read()[0])).reply == GOOD
            await asyncio.sleep(0)

    run_virtual(scenario())
