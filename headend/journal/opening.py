"""Opens the journal's file for writing: one writer, a sound file, today's schema.

A damaged file is moved aside, never repaired in place and never deleted, and a fresh one is begun
so that reading goes on. A file of a newer release is refused and left alone.
"""

import fcntl
import logging
import os
import shutil
import sqlite3
import struct
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from headend.domain.clock import Clock, to_datetime
from headend.domain.errors import JournalError
from headend.domain.meter import Event
from headend.durable import make_folder, sync_file, sync_folder
from headend.journal import schema
from headend.journal.errors import JournalBusy, SchemaNewer
from headend.journal.findings import Findings, findings_of

log = logging.getLogger(__name__)

RESTORING = ".restoring"  # checked and decided: it takes the journal's place, come what may

_WAL_HEADER = 32
_WAL_FRAME_HEADER = 24
_WAL_MAGICS = (0x377F0682, 0x377F0683)
_SQLITE_MAGIC = b"SQLite format 3\x00"
_SUFFIXES = ("", "-wal", "-journal", "-shm")  # none may stay behind: it would be applied


@dataclass(slots=True)
class Opened:
    """A journal ready for its writer. The alarms among `findings` are to be recorded first.

    `findings.new_epoch`: why the numbers cannot go on: records may be missing at the end, or it is
    a copy. `findings.told()` when all that is committed.
    """

    connection: sqlite3.Connection
    lock: int
    fresh: bool
    findings: Findings


class _Damaged(Exception):
    """The file failed a check; the text says which."""


def open_for_writing(path: Path, clock: Clock) -> Opened:
    """Lock, check, set aside what is damaged, migrate. Blocking: may take as long as reading the
    whole file does.

    JournalBusy when another process writes it; SchemaNewer when a newer release did.
    """
    make_folder(path.parent)
    lock = lock_journal(path)
    try:
        return _open_locked(path, clock, lock)
    except BaseException:
        os.close(lock)
        raise


def _open_locked(path: Path, clock: Clock, lock: int) -> Opened:
    findings = findings_of(path, clock)
    if findings.moves:
        findings.move()
    finish_restore(path, clock)
    if _anything(path) or _anything(_wal(path)):
        damage = _damage(path, clock, findings)
        if damage is not None:
            _set_aside(path, clock, damage, findings)
    try:
        connection = connect(path)
    except sqlite3.Error as error:
        raise not_opened(path, error) from error
    try:
        for pragma in schema.PRAGMAS:
            connection.execute(pragma).fetchall()
        steps = schema.migrate(connection)
        fresh = connection.execute("SELECT 1 FROM meta WHERE key='epoch'").fetchone() is None
        if fresh:
            _begin(connection, clock, "set aside" if findings.alarms else "new")
            findings.new_epoch = None
        elif steps:
            log.info("journal=%s migrated steps=%d", path, steps)
        findings.new_epoch = _restored(connection) or findings.new_epoch
    except sqlite3.Error as error:
        connection.close()
        raise not_opened(path, error) from error
    except BaseException:
        connection.close()
        raise
    return Opened(connection, lock, fresh, findings)


def _restored(connection: sqlite3.Connection) -> str | None:
    """Why a file that was brought back needs a new epoch; None for any other."""
    row = connection.execute("SELECT value FROM meta WHERE key=?", (schema.RESTORED,)).fetchone()
    return None if row is None else str(row[0])


def not_opened(path: Path, error: sqlite3.Error) -> JournalError:
    """What SQLite could not do at the start. Damage is no part of this: it has been looked for."""
    return JournalError(f"the journal {path} could not be opened: {error}")


