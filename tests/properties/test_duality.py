"""Duality: what one side sends the other reads back equal, and idle they agree on the state."""

from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from smtpproto import (
    STANDARD,
    Auth,
    AuthResponse,
    BadCommand,
    Chunk,
    ClientConnection,
    Command,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Helo,
    Lhlo,
    Limits,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reply,
    ReversePath,
    Rset,
    ServerConnection,
    StartTls,
    State,
)
from smtpproto.core.sasl import Challenge
from smtpproto.core.server_connection import ServerEvent
from smtpproto.mechanisms import LOGIN, PLAIN
from smtpproto.testing import strategies as smtp
from smtpproto.testing.pair import Cut, Pair, Policy, octet_by_octet, suggested, whole


def make_server(limits: Limits | None = None, *, lmtp: bool = False) -> ServerConnection:
    return ServerConnection(
        "server.example",
        STANDARD,
        limits=limits or Limits(bad_commands=10**6),
        mechanisms=(PLAIN, LOGIN),
        plaintext_auth=True,
        tls_available=True,
        lmtp=lmtp,
    )


CUTS = st.sampled_from([whole, octet_by_octet])


@given(smtp.commands(standard=True), CUTS)
def test_server_reads_the_command_that_the_client_sent(command: Command, cut: Cut) -> None:
    pair = Pair(make_server(), cut=cut)
    pair.send(Ehlo("client.example"))
    if isinstance(command, (Rcpt, Data)):
        pair.send(Mail(None))
    before = len(pair.server_events)
    pair.send(command)
    got = pair.server_events[before]
    # A mechanism nobody has is still read back.
    assert (got.command if isinstance(got, BadCommand) else got) == command


@given(smtp.replies(), CUTS)
def test_client_reads_the_reply_that_the_server_sent(reply: Reply, cut: Cut) -> None:
    pair = Pair(make_server(), cut=cut)
    pair.send(Ehlo("client.example"))
    # RSET may be answered by any 2yz, 4yz, 5yz; AUTH by 3yz.
    command: Command = Auth("PLAIN") if reply.code // 100 == 3 else Rset()
    pair.policy = lambda server, asked: reply
    assert pair.send(command)[0] == reply
    assert pair.client.state is pair.server.state


@given(smtp.clean_content(), st.data(), CUTS)
def test_server_reads_the_content_that_the_client_sent(
    content: bytes, data: st.DataObject, cut: Cut
) -> None:
    pair = Pair(make_server(), cut=cut)
    pair.send(Ehlo("client.example"))
    pair.send(Mail(None), Rcpt("Postmaster"), Data())
    for piece in data.draw(smtp.cuttings(content)) if content else []:
        pair.send(Content(piece))
    pair.send(EndOfContent())
    read = b"".join(e.data for e in pair.server_events if isinstance(e, Content))
    assert read in {content, content + b"\r\n"}
    end = next(e for e in pair.server_events if isinstance(e, EndOfContent))
    assert end == EndOfContent(len(read), None)
    assert pair.client.state is pair.server.state is State.READY


@given(st.data(), CUTS, st.booleans())
def test_server_reads_the_chunks_that_the_client_sent(
    data: st.DataObject, cut: Cut, lmtp: bool
) -> None:
    pair = Pair(make_server(lmtp=lmtp), ClientConnection(STANDARD, lmtp=lmtp), cut=cut)
    pair.send((Lhlo if lmtp else Ehlo)("client.example"))
    pair.send(Mail(None), Rcpt("Postmaster"), Rcpt("a@b.example"))
    content = data.draw(smtp.clean_content())
    parts = data.draw(smtp.cuttings(content)) if content else []
    pair.send(*map(Chunk, parts))
    assert len(pair.send(Chunk(b"", last=True))) == (2 if lmtp else 1)
    read = b"".join(e.data for e in pair.server_events if isinstance(e, Content))
    assert read == content
    assert pair.server_events[-1] == EndOfContent(len(content), None)
    assert pair.client.state is pair.server.state is State.READY


