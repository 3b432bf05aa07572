"""SASL (RFC 4422), both sides: what mechanisms are made of. They stand in `mechanisms/`.

A mechanism is two generators. The *server's* yields what it needs next and is sent the answer::

    Challenge        what the client responds, octets
    Verify           True: this is the password, and the user may act so
    Lookup           ScramKeys, or the secret itself for CRAM-MD5; None: no such user
    Authorize        True: the user may act as another
    VerifyToken      the identity that the token stands for; None or a TokenRefusal
    VerifyExternal   the identity that is known by other means (a certificate); None
    VerifyAnonymous  the identity to give somebody unknown; None

All but the first are for the caller, who answers in its own time, from a database maybe. It
returns the identity that is logged in, or raises AuthenticationError with the reply to send.
`ServerExchange` drives it.

The *client's* yields responses and is sent challenges, and None when the server says that we are
in; its first yield is the initial response, or None where the server speaks first. It raises
ExchangeError where the server is not to be believed. `ClientExchange` drives it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import TypeAlias

from attrs import field, frozen

from .base64 import encode_base64
from .errors import LocalProtocolError
from .reply import Reply, Severity
from .value import taken

__all__ = [
    "MALFORMED",
    "REFUSED",
    "Answer",
    "AuthenticationError",
    "Authorize",
    "Challenge",
    "ChannelBinding",
    "ClientExchange",
    "ClientSteps",
    "Credentials",
    "ExchangeError",
    "Lookup",
    "Mechanism",
    "Question",
    "ScramKeys",
    "ServerContext",
    "ServerExchange",
    "ServerSteps",
    "TokenRefusal",
    "Verify",
    "VerifyAnonymous",
    "VerifyExternal",
    "VerifyToken",
    "random_nonce",
]

REFUSED = Reply(535, "5.7.8", "Authentication credentials invalid")
MALFORMED = Reply(501, "5.5.2", "Malformed authentication response")
CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")
NOT_DUE = Reply(501, "5.7.0", "This mechanism takes no initial response")


class AuthenticationError(Exception):
    """The exchange has failed, as a server sees it; `reply` says so to the client."""

    def __init__(self, reply: Reply = REFUSED) -> None:
        super().__init__(str(reply))
        self.reply = reply


class ExchangeError(Exception):
    """The exchange has failed, as a client sees it: this server is not to be believed.

    Cancel if the exchange is under way (`*`), and do not go on as if logged in.
    """


# What both ends bring


def random_nonce() -> str:
    """Return 144 fresh bits as hexadecimal digits."""
    return os.urandom(18).hex()


@frozen
class ChannelBinding:
    """What names the TLS channel below (RFC 5056): a type of RFC 5929 or 9266, and its octets."""

    type: str
    data: bytes = field(repr=False)


@frozen
class Credentials:
    """What a client can log in with; give what there is, a mechanism is found for it.

    `authorization` is the identity to act as, where it is not the user's own. `token` is a
    bearer token (OAuth), meant for `host` and `port`. `external` says that the certificate of
    our end of TLS speaks for us, `trace` what to leave as a guest, the address of a person or
    nothing at all. `binding` is that of the TLS channel in use. `nonce` gives fresh printable
    ASCII without a comma. A server of SCRAM may ask for `iterations`, from the first to the
    second: fewer protect nothing, more would keep us busy for as long as it likes
    (RFC 5802 §§5.1, 9).
    """

    username: str = ""
    password: str | None = field(default=None, repr=False)
    authorization: str = ""
    token: str | None = field(default=None, repr=False, kw_only=True)
    host: str = field(default="", kw_only=True)
    port: int = field(default=0, kw_only=True)
    external: bool = field(default=False, kw_only=True)
    trace: str | None = field(default=None, kw_only=True)
    binding: ChannelBinding | None = field(default=None, kw_only=True)
    nonce: Callable[[], str] = field(default=random_nonce, kw_only=True, eq=False, repr=False)
    iterations: tuple[int, int] = field(default=(4096, 1_000_000), kw_only=True)


@frozen
class ServerContext:
    """What a server brings to its exchanges.

    `bindings` are those of the TLS channel, of each type that is known; none where binding is not
    offered. `secret` makes up what users that do not exist seem to have: keep it over restarts,
    and `iterations` at what real users have, or they can be told apart.
    """

    hostname: str = "localhost"
    bindings: tuple[ChannelBinding, ...] = ()
    nonce: Callable[[], str] = field(default=random_nonce, eq=False, repr=False)
    secret: bytes = field(factory=lambda: os.urandom(32), repr=False)
    iterations: int = 4096


# Questions and answers


@frozen
class Challenge:
    """Send this to the client (334) and hand back its response."""

    data: bytes = field(repr=False)

    def reply(self) -> Reply:
        """Return the 334 that carries it (RFC 4954 §4), as long as it has to be."""
        lines = (encode_base64(self.data),)
        severity = Severity.INTERMEDIATE
        return taken(Reply, code=334, status=None, lines=lines, severity=severity, _wire=b"")


@frozen
class Verify:
    """Is this the password of this user? Answer True or False.

    Both have gone through SASLprep (RFC 4616 §2); what they are compared with should have, too.
    `authorization` is the identity to act as; empty where it is the user's own.
    """

    username: str
    password: str = field(repr=False)
    authorization: str = ""


@frozen
class Lookup:
    """What is stored for this user to log in by `mechanism` with? Answer None if nothing is.

    ScramKeys for SCRAM (`mechanism` is "SCRAM-SHA-256" or "SCRAM-SHA-1", with channel binding
    or without), and for CRAM-MD5 the secret itself in octets. Take as long for an unknown user.
    """

    username: str
    mechanism: str


@frozen
class Authorize:
    """This user has proved to be it: may it act as `authorization`? Answer True or False."""

    username: str
    authorization: str


@frozen
class VerifyToken:
    """Whom does this token let in? Answer the identity; a TokenRefusal or None to refuse.

    `authorization` is the user name that was claimed with it, empty if none was: refuse what it
    does not fit. `host` and `port` are what the client believes to be connected to, "" and 0
    where it did not say; they MUST fit where that is known (RFC 7628 §3.2). An empty token asks
    for nothing but the refusal, to learn the scope.
    """

    token: str = field(repr=False)
    authorization: str
    mechanism: str
    host: str = ""
    port: int = 0


@frozen
class VerifyExternal:
    """Who is the client, by its certificate or another means outside of SASL, acting as whom?

    `authorization` is the identity it wants to act as, empty for its own. Answer the identity
    it may act as, or None.
    """

    authorization: str


@frozen
class VerifyAnonymous:
    """May somebody who left this `trace` in? Answer the identity to give them, or None."""

    trace: str


@frozen
class ScramKeys:
    """What a server stores of a password for SCRAM (RFC 5802 §3); it does not tell the password."""

    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@frozen
class TokenRefusal:
    """Why a token is refused and what would do: told to the client (RFC 7628 §3.2.2)."""

    status: str = "invalid_token"
    scope: str = ""
    openid_configuration: str = ""


Question: TypeAlias = (
    Challenge | Verify | Lookup | Authorize | VerifyToken | VerifyExternal | VerifyAnonymous
)
Answer: TypeAlias = "bytes | bool | str | ScramKeys | TokenRefusal | None"
ServerSteps: TypeAlias = Generator[Question, Answer, str]
ClientSteps: TypeAlias = Generator["bytes | None", "bytes | None", None]


def _has_password(credentials: Credentials) -> bool:
    return credentials.username != "" and credentials.password is not None


@frozen
class Mechanism:
    """One SASL mechanism, as both sides know it.

    `server` takes the initial response, or None, and what the server brings; `client` what
    there is to log in with. `plaintext` mechanisms show a secret to whoever listens, and are
    not offered without TLS unless the caller asks for it (RFC 4954 §4); those that have to be
    bound to the TLS channel (`binds`) never are. `client_first` says whether an initial response
    may come. `asks` is what the server's caller must be able to answer; `serves` tells whether
    a client's credentials do.
    """

    name: str
    plaintext: bool
    server: Callable[[bytes | None, ServerContext], ServerSteps] = field(eq=False, repr=False)
    client: Callable[[Credentials], ClientSteps] = field(eq=False, repr=False)
    binds: bool = False
    client_first: bool = True
    asks: type[Question] = Verify
    serves: Callable[[Credentials], bool] = field(default=_has_password, eq=False, repr=False)

    @property
    def family(self) -> str:
        """The name without -PLUS: what is stored for it is the same with binding or without."""
        return self.name.removesuffix("-PLUS")


class ServerExchange:
    """Drives the server's side of one exchange: ask `step` for what to do, give it the answer."""

    def __init__(
        self,
        mechanism: Mechanism,
        initial_response: bytes | None,
        context: ServerContext | None = None,
    ) -> None:
        self._not_due = initial_response is not None and not mechanism.client_first
        self._steps = mechanism.server(initial_response, context or ServerContext())
        self._asked: Question | None = None
        self._begun = False

    def step(self, answer: Answer = None) -> Question | str:
        """Take the answer to the last question, nothing on the first call.

        None for a client's response says that it cancelled. Returns the next question, or the
        identity that is now logged in. Raises AuthenticationError with the reply to send, and
        LocalProtocolError behind the end.
        """
        asked, self._asked = self._asked, None
        try:
            if not self._begun:
                self._begun = True
                if self._not_due:
                    raise AuthenticationError(NOT_DUE)  # RFC 4954 §4
                self._asked = next(self._steps)
            elif asked is None:
                raise LocalProtocolError("this exchange is over")
            elif isinstance(asked, Challenge) and not isinstance(answer, bytes):
                self._steps.close()
                raise AuthenticationError(CANCELLED)
            else:
                self._asked = self._steps.send(answer)
        except StopIteration as stop:
            identity: str = stop.value
            return identity
        return self._asked


