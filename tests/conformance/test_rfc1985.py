"""RFC 1985: ETRN, by which a client asks a server to run its queue."""

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Ehlo,
    GrammarError,
    LocalProtocolError,
    Mail,
    Rcpt,
    RemoteProtocolError,
    Reply,
    Rset,
    ServerConnection,
    State,
)
from smtpproto.extensions import ETRN
from smtpproto.extensions.etrn import Etrn, Queue
from smtpproto.testing.pair import Pair, answer
from tests.conformance.ends import HELLO, MAIL, RCPT, agreed, client_after, hear, say, saying

OFFER = b"250-mx.example\r\n250 ETRN\r\n"


def offering(before: bytes = HELLO) -> ServerConnection:
    """A server that offers ETRN, behind these."""
    server = ServerConnection("mx.example", [ETRN], offer=[ETRN])
    answer(server)
    say(server, before)
    return server


def pulled(server: ServerConnection, line: bytes) -> Etrn:
    """What the server makes of this line, which is a good one."""
    server.receive_data(line + b"\r\n")
    event = server.next_event()
    assert isinstance(event, Etrn)
    return event


# Who asks, and who decides


@pytest.mark.rfc("1985 §4 client-may-ask-for-a-queue")
def test_a_client_asks_where_it_is_offered() -> None:
    client = client_after(OFFER)
    assert client.send(Etrn("client.example")) == b"ETRN client.example\r\n"
    with pytest.raises(LocalProtocolError):
        client_after().send(Etrn("client.example"))


@pytest.mark.rfc(
    "1985 §3 server-decides",
    "1985 §5.1 request-is-judged-by-its-node",
    "1985 §5.1 458-and-459-say-why-not",
    "1985 §5.2 459-gives-the-reason",
    "1985 §5.2 250-means-mail-will-come",
    "1985 §5.2 4yz-means-not-for-you",
)
def test_a_server_sees_whose_queue_it_is_and_decides() -> None:
    def policy(server: ServerConnection, event: object) -> Reply:
        match event:
            case Etrn(node=b"mine.example"):
                return Reply(250, None, "Queue for mine.example is running")
            case Etrn(node=b"shut.example"):
                return Reply(458, None, "Cannot queue for shut.example")
            case Etrn():
                return Reply(459, None, "Not allowed: it is not yours")
            case _:
                return server.suggested_reply()

    server = ServerConnection("mx.example", [ETRN], offer=[ETRN])
    pair = Pair(server, ClientConnection(STANDARD), policy=policy)
    pair.send(Ehlo("client.example"))
    assert [
        pair.send(Etrn(name)) for name in ("mine.example", "shut.example", "other.example")
    ] == [
        [Reply(250, None, "Queue for mine.example is running")],
        [Reply(458, None, "Cannot queue for shut.example")],
        [Reply(459, None, "Not allowed: it is not yours")],
    ]
    assert pair.client.state is pair.server.state is State.READY


@pytest.mark.rfc("1985 §5.1 refusal-is-told")
def test_unless_somebody_decides_it_is_refused() -> None:
    assert say(offering(), b"ETRN c.example\r\n") == b"458 Unable to queue messages\r\n"
    assert "ETRN" not in ServerConnection("mx.example", STANDARD).offered


# The command


@pytest.mark.rfc(
    "1985 §5 etrn-has-an-option-and-a-node",
    "1985 §4 name-may-stand-for-others",
    "1985 §5.3 at-sign-asks-for-subdomains",
    "1985 §5.3 number-sign-asks-for-a-queue",
)
@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"ETRN node.example", Etrn("node.example")),
        (b"ETRN alias.of.it.example", Etrn("alias.of.it.example", Queue.NODE)),
        (b"ETRN @sub.example", Etrn("sub.example", Queue.SUBDOMAINS)),
        (b"ETRN #uucp", Etrn("uucp", Queue.NAMED)),
    ],
)
def test_an_option_and_a_name_are_written_and_read(line: bytes, command: Etrn) -> None:
    assert client_after(OFFER).send(command) == line + b"\r\n"
    assert pulled(offering(), line) == command
    assert pulled(offering(), line.replace(b"ETRN", b"etrn")) == command


@pytest.mark.rfc("1985 §5 etrn-has-an-option-and-a-node")
@pytest.mark.parametrize("argument", [b"a.example b.example", b"@ a.example", b"@@a.example", b"@"])
def test_there_is_one_option_and_one_name(argument: bytes) -> None:
    assert say(offering(), b"ETRN %b\r\n" % argument).startswith(b"501")


@pytest.mark.rfc("1985 §5 node-is-fully-qualified")
@pytest.mark.parametrize(
    "node", ["localhost", "com", "a..b", ".com", "a.b.", "[192.0.2.1]", "a_b.example", "*.example"]
)
def test_a_node_is_fully_qualified(node: str) -> None:
    with pytest.raises(LocalProtocolError):
        Etrn(node)
    assert say(offering(), b"ETRN %b\r\n" % node.encode()).startswith(b"501")


