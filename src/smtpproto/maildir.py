"""A message into a Maildir: a file that is whole, or not there at all, and on disk.

What ready handlers and the relay share. Nothing that a stranger writes into an address becomes
part of a path before it has been spelled in harmless octets (`safe_name`).
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
from collections.abc import AsyncIterable, Callable, Sequence
from pathlib import Path
from typing import Self

import anyio
import anyio.to_thread

from .core.path import Mailbox
from .core.reply import Reply

__all__ = ["MailboxUnavailable", "MaildirWriter", "safe_name", "sync_directory"]


class MailboxUnavailable(Exception):  # noqa: N818 - a state of the store, no fault
    """The store cannot take the message now; `reply` says why, and is always transient (4yz)."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply

    @classmethod
    def because(cls, error: OSError) -> Self:
        """Make one of what the system says: 452 4.3.1 if the store is full, else 451 4.3.0.

        The wire learns only of what kind it is; the rest goes to the log, by the cause.
        """
        if error.errno in _FULL:
            return cls(Reply(452, "4.3.1", "Mail system full, try again later"))
        return cls(Reply(451, "4.3.0", "Mailbox store not available, try again later"))


_UNSAFE = re.compile(rb"^\.|[^a-z0-9._+=-]")
_MAX_NAME = 200  # octets; file systems take 255
_KEPT = 100  # octets of a longer name that stay readable


def safe_name(octets: bytes) -> str:
    """Spell a local part or a domain as one part of a path.

    Letters become small. Anything but `a-z0-9._+=-`, and a dot in front, becomes `%xx`; nothing
    becomes `%`. Of what is longer than 200 then, the beginning stays and the SHA-256 of the
    whole follows behind `%%`, which occurs nowhere else: distinct octets, but for case, have
    distinct names.
    """
    octets = octets.lower()
    name = _UNSAFE.sub(lambda match: b"%%%02x" % match[0][0], octets).decode() or "%"
    if len(name) > _MAX_NAME:
        name = f"{name[:_KEPT]}%%{hashlib.sha256(octets).hexdigest()}"
    return name


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PIECE = 1 << 18  # octets gathered before a thread is asked to write them
_MAX_KNOWN = 1 << 14  # directories remembered as being on disk


