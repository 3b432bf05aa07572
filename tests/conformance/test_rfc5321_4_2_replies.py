"""RFC 5321 §4.2 and §4.2.1: what a reply is made of, and what a client makes of its text."""

import pytest

from smtpproto import (
    NEED_DATA,
    STANDARD,
    BadCommand,
    ClientConnection,
    Command,
    Data,
    Ehlo,
    GrammarError,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    RemoteProtocolError,
    Reply,
    ServerConnection,
    State,
    Vrfy,
)
from smtpproto.testing.pair import answer
from tests.conformance.ends import (
    HELLO,
    MAIL,
    RCPT,
    agreed,
    client_after,
    hear,
    say,
    saying,
    server_after,
)

# One reply to each command


LINES = [
    b"NOOP", b"MAIL FROM:<a@b>", b"MAIL FROM:<a@b>", b"DATA", b"RCPT TO:<>", b"RCPT TO:<c@d>",
    b"XYZZY", b"", b"RSET now", b"VRFY jo", b"NOOP " + b"x" * 600, b"\0", b"RSET", b"EHLO again",
]  # fmt: skip


@pytest.mark.rfc("5321 §4.2 one-reply-for-each-command")
def test_each_line_has_one_reply_be_it_good_or_bad() -> None:
    server = server_after(HELLO)
    for line in LINES:
        server.receive_data(line + b"\r\n")
        event = server.next_event()
        assert isinstance(event, (Command, BadCommand))
        assert server.replies_owed == 1
        assert Reply.parse(server.send(server.suggested_reply())).lines
        assert server.replies_owed == 0
        with pytest.raises(LocalProtocolError):
            server.send(Reply(250))
        assert server.next_event() is NEED_DATA


@pytest.mark.rfc("5321 §4.2 replies-keep-both-ends-in-step")
@pytest.mark.parametrize("codes", [(250,), (450,), (550,), (250, 550), (550, 250), (451, 451)])
def test_both_ends_are_in_the_same_state_whatever_the_replies_are(codes: tuple[int, ...]) -> None:
    server, client = server_after(HELLO), client_after()
    commands = (Mail("a@b"), Mail("a@b"), Rcpt("c@d"), Rcpt("e@f"), Ehlo("c.example"), Mail(None))
    for number, command in enumerate(commands):
        try:
            wire = client.send(command)
        except LocalProtocolError:
            continue  # out of sequence, so nothing was sent
        reply = Reply(codes[number % len(codes)])
        assert hear(client, say(server, wire, saying(reply))) == [reply]
        assert client.state is server.state


# The form


FORMS = {
    Reply(250, None, "ok"): b"250 ok\r\n",
    Reply(250, None, "a\tb ~"): b"250 a\tb ~\r\n",
    Reply(250, None, ["one", "two", "three"]): b"250-one\r\n250-two\r\n250 three\r\n",
    Reply(250, None, ["", "two", ""]): b"250-\r\n250-two\r\n250 \r\n",
    Reply(354, None, "go"): b"354 go\r\n",
    Reply(550, "5.1.1", ["no", "body"]): b"550-5.1.1 no\r\n550 5.1.1 body\r\n",
}


@pytest.mark.rfc(
    "5321 §4.2 reply-is-a-code-and-text",
    "5321 §4.2 Reply-line",
    "5321 §4.2.1 lines-but-the-last-have-a-hyphen",
    "5321 §4.2.1 last-line-has-a-space",
    "5321 §4.2.1 same-code-on-each-line",
)
@pytest.mark.parametrize("reply", FORMS, ids=lambda reply: repr(FORMS[reply]))
def test_a_reply_is_written_so_and_read_so(reply: Reply) -> None:
    wire = FORMS[reply]
    assert reply.serialize() == wire
    assert Reply.parse(wire) == reply
    client = client_after()
    client.send(Noop())
    if reply.code != 354:
        assert hear(client, wire) == [reply]


@pytest.mark.rfc("5321 §4.2 Reply-line", "5321 §4.2 reply-is-a-code-and-text")
@pytest.mark.parametrize(
    "octets",
    [
        b"ok\r\n", b"25 ok\r\n", b"2500 ok\r\n", b"250_ok\r\n", b"250\tok\r\n", b" 250 ok\r\n",
        b"250-ok\r\nok\r\n", b"250-ok\r\n 250 ok\r\n", b"+OK\r\n", b"\r\n",
    ],
)  # fmt: skip
def test_what_has_another_form_is_no_reply(octets: bytes) -> None:
    with pytest.raises(GrammarError):
        Reply.parse(octets)
    client = client_after()
    client.send(Noop())
    with pytest.raises(RemoteProtocolError):
        hear(client, octets)


@pytest.mark.rfc("5321 §4.2.1 lines-but-the-last-have-a-hyphen")
def test_a_reply_ends_with_the_line_that_has_no_hyphen() -> None:
    client = client_after()
    client.send(Noop())
    for line in (b"250-one\r\n", b"250-\r\n", b"250--\r\n"):
        assert hear(client, line) == []
        assert client.owed == 1
    assert hear(client, b"250 end\r\n") == [Reply(250, None, ["one", "", "-", "end"])]


