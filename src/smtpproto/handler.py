"""What a server asks of you: the handler's Protocols, and the values it is handed.

A handler is any object with `mail`, `rcpt` and `content`; further powers are Protocols of their
own, so that a misspelt method is a type error and not silence.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

from attrs import define, field

from .core.command import Command, Ehlo, Expn, Helo, Mail, Rcpt, Vrfy
from .core.envelope import Envelope
from .core.errors import RemoteProtocolError
from .core.event import BadCommand, Content, EndOfContent, TlsInfo
from .core.proxy import ProxyHeader
from .core.reply import Reply
from .core.sasl import (
    Authorize,
    Lookup,
    ScramKeys,
    TokenRefusal,
    Verify,
    VerifyAnonymous,
    VerifyExternal,
    VerifyToken,
)
from .core.server_connection import ServerConnection, ServerEvent
from .deadline import DeadlineError
from .extensions.etrn import Etrn
from .extensions.xclient import XClient
from .stream import StreamLostError

__all__ = [
    "AnonymousVerifier",
    "AnyAuthenticator",
    "Authenticator",
    "Authorizer",
    "Closer",
    "ContentError",
    "ContentStream",
    "Deliverer",
    "ExternalVerifier",
    "Handler",
    "HangUp",
    "HeloJudge",
    "Interceptor",
    "Interpreter",
    "KeyLookup",
    "ListExpander",
    "LoginGuard",
    "MailboxVerifier",
    "QueueRunner",
    "Session",
    "TokenVerifier",
    "Welcomer",
]


C = TypeVar("C", bound=Command)


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
        self.lost: StreamLostError | DeadlineError | RemoteProtocolError | HangUp | None = None

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
            except (StreamLostError, DeadlineError, RemoteProtocolError, HangUp) as error:
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
    #: It speaks LMTP.
    lmtp: bool = False
    #: What a proxy said of it, for its vectors; None where none did.
    proxy: ProxyHeader | None = None
    #: The last XCLIENT, which said whom to take it for; None if there was none.
    xclient: XClient | None = None
    _connection: ServerConnection | None = field(default=None, init=False, repr=False, eq=False)

    def preamble(self, verb: type[C]) -> C | None:
        """Return what MAIL or an extension's `preamble` verb said of this transaction, or the next.

        `session.preamble(Mail)`: the sender, for who judges a recipient;
        `session.preamble(XForward)`: whom a filter had the message from. None if nothing was said.
        """
        return None if self._connection is None else self._connection.preamble(verb)

    def believe(self, header: ProxyHeader) -> None:
        """Be the client that a proxy speaks of, if it knows (the server says so)."""
        self.proxy = header
        if isinstance(header.source, tuple) and isinstance(header.destination, tuple):
            self.peer, self.local = header.source, header.destination

    def belongs_to(self, connection: ServerConnection) -> None:
        """Know the protocol's own state (the server says so)."""
        self._connection = connection


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
class HeloJudge(Protocol):
    """A handler that judges the name a client gives in EHLO, HELO or LHLO."""

    async def helo(self, session: Session, command: Ehlo | Helo) -> Reply | None:
        """Return None to go on, or a refusal: 550 for the name, 421 to send the client away.

        That the name is not the address's is no reason for one (RFC 5321 §4.1.4). A good reply
        is the server's own, for it announces what is offered.
        """
        ...


@runtime_checkable
class MailboxVerifier(Protocol):
    """A handler that says which mailboxes there are; without it every VRFY is answered with 252."""

    async def vrfy(self, session: Session, command: Vrfy) -> Reply | None:
        """Return 250 with the mailbox, 251, 550, 551 or 553 (RFC 5321 §3.5.3); None for 252.

        Whoever may not know should not learn it from how long it takes either (§7.3).
        """
        ...


@runtime_checkable
class ListExpander(Protocol):
    """A handler that says who is on a list: EXPN is offered. Without it the answer is 502."""

    async def expn(self, session: Session, command: Expn) -> Reply | None:
        """Return 250 with a mailbox in each line, 550, or None for 252; as with VRFY."""
        ...


@runtime_checkable
class QueueRunner(Protocol):
    """A handler that has a queue for others: ETRN is offered (RFC 1985)."""

    async def etrn(self, session: Session, command: Etrn) -> Reply | None:
        """Start the queue: 250, 251 nothing waits, 252 or 253 so much does, 459 may not.

        None for 458, it cannot be started now. Nobody is connected to but by the server itself.
        """
        ...


@runtime_checkable
class Interpreter(Protocol):
    """A handler that has something to say to commands which the server has no answer to."""

    async def unknown(self, session: Session, command: Command | BadCommand) -> Reply | None:
        """Answer the verb of an extension of yours; None for the `suggested` reply of its command.

        A BadCommand is of no extension that is offered. It can only be refused: with another
        reply than its own, 421 to send the client away, or HangUp.
        """
        ...


@runtime_checkable
class Deliverer(Protocol):
    """A handler that has an outcome for each recipient, for a server of LMTP (RFC 2033 §4.2)."""

    async def deliver(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Mapping[Rcpt, Reply | None]:
        """Take the content, in place of `content`; answer for each of `envelope.rcpts`.

        None is the usual good reply. A recipient that is not in the mapping was not delivered to:
        451 is its answer, and the log says that one is missing.
        """
        ...


@runtime_checkable
class Interceptor(Protocol):
    """A handler that may answer any command in the server's place: to test those who send."""

    async def before(
        self, session: Session, command: Command | BadCommand, usual: Reply | None
    ) -> Reply | None:
        """Return what to answer at once; None lets the command take its usual course.

        That is good for `usual` if no other power objects. Where more follows a good answer than a
        reply (EHLO, HELO, STARTTLS, AUTH, XCLIENT, DATA, BDAT), this can only refuse: a good one is
        logged as an error, and 451. BDAT has no `usual`; it is refused at the end of the content,
        and no handler sees that. May raise HangUp.
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
        """Tell whether the password is right and the user may act as the identity asked for.

        To refuse in other words than 535 it raises AuthenticationError with the reply, as any
        power of an authenticator may.
        """
        ...


@runtime_checkable
class KeyLookup(Protocol):
    """An authenticator that has what SCRAM or CRAM-MD5 need."""

    @property
    def stored(self) -> Collection[str]:
        """The mechanisms there are secrets for, such as "SCRAM-SHA-256"; they are offered.

        Asked for once by each server.
        """
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


@runtime_checkable
class LoginGuard(Protocol):
    """Who slows down and locks out those that guess passwords: `Server(guard=...)`.

    It hears of every attempt to log in as somebody by a secret (Verify, Lookup, VerifyToken).
    """

    async def admit(self, session: Session, username: str) -> Reply | None:
        """Judge an attempt before any secret is looked at: None to go on, or a refusal.

        454 for who may try again later (RFC 4954 §6): 535 would have a mail program forget a
        password that is right. `username` is as claimed; "" where the mechanism names none.
        What is admitted and never `ended` broke off: count it as failed.
        """
        ...

    async def ended(self, session: Session, username: str, *, success: bool | None) -> float:
        """Hear how an admitted attempt ended; return how many seconds a refusal has to wait.

        `success` is None where nobody could say whether the secret was right: 454 from the
        authenticator. That is no fault of the client, and no guess of a password.
        """
        ...


#: One power at least; an authenticator may have several.
AnyAuthenticator: TypeAlias = (
    Authenticator | KeyLookup | TokenVerifier | ExternalVerifier | AnonymousVerifier
)
