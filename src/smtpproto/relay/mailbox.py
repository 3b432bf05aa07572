"""Mailboxes: where mail that has arrived is kept.

`MailboxStore` is the seam; `Maildir` is the one real store: a file for each message, whole or
not there at all, on disk when `deliver` returns (`smtpproto.maildir`).
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import anyio
import anyio.to_thread

from smtpproto.core.path import AnyMailbox, Mailbox, as_octets
from smtpproto.maildir import MailboxUnavailable, MaildirWriter

__all__ = [
    "MailboxPolicy",
    "MailboxStore",
    "Maildir",
    "Recognizing",
    "deliver_once",
    "every_mailbox",
    "listed_mailboxes",
    "present_mailboxes",
]


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


@runtime_checkable
class Recognizing(Protocol):
    """A store that knows a delivery again which was made before a crash."""

    async def deliver_once(
        self, mailbox: Mailbox, content: AsyncIterable[bytes], *, key: str, again: bool
    ) -> None:
        """Deliver as `deliver` does, and under a key, which no other delivery has.

        `again`: it may have been made already, by one who did not live to write that down. What is
        found under this key counts as delivered then.
        """
        ...


async def deliver_once(
    store: MailboxStore,
    mailbox: Mailbox,
    content: AsyncIterable[bytes],
    *,
    key: str,
    again: bool,
) -> None:
    """Deliver into a store, once if it can tell (`Recognizing`)."""
    if isinstance(store, Recognizing):
        await store.deliver_once(mailbox, content, key=key, again=again)
    else:
        await store.deliver(mailbox, content)


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


class Maildir:
    """Keeps mail below `root`, as a Maildir for each mailbox: ROOT/<domain>/<mailbox>/.

    `hostname`, `now` and `random_bytes` are for the names of files, as `MaildirWriter` has them.
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
        self._writer = MaildirWriter(root, hostname=hostname, now=now, random_bytes=random_bytes)
        self._policy = policy

    def directory(self, mailbox: Mailbox) -> Path:
        """Return where mail for `mailbox` is kept; it need not exist."""
        return self._writer.directory(mailbox)

    async def exists(self, mailbox: Mailbox) -> bool:
        """Tell whether the policy knows `mailbox`; MailboxUnavailable if it could not look."""
        if mailbox.local_part.lower() == b"postmaster":
            return True
        try:
            return await self._policy(mailbox, self.directory(mailbox))
        except OSError as error:
            raise MailboxUnavailable.because(error) from error

    async def deliver(self, mailbox: Mailbox, content: AsyncIterable[bytes]) -> None:
        """Keep `content` (see MailboxStore.deliver); MailboxUnavailable 452 4.3.1 or 451 4.3.0."""
        await self._writer.write([self.directory(mailbox)], content)

    async def deliver_once(
        self, mailbox: Mailbox, content: AsyncIterable[bytes], *, key: str, again: bool
    ) -> None:
        """Keep `content` (see Recognizing.deliver_once); errors as with `deliver`."""
        directory = self.directory(mailbox)
        if not (again and await self._writer.find(directory, key)):
            await self._writer.write([directory], content, key=key)
