"""The file that mail programs read: what is understood, and what is not trusted."""

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.client import Tls
from smtpproto.discover import Account
from smtpproto.discover.account import host_name
from smtpproto.discover.autoconfig import (
    ConfigError,
    Outgoing,
    fill,
    own_urls,
    provider_url,
    read_config,
)

from .world import OWN_FILE, WELL_KNOWN, config, server

ANN = Account.of("ann@example.org")


def read(octets: bytes, most: int = 10) -> list[Outgoing]:
    return read_config(octets, ANN, most=most)


def test_the_servers_in_their_order() -> None:
    octets = config(
        server("smtp.example.org", 587, "STARTTLS", "%EMAILLOCALPART%"),
        server("MAIL.example.net", 465),
        server("old.example.org", 25, "plain", ""),
    )
    assert read(octets) == [
        Outgoing("smtp.example.org", 587, Tls.REQUIRED, "ann", ("password-cleartext",)),
        Outgoing("mail.example.net", 465, Tls.IMPLICIT, "ann@example.org", ("password-cleartext",)),
        Outgoing("old.example.org", 25, Tls.NONE, "", ("password-cleartext",)),
    ]


def test_other_servers_are_none_of_ours() -> None:
    other = config().replace(b"incomingServer type", b'outgoingServer type="jmap" x')
    assert read(other.replace(b"incomingServer", b"outgoingServer")) == []


@pytest.mark.parametrize(
    "wrong",
    [
        server(port=0),
        server(port=65_536),
        server(port="4650000"),
        server(port="٤٦٥"),
        server(port="-1"),
        server(port=""),
        server(socket_type="ssl"),
        server(socket_type="TLS"),
        server(host=""),
        server(host="a b"),
        server(host="192.0.2.1"),
        server(host="evil.example&#10;x"),
        server(host="a" * 300),
        "",
    ],
)
def test_what_cannot_be_understood_is_left_out(wrong: str) -> None:
    assert [each.host for each in read(config(wrong, server()))] == ["mail.example.org"]


def test_no_more_than_asked_for() -> None:
    servers = [server(f"h{number}.example.org") for number in range(20)]
    assert [each.host for each in read(config(*servers), most=2)] == [
        "h0.example.org",
        "h1.example.org",
    ]


def test_several_ways_to_log_in() -> None:
    several = server(authentication="OAuth2</authentication><authentication>password-cleartext")
    assert read(config(several))[0].authentication == ("OAuth2", "password-cleartext")


# Placeholders


def test_placeholders_are_filled_in() -> None:
    text = "%EMAILADDRESS% %EMAILLOCALPART% %EMAILDOMAIN% x%EMAILLOCALPART%y %EMAIL% 100%"
    assert fill(text, ANN) == "ann@example.org ann example.org xanny %EMAIL% 100%"


def test_a_host_may_have_them_too() -> None:
    assert read(config(server("mail.%EMAILDOMAIN%")))[0].host == "mail.example.org"


def test_what_is_put_in_is_not_looked_at_again() -> None:
    account = Account.of("%EMAILDOMAIN%@example.org")
    assert fill("%EMAILLOCALPART%", account) == "%EMAILDOMAIN%"


@given(st.text())
def test_text_without_placeholders_stays(text: str) -> None:
    if "%EMAIL" not in text:
        assert fill(text, ANN) == text


# Hostile files


def test_a_document_type_is_refused_and_so_no_entity_grows() -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))
    octets = config(server("&l8;")).replace(
        b"<clientConfig", f'<!DOCTYPE c [<!ENTITY l0 "ha">{laughs}]><clientConfig'.encode(), 1
    )
    with pytest.raises(ConfigError, match="document type"):
        read(octets)


def test_nor_does_one_name_a_file_here() -> None:
    octets = config(server("&x;")).replace(
        b"<clientConfig", b'<!DOCTYPE c SYSTEM "file:///etc/passwd"><clientConfig', 1
    )
    with pytest.raises(ConfigError, match="document type"):
        read(octets)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-7"])
def test_nor_is_one_hidden_by_an_encoding(encoding: str) -> None:
    text = config(server("&x;")).decode().replace("UTF-8", encoding)
    hidden = text.replace("<clientConfig", '<!DOCTYPE c [<!ENTITY x "y">]><clientConfig', 1)
    with pytest.raises(ConfigError):
        read(hidden.encode(encoding))


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"<html><body>Not found</body></html>",
        b"<!doctype html><html></html>",
        b"<clientConfig>",
        b"\xff\xfe\x00",
        b"{}",
        b"<clientConfig/><clientConfig/>",
        b"<a>" * 20_000,
        b"<clientConfig>&undefined;</clientConfig>",
    ],
)
def test_what_is_no_such_file(octets: bytes) -> None:
    with pytest.raises(ConfigError):
        read(octets)


def test_a_file_as_deep_as_it_is_long() -> None:
    assert read(b"<clientConfig>" + b"<a>" * 9000 + b"</a>" * 9000 + b"</clientConfig>") == []


PIECES = st.sampled_from(
    [
        *("<clientConfig>", "</clientConfig>", "<emailProvider>", "</emailProvider>", "<hostname>"),
        *("</hostname>", '<outgoingServer type="smtp">', "</outgoingServer>", "&amp;", "&#0;"),
        *("mail.%EMAILDOMAIN%", "<port>465</port>", "<socketType>SSL</socketType>", "<![CDATA["),
        *("]]>", "<!--", "-->", "<?x ?>", "<!DOCTYPE", "é", "\ufeff", "<username>%EMAIL", "&x;"),
        "</username>",
    ]
)


@given(st.binary() | st.lists(PIECES, max_size=30).map(lambda pieces: "".join(pieces).encode()))
def test_any_file_is_read_or_refused(octets: bytes) -> None:
    try:
        found = read(octets)
    except ConfigError:
        return
    for each in found:
        assert each.host == host_name(each.host)
        assert 0 < each.port < 65_536
        assert each.username.isprintable()


@given(st.text(max_size=300))
def test_a_username_fits_one_line(text: str) -> None:
    escaped = "".join(f"&#{ord(c)};" for c in text if c.isprintable() or c in "\t\n\x85\u2028")
    (found,) = read(config(server(username=escaped)))
    assert found.username.isprintable()
    assert len(found.username) <= 300


# Where it is


def test_where_a_domain_publishes_it() -> None:
    assert own_urls(ANN) == (OWN_FILE, WELL_KNOWN)
    assert provider_url("hoster.example", ANN) == (
        "https://autoconfig.hoster.example/mail/config-v1.1.xml?emailaddress=ann@example.org"
    )


@given(
    st.from_regex(r'"[ !#-\[\]-~]{0,20}"|[a-zA-Z0-9!#$%&\'*+/=?^_`{|}~é-]{1,20}', fullmatch=True)
)
def test_no_local_part_gets_out_of_its_parameter(local_part: str) -> None:
    account = Account.of(f"{local_part}@example.org")
    url = urlsplit(own_urls(account)[0])
    assert url.scheme == "https"
    assert url.netloc == "autoconfig.example.org"
    assert url.path == "/mail/config-v1.1.xml"
    assert url.fragment == ""
    assert parse_qs(url.query, strict_parsing=True) == {"emailaddress": [account.address]}
