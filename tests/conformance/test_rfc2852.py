"""RFC 2852: by when a message is wanted, said by the client and read by the server."""

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
    Extension,
    LocalProtocolError,
    Mail,
    Rcpt,
    Reply,
    ServerConnection,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions import DELIVERBY, ENHANCEDSTATUSCODES
from smtpproto.extensions.deliverby import BY, ByMode, DeliverBy, deliverby, min_by_time
from smtpproto.testing import Pair, suggested
from tests.conformance.ends import client_after, say


def greeted(*offer: Extension) -> Pair:
    """Both ends behind EHLO; the server offers what is named."""
    server = ServerConnection("mx.example", STANDARD, offer=offer)
    pair = Pair(server, ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    return pair


def replied(pair: Pair, thing: Command | EndOfContent) -> Reply:
    (reply,) = pair.send(thing)
    assert isinstance(reply, Reply)
    return reply


# --- what is announced


@pytest.mark.rfc(
    "2852 §2 keyword-is-deliverby",
    "2852 §2 options-may-stand-behind-it",
    "2852 §2 least-time-is-for-mode-r",
)
@pytest.mark.parametrize(("least", "line"), [(None, b""), (0, b" 0"), (240, b" 240")])
def test_it_is_announced_with_or_without_a_least_time(least: int | None, line: bytes) -> None:
    pair = greeted(deliverby(least))
    assert pair.to_client.endswith(b"\r\n250 DELIVERBY%b\r\n" % line)
    assert DELIVERBY.verbs == ()


@pytest.mark.rfc(
    "2852 §2 deliverby-param",
    "2852 §2 min-by-time",
    "2852 §2 extension-token",
    "2852 §2 SP",
    "2852 §2 COMMA",
)
@pytest.mark.parametrize(
    ("argument", "least"),
    [
        ("1", 1),
        ("000000240", 240),
        ("999999999", 999_999_999),
        ("1000000000", None),
        ("-240", None),
        ("24 0", None),
        ("240,!~=;", 240),
        ("240,a,b,c", 240),
        ("240,", None),  # a token has a character at least …
        ("240,a,,b", None),
        ("240,a b", None),  # … and no space, comma or control
        ("240,a\tb", None),
        ("240;a", None),
    ],
)
def test_what_may_stand_behind_the_keyword(argument: str, least: int | None) -> None:
    assert min_by_time(argument) == least


@pytest.mark.rfc(
    "2852 §2 options-may-stand-behind-it",
    "2852 §2 unknown-options-are-no-hindrance",
    "2852 §2 least-time-is-for-mode-r",
    "2852 §3 number-is-the-least-time",
    "2852 §4.1.4.1 nor-to-one-that-wants-longer",
)
@pytest.mark.parametrize("argument", [b"240", b"240,NEW", b"240,x-a,y"])
def test_the_client_asks_for_no_less_than_announced(argument: bytes) -> None:
    client = client_after(b"250-mx.example\r\n250 DELIVERBY %b\r\n" % argument)
    with pytest.raises(LocalProtocolError):
        client.send(Mail("a@b", BY(DeliverBy(239, ByMode.RETURN))))
    sent = client.send(Mail("a@b", BY(DeliverBy(240, ByMode.RETURN))))
    assert sent == b"MAIL FROM:<a@b> BY=240;R\r\n"


@pytest.mark.rfc("2852 §2 least-time-is-for-mode-r")
def test_mode_n_knows_no_least_time() -> None:
    assert (
        replied(greeted(deliverby(240)), Mail("a@b", BY(DeliverBy(1, ByMode.NOTIFY)))).code == 250
    )


@pytest.mark.rfc("2852 §2 no-number-says-nothing")
@pytest.mark.parametrize("argument", [b"", b" ,NEW"])
def test_without_a_number_any_time_may_be_asked_for(argument: bytes) -> None:
    client = client_after(b"250-mx.example\r\n250 DELIVERBY%b\r\n" % argument)
    client.send(Mail("a@b", BY(DeliverBy(1, ByMode.RETURN))))
    assert say(greeted(DELIVERBY).server, b"MAIL FROM:<a@b> BY=1;R\r\n").startswith(b"250")


# --- BY


@pytest.mark.rfc(
    "2852 §2 by-is-a-parameter-of-mail",
    "2852 §3 client-asks-where-it-is-offered",
    "2852 §3 mail-with-by-is-taken",
    "2852 §4 by-says-time-and-what-then",
    "2852 §4 by-parameter",
    "2852 §4 by-value",
    "2852 §4 by-mode",
    "2852 §4 by-trace",
    "2852 §4 nine-digits-either-way",
    "2852 §4 nothing-is-taken-off-for-the-way",
)
@pytest.mark.parametrize(
    ("by", "wire"),
    [
        (DeliverBy(1, ByMode.RETURN), b"1;R"),
        (DeliverBy(120, ByMode.RETURN, trace=True), b"120;RT"),
        (DeliverBy(120, ByMode.NOTIFY), b"120;N"),
        (DeliverBy(999_999_999, ByMode.NOTIFY, trace=True), b"999999999;NT"),
        pytest.param(
            DeliverBy(0, ByMode.NOTIFY),
            b"0;N",
            marks=pytest.mark.rfc("2852 §4 zero-and-less-go-with-mode-n"),
        ),
        pytest.param(
            DeliverBy(-999_999_999, ByMode.NOTIFY),
            b"-999999999;N",
            marks=pytest.mark.rfc("2852 §4 zero-and-less-go-with-mode-n"),
        ),
    ],
)
def test_what_the_client_asks_the_server_reads(by: DeliverBy, wire: bytes) -> None:
    pair = greeted(DELIVERBY)
    assert replied(pair, Mail("a@b", BY(by))).code == 250
    assert pair.to_server.endswith(b"MAIL FROM:<a@b> BY=" + wire + b"\r\n")
    mail = pair.server_events[-1]
    assert isinstance(mail, Mail)
    assert BY.of(mail.parameters) == by


@pytest.mark.rfc(
    "2852 §4 by-time", "2852 §4 by-mode", "2852 §4 by-trace", "2852 §4 nine-digits-either-way"
)
@pytest.mark.parametrize(
    ("wire", "by"),
    [
        (b"+120;R", DeliverBy(120, ByMode.RETURN)),
        (b"000000007;r", DeliverBy(7, ByMode.RETURN)),
        (b"+0;nt", DeliverBy(0, ByMode.NOTIFY, trace=True)),
        (b"-000000001;Nt", DeliverBy(-1, ByMode.NOTIFY, trace=True)),
    ],
)
def test_other_ways_to_write_it(wire: bytes, by: DeliverBy) -> None:
    assert BY.read(wire) == by


@pytest.mark.rfc("2852 §4 by-value", "2852 §4 by-time", "2852 §4 by-mode", "2852 §4 by-trace")
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", marks=pytest.mark.rfc("2852 §4 value-is-never-missing")),
        pytest.param(b"=120", marks=pytest.mark.rfc("2852 §4 by-parameter")),
        b"=;N",
        b"=120;",
        b"=120N",
        b"=120,N",
        b"=120;X",
        b"=120;NR",
        b"=120;NX",
        b"=120;TN",
        b"=+-1;N",
        b"=1.5;N",
        pytest.param(b"=0000000001;N", marks=pytest.mark.rfc("2852 §4 nine-digits-either-way")),
        pytest.param(b"=1000000000;N", marks=pytest.mark.rfc("2852 §4 nine-digits-either-way")),
        pytest.param(b"=-1000000000;N", marks=pytest.mark.rfc("2852 §4 nine-digits-either-way")),
    ],
)
def test_what_is_no_by(value: bytes) -> None:
    server = greeted(DELIVERBY).server
    assert say(server, b"MAIL FROM:<a@b> BY" + value + b"\r\n").startswith(b"501")


