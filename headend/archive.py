"""A backup: one file with a whole copy of a database that others go on writing, and its proof.

The file is a gzipped tar. Its first member, `manifest.json`, says what the copy holds and the
SHA-256 of every other member. A file under its final name is whole: it is written under another
name, read back, and renamed. This module knows SQLite and tar, and no room's tables.
"""

import contextlib
import errno
import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import msgspec

from headend.domain.clock import to_datetime
from headend.domain.errors import HeadendError
from headend.durable import sync_folder

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = "backup_manifest/1"
MANIFEST_BYTES_MAX = 1024 * 1024
SUFFIX = ".tar.gz"
STEP_PAGES = 1024  # 4 MiB between two looks at the room, the progress and the disk's queue
PIECE = 1024 * 1024
STAGING = ".headend-backup-"
ROOM_SHARE = 1.5  # of the database: its copy, and the archive of it
SQLITE_MAGIC = b"SQLite format 3\x00"
GZIP_MAGIC = b"\x1f\x8b"

T = TypeVar("T")
Watch = Callable[[str, int, int], None]
"""Told what is going on: a word, what is done and what there is to do (bytes). May raise."""


class BadBackup(HeadendError):
    """A file that is no backup, not a whole one, or one of something else."""


class NoRoom(HeadendError):
    """A disk has not enough room for the copy."""


class _Listed(msgspec.Struct):
    name: str
    bytes: int
    sha256: str


class _Manifest(msgspec.Struct):
    """What every manifest says; the rest is the room's."""

    schema: str
    kind: str
    taken_at: str
    schema_version: int
    members: list[_Listed]


@dataclass(frozen=True, slots=True)
class Member:
    """A file that goes into an archive under `name`."""

    name: str
    path: Path


def backup_name(headend: str, kind: str, at_ms: int) -> str:
    """What a backup is called; names of one kind sort by time."""
    return f"{headend}-{kind}-{to_datetime(at_ms):%Y%m%dT%H%M%SZ}{SUFFIX}"


# -- copying a database


def snapshot(
    source: Path, target: Path, look: Callable[[sqlite3.Connection], T], watch: Watch
) -> T:
    """Copy a database as it is at one instant, while others write it; what `look` said of it.

    The writer never waits for the copy: it is read in one read transaction (so `look` sees what
    is copied), and pieces of it are forced to the disk one by one, so that a commit's own sync
    never stands behind more than one of them. The source's log grows meanwhile. The copy is
    checked with SQLite's quick check. BadBackup when the source is damaged.
    """
    target.touch(mode=0o600)
    handle = os.open(target, os.O_RDWR)
    try:
        with closing(_read_only(source)) as reading, closing(sqlite3.connect(target)) as writing:
            reading.execute("BEGIN")
            found = look(reading)
            (page_size,) = reading.execute("PRAGMA page_size").fetchone()

            def progress(_status: int, remaining: int, total: int) -> None:
                os.fdatasync(handle)
                watch("copied", (total - remaining) * page_size, total * page_size)

            # A copy that is not whole is thrown away: nothing of it need be rolled back.
            writing.execute("PRAGMA journal_mode=OFF").fetchall()
            writing.execute("PRAGMA synchronous=OFF")
            reading.backup(writing, pages=STEP_PAGES, progress=progress)
            reading.execute("COMMIT")
            # One file, without a log beside it.
            writing.execute("PRAGMA journal_mode=DELETE").fetchall()
        os.fsync(handle)
    except sqlite3.DatabaseError as error:
        raise _explained(error, source) from error
    finally:
        os.close(handle)
    check_database(target)
    return found


