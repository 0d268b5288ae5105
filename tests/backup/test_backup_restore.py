"""A copy comes back whole, or nothing is touched; what was there is never deleted."""

import contextlib
import gzip
import json
import shutil
import sqlite3
import tarfile
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from headend.archive import BadBackup
from headend.domain.errors import HeadendError, PolicyError
from headend.journal import JournalBusy, JournalReader, SchemaNewer, schema
from headend.journal.restore import PART
from tests.backup.backup_kit import Place, birth, events, everything_in, values


def backup_of(place: Place, name: str = "b.tar.gz") -> Path:
    target = place.folder / name
    place.back_up(target)
    return target


def readings_in(path: Path) -> list[str | None]:
    with JournalReader(path) as reader:
        return [r.value for r in reader.readings()]


async def test_the_next_start_begins_a_new_epoch_with_what_is_not_receipted(place: Place) -> None:
    before = await place.fill(1, 10, receipted=4)
    backup = backup_of(place)
    await place.fill(11, 15, receipted=12)
    done = place.restore(backup)
    async with await place.bench.open() as journal:
        assert journal.epoch != before
        assert (await values(journal)) == [f"{n}.00" for n in range(5, 11)]
        assert journal.cursors()["billing"].receipted_seq == 0
        told = (await events(journal))["new_epoch"]
        assert told["before"] == before
        assert "restored from the backup of" in told["reason"]
        epoch = journal.epoch
        await journal.append(birth(11))
    # Once: the start after the next goes on in the same epoch.
    async with await place.bench.open() as journal:
        assert journal.epoch == epoch
    assert done.set_aside is not None
    assert len(readings_in(done.set_aside)) == 15


async def test_a_reading_has_the_same_id_after_the_restore(place: Place) -> None:
    await place.fill(1, 3)
    backup = backup_of(place)
    with JournalReader(place.journal) as reader:
        ids = [r.read_id for r in reader.readings()]
    place.restore(backup)
    async with await place.bench.open() as journal:
        (again,) = await journal.append(birth(2))
        assert not again.new
        assert again.read_id == ids[1]


async def test_a_lost_disk_is_no_obstacle(place: Place) -> None:
    await place.fill(1, 10)
    backup = backup_of(place)
    shutil.rmtree(place.data)
    done = place.restore(backup)
    assert done.set_aside is None
    assert len(readings_in(place.journal)) == 10
    assert not list(place.data.glob("*restor*"))


async def test_a_damaged_journal_is_set_aside_with_its_log(place: Place) -> None:
    await place.fill(1, 10)
    backup = backup_of(place)
    place.journal.write_bytes(b"rubbish")
    place.journal.with_name("journal.db-wal").write_bytes(b"more rubbish")
    done = place.restore(backup)
    assert done.set_aside is not None
    assert done.set_aside.read_bytes() == b"rubbish"
    assert done.set_aside.with_name(done.set_aside.name + "-wal").read_bytes() == b"more rubbish"
    assert len(readings_in(place.journal)) == 10


async def test_a_restore_is_undone_by_the_file_that_was_set_aside(place: Place) -> None:
    await place.fill(1, 10)
    backup = backup_of(place)
    await place.fill(11, 30)
    aside = place.restore(backup).set_aside
    assert aside is not None
    assert len(readings_in(place.journal)) == 10
    done = place.restore(aside)
    assert len(readings_in(place.journal)) == 30
    assert done.taken_ms is None
    async with await place.bench.open() as journal:
        assert "restored from a copied file" in (await events(journal))["new_epoch"]["reason"]


async def test_a_bare_file_is_taken_with_the_log_beside_it(place: Place) -> None:
    """As a file looks that was copied with its log from under a running daemon."""
    async with await place.bench.open() as journal:
        for n in range(1, 40):
            await journal.append(birth(n))
        copy = place.folder / "copied.db"
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{place.journal}{suffix}", f"{copy}{suffix}")
    place.restore(copy)
    assert len(readings_in(place.journal)) == 39


