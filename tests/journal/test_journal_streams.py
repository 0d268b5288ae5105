"""Cursors, receipts, epochs and retention."""

import asyncio
from datetime import date

import pytest
from journal_kit import BILLING, DAY_MS, NOON_MS, Bench, reading

from headend.domain.due import DueKey, DuePoint
from headend.domain.meter import Event
from headend.journal import (
    BelowOldest,
    BeyondJournal,
    Birth,
    ConsumerSpec,
    RecordClass,
    UnknownConsumer,
)
from headend.messages.records import EventRecord, ExpiredRecord


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "journal.db", consumers=(BILLING,))


async def append_days(bench, journal, days, *, point="active_import_total"):
    """One reading a day, read on that day."""
    unit = "V" if point.startswith("voltage") else "kWh"
    for day in days:
        bench.clock.ms = NOON_MS + day * DAY_MS
        await journal.append(
            Birth((reading(f"{100 + day}.00", time_ms=bench.clock.ms, point=point, unit=unit),))
        )


async def records(journal, from_seq=1, consumer="billing"):
    return (await journal.read_stream(consumer, from_seq, records_max=10_000)).records


async def test_receipts_only_move_forward_and_survive_a_restart(bench):
    async with await bench.open() as journal:
        await append_days(bench, journal, range(5))
        await journal.receipt("billing", 4)
        assert journal.cursors()["billing"].receipted_seq == 4
        await journal.receipt("billing", 2)
        assert journal.cursors()["billing"].receipted_seq == 4
        assert journal.cursors()["billing"].backlog == 1
    async with await bench.open() as journal:
        assert journal.cursors()["billing"].receipted_seq == 4
        assert [r.seq for r in await records(journal, 5)] == [5]


async def test_what_is_receipted_can_be_read_again(bench):
    async with await bench.open() as journal:
        await append_days(bench, journal, range(5))
        before = await records(journal)
        await journal.receipt("billing", 5)
        assert await records(journal) == before
        assert await records(journal, 6) == []


async def test_a_receipt_beyond_the_journal_proves_that_it_was_set_back(bench):
    async with await bench.open() as journal:
        await append_days(bench, journal, range(2))
        with pytest.raises(BeyondJournal) as caught:
            await journal.receipt("billing", 3)
        assert (caught.value.seq, caught.value.last_seq) == (3, 2)
        with pytest.raises(BeyondJournal):
            await journal.set_cursor("billing", 4)
        assert journal.cursors()["billing"].receipted_seq == 0


async def test_unknown_consumers_are_refused(bench):
    async with await bench.open() as journal:
        with pytest.raises(UnknownConsumer):
            await journal.receipt("nobody", 1)
        with pytest.raises(UnknownConsumer):
            await journal.read_stream("nobody", 1, records_max=1)


async def test_a_cursor_set_back_replays(bench):
    async with await bench.open() as journal:
        await append_days(bench, journal, range(5))
        await journal.receipt("billing", 5)
        await journal.set_cursor("billing", 2)
        assert journal.cursors()["billing"].receipted_seq == 1
        assert [r.seq for r in await records(journal, 2)] == [2, 3, 4, 5]
        await journal.receipt("billing", 3)
    async with await bench.open() as journal:
        assert journal.cursors()["billing"].receipted_seq == 3


async def test_slices_stop_at_their_bounds_but_never_give_nothing(bench):
    async with await bench.open() as journal:
        await append_days(bench, journal, range(9))
        found = await journal.read_stream("billing", 1, records_max=4)
        assert [r.seq for r in found.records] == [1, 2, 3, 4]
        tiny = await journal.read_stream("billing", 3, records_max=4, bytes_max=10)
        assert [r.seq for r in tiny.records] == [3]
        assert len(tiny.exchanges) == 1
    async with await bench.open() as journal:
        assert await journal.read_stream("billing", 3, records_max=4, bytes_max=10) == tiny


async def test_a_new_epoch_numbers_what_is_unreceipted_from_one(bench):
    async with await bench.open() as journal:
        await asyncio.gather(*(journal.append(Birth((reading(meter=f"M-{n}"),))) for n in range(8)))
        await append_days(bench, journal, range(1, 4))
        kept = await records(journal, 6)
        await journal.receipt("billing", 5)
        before = journal.epoch
        epoch = await journal.new_epoch("a test")
        assert epoch == journal.epoch != before
        assert journal.cursors()["billing"] == (8, 0, 1, False)
        again = await records(journal)
        assert [r.seq for r in again] == list(range(1, 8))
        assert [r.read_id for r in again[:-1]] == [r.read_id for r in kept]
        assert isinstance(again[-1], EventRecord)
        assert again[-1].fields["alarm"] == "new_epoch"
        await journal.append(Birth((reading(meter="M-new"),)))
        await journal.receipt("billing", 8)
    async with await bench.open() as journal:
        assert journal.epoch == epoch
        assert (await records(journal))[:-1] == again
        assert journal.cursors()["billing"].receipted_seq == 8