def check_database(path: Path) -> None:
    """SQLite's quick check of a file nobody writes. BadBackup."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as db:
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        raise BadBackup(f"{path} is damaged: {error}") from error
    if found != "ok":
        raise BadBackup(f"{path} is damaged: {found.replace(chr(10), ' ')}")


def database_bytes(path: Path) -> int:
    """What a copy of the database will take at most: the file and its log."""
    parts = (path, path.with_name(path.name + "-wal"))
    return sum(part.stat().st_size for part in parts if part.exists())


def _read_only(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
    )
    connection.execute("PRAGMA busy_timeout=5000")
    return connection


def _explained(error: sqlite3.DatabaseError, source: Path) -> HeadendError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return NoRoom(f"the copy of {source} could not be written: {error}")
    return BadBackup(f"{source} could not be copied: {error}")


# -- room


def check_room(folder: Path, needs: int, reserve: int) -> None:
    """NoRoom when a folder's disk would have less than `reserve` bytes left."""
    free = shutil.disk_usage(folder).free
    if free - needs < reserve:
        raise NoRoom(
            f"{folder}: {free // PIECE} MiB are free; the backup needs up to "
            f"{-(-needs // PIECE)} MiB and {reserve // PIECE} MiB must stay free. Make room, or "
            "write it to another disk with --to"
        )


# -- writing an archive


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A folder of our own below `folder` for what is not finished; gone at the end.

    One backup at a time into a folder: HeadendError when another is at work there. What an
    earlier one left when it was killed is removed.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HeadendError(f"another backup is being written to {folder}") from error
        for left in folder.glob(f"{STAGING}*"):
            shutil.rmtree(left)
        inside = Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))
        try:
            yield inside
        finally:
            shutil.rmtree(inside)
    finally:
        os.close(handle)


def write_archive(
    target: Path,
    work: Path,
    facts: Mapping[str, object],
    members: Sequence[Member],
    watch: Watch,
) -> dict[str, Any]:
    """Put members into an archive named `target`, checked; its manifest.

    `work`: the folder of `staging`. `target` appears whole or not at all, with mode 0600, and
    never in the place of another file: FileExistsError.
    """
    listed = [
        {"name": m.name, "bytes": m.path.stat().st_size, "sha256": sha256_of(m.path)}
        for m in members
    ]
    manifest = {"schema": MANIFEST_SCHEMA, **facts, "members": listed}
    total = sum(member.path.stat().st_size for member in members)
    done = 0
    made = work / "archive"
    descriptor = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - opened with its mode

        def written(count: int) -> None:
            nonlocal done
            done += count
            file.flush()
            os.fdatasync(descriptor)
            watch("packed", min(done, total), total)

        with (
            gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as tar,
        ):
            text = json.dumps(manifest, ensure_ascii=False, indent=1).encode() + b"\n"
            tar.addfile(_entry(MANIFEST, len(text)), io.BytesIO(text))
            for member in members:
                with member.path.open("rb") as content:
                    size = member.path.stat().st_size
                    told = cast("IO[bytes]", _Told(content, written))
                    tar.addfile(_entry(member.name, size), told)
        file.flush()
        os.fsync(descriptor)
    if read_manifest(made) != manifest:
        raise BadBackup(f"{made}: what was written is not what is read")
    for member in members:
        _verify(made, manifest, member.name)
    if target.exists():
        raise FileExistsError(errno.EEXIST, "it is there already", str(target))
    made.rename(target)
    sync_folder(target.parent)
    return manifest


class _Told:
    """A file whose reader is watched, 4 MiB at a time."""

    def __init__(self, file: IO[bytes], told: Callable[[int], None]) -> None:
        self._file = file
        self._told = told
        self._untold = 0

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._untold += len(piece)
        if self._untold >= STEP_PAGES * 4096:
            self._told(self._untold)
            self._untold = 0
        return piece


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o600
    return entry


def keep_newest(folder: Path, pattern: str, count: int) -> list[Path]:
    """Remove the files that match and are older (by name) than the newest `count`; those removed.

    Names end in the instant they were made, so their order is that of time.
    """
    assert count >= 1
    old = sorted(folder.glob(pattern))[:-count]
    for path in old:
        path.unlink()
    return old


