"""Modbus frames and framing: what holds for all bytes."""

import contextlib
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modbus_samples import answers, events, feeds, frames, with_crc

from protocols.checksum import crc16
from protocols.errors import ChecksumError, LocalProtocolError, ProtocolError, RemoteProtocolError
from protocols.framing import Delimiter, Event, FrameFound, Framer, Match, Noise, Rejected
from protocols.modbus.adu import (
    build_rtu,
    build_rtu_declared,
    build_tcp,
    build_tcp_declared,
    parse_rtu,
    parse_rtu_declared,
    parse_tcp,
    parse_tcp_declared,
)
from protocols.modbus.device import build_exception, build_reply, request_delimiter
from protocols.modbus.master import ReadRequest, delimiter_for, match, read_request, reply_registers

bytes_ = st.integers(0, 255)
words = st.integers(0, 0xFFFF)
pdus = st.binary(min_size=1, max_size=253)
units = st.integers(1, 247)
transactions = st.one_of(st.none(), words)


@st.composite
def requests(draw: st.DrawFn) -> ReadRequest:
    count = draw(st.one_of(st.integers(1, 4), st.integers(1, 125)))
    return read_request(
        draw(units),
        draw(st.sampled_from([3, 4])),
        draw(st.integers(0, 0x10000 - count)),
        count,
        transaction=draw(transactions),
    )


def reply_to(request: ReadRequest, seed: int = 0) -> bytes:
    source = random.Random(seed)
    return build_reply(request, [source.randrange(0x10000) for _ in range(request.count)])


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0xFFFF), (b"123456789", 0x4B37), (bytes.fromhex("0104000c0002"), 0xC8B1)],
)
def test_the_crc_is_that_of_the_specification(data: bytes, expected: int) -> None:
    assert crc16(data) == expected


@given(bytes_, pdus)
def test_rtu_frames_are_read_as_they_were_built(unit: int, pdu: bytes) -> None:
    raw = build_rtu(unit, pdu)
    frame = parse_rtu(raw)
    assert (frame.unit, frame.pdu, frame.raw, frame.crc_ok) == (unit, pdu, raw, True)
    assert raw == build_rtu_declared(unit, pdu)
    assert frame == parse_rtu_declared(raw)


@given(words, bytes_, pdus)
def test_tcp_frames_are_read_as_they_were_built(transaction: int, unit: int, pdu: bytes) -> None:
    raw = build_tcp(transaction, unit, pdu)
    frame = parse_tcp(raw)
    assert (frame.transaction, frame.unit, frame.pdu, frame.raw) == (transaction, unit, pdu, raw)
    assert raw == build_tcp_declared(transaction, unit, pdu)
    assert frame == parse_tcp_declared(raw)


def taken(parse: Any, raw: bytes) -> Any:
    try:
        return parse(raw)
    except RemoteProtocolError:
        return None


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=20).map(lambda b: b"\0\1\0\0" + b)))
def test_declared_and_written_by_hand_take_the_same_bytes(raw: bytes) -> None:
    assert taken(lambda b: parse_rtu(b, check=False), raw) == taken(parse_rtu_declared, raw)
    assert taken(parse_tcp, raw) == taken(parse_tcp_declared, raw)


@pytest.mark.parametrize(
    ("unit", "pdu"), [(256, b"\x03"), (-1, b"\x03"), (1, b""), (1, bytes(254))]
)
def test_what_fits_no_frame_is_refused_before_it_is_sent(unit: int, pdu: bytes) -> None:
    for build in (build_rtu, build_rtu_declared, lambda u, p: build_tcp(1, u, p)):
        if build is build_rtu_declared and (not pdu or len(pdu) > 253):
            continue
        with pytest.raises(LocalProtocolError):
            build(unit, pdu)
    with pytest.raises(LocalProtocolError):
        build_tcp(0x10000, 1, b"\x03")
    with pytest.raises(LocalProtocolError):
        build_tcp_declared(0x10000, 1, b"\x03")


def test_a_wrong_crc_is_told_with_both_values_and_its_place() -> None:
    raw = bytes.fromhex("01040443c9aa46c16d")
    with pytest.raises(ChecksumError) as caught:
        parse_rtu(raw)
    assert (caught.value.got, caught.value.expected, caught.value.offset) == (0x6DC1, 0x6CC1, 7)
    assert not parse_rtu(raw, check=False).crc_ok


@pytest.mark.parametrize(
    ("raw", "code", "offset"),
    [
        ("0001000000", "truncated", 5),
        ("0001123400060103", "protocol", 2),
        ("0001000000010103", "length", 4),
        ("0001000000FF0103", "length", 4),
        ("000100000006010300", "truncated", 9),
        ("0001000000020103FF", "length", 8),
    ],
)
def test_a_tcp_frame_that_is_none_says_where(raw: str, code: str, offset: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_tcp(bytes.fromhex(raw))
    assert (caught.value.code, caught.value.offset) == (code, offset)


def test_an_rtu_frame_of_an_impossible_size_says_so() -> None:
    for size, code in ((3, "truncated"), (257, "length")):
        with pytest.raises(RemoteProtocolError) as caught:
            parse_rtu(bytes(size))
        assert caught.value.code == code


# -- finding frames ------------------------------------------------------------------------------

streams = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.lists(st.sampled_from([0, 1, 3, 4, 0x83, 0x84, 2, 6, 0xFA, 0xFF]), max_size=12).map(
            bytes
        ),
        st.sampled_from(["request", "reply", "refusal", "other_unit", "other_count"]),
    ),
    max_size=8,
)


