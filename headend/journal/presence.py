"""Notices that the journal's file is no longer the one that was opened.

A file that was removed or replaced while the daemon runs can be written for ever without an
error: its name leads elsewhere, and everything would be gone at the end. A file that was written
over in place is worse: what SQLite holds in memory no longer fits it. The files' names are looked
at before every commit, and once a second while there is none.
"""

import logging
import os
import sqlite3
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from headend.domain.clock import Clock, to_datetime
from headend.domain.meter import Event
from headend.durable import sync_folder
from headend.journal.findings import findings_of

log = logging.getLogger(__name__)

PARTS = ("", "-wal")


class Hand(Enum):
    """What somebody has done to the files."""

    REMOVED = "removed"
    REPLACED = "replaced"
    WRITTEN = "written"
    LOG = "log"  # the log is gone or another, the journal itself is ours


class Trouble(NamedTuple):
    """What was found, and in words."""

    hand: Hand
    text: str


class _Seen(NamedTuple):
    """Who a file is, and what only we may change of it."""

    inode: tuple[int, int]
    content: tuple[int, int]  # size, time of the last change


class Presence:
    """Looks at the names of one journal's files. Belongs to the writer thread.

    `path` None (a journal without a file of its own): everything is always in order.
    `long_log_bytes`: from so long a log on SQLite brings it home with a commit.
    """

    def __init__(self, path: Path | None, *, long_log_bytes: int = 0) -> None:
        self._long_log_bytes = long_log_bytes
        self._seen: dict[str, _Seen] = {}
        if path is None:
            return
        for name in (os.fspath(path) + part for part in PARTS):
            seen = _look(name)
            if seen is None:  # an operating system without such names: nothing to compare
                self._seen.clear()
                break
            self._seen[name] = seen

    def wrote(self, *, brought_home: bool = False) -> None:
        """We have written, or may have: what is in our files now is ours.

        A name that leads nowhere or to another file is not: `trouble` tells it. A commit writes
        the log alone, and what is in it comes home when it is long; that it was brought home is
        said. Otherwise another content of the journal's own file is not ours either.
        """
        found = {name: _look(name) for name in self._seen}
        logs = list(found.values())[1:]
        may_be_home = brought_home or any(
            log_now is not None and log_now.content[0] >= self._long_log_bytes for log_now in logs
        )
        for number, (name, now) in enumerate(found.items()):
            if now is None or now.inode != self._seen[name].inode:
                continue
            if number or may_be_home:
                self._seen[name] = now

    def trouble(self) -> Trouble | None:
        """What has become of the files behind our back; None when they are ours."""
        for number, (name, seen) in enumerate(self._seen.items()):
            now = _look(name)
            if now is None:
                return Trouble(Hand.LOG if number else Hand.REMOVED, f"{name} was removed")
            if now.inode != seen.inode:
                hand = Hand.LOG if number else Hand.REPLACED
                return Trouble(hand, f"{name} was replaced by another file")
            if number == 0 and now.content != seen.content:
                return Trouble(Hand.WRITTEN, f"{name} was written by somebody else")
        return None


def _look(name: str) -> _Seen | None:
    try:
        found = os.stat(name)  # noqa: PTH116 - before every commit: a Path costs more than the call
    except OSError:
        return None
    return _Seen((found.st_dev, found.st_ino), (found.st_size, found.st_mtime_ns))


def secure(connection: sqlite3.Connection, path: Path, trouble: Trouble, clock: Clock) -> str:
    """Save what the open connection still holds, and have the next start tell it; in words.

    What was committed is in reach as long as the connection is open, whatever became of the
    names; only a file that was written over in place is beyond help. A log must not stay beside
    a file it does not belong to: SQLite would apply it.
    """
    stamp = f"{to_datetime(clock.now_ms()):%Y%m%dT%H%M%SZ}"
    aside = path.with_name(f"{path.name}.replaced-{stamp}")
    wal = path.with_name(path.name + "-wal")
    is_home = trouble.hand is Hand.LOG and _bring_home(connection)
    is_copied = trouble.hand is not Hand.WRITTEN and not is_home and _copy(connection, path, aside)
    if wal.exists():
        wal.rename(aside.with_name(aside.name + "-wal"))
    if is_copied and not path.exists():
        aside.rename(path)
        is_home = True
    sync_folder(path.parent)
    if is_home:
        found = "nothing of the journal is lost, it was written again from what was still open"
    elif is_copied:
        found = f"what the journal held is in {aside}; headend restore brings it back"
    else:
        found = "what the journal held since its last backup may be lost"
    message = f"{trouble.text} while the daemon ran; {found}"
    fields = {
        "alarm": "journal_replaced",
        "found": trouble.text,
        "set_aside": str(aside) if aside.exists() else None,
        "message": message,
    }
    log.error("journal=%s %s", path, message)
    findings = findings_of(path, clock)
    findings.alarms.append(Event("alarm", clock.now_ms(), fields))
    findings.new_epoch = trouble.text
    findings.keep()
    return message


def _bring_home(connection: sqlite3.Connection) -> bool:
    """Everything committed is in the journal's own file, whatever became of its log's name."""
    try:
        busy, frames, done = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    except sqlite3.Error:
        return False
    return not busy and frames == done


def _copy(connection: sqlite3.Connection, path: Path, aside: Path) -> bool:
    try:
        with closing(sqlite3.connect(aside)) as copy:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE").fetchall()
    except sqlite3.Error as error:
        log.error("journal=%s could not be copied to %s: %s", path, aside, error)  # noqa: TRY400 - expected
        aside.unlink(missing_ok=True)
        return False
    return True
