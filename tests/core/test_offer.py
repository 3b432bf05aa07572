"""What is offered is made once for connections that stand alike, and for none that do not."""

from __future__ import annotations

import gc
import weakref

import pytest
from attrs import evolve

from smtpproto import (
    STANDARD,
    Command,
    Extension,
    GrammarError,
    Limits,
    Mail,
    Reply,
    ServerConnection,
    TlsInfo,
)
from smtpproto.core.extension import Standing
from smtpproto.core.offer import UNKNOWN_PARAMETER, offer_for, verbs_of
from smtpproto.core.refusal import refusal_for
from smtpproto.extensions import HELP
from smtpproto.extensions.eightbitmime import BODY
from smtpproto.mechanisms import PLAIN

IN_CLEAR = Standing(tls=False, tls_available=True, mechanisms=(), max_octets=10, max_recipients=1)


def announcing(text: str) -> Extension:
    return Extension("XYZ", rfc=0, announce=lambda standing: text)


def test_those_that_stand_alike_share_one() -> None:
    assert offer_for(STANDARD, IN_CLEAR) is offer_for(tuple(STANDARD), evolve(IN_CLEAR))


@pytest.mark.parametrize(
    "other",
    [
        evolve(IN_CLEAR, tls=True),
        evolve(IN_CLEAR, tls_available=False),
        evolve(IN_CLEAR, mechanisms=("PLAIN",)),
        evolve(IN_CLEAR, max_octets=None),
    ],
)
def test_another_standing_is_another_offer(other: Standing) -> None:
    one, two = offer_for(STANDARD, IN_CLEAR), offer_for(STANDARD, other)
    assert one.lines != two.lines


def test_extensions_alike_but_for_a_function_differ() -> None:
    for text in ("1", "2", "3"):
        assert offer_for((announcing(text),), IN_CLEAR).lines == {"XYZ": text}
    one = ServerConnection("h", [announcing("a")])
    other = ServerConnection("h", [announcing("b")])
    assert (one.offered, other.offered) == ({"XYZ": "a"}, {"XYZ": "b"})


def test_nobody_writes_in_what_is_shared() -> None:
    server = ServerConnection("h", STANDARD)
    with pytest.raises(TypeError):
        server.offered["XYZ"] = ""  # type: ignore[index]  # the point
    assert "XYZ" not in ServerConnection("h", STANDARD).offered


def test_a_connection_is_not_kept_by_what_it_offers() -> None:
    server = ServerConnection("h", STANDARD, mechanisms=(PLAIN,))
    gone = weakref.ref(server)
    del server
    gc.collect()
    assert gone() is None


def test_offers_are_kept_for_a_while_only() -> None:
    size = offer_for.cache_info().maxsize
    assert size is not None
    for octets in range(1, 2 * size):
        ServerConnection("h", STANDARD, limits=Limits(message=octets))
    assert offer_for.cache_info().currsize <= size


def test_what_is_offered_follows_the_session() -> None:
    server = ServerConnection("h", STANDARD, tls_available=True, mechanisms=(PLAIN,))
    assert "STARTTLS" in server.offered
    assert "AUTH" not in server.offered
    server.tls_started(TlsInfo())
    assert "STARTTLS" not in server.offered
    assert server.offered["AUTH"] == "PLAIN"


@pytest.mark.parametrize("before", [{}, {"XYZ": 1}])
@pytest.mark.parametrize("behind", [{}, {"XYZ2": 1}])
def test_a_malformed_value_is_told_before_an_unknown_parameter(
    before: dict[str, int], behind: dict[str, int]
) -> None:
    """Policy may let an unknown parameter pass; a malformed value, never."""
    offer = offer_for(STANDARD, IN_CLEAR)
    with pytest.raises(GrammarError) as caught:
        BODY.read(b"9BIT")
    wrong = Mail("a@b", {**before, "BODY": "9BIT", **behind})
    assert offer.objection(wrong, extended=True) == refusal_for(caught.value)
    assert offer.objection(Mail("a@b", {"XYZ": 1}), extended=True) is UNKNOWN_PARAMETER


class Curt(Command):
    """A verb whose line is shorter than that of others."""

    verb = b"XCURT"
    max_line = 10
    suggested = Reply(250, None, "yes")

    @classmethod
    def parse(cls, argument: bytes) -> Curt:
        return cls()


def test_a_verb_may_have_a_shorter_line_than_others() -> None:
    """An extension says what its lines may have (RFC 5321 §4.5.3.1.4), and nobody else's."""
    server = ServerConnection("h", [Extension("XCURT", verbs=[Curt])])
    server.send(server.suggested_reply())

    def ask(line: bytes) -> int:
        server.receive_data(line + b"\r\n")
        server.next_event()
        reply = server.suggested_reply()
        server.send(reply)
        return reply.code

    assert ask(b"EHLO c") == 250
    assert [ask(b"XCURT 78"), ask(b"XCURT 789"), ask(b"NOOP 0123456789")] == [250, 500, 250]


def test_what_is_known_goes_by_the_extensions_and_the_protocol() -> None:
    with_it, without = verbs_of((announcing("a"), HELP), lmtp=False), verbs_of((), lmtp=False)
    assert with_it.keys() - without.keys() == {b"HELP"}
    assert {b"EHLO", b"HELO"} <= without.keys()
    assert b"LHLO" not in without
    assert verbs_of((), lmtp=True).keys() == without.keys() - {b"EHLO", b"HELO"} | {b"LHLO"}


def test_two_servers_that_are_alike_say_who_they_are() -> None:
    """What is remembered for many connections is each server's, and each client's."""

    def said(hostname: str, client: bytes, *, lmtp: bool = False) -> list[bytes]:
        server = ServerConnection(hostname, STANDARD, lmtp=lmtp)
        told = [server.send(server.suggested_reply())]
        for line in (b"%b %b\r\n" % (b"LHLO" if lmtp else b"EHLO", client), b"QUIT\r\n"):
            server.receive_data(line)
            server.next_event()
            told.append(server.send(server.suggested_reply()).split(b"\r\n")[0])
        return told

    for _ in range(2):
        for host in (b"one.example", b"two.example"):
            for client in (b"a.example", b"b.example"):
                assert said(host.decode(), client) == [
                    b"220 %b ESMTP\r\n" % host,
                    b"250-%b greets %b" % (host, client),
                    b"221 2.0.0 %b Closing connection" % host,
                ]
            assert said(host.decode(), b"c", lmtp=True)[0] == b"220 %b LMTP\r\n" % host
