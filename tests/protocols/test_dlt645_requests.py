"""Reads of both editions: parts, wildcards, who is there; and what can never be sent."""

import datetime as dt
import inspect
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from dlt645_samples import by_id, forged, negatives, raw_of
from hypothesis import given
from hypothesis import strategies as st

import protocols.dlt645
from protocols.dlt645 import clock, meter
from protocols.dlt645.catalogue import lookup
from protocols.dlt645.frame import BROADCAST, WILDCARD, build, parse
from protocols.dlt645.items import decode
from protocols.dlt645.master import (
    Assembly,
    Part,
    ReadRequest,
    address_request,
    answered_by,
    follow_up,
    match,
    read_request,
    reply_address,
    reply_length,
    reply_part,
    reply_payload,
)
from protocols.errors import BadContent, ErrorReply, LocalProtocolError, ProtocolError
from protocols.framing import Match

OWN = "000000000161"
BLOCK = "0001FF00"


# -- follow-up frames


def test_a_reply_in_two_frames_is_put_together() -> None:
    samples = by_id()
    assembly = Assembly(read_request(OWN, BLOCK))
    assert assembly.request.raw == raw_of(samples["m01"])
    assert assembly.take(raw_of(samples["m02"])) is None
    assert assembly.request.raw == raw_of(samples["m03"])
    payload = assembly.take(raw_of(samples["m04"]))
    assert payload is not None
    assert len(payload) == 240
    item = lookup(BLOCK)
    assert item is not None
    assert len(decode(item, payload)) == 60


def test_a_reply_in_three_frames_asks_for_the_next_number() -> None:
    samples = by_id()
    assembly = Assembly(read_request(OWN, BLOCK))
    assembly.take(raw_of(samples["m02"]))
    assert assembly.take(raw_of(samples["m05"])) is None
    assert parse(assembly.request.raw).data == bytes.fromhex("00FF0100") + b"\x02"
    last = build(OWN, 0x92, bytes.fromhex("00FF0100") + b"\x99" * 8 + b"\x02")
    payload = assembly.take(last)
    assert payload is not None
    assert len(payload) == 192 + 24 + 8
    assert payload.endswith(b"\x99" * 8)


def test_a_refused_follow_up_ends_the_item() -> None:
    samples = by_id()
    assembly = Assembly(read_request(OWN, BLOCK))
    assembly.take(raw_of(samples["m02"]))
    assert match(assembly.request, raw_of(samples["m06"])) is Match.REFUSAL
    with pytest.raises(ErrorReply) as caught:
        assembly.take(raw_of(samples["m06"]))
    assert caught.value.reasons == ("no_data",)


def test_a_part_with_another_number_is_never_appended() -> None:
    case = next(case for case in negatives() if case["id"] == "n26")
    request = follow_up(read_request(OWN, BLOCK), 1)
    assert match(request, bytes.fromhex(case["hex"])) is Match.STALE
    with pytest.raises(BadContent) as caught:
        reply_part(request, bytes.fromhex(case["hex"]))
    assert caught.value.code == "not_the_reply"


@pytest.mark.parametrize(
    ("control", "data", "expected"),
    [
        (0x92, "00FF0100 11 01", Match.REPLY),
        (0xB2, "00FF0100 11 01", Match.REPLY),
        (0x92, "00FF0100 11 02", Match.STALE),
        (0x92, "00FF0100", Match.STALE),  # no number at all
        (0x92, "00FF0200 11 01", Match.STALE),
        (0x91, "00FF0100 11", Match.STALE),  # the first part, come late
        (0xB1, "00FF0100 11", Match.STALE),
        (0x91, "01150004 11", Match.UNSOLICITED),
        (0xD2, "02", Match.REFUSAL),
        (0xD1, "02", Match.STALE),
        (0x12, "00FF0100 01", Match.ECHO),
        (0x12, "00FF0100 02", Match.UNSOLICITED),
    ],
)
def test_a_follow_up_is_told_from_everything_else(control: int, data: str, expected: Match) -> None:
    request = follow_up(read_request(OWN, BLOCK), 1)
    assert match(request, build(OWN, control, bytes.fromhex(data))) is expected
    assert match(request, build("000000000162", control | 0x80, bytes.fromhex(data))) is (
        Match.FOREIGN
    )


def test_a_first_read_takes_no_later_part_for_its_reply() -> None:
    late = build(OWN, 0x92, bytes.fromhex("00FF0100") + b"\x11\x01")
    assert match(read_request(OWN, BLOCK), late) is Match.STALE


