"""Either end of a session, brought to where a test begins."""

from __future__ import annotations

from attrs import evolve

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Command,
    Data,
    Ehlo,
    Reply,
    ServerConnection,
    Signal,
)
from smtpproto.core.extension import Extension
from smtpproto.extensions import EXPN, HELP
from smtpproto.testing.pair import Policy, answer, suggested

__all__ = [
    "ALL_BASE",
    "HELLO",
    "MAIL",
    "RCPT",
    "agreed",
    "client_after",
    "hear",
    "pulled",
    "say",
    "saying",
    "server_after",
]

#: What a server needs to answer each command of RFC 5321.
ALL_BASE = (HELP, evolve(EXPN, obliges=""))

HELLO = b"EHLO c.example\r\n"
MAIL = HELLO + b"MAIL FROM:<a@b>\r\n"
RCPT = MAIL + b"RCPT TO:<c@d>\r\n"


def server_after(octets: bytes = b"", extensions: tuple[Extension, ...] = ()) -> ServerConnection:
    """A server, `mx.example`, that has answered all of `octets` well."""
    server = ServerConnection("mx.example", extensions)
    answer(server)
    say(server, octets)
    return server


def say(server: ServerConnection, octets: bytes, policy: Policy = suggested) -> bytes:
    """What the server says to these octets, as `policy` answers."""
    if octets:  # none would be the end of the file
        server.receive_data(octets)
    return answer(server, policy)[1]


def saying(reply: Reply) -> Policy:
    """A policy that answers so, whatever was asked."""
    return lambda server, event: reply


def client_after(offer: bytes = b"250 mx.example\r\n") -> ClientConnection:
    """A client that has been greeted, and answered so when it said EHLO."""
    client = ClientConnection(STANDARD)
    hear(client, b"220 mx.example\r\n")
    client.send(Ehlo("c.example"))
    hear(client, offer)
    return client


def pulled(before: bytes, line: bytes) -> tuple[Command | None, Reply | None]:
    """What a server, after `before`, makes of a line: command and refusal, None where it is none.

    A command that is well formed and refused all the same (555, 503) is both.
    """
    server = server_after(before, STANDARD)
    server.receive_data(line + b"\r\n")
    event = server.next_event()
    if isinstance(event, BadCommand):
        return event.command, event.reply
    assert isinstance(event, Command)
    return event, None


def hear(client: ClientConnection, octets: bytes) -> list[Reply]:
    """The replies that the client pulls when it receives these octets."""
    client.receive_data(octets)
    replies: list[Reply] = []
    while isinstance(event := client.next_event(), Reply):
        replies.append(event)
    assert isinstance(event, Signal) or client.state.name == "CLOSED"
    return replies


def agreed(client: ClientConnection, *commands: Command) -> None:
    """Let the client send these, one after the other, to a server that agrees to each."""
    for command in commands:
        client.send(command)
        hear(client, b"354 go\r\n" if isinstance(command, Data) else b"250 ok\r\n")
