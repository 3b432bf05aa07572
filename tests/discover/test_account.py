"""What an address says, and which addresses say nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.core.path import as_domain
from smtpproto.discover import Account, AddressError
from smtpproto.discover.account import host_name


@pytest.mark.rfc("6186 §4")
def test_an_address_is_its_local_part_and_its_domain() -> None:
    account = Account.of("Ann.Example@Mail.Example.ORG")
    assert account == Account("Ann.Example@Mail.Example.ORG", "Ann.Example", "mail.example.org")


def test_quotes_are_not_part_of_the_name() -> None:
    account = Account.of(r'"ann \"a\" example"@example.org')
    assert account.local_part == 'ann "a" example'
    assert account.address == r'"ann \"a\" example"@example.org'


@pytest.mark.rfc("5891 §5")
@pytest.mark.parametrize(
    ("domain", "in_dns"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("ab--cd.example", "ab--cd.example"),
    ],
)
def test_the_domain_is_what_the_dns_has(domain: str, in_dns: str) -> None:
    account = Account.of(f"jö@{domain}")
    assert account.domain == in_dns
    assert account.local_part == "jö"
    assert account.address == f"jö@{domain}"


@pytest.mark.parametrize("literal", ["[192.0.2.1]", "[IPv6:2001:db8::1]", "[tag:content]"])
def test_an_address_literal_has_no_settings(literal: str) -> None:
    with pytest.raises(AddressError, match="no domain to ask for settings"):
        Account.of(f"ann@{literal}")


@pytest.mark.parametrize(
    "domain",
    ["192.0.2.1", "example.1", "0x7f.0x1", "ex\u2028ample.org", "\u200d.example", "é_a.example"],
)
def test_a_domain_that_no_dns_could_know(domain: str) -> None:
    with pytest.raises(AddressError):
        Account.of(f"ann@{domain}")


@pytest.mark.parametrize(
    "text",
    [
        *("", "ann", "@example.org", "ann@", "ann@@example.org", "a b@example.org"),
        *("Ann <a@example.org>", "ann@example.org\r\nRCPT TO:<x@y>", "ann@example..org"),
        *("a" * 300 + "@example.org", "ann@exa\x00mple.org", "ann@-example.org"),
    ],
)
def test_no_address(text: str) -> None:
    with pytest.raises(AddressError, match="not a mail address"):
        Account.of(text)


@given(st.text() | st.from_regex(r"[a-zé\"@.\[\]\\ ]+", fullmatch=True))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    try:
        account = Account.of(text)
    except AddressError:
        return
    assert account.domain == host_name(account.domain)
    as_domain(account.domain)


@given(st.text())
def test_a_host_name_is_one_or_an_error(text: str) -> None:
    try:
        name = host_name(text)
    except ValueError:
        return
    assert name.isascii()
    assert host_name(name) == name
    assert not name.replace(".", "").isdigit()


@pytest.mark.rfc("6186 §6")
@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("example.org", True),
        ("mail.example.org", True),
        ("a.b.example.org", True),
        ("badexample.org", False),
        ("example.org.evil.example", False),
        ("org", False),
    ],
)
def test_what_is_in_the_domain(host: str, inside: bool) -> None:
    assert Account.of("ann@example.org").covers(host) is inside
