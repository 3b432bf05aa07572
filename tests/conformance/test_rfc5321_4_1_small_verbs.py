"""RFC 5321 §4.1.1.6-10: VRFY, EXPN, HELP, NOOP and QUIT, at either end."""

import pytest

from smtpproto import (
    STANDARD,
    ClientConnection,
    Command,
    ConnectionClosed,
    Ehlo,
    Envelope,
    Expn,
    Extension,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reply,
    State,
    Vrfy,
)
from smtpproto.testing.pair import Policy, answer
from tests.conformance.ends import (
    ALL_BASE,
    HELLO,
    MAIL,
    RCPT,
    client_after,
    hear,
    say,
    server_after,
)

#: What stands between the others and touches nothing.
IDLE = [
    pytest.param(command, id=command.serialize().decode().strip(), marks=pytest.mark.rfc(row))
    for command, row in (
        (Vrfy("jo"), "5321 §4.1.1.6 vrfy-touches-no-transaction"),
        (Expn("list"), "5321 §4.1.1.7 expn-touches-no-transaction"),
        (Help(), "5321 §4.1.1.8 help-touches-no-transaction"),
        (Help("MAIL"), "5321 §4.1.1.8 help-touches-no-transaction"),
        (Noop(), "5321 §4.1.1.9 noop-touches-no-transaction"),
        (Noop("x"), "5321 §4.1.1.9 noop-touches-no-transaction"),
    )
]


PLACES = {b"": State.GREETED, HELLO: State.READY, MAIL: State.MAIL, RCPT: State.RCPT}


# VRFY, EXPN, HELP, NOOP


@pytest.mark.rfc("5321 §4.1.4 small-verbs-need-no-hello")
@pytest.mark.parametrize("code", [250, 550])
@pytest.mark.parametrize("before", PLACES)
@pytest.mark.parametrize("command", IDLE)
def test_the_small_verbs_are_heard_anywhere_and_touch_nothing(
    command: Command, before: bytes, code: int
) -> None:
    server = server_after(before, ALL_BASE)
    kept = server.state, server.envelope
    server.receive_data(command.serialize())
    assert server.next_event() == command
    server.send(Reply(code))
    assert (server.state, server.envelope) == kept
    say(server, b"EHLO c\r\nMAIL FROM:<a@b>\r\n" if before in (b"", HELLO) else b"")
    say(server, b"RCPT TO:<e@f>\r\n")
    assert server.envelope == Envelope("a@b", ["c@d", "e@f"] if before == RCPT else ["e@f"])
    client = ClientConnection(STANDARD)
    hear(client, b"220 mx.example\r\n")
    client.send(command)  # nor does a client need to have said EHLO
    hear(client, b"%d so\r\n" % code)
    assert client.state is State.GREETED


@pytest.mark.rfc(
    "5321 §4.1.1.6 vrfy-may-be-answered-with-a-mailbox",
    "5321 §4.1.1.7 expn-is-answered-with-a-line-for-each-member",
)
def test_whoever_knows_may_answer_with_mailboxes_a_line_each() -> None:
    known = {
        Vrfy("jo"): Reply(250, None, "Jo Bloggs <jo@b.example>"),
        Expn("one"): Reply(250, None, "<jo@b.example>"),
        Expn("list"): Reply(250, None, ["Jo Bloggs <jo@b.example>", "<sam@b.example>"]),
    }
    for command, reply in known.items():
        server, client = server_after(HELLO, ALL_BASE), client_after()
        server.receive_data(client.send(command))
        assert server.next_event() == command
        assert hear(client, server.send(reply)) == [reply]


@pytest.mark.rfc(
    "5321 §4.1.1.8 help-is-supported-without-an-argument",
    "5321 §4.1.1.8 help-may-have-an-argument",
)
def test_help_is_given_and_may_be_about_something() -> None:
    server = server_after(extensions=ALL_BASE)
    assert say(server, b"HELP\r\n").startswith(b"214 ")
    assert say(server, b"HELP MAIL\r\n").startswith(b"214 ")
    server.receive_data(b"HELP MAIL\r\n")
    assert server.next_event() == Help("MAIL")
    assert server.send(Reply(214, None, "MAIL FROM:<you>")) == b"214 MAIL FROM:<you>\r\n"


@pytest.mark.rfc("5321 §4.1.1.1 optional-base-verbs-are-listed")
@pytest.mark.parametrize("extension", ALL_BASE, ids=lambda extension: extension.keyword)
def test_a_server_that_answers_help_or_expn_says_so(extension: Extension) -> None:
    verb = extension.keyword.encode()
    with_it, without = server_after(b"", (extension,)), server_after()
    assert say(with_it, b"EHLO c\r\n").endswith(b"\r\n250 %b\r\n" % verb)
    assert verb not in say(without, b"EHLO c\r\n")
    with_it.receive_data(verb + b" x\r\n")
    assert with_it.next_event() in (Help("x"), Expn("x"))
    assert say(without, verb + b" x\r\n").startswith(b"500")
    assert say(server_after(b"", STANDARD), b"EXPN x\r\n").startswith(b"502")


@pytest.mark.rfc("5321 §4.1.1.9 noop-gets-250-whatever-its-argument")
@pytest.mark.parametrize("argument", [b"", b" x", b' "a b"', b" MAIL FROM:<a@b>", b" QUIT"])
def test_noop_is_250_and_its_argument_is_ignored(argument: bytes) -> None:
    server = server_after(HELLO)
    assert say(server, b"NOOP%b\r\n" % argument) == b"250 Ok\r\n"
    assert server.state is State.READY


# QUIT


@pytest.mark.rfc(
    "5321 §4.1.1.10 quit-gets-221-and-the-end",
    "5321 §4.1.1.10 quit-may-come-at-any-time",
    "5321 §4.1.1.10 quit-aborts-the-transaction",
)
@pytest.mark.parametrize("before", PLACES)
def test_quit_gets_221_anywhere_and_ends_session_and_transaction(before: bytes) -> None:
    server = server_after(before)
    server.receive_data(b"QUIT\r\nDATA\r\n.\r\n")
    events, said = answer(server)
    assert events == [Quit(), ConnectionClosed()]
    assert said == b"221 mx.example Closing connection\r\n"
    assert server.state is State.CLOSED
    client = ClientConnection(STANDARD)
    hear(client, b"220 mx.example\r\n")
    for line in before.splitlines():
        client.send({b"EHLO": Ehlo("c.example"), b"MAIL": Mail("a@b")}.get(line[:4], Rcpt("c@d")))
        hear(client, b"250 ok\r\n")
    assert client.send(Quit()) == b"QUIT\r\n"
    hear(client, said)
    assert client.next_event() == ConnectionClosed()


def _refusing(code: int) -> Policy:
    return lambda server, event: Reply(code)


@pytest.mark.rfc("5321 §4.1.1.10 server-stays-until-quit")
def test_no_error_of_the_clients_ends_the_session_before_quit() -> None:
    server = server_after()
    for line in (b"XYZZY", b"RSET x", b"MAIL FROM:a", b"DATA", b"\x01", b"x" * 1000, b""):
        assert say(server, line + b"\r\n")[:1] == b"5"
        assert server.state is State.GREETED
    for code in (450, 500, 550, 554):
        assert say(server, b"NOOP\r\n", _refusing(code))[:3] == b"%d" % code
        assert server.state is State.GREETED
    assert say(server, b"QUIT\r\n").startswith(b"221")
