"""Notices that the journal's file is no longer the one that was opened.

A file that was removed or replaced while the daemon runs can be written for ever without an
error: its name leads elsewhere, and everything would be gone at the end. A file that was written
over in place is worse: what SQLite holds in memory no longer fits it. The files' names are looked
at before every commit, and once a second while there is none.
"""

import json
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from headend.archive import sync_folder
from headend.domain.clock import Clock, to_datetime
from headend.domain.meter import Event

log = logging.getLogger(__name__)

PARTS = ("", "-wal")
NOTE = ".note"


class _Seen(NamedTuple):
    """Who a file is, and what only we may change of it."""

    inode: tuple[int, int]
    content: tuple[int, int]  # size, time of the last change


class Presence:
    """Looks at the names of one journal's files. Belongs to the writer thread.

    `path` None (a journal without a file of its own): everything is always in order.
    """

    def __init__(self, path: Path | None) -> None:
        self._names = [] if path is None else [os.fspath(path) + part for part in PARTS]
        self._seen: list[_Seen | None] = []
        self.wrote()

    def wrote(self) -> None:
        """We have written, or may have: what stands there now is ours."""
        self._seen = [_look(name) for name in self._names]
        if None in self._seen:
            # Not there at the start: an operating system without such names. Nothing to compare.
            self._names = []

    def trouble(self) -> str | None:
        """What has become of the files behind our back; None when they are ours."""
        for number, (name, seen) in enumerate(zip(self._names, self._seen, strict=True)):
            now = _look(name)
            assert seen is not None
            if now is None:
                return f"{name} has been removed"
            if now.inode != seen.inode:
                return f"{name} has been replaced by another file"
            if number == 0 and now.content != seen.content:
                return f"{name} has been written by somebody else"
        return None


def _look(name: str) -> _Seen | None:
    try:
        found = os.stat(name)  # noqa: PTH116 - before every commit: a Path costs more than the call
    except OSError:
        return None
    return _Seen((found.st_dev, found.st_ino), (found.st_size, found.st_mtime_ns))


def secure(connection: sqlite3.Connection, path: Path, trouble: str, clock: Clock) -> Event:
    """Save what the open connection still holds; the alarm for the next start to tell.

    What was committed is in reach as long as the connection is open, whatever became of the
    names; only a file that was written over in place is beyond help. The log must not stay beside
    a file it does not belong to: SQLite would apply it.
    """
    stamp = f"{to_datetime(clock.now_ms()):%Y%m%dT%H%M%SZ}"
    aside = path.with_name(f"{path.name}.replaced-{stamp}")
    ours = "by somebody else" not in trouble and _copy(connection, path, aside)
    wal = path.with_name(path.name + "-wal")
    if wal.exists():
        wal.rename(aside.with_name(aside.name + "-wal"))
    if ours and not path.exists():
        aside.rename(path)
        found = "nothing of it is lost: it was written again from what was still open"
    elif ours:
        found = f"what it held is in {aside}; headend restore brings it back"
    else:
        found = "what it held since the last backup may be lost"
    sync_folder(path.parent)
    message = f"{trouble} while the daemon ran; {found}"
    fields = {
        "alarm": "journal_replaced",
        "found": trouble,
        "set_aside": str(aside) if aside.exists() else None,
        "message": message,
    }
    log.error("journal=%s %s", path, message)
    event = Event("alarm", clock.now_ms(), fields)
    _leave_note(path, event)
    return event


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


def _leave_note(path: Path, event: Event) -> None:
    """Have the next start tell this event and begin a new epoch."""
    note = path.with_name(path.name + NOTE)
    text = json.dumps({"kind": event.kind, "at_ms": event.at_ms, "fields": dict(event.fields)})
    descriptor = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - opened with its mode
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def read_note(path: Path, clock: Clock) -> Event | None:
    """What the process before this one left to be told."""
    note = path.with_name(path.name + NOTE)
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        return Event(str(said["kind"]), int(said["at_ms"]), dict(said["fields"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        # Cut short by the end of the process: that there is one says enough.
        fields = {
            "alarm": "journal_replaced",
            "message": f"the journal {path} was removed or replaced while the daemon ran",
        }
        return Event("alarm", clock.now_ms(), fields)


def forget_note(path: Path) -> None:
    """It has been told."""
    path.with_name(path.name + NOTE).unlink(missing_ok=True)
