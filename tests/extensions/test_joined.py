"""Each extension at both ends, joined: offered, it is taken and typed; not offered, refused."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Command,
    Ehlo,
    Expn,
    Extension,
    Limits,
    LocalProtocolError,
    Mail,
    Mailbox,
    Parameter,
    Parameters,
    Rcpt,
    Reply,
    ServerConnection,
    State,
    TlsInfo,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions.auth import SUBMITTER, Submitter
from smtpproto.extensions.deliverby import BY, ByMode, DeliverBy, deliverby, min_by_time
from smtpproto.extensions.dsn import (
    ENVID,
    NEVER,
    NOTIFY,
    ORCPT,
    RET,
    Notify,
    OriginalRecipient,
    Ret,
)
from smtpproto.extensions.eightbitmime import BODY, EIGHTBITMIME
from smtpproto.extensions.etrn import Etrn
from smtpproto.extensions.futurerelease import HOLDFOR, HOLDUNTIL, Horizon, futurerelease
from smtpproto.extensions.limits import LIMITS, Maxima, limits
from smtpproto.extensions.mt_priority import PRIORITY, mt_priority
from smtpproto.extensions.requiretls import REQUIRE_TLS, REQUIRETLS
from smtpproto.extensions.rrvs import VALID_SINCE, ValidSince
from smtpproto.extensions.size import SIZE_OCTETS
from smtpproto.extensions.smtputf8 import SMTPUTF8, UTF8
from smtpproto.extensions.table import support_table
from smtpproto.extensions.xclient import XCLIENT, XClient
from smtpproto.extensions.xforward import XFORWARD, XForward
from smtpproto.mechanisms import PLAIN
from smtpproto.testing import Pair, suggested

APRIL = datetime(2014, 4, 3, 23, 1, tzinfo=UTC)
HORIZON = Horizon(3600, APRIL)
DEFAULT = [e for e in STANDARD if not e.obliges]
# With what has to be announced for it to be offered at all.
MADE = {
    "FUTURERELEASE": futurerelease(HORIZON),
    "LIMITS": limits(Maxima(rcpt=100)),
    "DELIVERBY": deliverby(60),
    "MT-PRIORITY": mt_priority("STANAG4406"),
}
ALL = [MADE.get(e.keyword, e) for e in STANDARD]


def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
    """Accept the verbs that the core leaves to its caller."""
    if isinstance(event, (Etrn, XClient, XForward)):
        return Reply(250, "2.0.0", "Ok")
    return suggested(server, event)


def greeted(
    offer: Sequence[Extension] = ALL, known: Sequence[Extension] = STANDARD, *, tls: bool = True
) -> Pair:
    server = ServerConnection("mx.example", STANDARD, offer=offer, mechanisms=(PLAIN,))
    client = ClientConnection(known)
    if tls:  # implicit
        server.tls_started()
        client.tls_started(TlsInfo(verified=True))
    pair = Pair(server, client, policy=policy)
    pair.send(Ehlo("c.example"))
    return pair


# Extension, parameter, typed value.
MAIL: list[tuple[str, Parameter[Any], Any]] = [
    ("SIZE", SIZE_OCTETS, 1000),
    ("8BITMIME", BODY, "8BITMIME"),
    ("SMTPUTF8", UTF8, True),
    ("AUTH", SUBMITTER, Submitter(Mailbox.parse("e=mc2@example.com"))),
    ("DSN", RET, Ret.HDRS),
    ("DSN", ENVID, b"QQ314159"),
    ("DELIVERBY", BY, DeliverBy(120, ByMode.RETURN)),
    ("FUTURERELEASE", HOLDFOR, 3600),
    ("FUTURERELEASE", HOLDUNTIL, APRIL),
    ("MT-PRIORITY", PRIORITY, -3),
    ("REQUIRETLS", REQUIRE_TLS, True),
]
RCPT: list[tuple[str, Parameter[Any], Any]] = [
    ("DSN", NOTIFY, {Notify.SUCCESS, Notify.DELAY}),
    ("DSN", NOTIFY, NEVER),
    ("DSN", ORCPT, OriginalRecipient("rfc822", b"a+b@example.com")),
    ("RRVS", VALID_SINCE, ValidSince(APRIL)),
]
VERBS: list[tuple[str, Command]] = [
    ("ETRN", Etrn("node.example")),
    ("XCLIENT", XClient({"ADDR": "192.0.2.1"})),
    ("XFORWARD", XForward({"ADDR": "192.0.2.1", "PORT": "25"})),
]
PARAMETERS = [(Mail, *row) for row in MAIL] + [(Rcpt, *row) for row in RCPT]


def test_every_parameter_and_verb_of_the_registry_is_tried_here() -> None:
    assert {p.keyword for e in STANDARD for p in e.mail} == {row[1].keyword for row in MAIL}
    assert {p.keyword for e in STANDARD for p in e.rcpt} == {row[1].keyword for row in RCPT}
    tried = {type(command) for _, command in VERBS} | {Expn}  # as old as SMTP: test_verbs
    assert {v for e in STANDARD for v in e.verbs} - tried == {
        verb for e in DEFAULT for verb in e.verbs
    }


def before(pair: Pair, asked: type[Mail | Rcpt]) -> None:
    if asked is Rcpt:
        pair.send(Mail("a@example.org"))


@pytest.mark.parametrize(("asked", "keyword", "parameter", "value"), PARAMETERS)
@pytest.mark.rfc(
    "5321 §4.1.1.2 mail-may-carry-parameters", "5321 §4.1.1.3 rcpt-may-carry-parameters"
)
def test_offered_it_is_accepted_and_typed(
    asked: type[Mail | Rcpt], keyword: str, parameter: Parameter[Any], value: Any
) -> None:
    pair = greeted()
    assert keyword in pair.client.offered
    before(pair, asked)
    (reply,) = pair.send(asked("b@example.org", parameter(value)))
    assert isinstance(reply, Reply)
    assert reply.code == 250
    event = pair.server_events[-1]
    assert isinstance(event, asked)
    assert parameter.of(event.parameters) == value


@pytest.mark.parametrize(("asked", "keyword", "parameter", "value"), PARAMETERS)
@pytest.mark.rfc(
    "5321 §4.1.1.11 unknown-parameter-gets-555",
    "5321 §4.1.1.3 client-sends-offered-parameters-only",
)
def test_not_offered_it_is_refused_at_either_end(
    asked: type[Mail | Rcpt], keyword: str, parameter: Parameter[Any], value: Any
) -> None:
    pair = greeted([e for e in ALL if parameter not in (*e.mail, *e.rcpt)])
    before(pair, asked)
    command = asked("b@example.org", parameter(value))
    sent = pair.to_server
    with pytest.raises(LocalProtocolError, match=f"does not offer {keyword}"):
        pair.send(command)
    assert pair.to_server == sent
    pair.server.receive_data(command.serialize())
    event = pair.server.next_event()
    assert isinstance(event, BadCommand)
    assert (event.reply.code, str(event.reply.status)) == (555, "5.5.4")
    assert event.command == command  # policy sees it all the same


@pytest.mark.parametrize(("keyword", "command"), VERBS)
def test_a_verb_offered_is_pulled(keyword: str, command: Command) -> None:
    pair = greeted()
    (reply,) = pair.send(command)
    assert isinstance(reply, Reply)
    assert reply.code == 250
    assert pair.server_events[-1] == command


@pytest.mark.parametrize(("keyword", "command"), VERBS)
@pytest.mark.rfc("5321 §4.2.4 502-for-what-is-recognized")
@pytest.mark.rfc("5321 §4.1.1.1 verbs-of-extensions-are-listed")
def test_a_verb_not_offered_is_refused_at_either_end(keyword: str, command: Command) -> None:
    pair = greeted(DEFAULT)
    with pytest.raises(LocalProtocolError, match=f"does not offer {keyword}"):
        pair.send(command)
    pair.server.receive_data(command.serialize())
    event = pair.server.next_event()
    assert isinstance(event, BadCommand)
    assert (event.reply.code, str(event.reply.status)) == (502, "5.5.1")


#: Spelled out: whoever offers one of these has more to do than the core can.
OBLIGING = [
    "BINARYMIME", "SMTPUTF8", "EXPN", "DSN", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY",
    "REQUIRETLS", "RRVS", "LIMITS", "ETRN", "XCLIENT", "XFORWARD",
]  # fmt: skip


@pytest.mark.parametrize("tls", [False, True])
def test_by_default_nothing_is_offered_that_obliges(tls: bool) -> None:
    server = ServerConnection("mx.example", ALL, mechanisms=(PLAIN,), plaintext_auth=True)
    if tls:
        server.tls_started()
    assert set(server.offered) == {e.keyword for e in ALL} - {"STARTTLS", *OBLIGING}
    assert {e.keyword for e in STANDARD if e.obliges} == set(OBLIGING)


@pytest.mark.parametrize("keyword", OBLIGING)
def test_what_obliges_is_offered_by_whoever_declares_it(keyword: str) -> None:
    """Known is not offered: the other obliging ones stay away, and nobody is told of them."""
    declared = [e for e in ALL if e.keyword == keyword]
    pair = greeted([*DEFAULT, *declared])
    assert set(pair.client.offered) == {e.keyword for e in DEFAULT} - {"STARTTLS"} | {keyword}
    assert keyword not in greeted(DEFAULT).client.offered


def ehlo_argument(extension: Extension, *beside: Extension, tls: bool = True) -> str | None:
    return greeted([extension, *beside], tls=tls).client.offered.get(extension.keyword)


@pytest.mark.rfc("8689 §2 server-takes-it-under-tls-alone")
def test_requiretls_is_offered_under_tls_alone() -> None:
    assert ehlo_argument(REQUIRETLS) == ""
    assert ehlo_argument(REQUIRETLS, tls=False) is None


@pytest.mark.rfc("6531 §3.1 8bitmime-is-offered-beside-it")
def test_smtputf8_is_not_offered_without_8bitmime() -> None:
    assert ehlo_argument(SMTPUTF8) is None
    assert ehlo_argument(SMTPUTF8, EIGHTBITMIME) == ""


@pytest.mark.rfc("2852 §2 options-may-stand-behind-it")
def test_deliverby_tells_the_least_time() -> None:
    assert ehlo_argument(deliverby()) == ""
    assert min_by_time(ehlo_argument(deliverby(60)) or "") == 60


@pytest.mark.rfc("4865 §4.2 offered-with-both-limits")
def test_futurerelease_is_not_offered_without_its_horizon() -> None:
    assert ehlo_argument(futurerelease()) is None
    assert Horizon.parse(ehlo_argument(futurerelease(HORIZON)) or "") == HORIZON


@pytest.mark.rfc("6710 §3 policy-may-be-named")
def test_mt_priority_may_name_its_policy() -> None:
    assert ehlo_argument(mt_priority()) == ""
    assert ehlo_argument(mt_priority("STANAG4406")) == "STANAG4406"


@pytest.mark.rfc("9422 §3")
def test_limits_are_read_from_what_is_offered() -> None:
    maxima = Maxima(mail=1, rcpt=100)
    assert Maxima.parse(ehlo_argument(limits(maxima)) or "") == maxima
    assert ehlo_argument(limits(Maxima())) is None


@pytest.mark.rfc("9422 §3")
@pytest.mark.parametrize(
    ("recipients", "argument"), [(100, "RCPTMAX=100"), (10**7, "RCPTMAX=999999"), (0, None)]
)
def test_what_is_enforced_is_what_is_announced(recipients: int, argument: str | None) -> None:
    enforced = Limits(recipients=recipients)
    server = ServerConnection("mx.example", STANDARD, offer=[LIMITS], limits=enforced)
    assert server.offered.get("LIMITS") == argument
    assert "LIMITS" not in ServerConnection("mx.example", STANDARD, limits=enforced).offered


def test_as_many_recipients_as_announced_and_no_more() -> None:
    server = ServerConnection("mx.example", STANDARD, offer=[LIMITS], limits=Limits(recipients=3))
    pair = Pair(server, ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    most = Maxima.parse(pair.client.offered["LIMITS"]).rcpt
    assert most == 3
    pair.send(Mail("a@b"))
    taken = [pair.send(Rcpt(f"{number}@b")) for number in range(most + 1)]
    assert [str(reply)[:3] for (reply,) in taken] == ["250"] * 3 + ["452"]


@pytest.mark.parametrize(
    ("keyword", "command", "refusal"),
    [
        ("ETRN", Etrn("node.example"), "458 4.5.0"),
        ("XCLIENT", XClient({"ADDR": "192.0.2.1"}), "550 5.7.0"),
        ("XFORWARD", XForward({"ADDR": "192.0.2.1"}), "550 5.7.0"),
    ],
)
def test_a_verb_that_obliges_is_refused_where_nobody_decides(
    keyword: str, command: Command, refusal: str
) -> None:
    pair = greeted()
    pair.policy = suggested
    assert keyword in pair.client.offered
    (reply,) = pair.send(command)
    assert str(reply).startswith(refusal)
    assert pair.server.state is pair.client.state is State.READY


def test_the_attribute_verbs_announce_their_attributes() -> None:
    assert ehlo_argument(XCLIENT) == "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
    assert ehlo_argument(XFORWARD) == "NAME ADDR PORT PROTO HELO IDENT SOURCE"


# Well-formed, and refused by the extension itself.
JUDGED = [
    *(
        pytest.param(
            wire, code, marks=pytest.mark.rfc("2852 §3 less-than-that-is-refused-for-good")
        )
        for wire, code in ((b"BY=59;R", 555), (b"BY=60;R", 250))
    ),
    pytest.param(b"BY=-1;N", 250, marks=pytest.mark.rfc("2852 §4 zero-and-less-go-with-mode-n")),
    pytest.param(b"BY=0;R", 501, marks=pytest.mark.rfc("2852 §4 mode-r-needs-a-time-above-zero")),
    pytest.param(
        b"HOLDFOR=3601",
        501,
        marks=pytest.mark.rfc("4865 §4.2 bad-or-too-long-holdfor-is-refused"),
    ),
    pytest.param(
        b"HOLDUNTIL=2014-04-03T23:01:01Z",
        501,
        marks=pytest.mark.rfc("4865 §4.2 bad-or-too-late-holduntil-is-refused"),
    ),
    pytest.param(b"HOLDFOR=1 HOLDUNTIL=2014-01-01T00:00:00Z", 501),
    pytest.param(
        b"HOLDFOR=120 BY=120;R", 501, marks=pytest.mark.rfc("4865 §5.2.2 hold-beyond-by-is-refused")
    ),
    pytest.param(
        b"HOLDFOR=119 BY=120;N", 250, marks=pytest.mark.rfc("4865 §5.2.2 hold-beyond-by-is-refused")
    ),
    pytest.param(b"MT-PRIORITY=10", 501, marks=pytest.mark.rfc("6710 §4.1 malformed-is-501-5-5-2")),
    pytest.param(
        b"RET=FULL RET=FULL", 501, marks=pytest.mark.rfc("3461 §4.5 second-in-mail-is-501")
    ),
    pytest.param(
        b"RET=FULL ENVID=+", 501, marks=pytest.mark.rfc("3461 §5.1 bad-ret-or-envid-is-501")
    ),
    pytest.param(b"BODY=BINARYMIME", 250, marks=pytest.mark.rfc("3030 §3 body-may-be-binarymime")),
    pytest.param(b"AUTH=<>", 250, marks=pytest.mark.rfc("4954 §8 auth-param")),
    pytest.param(b"AUTH=jo", 501, marks=pytest.mark.rfc("4954 §8 auth-param")),
]


@pytest.mark.parametrize(("parameters", "code"), JUDGED)
def test_judged(parameters: bytes, code: int) -> None:
    pair = greeted()
    pair.server.receive_data(b"MAIL FROM:<a@example.org> %b\r\n" % parameters)
    event = pair.server.next_event()
    if code == 250:
        assert isinstance(event, Mail)
    else:
        assert isinstance(event, BadCommand)
        assert event.reply.code == code


def test_what_the_server_would_refuse_is_not_sent() -> None:
    pair = greeted()
    for parameters in (
        Parameters.parse(b"HOLDFOR=3601"),
        Parameters.parse(b"HOLDFOR=1 HOLDUNTIL=2014-01-01T00:00:00Z"),
        Parameters.parse(b"BY=59;R"),
    ):
        with pytest.raises(LocalProtocolError):
            pair.send(Mail("a@example.org", parameters))
    pair.client.offered["XCLIENT"] = "NAME"
    with pytest.raises(LocalProtocolError, match="XCLIENT takes NAME"):
        pair.send(XClient({"HELO": "a"}))


@pytest.mark.parametrize(("keyword", "command"), VERBS)
@pytest.mark.rfc("1985 §5 not-within-a-transaction")
def test_these_verbs_are_for_between_transactions(keyword: str, command: Command) -> None:
    pair = greeted()
    pair.send(Mail("a@example.org"))
    with pytest.raises(LocalProtocolError, match="out of sequence"):
        pair.send(command)
    pair.server.receive_data(command.serialize())
    event = pair.server.next_event()
    assert isinstance(event, BadCommand)
    assert (event.reply.code, str(event.reply.status)) == (503, "5.5.1"), keyword


@pytest.mark.rfc(
    "3030 §3 body-may-be-binarymime",
    "3030 §3 needs-chunking",
    "3030 §3 no-binary-where-it-is-not-offered",
)
def test_binarymime_is_a_body_where_it_is_offered() -> None:
    mail = Mail("a@example.org", BODY("BINARYMIME"))
    pair = greeted()
    pair.send(mail)
    assert pair.server_events[-1] == mail
    pair = greeted([e for e in ALL if e.keyword != "CHUNKING"])
    assert "BINARYMIME" not in pair.client.offered
    with pytest.raises(LocalProtocolError):
        pair.send(mail)
    pair.server.receive_data(mail.serialize())
    event = pair.server.next_event()
    assert isinstance(event, BadCommand)
    assert event.reply == Reply(501, "5.5.4", "BODY=BINARYMIME is not offered")


def test_lines_may_be_as_much_longer_as_the_rfcs_say() -> None:
    """Each parameter at its longest, behind a MAIL or RCPT that takes all 512 octets itself."""
    longest = {
        "BY": b"BY=-999999999;NT",
        "HOLDFOR": b"HOLDFOR=999999999",
        "HOLDUNTIL": b"HOLDUNTIL=2014-04-03T23:01:00Z",
        "MT-PRIORITY": b"MT-PRIORITY=-9",
        "REQUIRETLS": b"REQUIRETLS",
        "SMTPUTF8": b"SMTPUTF8",
        "BODY": b"BODY=BINARYMIME",
        "SIZE": b"SIZE=" + b"9" * 20,
        "RET": b"RET=FULL",
        "ENVID": b"ENVID=" + b"+3D" * 100,
        "AUTH": b"AUTH=",
        "NOTIFY": b"NOTIFY=SUCCESS,FAILURE,DELAY",
        "ORCPT": b"ORCPT=rfc822;" + b"a" * 487,
        "RRVS": b"RRVS=2014-04-03T23:01:00+00:00;C",
    }
    for _, _, parameter, _ in PARAMETERS:
        written = longest[parameter.keyword]
        assert parameter.octets >= len(b" " + written)
        if parameter is not SUBMITTER:
            parameter.read(written.partition(b"=")[2] or None)


def test_the_table_has_a_row_for_each() -> None:
    table = support_table()
    head, rule, *rows = table.splitlines()
    assert [row.split("`")[1] for row in rows] == [e.keyword for e in STANDARD]
    assert {line.count("|") for line in (head, rule, *rows)} == {head.count("|")}
    assert "| `DSN` | 3461 | `RET` `ENVID` | `NOTIFY` `ORCPT` |" in table