@given(st.binary(max_size=900), st.integers(10, 200), st.sampled_from([BLOCK, "901F"]))
def test_what_a_meter_cuts_in_parts_the_master_puts_together(
    payload: bytes, data_max: int, di: str
) -> None:
    frames = meter.build_parts(OWN, di, payload, data_max=data_max)
    assembly = Assembly(read_request(OWN, di))
    for index, raw in enumerate(frames):
        asked = meter.parse_any_read(parse(assembly.request.raw))
        assert asked is not None
        assert asked.di == di
        assert len(parse(raw).data) <= data_max
        assert match(assembly.request, raw) is Match.REPLY
        taken = assembly.take(raw)
        assert (taken is None) == (index < len(frames) - 1)
    assert taken == payload


def test_a_reply_that_never_ends_is_given_up() -> None:
    assembly = Assembly(read_request(OWN, BLOCK))
    assembly.take(build(OWN, 0xB1, bytes.fromhex("00FF0100")))
    with pytest.raises(BadContent) as caught:  # noqa: PT012 - the last of many
        for number in range(1, 300):
            assembly.take(build(OWN, 0xB2, bytes.fromhex("00FF0100") + bytes((number,))))
    assert caught.value.code == "endless"
    assert assembly.request.sequence == 255


def test_a_number_that_is_none_is_not_asked_for() -> None:
    for number in (0, 256, -1):
        with pytest.raises(LocalProtocolError):
            follow_up(read_request(OWN, BLOCK), number)


def test_a_part_is_no_payload() -> None:
    request = follow_up(read_request(OWN, BLOCK), 1)
    more = build(OWN, 0xB2, bytes.fromhex("00FF0100") + b"\x11\x01")
    assert reply_part(request, more) == Part(b"\x11", more=True)
    with pytest.raises(BadContent) as caught:
        reply_payload(request, more)
    assert caught.value.code == "follow_up_not_supported"


# -- the 1997 edition


def test_the_old_edition_is_read() -> None:
    samples = by_id()
    for asked, got, value in (
        ("k01", "k02", "0.15"), ("k07", "k08", "0.00"), ("k16", "k17", "0"), ("k14", "k15", "0.38"),
    ):  # fmt: skip
        request = read_request(samples[asked]["addr"], samples[asked]["di"])
        assert request.raw == raw_of(samples[asked])
        assert request.edition == "dlt645-1997"
        reply = raw_of(samples[got])
        # Asked as all meters, it answers with its own address.
        assert match(request, reply) is Match.REPLY
        assert answered_by(reply) == "000000063295"
        item = lookup(request.di)
        assert item is not None
        assert str(decode(item, reply_payload(request, reply))[0]) == value


def test_a_refusal_of_the_old_edition_is_told_in_its_own_words() -> None:
    request = read_request("201708176934", "90FF")
    with pytest.raises(ErrorReply) as caught:
        reply_payload(request, raw_of(by_id()["k22"]))
    assert caught.value.reasons == ("no_data",)
    with pytest.raises(ErrorReply) as caught:
        reply_payload(request, meter.build_refusal("201708176934", 0x01, 0x01))
    assert caught.value.reasons == ("illegal_data",)


@pytest.mark.parametrize("control", [0x91, 0xB1, 0xD1])
def test_a_meter_that_speaks_the_new_edition_is_told_as_such(control: int) -> None:
    request = read_request(OWN, "9010")
    reply = build(OWN, control, b"\x10\x90\x00\x00")
    assert match(request, reply) is Match.REPLY
    with pytest.raises(BadContent, match="2007") as caught:
        reply_payload(request, reply)
    assert caught.value.code == "edition_2007"


@pytest.mark.parametrize(
    ("control", "data", "address", "expected"),
    [
        (0x81, "1090 26000000", OWN, Match.REPLY),
        (0x81, "2090 26000000", OWN, Match.STALE),
        (0x81, "1090 26000000", "000000000162", Match.FOREIGN),
        (0xA1, "1090 26000000", OWN, Match.REPLY),
        (0x82, "1090 26000000", OWN, Match.STALE),
        (0xC1, "02", OWN, Match.REFUSAL),
        (0xC4, "04", OWN, Match.STALE),
        (0x01, "1090", OWN, Match.ECHO),
        (0x01, "2090", OWN, Match.UNSOLICITED),
    ],
)
def test_a_reply_of_the_old_edition_is_one_only_when_everything_agrees(
    control: int, data: str, address: str, expected: Match
) -> None:
    request = read_request(OWN, "9010")
    assert match(request, build(address, control, bytes.fromhex(data))) is expected