class ClientExchange:
    """Drives the client's side of one exchange."""

    def __init__(self, mechanism: Mechanism, credentials: Credentials) -> None:
        self._steps = mechanism.client(credentials)
        self._begun = False
        #: What the server said last; for OAuth this tells why a token was refused.
        self.last_challenge: bytes | None = None

    def initial_response(self) -> bytes | None:
        """Return the initial response, or None where the server speaks first.

        LocalProtocolError where the credentials cannot be said in this mechanism, and on a second
        call.
        """
        if self._begun:
            raise LocalProtocolError("this exchange has begun already")
        self._begun = True
        return next(self._steps)

    def respond(self, challenge: bytes) -> bytes | None:
        """Return the response to a challenge, or None to cancel: there is nothing left to say.

        ExchangeError, after which to cancel as well, where the server is not to be believed.
        LocalProtocolError ahead of `initial_response`.
        """
        if not self._begun:
            raise LocalProtocolError("the initial response comes first")
        self.last_challenge = challenge
        try:
            return self._steps.send(challenge)
        except StopIteration:
            return None

    def succeed(self) -> None:
        """Take note that the server says we are logged in (235).

        ExchangeError, and we are not, where it had yet to prove that it knows us
        (RFC 5802 §5), or has refused us before.
        """
        try:
            self._steps.send(None)
        except StopIteration:
            return
        raise ExchangeError("the server says that we are logged in, in the middle of the exchange")
