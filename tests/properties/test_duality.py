"""Duality: what one side sends the other reads back equal, and idle they agree on the state."""

import binascii

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from smtpproto import (
    STANDARD,
    Auth,
    AuthResponse,
    BadCommand,
    Bdat,
    Chunk,
    ClientConnection,
    Command,
    ConnectionClosed,
    Content,
    Data,
    Ehlo,
    EndOfChunk,
    EndOfContent,
    EnhancedStatus,
    Lhlo,
    Limits,
    Mail,
    Noop,
    Rcpt,
    Reply,
    StartTls,
    State,
    TlsInfo,
)
from smtpproto.core.sasl import (
    AuthenticationError,
    Challenge,
    ClientExchange,
    Credentials,
    Mechanism,
    ServerContext,
    ServerExchange,
)
from smtpproto.core.server_connection import ServerConnection, ServerEvent
from smtpproto.mechanisms.saslprep import saslprep
from smtpproto.testing import strategies as smtp
from smtpproto.testing.pair import Cut, Pair, Policy, at_points, octet_by_octet, suggested, whole
from smtpproto.testing.strategies import Group
from tests.sasl.exchange import ALL, FEW, Account

from .ends import OFFER, joined, make_server

VERIFIED = TlsInfo(verified=True)
UNLIMITED = Limits(message=None, bad_commands=10**6)
CUTS: st.SearchStrategy[Cut] = st.one_of(
    st.sampled_from([whole, octet_by_octet]),
    st.lists(st.integers(1, 2000), max_size=8).map(lambda points: at_points(*points)),
)


def make_pair(
    *,
    tls: bool = False,
    lmtp: bool = False,
    cut: Cut = whole,
    policy: Policy = suggested,
    hello: bool = True,
) -> Pair:
    server = make_server(limits=UNLIMITED, mechanisms=ALL, lmtp=lmtp)
    client = ClientConnection(OFFER, lmtp=lmtp)
    if tls:
        server.tls_started()
        client.tls_started(VERIFIED)
    pair = Pair(server, client, cut=cut, policy=policy)
    if hello:
        pair.send((Lhlo if lmtp else Ehlo)("client.example"))
    return pair


# What is possible in clear, and what under TLS; BDAT goes with its octets, and AUTH with its
# mechanism, which see below.
SPOKEN = {
    tls: smtp.commands([e for e in OFFER if e.keyword in smtp.full_offer(OFFER, tls=tls)]).filter(
        lambda command: not isinstance(command, (Auth, Bdat))
    )
    for tls in (False, True)
}


@given(st.data(), st.booleans(), CUTS)
def test_server_reads_the_command_that_the_client_sent(
    data: st.DataObject, tls: bool, cut: Cut
) -> None:
    command = data.draw(SPOKEN[tls])
    event(type(command).__name__)
    pair = make_pair(tls=tls, cut=cut)
    if isinstance(command, (Rcpt, Data)):
        pair.send(Mail(None))
    before = len(pair.server_events)
    pair.send(command)
    got = pair.server_events[before]
    # DATA without recipients is read back and refused.
    assert (got.command if isinstance(got, BadCommand) else got) == command
    assert isinstance(got, BadCommand) is isinstance(command, Data)


