"""Damaged files, full disks, kill -9, other schemas: reading goes on and nothing is hidden."""

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from journal_kit import DAY_MS, NOON_MS, Bench, exchange, reading

from headend.domain.errors import JournalDamaged, JournalError, JournalFull
from headend.domain.meter import Event
from headend.journal import Birth, JournalReader, SchemaNewer
from headend.journal.errors import Shed
from headend.messages.records import EventRecord

DATA = Path(__file__).parents[1] / "data"
HERE = Path(__file__).parent


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "journal.db")


async def fill(bench, count=300):
    async with await bench.open() as journal:
        await journal.append_many(
            [
                Birth((reading(f"{n}.00", meter=f"M-{n:04d}", exchange=exchange(n)),))
                for n in range(count)
            ]
        )
        return journal.epoch


async def everything(journal, consumer="billing"):
    found = []
    while True:
        more = await journal.read_stream(consumer, len(found) + 1, records_max=100_000)
        if not more.records:
            return found
        found += more.records


def truncated(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def garbage_in_the_middle(path):
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096 * 6)
        file.write(os.urandom(min(size - 4096 * 8, 40_000)))


def no_database(path):
    path.write_bytes(b"readings,2026\n" * 500)


def header_gone(path):
    with path.open("r+b") as file:
        file.write(bytes(100))


def another_program(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
        other.execute("PRAGMA application_id=77")
        other.commit()


def log_without_its_file(path):
    path.with_name("journal.db-wal").write_bytes(os.urandom(5000))
    path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        garbage_in_the_middle,
        no_database,
        header_gone,
        another_program,
        log_without_its_file,
    ],
)
async def test_a_damaged_journal_is_set_aside_and_reading_goes_on(bench, damage):
    epoch = await fill(bench)
    damage(bench.path)
    before = bench.path.read_bytes() if bench.path.exists() else None
    async with await bench.open() as journal:
        assert journal.epoch != epoch
        (alarm,) = await everything(journal)
        assert isinstance(alarm, EventRecord)
        assert alarm.fields["alarm"] == "journal_damaged"
        aside = Path(alarm.fields["set_aside"])
        assert re.fullmatch(r"journal\.db\.damaged-20260301T120000Z", aside.name)
        assert aside.name in alarm.fields["message"]
        assert ".recover" in alarm.fields["message"]
        if before is not None:
            assert aside.read_bytes() == before  # noqa: ASYNC240
        await journal.append(Birth((reading(),)))
        assert len(await everything(journal)) == 2
    async with await bench.open() as journal:
        assert len(await everything(journal)) == 2


async def test_a_second_damage_does_not_overwrite_the_first(bench):
    for _ in range(2):
        await fill(bench, 20)
        no_database(bench.path)
    async with await bench.open():
        pass
    aside = sorted(p.name for p in bench.path.parent.glob("*.damaged-*"))
    assert aside == [
        "journal.db.damaged-20260301T120000Z",
        "journal.db.damaged-20260301T120000Z.2",
    ]


def left_behind(bench, into):
    """The files as a process that is killed now would leave them."""
    into.mkdir()
    for part in bench.path.parent.glob("journal.db*"):
        if not part.name.endswith(".lock"):
            shutil.copyfile(part, into / part.name)
    return Bench(into / "journal.db")


