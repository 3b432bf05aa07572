"""Faults in what is promised: reports, times, lists, routes, and who may do what."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from attrs import evolve

from smtpproto.relay import relay
from smtpproto.relay.delivery import deliver, dispatch, onward, verdict
from smtpproto.relay.delivery.deliver import Deliverer
from smtpproto.relay.delivery.dispatch import Dispatcher
from smtpproto.relay.delivery.times import Times
from smtpproto.relay.intake import handler
from smtpproto.relay.intake.policy import HousePolicy
from smtpproto.relay.mailboxes.verp import Verp
from smtpproto.relay.routing.schedule import DEFAULT
from smtpproto.relay.routing.table import RouteTable
from smtpproto.relay.routing.transport import Discard, OnHold
from smtpproto.relay.spool.claims import Claims
from smtpproto.relay.spool.leases import Leases
from smtpproto.result import Fate
from smtpproto.trace import HeaderScan

from .base import Sabotage, replace

__all__ = ["PROMISING"]


# What is reported


def drops_reports() -> AbstractContextManager[Any]:
    """A failure is written down without its report."""

    def make(settle: Any) -> Any:
        async def careless(self: Any, entry: Any, settlements: Any, fresh: Any) -> Any:
            return await settle(self, entry, settlements, ())

        return careless

    return replace(Dispatcher, "_settle", make)


def always_reports() -> AbstractContextManager[Any]:
    """NOTIFY is not looked at."""

    def make(owed: Any) -> Any:
        def careless(reverse_path: Any, notify: Any = None, action: Any = "failed") -> bool:
            return bool(owed(reverse_path, None, action))

        return careless

    return replace(verdict, "is_report_owed", make)


def warns_again() -> AbstractContextManager[Any]:
    """That a message is late is told at each attempt."""

    def make(judge: Any) -> Any:
        def careless(entry: Any, attempt: Any, **how: Any) -> Any:
            fresh = evolve(attempt, recipient=evolve(attempt.recipient, warned=False))
            return judge(entry, fresh, **how)

        return careless

    return replace(dispatch, "judge", make)


def warns_early() -> AbstractContextManager[Any]:
    """That a message is late is told as soon as it has to wait."""

    def make(of: Any) -> Any:
        def careless(entry: Any, schedule: Any = DEFAULT) -> Any:
            times = of(entry, schedule)
            return evolve(times, late=times.begins)

        return careless

    return replace(Times, "of", make)


def forgets_the_postmaster() -> AbstractContextManager[Any]:
    """What has no sender fails, and nobody hears of it."""

    def make(judge: Any) -> Any:
        def careless(entry: Any, attempt: Any, **how: Any) -> Any:
            return judge(entry, attempt, **{**how, "postmaster": None})

        return careless

    return replace(dispatch, "judge", make)


def tells_the_postmaster_of_himself() -> AbstractContextManager[Any]:
    """What fails for the postmaster is reported to the postmaster."""
    return patch.object(verdict, "_is_for", lambda recipient, mailbox: False)


# By when, and from when on


def never_too_late() -> AbstractContextManager[Any]:
    """What was to be there by now, or else not at all, is tried on."""
    return patch.object(Times, "overdue", lambda self, now: False)


def does_not_look_at_the_clock() -> AbstractContextManager[Any]:
    """Nobody looks when the deliver-by-time comes."""
    return patch.object(Times, "wait", lambda self, now, seconds: seconds)


def asks_for_no_promise() -> AbstractContextManager[Any]:
    """BY in mode R goes to whoever takes mail."""

    def make(suited: Any) -> Any:
        def careless(self: Any, mail: Any, rcpts: Any, offered: Any) -> Any:
            if "DELIVERBY" not in offered:
                with patch.object(self, "_deadline", None):
                    return suited(self, mail, rcpts, offered)
            return suited(self, mail, rcpts, offered)

        return careless

    return replace(onward.Onward, "_suited", make)


def hands_on_all_of_the_time() -> AbstractContextManager[Any]:
    """The next hop is given as long as the sender gave, whatever it took until then."""

    def make(suited: Any) -> Any:
        def careless(self: Any, mail: Any, rcpts: Any, offered: Any) -> Any:
            envelope = suited(self, mail, rcpts, offered)
            if "BY" in envelope.mail.parameters:
                asked = {**envelope.mail.parameters, "BY": self.entry.mail.parameters["BY"]}
                return evolve(envelope, mail=evolve(envelope.mail, parameters=asked))
            return envelope

        return careless

    return replace(onward.Onward, "_suited", make)


def holds_nothing() -> AbstractContextManager[Any]:
    """What is to be sent later is sent now."""

    def make(of: Any) -> Any:
        def careless(entry: Any, schedule: Any = DEFAULT) -> Any:
            return evolve(of(entry, schedule), begins=entry.arrived, release=None)

        return careless

    return replace(Times, "of", make)


# Who keeps a message


def forgets_a_hold() -> AbstractContextManager[Any]:
    """What is held while it is tried is due again when that has failed."""
    return patch.object(Leases, "lent_as", lambda self, id, number: None)


def does_not_notice() -> AbstractContextManager[Any]:
    """What the operator has changed in the spool is not noticed."""
    return patch.object(Claims, "_notice_others", lambda self, db: None)


def ignores_a_rule_that_holds() -> AbstractContextManager[Any]:
    """What a rule holds is thrown away."""

    def make(judge: Any) -> Any:
        def careless(entry: Any, attempt: Any, **how: Any) -> Any:
            if isinstance(attempt.by_rule, OnHold):
                attempt = evolve(attempt, by_rule=Discard("by mistake"))
            return judge(entry, attempt, **how)

        return careless

    return replace(dispatch, "judge", make)


# Lists, aliases and where mail goes


def lists_without_an_owner() -> AbstractContextManager[Any]:
    """What a list's members get comes from who wrote to the list."""
    return patch.object(deliver, "mail_of_list", lambda mail, owner: mail)


