"""The two ends as the laws need them: made alike each time, answering by what they are asked."""

import zlib

from smtpproto import (
    NEED_DATA,
    PAUSED,
    STANDARD,
    Auth,
    AuthResponse,
    BadCommand,
    Chunk,
    ClientConnection,
    Command,
    ConnectionClosed,
    Content,
    Data,
    Ehlo,
    EndOfChunk,
    EndOfContent,
    Lhlo,
    Limits,
    Mail,
    Rcpt,
    RemoteProtocolError,
    Reply,
    Rset,
    ServerConnection,
    StartTls,
)
from smtpproto.core.sasl import Challenge
from smtpproto.core.server_connection import ServerEvent
from smtpproto.mechanisms import LOGIN, PLAIN
from smtpproto.testing.pair import answer

LIMITS = Limits(message=300, recipients=3, bad_commands=6, endless_line=20_000, reply=2_000)


def make_server(*, repair: bool = False, lmtp: bool = False) -> ServerConnection:
    return ServerConnection(
        "server.example",
        STANDARD,
        limits=LIMITS,
        mechanisms=(PLAIN, LOGIN),
        plaintext_auth=True,
        tls_available=True,
        repair=repair,
        lmtp=lmtp,
    )


def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
    """Answer well or badly, by the event alone, so that a second run answers the same."""
    chance = zlib.crc32(repr(event).encode()) % 4
    if isinstance(event, BadCommand) or event is None:
        return server.suggested_reply()
    if isinstance(event, (Auth, AuthResponse)):
        return (
            Challenge(b"Password:").reply(),
            Reply(235, "2.7.0", "In"),
            Reply(535, "5.7.8", "Out"),
            Challenge(b"").reply(),
        )[chance]
    if isinstance(event, (Mail, Rcpt)) and chance == 0:
        return Reply(550, "5.7.1", "Not you")
    if isinstance(event, (EndOfChunk, EndOfContent)) and chance == 0:
        return Reply(452, "4.3.1", "Full")
    return server.suggested_reply()


def run_server(
    pieces: list[bytes], *, repair: bool = False, lmtp: bool = False
) -> tuple[list[object], bytes]:
    """Feed the pieces, then end of file; return the events, neighbouring Content joined, and
    all that the server said.
    """
    server = make_server(repair=repair, lmtp=lmtp)
    events, said = answer(server, policy)
    for piece in [*pieces, b""]:
        server.receive_data(piece)
        more, wire = answer(server, policy)
        events += more
        said += wire
        if events and isinstance(events[-1], ConnectionClosed):
            break
    return joined(events), said


def joined(events: list[ServerEvent]) -> list[object]:
    """Join neighbouring Content, whose cuts mean nothing."""
    found: list[object] = []
    for event in events:
        if isinstance(event, Content) and found and isinstance(found[-1], Content):
            found[-1] = Content(found[-1].data + event.data)
        else:
            found.append(event)
    return found


CLIENT_STATES = ("greeting", "ehlo", "batch", "data", "chunks", "lmtp", "starttls", "auth")


def make_client(where: str) -> ClientConnection:
    """Bring a client to where replies are owed."""
    lmtp = where == "lmtp"
    client = ClientConnection(STANDARD, limits=LIMITS, lmtp=lmtp)
    if where == "greeting":
        return client
    _hear(client, b"220 server.example\r\n")
    client.send((Lhlo if lmtp else Ehlo)("client.example"))
    if where == "ehlo":
        return client
    words = ["server.example", "PIPELINING", "CHUNKING", "STARTTLS"]
    _hear(client, b"".join(b"250-%b\r\n" % word.encode() for word in words))
    _hear(client, b"250 AUTH PLAIN\r\n")
    if where == "starttls":
        client.send(StartTls())
    elif where == "auth":
        client.send(Auth("PLAIN"))
    else:
        batch: list[Command] = [
            Mail("a@b.example"),
            Rcpt("c@d.example"),
            Rset(),
            Mail("a@b.example"),
        ]
        batch += [Rcpt("e@f.example"), Rcpt("g@h.example")]
        for command in batch if where in ("chunks", "lmtp") else [*batch, Data()]:
            client.send(command)
        if where == "data":
            _hear(client, b"250 \r\n" * 6 + b"354 go\r\n")
        elif where in ("chunks", "lmtp"):
            _hear(client, b"250 \r\n" * 6)
            for chunk in (Chunk(b"a"), Chunk(b"b"), Chunk(b"c", last=True)):
                client.send(chunk)
            client.send(Mail("a@b.example"))
    return client


def _hear(client: ClientConnection, octets: bytes) -> None:
    client.receive_data(octets)
    while client.next_event() is not NEED_DATA:
        pass


def run_client(where: str, pieces: list[bytes]) -> tuple[list[object], bool, object]:
    """Feed the pieces, then end of file.

    Returns the events, whether the client lost the framing, and the state it ended in.
    """
    client = make_client(where)
    events: list[object] = []
    for piece in [*pieces, b""]:
        client.receive_data(piece)
        while True:
            try:
                event = client.next_event()
            except RemoteProtocolError:
                return events, True, client.state
            if event is NEED_DATA or event is PAUSED:
                break
            events.append(event)
            if isinstance(event, ConnectionClosed):
                return events, False, client.state
    return events, False, client.state
