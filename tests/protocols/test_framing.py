"""Finding frames in a stream."""

import pytest
from dlt645_samples import feeds
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.dlt645.frame import DELIMITER, build
from protocols.framing import Event, FrameFound, Framer, Noise, Rejected

GOOD = build("000000000161", 0x91, bytes.fromhex("0000010026000000"))
OTHER = build("123456789012", 0x91, bytes.fromhex("0000020078563412"))


class CountingDelimiter:
    """Counts how often it is asked and how many bytes it looks at."""

    start = DELIMITER.start

    def __init__(self) -> None:
        self.calls = 0
        self.bytes_seen = 0

    def measure(self, buffer: bytes | bytearray, at: int) -> int | Rejected | None:
        self.calls += 1
        answer = DELIMITER.measure(buffer, at)
        whole = answer if isinstance(answer, int) else 0
        refused = isinstance(answer, Rejected) and answer.reason != "dirt"
        self.bytes_seen += whole or (buffer[at + 9] + 12 if refused else 10)
        return answer


def all_events(pieces: list[bytes], *, idle: bool = True) -> list[Event]:
    framer = Framer(DELIMITER)
    events = [event for piece in pieces for event in framer.feed(piece)]
    return events + (framer.idle() if idle else [])


def found(events: list[Event]) -> list[bytes]:
    return [event.raw for event in events if isinstance(event, FrameFound)]


# Bytes that look like the protocol more often than chance would.
protocol_bytes = st.one_of(
    st.sampled_from([0x68, 0x16, 0xFE, 0x91, 0x00, 0x08, 0xFF]), st.integers(0, 255)
)
streams = st.lists(
    st.one_of(
        st.lists(protocol_bytes, max_size=40).map(bytes),
        st.just(GOOD),
        st.just(OTHER),
        st.just(GOOD[:9]),
        st.just(bytes.fromhex("681122334455666891C8")),
    ),
    max_size=8,
).map(b"".join)


@given(streams, st.lists(st.integers(1, 60), max_size=20), st.booleans(), st.data())
def test_no_byte_is_lost_or_moved(
    stream: bytes, cuts: list[int], ends_idle: bool, data: st.DataObject
) -> None:
    framer = Framer(DELIMITER, buffer_max=data.draw(st.integers(1, 400)))
    events: list[Event] = []
    at = 0
    for cut in [*cuts, len(stream)]:
        piece = stream[at : at + cut]
        bad = data.draw(st.lists(st.integers(0, max(len(piece) - 1, 0)), max_size=2))
        events += framer.feed(piece, bad)
        at += len(piece)
        if data.draw(st.booleans()):
            events += framer.idle()
            assert framer.pending == 0
    if ends_idle:
        events += framer.idle()
    assert b"".join(event.raw for event in events) + framer.pending_bytes == stream
    place = 0
    for event in events:
        assert event.offset == place
        assert event.raw
        place += len(event.raw)
    assert framer.pending == len(framer.pending_bytes)


@given(streams)
def test_frames_found_do_not_depend_on_how_the_bytes_were_cut(stream: bytes) -> None:
    whole, *others = (found(all_events(pieces)) for pieces in feeds(stream))
    assert all(other == whole for other in others)


@given(st.binary(max_size=30).filter(lambda raw: 0x68 not in raw), st.integers(0, 5))
def test_a_good_frame_is_found_behind_any_dirt_without_a_start_byte(dirt: bytes, fe: int) -> None:
    for pieces in feeds(dirt + b"\xfe" * fe + GOOD + dirt):
        assert found(all_events(pieces, idle=False)) == [GOOD]


@given(st.lists(protocol_bytes, max_size=30).map(bytes))
def test_a_good_frame_is_found_behind_any_dirt_once_the_line_is_quiet(dirt: bytes) -> None:
    events = all_events([dirt + GOOD])
    taken_by_chance = any(
        len(event.raw) + event.offset > len(dirt) and event.offset < len(dirt)
        for event in events
        if isinstance(event, FrameFound)
    )
    assert GOOD in found(events) or taken_by_chance


def test_two_frames_in_one_piece_are_both_found() -> None:
    assert found(all_events([GOOD + b"\xfe\xfe" + OTHER])) == [GOOD, OTHER]


def test_search_goes_on_one_byte_behind_a_false_start() -> None:
    # The first start byte is doubled; a jump over the false head would lose the frame.
    assert found(all_events([b"\x68" + GOOD], idle=False)) == [GOOD]


def test_a_false_head_with_a_long_length_gives_up_its_bytes_when_the_line_is_quiet() -> None:
    false_head = bytes.fromhex("681122334455666891C8")
    framer = Framer(DELIMITER)
    assert framer.feed(false_head + GOOD) == []
    assert framer.pending == len(false_head + GOOD)
    assert framer.idle() == [Noise(false_head, "incomplete", 0), FrameFound(GOOD, len(false_head))]
    assert framer.pending == 0