async def test_a_log_that_lost_its_end_keeps_what_is_whole_under_a_new_epoch(bench, tmp_path):
    async with await bench.open() as journal:
        for n in range(12):
            await journal.append(Birth((reading(f"{n}.00", time_ms=NOON_MS + n),)))
        epoch = journal.epoch
        copy = left_behind(bench, tmp_path / "copy")
    wal = copy.path.with_name("journal.db-wal")
    size = wal.stat().st_size
    with wal.open("r+b") as file:
        file.seek(size * 2 // 3)
        file.write(os.urandom(64))
    async with await copy.open() as journal:
        assert journal.epoch != epoch
        found = await everything(journal)
        alarms = {r.fields["alarm"]: r for r in found if isinstance(r, EventRecord)}
        assert set(alarms) == {"new_epoch", "journal_log_damaged"}
        aside = Path(alarms["journal_log_damaged"].fields["set_aside"])
        assert aside.stat().st_size == size  # noqa: ASYNC240
        kept = [r.value for r in found if not isinstance(r, EventRecord)]
        assert kept == [f"{n}.00" for n in range(len(kept))]
        assert 0 < len(kept) < 12
        await journal.append(Birth((reading("99.00", meter="M-9"),)))


async def test_a_log_whose_header_is_gone_is_noticed(bench, tmp_path):
    async with await bench.open() as journal:
        for n in range(5):
            await journal.append(Birth((reading(f"{n}.00", time_ms=NOON_MS + n),)))
        copy = left_behind(bench, tmp_path / "copy")
    with copy.path.with_name("journal.db-wal").open("r+b") as file:
        file.write(bytes(32))
    async with await copy.open() as journal:
        found = await everything(journal)
        assert any(isinstance(r, EventRecord) for r in found)


async def test_a_log_cut_in_its_last_commit_is_no_damage(bench, tmp_path):
    async with await bench.open() as journal:
        for n in range(6):
            await journal.append(Birth((reading(f"{n}.00", time_ms=NOON_MS + n),)))
        epoch = journal.epoch
        copy = left_behind(bench, tmp_path / "copy")
    wal = copy.path.with_name("journal.db-wal")
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size - 100)
    async with await copy.open() as journal:
        assert journal.epoch == epoch
        assert [r.value for r in await everything(journal)] == [f"{n}.00" for n in range(5)]


async def test_a_newer_schema_is_refused_and_left_alone(bench):
    await fill(bench, 5)
    with closing(sqlite3.connect(bench.path)) as newer:
        newer.execute("PRAGMA user_version=99")
        newer.commit()
    before = bench.path.read_bytes()
    with pytest.raises(SchemaNewer, match="schema 99"):
        await bench.open()
    assert bench.path.read_bytes() == before
    assert not list(bench.path.parent.glob("*.damaged*"))
    with pytest.raises(JournalError, match="schema 99"):
        JournalReader(bench.path)


async def test_a_crash_during_the_very_first_start_is_no_damage(bench):
    with closing(sqlite3.connect(bench.path)) as begun:
        begun.execute("PRAGMA journal_mode=WAL")
    async with await bench.open() as journal:
        assert await everything(journal) == []


# -- kill -9


async def test_kill_9_loses_no_acknowledged_append(bench):
    acknowledged: list[str] = []
    for round_number in range(4):
        child = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / "journal_child.py"), str(bench.path), str(round_number),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            for _ in range(40 + 25 * round_number):
                line = (await child.stdout.readline()).decode().strip()
                assert line
                acknowledged.append(line)
        finally:
            child.send_signal(signal.SIGKILL)
            rest = (await child.stdout.read()).decode().splitlines(keepends=True)
            acknowledged += [line.strip() for line in rest if line.endswith("\n")]
            await child.wait()
        async with await bench.open() as journal:
            found = await everything(journal)
            assert [r.seq for r in found] == list(range(1, len(found) + 1))
            ids = [r.read_id for r in found]
            assert len(set(ids)) == len(ids)
            assert set(acknowledged) <= set(ids)


# -- disk full


def telemetry(n):
    return Birth((reading(f"{n}.1", point="voltage_a", unit="V", time_ms=NOON_MS + n),))


def billing(n):
    return Birth((reading(f"{n}.00", time_ms=NOON_MS + n),))


async def test_telemetry_is_shed_before_billing_and_all_works_again(bench):
    bench.settings = {"reserve_bytes_telemetry": 1000, "reserve_bytes_billing": 100}
    async with await bench.open() as journal:
        await journal.append(telemetry(1))
        bench.disk.free = 500
        with pytest.raises(JournalFull, match="telemetry is refused"):
            await journal.append(telemetry(2))
        await journal.append(billing(1))
        with pytest.raises(Shed) as caught:
            await journal.append_many([billing(2), telemetry(3), billing(3)])
        assert [a is None for a in caught.value.appended] == [False, True, False]
        bench.disk.free = 50
        with pytest.raises(JournalFull, match="everything is refused"):
            await journal.append(billing(4))
        with pytest.raises(JournalFull):
            await journal.append_event(Event("reset", NOON_MS, {}))
        await journal.receipt("billing", 2)
        assert journal.statistics["refused_telemetry"] == 2
        assert journal.statistics["refused_billing"] == 1
        bench.disk.free = 5000
        await journal.append(billing(5))
        await journal.append(telemetry(5))
        found = await everything(journal, "board")
        alarms = [(r.event, r.fields["level"]) for r in found if isinstance(r, EventRecord)]
        assert alarms == [
            ("alarm", "low"),
            ("alarm", "full"),
            ("alarm_cleared", "ok"),
        ]
        values = [r.value for r in found if not isinstance(r, EventRecord)]
        assert values == ["1.1", "1.00", "2.00", "3.00", "5.00", "5.1"]
    async with await bench.open() as journal:
        assert await everything(journal, "board") == found
        assert journal.cursors()["billing"].receipted_seq == 2