def _anything(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def connect(path: Path) -> sqlite3.Connection:
    """A connection without implicit transactions, usable by the thread it is handed to."""
    return sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=512
    )


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. JournalError when there is no journal at the path."""
    if not path.exists():
        msg = f"there is no journal at {path}: has the daemon run with this configuration?"
        raise JournalError(msg)
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=512
    )
    connection.execute("PRAGMA busy_timeout=5000")
    return connection


def new_epoch_row(connection: sqlite3.Connection, now_ms: int, reason: str) -> str:
    """Begin an epoch in the caller's transaction; its id."""
    epoch = str(uuid4())
    connection.execute(
        "INSERT INTO epochs (epoch, begun_ms, reason) VALUES (?,?,?)", (epoch, now_ms, reason)
    )
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (epoch,))
    return epoch


def _begin(connection: sqlite3.Connection, clock: Clock, reason: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    new_epoch_row(connection, clock.now_ms(), reason)
    counters = ("next_rid_billing", "next_rid_telemetry", "next_xid", "next_event")
    connection.executemany("INSERT INTO meta VALUES (?, '1')", [(name,) for name in counters])
    connection.execute("COMMIT")


def lock_journal(path: Path) -> int:
    """Become the one process that may write a journal; close the handle to end that.

    JournalBusy when another one is.
    """
    lock_path = path.with_name(path.name + ".lock")
    lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        msg = (
            f"the journal {path} is held by another process: only one daemon may write it. "
            "Stop the other one, or give this one a data directory of its own"
        )
        raise JournalBusy(msg) from error
    return lock


# -- checks


def _damage(path: Path, clock: Clock, findings: Findings) -> str | None:
    """What is wrong with the file, None when it can be used.

    It is looked at twice before anything bad is believed: a disk that could not be read once is
    no reason to set a sound journal aside.
    """
    found = None
    for _ in range(2):
        try:
            _check(path, clock, findings)
        except _Damaged as damage:
            found = str(damage)
        else:
            return None
    return found


def _check(path: Path, clock: Clock, findings: Findings) -> None:
    """Prove the file usable, and note when its log has lost its end. _Damaged otherwise."""
    if not _anything(path):
        msg = "the file is gone, only its log is there"
        raise _Damaged(msg)
    with path.open("rb") as file:
        head = file.read(len(_SQLITE_MAGIC))
    # The power may have gone while the very first page was written: SQLite takes that back.
    if head != _SQLITE_MAGIC and not _anything(path.with_name(path.name + "-journal")):
        msg = "it is not an SQLite database"
        raise _Damaged(msg)
    commits = _wal_commits(_wal(path))
    try:
        with closing(connect(path)) as connection:
            _check_kind(connection, path)
            frames = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
            lost = sum(1 for frame in commits if frame > frames)
            if lost:
                # Before the connection is closed: closing brings the log home and removes it, and
                # then only the note knows that something is missing.
                _keep_wal(path, clock, lost, findings)
            pragma = "integrity_check(1)" if lost else "quick_check(1)"
            (found,) = connection.execute(f"PRAGMA {pragma}").fetchone()
            if found != "ok":
                raise _Damaged(found.replace("\n", " "))
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not _says_damage(error):
            raise not_opened(path, error) from error
        raise _Damaged(str(error)) from error


def _check_kind(connection: sqlite3.Connection, path: Path) -> None:
    """Whether it is a journal, and one that we know. _Damaged, SchemaNewer."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != schema.APPLICATION_ID and (application or version or tables):
        msg = f"it is not a journal (application id {application:#x})"
        raise _Damaged(msg)
    if version > len(schema.MIGRATIONS):
        msg = (
            f"the journal {path} has schema {version}, this release knows up to "
            f"{len(schema.MIGRATIONS)}: start the release that wrote it. The file was not touched"
        )
        raise SchemaNewer(msg)


def _says_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _wal_commits(wal: Path) -> list[int]:
    """Frame numbers (from 1) of the commits that a WAL's bytes speak of, readable or not.

    SQLite stops at the first frame whose checksum fails and says nothing: what was committed
    behind it is gone without a word. Comparing its count with this one shows it. Frames of an
    earlier round of the log have other salts and do not count; the last commit may be one that
    was being written when the power went, so it alone is no proof of loss.
    """
    if not wal.exists() or wal.stat().st_size < _WAL_HEADER + _WAL_FRAME_HEADER:
        return []
    commits: list[int] = []
    with wal.open("rb") as file:
        magic, _version, page_size, _count, salts = struct.unpack(">IIII8s", file.read(24))
        header_sound = magic in _WAL_MAGICS and page_size in _page_sizes()
        if not header_sound:
            page_size = 4096
            file.seek(_WAL_HEADER + 8)
            salts = file.read(8)
        size = wal.stat().st_size
        for number, at in enumerate(
            range(_WAL_HEADER, size - _WAL_FRAME_HEADER + 1, _WAL_FRAME_HEADER + page_size), 1
        ):
            file.seek(at)
            _page, pages, frame_salts = struct.unpack(">II8s", file.read(16))
            if pages and frame_salts == salts:
                commits.append(number)
    return commits if not header_sound else _but_torn(commits)


def _but_torn(commits: list[int]) -> list[int]:
    return commits[:-1]


def _page_sizes() -> frozenset[int]:
    return frozenset(1 << n for n in range(9, 17))


# -- setting aside


def _aside_name(path: Path, clock: Clock, word: str) -> Path:
    stamp = f"{to_datetime(clock.now_ms()):%Y%m%dT%H%M%SZ}"
    aside = path.with_name(f"{path.name}.{word}-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.{word}-{stamp}.{number}")
    return aside


def move_aside(path: Path, clock: Clock, word: str) -> Path:
    """Give a journal and what belongs to it another name; that name. Nothing is deleted."""
    aside = _aside_name(path, clock, word)
    for old, new in _parts(path, aside):
        (path.parent / old).rename(path.parent / new)
    sync_folder(path.parent)
    return aside


def _parts(path: Path, aside: Path) -> list[tuple[str, str]]:
    """The names of what there is of a journal, each with the one it is given."""
    suffixes = [s for s in _SUFFIXES if path.with_name(path.name + s).exists()]
    return [(path.name + suffix, aside.name + suffix) for suffix in suffixes]


def finish_restore(path: Path, clock: Clock) -> Path | None:
    """Put a journal that is being brought back into its place; where the one before it went.

    A restore that was cut short after its decision is ended here by the next start: the log of
    the file before must not meet the new one, so there is an instant without a journal.
    """
    restored = path.with_name(path.name + RESTORING)
    if not restored.exists():
        return None
    parts = (path, _wal(path))
    aside = move_aside(path, clock, "before-restore") if any(p.exists() for p in parts) else None
    restored.rename(path)
    sync_folder(path.parent)
    return aside


def _set_aside(path: Path, clock: Clock, found: str, findings: Findings) -> None:
    aside = _aside_name(path, clock, "damaged")
    message = (
        f"the journal was damaged ({found}) and was set aside as {aside}; a new one has been "
        f'begun and reading goes on. To look at it: sqlite3 {aside} ".recover" > salvage.sql'
    )
    log.error("%s", message)
    fields = {
        "alarm": "journal_damaged",
        "found": found,
        "set_aside": str(aside),
        "message": message,
    }
    findings.alarms.append(Event("alarm", clock.now_ms(), fields))
    findings.new_epoch = None  # what is begun anew has an epoch of its own
    findings.moves = _parts(path, aside)
    findings.keep()
    findings.move()


def _keep_wal(path: Path, clock: Clock, lost: int, findings: Findings) -> None:
    aside = _aside_name(_wal(path), clock, "damaged")
    shutil.copyfile(_wal(path), aside)
    sync_file(aside)
    message = (
        f"the journal's log had lost its end (about {lost} commits); what is whole was kept, a "
        f"new epoch begun, and the log copied to {aside}. Values of the last minutes may be "
        "missing: they are read again as far as meters keep them"
    )
    log.error("%s", message)
    fields = {
        "alarm": "journal_log_damaged",
        "commits_lost": lost,
        "set_aside": str(aside),
        "message": message,
    }
    findings.alarms.append(Event("alarm", clock.now_ms(), fields))
    findings.new_epoch = "the log was damaged"
    findings.keep()
