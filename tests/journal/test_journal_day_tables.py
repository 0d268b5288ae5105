"""Old days leave the file piece by piece: no reading waits, none comes back, the file is reused."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from headend.journal import Birth, Journal, JournalReader, RecordClass, disposal, schema
from headend.journal.retention import Retention
from headend.messages.records import ExpiredRecord
from tests.journal.journal_kit import DAY_MS, NOON_MS, Bench, exchange, reading

AFTER = date(2026, 3, 2)
COUNT = 300


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(disposal, "ROWS_AT_ONCE", 20)
    return Bench(tmp_path / "journal.db")


async def fill(journal: Journal) -> None:
    """A big day, receipted by all."""
    await journal.append_many(
        [
            Birth((reading(f"{n}.00", time_ms=NOON_MS + 1000 * n, exchange=exchange(n)),))
            for n in range(COUNT)
        ]
    )
    for consumer in ("billing", "board"):
        await journal.receipt(consumer, COUNT)


def day_tables_in(path: Path) -> set[str]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        names = db.execute("SELECT name FROM sqlite_master WHERE type='table'")
        return {name for (name,) in names if schema.DAY_TABLE.match(name)}


async def values(path: Path) -> list[str | None]:
    with JournalReader(path) as reader:
        return [r.value for r in reader.readings()]


async def half_dropped(bench: Bench) -> None:
    """The day has been dropped and a part of its pages is free; then the process has ended."""
    async with await bench.open() as journal:
        await fill(journal)
        bench.clock.ms += 400 * DAY_MS
        pieces = 0
        free_some = disposal.free_some

        def some(group):
            nonlocal pieces
            pieces += 1
            if pieces > 5:
                raise ValueError("the power goes here")
            return free_some(group)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("headend.journal.journal.free_some", some)
            with pytest.raises(ValueError, match="the power"):
                await journal.drop_days_before(AFTER, RecordClass.BILLING)
    assert "rb_20260301" in day_tables_in(bench.path)


async def test_a_big_day_is_freed_in_pieces_and_readings_are_committed_in_between(bench: Bench):
    async with await bench.open() as journal:
        await fill(journal)
        bench.clock.ms += 400 * DAY_MS
        before = journal.statistics["commits"]
        drop = asyncio.create_task(journal.drop_days_before(AFTER, RecordClass.BILLING))
        between = 0
        while not drop.done():
            at_ms = bench.clock.ms + between
            one = reading("1.00", time_ms=at_ms, exchange=exchange(1, at_ms=at_ms))
            await journal.append(Birth((one,)))
            between += not drop.done()
        assert await drop == [date(2026, 3, 1)]
        # Readings, attempts and two indexes: twenty rows of either at a time.
        assert journal.statistics["commits"] - before > 2 * COUNT // 20
        assert between > 10
    assert not {t for t in day_tables_in(bench.path) if t.endswith("20260301")}


async def test_a_day_that_is_gone_is_gone_at_once_and_stays_gone_after_a_crash(bench: Bench):
    await half_dropped(bench)
    assert await values(bench.path) == []
    async with await bench.open() as journal:
        found = await journal.read_stream("billing", 1, records_max=1000)
        assert [type(r) for r in found.records] == [ExpiredRecord]
        assert await values(bench.path) == []


async def test_a_start_goes_on_freeing_where_the_one_before_ended(bench: Bench):
    await half_dropped(bench)
    async with await bench.open() as journal:
        assert await journal.drop_days_before(AFTER, RecordClass.TELEMETRY) == []
    assert day_tables_in(bench.path) == {"s_20260301"}  # the stream's own is still written
    with closing(sqlite3.connect(bench.path)) as db:
        assert db.execute("SELECT count(*) FROM meta WHERE key='gone'").fetchone() == (0,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_reading_for_a_day_that_is_half_gone_is_kept_and_stands_alone(bench: Bench):
    await half_dropped(bench)
    async with await bench.open() as journal:
        late = reading("7.00", time_ms=NOON_MS, exchange=exchange(5))
        (appended,) = await journal.append(Birth((late,)))
        assert appended.new
        await journal.drop_days_before(date(2026, 2, 1), RecordClass.BILLING)
        assert await values(bench.path) == ["7.00"]
        (again,) = await journal.append(Birth((late,)))
        assert again == (appended.read_id, 1, False)


async def test_over_two_months_the_file_stops_growing(tmp_path: Path):
    """Telemetry is kept for ten days, billing values for twenty; pages that are free are used."""
    bench = Bench(tmp_path / "journal.db")
    zone = ZoneInfo("UTC")
    sizes: list[int] = []
    async with await bench.open() as journal:
        retention = Retention(
            journal, zone=zone, clock=bench.clock, billing_days=20, telemetry_days=10
        )
        for day in range(60):
            await one_day(journal, bench.clock.ms)
            for consumer in ("billing", "board"):
                await journal.receipt(consumer, journal.cursors()[consumer].last_seq)
            bench.clock.ms += DAY_MS
            await retention.look()
            with closing(sqlite3.connect(f"{bench.path.as_uri()}?mode=ro", uri=True)) as db:
                sizes.append(db.execute("PRAGMA page_count").fetchone()[0])
            assert day < 25 or len(day_tables_in(bench.path)) < 90
    settled = sizes[25]
    assert sizes[-1] <= settled * 1.05, sizes
    assert settled > 1.5 * sizes[8], "the days hold too little to tell"


async def one_day(journal: Journal, noon_ms: int) -> None:
    births = []
    for n in range(60):
        at_ms = noon_ms + 60_000 * n
        how = exchange(n, at_ms=at_ms)
        births.append(Birth((reading(f"{n}.00", meter=f"M-{n}", time_ms=at_ms, exchange=how),)))
        births += [
            Birth((reading("230.1", point=point, unit="V", time_ms=at_ms, exchange=how),))
            for point in ("voltage_a", "voltage_b", "voltage_c")
        ]
    await journal.append_many(births)
