"""Captured frames and hostile streams, fed in every way bytes can come."""

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from dlt645_samples import WAKE_UP, by_id, feeds, forged, frames, negatives, raw_of

from protocols.dlt645.catalogue import lookup
from protocols.dlt645.frame import DELIMITER, build, is_sendable, parse
from protocols.dlt645.items import MeterTime, decode, encode
from protocols.dlt645.master import follow_up, match, read_request, reply_payload
from protocols.dlt645.refusal import REASONS_1997, reasons_of
from protocols.errors import BadContent, ChecksumError, ErrorReply
from protocols.framing import FrameFound, Framer, Match, Noise

DIRT = bytes.fromhex("FEFE00680D0A68FF6816FEFE")  # with start and end bytes in it
SAMPLES = [pytest.param(sample, id=sample["id"]) for sample in frames()]
READ_REPLIES = [
    pytest.param(sample, id=sample["id"])
    for sample in frames()
    if sample["ctrl"] in (0x91, 0x81) and ("values" in sample or "fields" in sample)
]
LOAD_RECORDS = {"x02", "x04", "x05", "x06", "x07"}


def run(pieces: list[bytes]) -> list[FrameFound | Noise]:
    framer = Framer(DELIMITER)
    return [event for piece in pieces for event in framer.feed(piece)] + framer.idle()


def found(events: list[FrameFound | Noise]) -> list[bytes]:
    return [event.raw for event in events if isinstance(event, FrameFound)]


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_is_read_field_by_field_and_built_again(sample: dict[str, Any]) -> None:
    raw = raw_of(sample)
    assert bytes.fromhex(sample["hex"])[: sample["fe"]] == WAKE_UP * sample["fe"]
    if not sample["checksum_ok"]:
        with pytest.raises(ChecksumError):
            parse(raw)
    frame = parse(raw, check=False)
    assert frame.checksum_ok == sample["checksum_ok"]
    assert frame.address == sample["addr"]
    assert frame.control == sample["ctrl"]
    assert frame.data == bytes.fromhex(sample["data"])
    assert len(frame.data) == sample["len"]
    if frame.checksum_ok:
        assert forged(frame.address, frame.control, frame.data) == raw
    if frame.checksum_ok and is_sendable(frame.control, frame.data):
        assert build(frame.address, frame.control, frame.data) == raw


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_is_found_however_its_bytes_come(sample: dict[str, Any]) -> None:
    raw = raw_of(sample)
    expected = [raw] if sample["checksum_ok"] else []
    for before in (b"", WAKE_UP * 4, DIRT):
        for behind in (b"", DIRT, WAKE_UP):
            for pieces in feeds(before + raw + behind):
                assert found(run(pieces)) == expected


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_cut_anywhere_gives_no_frame_and_spoils_not_the_next(
    sample: dict[str, Any],
) -> None:
    raw = raw_of(sample)
    good = build("000000000161", 0x91, bytes.fromhex("0000010026000000"))
    for cut in range(1, len(raw)):
        framer = Framer(DELIMITER)
        events = framer.feed(raw[:cut]) + framer.idle()
        assert found(events) == []
        assert framer.pending == 0
        assert framer.feed(good) == [FrameFound(good, cut)]