@pytest.mark.rfc("2852 §4 mode-r-needs-a-time-above-zero", "2852 §4 its-status-is-5-5-4")
@pytest.mark.parametrize("value", [b"0;R", b"-0;R", b"+0;RT", b"-1;R", b"-999999999;R"])
def test_what_is_over_cannot_be_returned(value: bytes) -> None:
    pair = greeted(DELIVERBY, ENHANCEDSTATUSCODES)
    with pytest.raises(LocalProtocolError):
        pair.client.send(Mail("a@b", {"BY": value}))
    said = say(pair.server, b"MAIL FROM:<a@b> BY=" + value + b"\r\n")
    assert said.startswith(b"501 5.5.4 ")


@pytest.mark.rfc("2852 §4 value-is-never-missing", "2852 §4 nine-digits-either-way")
@pytest.mark.parametrize("value", [None, "1000000000;N", "-1000000000;N"])
def test_the_client_writes_no_such_by(value: str | None) -> None:
    with pytest.raises(LocalProtocolError):
        greeted(DELIVERBY).client.send(Mail("a@b", {"BY": value}))


@pytest.mark.rfc("2852 §2 mail-may-be-17-octets-longer")
def test_the_line_of_mail_may_be_17_octets_longer() -> None:
    server = greeted(DELIVERBY).server
    longest = b"MAIL FROM:<a@b> BY=-999999999;NT".ljust(512 + 17 - 2)
    server.receive_data(longest + b" \r\n")
    event = server.next_event()
    assert isinstance(event, BadCommand)
    assert event.reply.code == 500
    server.send(event.reply)
    assert say(server, longest + b"\r\n").startswith(b"250")