def forgets_a_member() -> AbstractContextManager[Any]:
    """The last one of several behind an address is left out."""

    def make(expand: Any) -> Any:
        async def careless(rcpt: Any, known: Any) -> Any:
            behind = await expand(rcpt, known)
            if behind is None or len(behind.targets) < 2:
                return behind
            return evolve(behind, targets=behind.targets[:-1])

        return careless

    return replace(deliver, "expand", make)


def does_not_know_its_return_paths() -> AbstractContextManager[Any]:
    """Bounces to a list come to an address that is none."""
    return patch.object(Verp, "read", lambda self, mailbox: None)


def one_return_path_for_all() -> AbstractContextManager[Any]:
    """Members of a list get its mail under one return path."""
    return patch.object(Verp, "address", lambda self, sender, recipient: sender)


@contextmanager
def goes_round() -> Iterator[None]:
    """Nobody looks whether a message has been at an alias before."""
    with ExitStack() as stack:
        for looks in (deliver, handler):
            stack.enter_context(patch.object(looks, "has_been_at", lambda mailbox, scan: False))
        yield


def goes_round_for_ever() -> AbstractContextManager[Any]:
    """Nobody counts how many servers a message has come through."""
    return patch.object(HeaderScan, "received", property(lambda self: 0))


def looks_at_no_sender() -> AbstractContextManager[Any]:
    """A rule for some senders holds for all."""

    def make(init: Any) -> Any:
        def careless(self: Any, rules: Any = (), **how: Any) -> None:
            init(self, [evolve(rule, senders=()) for rule in rules], **how)

        return careless

    return replace(RouteTable, "__init__", make)


def tells_of_what_is_thrown_away() -> AbstractContextManager[Any]:
    """What a rule throws away is reported as a failure."""

    def make(judge: Any) -> Any:
        def careless(entry: Any, attempt: Any, **how: Any) -> Any:
            if isinstance(attempt.by_rule, Discard):
                attempt = evolve(attempt, by_rule=None, fate=Fate.PERMANENT)
            return judge(entry, attempt, **how)

        return careless

    return replace(dispatch, "judge", make)


# LMTP


def one_for_all() -> AbstractContextManager[Any]:
    """What an LMTP server says of the first recipient is taken for all."""

    def make(to_host: Any) -> Any:
        async def careless(self: Any, onward: Any, host: Any, *rest: Any) -> Any:
            attempts, talked = await to_host(self, onward, host, *rest)
            if host.lmtp:
                first = attempts[0]
                attempts = [
                    evolve(each, fate=first.fate, reply=first.reply, reason=first.reason)
                    for each in attempts
                ]
            return attempts, talked

        return careless

    return replace(Deliverer, "_to_host", make)


