"""Walks through all that a client and a server can come to together; holds the client to clauses.

The client is asked to send everything, up to three things in flight; the server answers with a
reply of every class, and those that it would never say are heard as well. What a client may
send is what a server could accept if all that is in flight is answered well; what it is to
believe is what a server may say.
"""

from collections import Counter, deque
from collections.abc import Iterator

from attrs import define, field, frozen

from smtpproto import (
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
    EndOfContent,
    Expn,
    Helo,
    Help,
    Lhlo,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    RemoteProtocolError,
    Reply,
    Rset,
    ServerConnection,
    Signal,
    StartTls,
    State,
    Vrfy,
)
from smtpproto.extensions.etrn import Etrn
from smtpproto.extensions.xclient import XClient
from smtpproto.extensions.xforward import XForward

from .clauses import Answer, Clause, forbidding
from .connections import answers, beginning, fork, image, make_server
from .connections import view as view_server
from .explore import MAX_VIOLATIONS, Violation
from .sending import DENIED, UNKNOWABLE, Thing, Wish, known_offer, well_answered
from .session import Past, Said, Setting
from .words import Foreign

__all__ = ["Joint", "Walk", "walk"]

MAX_CONFIGURATIONS = 20_000


@frozen
class ClientView:
    """What is public of a client."""

    state: State
    asked: State
    owed: int = 0
    tls: bool = False
    authenticated: bool = False
    offered: tuple[tuple[str, str], ...] = ()
    buffered: int = 0


def view(client: ClientConnection) -> ClientView:
    """Look at a client from outside."""
    if client.state is State.CLOSED:
        return ClientView(State.CLOSED, State.CLOSED)
    return ClientView(
        client.state,
        client.asked,
        client.owed,
        client.tls is not None,
        client.authenticated,
        tuple(client.offered.items()),
        client.buffered,
    )


def _command(value: Command, kind: str = "", *keywords: str) -> Thing:
    verb = "RESPONSE" if isinstance(value, AuthResponse) else value.verb.decode()
    return Thing(value, Said(value.serialize(), verb, kind), keywords)


def _chunk(data: bytes, *, last: bool = False, bare: bool = False) -> Thing:
    line = b"BDAT %d%b\r\n" % (len(data), b" LAST" if last else b"")
    said = Said(line + data, "BDAT", size=len(data), last=last, content=data)
    return Thing(Chunk(data, last), said, ("CHUNKING",), bare)


THINGS = (
    _command(Ehlo("c.example")),
    _command(Helo("c.example")),
    _command(Lhlo("c.example")),
    _command(Mail("a@b"), "plain"),
    _command(Mail("é@b"), "unasked"),
    _command(Mail("a@b", {"XYZ": b"1"}), "plain", "XYZ"),
    _command(Rcpt("c@d")),
    _command(Rcpt("é@d"), "unasked"),
    _command(Data()),
    _command(Rset()),
    _command(Noop()),
    _command(Help()),
    _command(Vrfy("c")),
    _command(Expn("c")),
    _command(Quit()),
    _command(StartTls(), "", "STARTTLS"),
    _command(Auth("PLAIN", b"\0a\0b"), "PLAIN", "AUTH"),
    _command(Auth("CRAM-MD5"), "CRAM-MD5", "AUTH"),
    _command(AuthResponse(b"a")),
    _command(AuthResponse(None), "cancel"),
    Thing(Content(b"a\r\n"), Said(b"a\r\n", content=b"a\r\n")),
    Thing(Content(b"a\n"), Said(b"a\n", content=b"a\n"), bare=True),
    Thing(EndOfContent(), Said(b".\r\n", ends=True)),
)
CHUNKS = (
    _command(Mail("a@b", {"BODY": b"BINARYMIME"}), "binary", "BINARYMIME"),
    _chunk(b"ab"),
    _chunk(b"b", last=True),
    _chunk(b"a\n", bare=True),
)
PARAMETERS = (
    _command(Mail("é@b", {"SMTPUTF8": None}), "utf8", "SMTPUTF8"),
    _command(Mail("a@b", {"SIZE": b"5"}), "big", "SIZE"),
    _command(Etrn("c.example"), "", "ETRN"),
    _command(Foreign(), "", "XFOREIGN"),
)
LOGIN = (
    _command(XClient({"NAME": "c.example"}), "", "XCLIENT"),
    _command(XForward({"NAME": "c.example"}), "", "XFORWARD"),
    CHUNKS[-1],
)


