"""Whatever bytes arrive, a simulated meter never raises and answers only what the rules allow."""

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.dlt645.frame import BROADCAST, DELIMITER, WILDCARD, Frame645, parse
from protocols.dlt645.load_profile import LoadShape
from protocols.framing import FrameFound, Framer
from simulators.energy import DAY_MS
from simulators.meter645 import (
    CommandSettings,
    Event,
    Gap,
    KeptSettings,
    LoadSettings,
    Meter645,
    MeterSettings,
)
from tests.simulators.bench645 import ADDRESS, NOW_MS, Bench, command

DIS = (
    "00010000", "0001FF00", "000100FF", "00010001", "0101FF00", "0201FF00", "0203FF00", "02800004",
    "03010000", "03010101", "03300201", "04000101", "0400010C", "04000403", "040005FF", "05000101",
    "05060001", "05061001", "0504FF01", "06000001", "06040000", "06010002", "060000FF", "7F7F7F7F",
    "1D000001", "04001501", "04000401", "04000901",
)  # fmt: skip
DIS_1997 = ("9010", "901F", "9410", "A010", "B010", "B611", "B330", "C010", "C032", "90FF", "C334")
PASSWORD, OPERATOR = "04000000", "78563412"
KINDS_OF_METER = {
    "plain": {},
    "old": {"edition": "dlt645-1997"},
    "small frames": {"frame_data_max": 9},
    "quirks": {
        "absolute": True,
        "header": "asked",
        "empty_freeze": "zero",
        "wakeup": 4,
        "kept": KeptSettings(
            gaps=(Gap(NOW_MS - DAY_MS, NOW_MS - DAY_MS // 2),),
            load=LoadSettings(shape=LoadShape("data_only", True, "whole"), regional=True),  # noqa: FBT003
        ),
        "commands": CommandSettings(esam=True, clock_single=True, speed_fallback_s=1),
        "events": (Event("loss_of_voltage", NOW_MS - 9999, phase=1),),
    },
}  # fmt: skip


KINDS = sorted(KINDS_OF_METER)
EXAMPLES = int(os.environ.get("HEADEND_METER645_EXAMPLES", "60"))  # more of them: a long run
SOURCE = Bench("three").meter.measured  # its tables are made once


def meter_of(kind: str) -> Bench:
    """A bench with a meter of a kind that nobody has told anything yet."""
    bench = Bench("single")
    made = MeterSettings(ADDRESS, **KINDS_OF_METER[kind])
    bench.bus.remove(bench.meter)
    bench.meter = Meter645(made, SOURCE, clock=lambda: bench.now_ms)
    bench.bus.add(bench.meter)
    return bench


def backward(di: str) -> bytes:
    return bytes.fromhex(di)[::-1]


addresses = st.sampled_from(
    [ADDRESS, WILDCARD, BROADCAST, "AAAAAAAA0161", "000000000777", "0000000001AA", "AAAAAAAAAA62"]
)
identifiers = st.sampled_from([backward(di) for di in (*DIS, *DIS_1997)])
secrets = st.sampled_from([bytes.fromhex(PASSWORD + OPERATOR), bytes(8), b"\x04\x12\x34\x56" * 2])
tails = st.one_of(st.binary(max_size=20), st.binary(max_size=200))
data = st.one_of(
    tails,
    identifiers,
    st.tuples(identifiers, tails).map(b"".join),
    st.tuples(identifiers, secrets, tails).map(b"".join),
    st.tuples(secrets, tails).map(b"".join),
    st.sampled_from([b"\x99" * 4, b"\x20", bytes.fromhex("20130615112399")[:6], b"\x01" * 6]),
)
controls = st.one_of(st.sampled_from(range(0x20)), st.integers(0, 0xFF))
frames = st.builds(command, addresses, controls, data)
pieces = st.one_of(frames, frames, st.binary(max_size=30), st.just(b"\xfe" * 4))

# The codes of requests that a meter may answer.
_OK = {
    "dlt645-2007": frozenset((0x03, *range(0x11, 0x1E))),
    "dlt645-1997": frozenset((0x01, 0x02, 0x03, 0x04, 0x0A, 0x0C, 0x0F, 0x10)),
}
_TO_ALL_1997 = frozenset((0x01, 0x02, 0x03, 0x04, 0x0A, 0x0C, 0x0F, 0x10))


def check_allowed(bench: Bench, own: str, request: Frame645, reply: Frame645) -> None:
    """Nothing but a reply of this meter to this request, in its edition, not too long."""
    edition = bench.meter.settings.speaks
    assert not request.from_meter
    assert reply.from_meter
    assert reply.control & 0x1F == request.control
    assert request.control in _OK[edition]
    header = {own, bench.meter.address}
    if bench.meter.settings.header == "asked":
        header.add(request.address)
    assert reply.address in header
    if request.address == BROADCAST:
        assert edition == "dlt645-1997"
        assert request.control in _TO_ALL_1997
    elif request.address != WILDCARD:
        given = request.address.lstrip("A")
        assert own.endswith(given)
        assert "A" not in given
    elif edition == "dlt645-2007":
        assert request.control not in (0x14, 0x17, 0x19, 0x1A, 0x1B, 0x1C)
    if reply.refused:
        assert len(reply.data) in (1, 2)
    if request.control in (0x01, 0x02, 0x11, 0x12) and not reply.refused:
        size = 4 if edition == "dlt645-2007" else 2
        assert reply.data[:size] == request.data[:size]
        assert len(reply.data) <= (bench.meter.settings.frame_data_max or 200)
    if reply.more_follows:
        assert request.control in (0x01, 0x02, 0x03, 0x11, 0x12)


@given(
    st.sampled_from(sorted(KINDS_OF_METER)), st.lists(pieces, min_size=1, max_size=12), st.data()
)
def test_any_bytes_are_survived_and_only_what_is_allowed_is_answered(kind, stream, draw):
    bench = meter_of(kind)
    ears = Framer(DELIMITER)
    for piece in stream:
        bench.now_ms += draw.draw(st.sampled_from([0, 1000, 901_000]))
        own = bench.meter.address
        heard = [event.raw for event in ears.feed(piece, ()) if isinstance(event, FrameFound)]
        sent = bench.bus.receive(piece, [])
        requests = [parse(raw) for raw in heard]
        replies = [parse(one.data.lstrip(b"\xfe")) for one in sent]
        assert len(replies) <= len(requests)
        for reply in replies:
            while requests[0].control != reply.control & 0x1F:
                requests.pop(0)
            check_allowed(bench, own, requests.pop(0), reply)


@given(st.sampled_from(KINDS), st.sampled_from((*DIS, *DIS_1997)), frames)
@settings(deadline=None, max_examples=EXAMPLES)
def test_a_meter_can_be_read_whatever_it_was_told_before(kind, di, before):
    bench = meter_of(kind)
    bench.bus.receive(before, [])
    control = 0x11 if len(di) == 8 else 0x01
    is_its_own = (len(di) == 4) is (bench.meter.settings.speaks == "dlt645-1997")
    raw = bench.send(command(bench.meter.address, control, backward(di)))
    assert bool(raw) is is_its_own


@given(st.binary(max_size=60), st.lists(st.integers(0, 59), max_size=4))
@settings(deadline=None, max_examples=EXAMPLES)
def test_bytes_with_parity_errors_anywhere_are_survived(junk, marks):
    bench = meter_of("plain")
    stream = junk + command(ADDRESS, 0x11, "00000100")
    bad = sorted({mark for mark in marks if mark < len(stream)})
    bench.bus.receive(stream, bad)
    bench.bus.idle()
    assert bench.ask("00010000")
