"""RFC 5321 §2.1 and §2.2: the model of a session, and how extensions come into it."""

from collections.abc import Sequence

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
    Extension,
    Helo,
    LocalProtocolError,
    Mail,
    Noop,
    Parameter,
    Quit,
    Rcpt,
    Reply,
    Rset,
    ServerConnection,
    Severity,
    State,
    Vrfy,
)
from smtpproto.client import Client, Tls
from smtpproto.core.command import BASE_VERBS
from smtpproto.extensions import DSN, PIPELINING, SIZE
from smtpproto.testing.pair import Pair, answer
from tests.conformance.ends import HELLO, RCPT, agreed, client_after, hear, say, server_after

#: The keywords that are registered for SMTP.
KEYWORDS = """
    SEND SOML SAML VRFY EXPN HELP TURN 8BITMIME SIZE CHUNKING BINARYMIME CHECKPOINT DELIVERBY
    PIPELINING DSN ETRN ENHANCEDSTATUSCODES STARTTLS NO-SOLICITING MTRK SUBMITTER ATRN AUTH BURL
    FUTURERELEASE CONPERM CONNEG SMTPUTF8 MT-PRIORITY RRVS REQUIRETLS LIMITS
"""
#: The parameters of MAIL and RCPT that these have.
PARAMETERS = """
    SIZE BODY TRANSID BY NOTIFY ORCPT RET ENVID AUTH SOLICIT MTRK SUBMITTER HOLDFOR HOLDUNTIL
    CONPERM CONNEG SMTPUTF8 MT-PRIORITY RRVS REQUIRETLS
"""
#: The verbs of theirs that are not called like their keyword, and those of this RFC.
VERBS = frozenset((b"BDAT", *BASE_VERBS))


def opened(*extensions: Extension) -> Pair:
    """Both ends with these extensions, behind EHLO."""
    pair = Pair(ServerConnection("mx.example", extensions), ClientConnection(extensions))
    pair.send(Ehlo("c.example"))
    return pair


# The model


@pytest.mark.rfc("5321 §2.1 clients-without-a-queue-submit")
def test_a_client_goes_to_the_submission_port_unless_told_otherwise() -> None:
    client = Client("mail.example")
    assert (client.port, client.tls) == (587, Tls.REQUIRED)
    assert Client("mail.example", 25).port == 25


@pytest.mark.rfc("5321 §2.1 each-command-gets-its-reply")
def test_each_command_gets_one_reply_in_its_turn() -> None:
    lines = [b"EHLO c", b"NOOP", b"XYZZY", b"MAIL FROM:<a@b>", b"RCPT TO:<", b"RSET", b"QUIT"]
    server = server_after()
    said = [say(server, line + b"\r\n") for line in lines]
    assert [one.count(b"\r\n") for one in said] == [1] * len(lines)
    assert [one[:3] for one in said] == [b"250", b"250", b"500", b"250", b"501", b"250", b"221"]
    client = client_after(b"250-mx.example\r\n250 PIPELINING\r\n")
    for command in (Mail("a@b"), Rcpt("c@d"), Rcpt("e@f")):
        client.send(command)
    codes = []
    for code in (250, 550, 251):
        (reply,) = hear(client, b"%d so\r\n" % code)
        codes.append(reply.code)
    assert codes == [250, 550, 251]
    assert client.owed == 0


@pytest.mark.rfc(
    "5321 §2.1 transaction-is-sender-recipients-content",
    "5321 §2.3.1 content-is-sent-after-data",
    "5321 §2.3.9 content-is-what-stands-before-the-end-mark",
    "5321 §3.3 header-is-part-of-the-content",
)
def test_a_transaction_is_a_sender_recipients_and_the_content_as_it_is() -> None:
    message = b"From: <x@y>\r\nTo: <z@y>\r\nBcc: <w@y>\r\n\r\nbody\r\n"
    pair = opened()
    for command in (Mail("a@b"), Rcpt("c@d"), Rcpt("e@f"), Data()):
        pair.send(command)
    before = len(pair.to_server)
    pair.send(Content(message[:20]), Content(message[20:]), EndOfContent())
    assert pair.to_server[before:] == message + b".\r\n"
    content = [event.data for event in pair.server_events if isinstance(event, Content)]
    assert b"".join(content) == message
    commands = [event for event in pair.server_events if isinstance(event, (Mail, Rcpt))]
    assert commands == [Mail("a@b"), Rcpt("c@d"), Rcpt("e@f")]
    assert pair.server_events[-1] == EndOfContent(len(message), None)


