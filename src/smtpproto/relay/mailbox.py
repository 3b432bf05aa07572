"""Mailboxes: where mail that has arrived is kept.

`MailboxStore` is the seam; `Maildir` is the one real store: a file for each message, whole or
not there at all, on disk when `deliver` returns. Nothing that a stranger writes into an address
becomes part of a path before it has been spelled in harmless octets.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeAlias

import anyio
import anyio.to_thread

from smtpproto.core.path import AnyMailbox, Mailbox, as_octets
from smtpproto.core.reply import Reply

__all__ = [
    "MailboxPolicy",
    "MailboxStore",
    "MailboxUnavailable",
    "Maildir",
    "every_mailbox",
    "listed_mailboxes",
    "present_mailboxes",
    "safe_name",
]


class MailboxUnavailable(Exception):  # noqa: N818 - a state of the store, no fault
    """The store cannot take the message now; `reply` says why, and is always transient (4yz)."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class MailboxStore(Protocol):
    """What the relay asks of a place for mail."""

    async def exists(self, mailbox: Mailbox) -> bool:
        """Tell whether mail for `mailbox` can be kept here; may raise MailboxUnavailable."""
        ...

    async def deliver(self, mailbox: Mailbox, content: AsyncIterable[bytes]) -> None:
        """Keep `content`: a message with CRLF line ends, its Return-Path in front, cut anywhere.

        It is on disk when this returns. MailboxUnavailable if that was not possible, and then,
        as with any other exception and with a cancellation, nothing of it is to be seen.
        """
        ...


#: Tells whether a mailbox, kept in the directory given with it, exists.
MailboxPolicy: TypeAlias = "Callable[[Mailbox, Path], Awaitable[bool]]"


async def every_mailbox(mailbox: Mailbox, directory: Path) -> bool:
    """The policy by which every mailbox exists."""
    return True


async def present_mailboxes(mailbox: Mailbox, directory: Path) -> bool:
    """The policy by which those exist whose directory has been made."""
    return await anyio.to_thread.run_sync(directory.is_dir)


def listed_mailboxes(names: Iterable[AnyMailbox]) -> MailboxPolicy:
    """Return the policy by which those in `names` exist.

    A name is a mailbox (`ann@example.org`), or a local part alone, which is then one in every
    domain. Case makes no difference.
    """
    listed = {name.serialize() if isinstance(name, Mailbox) else as_octets(name) for name in names}
    listed = {name.lower() for name in listed}

    async def policy(mailbox: Mailbox, directory: Path) -> bool:
        whole = mailbox.serialize().lower()
        return whole in listed or mailbox.local_part.lower() in listed

    return policy


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


def _unavailable(error: OSError) -> MailboxUnavailable:
    # What the system says goes to the log by the cause; the wire learns only of what kind it is.
    if error.errno in _FULL:
        return MailboxUnavailable(Reply(452, "4.3.1", "Mail system full, try again later"))
    return MailboxUnavailable(Reply(451, "4.3.0", "Mailbox store not available, try again later"))


class Maildir:
    """Keeps mail below `root`, as a Maildir for each mailbox: ROOT/<domain>/<mailbox>/.

    A message is written into `tmp`, synced, renamed into `new`, and the directory synced;
    directories are made and synced as they are needed. Lines end with LF on disk. Memory does
    not grow with the message, and all that may block is done in threads.

    `hostname` goes into the names of files, as `now` (seconds since the epoch) and
    `random_bytes` (of the length asked for) do: `time.time` and `os.urandom` are right.
    `policy` tells which mailboxes exist; Postmaster does in any case (RFC 5321 §4.5.1).
    """

    def __init__(
        self,
        root: Path | str,
        *,
        hostname: str,
        now: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        policy: MailboxPolicy = every_mailbox,
    ) -> None:
        self.root = Path(root)
        self._hostname = re.sub(r"[^A-Za-z0-9.-]", "_", hostname)[:64]
        self._now = now
        self._random_bytes = random_bytes
        self._policy = policy
        self._counter = itertools.count(1)
        self._known: set[Path] = set()

    def directory(self, mailbox: Mailbox) -> Path:
        """Return where mail for `mailbox` is kept; it need not exist."""
        return self.root / safe_name(mailbox.domain) / safe_name(mailbox.local_part)

    async def exists(self, mailbox: Mailbox) -> bool:
        """Tell whether the policy knows `mailbox`; MailboxUnavailable if it could not look."""
        if mailbox.local_part.lower() == b"postmaster":
            return True
        try:
            return await self._policy(mailbox, self.directory(mailbox))
        except OSError as error:
            raise _unavailable(error) from error

    async def deliver(self, mailbox: Mailbox, content: AsyncIterable[bytes]) -> None:
        """Keep `content` (see MailboxStore.deliver); MailboxUnavailable 452 4.3.1 or 451 4.3.0."""
        file = _MaildirFile(self, self.directory(mailbox), self._unique_name())
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

    def _unique_name(self) -> str:
        seconds, micros = divmod(int(self._now() * 1_000_000), 1_000_000)
        process, number = os.getpid(), next(self._counter)
        random = self._random_bytes(8).hex()
        return f"{seconds}.M{micros:06}P{process}Q{number}R{random}.{self._hostname}"

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
            _sync_directory(path.parent)
        for name in ("tmp", "new", "cur"):
            (directory / name).mkdir(mode=0o700, exist_ok=True)
        _sync_directory(directory)
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
        raise _unavailable(error) from error


class _MaildirFile:
    """One message on its way to disk. Its methods block, and none runs beside another."""

    def __init__(self, maildir: Maildir, directory: Path, name: str) -> None:
        self._maildir = maildir
        self._directory = directory
        self._name = name
        self._temporary = directory / "tmp" / name
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
        new = self._directory / "new"
        place = new / f"{self._name},S={self._size}"
        self._temporary.rename(place)
        self._temporary = place  # until it is known to be durable there, it may be taken back
        _sync_directory(new)
        self.unfinished = False

    def discard(self) -> None:
        """Remove what is there of the message; what resists is left to be swept from tmp."""
        self._maildir.forget(self._directory)
        try:
            self._close()
            self._temporary.unlink(missing_ok=True)
        except OSError:
            pass
        self.unfinished = False

    def _open(self) -> int:
        self._maildir.make_directories(self._directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(self._temporary, flags, 0o600)
        except FileNotFoundError:  # somebody has removed the mailbox since
            self._maildir.forget(self._directory)
            self._maildir.make_directories(self._directory)
            descriptor = os.open(self._temporary, flags, 0o600)
        self.unfinished = True
        return descriptor

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


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # this file system has no such thing to sync
            raise
    finally:
        os.close(descriptor)