def test_the_length_of_an_old_reply_is_known_beforehand() -> None:
    assert reply_length("9010") == 12 + 2 + 4
    assert reply_length("901F", tariffs=4) == 12 + 2 + 20
    assert reply_length("B61F") == 12 + 2 + 6


# -- addresses


@pytest.mark.parametrize("name", ["n22", "n23", "n24", "n28"])
def test_streams_of_wildcards_and_editions_deliver_what_they_must(name: str) -> None:
    case = next(case for case in negatives() if case["id"] == name)
    request = read_request(case["asked"]["addr"], case["asked"]["di"])
    samples = by_id()
    expected = [raw_of(samples[one]) for one in case["deliver"]]
    raw = bytes.fromhex(case["hex"]).lstrip(b"\xfe")
    if name == "n24":
        with pytest.raises(ProtocolError):
            parse(raw)
        return
    assert match(request, raw) is Match.REPLY
    if not expected:
        with pytest.raises(BadContent, match="1997"):
            reply_payload(request, raw)
        return
    assert [raw] == expected
    assert reply_payload(request, raw)
    # Who answered is known from a full address, and stays unknown when the wildcard comes back.
    assert answered_by(raw) == {"n22": None, "n23": "000000000161"}[name]


def test_a_reply_with_a_wildcard_answers_only_a_wildcard() -> None:
    reply = raw_of(by_id()["h02"])
    assert match(read_request("000000000003", "02010100"), reply) is Match.FOREIGN
    assert match(read_request("AAAAAAAA0003", "02010100"), reply) is Match.REPLY


def test_who_is_there_is_asked_and_answered() -> None:
    samples = by_id()
    request = address_request()
    assert request.raw == raw_of(samples["b01"])
    assert meter.asks_address(parse(request.raw))
    for name, address in (
        ("b02", "201000000012"),
        ("c14", "000006605518"),
        ("s01", "181226034194"),
    ):
        reply = raw_of(samples[name])
        assert match(request, reply) is Match.REPLY
        assert reply_address(request, reply) == address
    assert reply_address(request, meter.build_address_reply(OWN)) == OWN


def test_an_address_in_a_frame_with_the_wildcard_counts_and_another_one_does_not() -> None:
    request = address_request()
    payload = bytes.fromhex("610100000000")
    assert reply_address(request, build(WILDCARD, 0x93, payload)) == OWN
    with pytest.raises(BadContent) as caught:
        reply_address(request, build("000000000162", 0x93, payload))
    assert caught.value.code == "address_disagrees"


@pytest.mark.parametrize(
    ("control", "data", "expected"),
    [
        (0x93, "6101000000", Match.STALE),
        (0x93, "61010000000000", Match.STALE),
        (0x91, "610100000000", Match.STALE),
        (0x13, "", Match.ECHO),
    ],
)
def test_what_is_no_address_is_no_answer(control: int, data: str, expected: Match) -> None:
    address = OWN if control & 0x80 else WILDCARD
    assert match(address_request(), build(address, control, bytes.fromhex(data))) is expected


def test_a_meter_of_the_new_edition_never_answers_all() -> None:
    request = read_request(BROADCAST, "00010000")
    assert match(request, meter.build_reply(OWN, "00010000", bytes(4))) is Match.FOREIGN


# -- the meter's side


@pytest.mark.parametrize(
    ("name", "di", "sequence", "count", "moment"),
    [
        ("a01", "00010000", None, None, None),
        ("k01", "9010", None, None, None),
        ("x01", "06000001", None, 1, "2609011500"),
        ("x03", "06010000", None, 1, None),
        ("m03", BLOCK, 1, None, None),
    ],
)
def test_a_meter_understands_every_read(
    name: str, di: str, sequence: int | None, count: int | None, moment: str | None
) -> None:
    asked = meter.parse_any_read(parse(raw_of(by_id()[name])))
    assert asked == meter.ReadAsked(di, sequence, count, moment)


def test_a_meter_takes_no_reply_and_no_write_for_a_read() -> None:
    for name in ("a02", "w01", "b01", "h04", "k32", "k36", "m08", "g03"):
        assert meter.parse_any_read(parse(raw_of(by_id()[name]))) is None


def test_a_meter_understands_a_write_and_shows_no_password() -> None:
    write = meter.parse_write(parse(raw_of(by_id()["w01"])))
    assert write is not None
    assert (write.di, write.password, write.operator, write.payload) == (
        "04000101", bytes.fromhex("02101010"), bytes.fromhex("11111111"), bytes.fromhex("04100518"),
    )  # fmt: skip
    assert "1010" not in repr(write).replace("04000101", "")
    old = meter.parse_write(parse(raw_of(by_id()["k32"])))
    assert old is not None
    assert (old.di, old.password, old.payload) == ("C010", bytes(4), bytes.fromhex("06060719"))
    assert meter.parse_write(parse(raw_of(by_id()["a01"]))) is None
    assert meter.parse_write(parse(forged(OWN, 0x14, bytes(11)))) is None


