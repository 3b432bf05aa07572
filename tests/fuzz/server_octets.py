"""Target `server`: arbitrary octets, cut anywhere, to a server that offers everything.

Beside it runs a model that is as simple as can be: it knows which octets each event took, and works
out with `split` and `find` what they say. What has to hold:

- nothing but RemoteProtocolError comes out, and it carries the last reply;
- each event took exactly the octets that it stands for; content is what a naive reader reads;
- one final reply to each command, and in LMTP one for each recipient to the content;
- 354 to nobody without a recipient; the envelope is what was accepted, and outlives no STARTTLS;
- UTF-8 to nobody who did not ask for it;
- what is kept of what was fed is bounded; behind the end there is nothing;
- all of it is the same for another cutting of the same octets.
"""

import re

from smtpproto import (
    PAUSED,
    Auth,
    AuthResponse,
    BadCommand,
    Bdat,
    Command,
    ConnectionClosed,
    Content,
    Data,
    Ehlo,
    EndOfChunk,
    EndOfContent,
    Envelope,
    Expn,
    Helo,
    LocalProtocolError,
    Mail,
    Rcpt,
    RemoteProtocolError,
    Reply,
    Rset,
    ServerConnection,
    Signal,
    State,
    Vrfy,
)
from smtpproto.core.command import BASE_VERBS, LMTP_VERBS, parse_command
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions import PIPELINING

from .draw import OCTETWISE, Draw, cut_at
from .ends import EXTENSIONS, LIMITED, Application, check_end, check_replies, make_server

__all__ = ["HANDSHAKE", "server_octets"]

#: Between what comes ahead of a TLS handshake and what comes within TLS.
HANDSHAKE = b"<TLS>"

#: An offer of next to nothing.
BARE = (PIPELINING,)

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_LAST_CHUNK = re.compile(rb"BDAT ([0-9]{1,20}) +LAST[ \t]*\r\n", re.IGNORECASE)
_EXTENDED = {verb.verb: verb for extension in EXTENSIONS for verb in extension.verbs}


def server_octets(data: bytes) -> None:
    """Let two servers hear the same octets, cut differently."""
    draw = Draw(data)
    kind, in_tls, repair, way = draw.below(4), draw.flag(), draw.flag(), draw.below(4)
    lmtp, offer = kind % 2 == 1, EXTENSIONS if kind < 2 else BARE
    octetwise, goodbye = way % 2 == 1, way >= 2
    points = draw.points()
    flights = draw.wire.split(HANDSHAKE)
    heard: list[tuple[list[ServerEvent], bytes]] = []
    for at_once in (True, False):
        server = make_server(offer=offer, repair=repair, lmtp=lmtp)
        if in_tls:
            server.tls_started()
        session = Session(server, draw.fork(), repair=repair)
        for flight in flights:
            cuts = [] if at_once else OCTETWISE if octetwise else points
            session.hear(cut_at(cuts, flight))
        session.end(goodbye=goodbye)
        check_replies(session.said, session.replies)
        heard.append((session.events, session.said))
    assert heard[0] == heard[1], "cut otherwise, the same octets are heard otherwise"


