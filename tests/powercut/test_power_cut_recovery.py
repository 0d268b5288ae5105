"""The power goes again while a damaged journal is set aside: nothing of that is forgotten."""

import random
from pathlib import Path

from headend.journal import Journal, JournalReader
from headend.messages.records import EventRecord
from tests.powercut.images import Cut, cuts
from tests.powercut.journal_cuts import Run, laid_out, tell
from tests.powercut.journal_story import (
    CONSUMERS,
    FILE,
    NOON_MS,
    Conditions,
    HandClock,
    an_afternoon,
    open_journal,
    records_of,
    small_things,
)
from tests.powercut.vfs import recording

SEED = 7
LATER_MS = NOON_MS + 3_600_000


async def left_by_a_kill(folder: Path) -> tuple[Run, Cut]:
    """A run, and its disk just before the clean end: the log is full."""
    run = await tell(folder, Conditions(), chapters=(an_afternoon, small_things))
    ops = run.trail.recorder.ops
    last = max(n for n, op in enumerate(ops) if op.kind == "sync" and op.name.endswith("-wal"))
    wal = [n for n in range(last) if ops[n].kind == "write" and ops[n].name.endswith("-wal")]
    (cut,) = [
        c for c in cuts(run.trail.recorder, seed=0, variants=0, at=[wal[-1] + 1]) if not c.nth
    ]
    assert len(cut.image[f"{FILE}-wal"]) > 100_000
    return run, cut


async def second_cuts(run: Run, first: Path, *, variants: int) -> list[Cut]:
    """Cuts through the start that finds the damage, from its first step to a clean end."""
    with recording(first) as recorder:
        async with await open_journal(first, HandClock(LATER_MS)):
            pass
    return [*cuts(recorder, seed=SEED, variants=variants)]


async def alarms_of(journal: Journal) -> list[str]:
    return [
        str(r.fields["alarm"])
        for r in await records_of(journal, "board")
        if isinstance(r, EventRecord) and r.fields["alarm"] != "bus_dead"
    ]


async def test_a_cut_while_a_journal_is_set_aside_neither_hides_nor_loses_it(folder):
    run, cut = await left_by_a_kill(folder)
    damaged = dict(cut.image)
    content = bytearray(damaged[FILE])
    content[:100] = bytes(100)
    damaged[FILE] = bytes(content)
    with laid_out(run, Cut(cut.at, 1, damaged)) as first:
        again = await second_cuts(run, first, variants=2)
    assert len(again) > 100
    for second in again:
        with laid_out(run, second) as disk:
            async with await open_journal(disk, HandClock(LATER_MS + 60_000)) as journal:
                assert journal.epoch not in run.trail.epochs
                assert "journal_damaged" in await alarms_of(journal), second
            with JournalReader(disk / FILE) as reader:
                told = [e.fields for e in reader.events(kinds=("alarm",))]
            asides = {
                Path(str(t["set_aside"])).name for t in told if t["alarm"] == "journal_damaged"
            }
            assert len(asides) == 1, (second.at, second.nth, told)
            kept = disk / asides.pop()
            assert kept.read_bytes() == damaged[FILE]
            assert kept.with_name(f"{kept.name}-wal").read_bytes() == damaged[f"{FILE}-wal"]
            assert len([p for p in disk.glob("*.damaged-*") if "-wal" not in p.name]) == 1


async def test_a_cut_while_a_log_without_its_end_is_mended_still_ends_the_epoch(folder):
    run, cut = await left_by_a_kill(folder)
    damaged = dict(cut.image)
    wal = bytearray(damaged[f"{FILE}-wal"])
    at = len(wal) * 2 // 3
    wal[at : at + 64] = random.Random(3).randbytes(64)
    damaged[f"{FILE}-wal"] = bytes(wal)
    with laid_out(run, Cut(cut.at, 1, damaged)) as first:
        again = await second_cuts(run, first, variants=2)
    assert len(again) > 30
    whole = {spec.name: 0 for spec in CONSUMERS}
    for second in again:
        with laid_out(run, second) as disk:
            async with await open_journal(disk, HandClock(LATER_MS + 60_000)) as journal:
                assert journal.epoch not in run.trail.epochs, second
                assert "journal_log_damaged" in await alarms_of(journal), second
                for consumer, known in whole.items():
                    mine = [
                        r
                        for r in await records_of(journal, consumer)
                        if not isinstance(r, EventRecord)
                    ]
                    whole[consumer] = known or len(mine)
                    assert len(mine) == whole[consumer] > 0
