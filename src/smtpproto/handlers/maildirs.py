"""Mail into Maildirs."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

from smtpproto.core.envelope import Envelope
from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.handler import ContentStream, Session
from smtpproto.maildir import MailboxUnavailable, MaildirWriter
from smtpproto.trace import return_path, stamp

from .discard import Discard

__all__ = ["Maildirs"]


class Maildirs(Discard):
    """Puts mail into a Maildir for each mailbox, ROOT/<domain>/<mailbox>/, made as mail comes.

    250 means that it is on disk in all of them. What an address holds is spelled in harmless
    octets first (`maildir.safe_name`). Return-Path and Received are written in front
    (RFC 5321 §4.4); `hostname` is our name in the latter and in the names of files. `now` and
    `random_bytes` stand for `time.time` and `os.urandom`.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        hostname: str = "localhost",
        now: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.root = Path(root)
        self._hostname = hostname
        self._now = now
        self._random_bytes = random_bytes
        self._writer = MaildirWriter(root, hostname=hostname, now=now, random_bytes=random_bytes)

    def directory(self, mailbox: Mailbox) -> Path:
        """Return the Maildir of a mailbox. Override it, to return `root` for one in all."""
        return self._writer.directory(mailbox)

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        """Store the message; 452 4.3.1 or 451 4.3.0 if that cannot be done now."""
        trace = stamp(
            session,
            envelope,
            hostname=self._hostname,
            queue_id=self._random_bytes(6).hex(),
            now=self._now(),
        )

        async def with_head() -> AsyncGenerator[bytes]:
            yield return_path(envelope.reverse_path) + trace
            async for chunk in content:
                yield chunk

        directories = [self.directory(path.mailbox) for path in envelope.forward_paths]
        try:
            async with aclosing(with_head()) as chunks:
                await self._writer.write(directories, chunks)
        except MailboxUnavailable as error:
            return error.reply
        return None
