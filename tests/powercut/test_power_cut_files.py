"""Files that are not SQLite's: what was said to be on the disk is there after a power cut."""

import os
from pathlib import Path

import pytest

from headend.durable import make_folder, remove_file, write_file
from headend.timeseries import deadletters
from headend.timeseries.deadletters import DeadLetter, DeadLetters, letters
from tests.powercut.images import cuts
from tests.powercut.vfs import recording

NAME = "chart.jsonl"


async def keep_many(home: Path, recorder) -> list[tuple[int, int]]:
    """Letters that were kept: the step, and how many there were by then."""
    kept = []
    found = DeadLetters(home / NAME)
    for n in range(12):
        some = [DeadLetter(1000 * n, 2 * n + i, 400, "bad", f"m v={n}{'x' * 700}") for i in (0, 1)]
        await found.keep(some)
        kept.append((len(recorder.ops), 2 * (n + 1)))
    return kept


@pytest.mark.parametrize("variants", [8])
async def test_dead_letters_that_were_kept_survive_a_power_cut(folder, monkeypatch, variants):
    monkeypatch.setattr(deadletters, "BYTES_MAX", 10_000)  # a new file is begun in between
    home = folder / "live"
    home.mkdir()
    with recording(home) as recorder:
        kept = await keep_many(home, recorder)
    assert any(op.kind == "rename" for op in recorder.ops)
    looked = 0
    for cut in cuts(recorder, seed=1, variants=variants):
        disk = folder / f"{cut.at}-{cut.nth}"
        cut.lay_out(disk)
        promised = max((count for at, count in kept if at <= cut.at), default=0)
        found = [letter["seq"] for letter in letters(disk / NAME)]
        assert set(range(promised)) <= set(found), (cut.at, cut.nth, promised, found)
        # What was written on top of a torn line is whole.
        again = DeadLetters(disk / NAME)
        await again.keep([DeadLetter(0, 999, 400, "bad", "later")])
        assert [one["seq"] for one in letters(disk / NAME)][-1] == 999
        looked += 1
    assert looked > 50


async def test_dead_letters_whose_folder_is_not_synced_are_found(folder, monkeypatch):
    home = folder / "live"
    home.mkdir()
    monkeypatch.setattr(deadletters, "sync_folder", lambda _folder: None)
    with recording(home) as recorder:
        kept = await keep_many(home, recorder)
    *_others, last = cuts(recorder, seed=1, variants=0)
    least = next(c for c in cuts(recorder, seed=1, variants=0, at=[last.at]))
    assert kept[-1][0] == least.at
    assert NAME not in least.image


def test_a_file_is_the_old_one_or_the_new_one(folder):
    home = folder / "live"
    home.mkdir()
    (home / "note").write_bytes(b"old" * 1000)
    with recording(home) as recorder:
        write_file(home / "note", b"new" * 2000)
        steps = len(recorder.ops)
        remove_file(home / "note")
    for cut in cuts(recorder, seed=2, variants=20):
        content = cut.image.get("note")
        if cut.at < steps:
            assert content in (b"old" * 1000, b"new" * 2000)
        elif cut.at == steps:
            assert content == b"new" * 2000
    assert "note" not in cut.image


def test_a_folder_is_there_with_those_it_lies_in(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(handle):
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    make_folder(tmp_path / "a" / "b" / "c", mode=0o700)
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    synced.clear()
    make_folder(tmp_path / "a" / "b" / "c", mode=0o700)
    assert synced == []
