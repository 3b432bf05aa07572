"""RFC 4865: how long a message is to be held, said by the client and read by the server."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Ehlo,
    Extension,
    LocalProtocolError,
    Mail,
    Parameter,
    Reply,
    ServerConnection,
)
from smtpproto.extensions import DELIVERBY, ENHANCEDSTATUSCODES, FUTURERELEASE
from smtpproto.extensions.deliverby import BY, ByMode, DeliverBy
from smtpproto.extensions.futurerelease import HOLDFOR, HOLDUNTIL, Horizon, futurerelease
from smtpproto.testing import Pair
from tests.conformance.ends import client_after, say

UNTIL = datetime(2014, 4, 3, 23, 1, tzinfo=UTC)
OFFER = futurerelease(Horizon(3600, UNTIL))
ANNOUNCED = b"250-mx.example\r\n250 FUTURERELEASE 3600 2014-04-03T23:01:00Z\r\n"


def greeted(*offer: Extension) -> Pair:
    """Both ends behind EHLO; the server offers what is named."""
    server = ServerConnection("mx.example", STANDARD, offer=(*offer, ENHANCEDSTATUSCODES))
    pair = Pair(server, ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    return pair


def mail(wire: bytes, *offer: Extension) -> bytes:
    """What a server says to MAIL with these parameters."""
    return say(greeted(*(offer or (OFFER,))).server, b"MAIL FROM:<a@b> " + wire + b"\r\n")


# --- what is announced


@pytest.mark.rfc(
    "4865 §3 keyword-is-futurerelease",
    "4865 §3 two-limits-stand-behind-it",
    "4865 §3 first-limit-is-in-seconds",
    "4865 §3 second-limit-is-a-date-in-utc",
    "4865 §3 line",
)
@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30))])
def test_it_is_announced_with_both_limits(zone: timezone) -> None:
    pair = greeted(futurerelease(Horizon(86400, UNTIL.astimezone(zone))))
    assert b"\r\n250-FUTURERELEASE 86400 2014-04-03T23:01:00Z\r\n" in pair.to_client
    assert FUTURERELEASE.verbs == ()


@pytest.mark.rfc(
    "4865 §3 future-release-integer",
    "4865 §3 max-future-release-interval",
    "4865 §3 first-limit-is-in-seconds",
)
@pytest.mark.parametrize(
    ("number", "right"),
    [(1, True), (999_999_999, True), (0, False), (-1, False), (1_000_000_000, False)],
)
def test_seconds_that_can_be_announced(number: int, right: bool) -> None:
    if right:
        assert Horizon.parse(f"{number} 2014-04-03T23:01:00Z") == Horizon(number, UNTIL)
    else:
        with pytest.raises(LocalProtocolError):
            Horizon(number, UNTIL)


@pytest.mark.rfc("4865 §3 max-future-release-date-time", "4865 §3 second-limit-is-a-date-in-utc")
@pytest.mark.parametrize(
    "wire", ["2014-04-03T23:01:00Z", "2014-04-03t23:01:00.0z", "2014-04-04T04:31:00+05:30"]
)
def test_dates_that_can_be_announced(wire: str) -> None:
    assert Horizon.parse(f"60 {wire}").until == UNTIL


# --- HOLDFOR and HOLDUNTIL


@pytest.mark.rfc(
    "4865 §3 mail-has-holdfor-or-holduntil",
    "4865 §3 hold-param",
    "4865 §4.2 what-is-in-order-is-taken",
)
@pytest.mark.parametrize(
    ("parameter", "value", "wire"),
    [
        pytest.param(
            HOLDFOR,
            seconds,
            b"HOLDFOR=%d" % seconds,
            marks=pytest.mark.rfc(
                "4865 §3 holdfor-is-in-seconds",
                "4865 §3 hold-for-param",
                "4865 §3 first-limit-is-in-seconds",
            ),
        )
        for seconds in (1, 3600)
    ]
    + [
        pytest.param(
            HOLDUNTIL,
            UNTIL - timedelta(seconds=earlier),
            b"HOLDUNTIL=2014-04-03T23:" + minute + b":00Z",
            marks=pytest.mark.rfc("4865 §3 holduntil-is-a-date-in-utc", "4865 §3 hold-until-param"),
        )
        for earlier, minute in ((0, b"01"), (60, b"00"))
    ],
)
def test_what_the_client_asks_the_server_reads(
    parameter: Parameter[Any], value: object, wire: bytes
) -> None:
    pair = greeted(OFFER)
    (reply,) = pair.send(Mail("a@b", parameter(value)))
    assert isinstance(reply, Reply)
    assert reply.code == 250
    assert pair.to_server.endswith(b"MAIL FROM:<a@b> " + wire + b"\r\n")
    asked = pair.server_events[-1]
    assert isinstance(asked, Mail)
    assert parameter.of(asked.parameters) == value


@pytest.mark.rfc("4865 §3 nothing-said-is-nothing-held")
def test_without_them_nothing_is_held() -> None:
    pair = greeted(OFFER)
    pair.send(Mail("a@b"))
    assert pair.to_server.endswith(b"\r\nMAIL FROM:<a@b>\r\n")
    asked = pair.server_events[-1]
    assert isinstance(asked, Mail)
    assert HOLDFOR.of(asked.parameters) is None
    assert HOLDUNTIL.of(asked.parameters) is None


@pytest.mark.rfc("4865 §3 holduntil-is-a-date-in-utc")
def test_the_client_writes_its_moment_in_utc() -> None:
    moment = UNTIL.astimezone(timezone(timedelta(hours=-8)))
    assert HOLDUNTIL(moment) == {"HOLDUNTIL": b"2014-04-03T23:01:00Z"}


BAD_FOR = [b"", b"=0", b"=01", b"=-1", b"=+1", b"=1.5", b"=1000000000", b"=1s"]
BAD_UNTIL = [
    b"",
    b"=3600",
    b"=2014-04-03",
    b"=2014-04-03T23:01Z",
    b"=2014-02-30T23:01:00Z",
    b"=2014-04-03T22:01:00",
    b"=2014-04-03T22:01:00+05:30",  # not in UTC
]


@pytest.mark.rfc("4865 §4.2 these-refusals-are-501", "4865 §4.2 these-refusals-have-5-5-4")
@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(
            b"HOLDFOR" + value,
            marks=pytest.mark.rfc(
                "4865 §4.2 bad-or-too-long-holdfor-is-refused",
                "4865 §3 future-release-integer",
                "4865 §3 future-release-interval",
                "4865 §3 hold-for-param",
            ),
        )
        for value in BAD_FOR
    ]
    + [
        pytest.param(
            b"HOLDUNTIL" + value,
            marks=pytest.mark.rfc(
                "4865 §4.2 bad-or-too-late-holduntil-is-refused",
                "4865 §3 future-release-date-time",
                "4865 §3 hold-until-param",
            ),
        )
        for value in BAD_UNTIL
    ]
    + [
        pytest.param(
            b"HOLDFOR=3601", marks=pytest.mark.rfc("4865 §4.2 bad-or-too-long-holdfor-is-refused")
        ),
        pytest.param(
            b"HOLDUNTIL=2014-04-03T23:01:01Z",
            marks=pytest.mark.rfc("4865 §4.2 bad-or-too-late-holduntil-is-refused"),
        ),
        *(
            pytest.param(wire, marks=pytest.mark.rfc("4865 §4.2 more-than-one-is-refused"))
            for wire in (
                b"HOLDFOR=1 HOLDUNTIL=2014-01-01T00:00:00Z",
                b"HOLDUNTIL=2014-01-01T00:00:00Z holdfor=1",
                b"HOLDFOR=1 HOLDFOR=1",
            )
        ),
    ],
)
def test_what_is_refused(wire: bytes) -> None:
    assert mail(wire).startswith(b"501 5.5.4 ")


@pytest.mark.rfc("4865 §3 future-release-date-time")
@pytest.mark.parametrize("moment", [b"2014-04-03t23:01:00z", b"2014-04-03T23:01:00+00:00"])
def test_other_ways_to_write_a_moment(moment: bytes) -> None:
    assert HOLDUNTIL.read(moment) == UNTIL


@pytest.mark.rfc("4865 §3 mail-may-be-34-octets-longer")
@pytest.mark.parametrize("hold", [b"HOLDFOR=3600", b"HOLDUNTIL=2014-04-03T23:01:00Z"])
def test_the_line_of_mail_may_be_34_octets_longer(hold: bytes) -> None:
    longest = (b"MAIL FROM:<a@b> " + hold).ljust(512 + 34 - 2) + b"\r\n"
    assert say(greeted(OFFER).server, longest).startswith(b"250")


# --- what the client does not send


@pytest.mark.rfc("4865 §4.1 client-asks-where-it-is-offered")
@pytest.mark.parametrize("parameter", [HOLDFOR(1), HOLDUNTIL(UNTIL)])
def test_they_are_sent_only_where_they_are_offered(parameter: dict[str, bytes | None]) -> None:
    with pytest.raises(LocalProtocolError, match="FUTURERELEASE"):
        client_after().send(Mail("a@b", parameter))
    client_after(ANNOUNCED).send(Mail("a@b", parameter))


@pytest.mark.rfc(
    "4865 §3 two-limits-stand-behind-it",
    "4865 §3 line",
    "4865 §4.1 no-longer-than-announced",
    "4865 §4.1 no-later-than-announced",
    "4865 §4.1 one-of-them-and-no-more",
)
@pytest.mark.parametrize(
    ("parameters", "within"),
    [
        (HOLDFOR(3600), True),
        (HOLDFOR(3601), False),
        (HOLDUNTIL(UNTIL), True),
        (HOLDUNTIL(UNTIL + timedelta(seconds=1)), False),
        (HOLDFOR(1) | HOLDUNTIL(UNTIL), False),
    ],
)
def test_the_client_keeps_to_what_is_announced(
    parameters: dict[str, bytes | None], within: bool
) -> None:
    client = client_after(ANNOUNCED)
    if within:
        client.send(Mail("a@b", parameters))
    else:
        with pytest.raises(LocalProtocolError):
            client.send(Mail("a@b", parameters))


# --- beside BY


@pytest.mark.rfc("4865 §5.2 hold-and-by-may-go-together")
@pytest.mark.parametrize("mode", list(ByMode))
def test_hold_and_by_may_go_together(mode: ByMode) -> None:
    pair = greeted(OFFER, DELIVERBY)
    (reply,) = pair.send(Mail("a@b", HOLDFOR(60) | BY(DeliverBy(120, mode))))
    assert isinstance(reply, Reply)
    assert reply.code == 250


@pytest.mark.rfc(
    "4865 §5.2.2 hold-beyond-by-is-refused",
    "4865 §5.2.2 that-refusal-is-501",
    "4865 §5.2.2 that-refusal-has-5-5-4",
)
@pytest.mark.parametrize("by", [b"120;R", b"120;N", b"121;R", b"121;NT", b"0;N", b"-1;N"])
def test_nothing_is_held_until_by_leaves_no_time(by: bytes) -> None:
    assert mail(b"HOLDFOR=121 BY=" + by, OFFER, DELIVERBY).startswith(b"501 5.5.4 ")
    assert mail(b"HOLDFOR=121 BY=122;R", OFFER, DELIVERBY).startswith(b"250 ")
    assert mail(b"HOLDFOR=121 BY=122;N", OFFER, DELIVERBY).startswith(b"250 ")


@pytest.mark.rfc("4865 §5.2.1 by-is-later-than-holdfor")
@pytest.mark.parametrize("mode", list(ByMode))
def test_the_client_leaves_time_behind_the_hold(mode: ByMode) -> None:
    offered = ANNOUNCED.replace(b"250 FUTURE", b"250-DELIVERBY\r\n250 FUTURE")
    for seconds in (1, 59, 60):
        with pytest.raises(LocalProtocolError, match="BY"):
            client_after(offered).send(Mail("a@b", HOLDFOR(60) | BY(DeliverBy(seconds, mode))))
    later = HOLDFOR(60) | BY(DeliverBy(61, mode))
    assert b" HOLDFOR=60 BY=61;" in client_after(offered).send(Mail("a@b", later))


# --- quotas


@pytest.mark.rfc("4865 §6 refusal-for-quota-is-552")
def test_a_server_may_have_no_room_to_hold_it() -> None:
    pair = greeted(OFFER)
    said = Reply(552, "5.2.2", "You have enough waiting here")
    pair.policy = lambda *_: said
    assert pair.send(Mail("a@b", HOLDFOR(60))) == [said]
    assert not isinstance(pair.server_events[-1], BadCommand)
