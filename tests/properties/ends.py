"""The two ends as the laws need them: made alike each time, answering by what they are asked."""

import zlib
from collections.abc import Sequence
from datetime import UTC, datetime

from hypothesis import strategies as st

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
    State,
)
from smtpproto.core.proxy import ProxyHeader, ProxyReader
from smtpproto.core.sasl import Challenge, Mechanism
from smtpproto.core.server_connection import ServerEvent
from smtpproto.core.state import Greeting
from smtpproto.extensions.futurerelease import Horizon, futurerelease
from smtpproto.mechanisms import LOGIN, PLAIN
from smtpproto.testing import strategies as smtp
from smtpproto.testing.pair import answer

LIMITS = Limits(message=300, recipients=3, bad_commands=6, endless_line=20_000, reply=2_000)

_HELD = futurerelease(Horizon(10**6, datetime(2100, 1, 1, tzinfo=UTC)))
#: All of STANDARD, and all of it on offer: what obliges the caller obliges nobody here.
OFFER = tuple(_HELD if e.keyword == _HELD.keyword else e for e in STANDARD)


def make_server(
    *,
    limits: Limits = LIMITS,
    mechanisms: Sequence[Mechanism] = (PLAIN, LOGIN),
    repair: bool = False,
    lmtp: bool = False,
) -> ServerConnection:
    return ServerConnection(
        "server.example",
        OFFER,
        offer=OFFER,
        limits=limits,
        mechanisms=mechanisms,
        plaintext_auth=True,
        tls_available=True,
        repair=repair,
        lmtp=lmtp,
    )


NEVER_REFUSED = (Mail(None), Rcpt("Postmaster"))


def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
    """Answer well or badly, by the event alone, so that a second run answers the same.

    Who wants to be sure of a transaction has it from the null path to the postmaster.
    """
    chance = zlib.crc32(repr(event).encode()) % 4
    if isinstance(event, BadCommand) or event is None:
        return server.suggested_reply()
    if event == AuthResponse(None):  # cancelled: there is no choice (RFC 4954 §4)
        return server.suggested_reply()
    if isinstance(event, (Auth, AuthResponse)):
        return (
            Challenge(b"Password:").reply(),
            Reply(235, "2.7.0", "In"),
            Reply(535, "5.7.8", "Out"),
            Challenge(b"").reply(),
        )[chance]
    if isinstance(event, (Mail, Rcpt)) and chance == 0 and event not in NEVER_REFUSED:
        return Reply(550, "5.7.1", "Not you")
    if isinstance(event, (EndOfChunk, EndOfContent)) and chance == 0:
        return Reply(452, "4.3.1", "Full")
    return server.suggested_reply()


def run_server(
    pieces: list[bytes],
    behind_tls: list[bytes] | None = None,
    *,
    repair: bool = False,
    lmtp: bool = False,
) -> tuple[list[object], bytes]:
    """Feed the pieces, then end of file; return the events, neighbouring Content joined, and
    all that the server said.

    With `behind_tls` the handshake comes behind the pieces, if the server is ready for it, and
    then these.
    """
    server = make_server(repair=repair, lmtp=lmtp)
    events, said = answer(server, policy)
    for piece in [*pieces, None, *(behind_tls or []), b""]:
        if piece is not None:
            server.receive_data(piece)
        elif behind_tls is not None and server.state is State.TLS:
            server.tls_started()
        more, wire = answer(server, policy)
        events += more
        said += wire
        if events and isinstance(events[-1], ConnectionClosed):
            break
    return joined(events), said


def run_proxied(pieces: list[bytes]) -> tuple[ProxyHeader | None, list[object], bytes]:
    """The same behind a header of the PROXY protocol; None where that is none."""
    reader = ProxyReader()
    header: ProxyHeader | None = None
    rest: list[bytes] = []
    for piece in pieces:
        if header is not None:
            rest.append(piece)
            continue
        try:
            header = reader.feed(piece)
        except RemoteProtocolError:
            return None, [], b""
        if reader.leftover:
            rest.append(reader.leftover)
    return header, *run_server(rest)


def joined(events: list[ServerEvent]) -> list[object]:
    """Join neighbouring Content, whose cuts mean nothing."""
    found: list[object] = []
    for event in events:
        if isinstance(event, Content) and found and isinstance(found[-1], Content):
            found[-1] = Content(found[-1].data + event.data)
        else:
            found.append(event)
    return found


#: What a client has asked, by where it is; `data` has been told to go on.
CLIENT_ASKED: dict[str, list[Command | Chunk | EndOfContent | type[Greeting]]] = {
    "greeting": [Greeting],
    "ehlo": [Ehlo("client.example")],
    "batch": [
        *(Mail("a@b.example"), Rcpt("c@d.example"), Rset(), Mail("a@b.example")),
        *(Rcpt("e@f.example"), Rcpt("g@h.example"), Data()),
    ],
    "data": [],
    "verdict": [EndOfContent()],
    "chunks": [Chunk(b"a"), Chunk(b"b"), Chunk(b"c", last=True), Mail("a@b.example")],
    "lmtp": [Chunk(b"a"), Chunk(b"c", last=True), Mail("a@b.example")],
    "starttls": [StartTls()],
    "auth": [Auth("PLAIN")],
}
CLIENT_STATES = tuple(CLIENT_ASKED)


def make_client(where: str) -> ClientConnection:
    """Bring a client to where replies are owed."""
    lmtp = where == "lmtp"
    client = ClientConnection(STANDARD, limits=LIMITS, lmtp=lmtp)
    if where == "greeting":
        return client
    _hear(client, b"220 server.example\r\n")
    if where != "ehlo":
        client.send((Lhlo if lmtp else Ehlo)("client.example"))
        words = ["server.example", "PIPELINING", "CHUNKING", "STARTTLS"]
        _hear(client, b"".join(b"250-%b\r\n" % word.encode() for word in words))
        _hear(client, b"250 AUTH PLAIN\r\n")
    if where in ("data", "verdict"):
        for command in CLIENT_ASKED["batch"]:
            assert isinstance(command, Command)
            client.send(command)
        _hear(client, b"250 \r\n" * 6 + b"354 go\r\n")
    elif where in ("chunks", "lmtp"):
        for command in (Mail("a@b.example"), Rcpt("e@f.example"), Rcpt("g@h.example")):
            client.send(command)
        _hear(client, b"250 \r\n" * 3)
    for thing in CLIENT_ASKED[where]:
        assert not isinstance(thing, type)
        client.send(thing)
    return client


def answers(where: str) -> st.SearchStrategy[bytes]:
    """What a server may say to all that a client has asked there, LMTP's several verdicts too."""
    each: list[st.SearchStrategy[bytes]] = []
    for thing in CLIENT_ASKED[where]:
        verdicts = 2 if where == "lmtp" and isinstance(thing, Chunk) and thing.last else 1
        each += [smtp.replies_to(thing).flatmap(smtp.reply_spellings)] * verdicts
    return st.tuples(*each).map(b"".join)


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
