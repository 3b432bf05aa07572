"""A queueing mail server to embed: it takes mail in, keeps it safe, and carries it on.

In reading order::

    spool, sqlite_spool     where a message is safe      (sqlite_*, disk: below it)
    mailbox                 where it ends
    route                   where it goes next (asks ..resolve)
    schedule                when it is tried again
    report, trace           what is written about it
    story                   what is told of it
    intake                  in: policy, Received, spool
    deliver, dispatch       out: attempts, and the loop over them
    accounts, relay         who may log in; all of it together
"""

from __future__ import annotations

from smtpproto.resolve import DnsResolver

from .accounts import Passwords
from .deliver import Access
from .mailbox import Maildir
from .relay import Listener, Relay
from .route import HostPort, Router
from .schedule import Schedule
from .sqlite_spool import SQLiteSpool

__all__ = [
    "Access",
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
