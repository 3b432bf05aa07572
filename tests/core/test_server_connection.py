"""The server's end: what it pulls, what it may say, and what it never lets pass."""

import re

import pytest

from smtpproto import (
    NEED_DATA,
    PAUSED,
    Auth,
    BadCommand,
    Command,
    ConnectionClosed,
    Data,
    Ehlo,
    Envelope,
    Extension,
    Limits,
    LocalProtocolError,
    Mail,
    Mailbox,
    Parameter,
    Rcpt,
    Reply,
    ServerConnection,
    State,
    TlsInfo,
)
from smtpproto.core.errors import GrammarError
from smtpproto.core.sasl import Challenge
from smtpproto.extensions import AUTH, PIPELINING, SIZE
from smtpproto.mechanisms import PLAIN
from smtpproto.testing.pair import answer

from .decisions import BASIC
from .serving import HELLO, in_state, make, say


def test_it_greets_first_and_pulls_nothing_before() -> None:
    server = ServerConnection("mx.example")
    server.receive_data(b"EHLO c.example\r\n")
    assert server.next_event() is PAUSED
    assert server.state is State.CONNECTED
    assert server.send(server.suggested_reply()) == b"220 mx.example ESMTP\r\n"
    assert server.early_talker
    assert server.next_event() == Ehlo("c.example")
    assert server.next_event() is PAUSED
    assert not make().early_talker


@pytest.mark.rfc(
    "5321 §3.1 refusing-server-waits-for-quit", "5321 §3.1 refusing-server-answers-503"
)
def test_after_554_nothing_is_of_use_but_quit() -> None:
    server = ServerConnection("mx.example", BASIC)
    assert server.send(Reply(554, None, "No service")) == b"554 No service\r\n"
    assert server.state is State.REFUSED
    for line in (b"EHLO c", b"MAIL FROM:<>", b"NOOP", b"RSET"):
        assert say(server, line + b"\r\n").startswith(b"503 5.5.1")
    assert say(server, b"QUIT\r\n").startswith(b"221")
    assert server.next_event() == ConnectionClosed()


@pytest.mark.parametrize(
    "reply", [Reply(354), Reply(250, None, "lies"), Reply(235, None, ["a", "SIZE 1"])]
)
def test_the_reply_to_ehlo_announces_what_is_offered_or_is_not_sent(reply: Reply) -> None:
    server = make()
    server.receive_data(HELLO)
    server.next_event()
    before = server.state
    with pytest.raises(LocalProtocolError):
        server.send(reply)
    assert server.state is before
    assert server.send(server.suggested_reply()).startswith(b"250-mx.example greets c.example\r\n")


@pytest.mark.rfc("5321 §3.2 no-extensions-in-the-reply-to-helo")
def test_the_reply_to_helo_announces_nothing() -> None:
    server = make()
    server.receive_data(b"HELO c.example\r\n")
    server.next_event()
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250, None, ["mx.example", "SIZE 1"]))
    assert server.send(server.suggested_reply()) == b"250 mx.example\r\n"


def test_the_reply_to_ehlo_may_greet_as_it_likes_and_may_refuse() -> None:
    server = make()
    server.receive_data(HELLO * 2)
    server.next_event()
    lines = server.suggested_reply().lines[1:]
    own = Reply(250, None, [b"mx.example at your service", *lines])
    assert server.send(own) == own.serialize()
    server.next_event()
    assert server.send(Reply(550, "5.7.1", "go away")) == b"550 go away\r\n"
    assert server.extended


def test_octets_of_a_relayed_reply_do_not_break_the_check() -> None:
    server = make()
    server.receive_data(HELLO)
    server.next_event()
    with pytest.raises(LocalProtocolError):
        server.send(Reply.parse(b"250-x\r\n250 \xff\r\n"))


def test_the_longest_names_still_make_a_reply() -> None:
    server = ServerConnection(".".join(["h" * 63] * 4)[:255], BASIC)
    answer(server)
    assert say(server, b"EHLO " + b"n" * 255 + b"\r\n").startswith(b"250-hhh")


