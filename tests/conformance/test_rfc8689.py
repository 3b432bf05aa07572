"""RFC 8689: mail that goes under TLS or not at all, said by the client and read by the server."""

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Ehlo,
    Extension,
    Lhlo,
    LocalProtocolError,
    Mail,
    Reply,
    ServerConnection,
    StartTls,
    TlsInfo,
)
from smtpproto.extensions import ENHANCEDSTATUSCODES, STARTTLS
from smtpproto.extensions.requiretls import REQUIRE_TLS, REQUIRETLS
from smtpproto.testing import Pair
from tests.conformance.ends import client_after, hear, say

DEMAND = REQUIRE_TLS(True)
VERIFIED = TlsInfo(verified=True)


def under_tls(*offer: Extension, lmtp: bool = False) -> Pair:
    """Both ends behind EHLO, under TLS from the first octet."""
    server = ServerConnection("mx.example", STANDARD, offer=offer, lmtp=lmtp)
    client = ClientConnection(STANDARD, lmtp=lmtp)
    server.tls_started()
    client.tls_started(VERIFIED)
    pair = Pair(server, client)
    pair.send(Lhlo("c.example") if lmtp else Ehlo("c.example"))
    return pair


@pytest.mark.rfc("8689 §2 keyword-is-requiretls")
def test_it_is_announced_by_its_keyword_alone() -> None:
    assert under_tls(REQUIRETLS).to_client.endswith(b"\r\n250 REQUIRETLS\r\n")
    assert REQUIRETLS.verbs == ()


@pytest.mark.rfc(
    "8689 §2 parameter-of-mail-without-value",
    "8689 §2 requiretls-param",
    "8689 §4.1 caller-gets-the-demand-to-see",
    "8689 §4.2.1 parameter-is-passed-on",
    "8689 §4.3 demand-is-made-by-the-parameter",
)
@pytest.mark.parametrize(
    ("reverse_path", "lmtp"),
    [
        ("a@b", False),
        pytest.param("a@b", True, marks=pytest.mark.rfc("8689 §2 valid-in-lmtp-and-submission")),
        pytest.param("", False, marks=pytest.mark.rfc("8689 §5 report-has-the-null-reverse-path")),
    ],
)
def test_what_the_client_demands_the_server_reads(reverse_path: str, lmtp: bool) -> None:
    pair = under_tls(REQUIRETLS, lmtp=lmtp)
    (reply,) = pair.send(Mail(reverse_path or None, DEMAND))
    assert isinstance(reply, Reply)
    assert reply.code == 250
    assert pair.to_server.endswith(b"MAIL FROM:<%b> REQUIRETLS\r\n" % reverse_path.encode())
    mail = pair.server_events[-1]
    assert isinstance(mail, Mail)
    assert REQUIRE_TLS.of(mail.parameters) is True


@pytest.mark.rfc("8689 §4.1 caller-gets-the-demand-to-see")
def test_without_the_parameter_nothing_is_demanded() -> None:
    pair = under_tls(REQUIRETLS)
    pair.send(Mail("a@b"))
    mail = pair.server_events[-1]
    assert isinstance(mail, Mail)
    assert REQUIRE_TLS.of(mail.parameters) is None


@pytest.mark.rfc("8689 §2 requiretls-param")
@pytest.mark.parametrize("wire", [b"REQUIRETLS", b"requiretls", b"RequireTLS"])
def test_the_case_of_its_letters_does_not_matter(wire: bytes) -> None:
    assert say(under_tls(REQUIRETLS).server, b"MAIL FROM:<a@b> " + wire + b"\r\n")[:3] == b"250"


@pytest.mark.rfc("8689 §2 parameter-of-mail-without-value", "8689 §2 requiretls-param")
@pytest.mark.parametrize("value", ["YES", "1", "NO"])
def test_it_has_no_value(value: str) -> None:
    pair = under_tls(REQUIRETLS)
    with pytest.raises(LocalProtocolError):
        pair.client.send(Mail("a@b", {"REQUIRETLS": value}))
    said = say(pair.server, b"MAIL FROM:<a@b> REQUIRETLS=%b\r\n" % value.encode())
    assert said.startswith(b"501")


