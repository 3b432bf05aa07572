"""Ready handlers for a server: what to do with mail, in a word.

::

    Discard    accept all, keep nothing
    Memory     keep it in a list, for tests
    Debug      print it
    Maildirs   into a Maildir for each mailbox, durably
    Mbox       into one mbox file, durably
    Forward    hand it to another server while the client waits, and answer what that says
    Faulty     wrap another handler, and go wrong on purpose: to test those who send
    Wrapper    wrap another handler, to override some of it

The first five are a `Discard` whose `content` does something: subclass them, and override
`mail` and `rcpt`, to be choosy about who may send what to whom.
"""

from __future__ import annotations

from .debug import Debug
from .discard import Discard
from .faulty import CLOSING, HARD, SOFT, Fault, Faulty
from .forward import Forward, NextHop
from .maildirs import Maildirs
from .mbox import Mbox
from .memory import Memory, Received
from .wrapper import Wrapper

__all__ = [
    "CLOSING",
    "HARD",
    "SOFT",
    "Debug",
    "Discard",
    "Fault",
    "Faulty",
    "Forward",
    "Maildirs",
    "Mbox",
    "Memory",
    "NextHop",
    "Received",
    "Wrapper",
]
