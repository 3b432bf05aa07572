"""What a server asks of you: the handler's Protocols, and the values it is handed.

A handler is any object with `mail`, `rcpt` and `content`; further powers are Protocols of their
own, so that a misspelt method is a type error and not silence.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Protocol, TypeAlias, runtime_checkable

from attrs import define

from .core.command import Command, Mail, Rcpt
from .core.envelope import Envelope
from .core.errors import RemoteProtocolError
from .core.event import BadCommand, Content, EndOfContent, TlsInfo
from .core.reply import Reply
from .core.sasl import (
    Answer,
    Authorize,
    Lookup,
    Mechanism,
    Question,
    ScramKeys,
    TokenRefusal,
    Verify,
    VerifyAnonymous,
    VerifyExternal,
    VerifyToken,
)
from .core.server_connection import ServerEvent
from .deadline import DeadlineError
from .stream import StreamLostError

__all__ = [
    "AnonymousVerifier",
    "AnyAuthenticator",
    "Authenticator",
    "Authorizer",
    "Closer",
    "ContentError",
    "ContentStream",
    "ExternalVerifier",
    "Handler",
    "HangUp",
    "Interceptor",
    "KeyLookup",
    "Session",
    "TokenVerifier",
    "Welcomer",
    "can_answer",
    "put_question",
]


class ContentError(Exception):
    """The content being read cannot be accepted; the server answers by itself.

    `reply` is the refusal the content has earned, None when the rest of it will not come: the
    connection was lost, or the client dropped the transaction between two chunks.
    """

    def __init__(self, reply: Reply | None) -> None:
        super().__init__(str(reply) if reply else "the content broke off")
        self.reply = reply


class HangUp(Exception):  # noqa: N818 - an order to the server, no fault
    """Raised by a handler: the connection is closed at once, behind `octets` and what was owed."""

    def __init__(self, octets: bytes = b"") -> None:
        super().__init__("the handler hangs up")
        self.octets = octets


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
        #: Why there will be no end; None as long as there may be one.
        self.lost: StreamLostError | DeadlineError | RemoteProtocolError | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.lost is not None:
            raise ContentError(None) from self.lost
        if self.end is None:
            try:
                event = await self._pull()
                if isinstance(event, Content):
                    return event.data
                if not isinstance(event, EndOfContent):
                    raise StreamLostError("closed within the content")
            except (StreamLostError, DeadlineError, RemoteProtocolError) as error:
                self.lost = error
                raise ContentError(None) from error
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
    #: It talked before the greeting (RFC 5321 §4.3.1), seen where `greeting_delay` is not 0.
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
        """Return None to greet, or 554 or 421 to refuse. What raises is answered with 421."""
        ...


@runtime_checkable
class Interceptor(Protocol):
    """A handler that may answer any command in the server's place: to test those who send."""

    async def before(
        self, session: Session, command: Command | BadCommand, usual: Reply | None
    ) -> Reply | None:
        """Return what to answer at once; None lets the command take its usual course.

        That is good for `usual` if no other power objects. It is None for BDAT, which must not be
        answered here: its octets have yet to come. May raise HangUp.
        """
        ...


@runtime_checkable
class Closer(Protocol):
    """A handler that keeps something for each session."""

    async def closed(self, session: Session) -> None:
        """Let go of it: the session is over. Has 10 seconds, even where the server is cancelled."""
        ...


@runtime_checkable
class Authenticator(Protocol):
    """Who may log in with a password: PLAIN and LOGIN are offered."""

    async def verify(self, session: Session, question: Verify) -> bool:
        """Tell whether the password is right and the user may act as the identity asked for."""
        ...


@runtime_checkable
class KeyLookup(Protocol):
    """An authenticator that has what SCRAM or CRAM-MD5 need."""

    @property
    def stored(self) -> Collection[str]:
        """The mechanisms there are secrets for, such as "SCRAM-SHA-256"; they are offered."""
        ...

    async def lookup(self, session: Session, question: Lookup) -> ScramKeys | bytes | None:
        """Return what is stored for a user, None if nothing is. Take as long for that."""
        ...


@runtime_checkable
class Authorizer(Protocol):
    """An authenticator that lets users of SCRAM act as others; without it they cannot."""

    async def authorize(self, session: Session, question: Authorize) -> bool:
        """Tell whether the user may act as the identity asked for."""
        ...


@runtime_checkable
class TokenVerifier(Protocol):
    """An authenticator that knows bearer tokens: OAUTHBEARER and XOAUTH2 are offered."""

    async def verify_token(
        self, session: Session, question: VerifyToken
    ) -> str | TokenRefusal | None:
        """Return the identity that the token lets in; what would do, or None, to refuse."""
        ...


@runtime_checkable
class ExternalVerifier(Protocol):
    """An authenticator that knows clients by `session.tls.certificate`: EXTERNAL is offered."""

    async def verify_external(self, session: Session, question: VerifyExternal) -> str | None:
        """Return the identity that the client may act as, None to refuse."""
        ...


@runtime_checkable
class AnonymousVerifier(Protocol):
    """An authenticator that lets guests in: ANONYMOUS is offered."""

    async def verify_anonymous(self, session: Session, question: VerifyAnonymous) -> str | None:
        """Return the identity that guests have, None to refuse."""
        ...


#: One power at least; an authenticator may have several.
AnyAuthenticator: TypeAlias = (
    Authenticator | KeyLookup | TokenVerifier | ExternalVerifier | AnonymousVerifier
)

_POWERS: dict[type, type] = {
    Verify: Authenticator,
    VerifyToken: TokenVerifier,
    VerifyExternal: ExternalVerifier,
    VerifyAnonymous: AnonymousVerifier,
}


def can_answer(authenticator: object, mechanism: Mechanism) -> bool:
    """Tell whether an authenticator can answer what a mechanism asks."""
    if mechanism.asks is Lookup:
        return isinstance(authenticator, KeyLookup) and mechanism.family in authenticator.stored
    power = _POWERS.get(mechanism.asks)
    return power is not None and isinstance(authenticator, power)


async def put_question(authenticator: object, session: Session, question: Question) -> Answer:
    """Put a mechanism's question to the authenticator; None, which refuses, if it cannot say."""
    match question:
        case Verify() if isinstance(authenticator, Authenticator):
            return await authenticator.verify(session, question)
        case Lookup() if isinstance(authenticator, KeyLookup):
            return await authenticator.lookup(session, question)
        case Authorize() if isinstance(authenticator, Authorizer):
            return await authenticator.authorize(session, question)
        case VerifyToken() if isinstance(authenticator, TokenVerifier):
            return await authenticator.verify_token(session, question)
        case VerifyExternal() if isinstance(authenticator, ExternalVerifier):
            return await authenticator.verify_external(session, question)
        case VerifyAnonymous() if isinstance(authenticator, AnonymousVerifier):
            return await authenticator.verify_anonymous(session, question)
        case _:
            return None
