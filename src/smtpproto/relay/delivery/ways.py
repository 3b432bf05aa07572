"""The recipients of one attempt, sorted by what is done with each."""

from __future__ import annotations

from attrs import evolve, field, frozen

from smtpproto.core.path import ForwardPath, Mailbox
from smtpproto.relay.routing.schedule import Schedule
from smtpproto.relay.routing.table import Rule
from smtpproto.relay.routing.transport import (
    ByMx,
    Discard,
    Here,
    NextHop,
    OnHold,
    Refuse,
    Undetermined,
    Unroutable,
    canonical,
)
from smtpproto.relay.spool.seam import Recipient
from smtpproto.result import Fate

from .attempt import Attempt
from .hops import Hold, Hops, hold_for

__all__ = ["Way", "Ways", "put_off"]


@frozen
class Way:
    """A next hop, who goes there, and how it is held if it is down: None, as all are."""

    route: NextHop
    hold_by: Schedule | None
    recipients: list[Recipient] = field(factory=list[Recipient])


@frozen
class Ways:
    """The recipients of one attempt, by what is done with each."""

    hops: Hops
    settled: list[Attempt] = field(factory=list[Attempt])
    here: list[Recipient] = field(factory=list[Recipient])
    by_mx: dict[str, list[Recipient]] = field(factory=dict[str, list[Recipient]])
    #: By the next hop, and the alias that they came through: what is sent says so.
    onward: dict[object, Way] = field(factory=dict[object, Way])
    schedules: dict[int, Schedule] = field(factory=dict[int, Schedule])

    def take(self, recipient: Recipient, mailbox: Mailbox, rule: Rule | Attempt) -> None:
        """Take the next recipient, its `mailbox` as a Router spells it, and its rule.

        Or instead of that what became of it already.
        """
        if isinstance(rule, Attempt):
            self.settled.append(rule)
            return
        if rule.schedule is not None:
            self.schedules[recipient.number] = rule.schedule
        domain = canonical(mailbox.domain)
        if not recipient.rcpt.forward_path.mailbox.domain:
            recipient = _for(recipient, mailbox)
        match rule.to:
            case NextHop() as route:
                self._go(route, recipient)
            case ByMx():
                # Held as the name of a next hop: then the DNS is not asked.
                hold = self.hops.held(domain, asked=recipient.asked)
                if hold is None:
                    self.by_mx.setdefault(domain, []).append(recipient)
                else:
                    self.settled.append(put_off(recipient, hold))
            case Here():
                self.here.append(recipient)
            case Refuse(reply):
                self.settled.append(Attempt(recipient, Fate.of(reply), domain, reply))
            case OnHold() | Discard() as said:
                fate = Fate.TRANSIENT if isinstance(said, OnHold) else Fate.ACCEPTED
                self.settled.append(
                    Attempt(recipient, fate, domain, reason=str(said), by_rule=said)
                )

    def found(self, domain: str, route: NextHop | Unroutable | Undetermined, began: float) -> None:
        """Take what the DNS says of a domain that was to be looked up; it was asked at `began`."""
        for recipient in self.by_mx[domain]:
            match route:
                case NextHop():
                    self._go(route, recipient)
                case Unroutable(reply):
                    self.settled.append(Attempt(recipient, Fate.PERMANENT, domain, reply))
                case Undetermined(reply):
                    self.hops.down(domain, domain, reply, "", began=began)
                    self.settled.append(Attempt(recipient, Fate.TRANSIENT, domain, reply))

    def _go(self, route: NextHop, recipient: Recipient) -> None:
        together = route.name, recipient.alias
        if (hop := self.onward.get(together)) is None:
            schedule = self.schedules.get(recipient.number)
            hold_by = None if schedule is None else hold_for(schedule)
            hop = self.onward[together] = Way(route, hold_by)
        hop.recipients.append(recipient)


def _for(recipient: Recipient, mailbox: Mailbox) -> Recipient:
    """Name the bare Postmaster, who is ours, by his mailbox: elsewhere he would be another."""
    return evolve(recipient, rcpt=evolve(recipient.rcpt, forward_path=ForwardPath(mailbox)))


def put_off(recipient: Recipient, hold: Hold) -> Attempt:
    """Say of a recipient that its next hop is down."""
    return Attempt(
        recipient, Fate.TRANSIENT, hold.where, hold.reply, hold.reason, put_off=hold.until
    )
