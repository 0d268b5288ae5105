"""Frames from third parties, fed in every way bytes can come."""

import struct
from dataclasses import replace
from typing import Any

import pytest
from modbus_samples import READS, answers, asked, events, feeds, frames, raw_of, vector, vectors

from protocols.errors import BadContent, ErrorReply
from protocols.framing import FrameFound, Framer, Match
from protocols.modbus.adu import parse_rtu, parse_tcp
from protocols.modbus.decode import decode
from protocols.modbus.device import build_reply, parse_request, request_delimiter
from protocols.modbus.master import (
    EXCEPTIONS,
    delimiter_for,
    match,
    read_request,
    reply_registers,
)
from protocols.modbus.profile import raw_register

REQUESTS = [one for one in vectors() if one["kind"] == "request" and one["fc"] in READS]
GOOD = [one for one in vectors() if one["kind"] == "response" and one["verdict"] == "ok"]
REFUSALS = [one for one in vectors() if one["verdict"] == "exception" and one["fc"] in READS]
REJECTED = [one for one in vectors() if one["verdict"] == "reject"]
SKIPPED = [one for one in vectors() if one["verdict"] == "ok_after_skip"]
NOISE = bytes.fromhex("00FF0003")
SENTINELS = {"int16": 0x8000, "uint16": 0xFFFF}


def ids(samples: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(one, id=one["id"]) for one in samples]


def is_tcp(sample: dict[str, Any]) -> bool:
    return sample["transport"] == "tcp"


def check_values(sample: dict[str, Any], words: tuple[int, ...]) -> None:
    for row in sample["values"]:
        kind, at = row["type"], row["at"]
        order = row.get("word_order", "big")
        register = raw_register(f"reg:3:0:{kind}:{order}")
        own = words[at : at + register.words]
        value = decode(register, own, apply_ratio=False)
        if kind == "float32":
            order_of = own if order == "big" else own[::-1]
            assert struct.pack(">f", float(str(value))) == struct.pack(">2H", *order_of)
            assert float(str(value)) == pytest.approx(
                row["value"], rel=1e-6
            )  # as the source printed it
        else:
            assert value == row["value"]
        if row.get("missing"):
            marked = replace(register, missing=(SENTINELS[kind],))
            assert decode(marked, own, apply_ratio=False) is None
        if "sf_at" in row:
            power = decode(raw_register("reg:3:0:int16"), (words[row["sf_at"]],), apply_ratio=False)
            assert float(str(value)) * 10.0 ** int(str(power)) == pytest.approx(row["scaled"])


@pytest.mark.parametrize("sample", ids(REQUESTS))
def test_a_request_is_what_the_master_builds_and_the_device_reads(sample: dict[str, Any]) -> None:
    raw = raw_of(sample)
    read = parse_request(raw, tcp=is_tcp(sample))
    assert read is not None
    assert (read.unit, read.function) == (sample["unit"], sample["fc"])
    assert (read.address, read.count) == (sample["addr"], sample["count"])
    assert read.transaction == sample.get("tid")
    built = asked({**sample, "asked": {"addr": sample["addr"]}})
    assert built.raw == raw
    assert match(built, raw) is Match.ECHO


@pytest.mark.parametrize("sample", ids(REQUESTS))
def test_a_device_finds_its_request_however_the_bytes_come(sample: dict[str, Any]) -> None:
    raw = raw_of(sample)
    for before in (b"", b"\x00", b"\x00\x00", bytes((sample["unit"],))):
        if before and is_tcp(sample):
            continue
        for pieces in feeds(before + raw):
            framer = Framer(request_delimiter(tcp=is_tcp(sample)))
            found = [event for piece in pieces for event in framer.feed(piece)]
            assert frames(found) == [raw]


@pytest.mark.parametrize("sample", ids(GOOD))
def test_a_reply_gives_its_values_however_the_bytes_come(sample: dict[str, Any]) -> None:
    raw, request = raw_of(sample), asked(sample)
    for before in (b"", NOISE):
        for behind in (b"", NOISE, raw):
            for pieces in feeds(before + raw + behind):
                first = next(
                    found for kind, found in answers(request, pieces) if kind is Match.REPLY
                )
                assert first == raw
    check_values(sample, reply_registers(request, raw))


@pytest.mark.parametrize("sample", ids([one for one in GOOD if not is_tcp(one)]))
def test_a_reply_behind_one_byte_of_noise_needs_no_silence(sample: dict[str, Any]) -> None:
    """The line's turning round gives such a byte; any value of it, before any reply."""
    raw, request = raw_of(sample), asked(sample)
    for noise in range(256):
        for pieces in feeds(bytes((noise,)) + raw):
            assert answers(request, pieces, idle=False) == [(Match.REPLY, raw)]


