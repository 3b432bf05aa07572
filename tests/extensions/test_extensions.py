"""The registry: what each extension in STANDARD declares, held for all of them at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import STANDARD, Extension, GrammarError, Reply, ServerConnection
from smtpproto.core.extension import Standing
from smtpproto.core.grammar import EHLO_LINE
from smtpproto.core.parameter import Parameters
from smtpproto.extensions.eightbitmime import BODY
from smtpproto.extensions.size import SIZE_OCTETS
from smtpproto.mechanisms import PLAIN
from smtpproto.testing.pair import answer
from tests.core.decisions import BASIC

STANDINGS = [
    Standing(
        tls=tls,
        tls_available=available,
        mechanisms=mechanisms,
        max_octets=octets,
        max_recipients=recipients,
    )
    for tls in (False, True)
    for available in (False, True)
    for mechanisms in ((), ("PLAIN", "LOGIN"))
    for octets in (None, 1000)
    for recipients in (100, 10**7)
]


def test_keywords_are_unique_and_upper_case() -> None:
    keywords = [e.keyword for e in STANDARD]
    assert len(set(keywords)) == len(keywords)
    assert all(keyword == keyword.upper() for keyword in keywords)
    # BODY is of two extensions, and one parameter.
    parameters = {id(p): p.keyword for e in STANDARD for p in e.mail + e.rcpt}
    assert len(set(parameters.values())) == len(parameters)


@pytest.mark.parametrize("extension", STANDARD, ids=lambda e: e.keyword)
def test_what_is_announced_is_an_ehlo_line(extension: Extension) -> None:
    for standing in STANDINGS:
        argument = extension.announce(standing)
        if argument is not None:
            assert EHLO_LINE.fullmatch(f"{extension.keyword} {argument}".rstrip().encode())


@pytest.mark.rfc("3207 §3 keyword-means-now", "3207 §4.2 server-starts-tls-once")
def test_starttls_is_announced_where_it_works_and_is_not_on() -> None:
    for standing in STANDINGS:
        announced = _named("STARTTLS").announce(standing) is not None
        assert announced is (standing.tls_available and not standing.tls)


@pytest.mark.rfc("4954 §3 mechanisms-are-listed")
def test_auth_is_announced_with_its_mechanisms_or_not_at_all() -> None:
    for standing in STANDINGS:
        assert _named("AUTH").announce(standing) == (" ".join(standing.mechanisms) or None)


@pytest.mark.rfc("1870 §3 0-says-no-limit", "1870 §7 bare-keyword-wants-a-look-at-the-room")
def test_size_0_says_that_there_is_no_limit() -> None:
    for standing in STANDINGS:
        assert _named("SIZE").announce(standing) == str(standing.max_octets or 0)


def _named(keyword: str) -> Extension:
    return next(e for e in STANDARD if e.keyword == keyword)


@given(st.integers(0, 10**20 - 1))
def test_size_round_trip(size: int) -> None:
    assert SIZE_OCTETS.of(Parameters(SIZE_OCTETS(size))) == size


@pytest.mark.parametrize("body", ["7BIT", "8BITMIME"])
def test_body_round_trip(body: str) -> None:
    assert BODY.of(Parameters(BODY(body))) == body
    assert BODY.of(Parameters({"BODY": body.lower()})) == body


@given(st.one_of(st.none(), st.binary(max_size=25)))
def test_readers_raise_grammar_error_alone(value: bytes | None) -> None:
    for extension in STANDARD:
        for parameter in extension.mail + extension.rcpt:
            try:
                parameter.read(value)
            except GrammarError as error:
                Reply(error.code, error.status, str(error))


@pytest.mark.parametrize("extension", STANDARD, ids=lambda e: e.keyword)
def test_each_stands_alone(extension: Extension) -> None:
    server = ServerConnection(
        "mx.example", (extension,), mechanisms=(PLAIN,), plaintext_auth=True, tls_available=True
    )
    answer(server)
    server.receive_data(b"EHLO c.example\r\n")
    _, said = answer(server)
    seen = [line[4:].split(b" ")[0].decode() for line in said.split(b"\r\n")[1:-1]]
    # Known is not promised: what obliges the caller, or needs another, is not offered unasked.
    assert seen == list(server.offered)
    assert not (seen and (extension.obliges or extension.needs))
    if extension in BASIC:
        assert seen == [extension.keyword]
