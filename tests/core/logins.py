"""A policy that lets one user log in, by any mechanism: `a`, password `b`, token `token`."""

from smtpproto import Auth, AuthResponse, Reply, ServerConnection
from smtpproto.core.sasl import (
    Answer,
    AuthenticationError,
    Challenge,
    ServerContext,
    ServerExchange,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.testing.pair import Policy
from tests.sasl.exchange import ALL, Account

__all__ = ["CONTEXT", "USER", "with_passwords"]

USER = Account("a", "b")
#: Nothing of it by chance, so that what it says can be written down.
CONTEXT = ServerContext("mx.example", nonce=lambda: "nonce", secret=bytes(32))


def with_passwords() -> Policy:
    """Suggested replies, and an AUTH that knows that user."""
    exchange: ServerExchange | None = None

    def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
        nonlocal exchange
        given: Answer = None
        if isinstance(event, Auth):
            mechanism = next(m for m in ALL if m.name == event.mechanism)
            exchange = ServerExchange(mechanism, event.initial_response, CONTEXT)
        elif isinstance(event, AuthResponse):
            given = event.data
        else:
            return server.suggested_reply()
        assert exchange is not None
        try:
            step = exchange.step(given)
            while not isinstance(step, (str, Challenge)):
                step = exchange.step(USER(step))
        except AuthenticationError as error:
            return error.reply
        return step.reply() if isinstance(step, Challenge) else Reply(235, "2.7.0", "In")

    return policy
