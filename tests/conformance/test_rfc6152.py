"""RFC 6152: content with octets over 127."""

import pytest

from smtpproto import STANDARD, Content, Data, EndOfContent, LocalProtocolError, Mail, Rcpt
from smtpproto.extensions import EIGHTBITMIME
from smtpproto.extensions.eightbitmime import BODY
from tests.conformance.ends import HELLO, RCPT, agreed, client_after, pulled, say, server_after

OFFERED = b"250-mx.example\r\n250 8BITMIME\r\n"
ALL = bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"")


@pytest.mark.rfc("6152 §2 keyword-is-8bitmime")
def test_it_is_announced_by_its_keyword_alone() -> None:
    ehlo = say(server_after(extensions=(EIGHTBITMIME,)), b"EHLO c.example\r\n")
    assert ehlo.endswith(b"\r\n250 8BITMIME\r\n")
    assert EIGHTBITMIME.verbs == ()


@pytest.mark.rfc(
    "6152 §2 body-is-a-parameter-of-mail",
    "6152 §2 body-value",
    "6152 §3 body-stands-behind-the-address",
)
@pytest.mark.parametrize("value", ["7BIT", "8BITMIME"])
def test_body_is_a_parameter_of_mail(value: str) -> None:
    mail = Mail("a@b", BODY(value))
    wire = client_after(OFFERED).send(mail)
    assert wire == f"MAIL FROM:<a@b> BODY={value}\r\n".encode()
    assert pulled(HELLO, wire[:-2]) == (mail, None)
    assert pulled(HELLO, wire[:-2].lower())[1] is None


@pytest.mark.rfc("6152 §2 body-value")
@pytest.mark.parametrize("value", [b"=", b"", b"=8BIT", b"=7BITS", b"=BINARY", b"=8BITMIME,7BIT"])
def test_no_other_value(value: bytes) -> None:
    _, refusal = pulled(HELLO, b"MAIL FROM:<a@b> BODY" + value)
    assert refusal is not None
    assert refusal.code == 501
    with pytest.raises(LocalProtocolError):
        BODY("8BIT")


@pytest.mark.rfc("6152 §3 offer-is-in-a-250-to-ehlo")
@pytest.mark.parametrize("said", [b"250 mx\r\n", b"250-mx\r\n250 SIZE\r\n", b"250 8BITMIME\r\n"])
def test_where_the_keyword_is_not_offered_there_is_no_body(said: bytes) -> None:
    """The first line of the reply is a greeting, whatever it says."""
    with pytest.raises(LocalProtocolError):
        client_after(said).send(Mail("a@b", BODY("8BITMIME")))
    refused = say(server_after(HELLO), b"MAIL FROM:<a@b> BODY=8BITMIME\r\n")
    assert refused.startswith(b"555")


@pytest.mark.rfc("6152 §3 one-body-parameter")
def test_one_body_at_most() -> None:
    _, refusal = pulled(HELLO, b"MAIL FROM:<a@b> BODY=7BIT body=8BITMIME")
    assert refusal is not None
    assert refusal.code == 501
    wire = client_after(OFFERED).send(Mail("a@b", BODY("7BIT") | BODY("8BITMIME")))
    assert wire == b"MAIL FROM:<a@b> BODY=8BITMIME\r\n"


@pytest.mark.rfc(
    "6152 §3 all-eight-bits-are-kept",
    "6152 §3 dots-are-stuffed-as-ever",
    "6152 §3 last-crlf-is-content",
)
@pytest.mark.parametrize("text", [ALL, b".", b"." + ALL, ALL + b"\r\n.\r\n..\xff", b"\r\n.\xe9"])
def test_content_comes_out_as_it_went_in(text: bytes) -> None:
    client, server = client_after(OFFERED), server_after(RCPT, STANDARD)
    agreed(client, Mail("a@b", BODY("8BITMIME")), Rcpt("c@d"), Data())
    wire = client.send(Content(text + b"\r\n")) + client.send(EndOfContent())
    assert wire.endswith(b"\r\n.\r\n")
    say(server, b"DATA\r\n")
    server.receive_data(wire)
    received = b""
    while isinstance(event := server.next_event(), Content):
        received += event.data
    assert event == EndOfContent(len(text) + 2)
    assert received == text + b"\r\n"


@pytest.mark.rfc("6152 §3 binary-is-another-extension")
def test_binary_is_another_extension() -> None:
    server = server_after(HELLO, (EIGHTBITMIME,))
    assert say(server, b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n").startswith(b"501")
    with pytest.raises(LocalProtocolError):
        client_after(OFFERED).send(Mail("a@b", BODY("BINARYMIME")))
