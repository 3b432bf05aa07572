"""Names and secrets as mechanisms read and write them, and how an exchange begins."""

from __future__ import annotations

from collections.abc import Generator

from smtpproto.core.errors import GrammarError, LocalProtocolError
from smtpproto.core.sasl import MALFORMED, Answer, AuthenticationError, Challenge, Question

from .saslprep import saslprep

__all__ = [
    "fresh",
    "initial_message",
    "octets_of",
    "own_name",
    "own_octets",
    "presented",
    "presented_name",
    "quoted",
    "text_of",
    "unquoted",
]


# The server's side


def initial_message(initial: bytes | None) -> Generator[Question, Answer, bytes]:
    """Return the initial response; where none came, ask for it (RFC 4422 §5.1)."""
    return octets_of((yield Challenge(b""))) if initial is None else initial


def octets_of(answer: Answer) -> bytes:
    """Return the answer to a Challenge: `ServerExchange` lets nothing but octets through."""
    return answer if isinstance(answer, bytes) else b""


def text_of(octets: bytes) -> str:
    """Decode UTF-8; AuthenticationError if it is not."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise AuthenticationError(MALFORMED) from None


def presented(octets: bytes) -> str:
    """Read a name or password, which fails the login where preparing does or leaves nothing."""
    try:
        text = saslprep(text_of(octets))
    except GrammarError:
        raise AuthenticationError from None
    if not text:
        raise AuthenticationError
    return text


def presented_name(octets: bytes) -> str:
    """Read an authorization identity, which may be left out (RFC 4954 §4)."""
    return presented(octets) if octets else ""


# The client's side


def own_name(text: str) -> bytes:
    """Write a name, prepared (RFC 4954 §4); LocalProtocolError where that leaves none."""
    try:
        prepared = saslprep(text)
    except GrammarError as error:
        raise LocalProtocolError(str(error)) from None
    if text and not prepared:
        raise LocalProtocolError("a name of characters that mean nothing")
    return prepared.encode()


def own_octets(text: str | None) -> bytes:
    """Write a secret as it was given; LocalProtocolError for what is no text."""
    try:
        return (text or "").encode()
    except UnicodeEncodeError:
        raise LocalProtocolError("a secret that is no Unicode text") from None


# Either


def quoted(name: bytes) -> bytes:
    """Write a name where commas part things: saslname (RFC 5802 §7)."""
    return name.replace(b"=", b"=3D").replace(b",", b"=2C")


def unquoted(name: bytes) -> bytes:
    """Read a saslname."""
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")


def fresh(nonce: str) -> bytes:
    """Return a nonce that was handed in; LocalProtocolError if no mechanism can say it."""
    if not nonce or not nonce.isascii() or not nonce.isprintable() or set(nonce) & set(" ,<>@"):
        raise LocalProtocolError(f"a nonce is ASCII without space, comma, <, > and @: {nonce!r}")
    return nonce.encode()