def things(setting: Setting) -> tuple[Thing, ...]:
    """Return all that a client is asked to send to such a server."""
    if "CHUNKING" in setting.clear:
        return THINGS + CHUNKS
    return THINGS + (LOGIN if setting.mechanisms else PARAMETERS)


@define(eq=False)
class Joint:
    """A configuration of both ends."""

    client: ClientConnection
    server: ServerConnection
    #: What is known where the server is.
    past: Past
    #: Sent and not answered; the server is at the first of them.
    flight: tuple[Said, ...] = ()
    #: A chunk was refused, and no RSET is sent behind it.
    to_reset: bool = False
    way: tuple[str, ...] = ()

    def key(self, new: "Joint") -> object:
        """Return all in which it differs from a `new` one."""
        if self.past.over:
            return self.past, self.client.state, self.server.state
        server = view_server(self.server)  # walked through all by itself in `explore.py`
        known = (self.past, self.flight, self.to_reset)
        return known, server, image(self.client, new.client)

    def hoped(self, setting: Setting) -> Past:
        """Return what will be known if all that is in flight is answered well."""
        past = well_answered(setting, self.past)
        for said in self.flight[1:] if self.past.owed else self.flight:
            past = well_answered(setting, past.heard(said))
        return past


@define
class Walk:
    """What was found."""

    setting: Setting
    nodes: int = 0
    sent: int = 0
    answered: int = 0
    denied: Counter[Clause] = field(factory=Counter)
    #: Sentences that the client let the server break.
    excused: Counter[str] = field(factory=Counter)
    violations: list[Violation] = field(factory=list)

    def object(self, clause: str, node: Joint, *what: object) -> None:
        way = (*node.way, *map(str, what))
        self.violations.append(Violation(clause, self.setting.name, way))


def walk(setting: Setting) -> Walk:
    """Walk through all that a client and a server so made can come to."""
    found = Walk(setting)
    # MAIL, RCPT and DATA in one group; where there is more to say, that would multiply.
    in_flight = 3 if "SMTPUTF8" in setting.clear else 2
    client = ClientConnection(setting.known, lmtp=setting.lmtp)
    greeting = Said(b"", "GREETING")
    start = Joint(client, make_server(setting), beginning(setting), (greeting,))
    seen = {start.key(start)}
    queue = deque([start])
    while queue and len(found.violations) < MAX_VIOLATIONS:
        node = queue.popleft()
        found.nodes += 1
        for new in steps(found, node, in_flight):
            key = new.key(start)
            if key not in seen:
                seen.add(key)
                queue.append(new)
        if len(seen) > MAX_CONFIGURATIONS:
            found.object("The configurations have an end", node)
            break
    return found


def steps(found: Walk, node: Joint, in_flight: int) -> Iterator[Joint]:
    """Try all that either end can do; give what it leads to."""
    if len(node.flight) < in_flight:
        hoped, spare = node.hoped(found.setting), fork(node.client)
        for thing in things(found.setting):
            yield from send(
                found, node, spare, Wish(found.setting, hoped, node.flight, thing, node.to_reset)
            )
        if view(spare) != view(node.client):
            found.object("What cannot be sent changes nothing", node)
    yield from handshake(found, node)
    for answer in answers(node.past, node.server):
        yield from reply(found, node, answer)


def send(found: Walk, node: Joint, spare: ClientConnection, wish: Wish) -> Iterator[Joint]:
    """Ask the client to send it, and let the server have it."""
    found.sent += 1
    said = wish.thing.said
    denied = next((clause for clause, denies in DENIED.items() if denies(wish)), None)
    # What is denied leaves no trace, so one fork serves for all of that; but for broken content.
    client = spare if denied is not None and not wish.thing.bare else fork(node.client)
    try:
        wire = client.send(wish.thing.value)
    except LocalProtocolError:
        if denied is None:
            found.object("What is not sent, some clause denies", node, f"C: {said}")
        else:
            found.denied[denied] += 1
        return
    if denied is not None:
        found.object(str(denied), node, f"C: {said}")
        return
    if wire != said.octets:
        found.object("A thing is sent as it is written", node, f"C: {said}")
        return
    server, past = fork(node.server), node.past
    server.receive_data(wire)
    events = pulled(server)
    if past.owed:
        if events:
            found.object("While a reply is owed nothing more is heard", node, f"C: {said}")
    else:
        past = past.heard(said)
        refused = any(isinstance(event, BadCommand) for event in events)
        if refused and not excused(found.setting, past):
            found.object("What a client may send its server takes", node, f"C: {said}")
    answered = said.verb != "" or said.ends
    flight = (*node.flight, said) if answered else node.flight
    to_reset = node.to_reset and said.verb != "RSET"
    yield Joint(client, server, past, flight, to_reset, (*node.way, f"C: {said}"))


