"""Consumers that come and go while the journal is open."""

import pytest
from journal_kit import BILLING, NOON_MS, Bench, reading

from headend.journal import Birth, ConsumerSpec, UnknownConsumer

SECOND = ConsumerSpec("second", frozenset({"billing"}), max_backlog_days=30)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "journal.db", consumers=(BILLING,))


async def born(journal, *values):
    for index, value in values:
        time_ms = NOON_MS + index * 60_000
        await journal.append(Birth((reading(value, time_ms=time_ms),)))


async def seqs(journal, consumer, from_seq=1):
    found = await journal.read_stream(consumer, from_seq, records_max=100)
    return [record.seq for record in found.records]


async def test_a_consumer_added_while_the_journal_is_open_gets_what_comes_from_then_on(bench):
    async with await bench.open() as journal:
        await born(journal, (0, "1.00"))
        await journal.configure((BILLING, SECOND))
        assert journal.cursors()["second"].last_seq == 0
        await born(journal, (1, "2.00"), (2, "3.00"))
        assert await seqs(journal, "second") == [1, 2]
        assert await seqs(journal, "billing") == [1, 2, 3]


async def test_a_consumer_taken_out_leaves_the_others_alone_and_goes_on_where_it_stopped(bench):
    async with await bench.open() as journal:
        await journal.configure((BILLING, SECOND))
        await born(journal, (0, "1.00"), (1, "2.00"))
        await journal.receipt("second", 1)
        await journal.receipt("billing", 2)
        await journal.configure((BILLING,))
        with pytest.raises(UnknownConsumer):
            await journal.read_stream("second", 1, records_max=1)
        await born(journal, (2, "3.00"))
        assert journal.cursors()["billing"].receipted_seq == 2
        assert await seqs(journal, "billing", 3) == [3]
        await journal.configure((BILLING, SECOND))
        await born(journal, (3, "4.00"))
        cursor = journal.cursors()["second"]
        assert (cursor.receipted_seq, cursor.last_seq) == (1, 3)
        assert await seqs(journal, "second", 2) == [2, 3]
    async with await bench.open() as journal:
        assert set(journal.cursors()) == {"billing"}


async def test_a_callback_that_was_taken_back_is_not_called_again(bench):
    calls = []
    async with await bench.open() as journal:
        note = calls.append

        def told():
            note(1)

        journal.on_append(told)
        await born(journal, (0, "1.00"))
        journal.off_append(told)
        await born(journal, (1, "2.00"))
    assert calls == [1]
