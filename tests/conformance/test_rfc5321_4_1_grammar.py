"""RFC 5321 §4.1.1-3: the reply to EHLO as ABNF, and what the rules of addresses mean."""

import pytest

from smtpproto import (
    STANDARD,
    ClientConnection,
    Ehlo,
    GrammarError,
    Helo,
    LocalProtocolError,
    Mail,
    Mailbox,
    Rcpt,
    Reply,
    ServerConnection,
)
from smtpproto.core.command import parse_command
from smtpproto.extensions.auth import SUBMITTER, Submitter
from smtpproto.extensions.dsn import ORCPT, OriginalRecipient
from smtpproto.testing.pair import answer
from tests.conformance.ends import HELLO, MAIL, pulled

# The reply to EHLO


def offered(*lines: bytes) -> dict[str, str]:
    """What a client understands of the keyword lines, without code, of a reply to EHLO."""
    client = ClientConnection(STANDARD)
    client.receive_data(b"220 mx.example\r\n")
    client.next_event()
    client.send(Ehlo("c.example"))
    all_lines = [b"mx.example", *lines]
    wire = b"".join(b"250-%b\r\n" % line for line in all_lines[:-1])
    client.receive_data(wire + b"250 %b\r\n" % all_lines[-1])
    assert isinstance(client.next_event(), Reply)
    return client.offered


def reply_to_ehlo(server: ServerConnection) -> list[bytes]:
    answer(server)
    server.receive_data(HELLO)
    _, wire = answer(server)
    assert wire.endswith(b"\r\n")
    return wire.split(b"\r\n")[:-1]


@pytest.mark.rfc(
    "5321 §4.1.1.1 ehlo-ok-rsp",
    "5321 §4.1.1.1 reply-to-ehlo-has-a-keyword-in-each-line",
    "5321 §4.1.1.1 server-names-itself",
)
def test_the_reply_to_ehlo_has_the_domain_first_and_then_a_keyword_in_each_line() -> None:
    assert reply_to_ehlo(ServerConnection("mx.example")) == [b"250 mx.example greets c.example"]
    server = ServerConnection("mx.example", STANDARD)
    first, *others = reply_to_ehlo(server)
    assert first.split(b" ")[0] == b"250-mx.example"
    assert [line[:4] for line in others] == [b"250-"] * (len(others) - 1) + [b"250 "]
    assert [line[4:].split(b" ")[0].decode() for line in others] == list(server.offered)


@pytest.mark.rfc("5321 §4.1.1.1 ehlo-ok-rsp", "5321 §4.1.1.1 ehlo-line")
def test_a_client_reads_the_reply_to_ehlo_of_one_line_and_of_many() -> None:
    assert offered() == {}
    assert offered(b"SIZE") == {"SIZE": ""}
    assert offered(b"SIZE 1000", b"X-A b c", b"8BITMIME") == {
        "SIZE": "1000",
        "X-A": "b c",
        "8BITMIME": "",
    }


@pytest.mark.rfc("5321 §4.1.1.1 ehlo-greet")
@pytest.mark.parametrize("octet", [o for o in range(128) if o not in (10, 13)])
def test_a_greeting_behind_the_domain_may_be_anything(octet: int) -> None:
    client = ClientConnection(STANDARD)
    client.receive_data(b"220 mx.example\r\n")
    client.next_event()
    client.send(Ehlo("c.example"))
    client.receive_data(b"250-mx.example %c\r\n250 SIZE\r\n" % octet)
    reply = client.next_event()
    assert isinstance(reply, Reply)
    assert reply.lines[0] == b"mx.example %c" % octet
    assert client.offered == {"SIZE": ""}


@pytest.mark.rfc("5321 §4.1.1.1 ehlo-keyword")
def test_a_keyword_is_letters_digits_and_hyphens_and_begins_without_one() -> None:
    for keyword in (b"X", b"8BITMIME", b"A-B", b"A-", b"x" * 60):
        assert offered(keyword + b" y") == {keyword.decode().upper(): "y"}
    for nothing in (b"-X", b"X_Y", b"X=Y", b"X.Y", b" X", b"", b"\xe9", b"X\tY"):
        assert offered(nothing, b"SIZE") == {"SIZE": ""}


@pytest.mark.rfc("5321 §4.1.1.1 ehlo-param")
def test_a_parameter_of_a_keyword_is_printable_and_has_no_space() -> None:
    anything = bytes(range(33, 127))
    assert offered(b"X " + anything) == {"X": anything.decode()}
    for octet in (0x00, 0x09, 0x1F, 0x7F, 0x80):
        assert offered(b"X a%cb" % octet, b"SIZE") == {"SIZE": ""}


@pytest.mark.rfc("5321 §4.1.1.1 ehlo-keyword", "5321 §4.1.1.1 ehlo-param")
def test_what_our_server_announces_is_read_as_what_it_offers() -> None:
    server = ServerConnection("mx.example", STANDARD, offer=STANDARD, tls_available=True)
    lines = [line[4:] for line in reply_to_ehlo(server)[1:]]
    assert offered(*lines) == dict(server.offered)
    assert "STARTTLS" in server.offered


# What the productions mean


