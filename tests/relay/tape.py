"""What the spool does to its disk, recorded as it does it: the files of SQLite's and our own.

A `Tape` is the spool's `Disk`, and while it `runs` it is what SQLite writes through, too. SQLite
reaches files by a table of functions, its VFS; ours is a copy of the one that it uses anyway, in
which what changes a file is written down first, and can be made to fail. It is put in by ctypes,
into the very library that `sqlite3` has loaded: what is recorded is what happens, and neither a
tool nor another build of SQLite is needed.
"""

import _sqlite3
import ctypes
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from attrs import frozen

from smtpproto.relay.spool.disk import Disk

__all__ = [
    "Create",
    "Link",
    "MakeDirectory",
    "Operation",
    "Remove",
    "Rename",
    "Sync",
    "SyncDirectory",
    "Tape",
    "Truncate",
    "Write",
]


@frozen
class Create:
    path: Path


@frozen
class MakeDirectory:
    path: Path


@frozen
class Write:
    """`again`: what was there already."""

    path: Path
    offset: int
    octets: bytes
    again: bool = False

    def __str__(self) -> str:
        return f"Write({self.path.name}, {self.offset}, {len(self.octets)} octets)"


@frozen
class Truncate:
    path: Path
    size: int


@frozen
class Sync:
    """What was written to the file is on the disk; or, if it `failed`, may be: now or never."""

    path: Path
    failed: bool = False


@frozen
class SyncDirectory:
    path: Path


@frozen
class Remove:
    path: Path


@frozen
class Link:
    path: Path
    new: Path


@frozen
class Rename:
    path: Path
    new: Path


Operation: TypeAlias = (
    Create | MakeDirectory | Write | Truncate | Sync | SyncDirectory | Remove | Link | Rename
)


