"""What a mailbox may hold, and Maildir++'s file that says what it does hold.

That file, `maildirsize`, is shared with Courier, Dovecot and others who keep to it: a line with the
limits, then lines with octets and messages that came or, below 0, went. Their sum is what is there,
subfolders included, the folder Trash not. It is written without locks, by appending and by renaming
a new one over it, and is no more than a cache: a crash between a message and its line leaves it off
by that message, and so may two who count at once. Counting anew mends that, which everybody does
who finds the file missing, too long, or saying that a mailbox is full.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from attrs import frozen

from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.maildir import MailboxUnavailable
from smtpproto.relay.routing.transport import folded, folded_name

__all__ = ["MaildirSize", "Quota", "QuotaPolicy", "Usage", "no_quotas", "quotas"]

FULL = Reply(452, "4.2.2", "Mailbox full, try again later")
TOO_LARGE = Reply(552, "5.2.2", "Message larger than all that this mailbox may hold")

#: Maildir++: a file of so many octets is made anew, and one of so many seconds not taken at its
#: word that a mailbox is full.
MAX_FILE = 5120
STALE = 15 * 60

#: The folder that takes what is on its way out, and is not counted.
TRASH = ".Trash"

_SIZE = re.compile(r",S=([0-9]{1,18})(?=[,:]|\Z)")
_LIMIT = re.compile(rb"([0-9]{1,18})([SC])")
_CHANGE = re.compile(rb" *(-?[0-9]{1,18}) +(-?[0-9]{1,18}) *")


@frozen
class Usage:
    """So many octets, in so many messages."""

    octets: int = 0
    messages: int = 0


@frozen
class Quota:
    """What a mailbox may hold, in octets and in messages; 0 is no limit."""

    octets: int = 0
    messages: int = 0

    def holds(self, usage: Usage) -> bool:
        """Tell whether so much is within it."""
        return (not self.octets or usage.octets <= self.octets) and (
            not self.messages or usage.messages <= self.messages
        )


#: Tells what a mailbox may hold.
QuotaPolicy: TypeAlias = "Callable[[Mailbox], Awaitable[Quota]]"


async def no_quotas(mailbox: Mailbox) -> Quota:
    """The policy by which every mailbox may hold whatever comes."""
    return Quota()


def quotas(default: Quota, table: Mapping[str, Quota] | None = None) -> QuotaPolicy:
    """Return the policy by which mailboxes in `table` have the quotas there, and others `default`.

    A name is a mailbox (`ann@example.org`), or a local part alone, which is then one in every
    domain. Case makes no difference. Postmaster, whose mail is not to be refused
    (RFC 5321 §4.5.1), has none unless it is in the table.
    """
    listed = {folded_name(name): quota for name, quota in (table or {}).items()}

    async def policy(mailbox: Mailbox) -> Quota:
        local_part = mailbox.local_part.lower()
        for name in (folded(mailbox), local_part):
            if name in listed:
                return listed[name]
        return Quota() if local_part == b"postmaster" else default

    return policy


class MaildirSize:
    """The file `maildirsize` of one Maildir, for one delivery (a `maildir.Meter`). It blocks.

    `now` is wall time, `unique_name` makes the name of a file in `tmp`. Without a quota no file
    is made; one that is there is still kept up to date, for others.
    """

    def __init__(
        self,
        directory: Path,
        quota: Quota,
        *,
        now: Callable[[], float],
        unique_name: Callable[[], str],
    ) -> None:
        self._directory = directory
        self._file = directory / "maildirsize"
        self._quota = quota
        self._now = now
        self._unique_name = unique_name
        # Of the file that admitted the message, which is the one that has to learn of it.
        self._descriptor: int | None = None

    def is_full(self) -> bool:
        """Tell whether there is no room for even the smallest message."""
        try:
            return not self._holds_too(1)
        finally:
            self.close()

    def bound(self, octets: int) -> None:
        """Raise MailboxUnavailable 552 if a message of so many octets, or more, can never fit."""
        if self._quota.octets and octets > self._quota.octets:
            raise MailboxUnavailable(TOO_LARGE)

    def admit(self, octets: int) -> None:
        """Raise MailboxUnavailable if there is no room for a message of so many octets.

        552 if there never will be, and 452 if only now.
        """
        self.bound(octets)
        if not self._holds_too(octets):
            raise MailboxUnavailable(FULL)

    def add(self, octets: int) -> None:
        """Count a message of so many octets, which has been admitted and is in `new` now."""
        if self._descriptor is None:
            return  # there is no file, and who makes one will find the message
        line = b"%d 1\n" % octets
        try:
            written = os.write(self._descriptor, line)
            # Who made a new file meanwhile may have seen the message or not. And half a line
            # would make a wrong one of the next.
            if written < len(line) or not os.fstat(self._descriptor).st_nlink:
                self._file.unlink(missing_ok=True)
        except OSError:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def _holds_too(self, octets: int) -> bool:
        """Tell whether there is room for one more message; keep the file that says so open."""
        with suppress(OSError):  # missing, or not for us to open; but we may make one
            flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._file, flags)
        if self._quota == Quota():
            return True
        found = None if self._descriptor is None else self._read(self._descriptor)
        if found is not None:
            usage, may_be_wrong = found
            if self._quota.holds(_with(usage, octets)):
                return True
            if not may_be_wrong:
                return False
        self.close()
        return self._quota.holds(_with(self._count_anew(), octets))

    def _read(self, descriptor: int) -> tuple[Usage, bool] | None:
        """Return the sum, and whether it is worth counting anew; None if that has to be done."""
        octets = os.read(descriptor, MAX_FILE)
        if len(octets) >= MAX_FILE or not octets.endswith(b"\n"):
            return None
        first, *lines = octets.split(b"\n")[:-1]
        if _limits(first) != self._quota:
            return None
        size = count = 0
        for line in lines:
            change = _CHANGE.fullmatch(line)
            if change is None:
                return None
            size += int(change[1])
            count += int(change[2])
        if size < 0 or count < 0:
            return None
        old = self._now() - os.fstat(descriptor).st_mtime >= STALE
        return Usage(size, count), len(lines) > 1 or old

    def _count_anew(self) -> Usage:
        """Count all that is there, and write a new file if nothing moves meanwhile."""
        before = {place: _changed(place) for place in self._places()}
        size = count = 0
        for place in before:
            for octets in _sizes(place):
                size += octets
                count += 1
        usage = Usage(size, count)
        with suppress(OSError):  # it is a cache; and there may be no Maildir yet
            self._write(usage)
            if before != {place: _changed(place) for place in self._places()}:
                self.close()
                self._file.unlink()
        return usage

    def _write(self, usage: Usage) -> None:
        limits = [f"{self._quota.octets}S"] if self._quota.octets else []
        limits += [f"{self._quota.messages}C"] if self._quota.messages else []
        text = f"{','.join(limits)}\n{usage.octets} {usage.messages}\n"
        temporary = self._directory / "tmp" / self._unique_name()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(temporary, flags, 0o600)
        try:
            if os.write(self._descriptor, text.encode()) < len(text):
                raise OSError("half a file")
            temporary.replace(self._file)
        except OSError:
            self.close()
            temporary.unlink()
            raise

    def _places(self) -> Iterator[Path]:
        """Give the directories that hold what is counted."""
        folders = [self._directory]
        with suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            folders += [
                Path(entry.path)
                for entry in entries
                if entry.name.startswith(".") and entry.name != TRASH
                if entry.is_dir(follow_symlinks=False)
            ]
        for folder in folders:
            yield folder / "new"
            yield folder / "cur"


def _with(usage: Usage, octets: int) -> Usage:
    return Usage(usage.octets + octets, usage.messages + 1)


def _limits(line: bytes) -> Quota | None:
    """Read the first line; None if it has what we know nothing of."""
    found = {"S": 0, "C": 0}
    for part in line.split(b","):
        limit = _LIMIT.fullmatch(part)
        if limit is None:
            return None
        found[limit[2].decode()] = int(limit[1])
    return Quota(found["S"], found["C"])


def _changed(place: Path) -> int | None:
    try:
        return place.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _sizes(place: Path) -> Iterator[int]:
    """Give the sizes of the messages in a directory, by their names where these tell."""
    with suppress(FileNotFoundError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            told = _SIZE.search(entry.name)
            if told is not None:
                yield int(told[1])
                continue
            with suppress(FileNotFoundError):  # somebody has moved it
                yield entry.stat().st_size