# --- where it cannot be


@pytest.mark.rfc(
    "2852 §3 client-asks-where-it-is-offered", "2852 §4.1.4.1 mode-r-needs-a-server-that-offers-it"
)
@pytest.mark.parametrize("mode", list(ByMode))
def test_it_is_sent_only_where_it_is_offered(mode: ByMode) -> None:
    with pytest.raises(LocalProtocolError, match="DELIVERBY"):
        greeted().client.send(Mail("a@b", BY(DeliverBy(120, mode))))


@pytest.mark.rfc("2852 §4 not-now-is-455-and-never-is-555", "2852 §4 these-have-a-status-too")
@pytest.mark.parametrize(
    "said", [Reply(455, "4.3.2", "not today"), Reply(555, "5.3.3", "no faster than that")]
)
def test_a_server_may_decline(said: Reply) -> None:
    pair = greeted(DELIVERBY, ENHANCEDSTATUSCODES)
    pair.policy = lambda *_: said
    assert replied(pair, Mail("a@b", BY(DeliverBy(120, ByMode.NOTIFY)))) == said
    assert said.status is not None
    assert said.status.class_ == said.code // 100


@pytest.mark.rfc("2852 §3 refusal-may-come-at-any-step")
@pytest.mark.parametrize("step", [Mail, Rcpt, Data, EndOfContent])
def test_the_refusal_may_come_at_any_step(step: type[Command | EndOfContent]) -> None:
    def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
        late = isinstance(event, step)
        return Reply(554, "5.4.7", "not in that time") if late else suggested(server, event)

    pair = greeted(DELIVERBY)
    pair.policy = policy
    mail = Mail("a@b", BY(DeliverBy(120, ByMode.RETURN)))
    for thing in (mail, Rcpt("c@d"), Data(), EndOfContent()):
        if isinstance(thing, EndOfContent):
            pair.send(Content(b"Subject: now\r\n\r\n"))
        reply = replied(pair, thing)
        if isinstance(thing, step):
            assert reply.code == 554
            break
        assert reply.code in {250, 354}
    pair.policy = suggested
    assert replied(pair, Ehlo("c.example")).code == 250  # and both go on from there
    assert replied(pair, mail).code == 250