@pytest.mark.rfc("5321 §4.2.1 client-relies-on-the-same-code")
@pytest.mark.parametrize("last", [b"251 b\r\n", b"550 b\r\n", b"251-b\r\n"])
def test_a_code_that_changes_between_lines_cannot_be_followed(last: bytes) -> None:
    client = client_after()
    client.send(Noop())
    hear(client, b"250-a\r\n")
    with pytest.raises(RemoteProtocolError):
        hear(client, last)


@pytest.mark.rfc("5321 §4.2.1 text-may-begin-with-digits")
def test_text_may_begin_with_digits() -> None:
    lines = ["First line", "Second line", "234 Text beginning with numbers", "550-The last line"]
    reply = Reply(250, None, lines)
    wire = b"".join(
        (
            b"250-First line\r\n",
            b"250-Second line\r\n",
            b"250-234 Text beginning with numbers\r\n",
            b"250 550-The last line\r\n",
        )
    )
    assert reply.serialize() == wire
    client = client_after()
    client.send(Noop())
    assert hear(client, wire) == [reply]


@pytest.mark.rfc(
    "5321 §4.2 Reply-code",
    "5321 §4.2 no-other-first-digits",
    "5321 §4.3.2 three-digits-from-2-to-5",
)
def test_a_code_has_digits_of_these_ranges() -> None:
    def makes_a_reply(code: int) -> bool:
        try:
            Reply(code)
        except LocalProtocolError:
            return False
        return True

    codes = {code for code in range(-999, 10_000) if makes_a_reply(code)}
    assert codes == {
        100 * a + 10 * b + c for a in (2, 3, 4, 5) for b in range(6) for c in range(10)
    }


@pytest.mark.rfc("5321 §4.2 other-first-digits-are-fatal", "5321 §4.2.1 no-1yz")
@pytest.mark.parametrize("line", [b"150 wait", b"120-wait", b"050 x", b"650 x", b"999 x"])
def test_a_client_that_reads_another_first_digit_gives_up(line: bytes) -> None:
    client = client_after()
    agreed(client, Mail("a@b"))
    client.send(Rcpt("c@d"))
    with pytest.raises(RemoteProtocolError):
        hear(client, line + b"\r\n")
    assert client.state is State.CLOSED


@pytest.mark.rfc("5321 §4.2 textstring")
def test_text_is_printable_ascii_spaces_and_tabs() -> None:
    for octet in range(256):
        text = bytes([octet])
        if octet == 9 or 32 <= octet <= 126:
            assert Reply(250, None, text).serialize() == b"250 " + text + b"\r\n"
            assert Reply.parse(b"250 " + text + b"\r\n").lines == (text,)
        else:
            with pytest.raises(LocalProtocolError):
                Reply(250, None, text)


# The space


@pytest.mark.rfc("5321 §4.2.1 space-is-sent-without-text")
def test_a_space_is_written_though_no_text_follows() -> None:
    assert Reply(250).serialize() == b"250 \r\n"
    assert Reply(250, None, ["a", ""]).serialize() == b"250-a\r\n250 \r\n"


@pytest.mark.rfc("5321 §4.2.1 space-may-be-missing", "5321 §4.2 bare-code-is-a-reply")
@pytest.mark.parametrize("wire", [b"250\r\n", b"250 \r\n", b"250-a\r\n250\r\n", b"250-\r\n250\r\n"])
def test_a_client_takes_a_code_alone(wire: bytes) -> None:
    client = client_after()
    client.send(Mail("a@b"))
    (reply,) = hear(client, wire)
    assert (reply.code, reply.lines[-1]) == (250, b"")
    assert client.state is State.MAIL


@pytest.mark.rfc("5321 §4.2 space-begins-the-text")
@pytest.mark.parametrize("behind", [b"", b" ", b"  ", b"   250", b" \t", b" -", b"-\r\n250 "])
def test_the_code_is_three_digits_whatever_is_behind(behind: bytes) -> None:
    client = client_after()
    client.send(Mail("a@b"))
    (reply,) = hear(client, b"250" + behind + b"\r\n")
    assert reply.code == 250
    assert client.state is State.MAIL
    assert reply.lines[-1] == behind.rpartition(b"\r\n250")[2][1:]


# Codes move, texts do not


@pytest.mark.rfc("5321 §4.2 client-goes-by-the-code", "5321 §4.2 any-text-is-taken")
@pytest.mark.parametrize("code", [250, 299, 450, 550])
@pytest.mark.parametrize(
    "text",
    [
        b"", b"ok", b"OK 250", b"250 ok", b"550 error: failed", b"354", b"421 closing",
        b"\xff\x00\x1b[31m", "caf\u00e9".encode(), b"x" * 2000,
    ],
)  # fmt: skip
def test_a_client_moves_by_the_code_and_takes_any_text(code: int, text: bytes) -> None:
    client = client_after()
    client.send(Mail("a@b"))
    (reply,) = hear(client, b"%d %b\r\n" % (code, text))
    assert (reply.code, reply.lines) == (code, (text,))
    assert client.state is (State.MAIL if code < 300 else State.READY)


