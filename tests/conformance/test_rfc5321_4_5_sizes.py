"""RFC 5321 §4.5.1-3: what every server understands, and what size things may have."""

from collections.abc import Callable

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Envelope,
    Limits,
    LocalProtocolError,
    Mail,
    Mailbox,
    Noop,
    Quit,
    Rcpt,
    Reply,
    ServerConnection,
    State,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions import EIGHTBITMIME, SIZE, SMTPUTF8
from smtpproto.testing.pair import Policy, answer
from tests.conformance.ends import HELLO, MAIL, RCPT, agreed, client_after, hear, say, server_after

DOMAIN_255 = ".".join(["d" * 63] * 4)


def content_of(server: ServerConnection, octets: bytes) -> tuple[bytes, EndOfContent]:
    """What the server makes of these octets behind its 354, up to the final dot."""
    server.receive_data(octets)
    content = b""
    while isinstance(event := server.next_event(), Content):
        content += event.data
    assert isinstance(event, EndOfContent)
    return content, event


def client_in_content() -> ClientConnection:
    client = client_after()
    agreed(client, Mail("a@b"), Rcpt("c@d"), Data())
    return client


# The least that there is


@pytest.mark.rfc("5321 §4.5.1 nine-commands-are-supported")
@pytest.mark.parametrize(
    ("before", "line", "code"),
    [
        (b"", b"EHLO c.example", b"250"),
        (b"", b"HELO c.example", b"250"),
        (HELLO, b"MAIL FROM:<a@b>", b"250"),
        (MAIL, b"RCPT TO:<c@d>", b"250"),
        (RCPT, b"DATA", b"354"),
        (RCPT, b"RSET", b"250"),
        (b"", b"NOOP", b"250"),
        (b"", b"QUIT", b"221"),
        (b"", b"VRFY postmaster", b"252"),
    ],
)
def test_a_server_without_any_extension_serves_nine_commands(
    before: bytes, line: bytes, code: bytes
) -> None:
    assert say(server_after(before), line + b"\r\n").startswith(code)


# The sizes that everybody takes


@pytest.mark.rfc(
    "5321 §4.5.3.1.1 local-part-of-64-octets-is-taken",
    "5321 §4.5.3.1 objects-of-these-sizes-are-received",
)
@pytest.mark.parametrize("local", [b"x" * 64, b'"' + b" " * 62 + b'"', b"x." * 31 + b"xx"])
def test_a_local_part_of_64_octets(local: bytes) -> None:
    assert len(local) == 64
    mailbox = Mailbox.parse(local + b"@d.example")
    assert mailbox.serialize() == local + b"@d.example"
    server = server_after(HELLO)
    wire = client_after().send(Mail(mailbox)) + Rcpt(mailbox).serialize()
    assert say(server, wire).count(b"250") == 2
    assert server.envelope == Envelope(mailbox, [mailbox])


@pytest.mark.rfc(
    "5321 §4.5.3.1.2 domain-of-255-octets-is-taken",
    "5321 §4.5.3.1.2 domain-has-255-octets-at-most",
)
def test_a_domain_has_255_octets_at_most() -> None:
    server = server_after()
    assert len(DOMAIN_255) == 255
    assert say(server, Ehlo(DOMAIN_255).serialize()).startswith(b"250")
    assert server.helo_name == DOMAIN_255.encode()
    too_long = "x." + DOMAIN_255[1:]
    assert say(server, f"EHLO {too_long}\r\n".encode()).startswith(b"501")
    with pytest.raises(LocalProtocolError):
        Ehlo(too_long)


@pytest.mark.rfc(
    "5321 §4.5.3.1.3 path-of-256-octets-is-taken",
    "5321 §4.5.3.1.3 path-has-256-octets-at-most",
    "5321 §4.5.3.1.9 path-too-long-gets-501",
)
@pytest.mark.parametrize(
    ("before", "head", "make"),
    [(HELLO, b"MAIL FROM:", Mail), (MAIL, b"RCPT TO:", Rcpt)],
)
@pytest.mark.parametrize("domain", ["d.example", DOMAIN_255[2:-10], "[192.0.2.1]"])
def test_a_path_has_256_octets_at_most(
    before: bytes, head: bytes, make: Callable[[str], Mail | Rcpt], domain: str
) -> None:
    longest = f"{'x' * (253 - len(domain))}@{domain}"
    server = server_after(before)
    wire = make(longest).serialize()
    assert wire == head + b"<%b>\r\n" % longest.encode()
    assert len(wire) == len(head) + 256 + 2
    assert say(server, head + b"<x%b>\r\n" % longest.encode()).startswith(b"501")
    assert say(server, wire).startswith(b"250")
    with pytest.raises(LocalProtocolError):
        make(f"x{longest}")