@pytest.mark.rfc("1985 §5.3 queue-names-are-the-servers-own")
@pytest.mark.parametrize("name", ["uucp", "Queue_7", "to:over/there", "#1", "a@b", "x" * 255])
def test_a_queue_may_have_any_printable_name(name: str) -> None:
    command = Etrn(name, Queue.NAMED)
    assert pulled(offering(), command.serialize().removesuffix(b"\r\n")) == command
    for bad in (b"", b"a b", b"\xff", b"a\tb"):
        with pytest.raises(GrammarError):
            Etrn.parse(b"#" + bad)


@pytest.mark.rfc("1985 §6 client-may-name-itself")
def test_a_client_may_ask_by_the_name_it_said_in_ehlo() -> None:
    pair = Pair(ServerConnection("mx.example", [ETRN], offer=[ETRN]), ClientConnection(STANDARD))
    pair.send(Ehlo("client.example"))
    assert pair.server.helo_name is not None
    pair.send(Etrn(pair.server.helo_name))
    assert pair.server_events[-1] == Etrn("client.example")


# When


@pytest.mark.rfc("1985 §5 between-transactions-at-any-time", "1985 §5 one-etrn-for-each-alias")
@pytest.mark.parametrize("code", [250, 459, 500])
def test_between_transactions_it_may_be_sent_and_sent_again(code: int) -> None:
    pair = Pair(ServerConnection("mx.example", [ETRN], offer=[ETRN]), ClientConnection(STANDARD))
    with pytest.raises(LocalProtocolError):  # no session is established
        pair.send(Etrn("a.example"))
    pair.send(Ehlo("client.example"))
    for before in ((), (Mail("a@b"), Rcpt("c@d"), Rset()), (Mail("a@b"), Ehlo("client.example"))):
        for command in before:
            pair.send(command)
        usual, pair.policy = pair.policy, saying(Reply(code))
        for alias in ("a.example", "b.example", "a.example"):
            assert pair.send(Etrn(alias)) == [Reply(code)]
            assert pair.client.state is pair.server.state is State.READY
        pair.policy = usual


@pytest.mark.rfc("1985 §5 not-within-a-transaction")
@pytest.mark.parametrize("before", [MAIL, RCPT])
def test_within_a_transaction_it_is_neither_sent_nor_taken(before: bytes) -> None:
    client = client_after(OFFER)
    agreed(client, *(Mail("a@b"), Rcpt("c@d"))[: before.count(b"\r\n") - 1])
    with pytest.raises(LocalProtocolError):
        client.send(Etrn("a.example"))
    server = offering(before)
    kept = server.state, server.envelope
    server.receive_data(b"ETRN a.example\r\n")
    bad = server.next_event()
    assert isinstance(bad, BadCommand)
    assert bad.reply.code == 503
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250))
    server.send(bad.reply)
    assert (server.state, server.envelope) == kept
    assert say(offering(RCPT + b"DATA\r\n.\r\n"), b"ETRN a.example\r\n").startswith(b"458")


# The replies


@pytest.mark.rfc("1985 §5.1 return-codes", "1985 §5.1 waiting-mail-may-be-told")
@pytest.mark.parametrize("code", [250, 251, 252, 253, 458, 459, 500, 501])
def test_these_codes_pass_and_move_nothing(code: int) -> None:
    server, client = offering(), client_after(OFFER)
    reply = Reply(code, None, "14 messages, say, for node.example")
    said = say(server, client.send(Etrn("node.example")), saying(reply))
    assert hear(client, said) == [reply]
    assert server.state is client.state is State.READY


@pytest.mark.rfc("1985 §5.1 return-codes")
def test_an_intermediate_code_does_not() -> None:
    server, client = offering(), client_after(OFFER)
    server.receive_data(client.send(Etrn("node.example")))
    server.next_event()
    with pytest.raises(LocalProtocolError):
        server.send(Reply(354))
    with pytest.raises(RemoteProtocolError):
        hear(client, b"354 go on\r\n")


@pytest.mark.rfc("1985 §5.1 500-and-501-for-syntax")
@pytest.mark.parametrize(
    ("line", "code"), [(b"ETRN", 500), (b"ETRN ", 500), (b"ETRN localname", 501), (b"ETRN #", 501)]
)
def test_what_cannot_be_read_gets_500_or_501(line: bytes, code: int) -> None:
    assert say(offering(), line + b"\r\n").startswith(b"%d" % code)


@pytest.mark.rfc("1985 §5.1 waiting-mail-can-be-watched")
def test_a_client_that_asks_again_sees_the_queue_empty() -> None:
    server, client = offering(), client_after(OFFER)
    codes: list[int] = []
    for waiting in (2, 1, 0):
        text = f"{waiting} pending" if waiting else "none waiting"
        reply = Reply(253 if waiting else 251, None, text)
        (heard,) = hear(client, say(server, client.send(Etrn("a.example")), saying(reply)))
        codes.append(heard.code)
    assert codes == [253, 253, 251]


@pytest.mark.rfc("1985 §6 server-may-run-everything")
def test_a_server_may_say_250_to_every_name() -> None:
    server = offering()
    for line in (b"ETRN a.example", b"ETRN @b.example", b"ETRN #c"):
        assert (
            say(server, line + b"\r\n", saying(Reply(250, None, "Running"))) == b"250 Running\r\n"
        )
