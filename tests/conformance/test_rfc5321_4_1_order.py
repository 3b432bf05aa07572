"""RFC 5321 §4.1.4-5: the order of commands, and the verbs that two ends agree on."""

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Command,
    ConnectionClosed,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Envelope,
    Extension,
    Helo,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reply,
    Rset,
    ServerConnection,
    State,
)
from smtpproto.core.command import BASE_VERBS
from smtpproto.testing.pair import Pair, answer
from tests.conformance.ends import HELLO, MAIL, RCPT, agreed, client_after, hear, say, server_after

PLACES = {b"": State.GREETED, HELLO: State.READY, MAIL: State.MAIL, RCPT: State.RCPT}


class Turn(Command):
    """A verb that two ends have agreed on."""

    verb = b"XTURN"

    @classmethod
    def parse(cls, argument: bytes) -> "Turn":
        return cls()


XTURN = Extension("XTURN", rfc=0, verbs=(Turn,))


def state(end: ServerConnection | ClientConnection) -> State:
    """Its state now: a call, for a type checker believes that states stay."""
    return end.state


# How a session begins


@pytest.mark.rfc("5321 §4.1.4 hello-before-a-transaction", "5321 §4.1.1.1 hello-before-mail")
def test_no_transaction_without_a_hello() -> None:
    server = server_after()
    assert say(server, b"MAIL FROM:<a@b>\r\n").startswith(b"503")
    assert say(server, b"RCPT TO:<c@d>\r\nDATA\r\n").count(b"503") == 2
    assert state(server) is State.GREETED
    assert say(server, HELLO + b"MAIL FROM:<a@b>\r\n").count(b"250") == 2
    client = ClientConnection(STANDARD)
    hear(client, b"220 mx.example\r\n")
    for command in (Mail("a@b"), Rcpt("c@d"), Data()):
        with pytest.raises(LocalProtocolError):
            client.send(command)
    client.send(Ehlo("c.example"))
    hear(client, b"250 mx.example\r\n")
    client.send(Mail("a@b"))


@pytest.mark.rfc("5321 §4.1.4 client-may-say-ehlo-again", "5321 §4.1.4 later-ehlo-resets")
@pytest.mark.parametrize("before", PLACES)
def test_a_later_ehlo_is_granted_and_resets(before: bytes) -> None:
    server = server_after(before)
    assert say(server, b"EHLO again.example\r\n").startswith(b"250")
    assert (server.state, server.envelope) == (State.READY, None)
    assert server.helo_name == b"again.example"
    assert say(server, b"RCPT TO:<c@d>\r\n").startswith(b"503")
    client = client_after()
    agreed(client, Mail("a@b"), Rcpt("c@d"), Ehlo("again.example"))
    assert client.state is State.READY


@pytest.mark.rfc(
    "5321 §4.1.4 unacceptable-ehlo-is-refused", "5321 §4.1.4 refused-ehlo-moves-nothing"
)
@pytest.mark.parametrize("before", PLACES)
@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"EHLO", 501),
        (b"EHLO a b", 501),
        (b"EHLO " + b"x" * 600, 500),
        (b"EHLO other.example", 502),
        (b"EHLO other.example", 550),
    ],
)
def test_an_ehlo_that_is_not_acceptable_is_refused_and_moves_nothing(
    before: bytes, line: bytes, code: int
) -> None:
    server = server_after(before)
    kept = server.state, server.envelope, server.helo_name, server.extended
    said = say(
        server,
        line + b"\r\n",
        lambda s, event: s.suggested_reply() if isinstance(event, BadCommand) else Reply(code),
    )
    assert said.startswith(b"%d" % code)
    assert (server.state, server.envelope, server.helo_name, server.extended) == kept
    client = client_after()
    agreed(client, Mail("a@b"), Rcpt("c@d"))
    client.send(Ehlo("other.example"))
    hear(client, said)
    assert client.state is State.RCPT


# Transactions


@pytest.mark.rfc("5321 §4.1.4 mail-rcpt-data-in-this-order")
def test_a_transaction_is_mail_then_rcpts_then_data() -> None:
    server, client = server_after(HELLO), client_after()
    for refused in (Rcpt("c@d"), Data()):
        assert say(server, refused.serialize()).startswith(b"503")
        with pytest.raises(LocalProtocolError):
            client.send(refused)
    hear(client, say(server, client.send(Mail("a@b"))))
    assert say(server, b"DATA\r\n").startswith(b"503")  # nobody to send it to
    for recipient in ("c@d", "e@f"):
        hear(client, say(server, client.send(Rcpt(recipient))))
    hear(client, say(server, client.send(Data())))
    assert server.state is client.state is State.CONTENT


@pytest.mark.rfc("5321 §4.1.4 rset-ehlo-and-quit-abort-a-transaction")
@pytest.mark.parametrize("before", [MAIL, RCPT])
@pytest.mark.parametrize("command", [Rset(), Ehlo("c.example"), Helo("c.example"), Quit()])
def test_a_transaction_is_aborted(command: Command, before: bytes) -> None:
    server = server_after(before)
    server.receive_data(command.serialize() + b"DATA\r\nx\r\n.\r\n")
    events, said = answer(server)
    assert not any(isinstance(event, (Data, Content, EndOfContent)) for event in events)
    assert said[:3] in (b"221", b"250")
    assert server.state is (State.CLOSED if command == Quit() else State.READY)