def all_for_one() -> AbstractContextManager[Any]:
    """Where an LMTP server has put one off, all are tried again."""

    def make(to_host: Any) -> Any:
        async def careless(self: Any, onward: Any, host: Any, *rest: Any) -> Any:
            attempts, talked = await to_host(self, onward, host, *rest)
            late = [each for each in attempts if each.fate is Fate.TRANSIENT]
            if host.lmtp and late:
                attempts = [
                    evolve(late[0], recipient=each.recipient)
                    if each.fate is Fate.ACCEPTED
                    else each
                    for each in attempts
                ]
            return attempts, talked

        return careless

    return replace(Deliverer, "_to_host", make)


# Strangers, and a disk that is bad for hours


def relays_for_all() -> AbstractContextManager[Any]:
    """Strangers may send to whom they like."""

    async def careless(self: Any, session: Any, command: Any, *, ours: bool) -> None:
        return None

    return patch.object(HousePolicy, "recipient", careless)


def reports_to_all() -> AbstractContextManager[Any]:
    """Strangers are offered DSN and DELIVERBY."""

    def make(server: Any) -> Any:
        def careless(self: Any, *args: Any) -> Any:
            made = server(self, *args)
            made.offer_only_to = {}
            return made

        return careless

    return replace(relay.Relay, "server", make)


def waits_for_ever() -> AbstractContextManager[Any]:
    """Whoever says nothing may stay."""

    def make(server: Any) -> Any:
        def careless(self: Any, *args: Any) -> Any:
            made = server(self, *args)
            patient = dict.fromkeys(("command", "block", "grace", "session"))
            made.deadlines = evolve(made.deadlines, **patient)
            return made

        return careless

    return replace(relay.Relay, "server", make)


@contextmanager
def gives_up_writing() -> Iterator[None]:
    """What a disk does not take at once is not written down."""

    async def careless(self: Any, entry: Any, settlements: Any, fresh: Any) -> Any:
        return await self.spool.settle(entry.id, settlements, fresh, now=self.clock())

    with patch.object(Dispatcher, "_settle", careless):
        yield


PROMISING = (
    Sabotage("drops reports", ("reports",), drops_reports),
    Sabotage("reports against NOTIFY", ("reports",), always_reports),
    Sabotage("warns again and again", ("reports",), warns_again),
    Sabotage("warns before it is late", ("reports",), warns_early),
    Sabotage("a postmaster who hears nothing", ("reports",), forgets_the_postmaster),
    Sabotage("a postmaster who hears of himself", ("reports",), tells_the_postmaster_of_himself),
    Sabotage("never too late", ("by",), never_too_late),
    Sabotage("no look at the clock", ("by",), does_not_look_at_the_clock),
    Sabotage("no promise asked for", ("by", "reports"), asks_for_no_promise),
    Sabotage("all of the time handed on", ("by",), hands_on_all_of_the_time),
    Sabotage("sent before its time", ("early",), holds_nothing),
    Sabotage("forgets a hold", ("held",), forgets_a_hold, first=22),
    Sabotage(
        "does not notice a release",
        ("starves", "empties", "by", "lost"),
        does_not_notice,
        first=130,
    ),
    Sabotage("throws away what is held", ("lost",), ignores_a_rule_that_holds),
    Sabotage("lists without an owner", ("senders", "reports"), lists_without_an_owner),
    Sabotage("forgets a member", ("lists",), forgets_a_member),
    Sabotage("unknown return paths", ("lost",), does_not_know_its_return_paths),
    Sabotage("one return path for all", ("senders", "reports"), one_return_path_for_all),
    Sabotage("goes round", ("loops", "lost"), goes_round),
    Sabotage("goes round for ever", ("loops",), goes_round_for_ever),
    Sabotage("looks at no sender", ("places",), looks_at_no_sender),
    Sabotage("tells of what is thrown away", ("lost", "reports"), tells_of_what_is_thrown_away),
    Sabotage("one verdict for all", ("lost", "twice"), one_for_all),
    Sabotage("all again for one", ("twice",), all_for_one, first=15),
    Sabotage("relays for all", ("strangers",), relays_for_all),
    Sabotage("reports to all", ("strangers",), reports_to_all),
    Sabotage("waits for ever", ("strangers", "memory"), waits_for_ever, first=26),
    Sabotage("gives up writing", ("twice", "faults"), gives_up_writing),
)
