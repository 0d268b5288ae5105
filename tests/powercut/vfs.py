"""A file system for SQLite that writes down every step and can make any of them fail.

It is SQLite's own "unix" one, registered again as the default under another name with five
methods in front: what the unchanged code under test does to its files goes through here. The
interpreter's `_sqlite3` and this module must use the same shared library; `library` proves it.

Directories: the unix VFS syncs one by itself (behind the first sync of a file it has created, and
behind a deletion where it is asked to). Its call `openDirectory` is watched, so that the log says
when that really happened.
"""

import ctypes
import os
import sqlite3
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import NamedTuple

OK = 0
IOERR_READ = 266
IOERR_SHORT_READ = 522
IOERR_WRITE = 778
IOERR_FSYNC = 1034
IOERR_TRUNCATE = 1546
IOERR_DELETE = 2570
FULL = 13
CANTOPEN = 14
_OPEN_CREATE = 0x00000004
NOT_ON_DISK = ("-shm", ".lock")  # memory of the running processes only

_CLOSE = CFUNCTYPE(c_int, c_void_p)
_READ = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)
_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_DELETE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_SET_CALL = CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p)
_GET_CALL = CFUNCTYPE(c_void_p, c_void_p, c_char_p)
_OPEN_DIRECTORY = CFUNCTYPE(c_int, c_char_p, c_void_p)


class _Methods(Structure):
    """sqlite3_io_methods, version 3. What is not put in front stays the address it was."""

    _fields_ = (
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", c_void_p),
        ("truncate", c_void_p),
        ("sync", c_void_p),
        ("others", c_void_p * 13),
    )


class _Vfs(Structure):
    """sqlite3_vfs, version 3."""


_Vfs._fields_ = (
    ("version", c_int),
    ("file_bytes", c_int),
    ("path_max", c_int),
    ("next", POINTER(_Vfs)),
    ("name", c_char_p),
    ("data", c_void_p),
    ("open", c_void_p),
    ("delete", c_void_p),
    ("access", c_void_p),
    ("full_path", c_void_p),
    ("dl", c_void_p * 4),
    ("randomness", c_void_p),
    ("sleep", c_void_p),
    ("now", c_void_p),
    ("last_error", c_void_p),
    ("now_int64", c_void_p),
    ("set_system_call", c_void_p),
    ("get_system_call", c_void_p),
    ("next_system_call", c_void_p),
)


class Op(NamedTuple):
    """One step. `file` numbers files as they are made, so that a name used again is another one.

    kinds: create, write, truncate, sync, forget (of `file`); delete, rename (to `other`); dirsync.
    """

    kind: str
    name: str
    file: int = 0
    offset: int = 0
    data: bytes = b""
    other: str = ""


class Fault(NamedTuple):
    """What a step does instead of what it should. `torn`: half of a write reaches the file.

    `forgets`, of a sync: what was waiting for it is believed to be written, and is not; no later
    sync writes it (as Linux does after an error of the disk).
    """

    code: int
    torn: bool = False
    forgets: bool = False


Judge = Callable[[str, str], Fault | None]
"""Asked before every step with its kind and the file's name; None lets it pass."""


def library() -> ctypes.CDLL:
    """The SQLite that the interpreter itself uses."""
    loaded = {
        line.split()[-1]
        for line in Path("/proc/self/maps")
        .read_text(encoding="ascii", errors="replace")
        .split("\n")
        if "libsqlite3" in line
    }
    if len(loaded) != 1:
        msg = f"sqlite3 {sqlite3.sqlite_version} is not one shared library: {sorted(loaded)}"
        raise RuntimeError(msg)
    return ctypes.CDLL(loaded.pop())