@pytest.mark.rfc("5321 §4.1.2 backslash-takes-the-next-octet-literally")
def test_a_backslash_in_quotes_takes_the_next_octet_literally() -> None:
    assert Mailbox.parse(b'"Joe\\,Smith"@b').local_part == b"Joe,Smith"
    assert Mailbox.parse(b'"\\\\"@b').local_part == b"\\"
    assert Mailbox.parse(b'"\\a"@b').local_part == b"a"


@pytest.mark.rfc("5321 §4.1.2 quoted-forms-are-equal", "5321 §4.1.2 least-quoting-is-written")
@pytest.mark.parametrize(
    ("forms", "least"),
    [
        ([b'"jo"', b'"j\\o"', b'"\\j\\o"', b"jo"], b"jo"),
        ([b'"a.b"', b"a.b"], b"a.b"),
        ([b'"a b"', b'"a\\ b"'], b'"a b"'),
        ([b'"a\\"b"'], b'"a\\"b"'),
        ([b'"a."', b'"a\\."'], b'"a."'),
        ([b'""'], b'""'),
    ],
)
def test_all_quoted_forms_are_one_and_the_shortest_is_written(
    forms: list[bytes], least: bytes
) -> None:
    assert len({Mailbox.parse(form + b"@c") for form in forms}) == 1
    for form in forms:
        assert Rcpt(Mailbox.parse(form + b"@c")).serialize() == b"RCPT TO:<%b@c>\r\n" % least


@pytest.mark.rfc("5321 §4.1.2 no-control-or-8-bit-octets-in-addresses")
@pytest.mark.parametrize("octet", [*range(32), 127, 128, 255])
def test_no_control_and_no_8_bit_octet_stands_in_an_address(octet: int) -> None:
    bad = bytes([octet])
    for address in (b"a%bc@d" % bad, b'"a%bc"@d' % bad, b'"a\\%bc"@d' % bad, b"a@d%be" % bad):
        with pytest.raises(LocalProtocolError):
            Rcpt(address)
        for line in (b"MAIL FROM:<%b>" % address, b"RCPT TO:<%b>" % address):
            with pytest.raises(GrammarError):
                parse_command(line, {b"MAIL": Mail, b"RCPT": Rcpt})


@pytest.mark.rfc("5321 §4.1.2 invalid-octets-get-501")
@pytest.mark.parametrize(
    ("before", "line"),
    [
        (b"", b"EHLO a$b"),
        (b"", b"HELO a$b"),
        (HELLO, b"MAIL FROM:<a\x01b@c>"),
        (HELLO, b"MAIL FROM:<a@b$c>"),
        (HELLO, b"MAIL FROM:<> SIZE=1\x7f"),
        (MAIL, b"RCPT TO:<a\xffb@c>"),
        (MAIL, b"RCPT TO:<a@b_c>"),
        (MAIL, b"RCPT TO:<a@b\xff>"),
        (HELLO, b"VRFY a\x01"),
        (HELLO, b"NOOP \xff"),
    ],
)
def test_octets_that_no_rule_has_get_501(before: bytes, line: bytes) -> None:
    command, refusal = pulled(before, line)
    assert command is None
    assert refusal is not None
    assert refusal.code == 501


@pytest.mark.rfc(
    "5321 §4.1.2 labels-are-letters-digits-and-hyphens", "5321 §4.1.2 no-underscore-in-a-label"
)
@pytest.mark.parametrize("octet", "_!#$%&'*+/=?^`{|}~ ,;:()<>@[]\\\"\x7fé")
def test_a_label_has_letters_digits_and_hyphens_and_nothing_else(octet: str) -> None:
    name = f"a{octet}b.example"
    for make in (Ehlo, Helo):
        with pytest.raises(LocalProtocolError):
            make(name)
    with pytest.raises(LocalProtocolError):
        ServerConnection(name)
    if octet != "é":  # RFC 6531 §3.3 lets that in where it is asked for
        with pytest.raises(LocalProtocolError):
            Mail(f"x@{name}")


@pytest.mark.rfc("5321 §4.1.3 literal-in-place-of-a-domain")
def test_a_literal_stands_wherever_a_domain_may() -> None:
    literal = "[192.0.2.1]"
    assert pulled(b"", f"EHLO {literal}".encode()) == (Ehlo(literal), None)
    assert pulled(HELLO, f"MAIL FROM:<a@{literal}>".encode()) == (Mail(f"a@{literal}"), None)
    assert pulled(MAIL, f"RCPT TO:<a@{literal}>".encode()) == (Rcpt(f"a@{literal}"), None)


@pytest.mark.rfc("5321 §4.1.2 mailbox-in-a-value-is-xtext")
def test_a_mailbox_that_is_a_value_is_written_in_xtext() -> None:
    submitter = SUBMITTER(Submitter(Mailbox("e=mc2+x", "b.example")))
    assert Mail("a@b", submitter).serialize() == (b"MAIL FROM:<a@b> AUTH=e+3Dmc2+2Bx@b.example\r\n")
    (value,) = ORCPT(OriginalRecipient.of(Mailbox("a b", "c.example"))).values()
    assert value == b'rfc822;"a+20b"@c.example'