@pytest.mark.rfc("5321 §2.1 replies-accept-ask-for-more-or-refuse")
@pytest.mark.parametrize(
    ("code", "severity", "state"),
    [
        (354, Severity.INTERMEDIATE, State.CONTENT),
        (451, Severity.TRANSIENT, State.RCPT),
        (554, Severity.PERMANENT, State.RCPT),
    ],
)
def test_a_reply_accepts_asks_for_more_or_refuses(
    code: int, severity: Severity, state: State
) -> None:
    pair = opened()
    (accepted,) = pair.send(Mail("a@b"))
    assert isinstance(accepted, Reply)
    assert accepted.severity is Severity.COMPLETION
    pair.send(Rcpt("c@d"))
    pair.policy = lambda server, event: Reply(code)
    (reply,) = pair.send(Data())
    assert isinstance(reply, Reply)
    assert reply.severity is severity
    assert pair.client.state is pair.server.state is state


@pytest.mark.rfc(
    "5321 §2.1 mail-and-rcpt-may-ask-for-extensions",
    "5321 §2.3.1 envelope-is-sender-recipients-and-extras",
    "5321 §3.3 mail-parameters-are-of-agreed-extensions",
    "5321 §3.3 rcpt-parameters-are-of-agreed-extensions",
)
def test_what_extensions_add_to_mail_and_rcpt_is_in_the_envelope() -> None:
    server = ServerConnection("mx.example", STANDARD, offer=[SIZE, DSN])
    pair = Pair(server, ClientConnection(STANDARD))
    mail, rcpt = Mail("a@b", {"SIZE": 9}), Rcpt("c@d", {"NOTIFY": "NEVER"})
    pair.send(Ehlo("c.example"))
    pair.send(mail)
    pair.send(rcpt)
    assert pair.server.envelope == Envelope(mail, [rcpt])
    plain = Pair(ServerConnection("mx.example"), ClientConnection(STANDARD))
    plain.send(Ehlo("c.example"))  # and what was not agreed is neither sent nor taken
    for command in (mail, rcpt):
        with pytest.raises(LocalProtocolError, match="does not offer"):
            plain.send(command)
        assert say(plain.server, command.serialize())[:3] == b"555"
        plain.send(type(command)("a@b"))