@pytest.mark.rfc("5321 §4.5.3.1.5 reply-line-of-512-octets-is-taken")
def test_a_client_reads_a_reply_line_of_512_octets() -> None:
    client = client_after()
    client.send(Noop())
    line = b"250 " + b"x" * 506 + b"\r\n"
    assert len(line) == 512
    assert hear(client, line) == [Reply(250, None, "x" * 506)]


@pytest.mark.rfc("5321 §4.5.3.1.5 more-is-said-in-several-lines")
def test_what_one_reply_line_cannot_hold_is_said_in_several() -> None:
    text = ["x" * 506] * 20
    server, client = server_after(), client_after()
    wire = say(server, client.send(Noop()), lambda s, _: Reply(250, None, text))
    assert {len(line) for line in wire.split(b"\r\n")[:-1]} == {510}
    assert hear(client, wire) == [Reply(250, None, text)]


@pytest.mark.rfc("5321 §4.5.3.1.6 text-line-of-1000-octets-is-taken")
@pytest.mark.parametrize("line", [b"x" * 998 + b"\r\n", b"." + b"x" * 997 + b"\r\n"])
def test_a_text_line_has_1000_octets_and_a_doubled_dot_besides(line: bytes) -> None:
    assert len(line) == 1000
    client = client_in_content()
    wire = client.send(Content(line)) + client.send(EndOfContent())
    assert content_of(server_after(RCPT + b"DATA\r\n"), wire) == (line, EndOfContent(1000))


@pytest.mark.rfc("5321 §4.5.3.1.7 64k-of-content-is-taken")
def test_a_message_of_64k_octets() -> None:
    content = b"Subject: x\r\n\r\n" + b"x" * 62 + b"\r\n" * 32_730
    assert len(content) == 65_536
    server, client = server_after(RCPT + b"DATA\r\n"), client_in_content()
    wire = client.send(Content(content)) + client.send(EndOfContent())
    assert content_of(server, wire) == (content, EndOfContent(65_536))


@pytest.mark.rfc("5321 §4.5.3.1.8 100-recipients-are-taken")
def test_a_hundred_recipients() -> None:
    server = server_after(MAIL)
    for number in range(100):
        assert say(server, b"RCPT TO:<r%d@d>\r\n" % number).startswith(b"250")
    assert server.envelope == Envelope("a@b", [f"r{number}@d" for number in range(100)])


@pytest.mark.rfc("5321 §4.5.3.1 lengths-are-octets")
def test_a_length_is_that_of_the_octets_and_not_of_the_characters() -> None:
    longest = "ü" * 125 + "@d.e"
    assert len(Rcpt(Mailbox("ü" * 125, "d.e")).forward_path.serialize()) == 256
    with pytest.raises(LocalProtocolError):
        Mailbox("x" + "ü" * 125, "d.ef")
    utf8 = (EIGHTBITMIME, SMTPUTF8)
    server = ServerConnection("mx.example", utf8, offer=utf8)
    answer(server)
    say(server, HELLO)
    line = f"MAIL FROM:<x{longest}f> SMTPUTF8\r\n".encode()
    assert say(server, line).startswith(b"501")
    assert say(server, f"MAIL FROM:<{longest}> SMTPUTF8\r\n".encode()).startswith(b"250")


# Beyond these sizes


@pytest.mark.rfc("5321 §4.5.3.1 client-may-send-larger-ones")
def test_a_client_may_try_a_longer_local_part() -> None:
    client = client_after()
    agreed(client, Mail("a@b"))
    x400 = "/".join(["", *(f"{key}={'x' * 20}" for key in "CAPOSG")])
    assert len(x400) > 64
    assert client.send(Rcpt(f"{x400}@d")) == f"RCPT TO:<{x400}@d>\r\n".encode()


REFUSALS = [b"500 Line too long", b"501 Path too long", b"452 Too many", b"552 Too much"]


