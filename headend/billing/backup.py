"""A copy of billing's database where it is a file of SQLite's, and bringing one back.

After a restore nothing needs to be told to anybody: the cursors of the copy are older, so the
consumer asks every head-end to send again from there, and knows what it has. A server's database
is backed up by the server's own tools.
"""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headend.archive import (
    ROOM_SHARE,
    BadBackup,
    Member,
    Watch,
    backup_name,
    check_database,
    check_room,
    database_bytes,
    extract,
    give_to_owner,
    read_manifest,
    snapshot,
    staging,
    write_archive,
)
from headend.billing.database import open_writer
from headend.billing.errors import BillingDatabaseError
from headend.billing.spec import DatabaseSpec
from headend.billing.tables import SCHEMA_VERSION
from headend.config.database_url import SqlitePlace
from headend.domain.clock import Clock, from_iso, iso, to_datetime
from headend.domain.errors import ConfigError, PolicyError
from headend.durable import sync_file, sync_folder

KIND = "billing"
MEMBER = "billing.db"
PART = ".restore-part"
_COUNTED = {
    "readings": "reading",
    "replaced": "reading_history",
    "conflicts": "conflict",
    "events": "event",
    "exchanges": "exchange",
}


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done. `set_aside`: where the database before went, None when there was none."""

    taken_ms: int
    facts: Mapping[str, Any]
    migrated: int
    set_aside: Path | None


def file_of(spec: DatabaseSpec) -> Path:
    """The file a database is. ConfigError for a server's."""
    if isinstance(spec.place, SqlitePlace) and spec.place.is_file:
        return Path(spec.place.path)
    raise ConfigError(
        f"billing's database {spec.name} is no file",
        key="billing.database",
        hint="PostgreSQL is backed up with pg_dump and brought back with pg_restore",
    )


def back_up(
    spec: DatabaseSpec, target: Path, *, clock: Clock, software: str, watch: Watch
) -> dict[str, Any]:
    """Write a backup of the database as it is now to `target`; the manifest.

    The consumer may go on writing. ConfigError for a server's database, BillingDatabaseError when
    there is none, NoRoom, BadBackup when it is damaged, FileExistsError.
    """
    source = file_of(spec)
    if not source.exists():
        msg = f"there is no database {source} yet: `headend billing run` makes it"
        raise BillingDatabaseError(msg)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_room(target.parent, int(database_bytes(source) * ROOM_SHARE), 0)
    with staging(target.parent) as work:
        copy = work / MEMBER
        taken_ms = clock.now_ms()
        facts = snapshot(source, copy, _facts, watch)
        said = {
            "kind": KIND,
            "headend": None,
            "taken_at": iso(taken_ms),
            "software": software,
            **facts,
        }
        return write_archive(target, work, said, [Member(MEMBER, copy)], watch)


def restore(
    backup: Path, spec: DatabaseSpec, *, clock: Clock, software: str, watch: Watch
) -> Restored:
    """Put the database of a backup into its place; the one there is set aside, never deleted.

    PolicyError while a consumer has it open, BadBackup, NoRoom, BillingDatabaseError for a newer
    program's: nothing was changed then.
    """
    target = file_of(spec)
    manifest = read_manifest(backup)
    if manifest["kind"] != KIND:
        raise BadBackup(f"{backup} is a backup of {manifest['kind']!r}, not of billing's database")
    if manifest["schema_version"] > SCHEMA_VERSION:
        raise BillingDatabaseError(
            f"{backup} has version {manifest['schema_version']}, this program knows "
            f"{SCHEMA_VERSION}: restore it with the newer program. Nothing was changed"
        )
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_while_open(target)
    check_room(target.parent, sum(m["bytes"] for m in manifest["members"]), 0)
    part = target.with_name(target.name + PART)
    try:
        extract(backup, manifest, MEMBER, part, watch)
        check_database(part)
        with closing(sqlite3.connect(part)) as connection:
            facts = _facts(connection)
        if facts != {word: manifest.get(word) for word in facts}:
            raise BadBackup(f"{backup}: its database is not what its manifest says")
        open_writer(
            DatabaseSpec(SqlitePlace(str(part))), clock=clock, software=software
        ).close()  # brings it up to date
        give_to_owner(part, target.parent)
        sync_file(part)
        aside = _put(part, target, clock)
    finally:
        for suffix in ("", "-wal", "-shm"):
            part.with_name(part.name + suffix).unlink(missing_ok=True)
    return Restored(
        taken_ms=from_iso(manifest["taken_at"]),
        facts=facts,
        migrated=SCHEMA_VERSION - facts["schema_version"],
        set_aside=aside,
    )


def file_name(headend: str, at_ms: int) -> str:
    """What a backup is called."""
    return backup_name(headend, KIND, at_ms)


def _refuse_while_open(path: Path) -> None:
    """SQLite changes its way of keeping a log only while nobody else has the file open; there is
    no log beside it afterwards.
    """
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=1.0)) as connection:
            (mode,) = connection.execute("PRAGMA journal_mode=DELETE").fetchone()
    except sqlite3.OperationalError as error:
        mode = str(error)
    except sqlite3.DatabaseError:
        return  # damaged: nobody works with it
    if mode != "delete":
        msg = f"{path} is in use ({mode}): stop `headend billing run` first"
        raise PolicyError(msg)


def _put(part: Path, target: Path, clock: Clock) -> Path | None:
    """The file takes its place at one stroke; where the one before went."""
    aside = None
    if target.exists():
        stamp = f"{to_datetime(clock.now_ms()):%Y%m%dT%H%M%SZ}"
        aside = target.with_name(f"{target.name}.before-restore-{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = target.with_name(f"{target.name}.before-restore-{stamp}.{number}")
        for suffix in ("-wal", "-shm"):  # of a damaged one
            left = target.with_name(target.name + suffix)
            if left.exists():
                left.rename(aside.with_name(aside.name + suffix))
        os.link(target, aside)
    part.replace(target)
    sync_folder(target.parent)
    return aside


def _facts(connection: sqlite3.Connection) -> dict[str, Any]:
    """What a database holds, in the caller's transaction. BadBackup when it is another's."""
    execute = connection.execute
    try:
        (version,) = execute("SELECT max(version) FROM schema_version").fetchone()
        cursors = execute(
            "SELECT headend, epoch, through_seq FROM feed_cursor ORDER BY headend, ordinal"
        ).fetchall()
        counts = {
            word: execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            for word, table in _COUNTED.items()
        }
        (newest,) = execute("SELECT max(received_ms) FROM reading").fetchone()
    except sqlite3.OperationalError as error:
        raise BadBackup(f"it is not billing's database ({error})") from error
    return {
        "schema_version": version,
        "cursors": [
            {"headend": headend, "epoch": epoch, "through_seq": through}
            for headend, epoch, through in cursors
        ],
        "counts": counts,
        "newest_received_at": None if newest is None else iso(newest),
    }