def laid_out(request: ReadRequest, parts: list[Any]) -> bytes:
    other = request.unit % 247 + 1
    strange = read_request(
        other, request.function, request.address, request.count, transaction=request.transaction
    )
    count = request.count % 125 + 1
    late = read_request(request.unit, request.function, 0, count, transaction=request.transaction)
    known = {
        "request": request.raw,
        "reply": reply_to(request),
        "refusal": build_exception(request, 6),
        "other_unit": reply_to(strange, 1),
        "other_count": reply_to(late, 2),
    }
    return b"".join(known[part] if isinstance(part, str) else part for part in parts)


@given(requests(), streams, st.lists(st.integers(1, 60), max_size=12))
def test_no_byte_is_lost_or_moved(request: ReadRequest, parts: list[Any], cuts: list[int]) -> None:
    stream = laid_out(request, parts)
    framer = Framer(delimiter_for(request))
    found: list[Event] = []
    at = 0
    for cut in [*cuts, len(stream)]:
        found += framer.feed(stream[at : at + cut])
        at += cut
    found += framer.idle()
    assert framer.pending == 0
    place = 0
    for event in found:
        assert event.offset == place
        place += len(event.raw)
    assert b"".join(event.raw for event in found) == stream


@given(requests(), st.binary(max_size=40), st.integers(0, 3))
def test_the_reply_is_found_behind_any_noise_once_the_line_is_quiet(
    request: ReadRequest, noise: bytes, seed: int
) -> None:
    reply = reply_to(request, seed)
    for pieces in feeds(noise + reply):
        found = events(request, pieces)
        taken_by_chance = any(
            isinstance(one, FrameFound) and one.offset < len(noise) < one.offset + len(one.raw)
            for one in found
        )
        assert reply in frames(found) or taken_by_chance


@given(requests(), st.binary(max_size=3))
def test_the_answer_is_found_at_once_behind_noise_when_it_comes_in_one_piece(
    request: ReadRequest, noise: bytes
) -> None:
    """A false head that waits for more bytes than ever come does not hold the answer back."""
    if request.transaction is not None:
        return
    for answer, kind in (
        (reply_to(request), Match.REPLY),
        (build_exception(request, 2), Match.REFUSAL),
    ):
        assert (kind, answer) in answers(request, [noise + answer], idle=False)


@given(requests())
def test_echo_foreign_and_stale_frames_are_survived_and_named(request: ReadRequest) -> None:
    reply = reply_to(request)
    others = [laid_out(request, [part]) for part in ("other_unit", "other_count")]
    if any(with_crc(raw[:6]) == raw[:8] for raw in others):
        return  # one in 65536 begins like a request; that it is no answer is told all the same
    stream = laid_out(request, ["request", "other_unit", "other_count", "reply"])
    for pieces in feeds(stream):
        kinds = [kind for kind, _ in answers(request, pieces, idle=False)]
        if request.transaction is None:
            assert kinds == [Match.ECHO, Match.FOREIGN, Match.STALE, Match.REPLY]
        else:
            # The right transaction with a wrong count is no late answer: it settles the request.
            assert kinds == [Match.ECHO, Match.FOREIGN, Match.REPLY, Match.REPLY]
        assert answers(request, pieces, idle=False)[-1][1] == reply


@given(requests(), words)
def test_a_stale_transaction_is_skipped_whole(request: ReadRequest, transaction: int) -> None:
    if request.transaction in (None, transaction):
        return
    earlier = read_request(
        request.unit, request.function, 0, request.count, transaction=transaction
    )
    stream = reply_to(earlier) + build_exception(earlier, 11) + reply_to(request)
    for pieces in feeds(stream):
        kinds = [kind for kind, _ in answers(request, pieces, idle=False)]
        assert kinds == [Match.STALE, Match.STALE, Match.REPLY]
    stream = reply_to(earlier) + build_exception(request, 11)
    assert [kind for kind, _ in answers(request, [stream], idle=False)] == [
        Match.STALE, Match.REFUSAL,
    ]  # fmt: skip


