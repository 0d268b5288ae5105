"""Brings a copy of the journal back. The daemon must not run.

The journal that is there is set aside, never deleted. The copy is checked whole before anything
is touched, brought up to this release's schema, and marked: the next start begins a new epoch
with it, because somebody may hold numbers that the copy does not know.
"""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headend.archive import (
    BadBackup,
    Watch,
    check_database,
    check_room,
    database_bytes,
    extract,
    give_to_owner,
    is_archive,
    is_database,
    read_manifest,
    snapshot,
)
from headend.domain.clock import Clock, from_iso, iso
from headend.domain.errors import PolicyError
from headend.durable import sync_folder
from headend.journal import schema
from headend.journal.backup import KIND, LETTERS, MEMBER, facts_of
from headend.journal.errors import SchemaNewer
from headend.journal.opening import RESTORING, connect, finish_restore, lock_journal

PART = ".restore-part"  # not decided yet: the next restore begins it anew


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done. `set_aside`: where the journal before went, None when there was none.

    `taken_ms`: when the copy was made, None for a bare file that does not say; `facts` as in a
    backup's manifest; `letters`: files of dead letters that were brought back.
    """

    taken_ms: int | None
    facts: Mapping[str, Any]
    migrated: int
    set_aside: Path | None
    letters: tuple[Path, ...]


def restore(
    backup: Path, journal: Path, *, headend: str, letters: Path, clock: Clock, watch: Watch
) -> Restored:
    """Put the journal of a backup into its place. `letters`: the folder of dead letters.

    `backup` may also be a bare journal file, such as one that was set aside. JournalBusy while a
    daemon runs, BadBackup, SchemaNewer, NoRoom, PolicyError for another head-end's: nothing was
    changed then.
    """
    manifest = _manifest(backup, headend)
    journal.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = lock_journal(journal)
    try:
        give_to_owner(journal.with_name(journal.name + ".lock"), journal.parent)
        part = journal.with_name(journal.name + PART)
        try:
            part.unlink(missing_ok=True)
            facts = _bring(backup, manifest, part, watch)
            steps = _prepare(part, manifest, clock)
            give_to_owner(part, journal.parent)
            # From here on it is decided: what comes in between, the next start ends it.
            part.rename(journal.with_name(journal.name + RESTORING))
            sync_folder(journal.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        aside = finish_restore(journal, clock)
    finally:
        os.close(lock)
    brought = () if manifest is None else _bring_letters(backup, manifest, letters, watch)
    taken_ms = None if manifest is None else from_iso(str(manifest["taken_at"]))
    return Restored(taken_ms, facts, steps, aside, tuple(brought))


def _manifest(backup: Path, headend: str) -> dict[str, Any] | None:
    """What the backup says of itself; None for a bare journal file."""
    if not is_archive(backup):
        if is_database(backup):
            return None
        raise BadBackup(f"{backup} is neither a backup nor a journal file")
    manifest = read_manifest(backup)
    if manifest.get("kind") != KIND:
        kind = manifest.get("kind")
        raise BadBackup(f"{backup} is a backup of {kind!r}, not of a journal")
    if manifest.get("headend") != headend:
        whose = manifest.get("headend")
        msg = (
            f"{backup} is of the head-end {whose!r}, this configuration is of {headend!r}: its "
            "readings would be told as this one's. Restore it with the configuration it belongs to"
        )
        raise PolicyError(msg)
    _check_version(int(manifest["schema_version"]), backup)
    return manifest


def _check_version(version: int, backup: Path) -> None:
    if version > len(schema.MIGRATIONS):
        msg = (
            f"{backup} has schema {version}, this release knows up to {len(schema.MIGRATIONS)}: "
            "restore it with the release that wrote it. Nothing was changed"
        )
        raise SchemaNewer(msg)


def _bring(
    backup: Path, manifest: Mapping[str, Any] | None, part: Path, watch: Watch
) -> dict[str, Any]:
    """The copy itself, on the disk and checked; what it holds."""
    folder = part.parent
    if manifest is None:
        check_room(folder, database_bytes(backup), 0)
        facts = snapshot(backup, part, facts_of, watch)
        _check_version(facts["schema_version"], backup)
        return facts
    needs = sum(member["bytes"] for member in manifest["members"])
    check_room(folder, needs, 0)
    extract(backup, manifest, MEMBER, part, watch)
    check_database(part)
    with closing(connect(part)) as connection:
        facts = facts_of(connection)
    for word, value in facts.items():
        if manifest.get(word) != value:
            raise BadBackup(
                f"{backup}: its journal has {word} {value}, its manifest says "
                f"{manifest.get(word)}. Nothing was changed"
            )
    return facts


def _prepare(part: Path, manifest: Mapping[str, Any] | None, clock: Clock) -> int:
    """Bring the copy up to today's schema and mark it; the steps taken."""
    made = "a copied file" if manifest is None else f"the backup of {manifest['taken_at']}"
    reason = f"the journal was restored from {made} at {iso(clock.now_ms())}"
    try:
        with closing(connect(part)) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            steps = schema.migrate(connection)
            connection.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", (schema.RESTORED, reason)
            )
    except sqlite3.Error as error:
        raise BadBackup(f"the copy could not be brought up to date: {error}") from error
    return steps


def _bring_letters(
    backup: Path, manifest: Mapping[str, Any], folder: Path, watch: Watch
) -> list[Path]:
    """Bring back the files of dead letters that are gone. One that is there knows more."""
    brought = []
    for member in manifest["members"]:
        name = str(member["name"]).removeprefix(LETTERS)
        target = folder / name
        if name == member["name"] or name != target.name or target.exists():
            continue
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        give_to_owner(folder, folder.parent)
        extract(backup, manifest, str(member["name"]), target, watch)
        give_to_owner(target, folder)
        brought.append(target)
    return brought