def test_parts_that_do_not_fit_are_not_built() -> None:
    with pytest.raises(LocalProtocolError):
        meter.build_parts(OWN, BLOCK, bytes(9), data_max=4)
    with pytest.raises(LocalProtocolError):
        meter.build_parts(OWN, BLOCK, bytes(9), data_max=5)
    with pytest.raises(LocalProtocolError):
        meter.build_parts(OWN, BLOCK, bytes(1000), data_max=6)


def test_a_command_that_was_taken_is_answered_without_data() -> None:
    assert meter.build_done("001803140001", 0x14) == raw_of(by_id()["w02"])
    assert meter.build_done("123456789012", 0x16) == raw_of(by_id()["p06"])
    with pytest.raises(LocalProtocolError):
        meter.build_done(OWN, 0x94)


# -- clocks

PASSWORD = clock.Password(2, "101010")


def test_the_time_goes_to_all_meters() -> None:
    when = clock.MeterTime(dt.date(2017, 6, 5), dt.time(10, 22, 51))
    raw = clock.clock_to_all(when)
    assert raw == raw_of(by_id()["h04"])
    assert clock.parse_clock(parse(raw)) == when
    assert clock.parse_clock(parse(raw_of(by_id()["h05"]))) is not None
    for data in ("512210050617", "512210320617", "5122100506", "FF2210050617"):
        given_time = clock.parse_clock(parse(build(BROADCAST, 0x08, bytes.fromhex(data))))
        assert (given_time == when) == (data == "512210050617")
        assert given_time is None or data == "512210050617"
    assert clock.parse_clock(parse(raw_of(by_id()["a02"]))) is None
    with pytest.raises(LocalProtocolError):
        clock.clock_to_all(clock.MeterTime(dt.date(1999, 1, 1), dt.time(0)))


def test_a_clock_is_set_in_one_meter_with_a_password() -> None:
    samples = by_id()
    day = clock.write_clock(
        "001803140001", clock.DATE, dt.date(2018, 5, 10), password=PASSWORD, operator="11111111"
    )
    # The sample says Thursday, 4, as the date does.
    assert day.raw == raw_of(samples["w01"])
    time = clock.write_clock(
        "001803140001", clock.TIME, dt.time(15, 8, 55), password=PASSWORD, operator="11111111"
    )
    assert time.raw == raw_of(samples["w03"])
    for secret in ("101010", "11111111", day.raw.hex(), repr(day.raw)):
        assert secret not in repr(day)
    assert "101010" not in repr(PASSWORD)
    assert clock.match_write(day, raw_of(samples["w02"])) is Match.REPLY
    clock.check_written(day, raw_of(samples["w02"]))


def test_a_refused_password_is_told_as_one() -> None:
    write = clock.write_clock(OWN, clock.TIME, dt.time(1), password=PASSWORD, operator="00000001")
    refusal = meter.build_refusal(OWN, 0x14, 0x04)
    assert clock.match_write(write, refusal) is Match.REFUSAL
    with pytest.raises(ErrorReply) as caught:
        clock.check_written(write, refusal)
    assert caught.value.reasons == ("password",)
    assert "101010" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (build(OWN, 0x94, b"\x00"), Match.STALE),
        (build("000000000162", 0x94), Match.FOREIGN),
        (build(OWN, 0x91, bytes(8)), Match.STALE),
        (build(OWN, 0xD1, b"\x04"), Match.STALE),
        (build(OWN, 0x11, bytes(4)), Match.UNSOLICITED),
    ],
)
def test_what_is_no_answer_to_a_write_settles_nothing(raw: bytes, expected: Match) -> None:
    write = clock.write_clock(OWN, clock.TIME, dt.time(1), password=PASSWORD, operator="00000001")
    assert clock.match_write(write, raw) is expected
    assert clock.match_write(write, write.raw) is Match.ECHO
    with pytest.raises(BadContent):
        clock.check_written(write, raw)


