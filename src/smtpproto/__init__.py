"""SMTP for Python: the protocol, a client, a server, and a relay made of them.

This front door loads the core and nothing else. The rooms behind it::

    smtpproto             the protocol without I/O (this module; also smtpproto.core)
    smtpproto.extensions  one file for each ESMTP extension
    smtpproto.mechanisms  one file for each SASL mechanism
    smtpproto.client      send mail over anyio, on asyncio or trio
    smtpproto.blocking    the same for scripts, without an event loop to be seen
    smtpproto.server      receive mail over anyio
    smtpproto.pool        sessions kept for the next message, and many messages at a time
    smtpproto.handlers    ready ones for a server: mailboxes, a proxy, faults
    smtpproto.discover    the server that takes an address's mail  (extra: discover)
    smtpproto.relay       a queueing mail server to embed   (extra: relay)
    smtpproto.cli         the `smtpproto` command           (extra: cli)
    smtpproto.testing     for your own tests: two ends joined in memory, dialogues

The core in short: a `ServerConnection` pulls commands and content and sends replies, a
`ClientConnection` sends commands and content and pulls replies. Both take octets by
`receive_data`, give events by `next_event`, and give octets by `send`.
"""

from __future__ import annotations

from .core.client_connection import ClientConnection
from .core.command import (
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Data,
    Ehlo,
    Expn,
    Helo,
    Help,
    Lhlo,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Vrfy,
)
from .core.connection import Limits
from .core.envelope import Envelope
from .core.errors import GrammarError, LocalProtocolError, ProtocolError, RemoteProtocolError
from .core.event import (
    NEED_DATA,
    PAUSED,
    BadCommand,
    Chunk,
    ConnectionClosed,
    Content,
    EndOfChunk,
    EndOfContent,
    Signal,
    TlsInfo,
)
from .core.extension import Extension
from .core.parameter import Parameter, Parameters
from .core.path import ForwardPath, Mailbox, ReversePath
from .core.reply import Reply, Severity
from .core.server_connection import ServerConnection
from .core.state import State
from .core.status import EnhancedStatus
from .extensions import STANDARD

__version__ = "0.1.0"

__all__ = [
    "NEED_DATA",
    "PAUSED",
    "STANDARD",
    "Auth",
    "AuthResponse",
    "BadCommand",
    "Bdat",
    "Chunk",
    "ClientConnection",
    "Command",
    "ConnectionClosed",
    "Content",
    "Data",
    "Ehlo",
    "EndOfChunk",
    "EndOfContent",
    "EnhancedStatus",
    "Envelope",
    "Expn",
    "Extension",
    "ForwardPath",
    "GrammarError",
    "Helo",
    "Help",
    "Lhlo",
    "Limits",
    "LocalProtocolError",
    "Mail",
    "Mailbox",
    "Noop",
    "Parameter",
    "Parameters",
    "ProtocolError",
    "Quit",
    "Rcpt",
    "RemoteProtocolError",
    "Reply",
    "ReversePath",
    "Rset",
    "ServerConnection",
    "Severity",
    "Signal",
    "StartTls",
    "State",
    "TlsInfo",
    "Vrfy",
]