@pytest.mark.parametrize("at", range(1, 4))
async def test_a_restore_that_is_cut_short_is_ended_by_the_next_start(
    place: Place, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    await place.fill(1, 10)
    backup = backup_of(place)
    await place.fill(11, 20)
    place.journal.with_name("journal.db-wal").touch()
    calls = 0
    rename = Path.rename

    def cut(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls > at:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", cut)
        with pytest.raises(KeyboardInterrupt):
            place.restore(backup)
    async with await place.bench.open() as journal:
        assert len(await values(journal)) == 10
        assert "new_epoch" in await events(journal)
    (aside,) = [
        p
        for p in place.data.glob("journal.db.before-restore-*")
        if not p.name.endswith(("-wal", "-shm"))
    ]
    assert len(readings_in(aside)) == 20


async def test_a_restore_that_is_cut_short_before_its_decision_changes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.fill(1, 10)
    backup = backup_of(place)
    epoch = await place.fill(11, 20)

    def cut(*_arguments: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(schema, "migrate", cut)
        with pytest.raises(KeyboardInterrupt):
            place.restore(backup)
    assert not place.journal.with_name("journal.db" + PART).exists()
    async with await place.bench.open() as journal:
        assert journal.epoch == epoch
        assert len(await values(journal)) == 20


# -- refusals: nothing is touched


def snapshot(folder: Path) -> dict[str, bytes]:
    """Everything there but the lock."""
    return {
        name: (folder / name).read_bytes()
        for name in everything_in(folder)
        if not name.endswith(".lock")
    }


async def refused(place: Place, backup: Path, error: type[HeadendError], match: str) -> None:
    before = snapshot(place.data)
    with pytest.raises(error, match=match):
        place.restore(backup)
    assert snapshot(place.data) == before


async def test_every_damaged_byte_of_a_backup_is_noticed(place: Place) -> None:
    await place.fill(1, 40)
    backup = backup_of(place)
    whole = backup.read_bytes()
    broken = place.folder / "broken.tar.gz"
    noticed = 0
    for at in range(0, len(whole), max(1, len(whole) // 150)):
        broken.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        if says_the_same(broken, backup):
            continue  # gzip's own time, or a run of zeros told in another way
        await refused(place, broken, BadBackup, "backup")
        noticed += 1
    assert noticed > 100


def says_the_same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError, EOFError, zlib.error):
        return gzip.decompress(one.read_bytes()) == gzip.decompress(other.read_bytes())
    return False


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.9999])
async def test_a_backup_that_was_cut_short_is_refused(place: Place, share: float) -> None:
    await place.fill(1, 40)
    backup = backup_of(place)
    whole = backup.read_bytes()
    backup.write_bytes(whole[: int(len(whole) * share)])
    await refused(place, backup, BadBackup, "backup")


async def test_a_journal_that_is_not_what_the_manifest_says_is_refused(place: Place) -> None:
    await place.fill(1, 40)
    backup = backup_of(place)
    with tarfile.open(backup) as tar:
        tar.extractall(place.folder / "x")
    said = json.loads((place.folder / "x" / "manifest.json").read_text())
    said["counts"]["readings"] += 1
    (place.folder / "x" / "manifest.json").write_text(json.dumps(said))
    with tarfile.open(backup, "w:gz") as tar:
        for name in ("manifest.json", "journal.db"):
            tar.add(place.folder / "x" / name, name)
    await refused(place, backup, BadBackup, "its manifest says")


async def test_what_is_no_backup_is_refused(place: Place) -> None:
    await place.fill(1, 5)
    other = place.folder / "other"
    other.write_text("a letter")
    await refused(place, other, BadBackup, "neither a backup nor a journal")
    with tarfile.open(other, "w:gz") as tar:
        tar.add(place.config, "headend.yaml")
    await refused(place, other, BadBackup, "no backup")
    other.unlink()
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE a (b)")
    await refused(place, other, BadBackup, "not a journal")


async def test_another_head_ends_journal_is_refused(place: Place) -> None:
    await place.fill(1, 5)
    backup = backup_of(place)
    before = snapshot(place.data)
    with pytest.raises(PolicyError, match="is of the head-end 'he1'"):
        place.restore(backup, headend="he2")
    assert snapshot(place.data) == before


async def test_a_newer_releases_backup_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, lambda _db: None))
        await place.fill(1, 5)
        backup = backup_of(place)
        place.journal.rename(place.folder / "bare.db")
    await place.fill(1, 3)
    await refused(place, backup, SchemaNewer, "the release that wrote it")
    await refused(place, place.folder / "bare.db", SchemaNewer, "the release that wrote it")


async def test_an_older_releases_backup_is_brought_up_to_date(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.fill(1, 5)
    backup = backup_of(place)

    def add(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE extra (a INTEGER)")

    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, add))
    done = place.restore(backup)
    assert done.migrated == 1
    assert len(readings_in(place.journal)) == 5


async def test_while_the_journal_is_in_use_nothing_is_restored(place: Place) -> None:
    await place.fill(1, 5)
    backup = backup_of(place)
    async with await place.bench.open() as journal:
        with pytest.raises(JournalBusy):
            place.restore(backup)
        code, _out, err = place.headend("restore", backup)
        assert code == 5
        assert "held by another process" in err
        await journal.append(birth(6))
    assert len(readings_in(place.journal)) == 6


# -- dead letters, the command


async def test_dead_letters_come_back_where_there_are_none(place: Place) -> None:
    await place.fill(1, 5)
    place.letters.parent.mkdir()
    place.letters.write_text('{"line":"a"}\n')
    backup = backup_of(place)
    place.letters.write_text('{"line":"a"}\n{"line":"b"}\n')
    assert place.restore(backup).letters == ()
    assert len(place.letters.read_text().splitlines()) == 2
    place.letters.unlink()
    assert place.restore(backup).letters == (place.letters,)
    assert place.letters.read_text() == '{"line":"a"}\n'


async def test_the_command_says_how_old_the_copy_is_and_what_may_be_lost(place: Place) -> None:
    epoch = await place.fill(1, 20)
    made = place.json("backup")["file"]
    code, out, _err = place.headend("restore", made)
    assert code == 0
    assert "0 min" in out
    assert "may be lost: what was read after 2026-03-01T12:00:00" in out
    assert "set aside" in out
    told = place.json("restore", made)
    assert told["epoch_before"] == epoch
    assert told["counts"]["readings"] == 20
    assert 0 <= told["age_s"] < 60
    assert place.bytes_of(Path(told["set_aside"]))
    code, _out, err = place.headend("restore", place.folder / "nowhere.tar.gz")
    assert code == 2
    assert "there is no backup" in err
