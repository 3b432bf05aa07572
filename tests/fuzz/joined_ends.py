"""Target `joined`: a client and a server of ours, joined by a wire that cuts and may do harm.

What has to hold, whatever happens on the wire:

- neither side raises anything but RemoteProtocolError, and that only where harm was done;
- where none was done both sides agree: on the commands, the replies, the content, what is offered,
  who is logged in, and on the state that they end in.
"""

from collections.abc import Callable

from smtpproto import (
    PAUSED,
    BadCommand,
    Bdat,
    Chunk,
    ClientConnection,
    Command,
    ConnectionClosed,
    Content,
    EndOfContent,
    Limits,
    LocalProtocolError,
    Mail,
    RemoteProtocolError,
    Reply,
    Signal,
    State,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.testing.pair import Cut, at_points, pieces, whole

from .draw import Draw, cut_at, edges
from .ends import EXTENSIONS, Application, make_server
from .script import Thing, drawn

__all__ = ["joined_ends"]

LIMITS = Limits(message=200, recipients=3, bad_commands=6)


def joined_ends(data: bytes) -> None:
    """Let the client say what is drawn, some of it in one write, and see how it ends."""
    draw = Draw(data)
    ends = Ends(draw)
    while (thing := drawn(draw)) is not None:
        if isinstance(thing, (Content, Chunk)) and draw.flag():
            taken = draw.take(draw.below(80))
            thing = Chunk(taken, thing.last) if isinstance(thing, Chunk) else Content(taken)
        ends.say(thing)
        if not draw.flag():
            ends.flush()
    ends.flush()
    if not ends.harmed:
        ends.agree()


def at_edges(octets: bytes) -> list[bytes]:
    """Cut wherever that can matter: a `Cut`."""
    return cut_at(edges(octets), octets)


class Wire:
    """Carries octets one way, in pieces; where it is drawn so, not as they were."""

    def __init__(self, draw: Draw) -> None:
        self.cut: Cut = draw.one_of((whole, at_edges, at_points(*draw.points())))
        #: Where harm is done, counted from the first octet of all, and which.
        self.harms = {draw.below(1024): draw.one_of(HARMS) for _ in range(draw.below(3))}
        self.carried = 0
        self.harmed = False

    def carry(self, octets: bytes) -> list[bytes]:
        for at in range(len(octets) - 1, -1, -1) if self.harms else ():
            harm = self.harms.get(self.carried + at)
            if harm is not None:
                octets = octets[:at] + harm(octets[at:])
                self.harmed = True
        self.carried += len(octets)
        return pieces(self.cut, octets)


#: What can happen to the rest of one write, of which there is at least one octet.
HARMS: tuple[Callable[[bytes], bytes], ...] = (
    lambda rest: rest[1:],
    lambda rest: rest[:1] + rest,
    lambda rest: bytes((rest[0] ^ 0x01,)) + rest[1:],
    lambda rest: bytes((rest[0] ^ 0x80,)) + rest[1:],
    lambda rest: b"",
    lambda rest: rest + rest,
    lambda rest: b"\r\n" + rest,
    lambda rest: b"421 " + rest,
)


class Ends:
    """Both ends, what either side knows of the session, and the wires between them."""

    def __init__(self, draw: Draw) -> None:
        lmtp, in_tls = draw.flag(), draw.flag()
        self.up, self.down = Wire(draw), Wire(draw)
        self.server = make_server(limits=LIMITS, lmtp=lmtp)
        self.client = ClientConnection(EXTENSIONS, lmtp=lmtp, any_octets=True)
        if in_tls:
            self.server.tls_started()
            self.client.tls_started()
        self.application = Application(self.server, draw.backwards())
        self.waiting = b""
        self.server_over = self.client_over = False
        self.asked: ServerEvent | None = None
        # The same, from either end
        self.commands_sent: list[Command | EndOfContent] = []
        self.commands_pulled: list[Command | EndOfContent | None] = []
        self.replies_sent: list[Reply] = []
        self.replies_pulled: list[Reply] = []
        self.content_sent = self.content_pulled = b""
        self.serve()

    @property
    def harmed(self) -> bool:
        return self.up.harmed or self.down.harmed

    # The client

    def say(self, thing: Thing) -> None:
        """Send it, if it may be sent; it leaves with the next `flush`."""
        try:
            self.waiting += self.client.send(thing)
        except LocalProtocolError:
            return
        if isinstance(thing, Chunk):
            self.content_sent += thing.data
            self.commands_sent.append(Bdat(len(thing.data), thing.last))
        elif isinstance(thing, Content):
            self.content_sent += thing.data
        else:
            self.commands_sent.append(thing)

    def hear(self, octets: bytes) -> None:
        for piece in self.down.carry(octets):
            self.client.receive_data(piece)
            while not self.client_over:
                try:
                    event = self.client.next_event()
                except RemoteProtocolError:
                    assert self.harmed, "the client does not follow our server"
                    self.client_over = True
                    return
                if isinstance(event, Signal):
                    break
                if isinstance(event, ConnectionClosed):
                    self.client_over = True
                else:
                    self.replies_pulled.append(event)

    # The server

    def flush(self) -> None:
        """Let what waits arrive; then let the TLS handshake succeed where both are ready."""
        octets, self.waiting = self.waiting, b""
        for piece in self.up.carry(octets):
            self.server.receive_data(piece)
            self.serve()
        states = (self.server.state, self.client.state)
        if states == (State.TLS, State.TLS) and not self.client_over:
            self.server.tls_started()
            self.client.tls_started()

    def serve(self) -> None:
        while not self.server_over:
            try:
                event = self.server.next_event()
            except RemoteProtocolError as error:
                self.lost(error)
                return
            if event is PAUSED and self.server.state is not State.TLS:
                reply, octets = self.application.answer(self.asked)
                self.replies_sent.append(reply)
                self.hear(octets)
            elif isinstance(event, Signal):
                return
            elif isinstance(event, ConnectionClosed):
                self.server_over = True
            else:
                self.pulled(event)

    def lost(self, error: RemoteProtocolError) -> None:
        assert self.harmed, "the server does not follow our client"
        assert error.reply is not None
        self.server_over = True
        self.hear(error.reply.serialize())

    def pulled(self, event: ServerEvent) -> None:
        if isinstance(event, Content):
            self.content_pulled += event.data
            return
        command = event.command if isinstance(event, BadCommand) else event
        if isinstance(command, Mail):
            self.content_sent = self.content_pulled = b""
        if isinstance(command, EndOfContent) and not self.harmed:
            self.check_content(command)
        by_chunks = isinstance(self.asked, Bdat)
        self.asked = event
        if isinstance(command, EndOfContent):
            if not by_chunks:
                self.commands_pulled.append(EndOfContent())
        elif command is None or isinstance(command, Command):
            self.commands_pulled.append(command)

    def check_content(self, event: EndOfContent) -> None:
        """Check that the content that has been pulled is the one that was sent."""
        sent = self.content_sent
        if not isinstance(self.asked, Bdat) and sent and not sent.endswith(b"\r\n"):
            sent += b"\r\n"
        assert event.octets == len(sent)
        assert self.content_pulled == sent[: LIMITS.message]
        assert (event.fault is None) is (len(sent) <= (LIMITS.message or 0))

    def agree(self) -> None:
        """Check that both ends tell the same story."""
        client, server = self.client, self.server
        assert client.state is server.state
        pulled = len(self.commands_pulled)
        assert self.commands_pulled == self.commands_sent[:pulled]
        sent = [(reply.code, reply.lines) for reply in self.replies_sent]
        assert sent == [(reply.code, reply.lines) for reply in self.replies_pulled]
        if client.state is not State.CLOSED:
            assert pulled == len(self.commands_sent)
            assert not client.owed
            assert client.buffered == server.buffered == 0
            assert client.authenticated is server.authenticated
            assert client.offered in ({}, dict(server.offered))
