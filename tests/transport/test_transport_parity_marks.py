"""Marks of a tty (FF 00 xx, FF FF) become bytes and the indexes of the damaged ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.transport.parity_marks import MarkDecoder

BYTES_WITH_DAMAGE = st.lists(
    st.tuples(st.sampled_from([0x00, 0x16, 0x68, 0xFE, 0xFF]), st.booleans()), max_size=60
)


def marked(pairs):
    """What a tty makes of bytes and whether each was damaged (termios(3), PARMRK)."""
    out = bytearray()
    for byte, damaged in pairs:
        if damaged:
            out += bytes([0xFF, 0x00, byte])
        elif byte == 0xFF:
            out += b"\xff\xff"
        else:
            out.append(byte)
    return bytes(out)


def decode(chunks):
    decoder = MarkDecoder()
    data, bad = bytearray(), []
    for chunk in chunks:
        part, marks = decoder.feed(chunk)
        bad += [len(data) + index for index in marks]
        data += part
    return bytes(data), bad


@given(BYTES_WITH_DAMAGE)
def test_marks_are_decoded_whole_and_byte_by_byte_alike(pairs):
    stream = marked(pairs)
    expected = bytes(b for b, _ in pairs), [i for i, (_, damaged) in enumerate(pairs) if damaged]
    assert decode([stream]) == expected
    assert decode([bytes([b]) for b in stream]) == expected


@given(BYTES_WITH_DAMAGE, st.data())
def test_marks_are_decoded_across_any_chunk_border(pairs, data):
    stream = marked(pairs)
    cut = data.draw(st.integers(0, len(stream)))
    assert decode([stream[:cut], stream[cut:]]) == decode([stream])


@given(st.binary(max_size=200))
def test_any_input_is_survived_and_holds_back_two_bytes_at_most(stream):
    decoder = MarkDecoder()
    data, bad = decoder.feed(stream)
    assert all(0 <= index < len(data) for index in bad)
    rest, _ = decoder.feed(b"\x01\x02\x03")
    assert len(rest) >= 2


@pytest.mark.parametrize("odd", [b"\xff\x41", b"\xff\x01\x02"])
def test_a_mark_that_no_tty_writes_is_delivered_as_damaged(odd):
    data, bad = MarkDecoder().feed(odd)
    assert data == odd
    assert list(bad) == [0]
