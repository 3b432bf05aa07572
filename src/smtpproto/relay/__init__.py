"""A queueing mail server to embed: it takes mail in, keeps it safe, and carries it on.

In reading order::

    spool, sqlite_spool     where a message is safe      (sqlite_*, leases, disk: below it)
    mailbox, aliases        where it ends, and who stands for whom there
    route, hops             where it goes next (asks ..resolve), and what is known of it
    schedule                when it is tried again
    report, trace           what is written about it
    story                   what is told of it
    intake                  in: policy, Received, spool
    deliver, verdict        out: attempts, and what follows from them
    dispatch                the loop over them
    accounts, relay         who may log in; all of it together
"""

from __future__ import annotations

from smtpproto.resolve import DnsResolver

from .accounts import Passwords
from .aliases import AliasTable
from .deliver import Access
from .mailbox import Maildir
from .relay import Listener, Relay
from .route import HostPort, Router
from .schedule import Schedule
from .sqlite_spool import SQLiteSpool

__all__ = [
    "Access",
    "AliasTable",
    "DnsResolver",
    "HostPort",
    "Listener",
    "Maildir",
    "Passwords",
    "Relay",
    "Router",
    "SQLiteSpool",
    "Schedule",
]