@pytest.mark.rfc("5321 §2.1 another-transaction-or-the-end")
@pytest.mark.rfc("5321 §4.1.4 any-number-of-transactions")
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_session_has_any_number_of_transactions(count: int) -> None:
    pair = Pair(ServerConnection("mx.example"), ClientConnection())
    pair.send(Ehlo("c.example"))
    for number in range(count):
        for command in (Mail("a@b"), Rcpt(f"c{number}@d"), Data()):
            pair.send(command)
        assert pair.server.envelope == Envelope("a@b", [f"c{number}@d"])
        pair.send(Content(b"%d\r\n" % number), EndOfContent())
        assert state(pair.server) is state(pair.client) is State.READY
    pair.send(Quit())
    ends = [event for event in pair.server_events if isinstance(event, EndOfContent)]
    assert len(ends) == count
    assert pair.server_events[-2:] == [Quit(), ConnectionClosed()]


@pytest.mark.rfc("5321 §4.1.4 client-sends-no-mail-within-a-transaction")
def test_a_client_sends_mail_only_where_no_transaction_is_open() -> None:
    client = client_after(b"250-mx.example\r\n250 PIPELINING\r\n")
    client.send(Mail("a@b"))
    for _ in range(2):  # asked for already, and granted
        with pytest.raises(LocalProtocolError):
            client.send(Mail("x@y"))
        hear(client, b"250 ok\r\n") if client.owed else None
    client.send(Rset())
    hear(client, b"250 ok\r\n")
    client.send(Mail("x@y"))
    hear(client, b"550 no\r\n")  # what was refused is not open
    client.send(Mail("x@y"))


@pytest.mark.rfc("5321 §4.1.4 unacceptable-mail-gets-501-and-moves-nothing")
@pytest.mark.parametrize(
    "argument",
    [b"", b" <a@b>", b" FROM:", b" FROM:a@b", b" FROM:<a>", b" FROM:<a@b> ="],
)
def test_a_mail_that_cannot_be_read_gets_501_and_moves_nothing(argument: bytes) -> None:
    server = server_after(HELLO)
    assert say(server, b"MAIL%b\r\n" % argument).startswith(b"501")
    assert (state(server), server.envelope) == (State.READY, None)
    assert say(server, b"MAIL FROM:<a@b>\r\n").startswith(b"250")


@pytest.mark.rfc("5321 §4.1.4 out-of-order-gets-503-and-moves-nothing")
@pytest.mark.parametrize(
    ("before", "line"),
    [
        (b"", b"MAIL FROM:<a@b>"),
        (b"", b"RCPT TO:<a@b>"),
        (b"", b"DATA"),
        (HELLO, b"RCPT TO:<a@b>"),
        (HELLO, b"DATA"),
        (MAIL, b"MAIL FROM:<x@y>"),
        (MAIL, b"DATA"),
        (RCPT, b"MAIL FROM:<x@y>"),
    ],
)
def test_what_is_out_of_order_gets_503_and_moves_nothing(before: bytes, line: bytes) -> None:
    server = server_after(before)
    kept = server.state, server.envelope
    assert say(server, line + b"\r\n").startswith(b"503")
    assert (server.state, server.envelope) == kept


@pytest.mark.rfc("5321 §4.1.4 quit-is-the-last")
def test_behind_quit_a_client_sends_nothing() -> None:
    client = client_after(b"250-mx.example\r\n250 PIPELINING\r\n")
    client.send(Quit())
    for _ in range(2):  # neither before the answer nor behind it
        for command in (Noop(), Rset(), Mail("a@b"), Quit()):
            with pytest.raises(LocalProtocolError):
                client.send(command)
        hear(client, b"221 bye\r\n") if client.owed else None


@pytest.mark.rfc("5321 §4.1.4 quit-though-no-session-was-opened")
@pytest.mark.parametrize("greeting", [b"220 mx.example\r\n", b"554 no service\r\n"])
def test_quit_may_be_sent_though_no_session_was_opened(greeting: bytes) -> None:
    client = ClientConnection()
    hear(client, greeting)
    assert client.send(Quit()) == b"QUIT\r\n"
    server = ServerConnection("mx.example")
    server.send(Reply.parse(greeting))
    assert say(server, b"QUIT\r\n").startswith(b"221")


# Private verbs


@pytest.mark.rfc("5321 §4.1.5 private-verbs-by-agreement")
def test_two_ends_that_agree_have_verbs_of_their_own() -> None:
    pair = Pair(
        ServerConnection("mx.example", [XTURN]),
        ClientConnection([XTURN]),
        policy=lambda s, event: Reply(250) if isinstance(event, Turn) else s.suggested_reply(),
    )
    pair.send(Ehlo("c.example"))
    assert pair.send(Turn()) == [Reply(250)]
    assert isinstance(pair.server_events[-1], Turn)


@pytest.mark.rfc("5321 §4.1.5 unknown-private-verb-gets-500")
@pytest.mark.parametrize("before", PLACES)
def test_a_private_verb_that_nobody_knows_gets_500(before: bytes) -> None:
    server = server_after(before, STANDARD)
    kept = server.state
    assert say(server, b"XUNHEARD of\r\n").startswith(b"500")
    assert server.state is kept


@pytest.mark.rfc("5321 §4.1.5 verbs-without-x-are-those-of-rfcs")
def test_every_verb_without_an_x_is_one_of_an_rfc() -> None:
    known: dict[bytes, int | None] = dict.fromkeys(BASE_VERBS, 5321)
    for extension in STANDARD:
        known |= {verb.verb: extension.rfc for verb in extension.verbs}
    assert {b"EHLO", b"ETRN", b"BDAT", b"AUTH", b"STARTTLS", b"XCLIENT"} <= known.keys()
    for verb, rfc in known.items():
        assert verb.startswith(b"X") or rfc, verb
