"""A queueing mail server to embed: it takes mail in, keeps it safe, and carries it on.

Its rooms, in reading order::

    spool       where a message is safe
    routing     where mail goes: next hops, and the rules by which one is chosen
    content     what mail holds, made fit for where it goes
    reports     what is told: to senders, and to operators
    accounts    who may log in, and send as whom
    filters     what is kept out
    mailboxes   whose mail it is, and where it ends
    delivery    out: attempts, and what follows from them
    intake      in: who may send what, and how it comes into the spool
    relay       all of it together
    metrics     … and its numbers (an extra)
"""

from __future__ import annotations

try:
    from smtpproto.resolve import DnsResolver, Resolver
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "dns":
        raise
    raise ModuleNotFoundError(
        "smtpproto.relay needs dnspython, which is not installed: install smtpproto with its "
        "extra `relay`, as in: pip install 'smtpproto[relay]'",
        name=error.name,
    ) from error

from .accounts.login import AccountFile, Passwords, SenderPolicy
from .delivery.callout import Callout, Verifier
from .intake.policy import HousePolicy, Policy
from .mailboxes.aliases import Aliases, AliasTable, MailingList
from .mailboxes.mailbox import MailboxStore, Maildir
from .mailboxes.quota import Quota, quotas
from .mailboxes.verp import Verp
from .relay import Listener, Relay
from .reports.story import Observer
from .routing.access import Access
from .routing.route import Router, Routing
from .routing.schedule import Schedule
from .routing.table import Routes, RouteTable, Rule
from .routing.transport import ByMx, Discard, Here, Host, HostPort, NextHop, OnHold, Refuse
from .spool.seam import Spool
from .spool.sqlite import SQLiteSpool

__all__ = [
    "Access",
    "AccountFile",
    "AliasTable",
    "Aliases",
    "ByMx",
    "Callout",
    "Discard",
    "DnsResolver",
    "Here",
    "Host",
    "HostPort",
    "HousePolicy",
    "Listener",
    "MailboxStore",
    "Maildir",
    "MailingList",
    "NextHop",
    "Observer",
    "OnHold",
    "Passwords",
    "Policy",
    "Quota",
    "Refuse",
    "Relay",
    "Resolver",
    "RouteTable",
    "Router",
    "Routes",
    "Routing",
    "Rule",
    "SQLiteSpool",
    "Schedule",
    "SenderPolicy",
    "Spool",
    "Verifier",
    "Verp",
    "quotas",
]
