"""A server brought to where it can be tested, and what it says."""

from smtpproto import Extension, Limits, ServerConnection, State
from smtpproto.mechanisms import LOGIN, PLAIN
from smtpproto.testing.pair import answer

from .decisions import BASIC

__all__ = ["HELLO", "in_state", "make", "say"]

HELLO = b"EHLO c.example\r\n"


def make(
    *octets: bytes,
    limits: Limits | None = None,
    extensions: tuple[Extension, ...] = BASIC,
) -> ServerConnection:
    server = ServerConnection(
        "mx.example",
        extensions,
        limits=limits or Limits(),
        mechanisms=(PLAIN, LOGIN),
        plaintext_auth=True,
        tls_available=True,
    )
    answer(server)
    for some in octets:
        server.receive_data(some)
        answer(server)
    return server


def in_state(server: ServerConnection, state: State) -> bool:
    return server.state is state  # a call, for a type checker believes that states stay


def say(server: ServerConnection, octets: bytes) -> bytes:
    server.receive_data(octets)
    return answer(server)[1]
