"""The registry: one file and one word in STANDARD for each ESMTP extension.

Add your own beside them: `STANDARD + (MINE,)`.

What a server knows and what it offers are two things: by default it offers those whose
`obliges` is empty. Offer more by naming them, some made with what they announce::

    ServerConnection(name, STANDARD, offer=[*OFFER, DSN, deliverby(60)])
"""

from __future__ import annotations

from smtpproto.core.extension import Extension

from .auth import AUTH
from .binarymime import BINARYMIME
from .chunking import CHUNKING
from .deliverby import DELIVERBY
from .dsn import DSN
from .eightbitmime import EIGHTBITMIME
from .enhancedstatuscodes import ENHANCEDSTATUSCODES
from .etrn import ETRN
from .expn import EXPN
from .futurerelease import FUTURERELEASE
from .help import HELP
from .limits import LIMITS
from .mt_priority import MT_PRIORITY
from .pipelining import PIPELINING
from .requiretls import REQUIRETLS
from .rrvs import RRVS
from .size import SIZE
from .smtputf8 import SMTPUTF8
from .starttls import STARTTLS
from .xclient import XCLIENT
from .xforward import XFORWARD

__all__ = [
    "AUTH",
    "BINARYMIME",
    "CHUNKING",
    "DELIVERBY",
    "DSN",
    "EIGHTBITMIME",
    "ENHANCEDSTATUSCODES",
    "ETRN",
    "EXPN",
    "FUTURERELEASE",
    "HELP",
    "LIMITS",
    "MT_PRIORITY",
    "PIPELINING",
    "REQUIRETLS",
    "RRVS",
    "SIZE",
    "SMTPUTF8",
    "STANDARD",
    "STARTTLS",
    "XCLIENT",
    "XFORWARD",
]

#: In the order in which they are announced.
STANDARD: tuple[Extension, ...] = (
    PIPELINING,
    SIZE,
    EIGHTBITMIME,
    CHUNKING,
    BINARYMIME,
    SMTPUTF8,
    ENHANCEDSTATUSCODES,
    STARTTLS,
    AUTH,
    HELP,
    EXPN,
    DSN,
    DELIVERBY,
    FUTURERELEASE,
    MT_PRIORITY,
    REQUIRETLS,
    RRVS,
    LIMITS,
    ETRN,
    XCLIENT,
    XFORWARD,
)
