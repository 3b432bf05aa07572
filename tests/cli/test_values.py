"""What people write, into values."""

from contextlib import suppress
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.cli.values import domain, host_port, is_loopback, listen_address, network, size
from smtpproto.relay.routing.route import HostPort


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("mail.example.org:587", "mail.example.org", 587),
        ("localhost:25", "localhost", 25),
        ("my_host:25", "my_host", 25),
        ("192.0.2.1:25", "192.0.2.1", 25),
        ("[2001:db8::1]:25", "2001:db8::1", 25),
        ("[192.0.2.1]:25", "192.0.2.1", 25),
        ("mail.example.org", "mail.example.org", 99),
        ("[::1]", "::1", 99),
        ("::1", "::1", 99),
    ],
)
def test_a_host_and_a_port_are_read(text: str, host: str, port: int) -> None:
    assert host_port(text, 99) == HostPort(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", ":25", "a:", "a:b", "a:0", "a:65536", "a:-1", "a:2_5", "a: 25", "a:٢٥", "a:25 ",
        "a b:25", "a\n:25", "[::1:25", "::1]:25", "[mail.example.org]:25", "[]:25", "192.0.2:25",
        "192.0.2.256:25", "a:25:25", "[::1]25", "user@host:25", "http://a:25", "ä:25", "*:25",
    ],
)  # fmt: skip
def test_what_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no HOST:PORT|a port is a number"):
        host_port(text, 99)


def test_without_a_default_the_port_has_to_be_given() -> None:
    with pytest.raises(ValueError, match="without a port"):
        host_port("mail.example.org")


@given(
    st.one_of(
        st.ip_addresses().map(str),
        st.from_regex(r"[a-z][a-z0-9]*(\.[a-z][a-z0-9]*)*", fullmatch=True),
    ).filter(lambda host: len(host) < 200),
    st.integers(1, 65535),
)
def test_what_is_written_is_read_back(host: str, port: int) -> None:
    assert host_port(str(HostPort(host, port))) == HostPort(host, port)


@given(st.text())
def test_any_text_is_a_host_and_port_or_a_value_error(text: str) -> None:
    for read in (host_port, listen_address, network, size, domain):
        with suppress(ValueError):
            assert str(read(text)).isprintable()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":25", "", 25),
        ("*:25", "", 25),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::]:25", "::", 25),
        ("[::1]:2525", "::1", 2525),
    ],
)
def test_an_address_to_listen_on(text: str, host: str, port: int) -> None:
    assert listen_address(text) == HostPort(host, port)


@pytest.mark.parametrize("text", ["", ":", "*", "25", "127.0.0.1", "::1", "::", "*:", "**:25"])
def test_an_address_to_listen_on_has_a_port(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|PORT"):
        listen_address(text)


def test_networks() -> None:
    assert network("192.0.2.0/24") == ip_network("192.0.2.0/24")
    assert network("::1") == ip_network("::1/128")
    with pytest.raises(ValueError, match=r'did you mean "192\.0\.2\.0/24"'):
        network("192.0.2.1/24")
    with pytest.raises(ValueError, match="no network"):
        network("example.org")


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0"])
def test_all_the_world_is_no_network_to_relay_for(text: str) -> None:
    with pytest.raises(ValueError, match="open relay"):
        network(text)


@pytest.mark.parametrize(
    ("text", "octets"),
    [("1", 1), ("500K", 512_000), ("25M", 26_214_400), ("1g", 1 << 30), ("2MiB", 2 << 20)],
)
def test_sizes(text: str, octets: int) -> None:
    assert size(text) == octets


@pytest.mark.parametrize("text", ["", "0", "-1", "1_0", "M", "1.5M", "1T", "٣", "1" * 40])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        size(text)


def test_domains_have_one_spelling_and_no_brackets() -> None:
    assert domain("Example.ORG") == "example.org"
    for wrong in ("", "a b", "[192.0.2.1]", "example.org.", "a@b", "ä.example", "-a"):
        with pytest.raises(ValueError, match="domain name"):
            domain(wrong)


def test_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("192.0.2.1", "localhost.example.org", "::", "")))
