"""A client and a server joined in memory, with any cutting of the octets between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TypeAlias

from smtpproto.core.client_connection import ClientConnection, ClientEvent
from smtpproto.core.command import Command
from smtpproto.core.connection import Connection
from smtpproto.core.errors import RemoteProtocolError
from smtpproto.core.event import (
    PAUSED,
    Chunk,
    ConnectionClosed,
    Content,
    EndOfContent,
    Signal,
    TlsInfo,
)
from smtpproto.core.reply import Reply
from smtpproto.core.server_connection import ServerConnection, ServerEvent
from smtpproto.core.state import State
from smtpproto.extensions import STANDARD

__all__ = [
    "Cut",
    "Pair",
    "Policy",
    "answer",
    "at_points",
    "octet_by_octet",
    "pieces",
    "suggested",
    "whole",
]

#: Cuts octets into the pieces in which they arrive; joined, they must be what was given.
Cut: TypeAlias = Callable[[bytes], Iterable[bytes]]

#: Decides on a reply to what the server pulled last; the event is None for the greeting.
Policy: TypeAlias = "Callable[[ServerConnection, ServerEvent | None], Reply]"


def whole(data: bytes) -> Iterable[bytes]:
    """Cut nothing: a `Cut`."""
    return [data]


def octet_by_octet(data: bytes) -> Iterable[bytes]:
    """Cut between any two octets: a `Cut`."""
    return [data[at : at + 1] for at in range(len(data))]


def at_points(*points: int) -> Cut:
    """Make a `Cut` that cuts at these offsets of all octets it is ever given, from 0 up.

    It counts on from call to call, so that one point can be chosen in a whole session.
    """
    passed = 0

    def cut(data: bytes) -> Iterable[bytes]:
        nonlocal passed
        inside = sorted({p - passed for p in points if 0 < p - passed < len(data)})
        passed += len(data)
        edges = [0, *inside, len(data)]
        return [data[a:b] for a, b in itertools.pairwise(edges)]

    return cut


def pieces(cut: Cut, data: bytes) -> list[bytes]:
    """Apply `cut`, leaving out empty pieces: to a connection these mean end of file."""
    return [piece for piece in cut(data) if piece]


def suggested(server: ServerConnection, event: ServerEvent | None) -> Reply:
    """Answer as the server suggests: a `Policy`."""
    return server.suggested_reply()


def answer(server: ServerConnection, policy: Policy = suggested) -> tuple[list[ServerEvent], bytes]:
    """Pull all that `server` has and answer it, until it needs octets or TLS, or is closed.

    Returns the events pulled and the octets to send. Where the server lost the framing, the
    reply that RemoteProtocolError carries is among the octets and ConnectionClosed ends the
    events.
    """
    events: list[ServerEvent] = []
    wire = b""
    last: ServerEvent | None = None
    while True:
        try:
            event = server.next_event()
        except RemoteProtocolError as error:
            events.append(ConnectionClosed())
            return events, wire + (error.reply.serialize() if error.reply else b"")
        if event is PAUSED and server.state is not State.TLS:
            wire += server.send(policy(server, last))
        elif isinstance(event, Signal):
            return events, wire
        else:
            events.append(event)
            if isinstance(event, ConnectionClosed):
                return events, wire
            last = event


class Pair:
    """A `client` and a `server`, joined.

    `cut` cuts the octets of either direction on their way; `policy` answers for the server.
    What each end pulled is gathered in `server_events` and `client_events`, what passed between
    them in `to_server` and `to_client`. The greeting has passed when the pair is made.

    A RemoteProtocolError of the client's is raised to the caller; the server's ends in the
    reply that it carries, as it would on a socket.
    """

    def __init__(
        self,
        server: ServerConnection | None = None,
        client: ClientConnection | None = None,
        *,
        policy: Policy = suggested,
        cut: Cut = whole,
    ) -> None:
        self.server = server or ServerConnection("server.example", STANDARD)
        self.client = client or ClientConnection(STANDARD)
        self.policy = policy
        self.cut = cut
        self.server_events: list[ServerEvent] = []
        self.client_events: list[ClientEvent] = []
        self.to_server = b""
        self.to_client = b""
        self._pump()

    @property
    def idle(self) -> bool:
        """Nothing is on its way, and nothing is owed that was asked for."""
        return not (self.client.owed or self.client.buffered or self.server.buffered)

    def send(self, *things: Command | Content | EndOfContent | Chunk) -> list[ClientEvent]:
        """Send all of these from the client in one write; return what it pulls for them.

        LocalProtocolError as `ClientConnection.send` raises it; what came before is sent then.
        """
        wire = b""
        try:
            for thing in things:
                wire += self.client.send(thing)
        finally:
            before = len(self.client_events)
            self.feed_server(wire)
        return self.client_events[before:]

    def feed_server(self, wire: bytes) -> None:
        """Let the server receive these octets, legal or not, and the client its answers."""
        self.to_server += wire
        for piece in pieces(self.cut, wire):
            self.server.receive_data(piece)
            self._pump()

    def start_tls(self, info: TlsInfo | None = None) -> None:
        """Let the handshake succeed: both ends are told."""
        ends: tuple[Connection, Connection] = (self.server, self.client)
        for end in ends:
            end.tls_started(info)

    def close_client(self) -> None:
        """Let the server read the client's end of file."""
        self.server.receive_data(b"")
        self._pump()

    def _pump(self) -> None:
        events, wire = answer(self.server, self.policy)
        if not self.server_events or not isinstance(self.server_events[-1], ConnectionClosed):
            self.server_events += events
        self.to_client += wire
        for piece in pieces(self.cut, wire):
            self.client.receive_data(piece)
            while not isinstance(event := self.client.next_event(), Signal):
                self.client_events.append(event)
                if isinstance(event, ConnectionClosed):
                    break
