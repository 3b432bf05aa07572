"""RFC 5321 §4.1.1 and §4.1.1.1: what holds for all commands, and for EHLO and HELO."""

from textwrap import dedent

import pytest

from smtpproto import (
    STANDARD,
    ClientConnection,
    Command,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Envelope,
    Expn,
    Extension,
    Helo,
    Help,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reply,
    Rset,
    ServerConnection,
    State,
    Vrfy,
)
from smtpproto.extensions import SIZE
from smtpproto.extensions.size import SIZE_OCTETS
from smtpproto.testing import play_client, play_server
from smtpproto.testing.pair import answer
from tests.conformance.ends import (
    ALL_BASE,
    HELLO,
    MAIL,
    RCPT,
    agreed,
    client_after,
    hear,
    say,
    server_after,
)

COMMANDS: list[Command] = [
    Ehlo("c.example"), Helo("c.example"), Mail("a@b"), Rcpt("a@b"), Data(), Rset(), Vrfy("jo"),
    Expn("list"), Help(), Noop(), Quit(),
]  # fmt: skip


def name(command: Command) -> str:
    return command.serialize().decode().strip()


# All commands


@pytest.mark.rfc("5321 §4.1.1 commands-end-with-crlf")
def test_a_command_ends_with_crlf_and_with_nothing_else() -> None:
    for command in COMMANDS:
        wire = command.serialize()
        assert wire.endswith(b"\r\n")
        assert wire.count(b"\r") == wire.count(b"\n") == 1
    server = server_after()
    for nothing in (b"NOOP\n", b"NOOP\r", b"NOOP"):
        assert say(server, nothing) == b""
    assert say(server, b"\r\n").startswith(b"500")  # all of it was one line
    assert say(server, b"NOOP\r\n").startswith(b"250")


@pytest.mark.rfc("5321 §4.1.1 space-before-an-argument-and-none-without")
def test_a_space_stands_between_the_verb_and_its_argument() -> None:
    assert Noop().serialize() == b"NOOP\r\n"
    assert Noop("x").serialize() == b"NOOP x\r\n"
    assert Ehlo("c").serialize() == b"EHLO c\r\n"
    assert Mail("a@b").serialize() == b"MAIL FROM:<a@b>\r\n"
    server = server_after()
    assert say(server, b"NOOP x\r\nNOOP\r\n") == b"250 Ok\r\n250 Ok\r\n"
    for line in (b"NOOPx", b"EHLOc", b"NOOP\tx"):
        assert say(server, line + b"\r\n").startswith(b"500")


@pytest.mark.rfc("5321 §4.1.1 trailing-white-space-is-tolerated")
@pytest.mark.parametrize("space", [b" ", b"\t", b"  \t "])
@pytest.mark.parametrize("command", COMMANDS, ids=name)
def test_white_space_before_the_end_of_a_line_is_passed_over(
    command: Command, space: bytes
) -> None:
    before = {Mail: HELLO, Rcpt: MAIL, Data: RCPT}.get(type(command), b"")
    server = server_after(before, ALL_BASE)
    server.receive_data(command.serialize().removesuffix(b"\r\n") + space + b"\r\n")
    assert server.next_event() == command


@pytest.mark.rfc(
    "5321 §4.1.1 paths-and-content-have-a-command-each",
    "5321 §4.1.1 transaction-is-held-until-its-end-is-answered",
    "5321 §4.1.1.4 transaction-is-cleared-after-its-end",
)
@pytest.mark.parametrize("verdict", [Reply(250), Reply(451), Reply(554)])
def test_paths_and_content_are_held_until_the_end_of_the_content_is_answered(
    verdict: Reply,
) -> None:
    server = server_after(RCPT + b"RCPT TO:<e@f>\r\nDATA\r\n")
    server.receive_data(b"one\r\ntwo\r\n.\r\n")
    content = b""
    while isinstance(event := server.next_event(), Content):
        content += event.data
    assert event == EndOfContent(len(content), None)
    assert content == b"one\r\ntwo\r\n"
    assert server.envelope == Envelope("a@b", ["c@d", "e@f"])
    server.send(verdict)
    assert server.envelope is None
    assert server.state is State.READY


@pytest.mark.rfc("5321 §4.1.1 client-sends-rset-data-and-quit-bare")
def test_rset_data_and_quit_are_written_without_an_argument() -> None:
    assert [c.serialize() for c in (Rset(), Data(), Quit())] == [
        b"RSET\r\n",
        b"DATA\r\n",
        b"QUIT\r\n",
    ]


@pytest.mark.rfc("5321 §4.1.1 server-refuses-arguments-of-rset-data-and-quit")
@pytest.mark.parametrize("verb", [b"RSET", b"DATA", b"QUIT"])
def test_an_argument_of_rset_data_or_quit_is_a_syntax_error(verb: bytes) -> None:
    server = server_after(RCPT)
    assert say(server, verb + b" x\r\n").startswith(b"501")
    assert (server.state, server.envelope) == (State.RCPT, Envelope("a@b", ["c@d"]))