@pytest.mark.rfc("5321 §2.3.6 both-ends-agree-where-they-are")
@given(st.one_of(smtp.replies_to(Noop), smtp.replies_to(Auth)), CUTS)
def test_client_reads_the_reply_that_the_server_sent(reply: Reply, cut: Cut) -> None:
    pair = make_pair(cut=cut)
    # NOOP may be answered by any 2yz, 4yz, 5yz; AUTH by 3yz.
    command: Command = Auth("PLAIN") if reply.code // 100 == 3 else Noop()
    pair.policy = lambda server, asked: reply
    (heard,) = pair.send(command)[:1]
    assert isinstance(heard, Reply)
    assert (heard.code, heard.lines) == (reply.code, reply.lines)
    # RFC 2034 §4: where none was given, one that says nothing may stand for it.
    general = EnhancedStatus(reply.code // 100, 0, 0) if reply.code // 100 != 3 else None
    assert heard.status in ({reply.status} if reply.status else {None, general})
    assert pair.client.state is pair.server.state


@given(smtp.offers(), st.booleans())
def test_client_reads_what_any_server_offers(offer: dict[str, str], lmtp: bool) -> None:
    client = ClientConnection(STANDARD, lmtp=lmtp)
    client.receive_data(b"220 server.example\r\n")
    client.next_event()
    client.send((Lhlo if lmtp else Ehlo)("client.example"))
    lines = [f"{keyword} {argument}".rstrip() for keyword, argument in offer.items()]
    client.receive_data(Reply(250, None, ["server.example", *lines]).serialize())
    client.next_event()
    assert client.offered == offer


@given(smtp.clean_content(), st.data(), CUTS)
def test_server_reads_the_content_that_the_client_sent(
    content: bytes, data: st.DataObject, cut: Cut
) -> None:
    pair = make_pair(cut=cut)
    pair.send(Mail(None, {"BODY": "8BITMIME"}), Rcpt("Postmaster"), Data())
    for piece in data.draw(smtp.cuttings(content)) if content else []:
        pair.send(Content(piece))
    pair.send(EndOfContent())
    read = b"".join(e.data for e in pair.server_events if isinstance(e, Content))
    assert read in {content, content + b"\r\n"}
    end = next(e for e in pair.server_events if isinstance(e, EndOfContent))
    assert end == EndOfContent(len(read), None)
    assert pair.client.state is pair.server.state is State.READY


@given(st.data(), CUTS, st.booleans(), st.booleans())
def test_server_reads_the_chunks_that_the_client_sent(
    data: st.DataObject, cut: Cut, lmtp: bool, binary: bool
) -> None:
    pair = make_pair(lmtp=lmtp, cut=cut)
    pair.send(Mail(None, {"BODY": "BINARYMIME" if binary else "8BITMIME"}))
    pair.send(Rcpt("Postmaster"), Rcpt("a@b.example"))
    content = data.draw(smtp.binary_content() if binary else smtp.clean_content())
    *some, last = data.draw(smtp.chunks(content))
    pair.send(*some)
    assert len(pair.send(last)) == (2 if lmtp else 1)
    read = b"".join(e.data for e in pair.server_events if isinstance(e, Content))
    assert read == content
    assert pair.server_events[-1] == EndOfContent(len(content), None)
    assert pair.client.state is pair.server.state is State.READY


def accept(server: ServerConnection, asked: ServerEvent | None) -> Reply:
    """Say yes to everything, as long as it is right."""
    usual = server.suggested_reply()
    if isinstance(asked, BadCommand) or usual.code < 400:
        return usual
    return Reply(235 if isinstance(asked, Auth) else 250, None, "Yes")


def pulled(groups: list[Group]) -> list[object]:
    """What a server has to pull for all this, content joined."""
    found: list[object] = []
    octets = 0
    for group in groups:
        if isinstance(group[-1], EndOfContent):
            text = b"".join(thing.data for thing in group if isinstance(thing, Content))
            text += b"" if text[-2:] in (b"", b"\r\n") else b"\r\n"
            found += [Content(text), EndOfContent(len(text))]
            continue
        for thing in group:
            if not isinstance(thing, Chunk):
                found.append(thing)
                octets = 0
                continue
            size = len(thing.data)
            octets += size
            end = EndOfContent(octets) if thing.last else EndOfChunk(size)
            found += [Bdat(size, thing.last), Content(thing.data), end]
    return [each for each in [*found, ConnectionClosed()] if each != Content(b"")]


SESSIONS = {lmtp: smtp.sessions(OFFER, lmtp=lmtp, tls=True) for lmtp in (False, True)}


@pytest.mark.rfc("5321 §2.3.6 both-ends-agree-where-they-are")
@given(st.data(), st.booleans(), CUTS)
def test_a_legal_session_is_read_as_it_was_sent(data: st.DataObject, lmtp: bool, cut: Cut) -> None:
    groups = data.draw(SESSIONS[lmtp])
    pair = make_pair(lmtp=lmtp, cut=cut, policy=accept, hello=False)
    for group in groups:
        pair.send(*group)
        if isinstance(group[-1], StartTls):
            pair.start_tls(VERIFIED)
        assert pair.idle or pair.client.state is State.CLOSED
        assert pair.client.state is pair.client.asked is pair.server.state
        assert pair.client.authenticated is pair.server.authenticated
    event(f"groups: {len(groups)}")
    assert joined(pair.server_events) == pulled(groups)
    assert pair.client.state is State.CLOSED


def log_in(
    pair: Pair, mechanism: Mechanism, credentials: Credentials, account: Account
) -> str | None:
    """Log in through both connections; return who is in by the server's account."""
    client = ClientExchange(mechanism, credentials)
    bindings = (credentials.binding,) if credentials.binding else ()
    context = ServerContext("server.example", bindings, lambda: "server", b"secret", FEW)
    exchange: ServerExchange | None = None
    identity: str | None = None

    def policy(connection: ServerConnection, asked: ServerEvent | None) -> Reply:
        nonlocal exchange, identity
        if isinstance(asked, BadCommand):
            return connection.suggested_reply()
        try:
            if isinstance(asked, Auth):
                exchange = ServerExchange(mechanism, asked.initial_response, context)
                step = exchange.step()
            else:
                assert isinstance(asked, AuthResponse)
                assert exchange
                step = exchange.step(asked.data)
            while not isinstance(step, (str, Challenge)):
                step = exchange.step(account(step))
        except AuthenticationError as error:
            return error.reply
        if isinstance(step, Challenge):
            return step.reply()
        identity = step
        return Reply(235, "2.7.0", "In")

    pair.policy = policy
    (reply,) = pair.send(Auth(mechanism.name, client.initial_response()))
    while isinstance(reply, Reply) and reply.code == 334:
        challenge = binascii.a2b_base64(reply.lines[0], strict_mode=True)
        (reply,) = pair.send(AuthResponse(client.respond(challenge)))
    if pair.client.authenticated:
        client.succeed()
    return identity


@given(smtp.mechanisms(), st.data(), CUTS, st.booleans())
def test_a_login_passes_through_both_connections(
    mechanism: Mechanism, data: st.DataObject, cut: Cut, right: bool
) -> None:
    event(mechanism.name)
    credentials = data.draw(smtp.credentials(mechanism))
    name = saslprep(credentials.username)
    account = Account(name, credentials.password or "", credentials.token or "")
    if not right:
        account = Account("somebody", "else", "another")
    pair = make_pair(tls=True, cut=cut)
    identity = log_in(pair, mechanism, credentials, account)
    let_in = right or mechanism.name == "ANONYMOUS" or identity == "somebody"
    assert (identity is not None) is let_in
    if right and mechanism.name != "ANONYMOUS":
        assert identity == name
    assert pair.client.authenticated is pair.server.authenticated is let_in
    assert pair.client.state is pair.server.state is State.READY
