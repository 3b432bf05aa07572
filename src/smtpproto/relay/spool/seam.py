"""The spool: where a message is safe between our 250 and the next hop's (RFC 5321 §4.2.5, §6.1).

Here are its values and its seam, `Spool`; `sqlite.py` is the real one. What every spool
promises:

- When `Incoming.commit` returns, the message and its recipients survive any crash. Only then may
  250 be said.
- A recipient stays until `settle` says that it is done: delivered, or reported in the same
  durable step. So nothing is lost; a message is sent twice only where we die between the next
  hop's 250 and `settle` (RFC 1047).
- `claim` lends recipients to one worker. A lease that ends, or that its owner did not survive,
  returns by itself.

All times are wall-clock seconds since the epoch, and handed in; but a lease ends by a steady clock,
which nobody sets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from math import inf
from typing import Protocol, TypeVar

from attrs import frozen

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.path import Mailbox

__all__ = [
    "CHUNK_OCTETS",
    "AtHand",
    "DamagedError",
    "Entry",
    "Fresh",
    "Incoming",
    "Pages",
    "Parked",
    "Recipient",
    "Settlement",
    "Spool",
    "SpoolUnavailable",
    "Successor",
    "Tally",
    "made_at",
    "new_id",
    "successor",
]

T = TypeVar("T")

#: Content is read in chunks of so many octets at most.
CHUNK_OCTETS = 1 << 16


@frozen
class Recipient:
    """One recipient of a message that is still owed to it.

    `number` is its place in the envelope, from 0, or that of a `successor`; nobody else of this
    message has it, ever. `attempts` counts those that failed,
    `next_attempt` is when the next is due, or less than 0, the time when the operator asked for it
    with its sign turned (`Spool.retry`: before all others), and
    `last_reply` what the last one was answered. `warned`: the sender knows that it is late. `alias`
    is the address that stood for this one, None if it was named by the sender. `mail` is under
    what it goes on, where that is not the message's own: a list has its own sender.
    """

    number: int
    rcpt: Rcpt
    attempts: int
    next_attempt: float
    last_reply: str | None
    warned: bool = False
    alias: Mailbox | None = None
    mail: Mail | None = None

    @property
    def asked(self) -> float | None:
        """When the operator asked for the next attempt, if he did."""
        return -self.next_attempt if self.next_attempt < 0 else None

    @property
    def held(self) -> bool:
        """Whether the operator has to let it go before it is tried; `last_reply` says why."""
        return self.next_attempt == inf


@frozen
class Entry:
    """A message in the spool, without its content.

    `octets` is the size of the content; `origin` one line for people: who handed it in.
    """

    id: str
    arrived: float
    mail: Mail
    recipients: tuple[Recipient, ...]
    octets: int
    origin: str


@frozen
class Successor:
    """A recipient in the place of another; `mail` as in Recipient."""

    rcpt: Rcpt
    mail: Mail | None = None


@frozen
class Tally:
    """What is in a spool: messages and recipients; `held` of these wait for the operator.

    `oldest` is when the oldest message arrived, None if there is none.
    """

    messages: int
    recipients: int
    held: int
    oldest: float | None


@frozen
class Parked:
    """Whose a message is that its sender wants to be sent later, and until when it waits."""

    owner: str
    until: float


@frozen
class Settlement:
    """What became of one recipient in an attempt.

    `next_attempt` is when to try again; None: it is done with, delivered or reported. `reply`
    says what the next hop answered, or why there was none; None: what is known of it stands.
    Without `counted` it was put off, not tried. `warned`: its sender is told that it is late.
    `becomes` are recipients that take its place, due at once: it was addressed to `alias`.
    """

    recipient: int
    next_attempt: float | None
    reply: str | None = None
    counted: bool = True
    warned: bool = False
    becomes: tuple[Successor, ...] = ()
    alias: Mailbox | None = None


@frozen
class Fresh:
    """A message that the relay makes itself: a report."""

    mail: Mail
    rcpts: tuple[Rcpt, ...]
    content: bytes
    origin: str


class SpoolUnavailable(Exception):  # noqa: N818 - a state of the spool, not an error of yours
    """The spool could not do it, and nothing has changed: tell the peer to come again later.

    `full`: there is no room (452 4.3.1); otherwise locked, an I/O error, damage… (451 4.3.0).
    The text is for the operator, never for the wire.
    """

    def __init__(self, text: str, *, full: bool = False) -> None:
        super().__init__(text)
        self.full = full


class DamagedError(SpoolUnavailable):
    """A message's content is not what came in, and must not go out for it.

    A spool that cannot tell raises SpoolUnavailable alone.
    """


class Incoming(Protocol):
    """A message on its way into the spool. One task writes it."""

    @property
    def id(self) -> str:
        """The id it will have, for its Received line."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Take more of the content; SpoolUnavailable spoils the message for good."""
        ...

    async def commit(
        self,
        mail: Mail,
        rcpts: Sequence[Rcpt],
        *,
        now: float,
        origin: str = "",
        held: str | None = None,
        parked: Parked | None = None,
    ) -> None:
        """Keep the message; it is durable when this returns, and due at once.

        With `held`, a reason in words, it is not due before `Spool.retry` names it. With `parked`
        it is counted by `Spool.parked`; when it is due does not change by that.

        Once begun it waits for its outcome, even when it is cancelled: it returns, or raises
        SpoolUnavailable and has kept nothing. Where a framework tears it from its wait all the
        same (`asyncio.Task.cancel`), the message may have been kept without a 250, and will
        come again: twice, not lost. ValueError for no recipients.
        """
        ...


