"""For your own tests: two ends joined in memory, readable dialogues, hypothesis strategies.

::

    smtpproto.testing.pair         a client and a server joined without a socket
    smtpproto.testing.dialogue     plays a text of `C:` and `S:` lines against either end
    smtpproto.testing.strategies   commands, replies, values, sessions for hypothesis, which is to
                                   be installed; your own extension can be plugged in
    smtpproto.testing.server       a running server that keeps what it is sent, and has faults
    pytest_smtpproto               the same as fixtures of pytest

The first three are pure: no clock, no socket, no randomness but hypothesis' own.
"""

from __future__ import annotations

from smtpproto.handlers.faulty import CLOSING, HARD, SOFT, Fault
from smtpproto.handlers.memory import Received

from .dialogue import Dialogue, DialogueError, play_client, play_server
from .pair import Cut, Pair, Policy, at_points, octet_by_octet, suggested, whole
from .server import NotArrivedError, SmtpClient, SmtpServer

__all__ = [
    "CLOSING",
    "HARD",
    "SOFT",
    "Cut",
    "Dialogue",
    "DialogueError",
    "Fault",
    "NotArrivedError",
    "Pair",
    "Policy",
    "Received",
    "SmtpClient",
    "SmtpServer",
    "at_points",
    "octet_by_octet",
    "play_client",
    "play_server",
    "suggested",
    "whole",
]
