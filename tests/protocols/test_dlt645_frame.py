"""The DL/T 645 frame: fast reader and writer against the declaration, and their promises."""

import pytest
from dlt645_samples import forged
from hypothesis import example, given
from hypothesis import strategies as st

from protocols.dlt645.frame import (
    DELIMITER,
    Frame645,
    build,
    build_declared,
    is_sendable,
    parse,
    parse_declared,
)
from protocols.errors import ChecksumError, LocalProtocolError, RemoteProtocolError
from protocols.framing import Rejected

START, END = "68", "16"
ADDRESS, CONTROL, LENGTH = "610100000000", "91", "08"
DATA, SUM = "3333343359333333", "8A"
RAW = bytes.fromhex(START + ADDRESS + START + CONTROL + LENGTH + DATA + SUM + END)

addresses = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex().upper())
controls = st.integers(0, 255)
sendable = st.integers(0x80, 0xFF) | st.sampled_from([0x01, 0x02, 0x08, 0x11, 0x12, 0x13])
datas = st.binary(max_size=255)


@st.composite
def nearly_frames(draw: st.DrawFn) -> bytes:
    """Frames, frames with a few bytes changed, cut or doubled, and plain bytes."""
    raw = bytearray(forged(draw(addresses), draw(controls), draw(st.binary(max_size=40))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw) - 1)) if raw else 0
        change = draw(st.sampled_from(["set", "cut", "double", "end"]))
        if change == "set" and raw:
            raw[at] = draw(st.integers(0, 255))
        elif change == "cut":
            del raw[at : at + draw(st.integers(1, 4))]
        elif change == "double" and raw:
            raw.insert(at, raw[at])
        else:
            raw = raw[: len(raw) - 1]
    return bytes(raw)


def test_a_captured_frame_is_read() -> None:
    frame = parse(RAW)
    assert frame == Frame645(
        address="000000000161",
        control=0x91,
        data=bytes.fromhex("0000010026000000"),
        raw=RAW,
        checksum_got=0x8A,
        checksum_expected=0x8A,
    )
    assert (frame.from_meter, frame.refused, frame.more_follows, frame.function) == (
        True,
        False,
        False,
        0x11,
    )


@given(addresses, sendable, datas, st.integers(0, 8))
def test_what_was_built_is_read_back(address: str, control: int, data: bytes, fe: int) -> None:
    raw = build(address, control, data, wakeup=fe)
    assert raw[:fe] == b"\xfe" * fe
    frame = parse(raw[fe:])
    assert (frame.address, frame.control, frame.data) == (address, control, data)
    assert build(frame.address, frame.control, frame.data) == raw[fe:]


@given(addresses, controls, datas)
@example("000000000000", 0, b"")
@example("000000000161", 0x14, bytes.fromhex("0101000402101010111111110410051800"))
def test_the_fast_writer_is_the_declared_one(address: str, control: int, data: bytes) -> None:
    if not is_sendable(control, data):
        for writer in (build, build_declared):
            with pytest.raises(LocalProtocolError):
                writer(address, control, data)
        return
    assert build(address, control, data) == build_declared(address, control, data)
    assert build(address, control, data) == forged(address, control, data)


@given(st.one_of(nearly_frames(), st.binary(max_size=60)))
@example(b"")
@example(RAW)
@example(RAW + b"\x00")
def test_the_fast_reader_is_the_declared_one(raw: bytes) -> None:
    """Equal results where the declaration takes the bytes, an error where it does not."""
    try:
        declared = parse_declared(raw)
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            parse(raw, check=False)
        return
    assert parse(raw, check=False) == declared


@given(st.one_of(nearly_frames(), st.binary(max_size=300)))
def test_the_delimiter_takes_exactly_what_the_reader_takes(raw: bytes) -> None:
    if raw[:1] != DELIMITER.start:
        raw = DELIMITER.start + raw
    measured = DELIMITER.measure(bytearray(raw), 0)
    if isinstance(measured, int):
        assert parse(raw[:measured]).raw == raw[:measured]
        return
    for size in range(len(raw) + 1):
        with pytest.raises(RemoteProtocolError):
            parse(raw[:size])
    if isinstance(measured, Rejected):
        # However much comes behind, it stays no frame.
        again = DELIMITER.measure(bytearray(raw + b"\x16" * 300), 0)
        assert again == measured


@given(st.binary(max_size=300))
def test_random_bytes_give_a_frame_or_our_own_error(raw: bytes) -> None:
    error: RemoteProtocolError | None = None
    try:
        frame = parse(raw)
    except RemoteProtocolError as caught:
        error = caught
    else:
        assert forged(frame.address, frame.control, frame.data) == raw
    if error is not None:
        assert error.raw == raw
        assert error.offset is not None
        assert 0 <= error.offset <= len(raw)


@pytest.mark.parametrize(
    ("raw", "code", "offset"),
    [
        (b"", "truncated", 0),
        (RAW[:5], "truncated", 5),
        (RAW[:-1], "truncated", 19),
        (b"\x00" + RAW[1:], "start", 0),
        (RAW[:7] + b"\x00" + RAW[8:], "start", 7),
        (RAW + b"\x16", "length", 9),
        (RAW[:-1] + b"\x17", "end", 19),
    ],
)
def test_a_misshaped_frame_says_where(raw: bytes, code: str, offset: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse(raw)
    assert (caught.value.code, caught.value.offset) == (code, offset)


def test_a_wrong_checksum_is_refused_but_can_be_held_for_explaining() -> None:
    raw = RAW[:-2] + b"\x8b\x16"
    with pytest.raises(ChecksumError) as caught:
        parse(raw)
    assert (caught.value.got, caught.value.expected, caught.value.offset) == (0x8B, 0x8A, 18)
    frame = parse(raw, check=False)
    assert not frame.checksum_ok
    assert (frame.checksum_got, frame.checksum_expected) == (0x8B, 0x8A)


def test_data_wraps_around_at_a_byte() -> None:
    raw = build("000000000001", 0x11, b"\xff\xcd\x00")
    assert raw[10:13] == b"\x32\x00\x33"
    assert parse(raw).data == b"\xff\xcd\x00"


def test_an_address_that_is_not_decimal_is_read_as_hex_text() -> None:
    assert parse(build("AABB00C0FFEE", 0x11)).address == "AABB00C0FFEE"


@pytest.mark.parametrize(
    "address", ["", "1", "0000000001", "00000000000g", "0000 0000 00", "é" * 12]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        build(address, 0x11)
    assert caught.value.code == "bad_address"


def test_what_does_not_fit_a_frame_is_refused() -> None:
    for control, data, fe in ((256, b"", 0), (-1, b"", 0), (0x11, bytes(256), 0), (0x11, b"", -1)):
        with pytest.raises(LocalProtocolError):
            build("000000000001", control, data, wakeup=fe)