class TwoEnds(RuleBasedStateMachine):
    """Random commands, legal and illegal, answered at random; idle, both ends agree."""

    def __init__(self) -> None:
        super().__init__()
        self.next_reply: Policy = suggested
        self.pair: Pair | None = None
        self.lmtp = False

    @initialize(
        refuse=st.sampled_from([*[None] * 12, 421, 554]),
        hello=st.booleans(),
        cut=CUTS,
        lmtp=st.booleans(),
    )
    def connect(self, refuse: int | None, hello: bool, cut: Cut, lmtp: bool) -> None:
        self.lmtp = lmtp
        if refuse is not None:
            self.next_reply = lambda server, asked: Reply(refuse, None, "no")
        client = ClientConnection(STANDARD, lmtp=lmtp)
        self.pair = Pair(make_server(lmtp=lmtp), client, policy=self.answer, cut=cut)
        self.next_reply = suggested
        if hello:
            self.send((Lhlo if lmtp else Ehlo)("client.example"))

    def answer(self, server: ServerConnection, asked: ServerEvent | None) -> Reply:
        return self.next_reply(server, asked)

    @property
    def joined(self) -> Pair:
        assert self.pair is not None
        return self.pair

    def send(self, *things: Command | Content | EndOfContent | Chunk) -> None:
        try:
            self.joined.send(*things)
        except LocalProtocolError:
            event("refused by the client")

    @rule(reply=smtp.replies())
    def answer_with(self, reply: Reply) -> None:
        """From now on answer so wherever it is legal."""
        event("answers at random")

        def choose(server: ServerConnection, asked: ServerEvent | None) -> Reply:
            self.next_reply = suggested
            usual = server.suggested_reply()
            same_digit = reply.severity is usual.severity and not isinstance(asked, Ehlo)
            return reply if same_digit or reply.code // 100 in (4, 5) else usual

        self.next_reply = choose

    @rule(command=smtp.commands(standard=True))
    def any_command(self, command: Command) -> None:
        self.send(command)

    @rule(
        batch=st.lists(
            st.sampled_from([Mail("a@b.example"), Rcpt("c@d.example"), Rset(), Data()]), max_size=6
        )
    )
    def pipeline(self, batch: list[Command]) -> None:
        self.send(*batch)

    @rule(hello=st.sampled_from([Ehlo("c.example"), Helo("c.example"), Lhlo("c.example")]))
    def hello(self, hello: Command) -> None:
        self.send(hello)

    @rule()
    def transaction(self) -> None:
        self.send(Mail(ReversePath(None)), Rcpt("c@d.example"), Data())

    @precondition(lambda self: self.joined.client.state is State.CONTENT)
    @rule(content=smtp.clean_content())
    def content(self, content: bytes) -> None:
        self.send(Content(content), EndOfContent())

    @rule(
        rcpts=st.integers(1, 3),
        chunks=st.lists(st.builds(Chunk, smtp.clean_content(), st.booleans()), max_size=4),
        idle=st.sampled_from([None, None, Rset(), Noop(), Mail(None)]),
    )
    def chunks(self, rcpts: int, chunks: list[Chunk], idle: Command | None) -> None:
        self.send(Mail(None), *[Rcpt("c@d.example")] * rcpts)
        self.send(*chunks, *([idle] if idle else []))

    @precondition(lambda self: self.joined.client.state in (State.RCPT, State.CHUNKS))
    @rule(
        chunks=st.lists(st.builds(Chunk, smtp.clean_content(), st.booleans()), max_size=4),
        reply=smtp.replies([4, 5]),
        nth=st.integers(0, 4),
    )
    def refused_chunk(self, chunks: list[Chunk], reply: Reply, nth: int) -> None:
        left = nth

        def refuse_one(server: ServerConnection, asked: ServerEvent | None) -> Reply:
            nonlocal left
            left -= 1
            return reply if left == -1 else server.suggested_reply()

        self.next_reply = refuse_one
        self.send(*chunks)
        self.next_reply = suggested

    @rule()
    def auth(self) -> None:
        self.next_reply = lambda server, asked: Challenge(b"more").reply()
        self.send(Auth("PLAIN"))
        self.next_reply = suggested

    @precondition(lambda self: self.joined.client.state is State.AUTH)
    @rule(response=smtp.auth_responses(), code=st.sampled_from([235, 334, 535]))
    def auth_response(self, response: AuthResponse, code: int) -> None:
        self.next_reply = lambda server, asked: Reply(code, None, "")
        self.send(response)
        self.next_reply = suggested

    @rule()
    def start_tls(self) -> None:
        self.send(StartTls())
        if self.joined.client.state is State.TLS:
            self.joined.start_tls()

    @rule()
    def quit(self) -> None:
        if len(self.joined.server_events) > 12:
            self.send(Quit())

    @rule(line=smtp.texts())
    def raw(self, line: str) -> None:
        """What no client of ours would say, the server answers; both stay where they were."""
        client, server = self.joined.client, self.joined.server
        if server.state is State.GREETED and not client.owed and line[:1].isdigit():
            before = server.state
            server.receive_data(line.encode() + b"\r\n")
            assert isinstance(server.next_event(), BadCommand)
            server.send(Reply(500, None, "what?"))
            assert server.state is before

    @invariant()
    def they_agree(self) -> None:
        if self.pair is None:
            return
        client, server = self.pair.client, self.pair.server
        event(f"idle in {server.state.name}")
        assert client.state is server.state
        if server.state is not State.CLOSED:
            assert self.pair.idle
            assert client.asked is client.state
            assert client.authenticated == server.authenticated
            assert (client.tls is None) == (server.tls is None)
            if server.extended:
                assert client.offered == server.offered
            if server.state in (State.READY, State.GREETED):
                assert server.envelope is None


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=60, stateful_step_count=25)
