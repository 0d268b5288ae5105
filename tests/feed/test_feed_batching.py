"""Messages that fit: split where they must be, whole in what they carry, short of no record."""

import logging

import pytest
from feed_bench import (
    HEADEND,
    Consumer,
    FakeJournal,
    evidence,
    make_publisher,
    read_record,
    running,
)

from headend.domain.errors import FeedError
from headend.feed.batching import encoded_batches
from headend.messages.log_limit import LogLimit
from headend.messages.records import MESSAGE_BYTES_MAX, EventRecord, ExpiredRecord, decode_batch
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import eventually

EPOCH = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


def batches(first_seq, records, exchanges=()):
    parts = list(encoded_batches(HEADEND, EPOCH, "billing", first_seq, records, exchanges))
    decoded = [decode_batch(part.payload) for part in parts]
    for part, batch in zip(parts, decoded, strict=True):
        assert len(part.payload) <= MESSAGE_BYTES_MAX
        assert (part.last_seq, part.records) == (batch.last_seq, len(batch.records))
    return decoded


def test_nothing_makes_no_message():
    assert batches(1, []) == []


def test_what_fits_is_one_message():
    records = [read_record(seq) for seq in range(5, 205)]
    (one,) = batches(5, records, [evidence(f"x{seq}") for seq in range(5, 205)])
    assert one.records == records
    assert len(one.exchanges) == 200


def test_what_does_not_fit_is_split_without_a_hole_and_each_part_has_its_exchanges():
    records = [ExpiredRecord(first_seq=1, last_seq=9)]
    records += [read_record(seq) for seq in range(10, 1010)]
    parts = batches(1, records, [evidence(f"x{seq}") for seq in range(10, 1010)])
    assert len(parts) > 2
    assert [r for part in parts for r in part.records] == records
    assert [p.first_seq for p in parts[1:]] == [p.last_seq + 1 for p in parts[:-1]]
    for part in parts:
        refs = {r.evidence for r in part.records if not isinstance(r, ExpiredRecord)}
        assert {e.ref for e in part.exchanges} == refs


def test_record_whose_frames_are_too_large_goes_without_them():
    long = evidence("x1")
    long.reply = "00" * 150_000
    (one,) = batches(1, [read_record(1)], [long])
    assert one.exchanges == []


def too_large(seq):
    return EventRecord(
        seq=seq, event="alarm", at="2026-11-25T00:00:00Z", fields={"alarm": "x" * 300_000}
    )


def test_record_that_can_never_fit_is_an_error_not_a_hole():
    with pytest.raises(FeedError) as refused:
        batches(1, [read_record(1), too_large(2), read_record(3)])
    assert refused.value.code == "too_large"


async def test_stream_that_cannot_go_on_stands_still_with_an_alarm_and_the_others_go_on(tmp_path):
    journal = FakeJournal("billing", "archive")
    journal.write(3)
    journal.streams["billing"].records.append(too_large(4))
    with Mosquitto(tmp_path / "mosquitto") as broker:
        billing, archive = Consumer(broker.spec()), Consumer(broker.spec(), "archive")
        async with running(billing, archive, make_publisher(journal, broker.spec())):
            await eventually(lambda: journal.streams["billing"].receipted == 3)
            await eventually(lambda: journal.alarms() == ["feed_stopped"])
            await eventually(lambda: journal.streams["archive"].receipted == 4)
    assert "record 4" in journal.events[0].fields["reason"]


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now_s = 100.0

    def now_ms(self):
        return int(self.now_s * 1000)

    def monotonic(self):
        return self.now_s


def test_repeated_message_is_logged_once_a_minute_with_its_count(caplog):
    clock = Clock()
    limit = LogLimit(logging.getLogger("test"), clock)
    for _ in range(5):
        limit.warning("a", "first %d", 1)
    limit.warning("b", "other")
    clock.now_s += 60
    limit.warning("a", "first %d", 2)
    limit.warning("a", "first %d", 3)
    limit.forget("a")
    limit.warning("a", "first %d", 4)
    assert caplog.messages == ["first 1", "other", "first 2 repeated=4", "first 4"]


def test_kinds_that_are_remembered_are_bounded(caplog):
    limit = LogLimit(logging.getLogger("test"), Clock())
    for number in range(1000):
        limit.warning(number, "x")
    assert len(limit._seen) <= 256
