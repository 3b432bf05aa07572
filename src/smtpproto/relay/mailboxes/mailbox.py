"""Mailboxes: where mail that has arrived is kept.

`MailboxStore` is the seam; what a store can do beyond are Protocols of their own. `Maildir` is the
one real store: a file for each message, whole or not there at all, on disk when `deliver` returns
(`smtpproto.maildir`).

An address may have a tag, `ann+shop@our.dom`, which RFC 5233 calls the detail behind the user and
a separator. Where it names no mailbox of its own, it is the user's.
"""

from __future__ import annotations

import os
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import anyio
import anyio.to_thread
from attrs import frozen

from smtpproto.core.path import MAX_PATH, AnyMailbox, Mailbox, as_octets
from smtpproto.maildir import MailboxUnavailable, MaildirWriter
from smtpproto.relay.routing.transport import folded, folded_name

from .aliases import Aliases, CatchAll, MailingList, delivered_to
from .quota import MaildirSize, Quota, QuotaPolicy, no_quotas

__all__ = [
    "Bounded",
    "Discerning",
    "MailboxPolicy",
    "MailboxStore",
    "MailboxesFirst",
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


@runtime_checkable
class Discerning(Protocol):
    """A store that tells mailboxes it knows from those that would be made as mail comes."""

    async def knows(self, mailbox: Mailbox) -> bool:
        """Tell whether mail for `mailbox` has a place of its own; as `exists` else."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """A store whose mailboxes may be full."""

    async def is_full(self, mailbox: Mailbox) -> bool:
        """Tell whether there is no room now for any mail for `mailbox`; as `exists` else."""
        ...


@frozen
class MailboxesFirst:
    """Aliases without those catch-alls that would take the mail of a mailbox that is there."""

    aliases: Aliases
    mailboxes: MailboxStore

    async def find(self, mailbox: Mailbox) -> Sequence[Mailbox] | MailingList | None:
        """Return what an address stands for; None if it is no alias, or a mailbox comes first."""
        found = await self.aliases.find(mailbox)
        if found is None or not isinstance(self.aliases, CatchAll):
            return found
        if await self.aliases.is_caught(mailbox) and await self._knows(mailbox):
            return None
        return found

    async def _knows(self, mailbox: Mailbox) -> bool:
        store = self.mailboxes
        return await (store.knows if isinstance(store, Discerning) else store.exists)(mailbox)


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
    listed = {folded_name(name) for name in names}

    async def policy(mailbox: Mailbox, directory: Path) -> bool:
        return folded(mailbox) in listed or mailbox.local_part.lower() in listed

    return policy


#: A tag that may name a folder. Anything else may not: no dot, which would be a folder in a folder,
#: nothing that a path or modified UTF-7 (RFC 3501 §5.1.3) gives a meaning to.
_FOLDER = re.compile(rb"[A-Za-z0-9_=+-]{1,100}")
_NOT_FOLDERS = (b"trash",)  # its mail is counted for nobody, and soon gone


@frozen
class _Home:
    """The mailbox that an address comes to, and the tag that was left out for it."""

    mailbox: Mailbox
    tag: bytes = b""


class Maildir:
    """Keeps mail below `root`, as a Maildir for each mailbox: ROOT/<domain>/<mailbox>/.

    `hostname`, `now` and `random_bytes` are for the names of files, as `MaildirWriter` has them.
    `policy` tells which mailboxes exist; Postmaster does in any case (RFC 5321 §4.5.1). `quota`
    tells what one may hold, counted as Maildir++ does (`quota.py`).

    Mail for an address with a tag, behind the first `separator` (empty for none), goes to the
    mailbox of that name; where there is none, to the one without the tag, with a Delivered-To that
    tells the whole address. With `folders`, it goes into that one's folder of the same name, if it
    has such a folder.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        hostname: str,
        now: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        policy: MailboxPolicy = every_mailbox,
        quota: QuotaPolicy = no_quotas,
        separator: str = "+",
        folders: bool = False,
    ) -> None:
        self._writer = MaildirWriter(root, hostname=hostname, now=now, random_bytes=random_bytes)
        self._now = now
        self._policy = policy
        # Who takes everybody has a mailbox for each tag, too; only those that are there are meant.
        self._known = present_mailboxes if policy is every_mailbox else policy
        self._quota = quota
        self._separator = as_octets(separator)
        self._folders = folders

    def directory(self, mailbox: Mailbox) -> Path:
        """Return the place of a mailbox by its own name; it need not exist."""
        return self._writer.directory(mailbox)

    async def exists(self, mailbox: Mailbox) -> bool:
        """Tell whether the policy knows `mailbox`; MailboxUnavailable if it could not look."""
        try:
            return await self._home(mailbox) is not None
        except OSError as error:
            raise MailboxUnavailable.because(error) from error

    async def knows(self, mailbox: Mailbox) -> bool:
        """Tell whether `mailbox` exists, and not only because everyone does, or as Postmaster."""
        try:
            for each in (mailbox, self._without_tag(mailbox)):
                if each is not None and await self._known(each, self.directory(each)):
                    return True
        except OSError as error:
            raise MailboxUnavailable.because(error) from error
        return False

    async def is_full(self, mailbox: Mailbox) -> bool:
        """Tell whether the quota of `mailbox` is used up; MailboxUnavailable as above."""
        try:
            home = await self._home(mailbox)
            if home is None or (quota := await self._quota(home.mailbox)) == Quota():
                return False
            return await anyio.to_thread.run_sync(self._size(home.mailbox, quota).is_full)
        except OSError as error:
            raise MailboxUnavailable.because(error) from error

    async def deliver(self, mailbox: Mailbox, content: AsyncIterable[bytes]) -> None:
        """Keep `content` (see MailboxStore.deliver).

        MailboxUnavailable 452 4.3.1 or 451 4.3.0; and by the quota 452 4.2.2 if the mailbox is
        full, and 552 5.2.2 if the message would not even fit alone.
        """
        await self.deliver_once(mailbox, content, key="", again=False)

    async def deliver_once(
        self, mailbox: Mailbox, content: AsyncIterable[bytes], *, key: str, again: bool
    ) -> None:
        """Keep `content` (see Recognizing.deliver_once); errors as with `deliver`."""
        try:
            tagged = self._without_tag(mailbox) is not None
            home = (await self._home(mailbox) if tagged else None) or _Home(mailbox)
            quota = await self._quota(home.mailbox)
            place = self.directory(home.mailbox)
            if self._folders and home.tag:
                place = await anyio.to_thread.run_sync(_folder, place, home.tag)
        except OSError as error:
            raise MailboxUnavailable.because(error) from error
        if again and await self._writer.find(place, key):
            return
        write = partial(self._writer.write, [place], key=key, meter=self._size(home.mailbox, quota))
        if home.mailbox == mailbox:
            await write(content)
            return
        async with aclosing(_marked(mailbox, content)) as marked:
            await write(marked)

    def _size(self, mailbox: Mailbox, quota: Quota) -> MaildirSize:
        return MaildirSize(
            self.directory(mailbox), quota, now=self._now, unique_name=self._writer.unique_name
        )

    async def _home(self, mailbox: Mailbox) -> _Home | None:
        """Find where mail for an address is kept; None if it is nowhere."""
        plain = self._without_tag(mailbox)
        if plain is not None:
            if await self._known(mailbox, self.directory(mailbox)):
                return _Home(mailbox)
            if await self._exists(plain):
                tag = mailbox.local_part[len(plain.local_part) + len(self._separator) :]
                return _Home(plain, tag)
        return _Home(mailbox) if await self._exists(mailbox) else None

    async def _exists(self, mailbox: Mailbox) -> bool:
        if mailbox.local_part.lower() == b"postmaster":
            return True
        return await self._policy(mailbox, self.directory(mailbox))

    def _without_tag(self, mailbox: Mailbox) -> Mailbox | None:
        """Return the mailbox of an address with a tag; None if it has none."""
        if not self._separator:
            return None
        user, separator, _ = mailbox.local_part.partition(self._separator)
        return Mailbox(user, mailbox.domain) if user and separator else None


def _folder(directory: Path, tag: bytes) -> Path:
    """Return the folder of a Maildir that has a tag's name, in any case; else the Maildir. Blocks.

    Only what is there: the names of folders are their owner's, and no sender makes any.
    """
    if _FOLDER.fullmatch(tag) is None or tag.lower() in _NOT_FOLDERS:
        return directory
    wanted = f".{tag.decode()}"
    try:
        with os.scandir(directory) as entries:
            found = sorted(
                entry.name
                for entry in entries
                if entry.name.lower() == wanted.lower() and entry.is_dir(follow_symlinks=False)
            )
    except FileNotFoundError:
        return directory
    if not found:
        return directory
    return directory / (wanted if wanted in found else found[0])


async def _marked(mailbox: Mailbox, content: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Write behind the first line, the Return-Path, which address the message came to."""
    head = b""
    chunks = aiter(content)
    async for chunk in chunks:
        head += chunk
        if b"\r\n" in head or len(head) > 2 * MAX_PATH:
            break
    first, line_end, rest = head.partition(b"\r\n")
    yield (
        first + line_end + delivered_to(mailbox) + rest
        if line_end
        else delivered_to(mailbox) + head
    )
    async for chunk in chunks:
        yield chunk