class Recorder:
    """The log of everything done to the files of one directory. Use `recording`."""

    def __init__(self, root: Path, *, judge: Judge | None = None, lies: bool = False) -> None:
        self.root = root
        self.ops: list[Op] = []
        self.base: dict[str, tuple[int, bytes]] = {}
        self.judge = judge
        self.lies = lies  # a sync says that it was done and does nothing
        self.broken: list[str] = []  # what went wrong in here: a test must look
        self._aside = threading.local()
        self._files: dict[str, int] = {}
        self._numbers = 0
        for path in sorted(root.iterdir()):
            if path.is_file() and not path.name.endswith(NOT_ON_DISK):
                self.base[path.name] = (self.file_of(path.name), path.read_bytes())

    def file_of(self, name: str) -> int:
        """The number of the file that a name stands for."""
        if name not in self._files:
            self._numbers += 1
            self._files[name] = self._numbers
        return self._files[name]

    def ask(self, kind: str, name: str) -> Fault | None:
        """Whether a step is to fail."""
        if self.judge is None or getattr(self._aside, "is_on", False):
            return None
        return self.judge(kind, name)

    @contextmanager
    def unjudged(self) -> Iterator[None]:
        """What the test itself does in this thread never fails."""
        self._aside.is_on = True
        try:
            yield
        finally:
            self._aside.is_on = False

    def created(self, name: str) -> None:
        self._files.pop(name, None)
        self.ops.append(Op("create", name, self.file_of(name)))

    def wrote(self, name: str, file: int, offset: int, data: bytes) -> None:
        self.ops.append(Op("write", name, file, offset, data))

    def truncated(self, name: str, file: int, size: int) -> None:
        self.ops.append(Op("truncate", name, file, size))

    def synced(self, name: str, file: int) -> None:
        if not self.lies:
            self.ops.append(Op("sync", name, file))

    def deleted(self, name: str) -> None:
        self._files.pop(name, None)
        self.ops.append(Op("delete", name))

    def renamed(self, name: str, other: str) -> None:
        self._files[other] = self._files.pop(name)
        self.ops.append(Op("rename", name, self._files[other], other=other))

    def directory_synced(self) -> None:
        if not self.lies:
            self.ops.append(Op("dirsync", "."))

    def inside(self, path: str | os.PathLike[str]) -> str | None:
        """The name of a file that is ours to record."""
        found = Path(path)
        if found.parent != self.root or found.name.endswith(NOT_ON_DISK):
            return None
        return found.name


