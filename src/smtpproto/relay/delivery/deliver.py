"""One attempt at one message: to mailboxes here, or through the pool to the next hop.

It takes an Entry from the spool, tries the recipients that are due, and says of each what
happened. What follows from that is `dispatch.py`'s; what is learned of the next hop is for
`hops.py` to remember.
"""

from __future__ import annotations

import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import aclosing
from functools import partial
from math import inf
from typing import TypeVar, TypeVarTuple

import anyio
from attrs import evolve, field, frozen

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox, ReversePath
from smtpproto.core.reply import Reply, Severity
from smtpproto.deadline import is_stray
from smtpproto.maildir import MailboxUnavailable
from smtpproto.pool import Pool
from smtpproto.relay.content.reading import CannotGoError, mailbox_content
from smtpproto.relay.mailboxes.aliases import (
    Aliases,
    Expansion,
    TooManyTargetsError,
    delivered_to,
    expand,
    has_been_at,
    mail_of_list,
    no_aliases,
)
from smtpproto.relay.mailboxes.mailbox import MailboxStore, deliver_once
from smtpproto.relay.mailboxes.verp import Verp, notice_in
from smtpproto.relay.routing.route import Routing
from smtpproto.relay.routing.schedule import Schedule
from smtpproto.relay.routing.table import Rule
from smtpproto.relay.routing.transport import Host, NextHop, canonical
from smtpproto.relay.spool.seam import Entry, Recipient, Spool, SpoolUnavailable, Successor
from smtpproto.result import ClientError, ConnectError, Fate, LoginError, RefusedError
from smtpproto.trace import MAX_HEADER, HeaderScan, return_path, without_fields

from .attempt import Attempt, Done
from .hops import Hops
from .onward import Batches, Onward, is_crowded, own_word
from .times import OVERDUE, Times
from .unread import unread, was_unread
from .ways import Ways, put_off

__all__ = ["Deliverer"]

log = logging.getLogger(__name__)

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")
Ts = TypeVarTuple("Ts")


#: Seconds in which who is cut off writes down what was heard.
LAST_WORDS = 5.0

NO_MAILBOX = Reply(550, "5.1.1", "No such mailbox here")
UNFIT = Reply(554, "5.6.0", "The content may not be sent as it is")
STORED = Reply(250, "2.1.5", "Delivered")
EXPANDED = Reply(250, "2.1.5", "Replaced by the addresses behind it")
TOO_MANY = Reply(554, "5.4.6", "This alias stands for too many addresses")
ROUND = Reply(554, "5.4.6", "The message has been at this alias before")
CROWDED = Reply(451, "4.4.5", "Too much mail is waiting for this destination")
NO_ANSWER = Reply(451, "4.3.0", "The alias could not be looked up")