class Tape(Disk):
    """Everything that was done, in its order, with `marks` of the test's own in between.

    `trouble` is asked before each operation and gives the errno that it fails with, or 0.
    `real=False`: nothing is synced really, which is quicker, and syncs of directories by SQLite
    go unseen.
    """

    def __init__(self, *, real: bool = True) -> None:
        self.real = real
        self.operations: list[Any] = []  # and marks
        self.trouble: Callable[[Operation], int] = lambda _: 0
        self._sizes: dict[int, tuple[Path, int]] = {}  # file descriptor -> its file, where to write

    def mark(self, mark: object) -> None:
        self.operations.append(mark)

    @contextmanager
    def runs(self) -> Iterator["Tape"]:
        """Record what SQLite does in this process to databases that it opens in the meantime."""
        if len(_listening) == 1:
            _register()
        _listening.append(self)
        try:
            yield self
        finally:
            _listening.remove(self)
            if len(_listening) == 1:
                _unregister()

    def refuses(self, operation: Operation) -> int:
        """Ask whether it fails; a sync that does is written down."""
        number = self.trouble(operation)
        if number and isinstance(operation, Sync):
            self.mark(Sync(operation.path, failed=True))
        return number

    def _attempt(self, operation: Operation) -> None:
        if number := self.refuses(operation):
            raise OSError(number, "as told")

    # As the spool's `Disk`

    def make_directory(self, path: Path) -> None:
        if not path.is_dir():
            self.make_directory(path.parent)
            self._attempt(MakeDirectory(path))
            path.mkdir(mode=0o700)
            self.mark(MakeDirectory(path))
            self.sync_directory(path.parent)

    def create(self, path: Path) -> int:
        self._attempt(Create(path))
        file = super().create(path)
        self.mark(Create(path))
        self._sizes[file] = path, 0
        return file

    def write(self, file: int, octets: bytes | bytearray) -> None:
        path, size = self._sizes[file]
        number = self.refuses(Write(path, size, bytes(octets)))
        done = octets[: len(octets) // 2] if number else octets
        super().write(file, done)
        self.mark(Write(path, size, bytes(done)))
        self._sizes[file] = path, size + len(done)
        if number:
            raise OSError(number, "as told")

    def sync(self, file: int) -> None:
        known = self._sizes.get(file)
        if known is not None:
            self._attempt(Sync(known[0]))
        if self.real:
            super().sync(file)
        if known is not None:
            self.mark(Sync(known[0]))

    def close(self, file: int) -> None:
        self._sizes.pop(file, None)  # before another thread's file gets the number
        super().close(file)

    def sync_directory(self, path: Path) -> None:
        self._attempt(SyncDirectory(path))
        super().sync_directory(path)
        self.mark(SyncDirectory(path))

    def sync_file(self, path: Path) -> None:
        self._attempt(Sync(path))
        if self.real:
            super().sync_file(path)
        self.mark(Sync(path))

    def rewrite(self, path: Path) -> None:
        again = Write(path, 0, path.read_bytes(), again=True)
        self._attempt(again)
        super().rewrite(path)
        self.mark(again)
        self._attempt(Sync(path))
        self.mark(Sync(path))

    def link(self, path: Path, new: Path) -> None:
        self._attempt(Link(path, new))
        super().link(path, new)
        self.mark(Link(path, new))

    def rename(self, path: Path, new: Path) -> None:
        self._attempt(Rename(path, new))
        super().rename(path, new)
        self.mark(Rename(path, new))

    def remove(self, path: Path) -> None:
        self._attempt(Remove(path))
        there = path.exists()
        super().remove(path)
        if there:
            self.mark(Remove(path))


# SQLite's VFS (https://sqlite.org/c3ref/vfs.html, c3ref/io_methods.html)

_P, _INT, _I64, _STR = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_char_p
_INTS = ctypes.POINTER(ctypes.c_int)

# Names are passed on as the pointers they are: SQLite keeps them.
_Open = ctypes.CFUNCTYPE(_INT, _P, _P, _P, _INT, _INTS)
_Delete = ctypes.CFUNCTYPE(_INT, _P, _P, _INT)
_SetCall = ctypes.CFUNCTYPE(_INT, _P, _STR, _P)
_GetCall = ctypes.CFUNCTYPE(_P, _P, _STR)
_Close = ctypes.CFUNCTYPE(_INT, _P)
_WriteAt = ctypes.CFUNCTYPE(_INT, _P, _P, _INT, _I64)
_TruncateTo = ctypes.CFUNCTYPE(_INT, _P, _I64)
_SyncFile = ctypes.CFUNCTYPE(_INT, _P, _INT)
_OpenDirectory = ctypes.CFUNCTYPE(_INT, _P, _INTS)


class _Vfs(ctypes.Structure):
    _fields_ = [
        ("version", _INT),
        ("size_of_file", _INT),
        ("max_path", _INT),
        ("next", _P),
        ("name", _STR),
        ("data", _P),
        ("open", _Open),
        ("delete", _Delete),
        *((name, _P) for name in ("access", "full_path", "dl_open", "dl_error", "dl_sym")),
        *((name, _P) for name in ("dl_close", "randomness", "sleep", "time", "last_error")),
        ("time_64", _P),
        ("set_call", _SetCall),
        ("get_call", _GetCall),
        ("next_call", _P),
    ]


class _Methods(ctypes.Structure):
    _fields_ = [
        ("version", _INT),
        ("close", _Close),
        ("read", _P),
        ("write", _WriteAt),
        ("truncate", _TruncateTo),
        ("sync", _SyncFile),
        *((name, _P) for name in ("size", "lock", "unlock", "is_reserved", "control")),
        *((name, _P) for name in ("sector", "device", "shm_map", "shm_lock", "shm_barrier")),
        *((name, _P) for name in ("shm_unmap", "fetch", "unfetch")),
    ]


# What `sqlite3` is linked with; where it is built into the interpreter, that may show it.
_sqlite = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
if not hasattr(_sqlite, "sqlite3_vfs_find"):
    if os.environ.get("SMTPPROTO_REQUIRE_PEERS") == "1":
        pytest.fail("this Python does not show its SQLite", pytrace=False)
    pytest.skip("this Python does not show its SQLite", allow_module_level=True)
_sqlite.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
_base = _sqlite.sqlite3_vfs_find(b"unix").contents
_ours = _Vfs.from_buffer_copy(_base)

_listening: list[Tape] = [Tape()]  # the first is for connections that outlive the others
_paths: dict[int, Path] = {}  # address of an open file -> what it is
_tables: dict[int, tuple[_Methods, _Methods]] = {}  # address of a table -> itself, ours
_tables_of: dict[int, _Methods] = {}  # address of an open file -> its own table


def _path(name: int) -> Path:
    return Path(ctypes.string_at(name).decode())


def _code(number: int, otherwise: int) -> int:
    """Say as SQLite what the system says."""
    return sqlite3.SQLITE_FULL if number == errno.ENOSPC else otherwise


def _open(_: Any, name: int | None, file: int, flags: int, out: Any) -> int:
    path = None if name is None else _path(name)
    new = path is not None and not path.exists()
    tape = _listening[-1]
    if path is not None and new and flags & 4 and (number := tape.refuses(Create(path))):
        return _code(number, sqlite3.SQLITE_CANTOPEN)
    result: int = _base.open(ctypes.addressof(_ours), name, file, flags, out)
    if result or path is None:
        return result
    if new:
        tape.mark(Create(path))
    table = ctypes.cast(file, ctypes.POINTER(_P)).contents  # the first member of any file
    address = table.value
    assert address is not None
    if address not in _tables:
        real = _Methods.from_address(address)
        copy = _Methods.from_buffer_copy(real)
        copy.close, copy.write = _Close(_close), _WriteAt(_write)
        copy.truncate, copy.sync = _TruncateTo(_truncate), _SyncFile(_sync)
        _tables[address] = real, copy
    real, copy = _tables[address]
    _paths[file], _tables_of[file] = path, real
    table.value = ctypes.addressof(copy)
    return result


def _close(file: int) -> int:
    del _paths[file]
    result: int = _tables_of.pop(file).close(file)
    return result


def _write(file: int, octets: int, count: int, offset: int) -> int:
    tape, path = _listening[-1], _paths[file]
    number = tape.refuses(Write(path, offset, ctypes.string_at(octets, count)))
    done = count // 2 if number else count
    result: int = _tables_of[file].write(file, octets, done, offset) if done else 0
    if not result:
        tape.mark(Write(path, offset, ctypes.string_at(octets, done)))
    return result or (_code(number, sqlite3.SQLITE_IOERR_WRITE) if number else 0)


def _truncate(file: int, size: int) -> int:
    tape, path = _listening[-1], _paths[file]
    if tape.refuses(Truncate(path, size)):
        return sqlite3.SQLITE_IOERR_TRUNCATE
    result: int = _tables_of[file].truncate(file, size)
    if not result:
        tape.mark(Truncate(path, size))
    return result


def _sync(file: int, flags: int) -> int:
    tape, path = _listening[-1], _paths[file]
    if tape.refuses(Sync(path)):
        return sqlite3.SQLITE_IOERR_FSYNC
    result: int = _tables_of[file].sync(file, flags) if tape.real else 0
    if not result:
        tape.mark(Sync(path))
    return result


def _delete(_: Any, name: int, sync: int) -> int:
    tape, path = _listening[-1], _path(name)
    if tape.refuses(Remove(path)):
        return sqlite3.SQLITE_IOERR_DELETE
    there = path.exists()
    if there:
        tape.mark(Remove(path))  # before, for it may sync the directory behind
    result: int = _base.delete(ctypes.addressof(_ours), name, sync)
    assert not (there and result)
    return result


def _open_directory(name: int, out: Any) -> int:
    """It is opened for one purpose: to be synced."""
    result: int = _real_open_directory(name, out)
    if not result:
        _listening[-1].mark(SyncDirectory(_path(name).parent))
    return result


_ours.name = b"tape"
_ours.open, _ours.delete = _Open(_open), _Delete(_delete)
_our_open_directory = _OpenDirectory(_open_directory)
_real_open_directory = ctypes.cast(
    _base.get_call(ctypes.addressof(_base), b"openDirectory"), _OpenDirectory
)


def _register() -> None:
    _sqlite.sqlite3_vfs_register(ctypes.byref(_ours), 1)
    _base.set_call(
        ctypes.addressof(_base), b"openDirectory", ctypes.cast(_our_open_directory, _P).value
    )


def _unregister() -> None:
    _base.set_call(ctypes.addressof(_base), b"openDirectory", None)
    _sqlite.sqlite3_vfs_unregister(ctypes.byref(_ours))