def test_a_bad_frame_is_told_with_its_reason_and_the_next_good_one_is_found() -> None:
    wrong_sum = GOOD[:-2] + bytes([GOOD[-2] ^ 1]) + GOOD[-1:]
    wrong_end = GOOD[:-1] + b"\x17"
    events = all_events([b"\x00" + wrong_sum + wrong_end + GOOD])
    assert events == [
        Noise(b"\x00", "dirt", 0),
        Noise(wrong_sum, "checksum", 1),
        Noise(wrong_end, "end", 21),
        FrameFound(GOOD, 41),
    ]


@pytest.mark.parametrize("place", range(len(GOOD)))
def test_a_frame_with_a_damaged_byte_anywhere_is_noise(place: int) -> None:
    framer = Framer(DELIMITER)
    assert framer.feed(b"\xfe" + GOOD + OTHER, [1 + place]) == [
        Noise(b"\xfe", "dirt", 0),
        Noise(GOOD, "parity", 1),
        FrameFound(OTHER, 21),
    ]


@pytest.mark.parametrize("place", [0, 3, 19])
def test_a_damaged_byte_is_remembered_when_the_frame_comes_in_pieces(place: int) -> None:
    framer = Framer(DELIMITER)
    events: list[Event] = []
    for at in range(len(GOOD)):
        events += framer.feed(GOOD[at : at + 1], [0] if at == place else [])
    assert events == [Noise(GOOD, "parity", 0)]
    assert framer.feed(GOOD) == [FrameFound(GOOD, 20)]


def test_a_damaged_byte_outside_a_frame_spoils_nothing() -> None:
    framer = Framer(DELIMITER)
    assert framer.feed(b"\x00" + GOOD, [0])[-1] == FrameFound(GOOD, 1)


def test_a_cut_frame_with_a_damaged_byte_is_told_as_damaged() -> None:
    framer = Framer(DELIMITER)
    assert framer.feed(GOOD[:15], [9]) == []
    assert framer.idle() == [Noise(GOOD[:15], "parity", 0)]


def test_the_buffer_is_bounded_and_what_overflows_is_told() -> None:
    framer = Framer(DELIMITER, buffer_max=16)
    events: list[Event] = []
    for at in range(0, 200, 5):
        events += framer.feed((GOOD * 10)[at : at + 5])
        assert framer.pending <= 16
    reasons = {event.reason for event in events if isinstance(event, Noise)}
    assert "overflow" in reasons


def test_a_piece_larger_than_the_buffer_is_worked_through() -> None:
    framer = Framer(DELIMITER, buffer_max=64)
    stream = (b"\xfe" * 4 + GOOD) * 50
    assert found(framer.feed(stream) + framer.idle()) == [GOOD] * 50


@pytest.mark.parametrize(
    "stream",
    [
        b"\x68" * 5000,
        GOOD * 250,
        bytes.fromhex("681122334455666891C8") * 500,
        (GOOD[:-2] + b"\x00\x16") * 250,
        b"\xfe" * 5000,
    ],
    ids=["starts", "frames", "long_heads", "bad_sums", "wake_up"],
)
@pytest.mark.parametrize("piece", [1, 7, 5000])
def test_work_grows_with_the_input_and_not_faster(stream: bytes, piece: int) -> None:
    delimiter = CountingDelimiter()
    framer = Framer(delimiter)
    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
    for one in pieces:
        framer.feed(one)
    framer.idle()
    # Each byte can be a start once, each feed asks again for the frame that is pending.
    assert delimiter.calls <= len(stream) + len(pieces) + 1
    longest_frame = 267
    assert delimiter.bytes_seen <= longest_frame * (len(stream) + len(pieces) + 1)


@given(
    st.sampled_from([b"", b"\xfe" * 4, b"\x68", b"\x00\x16", GOOD[:9]]), streams, st.integers(1, 30)
)
def test_a_frame_in_one_piece_is_found_as_in_many(before: bytes, stream: bytes, cut: int) -> None:
    data = before + (stream or GOOD)
    whole, pieces = Framer(DELIMITER), Framer(DELIMITER)
    at_once = whole.feed(data)
    split = [event for at in (data[:cut], data[cut:]) for event in pieces.feed(at)]
    frames = [event for event in split if isinstance(event, FrameFound)]
    assert [event for event in at_once if isinstance(event, FrameFound)] == frames
    assert whole.pending_bytes == pieces.pending_bytes
    assert b"".join(event.raw for event in at_once) == b"".join(event.raw for event in split)


@settings(max_examples=50)
@given(st.binary(max_size=2000))
def test_random_bytes_never_break_it(stream: bytes) -> None:
    events = all_events([stream])
    assert b"".join(event.raw for event in events) == stream


def test_a_framer_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="room"):
        Framer(DELIMITER, buffer_max=0)
