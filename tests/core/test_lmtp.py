"""LMTP (RFC 2033) at both ends: LHLO, and a reply to the content for each accepted recipient."""

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    Chunk,
    ClientConnection,
    Command,
    ConnectionClosed,
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
    RemoteProtocolError,
    Reply,
    Rset,
    ServerConnection,
    Signal,
    State,
)
from smtpproto.core.connection import Connection
from smtpproto.core.server_connection import ServerEvent
from smtpproto.testing import Pair, octet_by_octet, suggested
from smtpproto.testing.pair import Policy, answer

HEAD = b"LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<no@d>\r\nRCPT TO:<e@f>\r\n"


def verdicts(*replies: Reply) -> Policy:
    """Refuse the recipient `no`, and answer the content with `replies`, one by one."""
    left = list(replies)

    def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
        if isinstance(event, Rcpt) and "no@" in str(event.forward_path):
            return Reply(550, "5.1.1", "No such mailbox")
        if isinstance(event, EndOfContent) and left:
            return left.pop(0)
        return suggested(server, event)

    return policy


def serving(message: int | None = None) -> ServerConnection:
    return ServerConnection("mx.example", STANDARD, limits=Limits(message=message), lmtp=True)


def in_state(end: Connection, state: State) -> bool:
    return end.state is state  # a call, for a type checker believes that states stay


def codes(said: bytes) -> list[str]:
    lines = said.split(b"\r\n")[:-1]
    return [line[:3].decode() for line in lines if line[3:4] == b" "]


def run(octets: bytes, *replies: Reply, message: int | None = None) -> list[str]:
    """Return the codes that a server answers `octets` with, however they are cut."""
    found: list[list[str]] = []
    for size in (len(octets), 1, 7):
        server, policy = serving(message), verdicts(*replies)
        said = answer(server, policy)[1]
        for at in range(0, len(octets), size):
            server.receive_data(octets[at : at + size])
            said += answer(server, policy)[1]
        found.append(codes(said))
    assert found[0] == found[1] == found[2]
    return found[0]


OPENED = ["220", "250", "250", "250", "550", "250"]


@pytest.mark.rfc("2033 §4.1 500-to-helo-and-ehlo", "2033 §4.1 misconfiguration-shows")
def test_lhlo_is_the_only_greeting() -> None:
    assert run(b"EHLO c\r\nHELO c\r\nMAIL FROM:<>\r\nLHLO c\r\nMAIL FROM:<>\r\n") == [
        "220", "500", "500", "503", "250", "250",
    ]  # fmt: skip
    server = ServerConnection("mx.example", STANDARD)
    answer(server)
    server.receive_data(b"LHLO c\r\n")
    assert answer(server)[1].startswith(b"500 5.5.2")


@pytest.mark.rfc("2033 §4.1 lhlo-does-what-ehlo-does")
def test_lhlo_announces_and_drops_the_transaction() -> None:
    server = serving()
    answer(server)
    server.receive_data(b"LHLO c.example\r\n")
    said = answer(server)[1]
    assert said.startswith(b"250-mx.example greets c.example\r\n250-PIPELINING\r\n")
    assert b" 2.0.0" not in said
    assert server.extended
    assert server.helo_name == b"c.example"
    server.receive_data(b"MAIL FROM:<>\r\nRCPT TO:<old@d>\r\nBDAT 1\r\n\rLHLO d\r\n")
    answer(server)
    assert server.envelope is None
    server.receive_data(b"MAIL FROM:<>\r\nRCPT TO:<new@d>\r\nBDAT 1 LAST\r\nx")
    events, said = answer(server)
    assert codes(said) == ["250"] * 3
    assert events[-1] == EndOfContent(1)


@pytest.mark.rfc(
    "2033 §4.2 final-dot-has-a-reply-for-each-recipient",
    "2033 §4.2 same-recipient-twice-has-two-replies",
)
@pytest.mark.parametrize("end", [b"DATA\r\nhi\r\n.\r\n", b"BDAT 2\r\nhiBDAT 2 LAST\r\n\r\n"])
def test_a_reply_for_each_accepted_recipient(end: bytes) -> None:
    start = "354" if end.startswith(b"DATA") else "250"
    replies = [Reply(250), Reply(452, "4.2.2", "full")]
    said = run(HEAD + end + b"NOOP\r\n", *replies)
    assert said == [*OPENED, start, "250", "452", "250"]
    # The same recipient twice has two replies.
    said = run(HEAD + b"RCPT TO:<c@d>\r\n" + end, Reply(550), Reply(450), Reply(250))
    assert said == [*OPENED, "250", start, "550", "450", "250"]


