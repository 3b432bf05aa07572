"""SASL mechanisms (RFC 4422), both sides, as generators over octets.

A *server* generator yields what it needs next and is sent the answer::

    Challenge(octets)   ->  the client's response, octets
    Verify(...)         ->  True or False: the caller checks the password in its own time

It returns the identity that is logged in, or raises AuthenticationError with the reply.
`ServerExchange` drives it. A *client* generator yields responses and is sent challenges; its
first yield is the initial response, or None where the server speaks first.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Generator
from typing import TypeAlias

from attrs import field, frozen

from .errors import LocalProtocolError
from .reply import Reply
from .value import taken

__all__ = [
    "LOGIN",
    "PLAIN",
    "AuthenticationError",
    "Challenge",
    "ClientExchange",
    "Mechanism",
    "ServerExchange",
    "Verify",
]

REFUSED = Reply(535, "5.7.8", "Authentication credentials invalid")
MALFORMED = Reply(501, "5.5.2", "Malformed authentication response")
CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")
NOT_DUE = Reply(501, "5.7.0", "This mechanism takes no initial response")


class AuthenticationError(Exception):
    """The exchange has failed; `reply` says so to the client."""

    def __init__(self, reply: Reply = REFUSED) -> None:
        super().__init__(str(reply))
        self.reply = reply


@frozen
class Challenge:
    """Send this to the client (334) and hand back its response."""

    data: bytes

    def reply(self) -> Reply:
        """Return the 334 that carries it (RFC 4954 §4), as long as it has to be."""
        base64 = binascii.b2a_base64(self.data, newline=False)
        return taken(Reply, code=334, status=None, lines=(base64,), _wire=b"")


@frozen
class Verify:
    """Is this the password of this user? Answer True or False.

    `authorization` is the identity to act as; empty where it is the user's own.
    """

    username: str
    password: str = field(repr=False)
    authorization: str = ""


Question: TypeAlias = Challenge | Verify
Answer: TypeAlias = "bytes | bool"
ServerSteps: TypeAlias = Generator[Question, Answer, str]
ClientSteps: TypeAlias = Generator["bytes | None", bytes, None]


@frozen
class Mechanism:
    """One SASL mechanism.

    `server` takes the initial response or None; `client` takes username, password and
    authorization identity. `plaintext` mechanisms show the password to whoever listens and are
    not offered without TLS unless the caller asks for it (RFC 4954 §4).
    """

    name: str
    plaintext: bool
    server: Callable[[bytes | None], ServerSteps] = field(eq=False)
    client: Callable[[str, str, str], ClientSteps] = field(eq=False)


def _response(answer: Answer) -> bytes:
    return answer if isinstance(answer, bytes) else b""


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise AuthenticationError(MALFORMED) from None


def _plain_server(initial: bytes | None) -> ServerSteps:
    # message = [authzid] NUL authcid NUL passwd (RFC 4616 §2); no initial response: ask for it.
    message = _response((yield Challenge(b""))) if initial is None else initial
    parts = message.split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise AuthenticationError(MALFORMED)
    authorization, username, password = map(_text, parts)
    if (yield Verify(username, password, authorization)) is not True:
        raise AuthenticationError
    return authorization or username


def _plain_client(username: str, password: str, authorization: str) -> ClientSteps:
    if "\0" in username + password + authorization:
        raise LocalProtocolError("no part of PLAIN can hold NUL (RFC 4616 §2)")
    yield f"{authorization}\0{username}\0{password}".encode()


def _login_server(initial: bytes | None) -> ServerSteps:
    # Never standardised; clients wait for these very prompts, and some send the name at once.
    username = _response((yield Challenge(b"Username:"))) if initial is None else initial
    password = _response((yield Challenge(b"Password:")))
    name = _text(username)
    if not name or (yield Verify(name, _text(password))) is not True:
        raise AuthenticationError
    return name


def _login_client(username: str, password: str, authorization: str) -> ClientSteps:
    yield None
    yield username.encode()
    yield password.encode()


PLAIN = Mechanism("PLAIN", plaintext=True, server=_plain_server, client=_plain_client)
LOGIN = Mechanism("LOGIN", plaintext=True, server=_login_server, client=_login_client)


class ServerExchange:
    """Drives the server's side of one exchange: ask `step` for what to do, give it the answer."""

    def __init__(self, mechanism: Mechanism, initial_response: bytes | None) -> None:
        self._steps = mechanism.server(initial_response)
        self._begun = False

    def step(self, answer: Answer | None = None) -> Question | str:
        """Take the answer to the last question (None: the client cancelled, or first call).

        Returns the next question, or the identity that is now logged in. Raises
        AuthenticationError, with the reply to send.
        """
        try:
            if not self._begun:
                self._begun = True
                return next(self._steps)
            if answer is None:
                self._steps.close()
                raise AuthenticationError(CANCELLED)
            return self._steps.send(answer)
        except StopIteration as stop:
            identity: str = stop.value
            return identity


class ClientExchange:
    """Drives the client's side of one exchange."""

    def __init__(
        self, mechanism: Mechanism, username: str, password: str, authorization: str = ""
    ) -> None:
        self._steps = mechanism.client(username, password, authorization)

    def initial_response(self) -> bytes | None:
        """Return the initial response, or None where the server speaks first."""
        return next(self._steps)

    def respond(self, challenge: bytes) -> bytes | None:
        """Return the response to a challenge, or None to cancel: there is nothing left to say."""
        try:
            return self._steps.send(challenge)
        except StopIteration:
            return None
