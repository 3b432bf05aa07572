"""Faults in what is kept: on the disk, in the queue, in memory; and in who has to wait."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import anyio
from anyio import CancelScope
from attrs import evolve

from smtpproto.maildir import MaildirWriter
from smtpproto.relay.delivery import dispatch
from smtpproto.relay.delivery.attempt import Attempt
from smtpproto.relay.delivery.deliver import Deliverer
from smtpproto.relay.delivery.dispatch import Dispatcher
from smtpproto.relay.delivery.hops import Hops
from smtpproto.relay.spool import database, sqlite
from smtpproto.relay.spool.disk import Disk
from smtpproto.relay.spool.incoming import SQLiteIncoming
from smtpproto.relay.spool.seam import Fresh, Pages
from smtpproto.relay.spool.work import Work
from smtpproto.result import Fate
from smtpproto.session import ClientSession

from .base import Sabotage, replace

__all__ = ["KEEPING"]


# What is accepted


@contextmanager
def early_250() -> Iterator[None]:
    """250 is said when the message is about to be written."""

    async def commit(
        self: Any, mail: Any, rcpts: Any, *, now: float, origin: str = "", **_: Any
    ) -> None:
        new = Fresh(mail, tuple(rcpts), b"", origin)
        with CancelScope(shield=True):
            await self.finish()
            back = partial(self._spool._leases.back_to, now, self.id)
            self.work = Work(lambda db: self.insert(db, new, now), then=back)
            self.work.kept = True
            self._spool.database._changes.works.append(self.work)
            self._spool.database._wake.set()

    with patch.object(SQLiteIncoming, "commit", commit):
        yield


def no_sync() -> AbstractContextManager[Any]:
    """The database is not synced at a commit."""

    def make(connect: Any) -> Any:
        def careless(*args: Any, **how: Any) -> Any:
            db = connect(*args, **how)
            db.execute("PRAGMA synchronous = NORMAL")
            return db

        return careless

    return replace(database, "connect", make)


def no_directory_sync() -> AbstractContextManager[Any]:
    """A new file's name is not synced."""

    def make(seal: Any) -> Any:
        def careless(self: Any) -> None:
            with patch.object(type(self._spool.disk), "sync_directory", lambda *_: None):
                seal(self)

        return careless

    return replace(SQLiteIncoming, "_seal", make)


def tidy_start() -> AbstractContextManager[Any]:
    """A start removes all files of content."""

    def make(recover: Any) -> Any:
        def careless(self: Any, db: Any, files: Sequence[str]) -> None:
            recover(self, db, files)
            for name in files:
                Disk.remove(self.disk, self._content / name)

        return careless

    return replace(sqlite.SQLiteSpool, "_recover", make)


def half_content() -> AbstractContextManager[Any]:
    """Of what stands in a file only the first part is read."""

    def make(content: Any) -> Any:
        def careless(self: Any, id: str) -> Pages[bytes]:
            pages, read = content(self, id), 0

            async def fetch() -> list[bytes]:
                nonlocal read
                chunk = b"" if read else await anext(pages, b"")
                read += len(chunk)
                return [chunk[:20_000]] if chunk else []

            return Pages(fetch)

        return careless

    return replace(sqlite.SQLiteSpool, "content", make)


# What is settled


def forgets_to_settle() -> AbstractContextManager[Any]:
    """What was delivered is not written down."""

    def make(settle: Any) -> Any:
        async def careless(self: Any, entry: Any, settlements: Any, fresh: Any) -> Any:
            kept = [each for each in settlements if each.next_attempt is not None or fresh]
            return await settle(self, entry, kept, fresh)

        return careless

    return replace(Dispatcher, "_settle", make)


def reports_later() -> AbstractContextManager[Any]:
    """That somebody is given up is written down, and then the report is."""

    def make(settle: Any) -> Any:
        async def careless(
            self: Any, id: str, settlements: Any, fresh: Any = (), *, now: float
        ) -> list[str]:
            await settle(self, id, settlements, (), now=now)
            ids: list[str] = []
            for new in fresh:
                async with self._begin() as incoming:
                    await incoming.write(new.content)
                    await incoming.commit(new.mail, new.rcpts, now=now, origin=new.origin)
                    ids.append(incoming.id)
            return ids

        return careless

    return replace(sqlite.SQLiteSpool, "settle", make)


def short_lease() -> AbstractContextManager[Any]:
    """A lease ends before the attempt that it is for."""

    def make(claim: Any) -> Any:
        async def careless(self: Any, now: float, limit: int, lease: float) -> Any:
            return await claim(self, now, limit, 5.0)

        return careless

    return replace(sqlite.SQLiteSpool, "claim", make)


