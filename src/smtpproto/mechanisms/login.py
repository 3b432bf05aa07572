"""LOGIN: the password as it is, in two steps. Never standardised, and spoken everywhere."""

from __future__ import annotations

from smtpproto.core.sasl import (
    AuthenticationError,
    Challenge,
    ClientSteps,
    Credentials,
    Mechanism,
    ServerContext,
    ServerSteps,
    Verify,
)

from .text import octets_of, own_name, own_octets, presented, text_of

__all__ = ["LOGIN"]


def _server(initial: bytes | None, context: ServerContext) -> ServerSteps:
    # Clients wait for these very prompts, and some send the name at once.
    name = octets_of((yield Challenge(b"Username:"))) if initial is None else initial
    secret = octets_of((yield Challenge(b"Password:")))
    text_of(name + secret)
    username, password = presented(name), presented(secret)
    if (yield Verify(username, password)) is not True:
        raise AuthenticationError
    return username


def _client(credentials: Credentials) -> ClientSteps:
    name, secret = own_name(credentials.username), own_octets(credentials.password)
    yield None
    yield name
    yield secret


def _serves(credentials: Credentials) -> bool:
    # It has no room for an identity to act as.
    return (
        bool(credentials.username)
        and credentials.password is not None
        and (credentials.authorization in ("", credentials.username))
    )


LOGIN = Mechanism("LOGIN", plaintext=True, server=_server, client=_client, serves=_serves)
