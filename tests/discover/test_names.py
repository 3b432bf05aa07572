"""The usual names, and the provider behind an MX record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.client import Tls
from smtpproto.discover import Account
from smtpproto.discover.names import guesses, provider_domains, provider_hosts, usual_hosts

ANN = Account.of("ann@example.org")
LABEL = st.from_regex(r"[a-z]{1,4}", fullmatch=True)


def test_the_usual_hosts() -> None:
    assert usual_hosts(ANN, None) == ["smtp.example.org", "mail.example.org", "example.org"]


def test_ones_own_mail_exchanger_is_one_of_them() -> None:
    assert "mx.example.org" in usual_hosts(ANN, "mx.example.org")
    assert usual_hosts(ANN, "mail.example.org").count("mail.example.org") == 1
    assert "mx.example.net" not in usual_hosts(ANN, "mx.example.net")


@pytest.mark.parametrize(
    ("exchange", "domains"),
    [
        ("mx.hoster.example", ["hoster.example"]),
        ("mx.premium.europe.hoster.com", ["premium.europe.hoster.com", "hoster.com"]),
        ("mx.hoster.co.uk", ["hoster.co.uk"]),
        ("mx.mail.hoster.com.au", ["mail.hoster.com.au", "hoster.com.au"]),
        ("hoster.com", ["hoster.com"]),
        ("hoster.co.uk", ["hoster.co.uk"]),
        ("mx.example.org", []),
        ("example.org", []),
        ("com", []),
        (None, []),
    ],
)
def test_the_provider_behind_a_mail_exchanger(exchange: str | None, domains: list[str]) -> None:
    assert provider_domains(ANN, exchange) == domains


@given(st.lists(LABEL, min_size=1, max_size=6))
def test_a_providers_domain_holds_its_exchanger_and_is_no_top_level_domain(
    labels: list[str],
) -> None:
    exchange = ".".join(labels)
    domains = provider_domains(ANN, exchange)
    assert len(domains) <= 2
    for domain in domains:
        assert f".{exchange}".endswith(f".{domain}")
        assert "." in domain
    assert len(provider_hosts(ANN, exchange)) <= 5


@pytest.mark.rfc("8314 §3.3 both-ways-to-tls")
def test_both_ports_are_tried_and_tls_from_the_first_octet_first() -> None:
    assert guesses(["h"], ()) == [("h", 465, Tls.IMPLICIT), ("h", 587, Tls.REQUIRED)]


@pytest.mark.rfc("6186 §3.4")
def test_what_the_domain_says_it_has_not_is_not_guessed() -> None:
    assert guesses(["h"], {Tls.IMPLICIT}) == [("h", 587, Tls.REQUIRED)]
    assert guesses(["h"], {Tls.IMPLICIT, Tls.REQUIRED}) == []