# -- reading an archive


def is_archive(path: Path) -> bool:
    """Whether a file is compressed as an archive is (and not a bare database)."""
    with path.open("rb") as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def is_database(path: Path) -> bool:
    """Whether a file begins as SQLite's do."""
    with path.open("rb") as file:
        return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC


def read_manifest(path: Path) -> dict[str, Any]:
    """What an archive says it holds; the file has been read to its end and is whole.

    BadBackup when it is none, or not whole.
    """
    _read_through(path)
    with _reading(path) as tar:
        entry = tar.next()
        if entry is None or entry.name != MANIFEST or entry.size > MANIFEST_BYTES_MAX:
            raise BadBackup(f"{path} is no backup: it does not begin with {MANIFEST}")
        text = _content(tar, entry, path).read()
    try:
        said = msgspec.json.decode(text, type=_Manifest)
    except msgspec.DecodeError as error:
        raise BadBackup(f"{path} is no backup: its {MANIFEST} cannot be read: {error}") from error
    if said.schema != MANIFEST_SCHEMA:
        raise BadBackup(
            f"{path}: its manifest is {said.schema}, this program reads {MANIFEST_SCHEMA}: "
            "restore the backup with the release that wrote it"
        )
    manifest: dict[str, Any] = json.loads(text)
    return manifest


def _read_through(path: Path) -> None:
    """The gzip's own sum, which covers everything, is at its end."""
    try:
        with gzip.open(path) as packed:
            while packed.read(PIECE):
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadBackup(f"{path} is no backup, or is cut short or damaged: {error}") from error


def extract(path: Path, manifest: Mapping[str, Any], name: str, target: Path, watch: Watch) -> None:
    """Write a member to `target` (mode 0600, on the disk when this returns). BadBackup when it is
    not what the manifest says: the file is gone then.
    """
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - opened with its mode
            _copy_out(path, manifest, name, file, watch)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _verify(path: Path, manifest: Mapping[str, Any], name: str) -> None:
    _copy_out(path, manifest, name, None, lambda *_: None)


def _copy_out(
    path: Path, manifest: Mapping[str, Any], name: str, file: IO[bytes] | None, watch: Watch
) -> None:
    (said,) = [m for m in manifest["members"] if m["name"] == name]
    digest = hashlib.sha256()
    done = 0
    with _reading(path) as tar:
        entry = next((e for e in tar if e.name == name and e.isreg()), None)
        if entry is None or entry.size != said["bytes"]:
            raise BadBackup(f"{path}: {name} is missing or has not the size the manifest says")
        content = _content(tar, entry, path)
        while piece := content.read(PIECE):
            digest.update(piece)
            done += len(piece)
            if file is not None:
                file.write(piece)
                watch("unpacked", done, entry.size)
    if digest.hexdigest() != said["sha256"]:
        raise BadBackup(
            f"{path} is damaged: {name} has SHA-256 {digest.hexdigest()}, its manifest says "
            f"{said['sha256']}. Nothing was changed; take another backup"
        )


@contextmanager
def _reading(path: Path) -> Iterator[tarfile.TarFile]:
    """The archive as a stream: a member is read before the next is looked at."""
    try:
        with tarfile.open(path, "r|gz") as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadBackup(f"{path} is no backup, or is cut short or damaged: {error}") from error


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> IO[bytes]:
    content = tar.extractfile(entry)
    if content is None:
        raise BadBackup(f"{path}: {entry.name} is no file")
    return content


def sha256_of(path: Path) -> str:
    """A file's SHA-256 as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def give_to_owner(path: Path, folder: Path) -> None:
    """A file made by root goes to whoever owns the folder, so that the service can use it."""
    if os.geteuid() == 0:
        owner = folder.stat()
        with contextlib.suppress(PermissionError):  # a file system without owners
            os.chown(path, owner.st_uid, owner.st_gid)
