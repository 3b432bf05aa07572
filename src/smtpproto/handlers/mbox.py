"""Mail into one mbox file."""

from __future__ import annotations

import mailbox
import os
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

import anyio
from anyio.to_thread import run_sync

from smtpproto.core.envelope import Envelope
from smtpproto.core.path import ReversePath
from smtpproto.core.reply import Reply
from smtpproto.handler import ContentStream, Session
from smtpproto.maildir import MailboxUnavailable, sync_directory
from smtpproto.trace import return_path, stamp

from .discard import Discard

__all__ = ["Mbox"]

IN_USE = Reply(451, "4.2.0", "Mailbox in use, try again later")
_IN_MEMORY = 1 << 20  # octets of a message that wait for their end without a file
_BLOCK = 1 << 16
_RETRY = 0.1  # seconds
_INVISIBLE = re.compile(rb"[^!-~]")


class Mbox(Discard):
    """Appends mail to an mbox file at `path`, as the standard library's `mailbox` does it.

    250 means that it is on disk. The file is locked while it is written (`lockf` and a dot lock),
    and only when a message has come whole; if others hold it for longer than `patience` seconds,
    the answer is 451. Lines that begin with `From ` get a `>`, line ends become LF. Return-Path
    and Received are written in front (RFC 5321 §4.4), `hostname` is our name in the latter.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        hostname: str = "localhost",
        patience: float = 30,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = Path(path)
        self._hostname = hostname
        self._patience = patience
        self._now = now
        # lockf tells processes apart, not threads.
        self._turn = anyio.Lock()

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        """Store the message; 452 4.3.1, 451 4.3.0 or 451 4.2.0 if that cannot be done now."""
        now = self._now()
        queue_id = secrets.token_hex(6)
        trace = stamp(session, envelope, hostname=self._hostname, queue_id=queue_id, now=now)
        head = return_path(envelope.reverse_path) + trace
        with SpooledTemporaryFile(_IN_MEMORY) as spool:
            try:
                async with aclosing(_lf(head, content)) as pieces:
                    async for piece in pieces:
                        await run_sync(spool.write, piece)
                await self._append(_separator(envelope.reverse_path, now), spool)
            except TimeoutError:
                return IN_USE
            except OSError as error:
                return MailboxUnavailable.because(error).reply
        return None

    async def _append(self, separator: bytes, spool: IO[bytes]) -> None:
        with anyio.fail_after(self._patience):
            async with self._turn:
                # Nobody tells when a lock is let go.
                while not await run_sync(self._try_to_append, separator, spool):  # noqa: ASYNC110
                    await anyio.sleep(_RETRY)

    def _try_to_append(self, separator: bytes, spool: IO[bytes]) -> bool:
        """Append what is in `spool`; False if somebody else has the lock. Blocks."""
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sync_directory(self._path.parent)
        box = mailbox.mbox(self._path)
        try:
            box.lock()
            with open(self._path, "r+b") as file:  # who had the lock may have put another there
                _write(file, separator, spool)
        except mailbox.ExternalClashError:
            return False
        finally:
            box.close()  # unlocks
        return True


def _write(file: IO[bytes], separator: bytes, spool: IO[bytes]) -> None:
    end = file.seek(0, os.SEEK_END)
    try:
        if end:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n\n")
        file.write(separator)
        spool.seek(0)
        begins = True
        while part := spool.readline(_BLOCK):
            file.write(b">" + part if begins and part.startswith(b"From ") else part)
            begins = part.endswith(b"\n")
        file.write(b"\n" if begins else b"\n\n")
        file.flush()
        os.fsync(file.fileno())
    except BaseException:
        file.truncate(end)
        raise


async def _lf(head: bytes, content: ContentStream) -> AsyncGenerator[bytes]:
    """Give the head and the content with LF for CRLF, wherever the chunks are cut."""
    yield head.replace(b"\r\n", b"\n")
    held = b""
    async for chunk in content:
        octets = held + chunk
        held = octets[-1:] if octets.endswith(b"\r") else b""
        yield octets[: len(octets) - len(held)].replace(b"\r\n", b"\n")
    yield held


def _separator(reverse_path: ReversePath, now: float) -> bytes:
    """Write the From_ line; blanks and invisible octets of an address would change its sense."""
    sender = reverse_path.mailbox.serialize() if reverse_path.mailbox else b"MAILER-DAEMON"
    date = time.asctime(time.gmtime(now)).encode()
    return b"From %b %b\n" % (_INVISIBLE.sub(b"-", sender), date)