@pytest.mark.rfc("2033 §5 each-reply-leaves-soon")
def test_the_move_is_made_by_the_last_reply() -> None:
    server = serving()
    answer(server)
    server.receive_data(HEAD + b"DATA\r\n.\r\nMAIL FROM:<>\r\n")
    policy = verdicts()
    last: ServerEvent | None = None
    while not isinstance(event := server.next_event(), EndOfContent):
        if isinstance(event, Signal):
            server.send(policy(server, last))
        else:
            last = event
    assert server.replies_owed == 2
    envelope = server.envelope
    assert envelope is not None
    assert [str(path) for path in envelope.forward_paths] == ["<c@d>", "<e@f>"]
    server.send(Reply(250))
    assert server.replies_owed == 1
    assert in_state(server, State.CONTENT)
    assert server.envelope == envelope
    assert isinstance(server.next_event(), Signal)
    server.send(Reply(550))
    assert server.replies_owed == 0
    assert in_state(server, State.READY)
    assert server.envelope is None
    assert server.next_event() == Mail(None)


def test_content_at_fault_is_refused_for_everybody() -> None:
    said = run(HEAD + b"DATA\r\na\nb\r\n.\r\nNOOP\r\n")
    assert said == [*OPENED, "354", "554", "554", "250"]
    assert run(HEAD + b"BDAT 2 LAST\r\na\n") == [*OPENED, "554", "554"]
    assert run(HEAD + b"BDAT 2 LAST\r\nab", message=1) == [*OPENED, "552", "552"]
    server = serving()
    server.receive_data(HEAD + b"BDAT 2 LAST\r\na\n")

    def too_kind(server: ServerConnection, event: ServerEvent | None) -> Reply:
        if isinstance(event, EndOfContent):
            with pytest.raises(LocalProtocolError):
                server.send(Reply(250))
        return server.suggested_reply()

    assert codes(answer(server, too_kind)[1])[-3:] == ["554"] * 3


def test_chunks_behind_a_refused_one() -> None:
    said = run(HEAD + b"BDAT 1\r\n\nBDAT 1\r\nxBDAT 1 LAST\r\nxNOOP\r\n")
    assert said == [*OPENED, "554", "503", "503", "503", "250"]


@pytest.mark.rfc("5321 §3.8 421-may-be-said-at-any-time")
def test_421_is_the_last_of_them() -> None:
    said = run(HEAD + b"DATA\r\n.\r\nNOOP\r\n", Reply(421))
    assert said == [*OPENED, "354", "421"]


@pytest.mark.rfc("2033 §4.2 data-without-a-recipient-gets-503")
def test_data_without_recipients_is_refused() -> None:
    head = b"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<no@d>\r\n"
    assert run(head + b"DATA\r\nRSET\r\n")[-2:] == ["503", "250"]


@pytest.mark.rfc("2033 §4.3 last-chunk-without-a-recipient-has-no-reply")
def test_the_last_chunk_without_recipients_has_no_reply() -> None:
    head = b"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<no@d>\r\n"
    said = run(head + b"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nMAIL FROM:<>\r\n")
    assert said == ["220", "250", "250", "550", "503", "250"]


# The client


def joined(*replies: Reply, commands: tuple[Command, ...] = ()) -> Pair:
    pair = Pair(
        serving(),
        ClientConnection(STANDARD, lmtp=True),
        policy=verdicts(*replies),
        cut=octet_by_octet,
    )
    pair.send(Lhlo("c.example"))
    pair.send(*(commands or (Mail("a@b"), Rcpt("c@d"), Rcpt("no@d"), Rcpt("e@f"))))
    return pair


