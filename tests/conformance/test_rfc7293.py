"""RFC 7293: mail for the owner of then, said by the client and read by the server."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from attrs import evolve

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Ehlo,
    LocalProtocolError,
    Mail,
    Rcpt,
    Reply,
    ServerConnection,
)
from smtpproto.extensions import ENHANCEDSTATUSCODES, SIZE
from smtpproto.extensions.rrvs import RRVS, VALID_SINCE, NoSupport, ValidSince
from smtpproto.testing import Pair
from tests.conformance.ends import MAIL, pulled, say, server_after

THEN = datetime(2014, 4, 3, 23, 1, 30, tzinfo=UTC)
RCPT = b"RCPT TO:<c@d> RRVS="


def in_transaction() -> Pair:
    """Both ends behind MAIL."""
    offer = (ENHANCEDSTATUSCODES, RRVS)
    pair = Pair(ServerConnection("mx.example", STANDARD, offer=offer), ClientConnection(STANDARD))
    pair.send(
        Ehlo("c.example"),
    )
    pair.send(Mail("a@b"))
    return pair


@pytest.mark.rfc("7293 §3.1 keyword-is-rrvs")
def test_it_is_announced_by_its_keyword_alone() -> None:
    said = say(server_after(extensions=(evolve(RRVS, obliges=""),)), b"EHLO c.example\r\n")
    assert said.endswith(b"\r\n250 RRVS\r\n")
    assert RRVS.verbs == ()
    assert RRVS.mail == ()


@pytest.mark.rfc(
    "7293 §3 client-says-since-when",
    "7293 §3.1 rrvs-is-a-parameter-of-rcpt",
    "7293 §3.1 action-may-follow",
    "7293 §3.1 actions-are-reject-and-continue",
    "7293 §3.1 rrvs-param",
    "7293 §5.1.1 letter-is-kept",
    "7293 §5.3 seconds-are-precise-enough",
)
@pytest.mark.parametrize(
    ("since", "wire"),
    [
        (ValidSince(THEN), b"2014-04-03T23:01:30Z"),
        (ValidSince(THEN, NoSupport.REJECT), b"2014-04-03T23:01:30Z;R"),
        (ValidSince(THEN, NoSupport.CONTINUE), b"2014-04-03T23:01:30Z;C"),
    ],
)
def test_what_the_client_says_the_server_reads(since: ValidSince, wire: bytes) -> None:
    pair = in_transaction()
    (reply,) = pair.send(Rcpt("c@d", VALID_SINCE(since)))
    assert isinstance(reply, Reply)
    assert reply.code == 250
    assert pair.to_server.endswith(RCPT + wire + b"\r\n")
    rcpt = pair.server_events[-1]
    assert isinstance(rcpt, Rcpt)
    assert VALID_SINCE.of(rcpt.parameters) == since
    assert rcpt.serialize() == RCPT + wire + b"\r\n"  # as it is passed on


@pytest.mark.rfc("7293 §3.1 rrvs-param")
@pytest.mark.parametrize("wire", [b"2014-04-04T01:01:30+02:00", b"2014-04-03t23:01:30z;c"])
def test_other_ways_to_write_a_moment(wire: bytes) -> None:
    command, refusal = pulled(MAIL, b"RCPT TO:<c@d> RRVS=" + wire)
    assert isinstance(command, Rcpt)
    assert refusal is None or refusal.code == 555
    since = VALID_SINCE.of(command.parameters)
    assert since is not None
    assert since.moment == THEN


NO_MOMENTS = [
    b"",
    b"2014-04-03",
    b"2014-04-03T23:01Z",
    b"2014-04-03T23:01:30",
    b"2014-04-03T23:01:30Z;",
    b"2014-04-03T23:01:30Z;X",
    b"2014-04-03T23:01:30Z;RC",
    b"2014-04-03T23:01:30Z;R;C",
    b"2014-02-30T23:01:30Z",
    b"now",
]


@pytest.mark.rfc("7293 §3.1 rrvs-param", "7293 §3.1 actions-are-reject-and-continue")
@pytest.mark.parametrize("wire", NO_MOMENTS)
def test_what_is_no_moment(wire: bytes) -> None:
    server = in_transaction().server
    server.receive_data(RCPT + wire + b"\r\n")
    event = server.next_event()
    assert isinstance(event, BadCommand)
    assert event.reply.code == 501


@pytest.mark.rfc("7293 §3.1 moment-has-no-fractions", "7293 §5.3 seconds-are-precise-enough")
def test_no_fractions_of_a_second() -> None:
    assert say(in_transaction().server, RCPT + b"2014-04-03T23:01:30.5Z\r\n").startswith(b"501")
    with pytest.raises(LocalProtocolError):
        VALID_SINCE(ValidSince(THEN.replace(microsecond=500_000)))
    with pytest.raises(LocalProtocolError):
        VALID_SINCE(ValidSince(THEN.astimezone(timezone(timedelta(seconds=30)))))


@pytest.mark.rfc("7293 §3.1 rcpt-may-be-33-octets-longer")
def test_the_line_of_rcpt_may_be_33_octets_longer() -> None:
    line = RCPT + b"2014-04-03T23:01:30+00:00;R"
    line += b" " * (512 + 33 - 2 - len(line)) + b"\r\n"
    server = in_transaction().server
    assert say(server, line).startswith(b"250")
    assert say(server, line.replace(b"\r", b" \r")).startswith(b"500")


@pytest.mark.rfc(
    "7293 §5.1 former-owners-mail-gets-550", "7293 §5.2 refusals-have-enhanced-statuses"
)
@pytest.mark.parametrize("status", ["5.7.17", "5.7.18", "5.7.19"])
def test_the_site_refuses_what_is_for_a_former_owner(status: str) -> None:
    pair = in_transaction()
    said = Reply(550, status, "That mailbox has changed hands")
    pair.policy = lambda *_: said
    assert pair.send(Rcpt("c@d", VALID_SINCE(ValidSince(THEN)))) == [said]
    assert pair.server.envelope is None
    assert said.status is not None
    assert said.status.registered is not None
    assert said.status.registered.rfc == 7293


@pytest.mark.rfc("7293 §6 client-sends-none-where-it-is-not-offered")
def test_where_it_is_not_offered_no_such_recipient_is_named() -> None:
    pair = Pair(ServerConnection("mx.example", (SIZE,)), ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    pair.send(Mail("a@b"))
    with pytest.raises(LocalProtocolError):
        pair.client.send(Rcpt("c@d", VALID_SINCE(ValidSince(THEN, NoSupport.CONTINUE))))
    assert say(pair.server, RCPT + b"2014-04-03T23:01:30Z\r\n").startswith(b"555")
