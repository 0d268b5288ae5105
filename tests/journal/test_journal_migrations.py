"""A journal of any earlier release is opened by this one, whole or not at all."""

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from headend.domain.errors import JournalError
from headend.journal import Birth, Journal, JournalReader, SchemaNewer, schema
from tests.backup.stored_databases import Kept, journal_schema, kept, look_at_journal
from tests.journal.journal_kit import DAY_MS, NOON_MS, Bench, reading

LATER_MS = NOON_MS + 5 * DAY_MS
KEPT = kept("journal")
HOW = (
    "the journal's schema has no database of its own: add one with"
    " `python -m tests.backup.make_database` and commit it. A migration that a release has"
    " written is never changed: add another"
)
each = pytest.mark.parametrize("one", KEPT, ids=lambda one: one.sql.stem)


def bench_of(path: Path) -> Bench:
    made = Bench(path)
    made.clock.ms = LATER_MS
    return made


def bytes_of(path: Path) -> bytes:
    return path.read_bytes()


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        return version


def test_every_schema_has_a_database_and_is_what_was_released() -> None:
    assert {one.version for one in KEPT} == set(range(1, len(schema.MIGRATIONS) + 1)), HOW
    for one in KEPT:
        if one.version == len(schema.MIGRATIONS):
            assert journal_schema(one.version) == one.expected["schema_sha256"], HOW


@each
async def test_what_an_earlier_release_wrote_is_read_back(one: Kept, tmp_path: Path) -> None:
    path = one.lay_out(tmp_path / "journal.db")
    async with await bench_of(path).open():
        pass
    assert version_of(path) == len(schema.MIGRATIONS)
    assert_holds(json.loads(json.dumps(look_at_journal(path))), one.expected["look"])


def assert_holds(found: object, expected: object, where: str = "") -> None:
    """Equal; a later release may know more about a thing."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), where
        for key, value in expected.items():
            assert_holds(found.get(key), value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(found, list), where
        assert len(found) == len(expected), where
        for number, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_holds(mine, theirs, f"{where}[{number}]")
    else:
        assert found == expected, where


@each
async def test_what_waited_and_what_was_due_goes_on(one: Kept, tmp_path: Path) -> None:
    path = one.lay_out(tmp_path / "journal.db")
    async with await bench_of(path).open() as journal:
        (parked,) = await journal.parked()
        assert parked.payload == '{"point":"x"}'
        bases = await journal.bases()
        assert str(bases["M-9", "active_import_total"].value) == "120.00"
        (day,) = await journal.open_days()
        due_ms = NOON_MS + 5 * DAY_MS
        late = reading("130.00", meter="M-9", time_ms=due_ms, due_ms=due_ms)
        (appended,) = await journal.append(Birth((late,)))
        assert appended.revision == 1
    with JournalReader(path) as reader:
        (line,) = reader.due_lines(day)
        assert (line.state.value, line.read_id) == ("read", appended.read_id)


@each
async def test_what_meters_have_shown_is_read_back(one: Kept, tmp_path: Path) -> None:
    async with await bench_of(one.lay_out(tmp_path / "journal.db")).open() as journal:
        found = await journal.learned()
    if one.version == 1:  # there was no such thing
        assert found == {}
        return
    (kept_state,) = found.values()
    assert list(found) == ["M-1"]
    assert kept_state[:2] == ("dlt645-2007", "000000000001")
    assert json.loads(kept_state.state)["refusals"] == {"0001FF00": 1}


@each
async def test_measurements_of_clocks_are_read_back(one: Kept, tmp_path: Path) -> None:
    async with await bench_of(one.lay_out(tmp_path / "journal.db")).open() as journal:
        found = await journal.clock_history(0)
    if one.version < 4:  # there was no such thing
        assert found == {}
        return
    assert found == {"M-1": [(NOON_MS, 12_400, 530, 3, False)]}


@each
async def test_identity_and_streams_go_on_where_they_were(one: Kept, tmp_path: Path) -> None:
    path = one.lay_out(tmp_path / "journal.db")
    expected = one.expected["look"]
    last_seq, receipted, _classes, _active = expected["cursors"]["billing"]
    newest = max(
        (r for r in expected["readings"] if r["meter"] == "M-2" and r["value"] == "10.01"),
        key=lambda r: r["revision"],
    )
    async with await bench_of(path).open() as journal:
        assert journal.epoch == expected["epoch"]
        assert journal.cursors()["billing"].last_seq == last_seq
        known = reading("10.01", meter="M-2", due_ms=NOON_MS, late=True)
        (again,) = await journal.append(Birth((known,)))
        assert (again.read_id, again.new) == (newest["read_id"], False)
        (other,) = await journal.append(Birth((reading("10.02", meter="M-2"),)))
        assert other.revision == newest["revision"] + 1
        found = await journal.read_stream("billing", receipted + 1, records_max=1000)
        assert [r.seq for r in found.records] == list(range(receipted + 1, last_seq + 2))
        await journal.receipt("billing", last_seq + 1)


# -- a migration that does not exist yet


def add_note(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE events ADD COLUMN note TEXT")
    connection.execute("UPDATE events SET note=kind")
    connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT")


@pytest.fixture
def next_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, add_note))


@each
@pytest.mark.usefixtures("next_release")
async def test_the_next_releases_migration_is_made_once(one: Kept, tmp_path: Path) -> None:
    path = one.lay_out(tmp_path / "journal.db")
    for _start in range(2):
        async with await bench_of(path).open() as journal:
            await journal.append(Birth((reading("1.00", meter="M-77"),)))
    assert version_of(path) == len(schema.MIGRATIONS)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM events WHERE note IS NOT kind").fetchone() == (0,)
        (events,) = db.execute("SELECT count(*) FROM events").fetchone()
    assert events == len(one.expected["look"]["events"])


KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from headend.domain.clock import SystemClock
from headend.journal import schema
from headend.journal.opening import open_for_writing

def cut(connection):
    connection.execute("ALTER TABLE events ADD COLUMN note TEXT")
    connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY) STRICT")
    connection.execute("PRAGMA cache_spill=ON")
    connection.execute("PRAGMA cache_size=1")
    connection.executemany("INSERT INTO notes VALUES (?)", [(n,) for n in range(20000)])
    os.kill(os.getpid(), signal.SIGKILL)

schema.MIGRATIONS = (*schema.MIGRATIONS, cut)
open_for_writing(Path(sys.argv[1]), SystemClock())
"""