@pytest.mark.parametrize(
    ("address", "di", "password", "operator", "code"),
    [
        (WILDCARD, clock.TIME, PASSWORD, "00000001", "needs_one_meter"),
        (BROADCAST, clock.TIME, PASSWORD, "00000001", "needs_one_meter"),
        ("AAAAAAAA0161", clock.TIME, PASSWORD, "00000001", "needs_one_meter"),
        (OWN, "04000401", PASSWORD, "00000001", "not_sendable"),
        (OWN, "04000C01", PASSWORD, "00000001", "not_sendable"),
        (OWN, "C011", PASSWORD, "00000001", "not_sendable"),
        (OWN, clock.TIME, clock.Password(10, "101010"), "00000001", "bad_password"),
        (OWN, clock.TIME, clock.Password(2, "10101"), "00000001", "bad_password"),
        (OWN, clock.TIME, clock.Password(2, "1010AB"), "00000001", "bad_password"),
        (OWN, clock.TIME, PASSWORD, "1", "bad_password"),
    ],
)
def test_a_clock_is_set_only_as_it_may_be(
    address: str, di: str, password: clock.Password, operator: str, code: str
) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        clock.write_clock(address, di, dt.time(1), password=password, operator=operator)
    assert caught.value.code == code
    assert password.digits not in str(caught.value)


# -- what can never be sent

FORBIDDEN = frozenset(range(0x80)) - {0x01, 0x02, 0x08, 0x11, 0x12, 0x13, 0x14}


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for found in pkgutil.iter_modules(protocols.dlt645.__path__):
        module = import_module(f"protocols.dlt645.{found.name}")
        for name, thing in inspect.getmembers(module, callable):
            if not name.startswith("_") and thing.__module__ == module.__name__:
                yield f"{found.name}.{name}", thing


CLEAR = bytes.fromhex("02 000000 01000000")


def candidates(name: str, annotation: object) -> list[Any]:
    """Arguments with which somebody would try to make a frame that clears a meter."""
    by_name: dict[str, list[Any]] = {
        "address": [OWN], "control": [0x1A, 0x9A, 0x5A, 0x3A, 0x19, 0x1B, 0x1C],
        "data": [CLEAR, b""],
        "di": ["0400001A", "04000101", "00010000", "9010", clock.TIME], "payload": [CLEAR],
        "raw": [forged(OWN, 0x1A, CLEAR)], "request": [read_request(OWN, "00010000")],
        "frame": [parse(forged(OWN, 0x1A, CLEAR))], "sequence": [1, 0x1A], "error_byte": [2],
        "when": [clock.MeterTime(dt.date(2026, 1, 1), dt.time(1))], "value": [dt.time(1), CLEAR],
        "password": [PASSWORD], "operator": ["00000001"], "wakeup": [0], "whole": [True],
    }  # fmt: skip
    if name in by_name:
        return by_name[name]
    return [b"\x1a", 0x1A, "1A", None] if "bytes" in str(annotation) else [0x1A, "1A", None]


def frames_in(result: object) -> Iterator[bytes]:
    if isinstance(result, bytes):
        yield result
    elif isinstance(result, list | tuple):
        for one in result:
            yield from frames_in(one)
    elif isinstance(result, ReadRequest | clock.ClockWrite):
        yield result.raw


def test_no_function_makes_a_frame_that_clears_a_meter_or_opens_its_relay() -> None:
    made = 0
    for name, function in public_functions():
        try:
            parameters = inspect.signature(function).parameters
        except ValueError:
            continue
        keywords = [p.name for p in parameters.values() if p.kind is not p.VAR_POSITIONAL]
        choices = [candidates(one, parameters[one].annotation) for one in keywords]
        for values in itertools.islice(itertools.product(*choices), 300):
            try:
                result = function(**dict(zip(keywords, values, strict=True)))
            except Exception:  # noqa: BLE001 - whatever it does not take
                continue
            for raw in frames_in(result):
                bare = raw.lstrip(b"\xfe")
                if len(bare) >= 12 and bare[0] == bare[7] == 0x68:
                    made += bare[8] not in (0x1A, 0x19)
                    assert bare[8] not in FORBIDDEN, (name, values)
    assert made > 20  # the walk did reach what builds frames


@given(st.sampled_from(sorted(FORBIDDEN)), st.binary(max_size=20))
def test_no_other_frame_of_a_master_is_built(control: int, data: bytes) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        build(OWN, control, data)
    assert caught.value.code == "not_sendable"


@given(st.binary(max_size=40))
def test_only_the_clock_is_written(data: bytes) -> None:
    if data[:4] in (
        bytes.fromhex("01010004"),
        bytes.fromhex("02010004"),
        bytes.fromhex("0C010004"),
    ):
        return
    with pytest.raises(LocalProtocolError):
        build(OWN, 0x14, data)