def settles_before() -> AbstractContextManager[Any]:
    """A recipient is written off before it is tried."""

    def make(attempt: Any) -> Any:
        async def careless(self: Any, entry: Any, done: Any) -> None:
            await done(
                [Attempt(r, Fate.ACCEPTED, "there", reason="surely") for r in entry.recipients]
            )

        return careless

    return replace(Deliverer, "attempt", make)


def hasty() -> AbstractContextManager[Any]:
    """A 4yz is taken for a 5yz."""

    def make(judge: Any) -> Any:
        def careless(entry: Any, attempt: Any, **how: Any) -> Any:
            if attempt.fate is Fate.TRANSIENT and attempt.reply is not None:
                attempt = evolve(attempt, fate=Fate.PERMANENT)
            return judge(entry, attempt, **how)

        return careless

    return replace(dispatch, "judge", make)


def sends_again() -> AbstractContextManager[Any]:
    """What was sent is sent once more."""

    def make(to_host: Any) -> Any:
        async def careless(self: Any, *how: Any) -> Any:
            await to_host(self, *how)
            return await to_host(self, *how)

        return careless

    return replace(Deliverer, "_to_host", make)


def looks_for_nothing() -> AbstractContextManager[Any]:
    """Nobody looks whether a mailbox has the message from a life before."""

    async def nothing(self: Any, directory: Any, key: str) -> bool:
        return False

    return patch.object(MaildirWriter, "find", nothing)


# Who has to wait


def one_at_a_time() -> AbstractContextManager[Any]:
    """A message waits for the one before it."""

    def make(attempt: Any) -> Any:
        locks: dict[int, anyio.Lock] = {}

        async def careless(self: Any, entry: Any, done: Any) -> None:
            async with locks.setdefault(id(self), anyio.Lock()):
                await attempt(self, entry, done)

        return careless

    return replace(Deliverer, "attempt", make)


def holds_for_ever() -> AbstractContextManager[Any]:
    """A next hop that was down is never tried again."""

    def make(down: Any) -> Any:
        def careless(self: Any, name: str, *args: Any, **how: Any) -> None:
            down(self, name, *args, **how)
            if name in self._down:
                failures, hold = self._down[name]
                self._down[name] = failures, evolve(hold, until=hold.until + 30 * 86400)

        return careless

    return replace(Hops, "down", make)


def sleeps_in() -> AbstractContextManager[Any]:
    """Nobody is woken when a message comes in."""
    return patch.object(Dispatcher, "wake", lambda self: None)


# What is kept


def forgets_its_hands() -> AbstractContextManager[Any]:
    """Who is done with a message still counts as busy."""

    def make(conclude: Any) -> Any:
        async def careless(self: Any, hand: Any) -> None:
            await conclude(self, hand)
            self._busy[-1 - len(self._busy)] = hand.entry

        return careless

    return replace(Dispatcher, "_conclude", make)


def leaks_connections() -> AbstractContextManager[Any]:
    """A session is left without closing its connection."""

    def make(aclose: Any) -> Any:
        async def careless(self: Any, reason: str = "") -> None:
            self.clock.off()
            self.pump.closed = True

        return careless

    return replace(ClientSession, "aclose", make)


def leaves_files() -> AbstractContextManager[Any]:
    """The file of a message that is gone is not removed."""

    async def nothing(self: Any, paths: Any) -> None:
        pass

    return patch.object(sqlite.SQLiteSpool, "_remove", nothing)


KEEPING = (
    Sabotage("250 before the commit", ("lost", "starves"), early_250),
    Sabotage("no sync of the database", ("lost", "twice", "starts"), no_sync),
    Sabotage("no sync of a name", ("lost", "starts"), no_directory_sync),
    Sabotage(
        "a start that tidies up too much", ("lost", "content", "faults", "starts"), tidy_start
    ),
    Sabotage("half of the content", ("content", "faults", "lost"), half_content),
    Sabotage("forgets to settle", ("twice", "lost"), forgets_to_settle),
    Sabotage("settles before it delivers", ("lost",), settles_before),
    Sabotage("a lease that is too short", ("twice", "reports"), short_lease),
    Sabotage("4yz is taken for 5yz", ("lost",), hasty),
    Sabotage("sends again", ("twice",), sends_again),
    Sabotage("a mailbox that knows nothing again", ("twice",), looks_for_nothing),
    Sabotage("reports later", ("lost", "reports"), reports_later),
    Sabotage("one message at a time", ("starves",), one_at_a_time, first=80),
    Sabotage("holds for ever", ("lost", "empties"), holds_for_ever),
    Sabotage("nobody is woken", ("starves",), sleeps_in),
    Sabotage("busy for ever", ("memory", "empties"), forgets_its_hands),
    Sabotage("leaks connections", ("memory",), leaks_connections),
    Sabotage("leaves files", ("empties",), leaves_files),
)