@frozen
class Deliverer:
    """Carries messages on, with what it has been handed to do so.

    `pool` keeps the sessions with next hops, and bounds them; it is open while there are attempts.
    `began`, wall time in seconds: messages that are older may have been tried by a process that
    died over it.
    """

    router: Routing
    mailboxes: MailboxStore
    spool: Spool
    pool: Pool[Host]
    hops: Hops
    aliases: Aliases = no_aliases
    began: float = inf
    verp: Verp = field(factory=Verp)

    async def attempt(self, entry: Entry, done: Done) -> None:
        """Try every recipient of `entry` once.

        `done` is awaited with attempts as they come to their end, before anything else is waited
        for; together its calls name every recipient once. A recipient that they do not name fell
        to a fault of ours, which has been logged.
        """
        began = self.hops.now()
        early = self._untimely(entry) or await self._still_unread(entry)
        if early:
            await done(early)
            return
        rules = await _side_by_side(
            partial(self._rule, entry), {each.number: each for each in entry.recipients}
        )
        ways = Ways(self.hops)
        for recipient in entry.recipients:
            mailbox = self.router.home(recipient.rcpt.forward_path.mailbox)
            ways.take(recipient, mailbox, rules[recipient.number])
        if ways.by_mx:
            routes = await _side_by_side(self.router.by_mx, {name: name for name in ways.by_mx})
            for domain, route in routes.items():
                ways.found(domain, route, began)
        if ways.schedules:
            done = partial(_by_rule, done, ways.schedules)
        if ways.settled:
            await done(ways.settled)
        works: list[Callable[[], Awaitable[None]]] = []
        if ways.here:
            works.append(partial(self._to_mailboxes, entry, ways.here, done))
        works += [
            partial(self._to_next_hop, entry, hop.route, hop.recipients, done, hop.hold_by)
            for hop in ways.onward.values()
        ]
        if len(works) == 1:  # as there mostly is: it needs no task of its own
            await self._apart(works[0])
            return
        async with anyio.create_task_group() as hops:
            for work in works:
                hops.start_soon(self._apart, work)

    def _untimely(self, entry: Entry) -> list[Attempt]:
        """Put a message off whose time has not come yet, and fail one whose time is over.

        As a whole, and whoever asks for it (RFC 4865 §4.2, RFC 2852 §4.1.3).
        """
        if not entry.mail.parameters:  # as most: nothing was said of any time
            return []
        times, now = Times.of(entry), self.hops.now()
        if times.release is not None and times.release > now:
            early = partial(Attempt, fate=Fate.TRANSIENT, where="", put_off=times.release)
            return [early(recipient) for recipient in entry.recipients]
        if times.overdue(now):
            return [
                Attempt(
                    recipient,
                    Fate.PERMANENT,
                    canonical(recipient.rcpt.forward_path.mailbox.domain),
                    OVERDUE,
                )
                for recipient in entry.recipients
            ]
        return []

    async def _still_unread(self, entry: Entry) -> Sequence[Attempt]:
        """Look first whether a message can be read that could not be; if not, put it off again.

        Else some host would get most of it, and be left, time after time.
        """
        if was_unread(entry):
            try:
                await self._read_through(entry)
            except SpoolUnavailable as error:
                return unread(entry, entry.recipients, error)
        return []

    async def _read_through(self, entry: Entry) -> None:
        """Raise SpoolUnavailable if the content is not all there as it came."""
        async for _ in self.spool.content(entry.id):
            pass

    async def _rule(self, entry: Entry, recipient: Recipient) -> Rule | Attempt:
        """Return by which rule a recipient goes; or what became of it, if it is an alias."""
        mailbox = recipient.rcpt.forward_path.mailbox
        if recipient.alias is None and self.router.is_ours(mailbox.domain):
            attempt = await self._as_alias(entry, recipient, self.router.home(mailbox))
            if attempt is not None:
                return attempt
        return await self.router.rule(mailbox, ReversePath(self._sender(entry)))

    async def _as_alias(
        self, entry: Entry, recipient: Recipient, mailbox: Mailbox
    ) -> Attempt | None:
        """Replace a recipient of ours by those behind it; None if it is no alias."""
        where = f"alias {mailbox}"
        try:
            behind = await expand(evolve(recipient.rcpt, forward_path=mailbox), self.aliases)
            if behind is None:
                return None
            return await self._through_alias(entry, recipient, mailbox, behind)
        except TooManyTargetsError:
            return Attempt(recipient, Fate.PERMANENT, where, TOO_MANY)
        except SpoolUnavailable as error:
            return unread(entry, [recipient], error)[0]
        except Exception:
            log.exception("an alias could not be looked up")
            return Attempt(recipient, Fate.TRANSIENT, where, NO_ANSWER)

    async def _apart(self, way: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Keep a fault on one way from tearing transactions on the others."""
        try:
            await way(*args)
        except BaseException as error:
            if not (isinstance(error, Exception) or is_stray(error)):
                raise
            log.exception("a delivery broke off")

    # Here

    async def _to_mailboxes(
        self, entry: Entry, recipients: Sequence[Recipient], done: Done
    ) -> None:
        for at, recipient in enumerate(recipients):
            try:
                attempt = await self._to_mailbox(entry, recipient)
            except SpoolUnavailable as error:  # nobody here will fare better
                await done(unread(entry, recipients[at:], error))
                return
            await done([attempt])

    async def _to_mailbox(self, entry: Entry, recipient: Recipient) -> Attempt:
        mailbox = self.router.home(recipient.rcpt.forward_path.mailbox)
        where = f"mailbox {mailbox}"
        try:
            if not await self.mailboxes.exists(mailbox):
                return Attempt(recipient, Fate.PERMANENT, where, NO_MAILBOX)
            octets = await mailbox_content(self.spool, entry)
            async with aclosing(_final_content(entry, recipient.alias, octets)) as content:
                await deliver_once(
                    self.mailboxes,
                    mailbox,
                    content,
                    key=f"{entry.id}N{recipient.number}",
                    again=entry.arrived <= self.began,
                )
        except CannotGoError as error:
            return Attempt(recipient, Fate.PERMANENT, where, error.reply)
        except MailboxUnavailable as error:
            return Attempt(recipient, Fate.of(error.reply), where, error.reply)
        return Attempt(recipient, Fate.ACCEPTED, where, STORED, action="delivered")

    async def _through_alias(
        self, entry: Entry, recipient: Recipient, alias: Mailbox, behind: Expansion
    ) -> Attempt:
        where = f"alias {alias}"
        beginning = bytearray()
        async for chunk in self.spool.content(entry.id):
            beginning += chunk
            if len(beginning) >= MAX_HEADER or b"\r\n\r\n" in beginning:
                break
        scan = HeaderScan()
        scan.feed(bytes(beginning))
        if has_been_at(alias, scan):
            return Attempt(recipient, Fate.PERMANENT, where, ROUND)
        becomes = tuple(
            Successor(t.rcpt, None if t.owner is None else mail_of_list(entry.mail, t.owner))
            for t in behind.targets
        )
        attempt = Attempt(
            recipient,
            Fate.ACCEPTED,
            where,
            EXPANDED,
            action=behind.action,
            becomes=becomes,
            alias=alias,
        )
        returned = self.verp.read(alias)
        if returned is None or entry.mail.reverse_path.mailbox is not None:
            return attempt
        return evolve(attempt, returned=returned, notice=notice_in(bytes(beginning)))

    # Onward

    async def _to_next_hop(
        self,
        entry: Entry,
        route: NextHop,
        recipients: Sequence[Recipient],
        done: Done,
        hold_by: Schedule | None = None,
    ) -> None:
        """Try one host after the other, until none is left or nobody to try it for.

        Those that were silent lately are the last (`Hops.in_order`).

        RFC 5321 §5.1: on to the next until an attempt succeeds. A refusal in a transaction is
        the domain's word and ends it; who refuses to talk speaks for that host alone, and only
        where all of them do is nothing to be hoped for. `hold_by` is how it is held if it is down.
        """
        asked = max((r.asked for r in recipients if r.asked is not None), default=None)
        async with self.hops.turn(route.name, str(self._sender(entry))) as come_again:
            if come_again is not None:
                crowded = partial(
                    Attempt,
                    fate=Fate.TRANSIENT,
                    where=str(route),
                    reply=CROWDED,
                    put_off=come_again,
                    in_line=True,
                )
                await done([crowded(recipient) for recipient in recipients])
                return
            # Only here: who stood before us may have learned it.
            hold = self.hops.held(route.name, asked=asked)
            if hold is not None:
                await done([put_off(recipient, hold) for recipient in recipients])
                return
            began = self.hops.now()
            left = {recipient.number: recipient for recipient in recipients}
            open_: dict[int, Attempt] = {}
            down = True
            onward = Onward(entry, recipients[0].alias, self.spool, self.hops.now)
            for host in self.hops.in_order(route.hosts):
                batches = Batches([*left.values()])
                while batch := batches.next():
                    heard: dict[int, Reply] = {}
                    try:
                        up = partial(self.hops.up, route.name, host)
                        attempts, talked = await self._to_host(onward, host, batch, heard, up)
                    except SpoolUnavailable as error:  # no other host will fare better
                        await done(unread(entry, [*left.values()], error))
                        return
                    except anyio.get_cancelled_exc_class():
                        if taken := _taken(onward, host, batch, heard):
                            with anyio.move_on_after(LAST_WORDS, shield=True):
                                await done(taken)
                        raise
                    down = down and not talked
                    decided = [a for a in attempts if _is_decided(a)] if talked else []
                    if decided:
                        await done(decided)
                    if len(decided) == len(left):  # all of them, as mostly
                        return
                    for attempt in decided:
                        del left[attempt.recipient.number]
                    for attempt in attempts:
                        if attempt.fate is Fate.TRANSIENT or attempt.recipient.number not in open_:
                            open_[attempt.recipient.number] = attempt
                    open_attempts = (a for a in attempts if a.fate is Fate.TRANSIENT)
                    batches.note([a.recipient for a in open_attempts if is_crowded(a.reply)])
        rest = [open_[number] for number in left]
        last = next((a for a in reversed(rest) if a.fate is Fate.TRANSIENT), None)
        if down and last is not None:
            self.hops.down(
                route.name, last.where, last.reply, last.reason, began=began, hold=hold_by
            )
        await done(rest)

    def _sender(self, entry: Entry) -> Mailbox | None:
        """Return whose message it is: with VERP, a sender of many paths is one all the same."""
        sender = entry.mail.reverse_path.mailbox
        returned = None if sender is None else self.verp.read(sender)
        return sender if returned is None else returned[0]

    async def _to_host(
        self,
        onward: Onward,
        host: Host,
        recipients: Sequence[Recipient],
        heard: MutableMapping[int, Reply],
        up: Callable[[], None],
    ) -> tuple[Sequence[Attempt], bool]:
        """Try one host, in one transaction; tell also whether it talked with us.

        If it did, what is permanent now is so for the other hosts, too, but for what is `one_host`.
        `heard` gets the replies of an LMTP server as they come, by places among `recipients`. `up`
        is called as soon as there is a session. SpoolUnavailable where the content cannot be read:
        nobody has it then.
        """
        where = host.where

        def all_of_them(
            fate: Fate, reply: Reply | None = None, reason: str = "", remote: str | None = None
        ) -> Sequence[Attempt]:
            return [Attempt(r, fate, where, reply, reason, remote) for r in recipients]

        try:
            result = await onward.hand_over(self.pool, host, recipients, heard.__setitem__, up)
        except LoginError as error:
            # Ours to mend, whatever its first digit: no mail is lost by it.
            return all_of_them(Fate.TRANSIENT, error.reply, remote=host.domain), False
        except RefusedError as error:
            return all_of_them(Fate.of(error.reply), error.reply, remote=host.domain), False
        except ClientError as error:
            if isinstance(error, ConnectError):
                self.hops.silent(host)
            return all_of_them(Fate.TRANSIENT, reason=str(error)), False
        except CannotGoError as error:
            return all_of_them(Fate.PERMANENT, error.reply), True
        except LocalProtocolError as error:
            if not onward.begun:  # ours to mend, as a login that cannot be written: none is lost
                log.error("no session with %s can be opened: %s", where, error)
                return all_of_them(Fate.TRANSIENT, reason=str(error)), False
            await self._read_through(onward.entry)  # damage may be what is wrong with it
            log.error("message %s cannot be sent on: %s", onward.entry.id, error)
            return all_of_them(Fate.PERMANENT, UNFIT), True
        attempts = [
            Attempt(
                recipient,
                outcome.fate,
                where,
                outcome.reply,
                outcome.reason,
                None if outcome.local else host.domain,
                action=onward.action,
                unasked=onward.relayed,
                one_host=outcome.local and own_word(outcome),
            )
            for recipient, outcome in zip(recipients, result.outcomes, strict=True)
        ]
        return attempts, True


async def _final_content(
    entry: Entry, alias: Mailbox | None, octets: AsyncIterator[bytes]
) -> AsyncGenerator[bytes]:
    # Final delivery is where the reverse-path leaves the envelope (RFC 5321 §4.4).
    yield return_path(entry.mail.reverse_path)
    if alias is not None:
        yield delivered_to(alias)
    async for chunk in without_fields(octets, ["Return-Path"]):
        yield chunk


async def _by_rule(
    done: Done, schedules: Mapping[int, Schedule], attempts: Sequence[Attempt]
) -> None:
    """Say of attempts by which schedule they are tried again, where a rule has one of its own."""
    await done([evolve(each, schedule=schedules.get(each.recipient.number)) for each in attempts])


def _taken(
    onward: Onward, host: Host, recipients: Sequence[Recipient], heard: Mapping[int, Reply]
) -> list[Attempt]:
    """Return who has the message already, of those an LMTP server was answering for."""
    taken = partial(Attempt, fate=Fate.ACCEPTED, where=host.where, remote=host.domain)
    return [
        taken(recipients[number], reply=reply, action=onward.action, unasked=onward.relayed)
        for number, reply in heard.items()
        if reply.severity is Severity.COMPLETION
    ]


def _is_decided(attempt: Attempt) -> bool:
    """Tell whether no other host of the domain is to be tried."""
    return attempt.fate is not Fate.TRANSIENT and not attempt.one_host


async def _side_by_side(ask: Callable[[T], Awaitable[V]], of: Mapping[K, T]) -> dict[K, V]:
    """Ask of each, a few at a time. One alone, as there mostly is, needs no task of its own."""
    if len(of) <= 1:
        return {key: await ask(what) for key, what in of.items()}
    answers: dict[K, V] = {}
    at_once = anyio.Semaphore(10)

    async def one(key: K, what: T) -> None:
        async with at_once:
            answers[key] = await ask(what)

    async with anyio.create_task_group() as questions:
        for key, what in of.items():
            questions.start_soon(one, key, what)
    return answers
