"""What Python itself does to the files of a recorded directory: rename, unlink, fsync, open."""

import errno
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from tests.powercut.vfs import Recorder

_WRITING = frozenset("wax+")


class _Watch:
    """Stands in front of the calls. Content counts as written when the file is closed or synced."""

    def __init__(self, recorder: "Recorder") -> None:
        self.recorder = recorder
        self.unwritten: set[str] = set()  # opened for writing by Python, content not in the log
        self.logged: dict[int, bytes] = dict(recorder.base.values())
        self.rename, self.replace, self.unlink = os.rename, os.replace, os.unlink
        self.fsync, self.open, self.copyfile = os.fsync, io.open, shutil.copyfile
        self.os_open = os.open

    def on_rename(self, source: Any, target: Any, **more: Any) -> None:
        name, other = self.recorder.inside(source), self.recorder.inside(target)
        if name is None or other is None:
            return self.rename(source, target, **more)
        self._may_fail("rename", name)
        self._written(name)
        result = self.rename(source, target, **more)
        self.recorder.renamed(name, other)
        return result

    def on_unlink(self, path: Any, **more: Any) -> None:
        name = self.recorder.inside(path)
        if name is not None:
            self._may_fail("delete", name)
        self.unlink(path, **more)
        if name is not None:
            self.unwritten.discard(name)
            self.recorder.deleted(name)

    def on_fsync(self, handle: Any) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()
        path = Path(f"/proc/self/fd/{number}").readlink()
        recorder = self.recorder
        name = recorder.inside(path)
        if path == recorder.root:
            self._may_fail("sync", ".")
            self.fsync(handle)
            recorder.directory_synced()
        elif name is not None:
            self._may_fail("sync", name)
            self.fsync(handle)
            self._written(name)
            recorder.synced(name, recorder.file_of(name))
        else:
            self.fsync(handle)

    def on_open(self, file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        name = self.recorder.inside(file) if isinstance(file, str | os.PathLike) else None
        if name is None or not _WRITING & set(mode):
            return self.open(file, mode, *args, **more)
        self._may_fail("open", name)
        was_there = os.path.exists(file)  # noqa: PTH110
        opened = self.open(file, mode, *args, **more)
        if not was_there:
            self.recorder.created(name)
        self.unwritten.add(name)
        return opened

    def on_os_open(self, path: Any, flags: int, *args: Any, **more: Any) -> int:
        name = self.recorder.inside(path) if isinstance(path, str | os.PathLike) else None
        if name is None or not flags & os.O_CREAT:
            return self.os_open(path, flags, *args, **more)
        self._may_fail("open", name)
        was_there = os.path.exists(path)  # noqa: PTH110
        handle = self.os_open(path, flags, *args, **more)
        if not was_there:
            self.recorder.created(name)
        self.unwritten.add(name)
        return handle

    def on_copyfile(self, source: Any, target: Any, **more: Any) -> Any:
        name = self.recorder.inside(target)
        if name is None:
            return self.copyfile(source, target, **more)
        self._may_fail("write", name)
        was_there = os.path.exists(target)  # noqa: PTH110
        result = self.copyfile(source, target, **more)
        if not was_there:
            self.recorder.created(name)
        self.unwritten.add(name)
        self._written(name)
        return result

    def _written(self, name: str) -> None:
        if name in self.unwritten:
            self.unwritten.discard(name)
            data = (self.recorder.root / name).read_bytes()
            file = self.recorder.file_of(name)
            before = self.logged.get(file, b"")
            if not data.startswith(before):
                self.recorder.truncated(name, file, 0)
                before = b""
            self.recorder.wrote(name, file, len(before), data[len(before) :])
            self.logged[file] = data

    def _may_fail(self, kind: str, name: str) -> None:
        if self.recorder.ask(kind, name) is not None:
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)


@contextmanager
def watching(recorder: "Recorder") -> Iterator[None]:
    """While it lasts the calls are written down."""
    watch = _Watch(recorder)
    with (
        mock.patch("os.rename", watch.on_rename),
        mock.patch("os.replace", watch.on_rename),
        mock.patch("os.unlink", watch.on_unlink),
        mock.patch("os.remove", watch.on_unlink),
        mock.patch("os.fsync", watch.on_fsync),
        mock.patch("io.open", watch.on_open),
        mock.patch("os.open", watch.on_os_open),
        mock.patch("shutil.copyfile", watch.on_copyfile),
    ):
        yield