async def test_a_receipt_of_the_old_epoch_does_not_count_in_the_new_one(bench):
    async with await bench.open() as journal:
        await append_days(bench, journal, range(5))
        changing = asyncio.ensure_future(journal.new_epoch("a test"))
        await asyncio.sleep(0)
        await journal.receipt("billing", 3)
        await changing
        await append_days(bench, journal, [9])
        assert journal.cursors()["billing"].receipted_seq == 0
    async with await bench.open() as journal:
        assert journal.cursors()["billing"].receipted_seq == 0


async def test_retention_waits_for_every_cursor_and_a_replay_is_told_what_is_gone(bench):
    async with await bench.open() as journal:
        await append_days(bench, journal, range(6))
        await journal.receipt("billing", 2)
        limit = date(2026, 3, 5)
        dropped = await journal.drop_days_before(limit, RecordClass.BILLING)
        assert dropped == [date(2026, 3, 1), date(2026, 3, 2)]
        await journal.receipt("billing", 6)
        assert await journal.drop_days_before(limit, RecordClass.BILLING) == [
            date(2026, 3, 3),
            date(2026, 3, 4),
        ]
        cursor = journal.cursors()["billing"]
        assert (cursor.oldest_seq, cursor.last_seq) == (5, 6)
        found = await records(journal)
        assert found[0] == ExpiredRecord(first_seq=1, last_seq=4)
        assert [r.seq for r in found[1:]] == [5, 6]
        with pytest.raises(BelowOldest) as caught:
            await journal.set_cursor("billing", 4)
        assert caught.value.oldest_seq == 5
    async with await bench.open() as journal:
        assert await records(journal) == found
        await append_days(bench, journal, [7])
        assert (await records(journal))[-1].seq == 7


async def test_the_classes_have_retentions_of_their_own(bench):
    bench.consumers = (ConsumerSpec("all", frozenset({"billing", "telemetry"})),)
    async with await bench.open() as journal:
        for day in range(3):
            await append_days(bench, journal, [day])
            await append_days(bench, journal, [day], point="voltage_a")
        await journal.receipt("all", 6)
        await journal.drop_days_before(date(2026, 3, 3), RecordClass.TELEMETRY)
        found = await records(journal, consumer="all")
    gone = [(r.first_seq, r.last_seq) for r in found if isinstance(r, ExpiredRecord)]
    assert gone == [(2, 2), (4, 4)]
    assert len(found) == 6


async def test_a_consumer_away_too_long_is_expired_with_an_alarm(bench):
    bench.consumers = (
        ConsumerSpec("billing", frozenset({"billing", "events"}), max_backlog_days=3),
        ConsumerSpec("slow", frozenset({"billing"}), max_backlog_days=30),
    )
    async with await bench.open() as journal:
        await append_days(bench, journal, range(6))
        assert await journal.drop_days_before(date(2026, 3, 4), RecordClass.BILLING) == []
        assert journal.cursors()["billing"].expired
        assert not journal.cursors()["slow"].expired
        await journal.receipt("slow", 6)
        dropped = await journal.drop_days_before(date(2026, 3, 4), RecordClass.BILLING)
        assert len(dropped) == 3
        found = await records(journal)
        assert found[0] == ExpiredRecord(first_seq=1, last_seq=3)
        alarm = found[-1]
        assert alarm.fields["alarm"] == "consumer_expired"
        assert alarm.fields["consumer"] == "billing"
        await journal.receipt("billing", alarm.seq)
        assert not journal.cursors()["billing"].expired


async def test_numbers_are_never_used_again_after_everything_was_dropped(bench):
    async with await bench.open() as journal:
        await append_days(bench, journal, range(3))
        await journal.receipt("billing", 3)
        bench.clock.ms = NOON_MS + 9 * DAY_MS
        await journal.append_event(Event("reset", bench.clock.ms, {}))
        await journal.receipt("billing", 4)
        await journal.drop_days_before(date(2026, 3, 8), RecordClass.BILLING)
    async with await bench.open() as journal:
        await append_days(bench, journal, [10])
        assert [r.seq for r in await records(journal, 4)] == [4, 5]
        assert (await records(journal))[0] == ExpiredRecord(first_seq=1, last_seq=3)


async def test_due_lists_go_with_their_days_when_they_are_closed(bench):
    async with await bench.open() as journal:
        for n in range(3):
            when = NOON_MS + n * DAY_MS
            key = DueKey("M-1", "active_import_total", when)
            await journal.freeze_due(date(2026, 3, 1 + n), [DuePoint(key, "b", None, when + 1)])
        report = await journal.close_due_day(date(2026, 3, 1))
        await append_days(bench, journal, range(4))
        await journal.receipt("billing", 4)
        await journal.drop_days_before(date(2026, 3, 4), RecordClass.BILLING)
        assert await journal.open_days() == [date(2026, 3, 2), date(2026, 3, 3)]
        assert await journal.close_due_day(date(2026, 3, 1)) == report