@pytest.mark.rfc("5321 §4.2 text-for-machines-is-whole")
@pytest.mark.parametrize(
    ("before", "asked", "octets", "text"),
    [
        (b"", None, b"220 mx.example ESMTP ready\r\n", "mx.example ESMTP ready"),
        (HELLO, Quit(), b"221 mx.example closing\r\n", "mx.example closing"),
        (HELLO, Noop(), b"421 mx.example  going down\r\n", "mx.example  going down"),
        (MAIL, Rcpt("c@d"), b"251 will forward to <x@y>\r\n", "will forward to <x@y>"),
        (MAIL, Rcpt("c@d"), b"551-gone;\r\n551 try <x@y>\r\n", "gone;\ntry <x@y>"),
        (HELLO, Vrfy("c"), b"551 try <x@y>\r\n", "try <x@y>"),
    ],
)
def test_the_text_of_these_is_handed_on_as_it_came(
    before: bytes, asked: Command | None, octets: bytes, text: str
) -> None:
    client = client_after() if before else ClientConnection(STANDARD)
    if before == MAIL:
        agreed(client, Mail("a@b"))
    if asked:
        client.send(asked)
    (reply,) = hear(client, octets)
    assert reply.text == text


@pytest.mark.rfc("5321 §4.2.1 data-in-the-text-is-read")
def test_a_client_reads_the_text_where_something_for_it_stands_there() -> None:
    client = client_after(b"250-mx.example\r\n250-SIZE 1000\r\n250 PIPELINING\r\n")
    assert client.offered == {"SIZE": "1000", "PIPELINING": ""}
    client.send(Noop())
    hear(client, b"250-mx.example\r\n250 CHUNKING\r\n")  # no such thing is expected here
    assert "CHUNKING" not in client.offered


@pytest.mark.rfc("5321 §4.2 any-reply-may-have-lines")
@pytest.mark.parametrize(
    ("before", "command"),
    [(HELLO, Mail("a@b")), (MAIL, Rcpt("c@d")), (RCPT, Data()), (HELLO, Noop()), (RCPT, Quit())],
)
def test_any_command_may_be_answered_in_several_lines(before: bytes, command: Command) -> None:
    code = 354 if command == Data() else 221 if command == Quit() else 250
    reply = Reply(code, None, ["first", "second", "third"])
    server, client = server_after(before), client_after()
    agreed(client, *(Mail("a@b"), Rcpt("c@d"))[: before.count(b"\r\n") - 1])
    said = say(server, client.send(command), saying(reply))
    assert said.count(b"\r\n") == 3
    assert hear(client, said) == [reply]
    assert client.state is server.state


# The greeting


@pytest.mark.rfc("5321 §4.2 Greeting")
@pytest.mark.parametrize(
    "octets",
    [
        b"220 mx.example\r\n",
        b"220 mx.example ready and waiting\r\n",
        b"220 [192.0.2.1] hello\r\n",
        b"220 [IPv6:2001:db8::1]\r\n",
        b"220-mx.example\r\n220-\r\n220-no spam\r\n220 please\r\n",
        b"220-mx.example hi\r\n220\r\n",
    ],
)
def test_a_greeting_is_220_a_name_and_whatever_follows(octets: bytes) -> None:
    client = ClientConnection(STANDARD)
    (reply,) = hear(client, octets)
    assert (reply.code, client.state) == (220, State.GREETED)
    words = reply.lines[0].split()
    server = ServerConnection(words[0].decode())
    assert answer(server)[1].split()[:2] == [b"220", words[0]]
    server = ServerConnection(words[0].decode())
    assert Reply.parse(server.send(reply)) == Reply.parse(octets)


@pytest.mark.rfc("5321 §4.2 greeting-opens-and-nothing-else")
def test_a_server_greets_once() -> None:
    server = ServerConnection("mx.example", STANDARD)
    greeting = server.send(server.suggested_reply())
    assert greeting.startswith(b"220 mx.example")
    said = say(server, b"NOOP\r\n" + RCPT + b"RSET\r\nEHLO c\r\nDATA\r\nXYZZY\r\nQUIT\r\n")
    assert b"220" not in said
    with pytest.raises(LocalProtocolError):
        server_after().send(Reply(220, None, "mx.example"))


@pytest.mark.rfc("5321 §4.2 other-openings-are-plain-replies")
@pytest.mark.parametrize(
    ("octets", "state"),
    [
        (b"554 No SMTP service here\r\n", State.REFUSED),
        (b"554-no\r\n554-service\r\n554 \r\n", State.REFUSED),
        (b"421 mx.example busy\r\n", State.CLOSED),
    ],
)
def test_another_opening_is_a_reply_like_any(octets: bytes, state: State) -> None:
    server, client = ServerConnection("mx.example"), ClientConnection(STANDARD)
    assert server.send(Reply.parse(octets)) == octets
    assert hear(client, octets) == [Reply.parse(octets)]
    assert server.state is client.state is state