class MaildirWriter:
    """Writes messages into Maildirs below `root`.

    A message is written into `tmp`, synced, renamed into `new`, and the directory synced;
    directories are made and synced as they are needed. Lines end with LF on disk. Memory does
    not grow with the message, and all that may block is done in threads.

    `hostname` goes into the names of files, as `now` (seconds since the epoch) and
    `random_bytes` (of the length asked for) do: `time.time` and `os.urandom` are right.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        hostname: str,
        now: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.root = Path(root)
        self._hostname = re.sub(r"[^A-Za-z0-9.-]", "_", hostname)[:64]
        self._now = now
        self._random_bytes = random_bytes
        self._counter = itertools.count(1)
        self._known: set[Path] = set()

    def directory(self, mailbox: Mailbox) -> Path:
        """Return the Maildir of `mailbox`, ROOT/<domain>/<mailbox>; it need not exist."""
        return self.root / safe_name(mailbox.domain) / safe_name(mailbox.local_part)

    async def write(
        self, directories: Sequence[Path], content: AsyncIterable[bytes], *, key: str = ""
    ) -> None:
        """Put a message with CRLF line ends into each of some Maildirs, one at least.

        They are `root` or below it, in one file system: the message is there once, and linked. It
        is on disk in all of them when this returns. MailboxUnavailable if that was not possible,
        and then, as with any other exception and with a cancellation, nothing of it is to be seen.
        With `key`, letters and digits, its file can be found again (`find`).
        """
        file = _File(self, directories, self._unique_name(key))
        pieces: list[bytes] = []
        size = 0
        try:
            async for chunk in content:
                pieces.append(chunk)
                size += len(chunk)
                if size >= _PIECE:
                    await _in_thread(file.write, b"".join(pieces))
                    pieces, size = [], 0
            await _in_thread(file.finish, b"".join(pieces))
        finally:
            if file.unfinished:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(file.discard)

    async def find(self, directory: Path, key: str) -> bool:
        """Tell whether the message written with `key` is in a Maildir, seen or not, and on disk.

        One that has been deleted or moved away is not found. It costs as much as the Maildir has
        messages. MailboxUnavailable if it could not be looked for.
        """

        def look() -> bool:
            for folder in (directory / "new", directory / "cur"):  # as a reader moves them
                try:
                    if any(self._key(key) in name for name in os.listdir(folder)):
                        sync_directory(folder)  # who wrote it may not have come to that
                        return True
                except FileNotFoundError:
                    pass
            return False

        try:
            return await anyio.to_thread.run_sync(look)
        except OSError as error:
            raise MailboxUnavailable.because(error) from error

    def _key(self, key: str) -> str:
        return f"K{key}.{self._hostname}"

    def _unique_name(self, key: str) -> str:
        seconds, micros = divmod(int(self._now() * 1_000_000), 1_000_000)
        process, number = os.getpid(), next(self._counter)
        random = self._random_bytes(8).hex()
        end = self._key(key) if key else f".{self._hostname}"
        return f"{seconds}.M{micros:06}P{process}Q{number}R{random}{end}"

    def make_directories(self, directory: Path) -> None:
        """Make the Maildir `directory` with all that leads to it, and sync that. Blocks.

        One that an earlier process made may not be on disk yet, so each is synced once here,
        made or found.
        """
        if directory in self._known:
            return
        above = [directory, *directory.parents]
        above = above[: above.index(self.root) + 1]
        missing_root = [path for path in self.root.parents if not path.exists()]
        for path in reversed([*above, *missing_root]):
            path.mkdir(mode=0o700, exist_ok=True)
            sync_directory(path.parent)
        for name in ("tmp", "new", "cur"):
            (directory / name).mkdir(mode=0o700, exist_ok=True)
        sync_directory(directory)
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known.add(directory)

    def forget(self, directory: Path) -> None:
        """Make no assumption about `directory` any more: somebody may have removed it."""
        self._known.discard(directory)


async def _in_thread(work: Callable[[bytes], None], octets: bytes) -> None:
    # Not to be abandoned: a thread that has begun is waited for, and what it did is known.
    try:
        await anyio.to_thread.run_sync(work, octets)
    except OSError as error:
        raise MailboxUnavailable.because(error) from error


class _File:
    """One message on its way to disk. Its methods block, and none runs beside another."""

    def __init__(self, writer: MaildirWriter, directories: Sequence[Path], name: str) -> None:
        self._writer = writer
        self._directory, *self._others = dict.fromkeys(directories)
        self._name = name
        self._places = [self._directory / "tmp" / name]  # where it may be
        self._descriptor: int | None = None
        self._held = b""  # a CR whose LF may come with the next octets
        self._size = 0
        #: Whether there is something that discard() has to remove.
        self.unfinished = False

    def write(self, octets: bytes) -> None:
        """Write `octets`, CRLF as LF, opening the file first if need be."""
        if self._descriptor is None:
            self._descriptor = self._open()
        octets = self._held + octets
        self._held = octets[-1:] if octets.endswith(b"\r") else b""
        self._write_all(octets[: len(octets) - len(self._held)].replace(b"\r\n", b"\n"))

    def finish(self, octets: bytes) -> None:
        """Write the last octets and make the whole durable and visible."""
        self.write(octets)
        self._write_all(self._held)
        assert self._descriptor is not None
        os.fsync(self._descriptor)
        self._close()
        # Until it is known to be durable everywhere, it may be taken back.
        place = self._new(self._directory)
        self._places[0].rename(place)
        self._places[0] = place
        sync_directory(place.parent)
        for directory in self._others:
            self._in_place(directory, lambda directory: self._link(place, self._new(directory)))
        self.unfinished = False

    def discard(self) -> None:
        """Remove what is there of the message; what resists is left to be swept from tmp."""
        for directory in (self._directory, *self._others):
            self._writer.forget(directory)
        try:
            self._close()
            for place in self._places:
                place.unlink(missing_ok=True)
        except OSError:
            pass
        self.unfinished = False

    def _new(self, directory: Path) -> Path:
        return directory / "new" / f"{self._name},S={self._size}"

    def _link(self, there: Path, here: Path) -> int:
        os.link(there, here)
        self._places.append(here)
        sync_directory(here.parent)
        return 0

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = self._in_place(
            self._directory, lambda _: os.open(self._places[0], flags, 0o600)
        )
        self.unfinished = True
        return descriptor

    def _in_place(self, directory: Path, work: Callable[[Path], int]) -> int:
        """Do work in a Maildir, which is made first, and again if somebody has removed it since."""
        self._writer.make_directories(directory)
        try:
            return work(directory)
        except FileNotFoundError:
            self._writer.forget(directory)
            self._writer.make_directories(directory)
            return work(directory)

    def _write_all(self, octets: bytes) -> None:
        assert self._descriptor is not None
        left = memoryview(octets)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self._size += len(octets)

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Return when the names in a directory are on disk, as far as its file system can tell."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # this file system has no such thing to sync
            raise
    finally:
        os.close(descriptor)
