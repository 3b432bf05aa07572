"""PLAIN (RFC 4616): the password as it is, for use under TLS."""

from __future__ import annotations

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.sasl import (
    MALFORMED,
    AuthenticationError,
    ClientSteps,
    Credentials,
    Mechanism,
    ServerContext,
    ServerSteps,
    Verify,
)

from .text import initial_message, own_name, own_octets, presented, presented_name, text_of

__all__ = ["PLAIN"]


def _server(initial: bytes | None, context: ServerContext) -> ServerSteps:
    # message = [authzid] NUL authcid NUL passwd (RFC 4616 §2)
    message = yield from initial_message(initial)
    parts = message.split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise AuthenticationError(MALFORMED)
    text_of(message)  # all of it is UTF-8, or it is no message
    authorization = presented_name(parts[0])
    username, password = presented(parts[1]), presented(parts[2])
    if (yield Verify(username, password, authorization)) is not True:
        raise AuthenticationError
    return authorization or username


def _client(credentials: Credentials) -> ClientSteps:
    parts = (
        own_name(credentials.authorization),
        own_name(credentials.username),
        own_octets(credentials.password),
    )
    if not parts[1] or not parts[2]:
        raise LocalProtocolError("PLAIN needs a name and a password (RFC 4616 §2)")
    if any(b"\0" in part for part in parts):
        raise LocalProtocolError("no part of PLAIN can hold NUL (RFC 4616 §2)")
    yield b"\0".join(parts)


PLAIN = Mechanism("PLAIN", plaintext=True, server=_server, client=_client)