@pytest.mark.rfc("5321 §2.1 one-command-at-a-time")
def test_a_command_is_answered_before_the_next() -> None:
    server = server_after()
    server.receive_data(HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
    for expected in (Ehlo("c.example"), Mail("a@b"), Rcpt("c@d")):
        assert server.next_event() == expected
        assert not isinstance(server.next_event(), Command)
        server.send(server.suggested_reply())
    client = client_after()
    for command in (Mail("a@b"), Rcpt("c@d"), Data()):
        client.send(command)
        for too_soon in (Rcpt("e@f"), Rset(), Noop(), Quit(), Content(b"x")):
            with pytest.raises(LocalProtocolError):
                client.send(too_soon)
        hear(client, b"354 go\r\n" if command == Data() else b"250 ok\r\n")


@pytest.mark.rfc("5321 §2.1 lock-step-ends-where-both-agree")
def test_where_both_agree_several_commands_are_on_their_way() -> None:
    pair = opened(PIPELINING)
    replies = pair.send(Mail("a@b"), Rcpt("c@d"), Rcpt("e@f"), Data())
    assert [str(reply)[:3] for reply in replies] == ["250", "250", "250", "354"]
    assert pair.server.envelope == Envelope("a@b", ["c@d", "e@f"])


@pytest.mark.rfc("5321 §2.1 client-may-ask-about-addresses")
def test_a_client_may_ask_and_go_on() -> None:
    pair = opened()
    pair.policy = lambda server, event: (
        Reply(250, None, "Jo <jo@b.example>")
        if isinstance(event, Vrfy)
        else server.suggested_reply()
    )
    assert pair.send(Vrfy("jo")) == [Reply(250, None, "Jo <jo@b.example>")]
    assert pair.client.state is pair.server.state is State.READY
    assert str(pair.send(Mail("a@b"))[0]).startswith("250")


# Extensions


@pytest.mark.rfc(
    "5321 §2.2.1 server-takes-ehlo-without-extensions",
    "5321 §2.2.1 ehlo-reply-tells-the-extensions",
)
def test_ehlo_is_answered_with_as_many_keywords_as_there_are() -> None:
    bare = opened()
    assert bare.to_client.endswith(b"\r\n250 mx.example greets c.example\r\n")
    assert bare.client.offered == {}
    some = opened(PIPELINING, SIZE)
    assert some.to_client.endswith(b"\r\n250-PIPELINING\r\n250 SIZE 26214400\r\n")
    assert some.client.offered == {"PIPELINING": "", "SIZE": "26214400"}


def _digits(value: bytes | None) -> int:
    return int(value or b"0")


class Wave(Command):
    """A verb of the extension below."""

    verb = b"XWAVE"

    @classmethod
    def parse(cls, argument: bytes) -> "Wave":
        return cls()


MAIL_WAVE = Parameter("XFROM", _digits, b"%d".__mod__)
RCPT_WAVE = Parameter("XTO", _digits, b"%d".__mod__)
XWAVE = Extension("XWAVE", mail=(MAIL_WAVE,), rcpt=(RCPT_WAVE,), verbs=(Wave,))


@pytest.mark.rfc(
    "5321 §2.2.1 extensions-are-supported", "5321 §2.2.1 mail-and-rcpt-have-further-parameters"
)
def test_an_extension_brings_a_keyword_verbs_and_parameters() -> None:
    commands: list[Command] = [Wave(), Mail("a@b", MAIL_WAVE(1)), Rcpt("c@d", RCPT_WAVE(2))]
    pair = opened(XWAVE)
    pair.policy = lambda server, event: (
        Reply(250) if isinstance(event, Wave) else server.suggested_reply()
    )
    for command in commands:
        assert str(pair.send(command)[0]).startswith("250")
    assert pair.to_server.endswith(
        b"\r\nXWAVE\r\nMAIL FROM:<a@b> XFROM=1\r\nRCPT TO:<c@d> XTO=2\r\n"
    )
    assert isinstance(pair.server_events[1], Wave)
    assert pair.server_events[2:] == commands[1:]
    ignorant = opened()  # nothing of it for those who do not know it
    for command in commands[:2]:
        with pytest.raises(LocalProtocolError):
            ignorant.send(command)
        assert say(ignorant.server, command.serialize())[:1] == b"5"


@pytest.mark.rfc("5321 §2.2.1 helo-is-there-as-a-fallback")
def test_helo_is_taken_and_said_where_ehlo_is_not_known() -> None:
    server = server_after()
    assert say(server, b"HELO c.example\r\n") == b"250 mx.example\r\n"
    assert say(server, b"MAIL FROM:<a@b>\r\n").startswith(b"250")
    client = ClientConnection(STANDARD)
    hear(client, b"220 old.example\r\n")
    client.send(Ehlo("c.example"))
    hear(client, b"500 what?\r\n")
    assert client.send(Helo("c.example")) == b"HELO c.example\r\n"
    hear(client, b"250 old.example\r\n")
    client.send(Mail("a@b"))


def private(word: str) -> bool:
    return word[:1].upper() == "X"


@pytest.mark.rfc(
    "5321 §2.2.2 offered-keywords-are-registered",
    "5321 §2.2.2 verbs-and-parameters-are-registered",
    "5321 §2.2.2 x-is-for-private-extensions",
)
def test_what_has_no_x_is_registered_and_what_has_one_is_not() -> None:
    for extension in STANDARD:
        assert (extension.keyword in KEYWORDS.split()) is not private(extension.keyword)
        assert (extension.rfc is None) is private(extension.keyword)
        for parameter in (*extension.mail, *extension.rcpt):
            assert (parameter.keyword in PARAMETERS.split()) is not private(parameter.keyword)
        for verb in extension.verbs:
            word = verb.verb.decode()
            assert (verb.verb in VERBS or word in KEYWORDS.split()) is not private(word)


@pytest.mark.rfc("5321 §2.2.2 x-is-for-private-extensions")
@pytest.mark.parametrize("keyword", [b"XWAVE", b"xwave"])
def test_a_private_keyword_is_understood_by_those_who_agreed(keyword: bytes) -> None:
    for extensions, knows in (((XWAVE,), True), (STANDARD, False)):
        client = ClientConnection(extensions)
        hear(client, b"220 mx.example\r\n")
        client.send(Ehlo("c.example"))
        hear(client, b"250-mx.example\r\n250 %b\r\n" % keyword)
        assert "XWAVE" in client.offered
        if knows:
            assert client.send(Wave()) == b"XWAVE\r\n"
        else:
            with pytest.raises(LocalProtocolError):
                client.send(Mail("a@b", MAIL_WAVE(1)))


@pytest.mark.rfc("5321 §2.2.3 extensions-may-change-limits")
def test_an_offered_extension_lengthens_the_line() -> None:
    long = Extension("XLONG", mail=(Parameter("XWORD", lambda v: v, lambda v: v, octets=600),))
    mail = Mail("a@b", {"XWORD": b"x" * 590})
    assert 512 < len(mail.serialize()) <= 512 + 600
    pair = opened(long)
    assert str(pair.send(mail)[0]).startswith("250")
    assert say(server_after(HELLO), mail.serialize()).startswith(b"500")
    client = client_after()
    with pytest.raises(LocalProtocolError):
        client.send(mail)


# State


@pytest.mark.rfc("5321 §2.3.6 a-transaction-can-be-cleared")
@pytest.mark.parametrize("clearing", [[Rset()], [Ehlo("c.example")], [Helo("c.example")]])
def test_both_ends_forget_the_transaction(clearing: Sequence[Command]) -> None:
    server, client = server_after(RCPT), client_after()
    agreed(client, Mail("a@b"), Rcpt("c@d"))
    for command in clearing:
        hear(client, say(server, client.send(command)))
    assert (server.state, server.envelope) == (State.READY, None)
    assert client.state is State.READY
    server.receive_data(client.send(Mail("x@y")))
    assert answer(server)[0] == [Mail("x@y")]