def test_what_is_offered_and_when() -> None:
    def lines(server: ServerConnection) -> set[str]:
        return set(say(server, HELLO).decode().replace("250-", "250 ").split("\r\n250 ")[1:])

    plain = ServerConnection("mx.example", BASIC, mechanisms=(PLAIN,), tls_available=True)
    answer(plain)
    announced = {line.strip() for line in lines(plain)}
    assert announced == {
        "PIPELINING",
        "SIZE 26214400",
        "8BITMIME",
        "ENHANCEDSTATUSCODES",
        "STARTTLS",
    }
    say(plain, b"STARTTLS\r\n")
    plain.tls_started(TlsInfo("TLSv1.3", "x"))
    announced = {line.strip() for line in lines(plain)}
    assert "AUTH PLAIN" in announced
    assert "STARTTLS" not in announced
    assert plain.tls == TlsInfo("TLSv1.3", "x")
    unlimited = ServerConnection("mx.example", BASIC, limits=Limits(message=None))
    assert unlimited.offered["SIZE"] == "0"
    assert unlimited.offered.keys() == {"PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES"}


def test_needs_of_needs() -> None:
    a = Extension("XA", rfc=0, needs=("XB",))
    b = Extension("XB", rfc=0, needs=("XC",))
    c = Extension("XC", rfc=0, announce=lambda standing: "" if standing.tls else None)
    server = ServerConnection("mx.example", (a, b, c, PIPELINING))
    assert set(server.offered) == {"PIPELINING"}
    server.tls_started()
    assert set(server.offered) == {"XA", "XB", "XC", "PIPELINING"}


def test_known_is_not_offered() -> None:
    obliging = Extension("XDUTY", rfc=0, obliges="work", rcpt=(Parameter("XDUTY", bytes_, bytes_),))
    server = ServerConnection("mx.example", (obliging,))
    assert server.offered == {}
    server = ServerConnection("mx.example", (obliging, SIZE), offer=(obliging,))
    assert set(server.offered) == {"XDUTY"}
    answer(server)
    said = say(server, HELLO + b"MAIL FROM:<> SIZE=1\r\nMAIL FROM:<>\r\nRCPT TO:<a@b> XDUTY=x\r\n")
    assert re.findall(rb"(?m)^\d{3}(?= )", said) == [b"250", b"555", b"250", b"250"]


def bytes_(value: bytes | None) -> bytes:
    if not value:
        raise GrammarError("a value")
    return value


def test_a_verb_of_an_extension() -> None:
    class Turn(Command):
        verb = b"XTURN"
        __slots__ = ()

        @classmethod
        def parse(cls, argument: bytes) -> "Turn":
            return cls()

    server = make(HELLO, extensions=(Extension("XTURN", rfc=0, verbs=(Turn,)),))
    server.receive_data(b"xturn\r\n")
    assert isinstance(server.next_event(), Turn)
    assert server.suggested_reply().code == 502
    with pytest.raises(LocalProtocolError):
        server.send(Reply(354))
    server.send(Reply(250))
    assert server.state is State.READY


def test_a_verb_of_an_extension_may_say_what_is_suggested() -> None:
    class Ping(Command):
        verb = b"XPING"
        suggested = Reply(250, "2.0.0", "Pong")
        __slots__ = ()

        @classmethod
        def parse(cls, argument: bytes) -> "Ping":
            if argument:
                raise GrammarError("XPING takes no argument")
            return cls()

    mine = Extension("XPING", verbs=(Ping,))
    assert mine.rfc is None
    server = make(HELLO, extensions=(*BASIC, mine))
    assert say(server, b"XPING\r\n") == b"250 2.0.0 Pong\r\n"
    assert say(server, b"XPING now\r\n") == b"501 5.5.4 XPING takes no argument\r\n"
    assert say(make(HELLO), b"XPING\r\n").startswith(b"500 5.5.2")