class Session:
    """A server under observation, and the model beside it."""

    def __init__(self, server: ServerConnection, draw: Draw, *, repair: bool) -> None:
        self.server = server
        self.application = Application(server, draw)
        #: What was pulled; neighbouring Content is joined, for its cuts mean nothing.
        self.events: list[ServerEvent] = []
        self.said = b""
        self.replies = 0
        self.over = False
        # The model
        self.repair = repair
        self.verbs = dict(LMTP_VERBS if server.lmtp else BASE_VERBS) | _EXTENDED
        self.unread = b""
        self.asked: ServerEvent | None = None
        self.due = 1  # the greeting
        self.asks_for_utf8 = False
        self.logged_in = False
        self.mail: Mail | None = None
        self.rcpts: list[Rcpt] = []
        self.receiving: Data | Bdat | None = None
        self.raw = b""  # the octets of this transaction's content, as they came
        self.body = b""  # and as they were pulled
        self.pull()

    def hear(self, pieces: list[bytes]) -> None:
        """Feed these pieces; then let the TLS handshake succeed if one is owed."""
        for piece in pieces:
            self.server.receive_data(piece)
            self.unread += piece
            self.pull()
            assert self.server.buffered <= LIMITED.endless_line, "it keeps what it cannot need"
        if self.server.state is State.TLS:
            self.server.tls_started()
            self.unread = b""
            self.forget()
            assert self.server.helo_name is None
            self.check_memory()

    def end(self, *, goodbye: bool) -> None:
        """Say 421, or feed the end of file; then see that there is nothing behind the end."""
        if goodbye and not self.over:
            self.say_goodbye()
        if self.server.state is State.CLOSED:
            self.server.receive_data(b"NOOP\r\n")
        self.server.receive_data(b"")
        self.pull()
        assert self.over
        check_end(self.server)
        for reply in (Reply(250), Reply(421)):
            try:
                self.server.send(reply)
            except LocalProtocolError:
                continue
            raise AssertionError("it talks behind the end")

    def say_goodbye(self) -> None:
        """Close with 421 where nobody asked (RFC 5321 §3.8); UTF-8 may not stand in it."""
        before = (self.server.state, self.server.replies_owed)
        for text in ("Adiós", "Goodbye"):
            try:
                self.said += self.server.send(Reply(421, "4.3.2", text))
            except LocalProtocolError:
                assert (self.server.state, self.server.replies_owed) == before
            else:
                self.replies += 1
                assert text.isascii()
        assert self.server.state is State.CLOSED

    def pull(self) -> None:
        while not self.over:
            try:
                event = self.server.next_event()
            except RemoteProtocolError as error:
                event = self.lost(error)
            if event is PAUSED and self.server.state is not State.TLS:
                self.answer()
            elif isinstance(event, Signal):
                assert not self.due, "it does not say that a reply is owed"
                return
            elif isinstance(event, ConnectionClosed):
                self.events.append(event)
                self.over = True
            else:
                assert not self.due, "it goes on though a reply is owed"
                self.take(event)

    def lost(self, error: RemoteProtocolError) -> ConnectionClosed:
        """Say the last thing there is to say."""
        assert error.reply is not None
        assert error.reply.code in (500, 501)
        self.said += error.reply.serialize()
        self.replies += 1
        return ConnectionClosed()

    # What was asked

    def take(self, event: ServerEvent) -> None:
        """Check an event against the octets that it took."""
        before, self.unread = self.unread, self.unread[len(self.unread) - self.server.buffered :]
        took = before[: len(before) - len(self.unread)]
        if isinstance(event, Content):
            assert event.data
            self.raw += took
            self.body += event.data
            last = self.events[-1]
            if isinstance(last, Content):
                self.events[-1] = Content(last.data + event.data)
            else:
                self.events.append(event)
            return
        self.events.append(event)
        self.asked = event
        if isinstance(event, (EndOfChunk, EndOfContent)):
            self.raw += took
            self.check_content(event)
            self.due = self.verdicts if isinstance(event, EndOfContent) else 1
        elif isinstance(event, Bdat):
            self.check_line(event, event, took)
            self.receiving = event
            return  # the reply is due behind the octets
        else:
            assert isinstance(event, (Command, BadCommand))
            command = event.command if isinstance(event, BadCommand) else event
            self.check_line(event, command, took)
            self.due = self.verdicts if self.ends_what_failed(command) else 1
        assert self.server.replies_owed == self.due

    @property
    def verdicts(self) -> int:
        """How many replies there are to the end of the content (RFC 2033 §4.2)."""
        return len(self.rcpts) if self.server.lmtp else 1

    def ends_what_failed(self, command: Command | None) -> bool:
        """Whether a chunk is the last of those pipelined behind a refused one."""
        spoiled = self.server.state is State.SPOILED
        return spoiled and isinstance(command, Bdat) and command.last

    def check_line(self, event: Command | BadCommand, command: Command | None, took: bytes) -> None:
        if self.server.lmtp:
            took = without_lost_chunks(took)
        line, end, behind = took.partition(b"\r\n")
        assert end, "only CRLF ends a line"
        asks = b" SMTPUTF8" in line.upper()
        self.asks_for_utf8 = asks and isinstance(command, (Vrfy, Expn))
        if isinstance(command, AuthResponse):
            assert AuthResponse.parse(line) == command
        elif command is not None:
            assert parse_command(line, self.verbs) == command
        swallowed = 0
        if isinstance(event, BadCommand):
            assert event.line == line
            assert event.reply.code // 100 in (4, 5)
            swallowed = command.size if isinstance(command, Bdat) else 0
        assert len(behind) == swallowed, "it took other octets than its own"

    def check_content(self, event: EndOfChunk | EndOfContent) -> None:
        body = self.mail.parameters.get("BODY") if self.mail else None
        if isinstance(self.receiving, Bdat):
            content = self.raw
            so_far = content if self.receiving.last else content.removesuffix(b"\r")
            faulty = (body or b"").upper() != b"BINARYMIME" and bool(_BARE.search(so_far))
        else:
            content = read_naively(self.raw)
            faulty = bool(_BARE.search(content))
            if self.repair:
                content, faulty = _BARE.sub(b"\r\n", content), False
        assert LIMITED.message is not None
        assert self.body == content[: LIMITED.message]
        too_big = len(content) > LIMITED.message
        assert (event.fault and event.fault.code) == (552 if too_big else 554 if faulty else None)
        if isinstance(event, EndOfContent):
            assert event.octets == len(content)
        else:
            assert isinstance(self.receiving, Bdat)
            assert event.octets == self.receiving.size

    # What is answered

    def answer(self) -> None:
        assert self.due, "it owes a reply to nothing"
        ends = isinstance(self.asked, EndOfContent)
        if isinstance(self.asked, BadCommand):
            ends = self.ends_what_failed(self.asked.command)
        reply, wire = self.application.answer(self.asked)
        self.said += wire
        self.replies += 1
        self.due = 0 if self.server.state is State.CLOSED else self.due - 1
        assert self.server.replies_owed == self.due
        assert wire.isascii() or self.asks_for_utf8, "UTF-8 for somebody who did not ask"
        if self.server.state is State.CONTENT:
            assert self.rcpts, "content is asked for without a recipient"
        if self.due or self.server.state is State.CLOSED:
            return
        if ends:
            self.drop()
        elif reply.code < 400:
            self.accepted(self.asked, reply)
        self.check_memory()

    def accepted(self, asked: ServerEvent | None, reply: Reply) -> None:
        command = asked.command if isinstance(asked, BadCommand) else asked
        if isinstance(command, Mail):
            self.mail = command
        elif isinstance(command, Rcpt):
            self.rcpts.append(command)
        elif isinstance(command, Data):
            self.receiving = command
        elif isinstance(command, (Ehlo, Helo, Rset)):
            self.drop()
        elif isinstance(command, (Auth, AuthResponse)):
            self.logged_in = reply.code < 300
        elif isinstance(command, Command) and command.starts_over:
            self.forget()

    def drop(self) -> None:
        """Drop the transaction."""
        self.mail, self.rcpts, self.receiving = None, [], None
        self.raw = self.body = b""

    def forget(self) -> None:
        """Begin anew."""
        self.drop()
        self.logged_in = False

    def check_memory(self) -> None:
        """Check that it remembers what was accepted, and nothing else."""
        expected = Envelope(self.mail, self.rcpts) if self.mail and self.rcpts else None
        assert self.server.envelope == expected
        assert self.server.authenticated is self.logged_in


def read_naively(raw: bytes) -> bytes:
    """Return the content in `raw`, which goes from behind DATA to behind the final dot."""
    *lines, dot, nothing = raw.split(b"\r\n")
    assert (dot, nothing) == (b".", b""), "it does not end with the final dot"
    assert b"." not in lines, "it goes on behind the final dot"
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines)


def without_lost_chunks(took: bytes) -> bytes:
    """Take off last chunks that LMTP passes over, for nobody is there to reply for."""
    while match := _LAST_CHUNK.match(took):
        end = match.end() + int(match[1])
        if len(took) <= end:
            break
        took = took[end:]
    return took
