"""The registry: one file and one word in STANDARD for each ESMTP extension.

Add your own beside them: `STANDARD + (MINE,)`.
"""

from __future__ import annotations

from smtpproto.core.extension import Extension

from .auth import AUTH
from .eightbitmime import EIGHTBITMIME
from .enhancedstatuscodes import ENHANCEDSTATUSCODES
from .pipelining import PIPELINING
from .size import SIZE
from .starttls import STARTTLS

__all__ = [
    "AUTH",
    "EIGHTBITMIME",
    "ENHANCEDSTATUSCODES",
    "PIPELINING",
    "SIZE",
    "STANDARD",
    "STARTTLS",
]

#: In the order in which they are announced.
STANDARD: tuple[Extension, ...] = (
    PIPELINING,
    SIZE,
    EIGHTBITMIME,
    ENHANCEDSTATUSCODES,
    STARTTLS,
    AUTH,
)
