"""Target `client`: a client with a script, and arbitrary octets from its server, cut anywhere.

What has to hold:

- pulling raises nothing but RemoteProtocolError, sending nothing but LocalProtocolError, and what
  may not be sent changes nothing;
- a command leaves as one line, content as a naive writer writes it, or as the chunk it is;
- each reply pulled is what a naive reader reads in exactly the octets that it took;
- there are never more replies than were asked for;
- what is kept of what was fed is bounded; behind the end there is nothing;
- all of it is the same for another cutting of the same octets.
"""

from smtpproto import (
    NEED_DATA,
    PAUSED,
    AuthResponse,
    Chunk,
    ClientConnection,
    Command,
    ConnectionClosed,
    Content,
    EndOfContent,
    LocalProtocolError,
    Noop,
    RemoteProtocolError,
    Reply,
    Signal,
    State,
)

from .draw import Draw, cut_at, edges
from .ends import EXTENSIONS, LIMITED, check_end
from .script import Thing, drawn, is_asked

__all__ = ["TURN", "client_octets"]

#: Between what the server says; here it is the client's turn.
TURN = b"<TURN>"


def client_octets(data: bytes) -> None:
    """Let two clients hear the same octets, cut differently."""
    draw = Draw(data)
    lmtp, in_tls, octetwise, late = draw.flag(), draw.flag(), draw.flag(), draw.flag()
    points = draw.points()
    turns = draw.wire.split(TURN)
    stories: list[list[object]] = []
    for at_once in (True, False):
        client = ClientConnection(EXTENSIONS, limits=LIMITED, lmtp=lmtp, any_octets=True)
        if in_tls:
            client.tls_started()
        session = Session(client, draw.fork())
        for turn in turns:
            cuts = [] if at_once else edges(turn) if octetwise else points
            session.receive(cut_at(cuts, turn), late=late)
            session.speak()
            session.pull()
        session.end()
        stories.append(session.story)
    assert stories[0] == stories[1], "cut otherwise, the same octets are heard otherwise"


class Session:
    """A client under observation."""

    def __init__(self, client: ClientConnection, draw: Draw) -> None:
        self.client = client
        self.draw = draw
        #: What was sent, what was heard, and how it ended.
        self.story: list[object] = []
        self.over = False
        self.unread = b""
        self.read = 0  # octets, by whole replies
        self.asked = 1  # for the greeting
        self.marks = [0]  # how many octets were there when each of those was asked
        self.heard = 0
        self.recipients = 0
        self.content = b""
        self.written: bytes | None = None  # content on the wire, within it

    # Its turn

    def speak(self) -> None:
        while (thing := drawn(self.draw)) is not None:
            self.send(thing)

    def send(self, thing: Thing) -> None:
        client = self.client
        before = (client.state, client.asked, client.owed, client.buffered, client.offered)
        in_content = client.state is State.CONTENT and not client.owed
        try:
            wire = client.send(thing)
        except LocalProtocolError:
            assert before == (
                client.state,
                client.asked,
                client.owed,
                client.buffered,
                client.offered,
            )
            self.story.append("refused")
            return
        assert not self.over, "it talks behind the end"
        self.story.append(wire)
        assert client.owed == before[2] + is_asked(thing)
        assert not before[2] or "PIPELINING" in client.offered
        self.asked += is_asked(thing)
        self.marks += [self.read + len(self.unread)] * is_asked(thing)
        if isinstance(thing, Command):
            check_line(thing, wire)
        elif isinstance(thing, Chunk):
            assert wire == b"BDAT %d%b\r\n" % (len(thing.data), b" LAST" * thing.last) + thing.data
        else:
            assert in_content
            self.check_content(thing, wire)

    def check_content(self, thing: Content | EndOfContent, wire: bytes) -> None:
        self.written = (self.written or b"") + wire
        if isinstance(thing, Content):
            self.content += thing.data
            return
        *lines, last = self.content.split(b"\r\n")
        lines += [last] if last else []
        assert not any(b"\r" in line or b"\n" in line for line in lines), "a bare CR or LF left"
        stuffed = (b"." + line if line.startswith(b".") else line for line in lines)
        assert self.written == b"".join(line + b"\r\n" for line in stuffed) + b".\r\n"
        self.content, self.written = b"", None

    # The server's turn

    def receive(self, pieces: list[bytes], *, late: bool) -> None:
        """Feed these pieces, and pull if not `late`; then let the TLS handshake succeed."""
        for piece in pieces:
            self.client.receive_data(piece)
            self.unread += piece
            if not late:
                self.pull()
                assert self.client.buffered <= LIMITED.reply, "it keeps what it cannot need"
        if self.client.state is State.TLS and not self.over:
            assert not self.unread, "octets in clear get into TLS"
            self.client.tls_started()
            assert not self.client.offered
            assert not self.client.authenticated

    def end(self) -> None:
        """Feed the end of file, and see that there is nothing behind the end."""
        if self.client.state is State.CLOSED:
            self.client.receive_data(b"250 \r\n")
        self.client.receive_data(b"")
        self.pull()
        assert self.over
        check_end(self.client)
        self.send(Noop())

    def pull(self) -> None:
        while not self.over:
            was = self.client.state
            try:
                event = self.client.next_event()
            except RemoteProtocolError:
                if was is State.TLS and isinstance(self.story[-1], Reply):
                    # Told at once where it is there at once: the 220 itself is given only to
                    # those who could not know yet.
                    self.story.pop()
                self.story.append("lost")
                self.over = True
                return
            if isinstance(event, Signal):
                assert event is (PAUSED if self.client.state is State.TLS else NEED_DATA)
                return
            self.story.append(event)
            if isinstance(event, ConnectionClosed):
                self.over = True
            else:
                self.check_reply(event)

    def check_reply(self, reply: Reply) -> None:
        before = self.unread
        if self.client.state is State.CLOSED:
            # What was behind it is gone: its own octets are the first whole reply.
            taken = first_reply(before)
        else:
            taken = before[: len(before) - self.client.buffered]
        self.unread = before[len(taken) :]
        assert taken == first_reply(before), "it took other octets than one reply"
        *lines, nothing = taken.split(b"\r\n")
        assert nothing == b""
        assert {line[:3] for line in lines} == {b"%d" % reply.code}
        status = f"{reply.status}".encode() if reply.status else b""
        texts = [b"%b %b" % (status, text) if status else text for text in reply.lines]
        assert [line[4:].strip() for line in lines] == [text.strip() for text in texts]
        self.heard += 1
        unasked = reply.code == 421 and self.client.state is State.CLOSED
        assert self.client.lmtp or self.heard <= self.asked + unasked
        if not self.client.lmtp and self.client.state is not State.CLOSED:
            assert self.heard + self.client.owed == self.asked, "one reply answers one command"
            assert self.marks.pop(0) <= self.read, "a reply from before its command"
        self.read += len(taken)


def check_line(command: Command, wire: bytes) -> None:
    """Check that `wire` is one line, of no more octets than RFC 5321 §4.5.3.1.4 allows."""
    line, end, behind = wire.partition(b"\r\n")
    assert end
    assert not behind
    assert not any(octet < 0x20 or octet == 0x7F for octet in line)
    assert isinstance(command, AuthResponse) or line.split(b" ")[0] == command.verb


def first_reply(octets: bytes) -> bytes:
    """Return the octets of the first reply: its lines up to one without a hyphen."""
    taken = b""
    while octets:
        line, end, octets = octets.partition(b"\r\n")
        taken += line + end
        if line[3:4] != b"-":
            break
    return taken