@pytest.mark.parametrize("sample", ids(GOOD))
def test_a_reply_cut_anywhere_gives_nothing_and_spoils_not_the_next(
    sample: dict[str, Any],
) -> None:
    raw, request = raw_of(sample), asked(sample)
    for cut in range(1, len(raw)):
        framer = Framer(delimiter_for(request))
        assert frames(framer.feed(raw[:cut]) + framer.idle()) == []
        assert framer.pending == 0
        assert framer.feed(raw) == [FrameFound(raw, cut)]


@pytest.mark.parametrize("sample", ids(GOOD))
def test_a_reply_with_one_byte_changed_gives_no_values_on_a_line(sample: dict[str, Any]) -> None:
    if is_tcp(sample):
        return  # TCP has a check of its own below
    raw, request = raw_of(sample), asked(sample)
    for place in range(len(raw)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(raw)
            damaged[place] ^= flip
            found = answers(request, [bytes(damaged)])
            assert all(kind is not Match.REPLY for kind, _ in found)


@pytest.mark.parametrize("sample", ids(REFUSALS))
def test_a_refusal_names_its_exception(sample: dict[str, Any]) -> None:
    raw, request = raw_of(sample), asked(sample)
    for before in (b"", b"\x00"):
        for pieces in feeds(before + raw):
            assert answers(request, pieces, idle=False) == [(Match.REFUSAL, raw)]
    for behind in (NOISE, raw):
        for pieces in feeds(NOISE + raw + behind):
            found = [frame for kind, frame in answers(request, pieces) if kind is Match.REFUSAL]
            assert found[0] == raw
    with pytest.raises(ErrorReply) as caught:
        reply_registers(request, raw)
    assert caught.value.error_byte == sample["exception"]
    assert caught.value.reasons == (EXCEPTIONS[sample["exception"]],)
    assert EXCEPTIONS[sample["exception"]] in str(caught.value)


@pytest.mark.parametrize("sample", ids(REJECTED))
def test_what_is_no_answer_gives_no_values(sample: dict[str, Any]) -> None:
    raw, request = raw_of(sample), asked(sample)
    expected = {
        "wrong_unit": {Match.FOREIGN},
        "wrong_transaction_id": {Match.STALE},
        "echo_of_request": {Match.ECHO},
        "wrong_byte_count": {Match.STALE},
    }.get(sample["reason"])
    for pieces in feeds(raw):
        found = answers(request, pieces)
        if expected is not None:
            assert {kind for kind, _ in found} == expected
        for _, one in found:
            with pytest.raises((BadContent, ErrorReply)):
                reply_registers(request, one)
    # And it never keeps the true answer from being found.
    good = b"".join(frames(events(request, [raw, answer_to(sample)])))
    assert good.endswith(answer_to(sample))


def answer_to(sample: dict[str, Any]) -> bytes:
    request = asked(sample)
    return build_reply(request, range(100, 100 + request.count))


@pytest.mark.parametrize("sample", ids(SKIPPED))
def test_a_reply_behind_noise_or_echo_is_found_where_it_stands(sample: dict[str, Any]) -> None:
    raw, request = raw_of(sample), asked(sample)
    wanted = raw[sample["skip"] : len(raw) - sample.get("trailing", 0)]
    for pieces in feeds(raw):
        found = answers(request, pieces, idle=False)
        assert (Match.REPLY, wanted) == found[-1]
    check_values(sample, reply_registers(request, wanted))


def test_a_reply_with_a_byte_count_that_contradicts_its_length_settles_a_tcp_request() -> None:
    sample = vector("tcp-neg-bytecount")
    request = asked(sample)
    assert match(request, raw_of(sample)) is Match.REPLY  # nothing better will come
    with pytest.raises(BadContent) as caught:
        reply_registers(request, raw_of(sample))
    assert caught.value.code == "wrong_count"


@pytest.mark.parametrize("name", ["rtu-wr-fc16", "rtu-exc1", "tcp-exc1"])
def test_frames_of_functions_that_are_not_used_are_whole_and_answer_nothing(name: str) -> None:
    sample = vector(name)
    raw = raw_of(sample)
    if is_tcp(sample):
        unit, pdu = (frame := parse_tcp(raw)).unit, frame.pdu
        assert frame.transaction == sample["tid"]
    else:
        unit, pdu = (line := parse_rtu(raw)).unit, line.pdu
        assert line.crc_ok is sample["checksum_ok"]
    assert unit == sample["unit"]
    assert pdu[0] & 0x7F == sample["fc"]
    if sample["verdict"] == "exception":
        assert pdu[0] & 0x80
        assert pdu[1] == sample["exception"]
    request = read_request(unit, 3, 0, 2, transaction=sample.get("tid"))
    for pieces in feeds(raw):
        assert all(kind not in (Match.REPLY, Match.REFUSAL) for kind, _ in answers(request, pieces))


def test_every_read_of_the_collection_is_looked_at() -> None:
    kinds = {id(one) for group in (REQUESTS, GOOD, REFUSALS, REJECTED, SKIPPED) for one in group}
    others = [one["id"] for one in vectors() if id(one) not in kinds]
    assert others == ["rtu-wr-fc16", "rtu-exc1", "tcp-exc1"]  # a write, and functions not used