@given(requests(), st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_our_own_errors(request: ReadRequest, raw: bytes) -> None:
    for kind, found in answers(request, [raw]):
        if kind in (Match.REPLY, Match.REFUSAL):
            with contextlib.suppress(ProtocolError):
                assert len(reply_registers(request, found)) == request.count
    match(request, raw)
    with pytest.raises(ProtocolError):
        reply_registers(request, raw)


@given(requests(), st.data())
def test_a_line_reply_with_changed_bits_is_never_believed(
    request: ReadRequest, data: st.DataObject
) -> None:
    """The CRC finds every burst of up to 16 bits and every odd number of flipped bits."""
    if request.transaction is not None:
        return
    raw = reply_to(request)
    bit = data.draw(st.integers(0, 8 * len(raw) - 16))
    burst = data.draw(st.integers(1, 0xFFFF))
    number = int.from_bytes(raw, "little") ^ burst << bit
    damaged = number.to_bytes(len(raw) + 2, "little")[: len(raw)]
    if damaged == raw:
        return
    for pieces in feeds(damaged):
        assert Match.REPLY not in [kind for kind, _ in answers(request, pieces)]


class Counting:
    """Counts how often it is asked and how many bytes of CRC it works through."""

    start = b""

    def __init__(self, inner: Delimiter) -> None:
        self._inner = inner
        self.calls = 0

    def measure(self, buffer: bytes | bytearray, at: int) -> int | Rejected | None:
        self.calls += 1
        return self._inner.measure(buffer, at)


@pytest.mark.parametrize("piece", [1, 7, 5000])
@pytest.mark.parametrize(
    "stream",
    [
        b"\x01" * 5000,
        bytes.fromhex("0103FA") * 1700,
        bytes.fromhex("010304") * 1700,
        bytes.fromhex("01030400010002") * 700,
        bytes.fromhex("0001000000FE0103") * 600,
        bytes(5000),
    ],
    ids=["units", "long_heads", "short_heads", "replies", "tcp_heads", "zeros"],
)
@pytest.mark.parametrize("transaction", [None, 1])
def test_work_grows_with_the_input_and_not_faster(
    stream: bytes, piece: int, transaction: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from protocols.modbus import delimiter as module

    summed = 0

    def counted(data: bytes | bytearray) -> int:
        nonlocal summed
        summed += len(data)
        return crc16(data)

    monkeypatch.setattr(module, "crc16", counted)
    request = read_request(1, 3, 0, 2, transaction=transaction)
    for delimiter in (delimiter_for(request), request_delimiter(tcp=transaction is not None)):
        summed = 0
        counting = Counting(delimiter)
        framer = Framer(counting)
        pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
        for one in pieces:
            framer.feed(one)
        framer.idle()
        # Each byte can be a start once, each feed asks again for the frame that is pending.
        assert counting.calls <= len(stream) + 3 * len(pieces) + 1
        # Looking at one place costs no more than a few longest frames.
        assert summed <= 4 * 256 * counting.calls


def test_an_incomplete_reply_is_told_as_incomplete_and_a_damaged_one_by_its_checksum() -> None:
    request = read_request(1, 4, 12, 2)
    reply = bytes.fromhex("01040443c9aa46c16c")
    cut = events(request, [reply[:6]])
    assert b"".join(event.raw for event in cut) == reply[:6]
    assert {event.reason for event in cut if isinstance(event, Noise)} <= {"incomplete", "dirt"}
    assert isinstance(cut[0], Noise)
    assert cut[0].reason == "incomplete"
    wrong = reply[:-1] + b"\x6d"
    first = events(request, [wrong])[0]
    assert isinstance(first, Noise)
    assert (first.reason, first.offset) == ("checksum", 0)


def test_noise_alone_is_dirt_and_no_frame_that_began() -> None:
    request = read_request(17, 3, 0, 10)
    for noise in (b"\x00", b"\xff\x00\xff", bytes(range(128, 160))):
        found = events(request, [noise])
        assert b"".join(event.raw for event in found) == noise
        assert {event.reason for event in found if isinstance(event, Noise)} == {"dirt"}


def test_noise_of_the_lines_turning_round_begins_no_frame() -> None:
    """It leaves nothing pending that a pause would end, so the reply is still waited for."""
    request = read_request(17, 3, 0, 10)
    for noise in (b"\x00", b"\xff", b"\x00\x00", b"\xff\x00", b"\x00\xff\xff"):
        framer = Framer(delimiter_for(request))
        framer.feed(noise)
        assert framer.pending <= 1


def test_a_beginning_of_our_own_request_is_never_taken_for_a_reply() -> None:
    """Seven bytes of an echo whose CRC fits by chance look like a reply of one register."""
    for unit in range(1, 248):
        for low in range(256):
            request = read_request(unit, 3, 0x0200 | low, 1)
            if with_crc(request.raw[:5]) == request.raw[:7]:
                kinds = [kind for kind, _ in answers(request, feeds(request.raw)[1])]
                assert kinds == [Match.ECHO]
                return
    # No such request exists: then the rule costs nothing.


def test_a_reply_whose_beginning_looks_like_a_request_is_waited_for() -> None:
    request = read_request(208, 4, 0, 2)
    reply = bytes.fromhex("D004041CF42EE46100")
    assert crc16(reply[:6]).to_bytes(2, "little") == reply[6:8]
    for pieces in feeds(reply):
        assert answers(request, pieces, idle=False) == [(Match.REPLY, reply)]


@settings(max_examples=30)
@given(requests())
def test_what_follows_a_reply_does_not_change_it(request: ReadRequest) -> None:
    reply = reply_to(request)
    for tail in (b"\x00", request.raw, reply, b"\xff" * 9):
        assert answers(request, [reply + tail])[0] == (Match.REPLY, reply)