@pytest.mark.rfc(
    "5321 §4.5.3.1 client-copes-with-their-refusal",
    "5321 §4.5.3.1.9 exceeded-limits-have-codes",
)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_client_goes_on_where_something_was_too_long(refusal: bytes) -> None:
    client = client_after()
    for command, before in (
        (Noop("x" * 400), State.READY),
        (Mail("a@b"), State.READY),
        (Rcpt("c@d"), State.MAIL),
    ):
        client.send(command)
        assert hear(client, refusal + b"\r\n") == [Reply(int(refusal[:3]), None, refusal[4:])]
        assert client.state is before
        agreed(client, Noop(), *([] if isinstance(command, Noop) else [command]))
    agreed(client, Data())
    client.send(EndOfContent())
    assert len(hear(client, refusal + b"\r\n")) == 1
    agreed(client, Mail("a@b"))


@pytest.mark.rfc("5321 §4.5.3.1 as-few-limits-as-possible")
def test_what_is_longer_than_the_rfc_demands_is_taken_where_it_does_no_harm() -> None:
    server = server_after(HELLO)
    say(server, b"MAIL FROM:<%b@b>\r\n" % (b"x" * 200))
    for number in range(1000):
        assert say(server, b"RCPT TO:<r%d@d>\r\n" % number).startswith(b"250")
    say(server, b"DATA\r\n")
    line = b"x" * 200_000 + b"\r\n"
    assert content_of(server, line + b".\r\n") == (line, EndOfContent(200_002))
    client = client_after()
    client.send(Noop())
    (reply,) = hear(client, b"250-%b\r\n250 \r\n" % (b"x" * 5000))
    assert reply.lines == (b"x" * 5000, b"")


@pytest.mark.rfc("5321 §4.5.3.1.7 message-size-need-not-be-limited")
def test_content_has_no_limit_where_none_was_set() -> None:
    default = Limits().message
    assert default is not None
    server = ServerConnection("mx.example", (SIZE,), limits=Limits(message=None))
    answer(server)
    said = say(server, RCPT + b"DATA\r\n")
    assert b"250 SIZE\r\n" in said or b"250 SIZE 0\r\n" in said
    octets = 0
    while octets <= default:
        server.receive_data(b"x" * 65_536)
        while isinstance(event := server.next_event(), Content):
            octets += len(event.data)
    assert say(server, b"\r\n.\r\n").startswith(b"250")


@pytest.mark.rfc("5321 §4.5.3.1.7 limiting-server-announces-size")
def test_a_server_that_limits_content_says_so() -> None:
    server = ServerConnection("mx.example", STANDARD, limits=Limits(message=70_000))
    answer(server)
    assert b"SIZE 70000\r\n" in say(server, HELLO)
    assert say(server, b"MAIL FROM:<a@b> SIZE=70001\r\n").startswith(b"552")


# Too many recipients


def at_most(recipients: int, refusal: Reply) -> Policy:
    """The policy of a site that takes so many recipients, and then refuses."""

    def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
        held = len(server.envelope.rcpts) if server.envelope else 0
        if isinstance(event, Rcpt) and held >= recipients:
            return refusal
        return server.suggested_reply()

    return policy


@pytest.mark.rfc("5321 §4.5.3.1.10 site-policy-may-say-5yz")
def test_a_sites_own_limit_of_recipients_may_be_told_for_good() -> None:
    server, client = server_after(MAIL), client_after()
    agreed(client, Mail("a@b"))
    refusal = Reply(550, None, "Three are enough here")
    for number in range(5):
        wire = say(server, client.send(Rcpt(f"r{number}@d")), at_most(3, refusal))
        assert (hear(client, wire) == [refusal]) is (number >= 3)
    assert server.envelope is not None
    assert len(server.envelope.rcpts) == 3
    assert client.state is server.state is State.RCPT


@pytest.mark.rfc("5321 §4.5.3.1.10 too-many-may-be-told-after-data")
def test_that_there_were_too_many_recipients_may_be_said_after_data() -> None:
    server, client = server_after(RCPT), client_after()
    agreed(client, Mail("a@b"), Rcpt("c@d"))
    refusal = Reply(503, None, "For fewer, please")
    wire = say(server, client.send(Data()), lambda s, _: refusal)
    assert hear(client, wire) == [refusal]
    assert client.state is server.state is State.RCPT
    with pytest.raises(LocalProtocolError):
        client.send(Content(b"x\r\n"))
    server.receive_data(b"x\r\n")
    assert isinstance(server.next_event(), BadCommand)
    assert client.send(Quit()) == b"QUIT\r\n"
