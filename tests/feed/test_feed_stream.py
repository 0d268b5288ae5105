"""The send position of a stream: a model of the rules, driven by random histories."""

from hypothesis import given, settings
from hypothesis import strategies as st

from headend.feed.stream import Position, ReceiptIs, ResumeIs, Stream


def make(window_batches=3, window_records=30, timeout_s=10.0, gap_s=1.0):
    return Stream(
        "billing",
        window_batches=window_batches,
        window_records=window_records,
        receipt_timeout_s=timeout_s,
        resume_gap_s=gap_s,
    )


def send(stream, at, now, most=10):
    room = min(stream.room(at), most)
    if room:
        last = min(stream.next_seq + room - 1, at.last_seq)
        stream.sent(last, last - stream.next_seq + 1, now)
    return room


def test_receipt_counts_only_at_the_end_of_a_batch_that_was_sent():
    stream, at = make(), Position(25, 0, 1)
    stream.begin(at, 0.0)
    while send(stream, at, 0.0):
        pass
    assert stream.receipt(11, at, 0.0) is ReceiptIs.NOT_SENT
    assert stream.receipt(26, at, 0.0) is ReceiptIs.BEYOND
    assert stream.receipt(20, at, 0.0) is ReceiptIs.PROGRESS
    at = at._replace(receipted_seq=20)
    assert stream.receipt(20, at, 0.0) is ReceiptIs.REPEAT
    assert stream.receipt(10, at, 0.0) is ReceiptIs.REPEAT
    assert stream.receipt(25, at, 0.0) is ReceiptIs.PROGRESS


def test_nothing_is_overdue_when_nothing_is_out():
    stream = make()
    at = Position(20, 20, 1)
    stream.begin(at, 0.0)
    assert stream.wake_at(at) is None
    assert not stream.is_overdue(at, 1e9)
    at = Position(21, 20, 1)
    send(stream, at, 500.0)
    assert stream.wake_at(at) == 510.0
    assert not stream.is_overdue(at, 509.9)
    assert stream.is_overdue(at, 510.0)


def test_probing_sends_one_batch_until_a_receipt_comes():
    stream, at = make(), Position(100, 0, 1)
    stream.begin(at, 0.0, probing=True)
    assert send(stream, at, 0.0)
    assert stream.room(at) == 0
    assert stream.receipt(10, at, 1.0) is ReceiptIs.PROGRESS
    at = at._replace(receipted_seq=10)
    assert send(stream, at, 1.0)
    assert send(stream, at, 1.0)


def test_records_window_holds_even_when_batches_have_room():
    stream, at = make(window_batches=100, window_records=25), Position(1000, 0, 1)
    stream.begin(at, 0.0)
    while send(stream, at, 0.0):
        pass
    assert stream.next_seq == 26


def test_resume_is_judged_and_the_latest_wins_within_the_gap():
    stream, at = make(), Position(50, 30, 5)
    stream.begin(at, 0.0)
    assert stream.resume(52, at) is ResumeIs.BEYOND
    assert stream.resume(4, at) is ResumeIs.TOO_OLD
    assert stream.resume(5, at) is ResumeIs.FOLLOWED
    assert stream.room(at) == 0  # nothing more from the old place
    assert stream.follow(10.0)
    assert stream.next_seq == 5
    assert stream.resume(7, at) is ResumeIs.FOLLOWED
    assert stream.resume(9, at) is ResumeIs.FOLLOWED
    assert not stream.follow(10.5)
    assert stream.wake_at(at) == 11.0
    assert stream.follow(11.0)
    assert stream.next_seq == 9


def test_resume_to_the_end_still_ends_in_a_receipt():
    """The consumer holds all, the cursor does not know: after the stated time it is asked again."""
    stream, at = make(), Position(50, 30, 1)
    stream.begin(at, 0.0)
    stream.resume(51, at)
    stream.follow(5.0)
    assert stream.room(at) == 0
    assert stream.is_overdue(at, 15.0)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 15)),
        st.tuples(st.just("send"), st.integers(1, 12)),
        st.tuples(st.just("deliver"), st.booleans()),
        st.tuples(st.just("receipt"), st.booleans()),
        st.tuples(st.just("resume"), st.integers(0, 60)),
        st.tuples(st.just("reconnect"), st.none()),
        st.tuples(st.just("wait"), st.integers(1, 12)),
    ),
    max_size=120,
)


class Model:
    """A stream, a wire that may lose, and a consumer that keeps everything in order."""

    def __init__(self):
        self.stream = make()
        self.last = self.cursor = self.held = 0
        self.now = 0.0
        self.wire, self.receipts = [], []
        self.stream.begin(self.at, self.now)

    @property
    def at(self):
        return Position(self.last, self.cursor, 1)

    def do(self, kind, arg):
        getattr(self, kind)(arg)
        assert self.cursor <= self.held <= self.last
        assert self.stream._out_records <= 30

    def append(self, count):
        self.last += count

    def send(self, most):
        if self.stream.is_overdue(self.at, self.now):
            self.stream.begin(self.at, self.now, probing=True)
        self.stream.follow(self.now)
        first = self.stream.next_seq
        if send(self.stream, self.at, self.now, most):
            self.wire.append((first, self.stream.next_seq - 1))

    def deliver(self, arrives):
        if not self.wire:
            return
        first, end = self.wire.pop(0)
        if arrives and first > self.held + 1:
            assert self.stream.resume(self.held + 1, self.at) is ResumeIs.FOLLOWED
        elif arrives:
            self.held = max(self.held, end)
            self.receipts.append(end)

    def receipt(self, arrives):
        if not self.receipts:
            return
        through = self.receipts.pop(0)
        if arrives and self.stream.receipt(through, self.at, self.now) is ReceiptIs.PROGRESS:
            assert through > self.cursor
            self.cursor = through

    def resume(self, seq):
        self.stream.resume(min(seq, self.held) + 1, self.at)

    def reconnect(self, _arg):
        self.wire.clear()
        self.receipts.clear()
        self.stream.begin(self.at, self.now)

    def wait(self, seconds):
        self.now += seconds


@settings(max_examples=300, deadline=None)
@given(steps)
def test_cursor_never_passes_what_the_consumer_holds_and_everything_arrives(history):
    model = Model()
    for kind, arg in history:
        model.do(kind, arg)
    for _ in range(400):  # from here on nothing is lost any more
        for kind, arg in (("send", 10), ("deliver", True), ("receipt", True), ("wait", 4)):
            model.do(kind, arg)
    assert model.cursor == model.held == model.last
