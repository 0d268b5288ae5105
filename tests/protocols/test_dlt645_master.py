"""Both sides of a read: what is sent, and what a frame that came is to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645 import master, meter
from protocols.dlt645.frame import build, parse
from protocols.dlt645.master import (
    address_matches,
    match,
    read_request,
    reply_length,
    reply_payload,
)
from protocols.dlt645.refusal import REASONS, error_byte, reasons_of
from protocols.errors import BadContent, ErrorReply, LocalProtocolError, RemoteProtocolError
from protocols.framing import Match

OWN = "000000000161"
OTHER = "181226034194"
DI = "00010000"
PAYLOAD = bytes.fromhex("26000000")
REQUEST = read_request(OWN, DI)
REPLY = bytes.fromhex("6861010000000068910833333433593333338A16")


def test_the_request_is_the_captured_one() -> None:
    assert REQUEST.raw == bytes.fromhex("68610100000000681104333334331416")
    assert (REQUEST.address, REQUEST.di) == (OWN, DI)


def test_the_reply_gives_its_payload() -> None:
    assert match(REQUEST, REPLY) is Match.REPLY
    assert reply_payload(REQUEST, REPLY) == PAYLOAD


def test_the_meter_side_builds_the_captured_reply() -> None:
    assert meter.parse_read(parse(REQUEST.raw)) == DI
    assert meter.build_reply(OWN, DI, PAYLOAD) == REPLY


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (REQUEST.raw, Match.ECHO),
        (build(OWN, 0x11, b"\x00\x00\x02\x00"), Match.UNSOLICITED),  # another master speaks
        (build(OTHER, 0x11, b"\x00\x00\x01\x00"), Match.UNSOLICITED),
        (meter.build_reply(OTHER, DI, PAYLOAD), Match.FOREIGN),
        (meter.build_refusal(OTHER, 0x11, 2), Match.FOREIGN),
        (meter.build_reply(OWN, "00020000", PAYLOAD), Match.STALE),
        (meter.build_reply(OWN, "04001501", bytes(12)), Match.UNSOLICITED),
        (build(OWN, 0x91, b"\x00\x00\x01"), Match.STALE),
        (build(OWN, 0x92, b"\x00\x00\x01\x00\x01"), Match.STALE),
        (build(OWN, 0x94), Match.STALE),
        (meter.build_refusal(OWN, 0x14, 4), Match.STALE),
        (meter.build_address_reply(OWN), Match.STALE),
        (meter.build_refusal(OWN, 0x11, 2), Match.REFUSAL),
        (build(OWN, 0xB1, b"\x00\x00\x01\x00" + PAYLOAD), Match.REPLY),
    ],
)
def test_a_frame_is_a_reply_only_when_everything_agrees(raw: bytes, expected: Match) -> None:
    assert match(REQUEST, raw) is expected
    if expected not in (Match.REPLY, Match.REFUSAL):
        with pytest.raises(BadContent) as caught:
            reply_payload(REQUEST, raw)
        assert caught.value.code == "not_the_reply"


def test_a_report_state_word_that_was_asked_for_is_the_reply() -> None:
    request = read_request(OWN, "04001501")
    assert match(request, meter.build_reply(OWN, "04001501", bytes(12))) is Match.REPLY


def test_a_refusal_is_told_with_its_reasons() -> None:
    with pytest.raises(ErrorReply) as caught:
        reply_payload(REQUEST, meter.build_refusal(OWN, 0x11, 0x02))
    assert caught.value.reasons == ("no_data",)
    assert caught.value.error_byte == 0x02
    assert caught.value.code == "refused"


def test_a_refusal_of_another_length_is_no_reason() -> None:
    for data in (b"", b"\x02\x00"):
        with pytest.raises(BadContent) as caught:
            reply_payload(REQUEST, build(OWN, 0xD1, data))
        assert caught.value.code == "bad_refusal"


def test_the_first_part_of_a_longer_reply_is_never_a_value() -> None:
    request = read_request(OWN, "0001FF00")
    with pytest.raises(BadContent) as caught:
        reply_payload(request, build(OWN, 0xB1, b"\x00\xff\x01\x00" + PAYLOAD))
    assert caught.value.code == "follow_up_not_supported"


@pytest.mark.parametrize("control", [0x81, 0xA1, 0xC1])
def test_a_meter_that_speaks_the_old_edition_is_told_as_such(control: int) -> None:
    reply = build(OWN, control, b"\x10\x90" + PAYLOAD)
    assert match(REQUEST, reply) is Match.REPLY
    with pytest.raises(BadContent, match="1997") as caught:
        reply_payload(REQUEST, reply)
    assert caught.value.code == "edition_1997"


@pytest.mark.parametrize(
    ("asked", "got", "matches"),
    [
        (OWN, OWN, True),
        (OWN, OTHER, False),
        ("AAAAAAAAAAAA", OWN, True),
        ("AAAAAAAAAAAA", "AAAAAAAAAAAA", True),
        ("AAAAAAAA0161", OWN, True),
        ("AAAAAAAA0161", OTHER, False),
        ("AAAAAAAA0161", "AAAAAAAAAAAA", True),
        (OWN, "AAAAAAAAAAAA", False),
        ("999999999999", OWN, False),
        ("0AA000000000", "0BB000000000", False),
    ],
)
def test_an_address_matches_as_its_wildcards_say(asked: str, got: str, matches: bool) -> None:
    assert address_matches(asked, got) is matches


@pytest.mark.parametrize(
    ("asked", "answers"),
    [
        (OWN, True),
        ("AAAAAAAAAAAA", True),
        ("AAAAAAAA0161", True),
        ("AAAAAAAA0162", False),
        ("AA00AA000161", False),  # no wildcard below the first digits
        ("999999999999", False),
        (OTHER, False),
    ],
)
def test_a_meter_answers_its_own_and_shortened_addresses(asked: str, answers: bool) -> None:
    assert meter.addressed(OWN, asked) is answers


@pytest.mark.parametrize(
    ("control", "data", "di"),
    [
        (0x11, bytes.fromhex("00000100"), DI),
        (0x11, bytes.fromhex("0000010001"), None),
        (0x11, b"", None),
        (0x91, bytes.fromhex("00000100"), None),
        (0x01, bytes.fromhex("1090"), None),
    ],
)
def test_only_a_plain_read_asks_for_an_item(control: int, data: bytes, di: str | None) -> None:
    assert meter.parse_read(parse(build(OWN, control, data))) == di


def test_who_is_there_is_answered_with_the_address_twice() -> None:
    question = parse(bytes.fromhex("68AAAAAAAAAAAA681300DF16"))
    assert meter.asks_address(question)
    reply = meter.build_address_reply("201000000012")
    assert reply == bytes.fromhex("681200000010206893064533333343531F16")
    assert not meter.asks_address(parse(reply))


def test_a_refusal_is_the_captured_one() -> None:
    refusal = meter.build_refusal("201000000012", 0x11, error_byte("no_data"))
    assert refusal == bytes.fromhex("6812000000102068D101351916")


@pytest.mark.parametrize(("control", "byte"), [(0x91, 2), (-1, 2), (0x11, 256)])
def test_a_refusal_that_cannot_be_is_not_built(control: int, byte: int) -> None:
    with pytest.raises(LocalProtocolError):
        meter.build_refusal(OWN, control, byte)


@given(st.integers(0, 255))
def test_error_bytes_and_their_names_go_both_ways(byte: int) -> None:
    assert error_byte(*reasons_of(byte)) == byte


def test_every_error_bit_has_its_name() -> None:
    assert REASONS == (
        "other", "no_data", "password", "speed", "year_zones", "day_slots", "tariffs", "reserved",
    )  # fmt: skip
    with pytest.raises(ValueError, match="not in tuple"):
        error_byte("nothing")


@pytest.mark.parametrize("di", ["", "00", "000100", "0001000000", "0001000g"])
def test_an_identifier_that_is_none_is_refused(di: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        read_request(OWN, di)
    assert caught.value.code == "bad_identifier"


def test_the_length_of_the_reply_is_known_beforehand() -> None:
    assert reply_length("00010000") == len(REPLY)
    assert reply_length("0201FF00") == 12 + 4 + 6
    assert reply_length("01010000") == 12 + 4 + 8
    # The meter decides how many tariffs there are: the longest reply the standard allows.
    assert reply_length("0001FF00") == 212
    assert reply_length("0001FF00", tariffs=4) == 12 + 4 + 20
    assert reply_length("0001FF00", tariffs=63) == 212
    assert reply_length("03010101") == 12 + 4 + 131
    assert reply_length("33343233") == 212


@given(
    st.sampled_from([OWN, OTHER, "AAAAAAAA0161", "AAAAAAAAAAAA"]),
    st.sampled_from([OWN, OTHER, "AAAAAAAAAAAA"]),
    st.sampled_from([0x91, 0x91, 0xB1, 0xD1, 0x81, 0x11]),
    st.sampled_from([b"\x00\x00\x01\x00", b"\x00\x00\x02\x00", b"", b"\x01\x15\x00\x04"]),
    st.binary(max_size=12),
    st.integers(0, 1000),
)
def test_the_short_way_to_a_reply_is_the_long_way(
    asked: str, address: str, control: int, di: bytes, payload: bytes, damage: int
) -> None:
    request = read_request(asked, DI)
    raw = bytearray(build(address, control, di + payload))
    if damage < len(raw):
        raw[damage] ^= 1
    try:
        frame = parse(bytes(raw))
    except RemoteProtocolError:
        assert not master._is_plain_reply(request, bytes(raw))
        with pytest.raises(RemoteProtocolError):
            match(request, bytes(raw))
        return
    kind = master._match(request, frame)
    assert match(request, bytes(raw)) is kind
    if kind is Match.REPLY and frame.control == 0x91:
        assert reply_payload(request, bytes(raw)) == frame.data[4:]


@given(st.binary(max_size=120))
def test_no_frame_from_the_meter_breaks_the_matching(data: bytes) -> None:
    for control in (0x11, 0x91, 0xB1, 0xD1, 0xF1, 0x81):
        raw = build(OWN, control, data)
        assert match(REQUEST, raw) in Match
