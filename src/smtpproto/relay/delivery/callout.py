"""Who exists elsewhere: asked before mail is taken for a domain of ours that is not here.

Without an answer all of it is taken, and what the next hop refuses comes back as a report: to
senders that are forged, mostly. `Verifier` is the seam; `Callout` is the one real verifier, which
asks the next hop itself while the client waits for the answer to RCPT, and remembers what it said.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol

import anyio
from attrs import define, field, frozen

from smtpproto.client import Client
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply, Severity
from smtpproto.core.status import EnhancedStatus
from smtpproto.relay.routing.transport import Host, NextHop
from smtpproto.result import ClientError, ConnectError, RefusedError

from .hops import Hops

__all__ = ["Callout", "Verifier"]

log = logging.getLogger(__name__)

UNSURE = Reply(451, "4.4.1", "The mailbox cannot be asked for now, try again later")


class Verifier(Protocol):
    """Tells whether mail for a recipient of ours, who lives elsewhere, is to be taken."""

    async def verify(self, mailbox: Mailbox, route: NextHop) -> Reply | None:
        """Return None for yes; 5yz for no, or 4yz if that is not known for now.

        `route` is where its mail goes. What is raised is answered with 451.
        """
        ...


@frozen
class _Known:
    since: float
    until: float
    refusal: Reply | None


@define(eq=False)
class Callout:
    """Asks the next hop, by MAIL from `<>` and RCPT, and sends nothing.

    `client` makes the client for a host. An answer is good for `yes` or `no` seconds, by `clock`
    (wall time in seconds since the epoch). A yes is good for longer where the next hop cannot be
    asked: so a backup takes mail for those whom it knows, while all others are put off. No more
    than `capacity` of each are remembered, and no more than `at_once` questions asked at a time,
    for `patience` seconds each. What is down is not asked: `hops` knows, and learns.
    """

    client: Callable[[Host], Client]
    hops: Hops
    clock: Callable[[], float]
    yes: float = 86400.0
    no: float = 600.0
    capacity: int = 10_000
    at_once: int = 10
    patience: float = 20.0

    _yes: OrderedDict[Hashable, _Known] = field(factory=OrderedDict[Hashable, _Known], init=False)
    _no: OrderedDict[Hashable, _Known] = field(factory=OrderedDict[Hashable, _Known], init=False)
    _places: anyio.Semaphore = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._places = anyio.Semaphore(self.at_once)

    async def verify(self, mailbox: Mailbox, route: NextHop) -> Reply | None:
        """Return what is known, or what the next hop says."""
        key = route.name, mailbox
        known = self._yes.get(key) or self._no.get(key)
        if known is not None and known.since <= self.clock() < known.until:
            return known.refusal
        if not mailbox.is_ascii:
            return None  # to be asked with SMTPUTF8 alone: it is taken
        refusal: Reply | None = UNSURE
        with anyio.move_on_after(self.patience):
            async with self._places:
                refusal = await self._ask(mailbox, route)
        if refusal is None:
            self._no.pop(key, None)
            now = self.clock()
            self._remember(self._yes, key, _Known(now, now + self.yes, None))
        elif refusal.severity is Severity.PERMANENT:
            self._yes.pop(key, None)
            now = self.clock()
            self._remember(self._no, key, _Known(now, now + self.no, refusal))
        elif key in self._yes:
            return None
        return refusal

    def _remember(self, book: OrderedDict[Hashable, _Known], key: Hashable, known: _Known) -> None:
        book[key] = known
        book.move_to_end(key)
        if len(book) > self.capacity:
            book.popitem(last=False)

    async def _ask(self, mailbox: Mailbox, route: NextHop) -> Reply | None:
        """Ask one host after the other; the first that lets itself be asked has the word."""
        if self.hops.held(route.name) is not None:
            return UNSURE
        began = self.hops.now()
        where, reply, reason = "", None, ""
        for host in self.hops.in_order(route.hosts):
            where, reply, reason = host.where, None, ""
            try:
                async with self.client(host) as client:
                    self.hops.up(route.name, host)
                    return await self._ask_one(client, mailbox)
            except RefusedError as error:
                reply = error.reply
            except (ClientError, LocalProtocolError) as error:
                if isinstance(error, ConnectError):
                    self.hops.silent(host)
                reason = str(error)
        self.hops.down(route.name, where, reply, reason, began=began)
        return UNSURE

    async def _ask_one(self, client: Client, mailbox: Mailbox) -> Reply | None:
        reply = await client.command(Mail(None))
        if reply.severity is not Severity.COMPLETION:
            # It says so of the null path and not of the mailbox; reports would not arrive either.
            log.warning("%s does not let itself be asked for mailboxes: %s", client.host, reply)
            return UNSURE
        reply = await client.command(Rcpt(mailbox))
        if reply.severity is Severity.COMPLETION:
            return None
        return UNSURE if reply.code == 421 else _as_ours(reply)


def _as_ours(reply: Reply) -> Reply:
    """Say a stranger's refusal in our own reply: plain, on one line, of bounded length."""
    permanent = reply.severity is Severity.PERMANENT
    text = b" ".join(reply.lines).decode("ascii", "replace")
    words = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)[:200].strip()
    status = reply.status
    if status is None or (status.class_ == 5) is not permanent:
        status = EnhancedStatus(5, 1, 1) if permanent else EnhancedStatus(4, 2, 0)
    return Reply(550 if permanent else 450, status, words or "Its host does not take mail for it")