def test_policy_may_accept_parameters_that_nobody_offered() -> None:
    server = make(HELLO)
    server.receive_data(b"MAIL FROM:<a@b> XYZ=1\r\n")
    bad = server.next_event()
    assert isinstance(bad, BadCommand)
    assert bad.command == Mail("a@b", {"XYZ": 1})
    assert bad.reply.code == 555
    server.send(Reply(250, "2.1.0", "as you like"))
    assert server.state is State.MAIL


@pytest.mark.parametrize(
    "line", [b"MAIL FROM:<a@b> SIZE=x", b"RCPT TO:<a@b>", b"XYZ", b"DATA", b"VRFY", b"x" * 600]
)
def test_policy_may_not_accept_what_is_wrong(line: bytes) -> None:
    server = make(HELLO)
    server.receive_data(line + b"\r\n")
    assert isinstance(server.next_event(), BadCommand)
    for code in (220, 250, 354):
        with pytest.raises(LocalProtocolError):
            server.send(Reply(code))
    server.send(Reply(450, None, "another refusal"))
    assert server.state is State.READY
    assert say(server, b"NOOP\r\n").startswith(b"250")


def test_replies_that_are_not_owed_or_not_possible() -> None:
    server = make(HELLO)
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250))
    with pytest.raises(LocalProtocolError):
        server.suggested_reply()
    server.receive_data(b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n")
    server.next_event()
    server.send(server.suggested_reply())
    assert isinstance(server.next_event(), Rcpt)
    with pytest.raises(LocalProtocolError):
        server.send(Reply(354))
    server.send(server.suggested_reply())
    assert server.next_event() == Data()
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250))
    server.send(Reply(354))
    assert server.next_event() is NEED_DATA
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250))