class Spool(Protocol):
    """Keeps messages. Any method may raise SpoolUnavailable, having changed nothing."""

    def receive(self) -> AbstractAsyncContextManager[Incoming]:
        """Begin a message. Leaving without `commit` discards it."""
        ...

    async def claim(self, now: float, limit: int, lease: float) -> list[Entry]:
        """Borrow at most `limit` messages for `lease` seconds, the longest due first.

        Each comes with those of its recipients that are due and not lent, and nobody gets these
        again before the lease ends or `settle` or `release` names them. So let `lease` outlast
        the longest attempt. It is not interrupted, so that what is lent is known to somebody.
        """
        ...

    async def settle(
        self,
        id: str,
        settlements: Sequence[Settlement],
        fresh: Sequence[Fresh] = (),
        *,
        now: float,
    ) -> list[str]:
        """Record an attempt, and take in the reports it gave rise to: one durable step.

        Recipients named are done or deferred (one attempt more, if it is counted) and no longer
        lent; others are left alone. With its last recipient goes the message. One deferred whom
        `retry` named since he was claimed is due as that said. Returns the ids of `fresh`.

        Does nothing and returns [] where the message is gone, or none of the recipients named is
        still there: the operator deleted it, or another worker settled it after the lease.
        Like `Incoming.commit` it is not interrupted: what was delivered must be written down.
        """
        ...

    async def release(self, entries: Iterable[Entry]) -> None:
        """Give claimed recipients back, without an attempt counted."""
        ...

    def content(self, id: str) -> AsyncIterator[bytes]:
        """Read the content in chunks of at most 64 KiB; an `AtHand` may be all of it.

        SpoolUnavailable if it is not there (any more); DamagedError, before the last chunk is out,
        if it is not what came in.
        """
        ...

    async def next_due(self) -> float | None:
        """Return when the next `claim` can have something: a time due, or the end of a lease.

        None when the spool is empty. What another process has asked for may show no sooner than
        at that claim.
        """
        ...

    def entries(self) -> AsyncIterator[Entry]:
        """Read all messages, by id, with all their recipients.

        Page by page, so one that comes or goes meanwhile may or may not be among them.
        """
        ...

    async def get(self, id: str) -> Entry | None:
        """Return one message with all its recipients; None if there is none."""
        ...

    async def parked(self, owner: str, now: float) -> tuple[int, int]:
        """Return how many messages of an owner are parked for longer than `now`; and octets."""
        ...

    async def retry(self, id: str | None, now: float) -> int:
        """Make all recipients of a message (None: of all that are not held) due now.

        They come before all others, and are known by `Recipient.asked`. Those being tried are not
        lent to a second worker; if that attempt fails, there is one more at once, for what was
        mended may have come too late for it. Returns how many they are, those left out that had
        been asked for before.
        """
        ...

    async def hold(self, id: str, reason: str) -> int:
        """Keep a message where it is until `retry` names it, however old it grows.

        An attempt that is under way goes on; where another process serves the spool, one may still
        begin for a moment. Returns how many recipients are held now that were not.
        """
        ...

    async def delete(self, id: str) -> bool:
        """Drop a message without a report, being delivered or not; False if there is none."""
        ...


class Pages(AsyncIterator[T]):
    """Iterates over what `fetch` returns, call after call, until it returns nothing.

    Unlike an async generator it holds nothing between two steps: it may be left half-read.
    """

    def __init__(self, fetch: Callable[[], Awaitable[Sequence[T]]]) -> None:
        self._fetch = fetch
        self._page: list[T] = []

    async def __anext__(self) -> T:
        if not self._page:
            self._page = list(reversed(await self._fetch()))
            if not self._page:
                raise StopAsyncIteration
        return self._page.pop()


class AtHand(AsyncIterator[bytes]):
    """Content that need not be read: `octets` are all of it."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self._rest = octets

    async def __anext__(self) -> bytes:
        if not self._rest:
            raise StopAsyncIteration
        chunk, self._rest = self._rest[:CHUNK_OCTETS], self._rest[CHUNK_OCTETS:]
        return chunk


_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE = len(_DIGITS)
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]

#: How many random numbers `new_id` tells apart.
ID_RANDOM = _BASE**6


def new_id(now: float, random: int) -> str:
    """Make the id of a message: 15 letters and digits, which sort (as octets) by time.

    `now` in seconds since the epoch, used to the microsecond; `random` in [0, ID_RANDOM).
    It is an atom (RFC 5322 §3.2.3), so it fits the ID clause of Received (RFC 5321 §4.4), and
    it is safe as a file name.
    """
    return _base62(max(0, int(now * 1_000_000)), 9) + _base62(random, 6)


def successor(number: int, n: int) -> int:
    """Return the number of the nth (from 0) of those in the place of a recipient.

    It is nobody's among the first 2**20 of an envelope and their successors, nor theirs again.
    """
    return (number + 1 << 20) + n


def made_at(id: str) -> float | None:
    """Return when an id was made, in seconds since the epoch; None if `new_id` made no such one."""
    if len(id) != 15 or any(character not in _DIGITS for character in id):
        return None
    number = 0
    for character in id[:9]:
        number = number * _BASE + _DIGITS.index(character)
    return number / 1_000_000


def _base62(number: int, width: int) -> str:
    digits = ""
    while len(digits) < width:
        number, pair = divmod(number, _BASE * _BASE)
        digits = _PAIRS[pair] + digits
    return digits[-width:]
