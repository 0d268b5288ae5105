"""A backup is whole or is not there, and the daemon does not feel it."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from headend.archive import MANIFEST, STAGING, BadBackup, NoRoom, read_manifest
from headend.domain.errors import JournalError
from headend.journal import JournalReader
from tests.backup.backup_kit import Place, birth, everything_in, values
from tests.support.waiting import eventually

BUSY_S = 5.0  # what a writer would wait for a reader that is in its way
SOON_S = 1.5


async def test_a_backup_made_while_readings_come_in_is_of_one_instant(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headend.archive.STEP_PAGES", 4)
    await place.fill(1, 500)
    target = place.folder / "b.tar.gz"
    n = 500

    def wait_for_more(word: str, _done: int, _total: int) -> None:
        """Between two pieces of the copy some readings are committed."""
        end, wanted = time.monotonic() + 10, n + 3
        while word == "copied" and n < wanted and time.monotonic() < end:
            time.sleep(0.001)

    async with await place.bench.open() as journal:
        backup = asyncio.create_task(asyncio.to_thread(place.back_up, target, watch=wait_for_more))
        while not backup.done():
            await journal.append(birth(n + 1))
            n += 1
        manifest = await backup
        epoch = journal.epoch
    assert n > 510
    consumers = {c["name"]: c["last_seq"] for c in manifest["consumers"]}
    assert 500 <= consumers["billing"] < 510
    assert consumers["billing"] == consumers["board"] == manifest["counts"]["readings"]
    assert manifest["epoch"] == epoch
    place.restore(target)
    async with await place.bench.open() as journal:
        assert len(await values(journal)) == consumers["billing"]


async def test_a_copy_that_stands_still_half_way_holds_up_no_reading(place: Place) -> None:
    await place.fill(1, 3000)
    go_on = threading.Event()
    begun = threading.Event()

    def stand_still(_word: str, _done: int, _total: int) -> None:
        begun.set()
        go_on.wait(60)

    async with await place.bench.open() as journal:
        backup = asyncio.create_task(
            asyncio.to_thread(place.back_up, place.folder / "b.tar.gz", watch=stand_still)
        )
        await eventually(begun.is_set)
        try:
            slowest = 0.0
            # Pauses in which the writer brings its log home: there it meets the backup's reader.
            for n in range(3001, 3004):
                await journal.append(birth(n))
                await asyncio.sleep(2.3)
                before = asyncio.get_running_loop().time()
                await journal.append(birth(n + 100))
                slowest = max(slowest, asyncio.get_running_loop().time() - before)
        finally:
            go_on.set()
        await backup
    assert slowest < SOON_S < BUSY_S


async def test_a_backup_is_for_its_owner_only_and_leaves_nothing_beside_it(place: Place) -> None:
    await place.fill(1, 10)
    os.umask(before := os.umask(0))
    assert before is not None
    target = place.folder / "to" / "b.tar.gz"
    place.back_up(target)
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(everything_in(target.parent)) == ["b.tar.gz"]


async def test_dead_letters_are_in_it_and_no_secret_and_no_half_line(place: Place) -> None:
    await place.fill(1, 10)
    place.letters.parent.mkdir()
    place.letters.write_bytes(b'{"line":"a"}\n{"line":"half')
    (place.data / "mqtt-password").write_text("hunter2")
    target = place.folder / "b.tar.gz"
    manifest = place.back_up(target)
    with tarfile.open(target) as tar:
        names = tar.getnames()
        letters = tar.extractfile("timeseries/charts.dead_letters.jsonl")
        assert letters is not None
        assert letters.read() == b'{"line":"a"}\n'
    assert names == [MANIFEST, "journal.db", "timeseries/charts.dead_letters.jsonl"]
    assert [m["name"] for m in manifest["members"]] == names[1:]


@pytest.mark.parametrize("at", ["copied", "packed"])
async def test_a_backup_that_is_killed_leaves_nothing_under_its_name(place: Place, at: str) -> None:
    await place.fill(1, 3000)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from headend.domain.clock import SystemClock\n"
        "from headend.journal.backup import Source, back_up\n"
        "import headend.archive as archive\n"
        "archive.STEP_PAGES = 16\n"
        "def watch(word, done, total):\n"
        f"    if word == {at!r} and done > total // 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"back_up(Source('he1', Path({str(place.journal)!r}), [], 0),"
        f" Path({str(place.folder / 'to' / 'b.tar.gz')!r}),"
        " clock=SystemClock(), software='0.1.0', watch=watch)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    left = list(everything_in(place.folder / "to"))
    assert left
    assert all(name.startswith(STAGING) for name in left)
    place.back_up(place.folder / "to" / "c.tar.gz")
    assert list(everything_in(place.folder / "to")) == ["c.tar.gz"]


async def test_a_backup_that_is_broken_off_leaves_nothing(place: Place) -> None:
    await place.fill(1, 300)

    def ctrl_c(word: str, _done: int, _total: int) -> None:
        if word == "copied":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.back_up(place.folder / "to" / "b.tar.gz", watch=ctrl_c)
    assert list(everything_in(place.folder / "to")) == []


async def test_without_room_no_backup_is_begun_and_the_journal_keeps_its_reserve(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.fill(1, 300)
    with pytest.raises(NoRoom, match=r"must stay free.*--to"):
        place.back_up(place.folder / "to" / "b.tar.gz", reserve=1 << 60)
    assert list(everything_in(place.folder / "to")) == []


async def test_a_backup_ends_when_the_journals_disk_fills_up_meanwhile(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.fill(1, 300)
    usage = __import__("shutil").disk_usage
    free = iter([1 << 40])  # at the start; then nothing is left

    def shrinking(path: Path):
        return usage(path)._replace(free=next(free, 0))

    monkeypatch.setattr("headend.archive.shutil.disk_usage", shrinking)
    with pytest.raises(NoRoom):
        place.back_up(place.folder / "to" / "b.tar.gz", reserve=1000)
    assert list(everything_in(place.folder / "to")) == []


async def test_two_backups_into_one_folder_at_a_time_are_refused(place: Place) -> None:
    await place.fill(1, 300)
    seen: list[str] = []

    def another(_word: str, _done: int, _total: int) -> None:
        if not seen:
            with pytest.raises(Exception, match="another backup is being written"):
                place.back_up(place.folder / "to" / "c.tar.gz")
            seen.append("refused")

    place.back_up(place.folder / "to" / "b.tar.gz", watch=another)
    assert seen == ["refused"]


async def test_a_damaged_journal_is_not_backed_up_as_if_it_were_whole(place: Place) -> None:
    await place.fill(1, 3000)
    with place.journal.open("r+b") as file:
        file.seek(4096 * 30)
        file.write(os.urandom(4096 * 40))
    with pytest.raises(BadBackup, match=r"damaged|malformed"):
        place.back_up(place.folder / "to" / "b.tar.gz")
    assert list(everything_in(place.folder / "to")) == []


async def test_what_is_no_journal_is_not_backed_up(place: Place) -> None:
    with pytest.raises(JournalError, match="there is no journal"):
        place.back_up(place.folder / "b.tar.gz")
    with sqlite3.connect(place.journal) as other:
        other.execute("CREATE TABLE a (b)")
    other.close()
    with pytest.raises(BadBackup, match="not a journal"):
        place.back_up(place.folder / "b.tar.gz")


# -- the command


async def test_the_command_names_the_file_by_its_time_and_tells_what_is_in_it(place: Place) -> None:
    await place.fill(1, 20, receipted=7)
    found = place.json("backup")
    made = Path(found["file"])
    assert made.parent == place.data / "backups"
    assert made.name.startswith("he1-journal-20")
    assert read_manifest(made) == found["manifest"]
    assert found["bytes"] == len(place.bytes_of(made))
    assert found["manifest"]["counts"]["readings"] == 20
    assert [
        (c["name"], c["last_seq"], c["receipted_seq"]) for c in found["manifest"]["consumers"]
    ] == [("billing", 20, 7), ("board", 20, 0)]
    code, out, _err = place.headend("backup", "--to", place.folder / "x.tar.gz")
    assert code == 0
    assert "20 readings" in out
    assert "receipted through 7" in out


async def test_the_newest_are_kept_and_what_is_not_a_backup_is_left_alone(place: Place) -> None:
    await place.fill(1, 5)
    to = place.folder / "to"
    to.mkdir()
    for name in (
        "he1-journal-20250101T000000Z.tar.gz",
        "he1-journal-20250102T000000Z.tar.gz",
        "he1-journal-20250103T000000Z.tar.gz",
        "he1-journal-before-upgrade.tar.gz",
        "he1-billing-20250101T000000Z.tar.gz",
        "he2-journal-20250101T000000Z.tar.gz",
    ):
        (to / name).write_text("x")
    found = place.json("backup", "--to", to, "--keep", "2")
    assert [Path(p).name for p in found["removed"]] == [
        "he1-journal-20250101T000000Z.tar.gz",
        "he1-journal-20250102T000000Z.tar.gz",
    ]
    assert set(everything_in(to)) == {
        "he1-journal-20250103T000000Z.tar.gz",
        Path(found["file"]).name,
        "he1-journal-before-upgrade.tar.gz",
        "he1-billing-20250101T000000Z.tar.gz",
        "he2-journal-20250101T000000Z.tar.gz",
    }


async def test_nothing_is_overwritten_and_nonsense_is_refused(place: Place) -> None:
    await place.fill(1, 5)
    there = place.folder / "there.tar.gz"
    there.write_text("mine")
    code, _out, err = place.headend("backup", "--to", there)
    assert code == 2
    assert "there already" in err
    assert there.read_text() == "mine"
    assert place.headend("backup", "--to", place.folder / "n.tar.gz", "--keep", "3")[0] == 2
    assert place.headend("backup", "--keep", "0")[0] == 2


async def test_a_backup_can_be_read_while_the_daemon_is_down(place: Place) -> None:
    await place.fill(1, 5)
    made = place.json("backup", "--to", place.folder / "b.tar.gz")
    assert made["manifest"]["counts"]["readings"] == 5
    with JournalReader(place.journal) as reader:
        assert len(list(reader.readings())) == 5