def excused(setting: Setting, past: Past) -> bool:
    """Whether the server refuses for what a client cannot know."""
    return any(
        clause.says in UNKNOWABLE
        for code in (250, 354)
        for clause in forbidding(setting, past, Answer(Reply(code)))
    )


def handshake(found: Walk, node: Joint) -> Iterator[Joint]:
    """Let TLS begin, if it may."""
    client, server = fork(node.client), fork(node.server)
    begun: list[bool] = []
    for end in (client, server):
        try:
            end.tls_started()
            begun.append(True)
        except LocalProtocolError:
            begun.append(False)
    if begun[0] is not begun[1]:
        found.object("TLS begins at both ends or at neither", node, "TLS")
    elif begun[0]:
        past = node.past.secured()
        way = (*node.way, "TLS")
        yield agreed(found, Joint(client, server, past, node.flight, node.to_reset, way))


def reply(found: Walk, node: Joint, answer: Answer) -> Iterator[Joint]:
    """Give the client this reply, whether or not the server can say it."""
    asked = node.past.asked
    if node.past.over:
        return
    found.answered += 1
    line = f"S: {answer}"
    client, server = fork(node.client), fork(node.server)
    try:
        wire, said = server.send(answer.reply), True
    except LocalProtocolError:
        wire, said = answer.reply.serialize(), False
    client.receive_data(wire)
    try:
        event = client.next_event()
        believed = isinstance(event, Reply) and event.code == answer.code
    except RemoteProtocolError:
        believed = False
    if not said:
        broken = {clause.says for clause in forbidding(found.setting, node.past, answer)}
        found.excused.update(broken if believed else ())
        if believed is not believable(broken, lmtp=node.past.lmtp):
            found.object("A client believes what a server may say, and no more", node, line)
        return
    if not believed:
        found.object("What a server says its client believes", node, line)
        return
    past, flight = node.past, node.flight
    if past.owed or answer.code == 421:
        past = past.answered(answer.code)
    pulled(server)
    if past.over:
        flight = ()
    elif not past.owed and flight:
        flight = flight[1:]
        past = past.heard(flight[0]) if flight else past
    # In LMTP the last chunk has an answer for each recipient, and none of its own.
    chunk = asked is not None and (asked.verb == "BDAT" or (asked.kind == "BDAT" and not past.lmtp))
    refused = chunk and answer.code // 100 in (4, 5)
    to_reset = node.to_reset or (refused and not any(said.verb == "RSET" for said in flight))
    yield agreed(found, Joint(client, server, past, flight, to_reset, (*node.way, line)))


def believable(broken: set[str], *, lmtp: bool) -> bool:
    """Whether a client may believe a reply that breaks these clauses."""
    tolerated = set(UNKNOWABLE)
    if lmtp:
        tolerated.discard("There is no 354 without an accepted recipient")
    return broken <= tolerated


def agreed(found: Walk, node: Joint) -> Joint:
    """Where nothing is in flight, both ends are in one place, and know the same."""
    client, server = node.client, node.server
    if node.past.over:
        if client.state is not State.CLOSED or server.state is not State.CLOSED:
            found.object("The end is the end of both", node)
        return node
    if client.owed != len(node.flight):
        found.object("A client is owed a reply for all that it sent", node)
    if node.flight:
        return node
    if not client.state is client.asked is server.state:
        found.object("Idle, both ends are in one state", node)
    if client.authenticated is not server.authenticated:
        found.object("Idle, both ends know of the login", node)
    if (client.tls is None) is not (server.tls is None):
        found.object("Idle, both ends know of TLS", node)
    if list(client.offered) != list(known_offer(found.setting, node.past)):
        found.object("A client knows what is offered, and forgets it when it should", node)
    return node


def pulled(server: ServerConnection) -> list[object]:
    """Pull until the server owes or needs something."""
    events: list[object] = []
    while not isinstance(event := server.next_event(), (Signal, ConnectionClosed)):
        events.append(event)
    return events
