"""What a server asks of you: the handler's Protocols, and the values it is handed.

A handler is any object with `mail`, `rcpt` and `content`; further powers are Protocols of their
own, so that a misspelt method is a type error and not silence.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, runtime_checkable

from attrs import define

from .core.command import Mail, Rcpt
from .core.envelope import Envelope
from .core.event import Content, EndOfContent, TlsInfo
from .core.reply import Reply
from .core.sasl import Verify
from .core.server_connection import ServerEvent

__all__ = [
    "Authenticator",
    "ContentError",
    "ContentStream",
    "Handler",
    "Session",
    "Welcomer",
]


class ContentError(Exception):
    """The content being read cannot be accepted; the server answers by itself.

    `reply` is the refusal the content has earned, None when the connection was lost.
    """

    def __init__(self, reply: Reply | None) -> None:
        super().__init__(str(reply) if reply else "connection lost within the content")
        self.reply = reply


class ContentStream:
    """The content of one message as an async iterator of octets, dots unstuffed.

    Reading is what makes the client go on sending, so it is never held whole. At the end of
    content at fault, or cut short, iteration raises ContentError instead of ending: what was
    stored so far is to be thrown away, and the error may be let through.
    """

    def __init__(self, pull: Callable[[], Awaitable[ServerEvent]]) -> None:
        self._pull = pull
        #: The end, once it has been read.
        self.end: EndOfContent | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.end is None:
            event = await self._pull()
            if isinstance(event, Content):
                return event.data
            if not isinstance(event, EndOfContent):
                raise ContentError(None)
            self.end = event
        if self.end.fault is not None:
            raise ContentError(self.end.fault)
        raise StopAsyncIteration


@define
class Session:
    """What is known of a client, for handlers to read. One for each connection."""

    #: Unique within the process, for logs.
    id: int
    #: IP address and port of the client.
    peer: tuple[str, int]
    #: The same of our end.
    local: tuple[str, int]
    tls: TlsInfo | None = None
    #: The name the client gave in EHLO or HELO.
    helo_name: str = ""
    #: It said EHLO.
    extended: bool = False
    #: Who has logged in; None if nobody has.
    identity: str | None = None
    #: It talked before the greeting (RFC 5321 §4.3.1).
    early_talker: bool = False


class Handler(Protocol):
    """What a server does with mail. Each answer is a Reply, or None for the usual good one.

    What raises is answered with 451 and logged; nothing of it reaches the client.
    """

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        """Judge a sender."""
        ...

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        """Judge a recipient. None makes the server responsible for it."""
        ...

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        """Take the content. Return a good reply only when it is where it cannot be lost."""
        ...


@runtime_checkable
class Welcomer(Protocol):
    """A handler that judges a connection before the greeting, too."""

    async def connect(self, session: Session) -> Reply | None:
        """Return None to greet, or 554 or 421 to refuse."""
        ...


class Authenticator(Protocol):
    """Who may log in."""

    async def verify(self, session: Session, question: Verify) -> bool:
        """Tell whether the password is right and the user may act as the identity asked for."""
        ...