# EHLO and HELO


@pytest.mark.rfc("5321 §4.1.1.1 server-names-itself")
@pytest.mark.parametrize("hello", [b"EHLO c\r\n", b"HELO c\r\n"])
def test_the_server_names_itself_in_the_greeting_and_in_its_answer(hello: bytes) -> None:
    server = ServerConnection("mx.example")
    assert answer(server)[1].split() == [b"220", b"mx.example", b"ESMTP"]
    assert say(server, hello).split()[:2] == [b"250", b"mx.example"]


@pytest.mark.rfc("5321 §4.1.1.1 server-supports-helo", "5321 §4.1.1.1 client-may-say-helo")
def test_helo_opens_a_session_without_extensions() -> None:
    text = dedent("""\
        S: 220 mx.example ESMTP
        C: HELO c.example
        S: 250 mx.example
        C: MAIL FROM:<a@b>
        S: 250 Sender ok
        """)
    server = ServerConnection("mx.example", [SIZE])
    play_server(text, server)
    assert (server.helo_name, server.extended) == (b"c.example", False)
    client = ClientConnection(STANDARD)
    play_client(text, client)
    assert client.offered == {}
    assert client.state is State.MAIL


@pytest.mark.rfc("5321 §4.1.1.1 ehlo-is-granted-or-refused")
@pytest.mark.parametrize("code", [250, 451, 502, 504, 550])
def test_ehlo_may_be_granted_or_refused(code: int) -> None:
    server = server_after()
    said = say(server, b"EHLO c\r\n", lambda s, _: Reply(code, None, "so it is"))
    assert said == b"%d so it is\r\n" % code
    assert (server.state is State.READY) is (code == 250)
    client = ClientConnection(STANDARD)
    hear(client, b"220 mx.example\r\n")
    client.send(Ehlo("c"))
    (reply,) = hear(client, said)
    assert reply.code == code
    assert (client.state is State.READY) is (code == 250)
    client.send(Helo("c"))  # whatever it was, this may be tried


@pytest.mark.rfc("5321 §4.1.1.1 hello-begins-anew")
@pytest.mark.parametrize("hello", [Ehlo("c.example"), Helo("c.example")])
def test_hello_leaves_no_transaction(hello: Command) -> None:
    server = server_after(RCPT)
    say(server, hello.serialize())
    assert (server.state, server.envelope) == (State.READY, None)
    assert say(server, b"MAIL FROM:<x@y>\r\nRCPT TO:<z@y>\r\n").count(b"250") == 2
    assert server.envelope == Envelope("x@y", ["z@y"])
    client = client_after()
    agreed(client, Mail("a@b"), Rcpt("c@d"), hello)
    assert client.state is State.READY
    client.send(Mail("x@y"))


@pytest.mark.rfc("5321 §4.1.1.1 server-copes-with-text-behind-a-literal")
def test_text_behind_an_address_literal_costs_one_501_and_helo_still_opens_the_session() -> None:
    server = server_after()
    assert say(server, b"EHLO [192.0.2.1] my workstation\r\n").startswith(b"501")
    assert say(server, b"HELO [192.0.2.1]\r\n").startswith(b"250")


@pytest.mark.rfc("5321 §4.1.1.1 client-writes-nothing-behind-the-literal")
@pytest.mark.parametrize("make", [Ehlo, Helo])
def test_a_client_writes_nothing_behind_its_literal(make: type[Ehlo | Helo]) -> None:
    with pytest.raises(LocalProtocolError):
        make("[192.0.2.1] my workstation")


@pytest.mark.rfc("5321 §4.1.1.1 keywords-are-read-in-any-case")
def test_keywords_are_understood_in_any_case() -> None:
    client = client_after(b"250-mx.example\r\n250-Size 1000\r\n250 pipelining\r\n")
    assert client.offered == {"SIZE": "1000", "PIPELINING": ""}
    client.send(Mail("a@b", SIZE_OCTETS(1)))
    client.send(Rcpt("c@d"))


class Turn(Command):
    """A verb of two ends that have agreed on it."""

    verb = b"XTURN"

    @classmethod
    def parse(cls, argument: bytes) -> "Turn":
        return cls()


XTURN = Extension("XTURN", rfc=0, verbs=(Turn,))


@pytest.mark.rfc("5321 §4.1.1.1 private-verbs-may-be-listed", "5321 §4.1.5 private-may-be-listed")
def test_a_private_verb_may_be_listed() -> None:
    server = ServerConnection("mx.example", [XTURN])
    answer(server)
    assert say(server, HELLO).endswith(b"250 XTURN\r\n")