@pytest.mark.rfc("5321 §3.8 421-may-be-said-at-any-time")
@pytest.mark.parametrize(
    "octets", [b"", HELLO, HELLO + b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nhalf a"]
)
def test_421_may_be_said_at_any_moment_and_closes(octets: bytes) -> None:
    server = make(*([octets] if octets else []))
    assert server.send(Reply(421, "4.3.2", "going down")) == b"421 4.3.2 going down\r\n"
    assert server.state is State.CLOSED
    assert server.next_event() == ConnectionClosed()
    with pytest.raises(LocalProtocolError):
        server.send(Reply(421))


def test_a_421_that_may_not_be_said_leaves_no_reply_owed() -> None:
    """Found by fuzzing: refused for its UTF-8, it left the server deaf, waiting to be answered."""
    server = make(HELLO)
    with pytest.raises(LocalProtocolError):
        server.send(Reply(421, "4.3.2", "Adiós"))
    assert server.replies_owed == 0
    assert server.next_event() is NEED_DATA
    assert say(server, b"NOOP\r\n") == b"250 2.0.0 Ok\r\n"
    assert server.send(Reply(421, "4.3.2", "Goodbye")) == b"421 4.3.2 Goodbye\r\n"


def test_the_envelope() -> None:
    server = make(HELLO, b"MAIL FROM:<a@b>\r\n")
    assert server.envelope is None
    say(server, b"RCPT TO:<c@d>\r\nRCPT TO:<Postmaster>\r\n")
    envelope = Envelope("a@b", ["c@d", "Postmaster"])
    assert server.envelope == envelope
    assert str(envelope.reverse_path) == "<a@b>"
    assert list(map(str, envelope.forward_paths)) == ["<c@d>", "<Postmaster>"]
    with pytest.raises(LocalProtocolError):
        Envelope("a@b", [])
    assert Envelope(Mail("a@b"), Mailbox("c", "d")) == Envelope("a@b", (Rcpt("c@d"),))
    assert Envelope(b"a@b", b"c@d") == Envelope("a@b", "c@d")


@pytest.mark.parametrize("line", [b"EHLO x", b"HELO x", b"RSET"])
def test_ehlo_and_rset_drop_the_transaction(line: bytes) -> None:
    server = make(HELLO, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" + line + b"\r\n")
    assert server.envelope is None
    assert server.state is State.READY
    assert server.extended is (line[:4] != b"HELO")


def test_a_refused_ehlo_changes_nothing() -> None:
    server = make(HELLO, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
    server.receive_data(b"EHLO other\r\n")
    server.next_event()
    server.send(Reply(550))
    assert server.helo_name == b"c.example"
    assert server.envelope is not None


@pytest.mark.rfc(
    "5321 §4.5.3.1.8 over-the-limit-further-ones-are-refused",
    "5321 §4.5.3.1.9 too-many-recipients-get-452",
    "5321 §4.5.3.1.10 too-many-recipients-get-452",
)
def test_the_limit_of_recipients_costs_no_errors() -> None:
    server = make(HELLO + b"MAIL FROM:<>\r\n", limits=Limits(recipients=2, bad_commands=1))
    said = say(server, b"RCPT TO:<a@b>\r\n" * 50)
    assert said.count(b"250 2.1.5") == 2
    assert said.count(b"452 4.5.3") == 48
    assert server.envelope is not None
    assert len(server.envelope.rcpts) == 2
    assert say(server, b"DATA\r\n").startswith(b"354")


def test_auth_in_the_connection() -> None:
    server = make(HELLO)
    server.receive_data(b"AUTH PLAIN AGEAYg==\r\n")
    assert server.next_event() == Auth("PLAIN", b"\0a\0b")
    assert server.suggested_reply().code == 504
    server.send(Challenge(b"x" * 600).reply())
    assert in_state(server, State.AUTH)
    server.receive_data(b"MAIL FROM:<>\r\n")  # is no command now
    bad = server.next_event()
    assert isinstance(bad, BadCommand)
    server.send(bad.reply)
    assert server.state is State.READY
    assert "AGEA" not in repr(Auth("PLAIN", b"\0a\0b"))


def test_auth_is_asked_for_by_those_who_offer_it() -> None:
    server = ServerConnection("mx.example", (AUTH,), mechanisms=())
    answer(server)
    assert say(server, HELLO + b"AUTH PLAIN\r\n").endswith(b"502 Command not implemented\r\n")


def test_a_server_without_extensions() -> None:
    server = ServerConnection("[192.0.2.1]")
    answer(server)
    assert say(server, b"EHLO x\r\n") == b"250 [192.0.2.1] greets x\r\n"
    assert say(server, b"STARTTLS\r\n") == b"500 command not recognized\r\n"
    assert say(server, b"MAIL FROM:<a@b> SIZE=1\r\n").startswith(b"555 ")
    with pytest.raises(LocalProtocolError):
        ServerConnection("no host")


@pytest.mark.rfc("2034 §4 greetings-have-no-status", "2034 §4 without-ehlo-too")
def test_statuses_stand_where_they_are_offered_and_not_in_greetings() -> None:
    server = make()
    assert say(server, b"HELO x\r\n") == b"250 mx.example\r\n"
    assert say(server, b"NOOP\r\n") == b"250 2.0.0 Ok\r\n"


def test_a_parameter_said_twice_however_long_makes_a_reply() -> None:
    wide = Extension("XWIDE", rfc=0, rcpt=(Parameter("XWIDE", bytes_, bytes_, octets=1000),))
    server = ServerConnection("mx.example", (wide,))
    answer(server)
    keyword = b"K" * 700
    said = say(
        server, HELLO + b"MAIL FROM:<>\r\nRCPT TO:<a@b> " + keyword + b" " + keyword + b"\r\n"
    )
    assert said.endswith(b"501 duplicate parameter\r\n")


def test_size_judges_mail_alone() -> None:
    rcpt = Extension("XR", rfc=0, rcpt=(Parameter("XR", bytes_, bytes_),))
    server = ServerConnection("mx.example", (SIZE, rcpt))
    answer(server)
    said = say(server, HELLO + b"MAIL FROM:<> SIZE=9\r\nRCPT TO:<a@b> XR=1\r\n")
    assert said.endswith(b"250 Sender ok\r\n250 Recipient ok\r\n")
