"""Files and folders that are there after a power cut, once a call here has returned.

A file that was synced can still be lost with its name: names belong to the folder, and are synced
with it. It must not know what the files are for.
"""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """What was made, renamed and removed in a folder stays so."""
    _sync(folder)


def sync_file(path: Path) -> None:
    """The content of a file stays."""
    _sync(path)


def make_folder(folder: Path, *, mode: int = 0o777) -> None:
    """Make a folder, and those it lies in, unless it is there; `mode` is for the last one."""
    missing = [folder]
    while not missing[-1].exists():
        missing.append(missing[-1].parent)
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    for parent in missing[1:]:
        sync_folder(parent)


def write_file(path: Path, data: bytes, *, mode: int = 0o640) -> None:
    """Put a whole file in the place of what is there: one or the other is found, never a part."""
    beside = path.with_name(path.name + ".new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    beside.replace(path)
    sync_folder(path.parent)


def remove_file(path: Path) -> None:
    """Take a file away, if it is there."""
    if path.exists():
        path.unlink()
        sync_folder(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
