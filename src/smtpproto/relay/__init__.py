"""A queueing mail server to embed: it takes mail in, keeps it safe, and carries it on.

In reading order::

    spool, sqlite_spool     where a message is safe      (sqlite_*, leases, disk: below it)
    aliases, quota, mailbox who stands for whom; what a mailbox may hold; where mail ends
    verp                    a return path for each recipient, and the way back
    access, transport       what can be done with it: next hops, and how they are talked to
    table, route            what is done with it, by rules; else by the DNS (..resolve)
    hops                    what is known of next hops
    schedule, times         when it is tried again; from when on and by when it is wanted
    report, trace           what is written about it
    story, story_file       what is told of it, and kept for who asks
    metrics                 … and its numbers (an extra)
    callout                 who exists elsewhere
    submission, header      what mail programs hand over, completed
    policy                  who may send to whom
    offers, intake          in: what is taken on; what exists; Received, spool
    filters, screening      … and what is kept out
    attempt, ways, clients  out: what came of it, for whom; sessions with next hops
    onward, content         … what goes on to a next hop, and how
    downgrade, mime_header  … content made fit for one that takes less
    deliver, verdict        … attempts, and what follows from them
    dispatch                the loop over them
    sha_crypt, schemes      passwords as they are stored
    account_file, accounts  who may log in, and send as whom
    guessing                who may not try again so soon
    relay                   all of it together
"""

from __future__ import annotations

from smtpproto.resolve import DnsResolver, Resolver

from .access import Access
from .accounts import AccountFile, Passwords, SenderPolicy
from .aliases import Aliases, AliasTable, MailingList
from .callout import Callout, Verifier
from .mailbox import MailboxStore, Maildir
from .policy import HousePolicy, Policy
from .quota import Quota, quotas
from .relay import Listener, Relay
from .route import Router, Routing
from .schedule import Schedule
from .spool import Spool
from .sqlite_spool import SQLiteSpool
from .story import Observer
from .table import Routes, RouteTable, Rule
from .transport import ByMx, Discard, Here, Host, HostPort, NextHop, OnHold, Refuse
from .verp import Verp

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