@each
async def test_a_kill_in_the_middle_of_a_migration_leaves_the_old_version_usable(
    one: Kept, tmp_path: Path
) -> None:
    path = one.lay_out(tmp_path / "journal.db")
    async with await bench_of(path).open():  # this release's schema, in the log's mode
        pass
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], check=False, timeout=60, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert path.with_name("journal.db-wal").stat().st_size > 100_000, "nothing was cut"
    async with await bench_of(path).open() as journal:
        await journal.append(Birth((reading("1.00", meter="M-77"),)))
        found = await journal.read_stream("billing", 1, records_max=1000)
        assert not [r for r in found.records if getattr(r, "event", "") == "journal_damaged"]
    assert version_of(path) == len(schema.MIGRATIONS)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name='notes'").fetchone() == (
            0,
        )


async def test_a_migration_that_fails_changes_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = KEPT[-1].lay_out(tmp_path / "journal.db")

    def fails(connection: sqlite3.Connection) -> None:
        add_note(connection)
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, fails))
        with pytest.raises(JournalError, match="disk is full"):
            await bench_of(path).open()
    assert_holds(json.loads(json.dumps(look_at_journal(path))), KEPT[-1].expected["look"])


async def test_a_newer_releases_journal_is_refused_and_not_a_byte_of_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = KEPT[-1].lay_out(tmp_path / "journal.db")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, add_note))
        async with await bench_of(path).open():
            pass
    before = bytes_of(path)
    with pytest.raises(SchemaNewer, match="start the release that wrote it"):
        await bench_of(path).open()
    with pytest.raises(JournalError, match="schema"):
        JournalReader(path)
    assert bytes_of(path) == before


async def test_a_log_in_an_older_file_comes_home_before_the_migration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed under the old release, started under the new one: nothing of the log is lost."""
    path = tmp_path / "journal.db"
    code = (
        "import asyncio, os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.journal.journal_kit import Bench, reading\n"
        "from headend.journal import Birth\n"
        "async def main():\n"
        "    journal = await Bench(Path(sys.argv[1])).open()\n"
        "    for n in range(20):\n"
        "        await journal.append(Birth((reading(f'{n}.00', meter=f'M-{n}'),)))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, check=False, timeout=60)
    assert path.with_name("journal.db-wal").stat().st_size
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, add_note))
    journal: Journal
    async with await bench_of(path).open() as journal:
        found = await journal.read_stream("billing", 1, records_max=1000)
        assert len(found.records) == 20
