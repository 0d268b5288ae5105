"""The journal's file is taken away or changed under the running daemon: that is noticed."""

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from headend.domain.errors import JournalDamaged, JournalError
from headend.journal import Birth, JournalReader
from headend.journal.presence import Presence
from headend.messages.records import EventRecord
from tests.journal.journal_kit import NOON_MS, Bench, exchange, reading

NOTICED_S = 5.0


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "data" / "journal.db")


def birth(n):
    return Birth((reading(f"{n}.00", time_ms=NOON_MS + n, exchange=exchange(n)),))


async def values(journal):
    found = await journal.read_stream("billing", 1, records_max=1000)
    return [r.value for r in found.records if not isinstance(r, EventRecord)]


async def alarms(journal):
    found = await journal.read_stream("billing", 1, records_max=1000)
    return {
        r.fields["alarm"]: r.fields
        for r in found.records
        if isinstance(r, EventRecord) and r.event == "alarm"
    }


async def noticed(journal):
    """The daemon ends by itself, with nothing to write."""
    with pytest.raises(JournalDamaged):
        async with asyncio.timeout(NOTICED_S):
            await journal.wait_damaged()


def removed(path):
    path.unlink()


def moved_over(path):
    shutil.copyfile(path, path.with_name("other"))
    path.with_name("other").replace(path)


def copied_over(path):
    """`cp OLD journal.db`: the same inode, other bytes."""
    content = path.read_bytes()
    path.write_bytes(content)


def log_removed(path):
    path.with_name(path.name + "-wal").unlink()


def log_replaced(path):
    wal = path.with_name(path.name + "-wal")
    wal.rename(wal.with_name("elsewhere"))
    wal.write_bytes(b"")


def grown(path):
    path.write_bytes(b"another content")


HANDS = (removed, moved_over, copied_over, log_removed, log_replaced)


@pytest.mark.parametrize("hand", HANDS)
async def test_an_idle_daemon_notices_within_seconds_and_ends(bench, hand):
    async with await bench.open() as journal:
        await journal.append(birth(1))
        hand(bench.path)
        await noticed(journal)


@pytest.mark.parametrize("hand", HANDS)
async def test_nothing_is_acknowledged_into_a_file_that_is_not_the_journal_any_more(bench, hand):
    async with await bench.open() as journal:
        await journal.append(birth(1))
        hand(bench.path)
        with pytest.raises(JournalError):
            await journal.append(birth(2))
        with pytest.raises(JournalError):
            await journal.append(birth(3))
        await noticed(journal)


@pytest.mark.parametrize("hand", HANDS)
async def test_the_next_start_tells_it_once_and_begins_a_new_epoch(bench, hand):
    async with await bench.open() as journal:
        epoch = journal.epoch
        await journal.append(birth(1))
        hand(bench.path)
        await noticed(journal)
    async with await bench.open() as journal:
        assert journal.epoch != epoch
        told = (await alarms(journal))["journal_replaced"]
        assert "while the daemon ran" in told["message"]
        epoch = journal.epoch
        await journal.append(birth(9))
    async with await bench.open() as journal:
        assert journal.epoch == epoch
        assert [a for a in await alarms(journal) if a == "journal_replaced"] == ["journal_replaced"]


@pytest.mark.parametrize("hand", [removed, log_removed, log_replaced])
async def test_what_was_committed_is_written_again_when_the_name_is_free_or_the_file_is_ours(
    bench, hand
):
    async with await bench.open() as journal:
        for n in range(50):
            await journal.append(birth(n))
        hand(bench.path)
        await noticed(journal)
    async with await bench.open() as journal:
        assert len(await values(journal)) == 50


async def test_what_was_committed_is_saved_beside_a_file_that_was_put_into_its_place(bench):
    async with await bench.open() as journal:
        await journal.append(birth(1))
    older = bench.path.with_name("older")
    shutil.copyfile(bench.path, older)
    async with await bench.open() as journal:
        await journal.append(birth(2))
        older.replace(bench.path)
        await noticed(journal)
    async with await bench.open() as journal:
        assert await values(journal) == ["1.00"]
        aside = Path((await alarms(journal))["journal_replaced"]["set_aside"])
    with JournalReader(aside) as reader:
        assert [r.value for r in reader.readings()] == ["1.00", "2.00"]


async def test_the_log_of_the_old_file_is_never_applied_to_another(bench):
    async with await bench.open() as journal:
        await journal.append(birth(1))
    older = bench.path.read_bytes()
    async with await bench.open() as journal:
        for n in range(2, 400):
            await journal.append(birth(n))
        bench.path.write_bytes(older)
        await noticed(journal)
    with closing(sqlite3.connect(f"file:{bench.path}?mode=ro", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    async with await bench.open() as journal:
        assert await values(journal) == ["1.00"]


async def test_a_reader_a_backup_and_a_touched_lock_are_no_trouble(bench):
    async with await bench.open() as journal:
        await journal.append(birth(1))
        with JournalReader(bench.path) as reader:
            assert len(list(reader.readings())) == 1
        bench.path.chmod(0o640)
        os.utime(bench.path.with_name(bench.path.name + ".lock"))
        for n in range(2, 6):
            await journal.append(birth(n))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):  # longer than the log takes to be brought home
                await journal.wait_damaged()
        await journal.append(birth(6))


@pytest.mark.parametrize("hand", [removed, moved_over, grown, log_removed, log_replaced])
def test_a_hand_that_comes_while_we_write_is_noticed_all_the_same(tmp_path, hand):
    path = tmp_path / "journal.db"
    for part in ("", "-wal"):
        path.with_name(path.name + part).write_bytes(b"ours")
    presence = Presence(path, long_log_bytes=1000)
    hand(path)
    presence.wrote()
    found = presence.trouble()
    assert found is not None
    assert str(path) in found.text


async def test_a_writer_that_dies_while_it_closes_is_told_and_nobody_waits_for_it(
    bench, monkeypatch
):
    async with await bench.open() as journal:
        await journal.append(birth(1))

        def fail(_presence):
            raise ValueError

        monkeypatch.setattr(Presence, "trouble", fail)
        monkeypatch.setattr("threading.excepthook", lambda _args: None)
        with pytest.raises(JournalError):
            await journal.append(birth(2))
        await noticed(journal)
