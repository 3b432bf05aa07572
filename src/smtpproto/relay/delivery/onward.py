"""One message for one next hop: what it asks for, and what the next hop can do.

What came with MAIL and RCPT was between the last hop and us, and only this goes on:

- what was asked of reports (RFC 3461 §5.2.1), where the next hop offers DSN;
- BY, with the seconds that are left when MAIL is said, by the rules of RFC 2852 §4.1.4;
- SMTPUTF8 where it was asked for (RFC 6531 §3.6), and BODY as the content is; where SMTPUTF8 is
  not offered, domains in A-labels (§3.7);
- AUTH=<> to who has a login of ours: we believe nobody who says whose a message is (RFC 4954 §5).

SIZE is what the content comes to, and the client's to say, as BODY is. HOLDFOR and HOLDUNTIL have
done their work here (RFC 4865). Where a next hop takes less than the message asks for, the client
says so before anything is sent. Only then is the content looked into: it may not need that after
all, or can be made fit (`downgrade.py`), or there is a reply that says why not. Such a reply is our
word about one host, and another host of the domain may do better (RFC 6531 §3.2).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from attrs import evolve

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.errors import GrammarError
from smtpproto.core.parameter import NO_PARAMETERS, Parameter, Parameters
from smtpproto.core.path import ForwardPath, Mailbox, ReversePath
from smtpproto.core.reply import Reply
from smtpproto.extensions.auth import SUBMITTER, Submitter
from smtpproto.extensions.deliverby import BY, ByMode, DeliverBy, min_by_time
from smtpproto.extensions.dsn import DSN, ORCPT
from smtpproto.pool import Pool
from smtpproto.relay.content.downgrade import Survey, downgraded, survey
from smtpproto.relay.content.reading import CannotGoError, body_of, unfit
from smtpproto.relay.mailboxes.aliases import delivered_to
from smtpproto.relay.reports.report import Action
from smtpproto.relay.routing.route import Host
from smtpproto.relay.routing.transport import canonical
from smtpproto.relay.spool.seam import AtHand, Entry, Recipient, Spool
from smtpproto.result import Fate, Outcome, Result
from smtpproto.source import Source

from .times import OVERDUE, deadline

__all__ = ["Batches", "Onward", "is_crowded", "own_word"]

C = TypeVar("C", Mail, Rcpt)

NO_PROMISE = Reply(554, "5.3.3", "The next server does not promise to deliver in time")
NO_UTF8_HEADER = Reply(554, "5.6.9", "The next server takes no header beyond ASCII")
NO_UTF8_ADDRESS = Reply(553, "5.6.7", "The next server takes no address beyond ASCII")

# What one host may not take, and another may (RFC 3463 §3.7, RFC 6531 §3.5).
_CONTENT, _ADDRESS, _HEADER = "5.6.3", "5.6.7", "5.6.9"
_MOST_SECONDS = 999_999_999  # RFC 2852 §4


def is_crowded(reply: Reply | None) -> bool:
    """Tell whether there were too many recipients (RFC 5321 §4.5.3.1.10), and other things right.

    552 once meant that, too.
    """
    if reply is None or reply.code not in (452, 552):
        return False
    return str(reply.status or "x.5.3")[1:] == ".5.3"


def own_word(outcome: Outcome) -> bool:
    """Tell whether we ourselves refused, for what this host lacks, and others may not."""
    return _said_by_us(outcome, (_CONTENT, _ADDRESS, _HEADER))


def _said_by_us(outcome: Outcome, statuses: Sequence[str]) -> bool:
    reply = outcome.reply
    return outcome.local and reply is not None and str(reply.status) in statuses


class Onward:
    """A message on its way to the hosts of one next hop.

    `alias` is the address that stood for its recipients, `now` gives the time. After `hand_over`:
    `begun` tells whether its content was read, `relayed` whether its sender is to hear that it was
    passed on, asked for or not (RFC 2852 §4.1.4).
    """

    def __init__(
        self, entry: Entry, alias: Mailbox | None, spool: Spool, now: Callable[[], float]
    ) -> None:
        self.begun = False
        self.relayed = False
        self.entry = entry
        self._first = b"" if alias is None else delivered_to(alias)
        self._spool = spool
        self._now = now
        self._deadline = deadline(entry.mail, entry.arrived)
        self._utf8 = "SMTPUTF8" in entry.mail.parameters
        self._body = body_of(entry)
        self._offered: Mapping[str, str] = {}
        self._surveys: dict[bool, Survey] = {}

    async def hand_over(
        self,
        pool: Pool[Host],
        host: Host,
        recipients: Sequence[Recipient],
        told: Callable[[int, Reply], None] | None = None,
        up: Callable[[], None] | None = None,
    ) -> Result:
        """Hand it over to these recipients; what `Pool.deliver` raises, and CannotGoError.

        `told` as there, with places among `recipients`. `up` is called when there is a session.
        """
        self.begun = False
        mail = _with_those(DSN.mail, self.entry.mail)
        if host.access is not None and host.access.login is not None:
            mail = evolve(mail, parameters={**mail.parameters, **SUBMITTER(Submitter(None))})
        rcpts = [_with_those(DSN.rcpt, recipient.rcpt) for recipient in recipients]

        def suited(offered: Mapping[str, str]) -> Envelope:
            if up is not None:
                up()
            return self._suited(mail, rcpts, offered)

        result = await pool.deliver(suited, self._as_it_came(), host, told=told)
        of_content = (_CONTENT, _HEADER)
        unmet = [
            number
            for number, each in enumerate(result.outcomes)
            if each.local and _said_by_us(each, of_content)
        ]
        if not unmet:
            return result
        content = await self._otherwise()
        outcomes = list(result.outcomes)
        if isinstance(content, Reply):
            for number in unmet:
                reply = self._for(rcpts[number], content)
                outcomes[number] = evolve(outcomes[number], fate=Fate.PERMANENT, reply=reply)
        else:
            some = [rcpts[number] for number in unmet]

            def told_again(number: int, reply: Reply) -> None:
                if told is not None:
                    told(unmet[number], reply)

            suited_again = partial(self._suited, mail, some)
            again = await pool.deliver(suited_again, content, host, told=told_again)
            for number, outcome in zip(unmet, again.outcomes, strict=True):
                outcomes[number] = outcome
        return evolve(result, outcomes=tuple(outcomes))

    @property
    def action(self) -> Action | None:
        """What a success is called in a report of ours; None where the next hop reports."""
        return "relayed" if self.relayed or "DSN" not in self._offered else None

    # The envelope

    def _suited(self, mail: Mail, rcpts: Sequence[Rcpt], offered: Mapping[str, str]) -> Envelope:
        """Make the envelope for a next hop that offers this, now."""
        self._offered = offered
        self.relayed = False
        if "SMTPUTF8" not in offered:
            sender = mail.reverse_path.mailbox
            if sender is not None and not sender.domain.isascii():
                mail = evolve(mail, reverse_path=ReversePath(_a_labelled(sender)))
            rcpts = [_in_ascii(rcpt) for rcpt in rcpts]
        by = self._deadline
        if by is None:
            return Envelope(mail, rcpts)
        left = by.left(self._now())
        self.relayed = by.trace
        if by.mode is ByMode.RETURN:
            if left < 1:
                raise CannotGoError(OVERDUE)
            if "DELIVERBY" not in offered or (min_by_time(offered["DELIVERBY"]) or 0) > left:
                raise CannotGoError(NO_PROMISE)
        elif "DELIVERBY" not in offered:
            if left > 0:
                # Nobody will tell the sender any more that it is late, unless asked for delays.
                self.relayed = True
                if "DSN" in offered:
                    rcpts = [_with_delay(rcpt) for rcpt in rcpts]
            return Envelope(mail, rcpts)
        seconds = max(min(left, _MOST_SECONDS), -_MOST_SECONDS)
        asked = BY(DeliverBy(seconds, by.mode, by.trace))
        return Envelope(evolve(mail, parameters={**mail.parameters, **asked}), rcpts)

    # The content

    def _as_it_came(self) -> Source:
        """Return the content as it is, called what it was called when it came."""
        return Source(
            self._octets(),
            len(self._first) + self.entry.octets,
            eight_bit=True if self._body == "8BITMIME" else None,
            utf8=self._utf8,
            binary=self._body == "BINARYMIME",
        )

    async def _otherwise(self) -> Source | Reply:
        """Find a way for content that cannot go as it came, or say why there is none."""
        eight_bit = "8BITMIME" in self._offered
        found = await self._look(eight_bit=eight_bit)
        utf8 = self._utf8 and found.utf8_header
        if utf8 and "SMTPUTF8" not in self._offered:
            return NO_UTF8_HEADER
        if found.as_it_is and (found.ascii or eight_bit):
            octets = len(self._first) + self.entry.octets
            return Source(self._octets(), octets, eight_bit=not found.ascii, utf8=utf8)
        if found.objection:
            kind = "binary" if eight_bit else "8-bit"
            return unfit(f"The next server takes no {kind} content", found.objection)
        content = downgraded(self._chunks(), eight_bit=eight_bit)
        return Source(content, found.octets, eight_bit=eight_bit, utf8=utf8)

    async def _look(self, *, eight_bit: bool) -> Survey:
        if eight_bit not in self._surveys:
            lines = self._body == "BINARYMIME"
            found = await survey(self._chunks(), eight_bit=eight_bit, lines=lines)
            self._surveys[eight_bit] = found
        return self._surveys[eight_bit]

    def _octets(self) -> AsyncIterator[bytes] | Callable[[], bytes]:
        """Return what a Source takes: where all of it is at hand, nobody need read it by steps."""
        content = self._spool.content(self.entry.id)
        if not isinstance(content, AtHand):
            return _Reading(self, self._first, content)
        return partial(self._whole, content.octets)

    def _whole(self, octets: bytes) -> bytes:
        self.begun = True
        return self._first + octets

    def _chunks(self) -> AsyncIterator[bytes]:
        return _Reading(self, self._first, self._spool.content(self.entry.id))

    def _for(self, rcpt: Rcpt, reply: Reply) -> Reply:
        """Say it of an address where that is what is beyond ASCII (RFC 6531 §3.5)."""
        ascii_only = rcpt.is_ascii and self.entry.mail.is_ascii
        return reply if ascii_only or reply is not NO_UTF8_HEADER else NO_UTF8_ADDRESS


class _Reading(AsyncIterator[bytes]):
    """The content for a next hop. Behind an alias it says first through which it came.

    It holds nothing between two steps, and may be left half-read.
    """

    def __init__(self, onward: Onward, first: bytes, chunks: AsyncIterator[bytes]) -> None:
        self._onward = onward
        self._first = first
        self._chunks = chunks

    async def __anext__(self) -> bytes:
        self._onward.begun = True
        first, self._first = self._first, b""
        return first or await anext(self._chunks)


def _with_those(parameters: Iterable[Parameter[Any]], command: C) -> C:
    """Return a command with those of its parameters alone, as they came."""
    there = command.parameters
    if not there:  # as of most: it is written already
        return command
    wanted = {p.keyword: there[p.keyword] for p in parameters if p.keyword in there}
    return evolve(command, parameters=Parameters(wanted) if wanted else NO_PARAMETERS)


def _a_labelled(mailbox: Mailbox) -> Mailbox:
    """Write a domain beyond ASCII as it is looked up (RFC 6531 §3.7), if it can be."""
    if mailbox.domain.isascii():
        return mailbox
    name = canonical(mailbox.domain).encode()
    return mailbox if b"\\" in name else Mailbox(mailbox.local_part, name)


def _in_ascii(rcpt: Rcpt) -> Rcpt:
    """Write the domain in A-labels; leave out an original recipient that has no ASCII form.

    It mostly has one (RFC 6533 §3).
    """
    if not rcpt.forward_path.mailbox.domain.isascii():
        path = ForwardPath(_a_labelled(rcpt.forward_path.mailbox))
        rcpt = evolve(rcpt, forward_path=path)
    if rcpt.parameters.is_ascii:
        return rcpt
    kept = {key: value for key, value in rcpt.parameters.items() if key != "ORCPT"}
    with suppress(GrammarError):
        original = ORCPT.of(rcpt.parameters)
        written = Parameters(None if original is None else ORCPT(original))
        if written.is_ascii:
            kept |= written
    return evolve(rcpt, parameters=kept)


def _with_delay(rcpt: Rcpt) -> Rcpt:
    """Ask for word of delays, too, unless nobody wants any word (RFC 2852 §4.1.4.2)."""
    asked: bytes = rcpt.parameters.get("NOTIFY", b"FAILURE") or b""
    words = asked.upper().split(b",")
    if b"NEVER" in words or b"DELAY" in words:
        return rcpt
    return evolve(rcpt, parameters={**rcpt.parameters, "NOTIFY": asked + b",DELAY"})


# --- recipients ------------------------------------------------------------------------------


class Batches:
    """Recipients for one host, in transactions of as many as it takes.

    Who is answered 452 "too many recipients" (RFC 5321 §4.5.3.1.10), by the host or by our client
    that knows its RCPTMAX (RFC 9422), comes in another transaction at once. That one has no more
    recipients than were taken or refused in the one before, so that a host is not asked for a
    thousand recipients a hundred times.
    """

    def __init__(self, recipients: Sequence[Recipient]) -> None:
        self._waiting = list(recipients)
        self._most = len(self._waiting)
        self._batch: list[Recipient] = []

    def next(self) -> Sequence[Recipient]:
        """Return those for the next transaction; empty where there are none any more."""
        self._batch = self._waiting[: self._most]
        del self._waiting[: self._most]
        return self._batch

    def note(self, crowded: Sequence[Recipient]) -> None:
        """Take note of those of the last transaction who were too many."""
        taken = len(self._batch) - len(crowded)
        if not taken:  # it was not their number: for these it is not the time
            self._waiting.clear()
        elif crowded:
            self._most = taken
            self._waiting[:0] = crowded