@pytest.mark.parametrize("sample", READ_REPLIES)
def test_a_sample_decodes_to_its_values(sample: dict[str, Any]) -> None:
    item = lookup(sample["di"])
    assert item is not None
    payload = parse(raw_of(sample), check=False).data[len(sample["di"]) // 2 :]
    if sample["id"] in LOAD_RECORDS:
        assert item.layout is None
        return
    if sample.get("fields", {}).get("invalid_bcd"):
        with pytest.raises(BadContent) as caught:
            decode(item, payload)
        assert caught.value.code == "not_bcd"
        return
    values = decode(item, payload)
    if "values" in sample:
        assert item.unit == sample.get("unit", "")
        assert [None if v is None else str(v) for v in values] == sample["values"]
        assert item.signed == bool(sample["dec"]["signed"])
    else:
        assert list(values) == expected_fields(sample["fields"])
    assert encode(item, *values) == payload


def expected_fields(fields: dict[str, Any]) -> list[Any]:
    """The values a sample names by field."""
    if "date" in fields:
        return [dt.date.fromisoformat(fields["date"])]
    if "demand_kw" in fields:
        return [Decimal(fields["demand_kw"]), stamp(fields["time"])]
    if "time" in fields:
        return [dt.time.fromisoformat(fields["time"])]
    if "datetime" in fields:
        return [stamp(fields["datetime"])]
    if "status_word" in fields:
        return [f"{fields['status_word']:04X}"]
    return [fields.get("meter_no") or fields["ascii"]]


def stamp(text: str) -> MeterTime:
    day, _, time = text.partition("T")
    return MeterTime(dt.date.fromisoformat(day), dt.time.fromisoformat(time))


@pytest.mark.parametrize("sample", [p for p in SAMPLES if "err" in p.values[0]])
def test_a_refusal_names_its_bits(sample: dict[str, Any]) -> None:
    names = {
        "no_requested_data": "no_data",
        "password_or_unauthorised": "password",
        "baud_not_changeable": "speed",
        "year_zones_exceeded": "year_zones",
        "day_slots_exceeded": "day_slots",
        "tariffs_exceeded": "tariffs",
    }
    if sample["std"] == 1997:
        bits = [int(name.removeprefix("bit")) for name in sample["fields"]["bits_1997"]]
        expected = tuple(REASONS_1997[bit] for bit in bits)
        assert reasons_of(sample["err"], REASONS_1997) == expected
        return
    expected = tuple(names.get(name, name) for name in sample["fields"]["bits"])
    assert reasons_of(sample["err"]) == expected


# n25 delivers a frame whose payload is another length: it has a test of its own below.
NEGATIVES = [pytest.param(case, id=case["id"]) for case in negatives() if case["id"] != "n25"]


def outcome(case: dict[str, Any], pieces: list[bytes]) -> tuple[list[bytes], list[str]]:
    """What reaches the caller of the outstanding request, and why anything else did not."""
    request = read_request(case["asked"]["addr"], case["asked"]["di"])
    if case["asked"]["ctrl"] == 0x12:
        request = follow_up(request, case["asked"]["seq"])
    item = lookup(case["asked"]["di"])
    assert item is not None
    delivered: list[bytes] = []
    reasons: list[str] = []
    for event in run(pieces):
        if isinstance(event, Noise):
            reasons.append(event.reason)
            continue
        kind = match(request, event.raw)
        if kind not in (Match.REPLY, Match.REFUSAL) or delivered:
            reasons.append(kind.value)
            continue
        try:
            decode(item, reply_payload(request, event.raw))
        except (BadContent, ErrorReply) as error:
            reasons.append(error.code)
            if error.code in ("short_data", "long_data", "edition_1997"):
                continue
        delivered.append(event.raw)
    return delivered, reasons


@pytest.mark.parametrize("case", NEGATIVES)
def test_a_hostile_stream_delivers_what_it_must_and_nothing_else(case: dict[str, Any]) -> None:
    samples = by_id()
    expected = [raw_of(samples[name]) for name in case["deliver"]]
    stream = bytes.fromhex(case["hex"])
    for before in (b"", WAKE_UP * 4, DIRT):
        for behind in (b"", b"\x00\x16"):
            for pieces in feeds(before + stream + behind):
                delivered, _ = outcome(case, pieces)
                assert delivered == expected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("n01", "checksum"),
        ("n02", "end"),
        ("n03", "incomplete"),
        ("n04", "checksum"),
        ("n05", "incomplete"),
        ("n06", "incomplete"),
        ("n10", "echo"),
        ("n12", "foreign"),
        ("n13", "stale"),
        ("n15", "refused"),
        ("n17", "not_bcd"),
        ("n20", "short_data"),
        ("n21", "long_data"),
        ("n26", "stale"),
        ("n27", "echo"),
        ("n28", "edition_1997"),
    ],
)
def test_a_hostile_stream_is_told_with_its_reason(name: str, reason: str) -> None:
    case = next(case for case in negatives() if case["id"] == name)
    stream = bytes.fromhex(case["hex"])
    for pieces in feeds(stream):
        _, reasons = outcome(case, pieces)
        assert reason in reasons


def test_a_doubled_start_byte_is_worked_through() -> None:
    case = next(case for case in negatives() if case["id"] == "n25")
    frame = raw_of(by_id()["h03"])
    for pieces in feeds(bytes.fromhex(case["hex"])):
        framer = Framer(DELIMITER)
        events = [event for piece in pieces for event in framer.feed(piece)]
        assert found(events) == [frame]
