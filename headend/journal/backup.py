"""A copy of the journal, made while the daemon goes on writing it.

Into a backup goes what cannot be had again: the journal, and the lines that databases for charts
refused for good. Configuration and secrets are not in it. The daemon has no part in it: a backup
is made by a process of its own, which reads.
"""

import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headend.archive import (
    ROOM_SHARE,
    BadBackup,
    Member,
    Watch,
    backup_name,
    check_room,
    database_bytes,
    snapshot,
    staging,
    write_archive,
)
from headend.domain.clock import Clock, iso
from headend.domain.errors import JournalError
from headend.journal import schema
from headend.journal.schema import day_of, day_tables, table_name

KIND = "journal"
MEMBER = "journal.db"
LETTERS = "timeseries/"
_COUNTED = {
    "readings": ("rb", "rt"),
    "exchanges": ("xb", "xt"),
    "due_points": ("d",),
}


@dataclass(frozen=True, slots=True)
class Source:
    """What is backed up. `letters`: files of dead letters; `reserve`: bytes that must stay free
    on the journal's disk, so that a backup never makes the daemon shed anything.
    """

    headend: str
    journal: Path
    letters: Sequence[Path]
    reserve: int


def file_name(headend: str, at_ms: int) -> str:
    """What a backup is called."""
    return backup_name(headend, KIND, at_ms)


def back_up(
    source: Source, target: Path, *, clock: Clock, software: str, watch: Watch
) -> dict[str, Any]:
    """Write a backup of the journal as it is now to `target`; the manifest.

    JournalError when there is no journal of this release, NoRoom, BadBackup when the journal is
    damaged, FileExistsError. Nothing is left of a backup that was not finished.
    """
    if not source.journal.exists():
        msg = (
            f"there is no journal at {source.journal}: has the daemon run with this configuration?"
        )
        raise JournalError(msg)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    needs = int(database_bytes(source.journal) * ROOM_SHARE)
    same_disk = target.parent.stat().st_dev == source.journal.stat().st_dev
    check_room(target.parent, needs, source.reserve if same_disk else 0)

    def watched(word: str, done: int, total: int) -> None:
        # The journal's log grows while it is copied: rather no backup than no room for readings.
        check_room(source.journal.parent, 0, source.reserve)
        watch(word, done, total)

    with staging(target.parent) as work:
        copy = work / MEMBER
        taken_ms = clock.now_ms()
        facts = snapshot(source.journal, copy, facts_of, watched)
        members = [Member(MEMBER, copy), *_letters(source.letters, work)]
        said = {
            "kind": KIND,
            "headend": source.headend,
            "taken_at": iso(taken_ms),
            "software": software,
            **facts,
        }
        return write_archive(target, work, said, members, watched)


def _letters(paths: Sequence[Path], work: Path) -> list[Member]:
    """Copies that end with a whole line, whatever is being added just now."""
    members = []
    for number, path in enumerate(paths):
        if not path.exists():
            continue
        copy = work / f"letters-{number}"
        shutil.copyfile(path, copy)
        with copy.open("r+b") as file:
            text = file.read()
            file.truncate(text.rfind(b"\n") + 1)
        members.append(Member(LETTERS + path.name, copy))
    return members


def facts_of(connection: sqlite3.Connection) -> dict[str, Any]:
    """What a journal holds, in the caller's transaction. BadBackup when it is none."""
    execute = connection.execute
    (application,) = execute("PRAGMA application_id").fetchone()
    (version,) = execute("PRAGMA user_version").fetchone()
    if application != schema.APPLICATION_ID or not version:
        raise BadBackup(f"it is not a journal (application id {application:#x})")
    (epoch,) = execute("SELECT value FROM meta WHERE key='epoch'").fetchone()
    days = day_tables(connection)
    consumers = execute(
        "SELECT name, last_seq, receipted, active FROM consumers ORDER BY name"
    ).fetchall()
    (events,) = execute("SELECT count(*) FROM events").fetchone()
    return {
        "schema_version": version,
        "epoch": epoch,
        "consumers": [
            {"name": name, "last_seq": last, "receipted_seq": receipted, "active": bool(active)}
            for name, last, receipted, active in consumers
        ],
        "counts": {
            **{word: _count(connection, prefixes, days) for word, prefixes in _COUNTED.items()},
            "events": events,
        },
        "days": _span(days),
        "newest_received_at": _newest(connection, days),
    }


def _count(
    connection: sqlite3.Connection, prefixes: Sequence[str], days: Mapping[str, list[int]]
) -> int:
    return sum(
        connection.execute(f"SELECT count(*) FROM {table_name(prefix, day)}").fetchone()[0]  # noqa: S608
        for prefix in prefixes
        for day in days.get(prefix, ())
    )


def _span(days: Mapping[str, list[int]]) -> dict[str, str] | None:
    """The first and the last UTC day that readings are held for."""
    held = [day for prefix in ("rb", "rt") for day in days.get(prefix, ())]
    if not held:
        return None
    return {"first": day_of(min(held)).isoformat(), "last": day_of(max(held)).isoformat()}


def _newest(connection: sqlite3.Connection, days: Mapping[str, list[int]]) -> str | None:
    """When the newest attempt that is kept was received."""
    newest = 0
    for prefix in ("xb", "xt"):
        for day in days.get(prefix, [])[-1:]:
            (found,) = connection.execute(
                f"SELECT max(received_ms) FROM {table_name(prefix, day)}"  # noqa: S608
            ).fetchone()
            newest = max(newest, found or 0)
    return iso(newest) if newest else None
