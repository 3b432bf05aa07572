"""XFORWARD's attributes add up, and are dropped with the transaction they were said for.

Source: Postfix's XFORWARD_README, "XFORWARD Server operation".
"""

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Command,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    LocalProtocolError,
    Mail,
    Rcpt,
    Reply,
    Rset,
    ServerConnection,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions.attributes import UNAVAILABLE, AttributeCommand
from smtpproto.extensions.xclient import XCLIENT, XClient
from smtpproto.extensions.xforward import XFORWARD, XForward
from smtpproto.testing import Pair, octet_by_octet, suggested
from smtpproto.testing.pair import answer

FIRST = XForward({"NAME": "spike.example", "ADDR": "192.0.2.1"})
MORE = XForward({"HELO": "spike.example", "NAME": UNAVAILABLE})
BOTH = XForward({"NAME": UNAVAILABLE, "ADDR": "192.0.2.1", "HELO": "spike.example"})


def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
    if isinstance(event, XForward):
        refused = "IDENT" in event.attributes
        return Reply(550, "5.7.0", "No") if refused else Reply(250, "2.0.0", "Ok")
    if isinstance(event, XClient):
        return Reply(220)
    if isinstance(event, Mail) and event.reverse_path.mailbox is None:
        return Reply(450, "4.7.1", "Later")
    return suggested(server, event)


def joined(*commands: Command) -> Pair:
    offer = [e for e in STANDARD if not e.obliges or e in (XFORWARD, XCLIENT)]
    server = ServerConnection("mx.example", STANDARD, offer=offer)
    pair = Pair(server, ClientConnection(STANDARD), policy=policy, cut=octet_by_octet)
    for command in (Ehlo("c.example"), *commands):
        pair.send(command)
    return pair


def said(pair: Pair) -> XForward | None:
    return pair.server.preamble(XForward)


def test_nothing_was_said() -> None:
    assert said(joined()) is None


def test_attributes_add_up() -> None:
    pair = joined(FIRST, MORE)
    assert said(pair) == BOTH
    assert XForward.parse(BOTH.argument()) == BOTH
    again = XForward({"name": "other.example"})
    pair.send(again)
    now = said(pair)
    assert now is not None
    assert now.attributes == {**BOTH.attributes, **again.attributes}


@pytest.mark.parametrize("first", [(FIRST,), (FIRST, Mail(None))], ids=["", "a refused MAIL"])
def test_they_hold_in_the_transaction_that_follows(first: tuple[Command, ...]) -> None:
    pair = joined(*first, Mail("a@b"))
    assert said(pair) == FIRST
    pair.send(Rcpt("c@d"))
    pair.send(Data())
    assert said(pair) == FIRST
    pair.send(Content(b"hi\r\n"), EndOfContent())
    assert said(pair) is None
    pair.send(Mail("a@b"))
    assert said(pair) is None


@pytest.mark.parametrize(
    "last",
    [Rset(), Ehlo("c.example"), XClient({"NAME": "a"})],
    ids=["RSET", "EHLO", "XCLIENT"],
)
def test_what_else_drops_them(last: Command) -> None:
    pair = joined(FIRST, last)
    assert said(pair) is None


def fed(*octets: bytes) -> tuple[ServerConnection, list[ServerEvent], bytes]:
    """Feed a server that offers all; return it, what it pulled last, and what it said last."""
    server = ServerConnection("mx.example", STANDARD, offer=STANDARD, tls_available=True)
    events, wire = answer(server, policy)
    for some in (b"EHLO c.example\r\n", *octets):
        server.receive_data(some)
        events, wire = answer(server, policy)
    return server, events, wire


def test_the_last_chunk_drops_them_good_or_bad() -> None:
    begun = FIRST.serialize() + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\na\r\n"
    for chunk, said in ((b"", b"250 2.0.0 Chunk received\r\n"), (b"BDAT 1\r\n\n", b"554 5.6.0 ")):
        server, _, wire = fed(begun, chunk) if chunk else fed(begun)
        assert said in wire
        assert server.preamble(XForward) == FIRST
        server, *_ = (
            fed(begun, chunk, b"BDAT 1 LAST\r\nx") if chunk else fed(begun, b"BDAT 0 LAST\r\n")
        )
        assert server.preamble(XForward) is None


def test_a_refused_one_says_nothing() -> None:
    pair = joined(FIRST, XForward({"IDENT": "x", "ADDR": "192.0.2.2"}))
    assert said(pair) == FIRST


def test_not_within_a_transaction() -> None:
    pair = joined(Mail("a@b"))
    with pytest.raises(LocalProtocolError, match="out of sequence"):
        pair.send(FIRST)
    server, events, _ = fed(b"MAIL FROM:<a@b>\r\n", FIRST.serialize())
    (bad,) = events
    assert isinstance(bad, BadCommand)
    assert bad.reply.code == 503
    assert server.preamble(XForward) is None


def test_starttls_drops_them() -> None:
    server, *_ = fed(FIRST.serialize(), b"STARTTLS\r\n")
    server.tls_started()
    assert server.preamble(XForward) is None


def test_a_client_that_says_it_for_ever_costs_no_memory() -> None:
    pair = joined(*[XForward({name: "1"}) for name in ("NAME", "ADDR", "PORT", "HELO")] * 50)
    now = said(pair)
    assert now is not None
    assert len(now.attributes) == 4
    assert len(pair.server._transaction.preamble) == 1  # what is kept, and nothing beside it


@pytest.mark.parametrize("verb", [XForward, XClient])
def test_a_line_has_512_octets_at_most_and_a_second_one_more(verb: type[AttributeCommand]) -> None:
    whole = verb({"NAME": "n" * 255, "HELO": "h" * 255})
    assert len(whole.serialize()) > 512
    pair = joined()
    with pytest.raises(LocalProtocolError, match="512"):
        pair.send(whole)
    for part in (verb({"NAME": "n" * 255}), verb({"HELO": "h" * 255})):
        (reply,) = pair.send(part)
        assert isinstance(reply, Reply)
        assert reply.code < 300
        if verb is XClient:
            pair.send(Ehlo("c.example"))
    server, _, wire = fed(whole.serialize())
    assert wire == b"500 5.5.2 Line too long\r\n"
    assert server.preamble(XForward) is None