@pytest.mark.rfc("8689 §2 mail-may-be-11-octets-longer")
def test_the_line_of_mail_may_be_11_octets_longer() -> None:
    server = under_tls(REQUIRETLS).server
    longest = b"MAIL FROM:<a@b> REQUIRETLS".ljust(512 + 11 - 2)
    server.receive_data(longest + b" \r\n")
    event = server.next_event()
    assert isinstance(event, BadCommand)
    assert event.reply.code == 500
    server.send(event.reply)
    assert say(server, longest + b"\r\n").startswith(b"250")


@pytest.mark.rfc("8689 §2 server-takes-it-under-tls-alone", "8689 §2 offered-behind-starttls")
def test_a_server_takes_it_behind_starttls_and_not_before() -> None:
    server = ServerConnection(
        "mx.example", STANDARD, offer=(STARTTLS, REQUIRETLS), tls_available=True
    )
    pair = Pair(server, ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    assert "REQUIRETLS" not in pair.client.offered
    assert say(server, b"MAIL FROM:<a@b> REQUIRETLS\r\n").startswith(b"555")
    pair.send(StartTls())
    pair.start_tls()
    pair.send(Ehlo("c.example"))
    assert "REQUIRETLS" in pair.client.offered
    assert say(server, b"MAIL FROM:<a@b> REQUIRETLS\r\n").startswith(b"250")


@pytest.mark.rfc(
    "8689 §2 offered-behind-starttls",
    "8689 §4.2.1 offer-behind-tls-counts",
    "8689 §4.3 demand-is-made-by-the-parameter",
)
@pytest.mark.parametrize("behind", [True, False])
def test_a_client_goes_by_what_is_offered_behind_starttls(behind: bool) -> None:
    before, after = b"250-mx.example\r\n250-STARTTLS\r\n", b"250-mx.example\r\n"
    client = client_after(before + (b"250 HELP\r\n" if behind else b"250 REQUIRETLS\r\n"))
    client.send(StartTls())
    hear(client, b"220 go\r\n")
    client.tls_started(VERIFIED)
    client.send(Ehlo("c.example"))
    hear(client, after + (b"250 REQUIRETLS\r\n" if behind else b"250 HELP\r\n"))
    if behind:
        assert client.send(Mail("a@b", DEMAND)) == b"MAIL FROM:<a@b> REQUIRETLS\r\n"
    else:
        with pytest.raises(LocalProtocolError, match="REQUIRETLS"):
            client.send(Mail("a@b", DEMAND))


@pytest.mark.rfc("8689 §2 status-is-x-7-30")
def test_a_server_may_say_that_the_next_one_does_not_offer_it() -> None:
    pair = under_tls(REQUIRETLS, ENHANCEDSTATUSCODES)
    said = Reply(550, "5.7.30", "The next one does not")
    pair.policy = lambda *_: said
    assert pair.send(Mail("a@b", DEMAND)) == [said]
    assert said.status is not None
    assert said.status.registered is not None
    assert said.status.registered.rfc == 8689


@pytest.mark.rfc("8689 §2 client-asks-under-tls-alone")
def test_a_client_asks_under_tls_alone() -> None:
    """Whatever the server offers in clear."""
    client = client_after(b"250-mx.example\r\n250 REQUIRETLS\r\n")
    with pytest.raises(LocalProtocolError):
        client.send(Mail("a@b", DEMAND))


@pytest.mark.rfc("8689 §2 not-behind-an-unverified-certificate")
@pytest.mark.parametrize("info", [None, TlsInfo("TLSv1.3", "any", b"somebody's")])
def test_a_client_asks_of_nobody_whose_certificate_was_not_verified(info: TlsInfo | None) -> None:
    pair = under_tls(REQUIRETLS)
    stranger = ClientConnection(STANDARD)
    stranger.tls_started(info)
    for client, right in ((pair.client, True), (stranger, False)):
        if not right:
            hear(client, b"220 mx\r\n")
            client.send(Ehlo("c.example"))
            hear(client, b"250-mx.example\r\n250 REQUIRETLS\r\n")
            with pytest.raises(LocalProtocolError, match="verified"):
                client.send(Mail("a@b", DEMAND))
        assert client.send(Mail("a@b", DEMAND if right else {})).startswith(b"MAIL FROM:<a@b>")
