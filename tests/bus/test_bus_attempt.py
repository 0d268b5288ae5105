"""The machine of one attempt: how bytes are cut into chunks must not matter."""

from bus_bench_line import answer, ask, frame
from hypothesis import given
from hypothesis import strategies as st

from headend.bus.attempt import Attempt
from headend.domain.exchange import Outcome

REQUEST = ask()
PIECES = st.sampled_from(
    [
        REQUEST.payload,
        REQUEST.payload[:3],
        answer(REQUEST.payload),
        answer(REQUEST.payload)[:4],
        frame("z", "r", 1, b"q"),
        frame("a", "r", 2),
        frame("a", "e", 1),
        b"\x02",
        b"\x55\xfe",
    ]
)


def outcome_of(chunks):
    """Feed chunks of (byte, damaged) and let the time run out."""
    attempt = Attempt(REQUEST, ends_at=1.0, idle_s=0.5, idle_ends=True)
    came = bytearray()
    for chunk in chunks:
        data = bytes(byte for byte, _ in chunk)
        came += data
        if attempt.feed(data, [i for i, (_, damaged) in enumerate(chunk) if damaged], 0.1):
            break
    when = 1.0
    while attempt.outcome is None:
        when = attempt.check(when) or when
    return attempt, bytes(came)


@given(st.lists(PIECES, max_size=6), st.data())
def test_chunk_borders_do_not_change_what_comes_out(pieces, data):
    stream = b"".join(pieces)
    damaged = data.draw(st.sets(st.integers(0, max(0, len(stream) - 1)), max_size=2))
    marked = [(byte, i in damaged) for i, byte in enumerate(stream)]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(marked)), max_size=5)))
    parts = [marked[a:b] for a, b in zip([0, *cuts], [*cuts, len(marked)], strict=True)]
    whole, _ = outcome_of([marked] if marked else [])
    cut, _ = outcome_of([part for part in parts if part])
    single, _ = outcome_of([[pair] for pair in marked])
    for other in (cut, single):
        assert other.outcome is whole.outcome
        assert other.reply == whole.reply
        # one that ended sooner has taken in less of what came behind the answer
        assert whole.stray.startswith(other.stray)


@given(st.lists(PIECES, max_size=6))
def test_every_byte_is_in_the_reply_or_stray(pieces):
    stream = [(byte, False) for byte in b"".join(pieces)]
    attempt, came = outcome_of([[pair] for pair in stream])
    answered = attempt.outcome in (Outcome.REPLY, Outcome.REFUSED)
    kept = bytes(attempt.stray) + (attempt.reply or b"")
    assert sorted(kept) == sorted(came)
    assert answered == (attempt.reply is not None)


@given(st.lists(PIECES, max_size=6), st.data())
def test_a_frame_with_a_damaged_byte_is_never_the_reply(pieces, data):
    stream = b"".join(pieces)
    damaged = data.draw(st.integers(0, max(0, len(stream) - 1)))
    attempt, came = outcome_of([[(byte, i == damaged)] for i, byte in enumerate(stream)])
    if attempt.reply is not None:
        # Behind a false start the reply is found only when the line is quiet, with more behind it.
        size = len(attempt.reply)
        places = [at for at in range(len(came)) if came.startswith(attempt.reply, at)]
        assert any(not at <= damaged < at + size for at in places)
