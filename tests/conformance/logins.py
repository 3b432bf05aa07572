"""Servers that take logins, and clients that log in, for the tests of RFC 4954."""

from __future__ import annotations

import base64
from collections.abc import Callable

from attrs import evolve

from smtpproto import (
    STANDARD,
    ClientConnection,
    Command,
    Ehlo,
    Reply,
    ServerConnection,
    Severity,
)
from smtpproto.core.command import Auth, AuthResponse
from smtpproto.core.sasl import (
    Answer,
    AuthenticationError,
    Challenge,
    ChannelBinding,
    ClientExchange,
    Credentials,
    Mechanism,
    Question,
    ServerContext,
    ServerExchange,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions import AUTH, ENHANCEDSTATUSCODES, PIPELINING, STARTTLS
from smtpproto.testing import Pair, play_client, play_server
from smtpproto.testing.pair import Cut, Policy, octet_by_octet, whole
from tests.sasl.exchange import ALL, FEW, Account

BINDING = ChannelBinding("tls-unique", b"finished")
CONTEXT = ServerContext("smtp.example.com", (BINDING,), iterations=FEW)
UNBOUND = evolve(CONTEXT, bindings=())
TEST = Account("test", "1234")
IN = Reply(235, "2.7.0", "Authentication successful")
SECRET = "dGVzdAB0ZXN0ADEyMzQ="  # `test NUL test NUL 1234`


def logins(
    account: Callable[[Question], Answer] = TEST, context: ServerContext = UNBOUND
) -> Policy:
    """Answer AUTH by what `account` knows, and all else as the server suggests."""
    exchange: ServerExchange | None = None

    def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
        nonlocal exchange
        response: bytes | None = None
        if isinstance(event, Auth):
            mechanism = next(m for m in ALL if m.name == event.mechanism)
            exchange = ServerExchange(mechanism, event.initial_response, context)
        elif isinstance(event, AuthResponse):
            response = event.data
        else:
            return server.suggested_reply()
        assert exchange is not None
        try:
            step = exchange.step(response)
            while not isinstance(step, (str, Challenge)):
                step = exchange.step(account(step))
        except AuthenticationError as error:
            return error.reply
        return step.reply() if isinstance(step, Challenge) else IN

    return policy


def make_server(
    *mechanisms: Mechanism, in_clear: bool = True, tls_available: bool = False
) -> ServerConnection:
    return ServerConnection(
        "smtp.example.com",
        (PIPELINING, ENHANCEDSTATUSCODES, STARTTLS, AUTH),
        mechanisms=mechanisms,
        plaintext_auth=in_clear,
        tls_available=tls_available,
    )


def greeted(
    *mechanisms: Mechanism,
    policy: Policy | None = None,
    in_clear: bool = True,
    cut: Cut = whole,
    tls: bool = False,
) -> Pair:
    """A client that has said EHLO to a server which takes logins by these."""
    server, client = make_server(*mechanisms, in_clear=in_clear), ClientConnection(STANDARD)
    if tls:
        server.tls_started()
        client.tls_started()
    pair = Pair(server, client, policy=policy or logins(), cut=cut)
    pair.send(Ehlo("client.example.com"))
    return pair


def reply_to(pair: Pair, command: Command) -> Reply:
    (reply,) = pair.send(command)
    assert isinstance(reply, Reply)
    return reply


def log_in(pair: Pair, mechanism: Mechanism, credentials: Credentials) -> Reply:
    """Let the client log in; return the reply that ended it."""
    exchange = ClientExchange(mechanism, credentials)
    reply = reply_to(pair, Auth(mechanism.name, exchange.initial_response()))
    while reply.code == 334:
        challenge = base64.b64decode(reply.lines[0])
        reply = reply_to(pair, AuthResponse(exchange.respond(challenge)))
    if reply.severity is Severity.COMPLETION:
        exchange.succeed()
    return reply


def challenging(data: bytes) -> Policy:
    """Answer AUTH with this challenge, whatever the mechanism."""

    def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
        asked = isinstance(event, (Auth, AuthResponse))
        return Challenge(data).reply() if asked else server.suggested_reply()

    return policy


HELLO = """\
S: 220 smtp.example.com ESMTP
C: EHLO client.example.com
S: 250-smtp.example.com greets client.example.com
S: 250-PIPELINING
S: 250-ENHANCEDSTATUSCODES
"""


def play(
    lines: str, *mechanisms: Mechanism, cut: Cut = whole, account: Account = TEST
) -> list[ServerEvent]:
    """Play what follows EHLO in clear against our server, which takes passwords so."""
    names = " ".join(m.name for m in mechanisms)
    text = f"{HELLO}S: 250 AUTH {names}\n{lines}"
    return play_server(text, make_server(*mechanisms), policy=logins(account), cut=cut)


def both(text: str, server: ServerConnection, policy: Policy) -> None:
    """Both ends of ours say each word of it."""
    for cut in (whole, octet_by_octet):
        play_client(text, ClientConnection(STANDARD), cut=cut)
    play_server(text, server, policy=policy)
