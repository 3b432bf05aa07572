"""What is kept out: filters that look at a client and its mail, and say what they think of it.

In reading order::

    seam        a Filter, what it sees, and what it may answer
    chain       several of them in their order, and what follows from their answers
    held        content that has come, and is not accepted yet
    memory      what is remembered of clients, over restarts

    names       the name a client gives, and that of its address
    blocklist   block lists, over the DNS
    greylist    a stranger has to come twice
    limits      so many messages an hour, and no more
    sanity      a header that is none
    networks    whom the operator knows
    rspamd      what rspamd thinks (it needs httpx, and is imported by itself)
"""

from __future__ import annotations

from .blocklist import BlockList
from .chain import Chain
from .greylist import Greylist
from .limits import Limit, RateLimits
from .memory import SQLiteMemory
from .names import ClientNames
from .networks import Networks
from .sanity import HeaderSanity
from .seam import Accept, Answer, Filter, Finding, Quarantine, Refuse, Seen, Stage, Tag, Tagging

__all__ = [
    "Accept",
    "Answer",
    "BlockList",
    "Chain",
    "ClientNames",
    "Filter",
    "Finding",
    "Greylist",
    "HeaderSanity",
    "Limit",
    "Networks",
    "Quarantine",
    "RateLimits",
    "Refuse",
    "SQLiteMemory",
    "Seen",
    "Stage",
    "Tag",
    "Tagging",
]