class _Layer:
    """The VFS in front of "unix". Made once; it records for whoever `recorder` is."""

    NAME = b"power-cut"

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self._library = library()
        self._library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        self._library.sqlite3_vfs_register.argtypes = (POINTER(_Vfs), c_int)
        self._library.sqlite3_vfs_unregister.argtypes = (POINTER(_Vfs),)
        self._unix = self._library.sqlite3_vfs_find(b"unix")
        self._unix_address = ctypes.cast(self._unix, c_void_p).value
        unix = self._unix.contents
        self._open = _OPEN(unix.open)
        self._delete = _DELETE(unix.delete)
        self._methods: dict[int, _Methods] = {}  # the originals' address -> ours
        self._originals: dict[int, tuple[Callable[..., int], ...]] = {}
        self._handles: dict[int, tuple[Recorder, str, int, int]] = {}
        self._dirsyncs = 0
        self._callbacks = (
            _CLOSE(self._guarded(self._on_close)),
            _READ(self._guarded(self._on_read)),
            _WRITE(self._guarded(self._on_write)),
            _TRUNCATE(self._guarded(self._on_truncate)),
            _SYNC(self._guarded(self._on_sync)),
        )
        self._on_open_c = _OPEN(self._guarded(self._on_open))
        self._on_delete_c = _DELETE(self._guarded(self._on_delete))
        self.vfs = _Vfs.from_buffer_copy(bytes(unix))
        self.vfs.name = self.NAME
        self.vfs.next = None
        self.vfs.open = ctypes.cast(self._on_open_c, c_void_p).value
        self.vfs.delete = ctypes.cast(self._on_delete_c, c_void_p).value
        self._watch_directories(unix)

    def register(self) -> None:
        """Every file that is opened from now on is opened through here."""
        self._library.sqlite3_vfs_register(ctypes.byref(self.vfs), 1)

    def unregister(self) -> None:
        """As it was. Files that are open stay with us until they are closed."""
        self._library.sqlite3_vfs_unregister(ctypes.byref(self.vfs))
        self._library.sqlite3_vfs_register(self._unix, 1)

    def _watch_directories(self, unix: _Vfs) -> None:
        get = _GET_CALL(unix.get_system_call)
        address = get(self._unix_address, b"openDirectory")
        original = _OPEN_DIRECTORY(address)

        def opened(path: bytes, handle: int) -> int:
            self._dirsyncs += 1
            return original(path, handle)

        self._opened = _OPEN_DIRECTORY(opened)
        set_call = _SET_CALL(unix.set_system_call)
        done = set_call(
            self._unix_address, b"openDirectory", ctypes.cast(self._opened, c_void_p).value
        )
        assert done == OK

    def _guarded(self, call: Callable[..., int]) -> Callable[..., int]:
        def safe(*args: int) -> int:
            try:
                return call(*args)
            except BaseException:  # noqa: BLE001 - it would vanish in C
                if self.recorder is not None:
                    self.recorder.broken.append(traceback.format_exc())
                return IOERR_WRITE

        return safe

    # -- the VFS

    def _on_open(self, vfs: int, name: int | None, file: int, flags: int, out: int | None) -> int:
        path = None if not name else os.fsdecode(ctypes.string_at(name))
        recorder = self.recorder
        ours = None if path is None or recorder is None else recorder.inside(path)
        if ours is None or recorder is None or path is None:
            return self._open(self._unix_address, name, file, flags, out)
        fault = recorder.ask("open", ours)
        if fault is not None:
            ctypes.memset(file, 0, ctypes.sizeof(c_void_p))  # no methods: nothing to close
            return fault.code
        was_there = os.path.exists(path)  # noqa: PTH110
        result = self._open(self._unix_address, name, file, flags, out)
        if result == OK:
            if not was_there and flags & _OPEN_CREATE:
                recorder.created(ours)
            methods = c_void_p.from_address(file).value
            assert methods is not None
            self._handles[file] = (recorder, ours, recorder.file_of(ours), methods)
            c_void_p.from_address(file).value = ctypes.addressof(self._front(methods))
        return result

    def _front(self, address: int) -> _Methods:
        if address not in self._methods:
            original = _Methods.from_address(address)
            ours = _Methods.from_buffer_copy(bytes(original))
            close, read, write, truncate, sync = (
                ctypes.cast(call, c_void_p).value for call in self._callbacks
            )
            ours.close, ours.read, ours.write = close, read, write
            ours.truncate, ours.sync = truncate, sync
            self._methods[address] = ours
            self._originals[address] = (
                _CLOSE(original.close),
                _READ(original.read),
                _WRITE(original.write),
                _TRUNCATE(original.truncate),
                _SYNC(original.sync),
            )
        return self._methods[address]

    def _on_delete(self, vfs: int, name: int, sync_directory: int) -> int:
        path = os.fsdecode(ctypes.string_at(name))
        recorder = self.recorder
        ours = None if recorder is None else recorder.inside(path)
        if ours is None or recorder is None:
            return self._delete(self._unix_address, name, sync_directory)
        fault = recorder.ask("delete", ours)
        if fault is not None:
            return fault.code
        was_there = os.path.exists(path)  # noqa: PTH110
        before = self._dirsyncs
        result = self._delete(self._unix_address, name, sync_directory)
        if result == OK and was_there:
            recorder.deleted(ours)
            if self._dirsyncs > before:
                recorder.directory_synced()
        return result

    # -- a file

    def _on_close(self, file: int) -> int:
        _recorder, _name, _number, methods = self._handles.pop(file)
        return self._originals[methods][0](file)

    def _on_read(self, file: int, into: int, count: int, offset: int) -> int:
        recorder, name, _number, methods = self._handles[file]
        fault = recorder.ask("read", name)
        if fault is not None:
            return fault.code
        return self._originals[methods][1](file, into, count, offset)

    def _on_write(self, file: int, data: int, count: int, offset: int) -> int:
        recorder, name, number, methods = self._handles[file]
        fault = recorder.ask("write", name)
        if fault is not None:
            if fault.torn:
                count //= 2
                self._originals[methods][2](file, data, count, offset)
                recorder.wrote(name, number, offset, ctypes.string_at(data, count))
            return fault.code
        result = self._originals[methods][2](file, data, count, offset)
        if result == OK:
            recorder.wrote(name, number, offset, ctypes.string_at(data, count))
        return result

    def _on_truncate(self, file: int, size: int) -> int:
        recorder, name, number, methods = self._handles[file]
        fault = recorder.ask("truncate", name)
        if fault is not None:
            return fault.code
        result = self._originals[methods][3](file, size)
        if result == OK:
            recorder.truncated(name, number, size)
        return result

    def _on_sync(self, file: int, flags: int) -> int:
        recorder, name, number, methods = self._handles[file]
        fault = recorder.ask("sync", name)
        if fault is not None:
            if fault.forgets:
                recorder.ops.append(Op("forget", name, number))
            return fault.code
        before = self._dirsyncs
        result = self._originals[methods][4](file, flags)
        if result == OK:
            recorder.synced(name, number)
            if self._dirsyncs > before:
                recorder.directory_synced()
        return result


_layers: list[_Layer] = []


@contextmanager
def recording(root: Path, *, judge: Judge | None = None, lies: bool = False) -> Iterator[Recorder]:
    """Write down what is done to the files of `root` by SQLite and by Python's `os`."""
    from tests.powercut.python_files import watching

    if not _layers:
        _layers.append(_Layer())
    layer = _layers[0]
    assert layer.recorder is None
    recorder = layer.recorder = Recorder(root, judge=judge, lies=lies)
    layer.register()
    try:
        with watching(recorder):
            yield recorder
    finally:
        layer.unregister()
        layer.recorder = None
    assert not recorder.broken, recorder.broken[0]