async def test_the_level_is_not_left_at_its_very_edge(bench):
    bench.settings = {"reserve_bytes_telemetry": 1000, "reserve_bytes_billing": 100}
    async with await bench.open() as journal:
        for free in (999, 1001, 999, 1001):
            bench.disk.free = free
            await journal.append(billing(free))
            with pytest.raises(JournalFull):
                await journal.append(telemetry(free))
        bench.disk.free = 1200
        await journal.append(telemetry(9))
        found = await everything(journal, "board")
        assert sum(isinstance(r, EventRecord) for r in found) == 2


async def test_when_sqlite_itself_runs_out_nothing_is_half_written(bench):
    async with await bench.open() as journal:
        await journal.append(billing(0))
        connection = journal._writer.connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages + 2}").fetchone()
        kept, refused, n = 1, 0, 0
        while refused < 3:
            n += 1
            births = [billing(n * 1000 + i) for i in range(50)]
            try:
                await journal.append_many(births)
                kept += 50
            except JournalFull:
                refused += 1
        found = await everything(journal)
        readings = [r for r in found if not isinstance(r, EventRecord)]
        assert len(readings) == kept
        assert [r.seq for r in found] == list(range(1, len(found) + 1))
        connection.execute("PRAGMA max_page_count=1000000").fetchone()
        await journal.append_many([billing(10**6), telemetry(10**6)])
        events = [r for r in await everything(journal) if isinstance(r, EventRecord)]
        assert [e.event for e in events][-1] == "alarm_cleared"
        assert events[0].event == "alarm"
        board = await everything(journal, "board")
    async with await bench.open() as journal:
        assert await everything(journal, "board") == board
        (sound,) = journal._writer.connection.execute("PRAGMA integrity_check").fetchone()
        assert sound == "ok"


async def test_on_a_full_file_billing_still_finds_room_when_telemetry_is_shed(bench):
    bench.settings = {"full_retry_s": 3600.0}
    async with await bench.open() as journal:
        await journal.append_many([billing(0), telemetry(0)])
        connection = journal._writer.connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages + 6}").fetchone()
        mixed = [billing(1), *(telemetry(n) for n in range(1, 1500))]
        with pytest.raises(Shed) as caught:
            await journal.append_many(mixed)
        assert caught.value.appended[0] is not None
        assert set(caught.value.appended[1:]) == {None}
        values = [r.value for r in await everything(journal) if not isinstance(r, EventRecord)]
        assert values == ["0.00", "1.00"]


# -- damage while running


async def append_again(journal, count):
    for n in range(count):
        await journal.append(Birth((reading(f"{n}.50", meter=f"M-{n:04d}"),)))


async def test_damage_found_while_running_ends_writing_and_the_next_start_sets_aside(bench):
    await fill(bench, 3000)
    async with await bench.open() as journal:
        before = bench.path.stat()
        with bench.path.open("r+b") as file:
            file.seek(4096 * 2)
            file.write(os.urandom(before.st_size - 4096 * 2))
        # A disk that rots changes no file's time.
        os.utime(bench.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(JournalDamaged, match="set aside"):
            await append_again(journal, 3000)
        with pytest.raises(JournalDamaged):
            await journal.append(billing(1))
    bench.clock.ms += DAY_MS
    async with await bench.open() as journal:
        (alarm,) = await everything(journal)
        assert alarm.fields["alarm"] == "journal_damaged"


async def test_a_reader_of_a_damaged_file_says_so(bench):
    await fill(bench, 3000)
    garbage_in_the_middle(bench.path)
    with JournalReader(bench.path) as reader, pytest.raises(JournalDamaged, match="next start"):
        list(reader.readings(all_revisions=True))
