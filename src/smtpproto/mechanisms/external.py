"""EXTERNAL (RFC 4422 appendix A): who we are is known already, by a client's certificate mostly."""

from __future__ import annotations

from smtpproto.core.sasl import (
    MALFORMED,
    AuthenticationError,
    ClientSteps,
    Credentials,
    Mechanism,
    ServerContext,
    ServerSteps,
    VerifyExternal,
)

from .text import initial_message, own_name, presented_name

__all__ = ["EXTERNAL"]


def _server(initial: bytes | None, context: ServerContext) -> ServerSteps:
    message = yield from initial_message(initial)
    if b"\0" in message:
        raise AuthenticationError(MALFORMED)
    identity = yield VerifyExternal(presented_name(message))
    if not isinstance(identity, str) or not identity:
        raise AuthenticationError
    return identity


def _client(credentials: Credentials) -> ClientSteps:
    yield own_name(credentials.authorization)


def _serves(credentials: Credentials) -> bool:
    return credentials.external


EXTERNAL = Mechanism(
    "EXTERNAL",
    plaintext=False,
    server=_server,
    client=_client,
    asks=VerifyExternal,
    serves=_serves,
)
