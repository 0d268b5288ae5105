"""The answering side: requests found among whatever else is on the line, and their answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modbus_samples import feeds, frames, with_crc

from protocols.errors import LocalProtocolError
from protocols.framing import Framer, Match
from protocols.modbus.adu import build_tcp
from protocols.modbus.device import (
    answer,
    build_exception,
    build_reply,
    parse_request,
    read_reply_pdu,
    refused_by_protocol,
    request_delimiter,
)
from protocols.modbus.master import match, read_request

OTHERS = read_request(7, 3, 0x5000, 24)
OWN = read_request(1, 4, 72, 4)


def requests_in(pieces: list[bytes], *, tcp: bool = False) -> list[bytes]:
    framer = Framer(request_delimiter(tcp=tcp))
    found = [event for piece in pieces for event in framer.feed(piece)]
    return [raw for raw in frames(found) if parse_request(raw, tcp=tcp) is not None]


def test_requests_are_found_among_the_replies_of_other_devices() -> None:
    theirs = build_reply(OTHERS, range(24))
    write = with_crc(bytes.fromhex("01100550000204000181 00".replace(" ", "")))
    for pieces in feeds(OTHERS.raw + theirs + write + OWN.raw):
        assert requests_in(pieces) == [OTHERS.raw, OWN.raw]


def test_a_request_behind_the_beginning_of_a_lost_reply_needs_no_silence() -> None:
    theirs = build_reply(OTHERS, [0x1111] * 24)
    assert requests_in([theirs[:9] + OWN.raw]) == [OWN.raw]
    assert requests_in([theirs[:9], OWN.raw]) == [OWN.raw]


def test_a_request_of_the_net_is_found_behind_a_cut_one() -> None:
    one = read_request(0, 3, 1, 2, transaction=5)
    for pieces in feeds(one.raw + one.raw):
        assert requests_in(pieces, tcp=True) == [one.raw, one.raw]


@pytest.mark.parametrize("transaction", [None, 77])
def test_an_answer_repeats_unit_and_transaction(transaction: int | None) -> None:
    asked = read_request(9, 3, 10, 2, transaction=transaction)
    heard = parse_request(asked.raw, tcp=transaction is not None)
    assert heard == asked
    assert match(asked, build_reply(heard, [1, 2])) is Match.REPLY
    assert match(asked, build_exception(heard, 6)) is Match.REFUSAL
    short = answer(heard, read_reply_pdu(3, [1]))
    assert match(asked, short) is (Match.STALE if transaction is None else Match.REPLY)


@pytest.mark.parametrize(
    ("pdu", "code"), [("0300000000", 3), ("030000007E", 3), ("03FFFF0002", 2), ("030000007D", None)]
)
def test_impossible_requests_are_heard_and_owed_an_exception(pdu: str, code: int | None) -> None:
    for raw, tcp in (
        (with_crc(b"\x01" + bytes.fromhex(pdu)), False),
        (build_tcp(1, 1, bytes.fromhex(pdu)), True),
    ):
        heard = parse_request(raw, tcp=tcp)
        assert heard is not None
        assert refused_by_protocol(heard) == code


@pytest.mark.parametrize("registers", [[], [1], [1, 2, 3], [1, 65536], [1, -1]])
def test_registers_that_do_not_answer_a_request_are_refused(registers: list[int]) -> None:
    with pytest.raises(LocalProtocolError):
        build_reply(read_request(1, 3, 0, 2), registers)
    with pytest.raises(LocalProtocolError):
        build_exception(OWN, 256)
    with pytest.raises(LocalProtocolError):
        read_reply_pdu(3, [0] * 126)


@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_are_a_request_or_none(raw: bytes, tcp: bool) -> None:
    parse_request(raw, tcp=tcp)


@pytest.mark.parametrize(
    ("unit", "function", "address", "count", "transaction", "code"),
    [
        (0, 3, 0, 1, None, "bad_unit"),
        (256, 3, 0, 1, None, "bad_unit"),
        (-1, 3, 0, 1, 1, "bad_unit"),
        (1, 6, 0, 1, None, "bad_function"),
        (1, 3, 0, 0, None, "bad_count"),
        (1, 3, 0, 126, 1, "bad_count"),
        (1, 3, -1, 1, None, "bad_register"),
        (1, 4, 65535, 2, None, "bad_register"),
        (1, 4, 0, 2, 65536, "out_of_range"),
    ],
)
def test_what_must_not_be_asked_is_refused_before_it_is_sent(
    unit: int, function: int, address: int, count: int, transaction: int | None, code: str
) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        read_request(unit, function, address, count, transaction=transaction)
    assert caught.value.code == code


def test_unit_zero_of_a_net_is_the_device_itself() -> None:
    assert read_request(0, 3, 0, 1, transaction=1).raw[6] == 0