@pytest.mark.rfc("2033 §4.1 lhlo-replaces-helo-and-ehlo")
def test_a_client_greets_as_it_was_told() -> None:
    for lmtp, greetings in ((True, (Ehlo("c"), Helo("c"))), (False, (Lhlo("c"),))):
        client = ClientConnection(STANDARD, lmtp=lmtp)
        client.receive_data(b"220 x\r\n")
        client.next_event()
        for greeting in greetings:
            with pytest.raises(LocalProtocolError, match="RFC 2033"):
                client.send(greeting)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_hears_a_reply_for_each_recipient(chunked: bool) -> None:
    told = [Reply(250, "2.0.0", "ok"), Reply(550, "5.2.2", ["full", "up"])]
    pair = joined(*told)
    if chunked:
        pair.send(Chunk(b"hi"))
        replies = pair.send(Chunk(b"\r\n", last=True))
    else:
        pair.send(Data())
        replies = pair.send(Content(b"hi"), EndOfContent())
    assert replies == told
    assert in_state(pair.client, State.READY)
    assert in_state(pair.server, State.READY)
    assert pair.client.asked is State.READY
    assert pair.idle
    assert [str(reply)[:3] for reply in pair.send(Noop())] == ["250"]


def test_between_those_replies_nothing_is_sent() -> None:
    client = joined(commands=(Mail(None), Rcpt("c@d"), Rcpt("e@f"))).client
    client.send(Data())
    client.receive_data(b"354 go\r\n")
    client.next_event()
    client.send(EndOfContent())
    client.receive_data(b"250 one\r\n")
    assert client.next_event() == Reply(250, None, "one")
    assert client.owed == 1
    assert in_state(client, State.CONTENT)
    with pytest.raises(LocalProtocolError):
        client.send(Noop())
    client.receive_data(b"450 two\r\n")
    assert client.next_event() == Reply(450, None, "two")
    assert in_state(client, State.READY)
    client.receive_data(b"250 three\r\n")
    with pytest.raises(RemoteProtocolError, match="nobody asked"):
        client.next_event()


def test_transactions_are_counted_apart() -> None:
    pair = joined()
    group: list[Command] = [Rset(), Mail("a@b"), Rcpt("x@y"), Rcpt("no@y")]
    pair.send(*group)
    assert len(pair.send(Chunk(b"one", last=True), Mail("a@b"), Rcpt("x@y"), Rcpt("z@y"))) == 4
    assert len(pair.send(Chunk(b"two", last=True))) == 2
    assert in_state(pair.client, State.READY)
    assert in_state(pair.server, State.READY)


def test_421_in_the_middle_closes() -> None:
    told = [Reply(250, "2.0.0", "ok"), Reply(421, "4.3.2", "bye")]
    pair = joined(*told, commands=(Mail(None), *[Rcpt("c@d")] * 3))
    pair.send(Data())
    assert pair.send(EndOfContent()) == [*told, ConnectionClosed()]
    assert in_state(pair.client, State.CLOSED)
    assert in_state(pair.server, State.CLOSED)


@pytest.mark.rfc("3030 §2 no-chunk-behind-a-refused-one")
def test_behind_a_refused_chunk_comes_rset_though_the_last_was_answered_for_each() -> None:
    client = joined().client
    client.send(Chunk(b"a"))
    client.send(Chunk(b"b", last=True))
    client.receive_data(b"452 full\r\n503 one\r\n503 two\r\n")
    while client.owed:
        assert isinstance(client.next_event(), Reply)
    assert in_state(client, State.READY)
    with pytest.raises(LocalProtocolError, match="RSET comes next"):
        client.send(Mail(None))
    client.send(Rset())
    client.send(Mail(None))


def test_a_refused_last_chunk_alone_ends_the_transaction() -> None:
    client = joined().client
    client.send(Chunk(b"a", last=True))
    client.receive_data(b"452 full\r\n250 taken\r\n")
    while client.owed:
        assert isinstance(client.next_event(), Reply)
    client.send(Mail(None))


def test_354_without_recipients_cannot_be_followed() -> None:
    client = joined(commands=(Mail("a@b"), Rcpt("no@d"))).client
    client.send(Data())
    client.receive_data(b"354 go\r\n")
    with pytest.raises(RemoteProtocolError, match="RFC 2033"):
        client.next_event()


def test_a_refused_data_is_one_reply() -> None:
    client = joined().client
    client.send(Data())
    client.receive_data(b"450 not now\r\n")
    assert client.next_event() == Reply(450, None, "not now")
    assert in_state(client, State.RCPT)
    assert client.owed == 0
    assert client.send(Quit()) == b"QUIT\r\n"


def test_a_line_that_is_too_long_is_refused_as_in_smtp() -> None:
    server = ServerConnection("mx.example", STANDARD, lmtp=True)
    server.send(server.suggested_reply())
    server.receive_data(b"LHLO " + b"a" * 600 + b"\r\n")
    event = server.next_event()
    assert isinstance(event, BadCommand)
    assert event.reply.code == 500
