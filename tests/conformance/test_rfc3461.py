"""RFC 3461: which reports a sender asks for, and what the relay reports without being asked.

The values of the four parameters are held in tests/extensions/test_values.py, xtext in
test_xtext.py beside it, what a report looks like in tests/relay/test_report.py. Here are the two
ends on the wire, and the relay where NOTIFY has its say.
"""

import re
from pathlib import Path

import pytest
from attrs import evolve

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Ehlo,
    LocalProtocolError,
    Mail,
    Mailbox,
    Parameters,
    Rcpt,
    Reply,
    ServerConnection,
)
from smtpproto.core.command import BASE_VERBS, Command, parse_command
from smtpproto.core.xtext import decode_xtext, encode_xtext
from smtpproto.extensions import DSN, EIGHTBITMIME, SIZE, SMTPUTF8
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
from smtpproto.extensions.rrvs import RRVS
from smtpproto.relay.mailboxes.mailbox import listed_mailboxes
from smtpproto.relay.reports.story import Delivered, Failed, Reported
from smtpproto.testing import Pair
from tests.conformance.ends import MAIL as THEN_MAIL
from tests.conformance.ends import agreed, client_after, say, server_after
from tests.relay.test_delivery import the_report
from tests.relay.world import MESSAGE, Node, world

pytestmark = pytest.mark.anyio

OFFERED = (evolve(DSN, obliges=""),)
MAIL = b"MAIL FROM:<a@b>"
RCPT = b"RCPT TO:<c@d>"


def in_transaction() -> Pair:
    """Both ends behind MAIL, where DSN is offered."""
    pair = Pair(ServerConnection("mx.example", STANDARD, offer=(DSN,)), ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    pair.send(Mail("a@b"))
    return pair


def heard(*commands: Command) -> list[Command]:
    """What the server's caller sees of these, behind EHLO; all of them are answered well."""
    pair = in_transaction()
    pair.server_events.clear()
    for command in commands:
        (reply,) = pair.send(command)
        assert isinstance(reply, Reply)
        assert reply.code == 250
    assert all(isinstance(event, Command) for event in pair.server_events)
    return [event for event in pair.server_events if isinstance(event, Command)]


def taken(line: bytes) -> Command:
    """What a server that offers DSN makes of a line, behind MAIL if it is RCPT."""
    server = server_after(b"EHLO c.example\r\n" if line.startswith(b"MAIL") else THEN_MAIL, OFFERED)
    server.receive_data(line + b"\r\n")
    event = server.next_event()
    assert isinstance(event, (Mail, Rcpt))
    return event


def answered(line: bytes, code: int = 250) -> bytes:
    """What is answered to a line by a server that says this code wherever it may choose."""
    server = server_after(b"EHLO c.example\r\n" if line.startswith(b"MAIL") else THEN_MAIL, OFFERED)
    said = Reply(code, None, "so be it")
    return say(
        server,
        line + b"\r\n",
        lambda server, event: event.reply if isinstance(event, BadCommand) else said,
    )


# --- §3: the extension -----------------------------------------------------------------------


@pytest.mark.rfc("3461 §3 keyword-is-dsn", "3461 §3 client-finds-out-by-ehlo")
def test_it_is_announced_by_its_keyword_alone() -> None:
    said = say(server_after(extensions=OFFERED), b"EHLO c.example\r\n")
    assert said.endswith(b"\r\n250 DSN\r\n")
    assert client_after(said).offered == {"DSN": ""}
    assert DSN.verbs == ()


@pytest.mark.rfc("3461 §5 who-offers-it-takes-on-all-duties")
def test_it_is_offered_only_by_who_asks_for_it() -> None:
    assert DSN.obliges
    assert "DSN" not in ServerConnection("mx.example", STANDARD).offered
    assert "DSN" in ServerConnection("mx.example", STANDARD, offer=(DSN,)).offered


@pytest.mark.rfc("3461 §3 client-finds-out-by-ehlo", "3461 §5.2.2 no-parameters-where-not-offered")
@pytest.mark.parametrize(
    "parameters", [RET(Ret.HDRS), ENVID(b"QQ"), NOTIFY(NEVER), ORCPT(OriginalRecipient("x", b"y"))]
)
def test_where_it_is_not_offered_the_client_sends_none_of_its_parameters(
    parameters: dict[str, bytes | None],
) -> None:
    pair = Pair(ServerConnection("mx.example", (SIZE,)), ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    is_for_mail = parameters.keys() <= {"RET", "ENVID"}
    if not is_for_mail:
        pair.send(Mail("a@b"))
    with pytest.raises(LocalProtocolError, match="does not offer DSN"):
        pair.client.send(Mail("a@b", parameters) if is_for_mail else Rcpt("c@d", parameters))


@pytest.mark.rfc(
    "3461 §3 notify-is-taken-with-rcpt",
    "3461 §3 client-may-ask-what-is-returned",
    "3461 §3 original-recipient-may-be-another",
    "3461 §4 parameters-follow-the-path",
    "3461 §4.1 rcpt-may-have-notify",
    "3461 §4.2 orcpt-parameter",
    "3461 §4.2 original-recipient-address",
    "3461 §4.4 envid-parameter",
)
def test_what_the_client_asks_the_server_reads() -> None:
    pair = Pair(ServerConnection("mx.example", STANDARD, offer=(DSN,)), ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    pair.send(Mail("a@b", RET(Ret.FULL) | ENVID(b"Q 1")))
    first = OriginalRecipient("rfc822", b"A+B@C.example")
    pair.send(Rcpt("a@d.e", NOTIFY({Notify.SUCCESS, Notify.DELAY}) | ORCPT(first)))
    assert pair.to_server.endswith(
        b"MAIL FROM:<a@b> RET=FULL ENVID=Q+201\r\n"
        b"RCPT TO:<a@d.e> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;A+2BB@C.example\r\n"
    )
    mail, rcpt = pair.server_events[-2:]
    assert isinstance(mail, Mail)
    assert isinstance(rcpt, Rcpt)
    assert (RET.of(mail.parameters), ENVID.of(mail.parameters)) == (Ret.FULL, b"Q 1")
    assert NOTIFY.of(rcpt.parameters) == {Notify.SUCCESS, Notify.DELAY}
    assert ORCPT.of(rcpt.parameters) == first
    assert rcpt.forward_path.mailbox == Mailbox("a", "d.e")


@pytest.mark.rfc("3461 §4 parameters-follow-the-path", "3461 §4.1 rcpt-may-have-notify")
def test_all_of_it_may_be_left_out() -> None:
    (rcpt,) = heard(Rcpt("c@d"))
    assert isinstance(rcpt, Rcpt)
    assert NOTIFY.of(rcpt.parameters) is None
    assert ORCPT.of(rcpt.parameters) is None


# --- §4: values ------------------------------------------------------------------------------


@pytest.mark.rfc("3461 §4 parentheses-are-no-comments")
def test_what_stands_in_parentheses_belongs_to_the_value() -> None:
    mail = taken(MAIL + b" ENVID=a(b)c")
    assert isinstance(mail, Mail)
    assert ENVID.of(mail.parameters) == b"a(b)c"
    with_comment = answered(RCPT + b" NOTIFY=DELAY(please)")
    assert with_comment.startswith(b"501")


@pytest.mark.rfc("3461 §4 xchar", "3461 §4 xchar-is-written-as-itself")
def test_every_visible_character_but_two_stands_for_itself() -> None:
    octets = bytes(octet for octet in range(33, 127) if octet not in b"+=")
    assert encode_xtext(octets) == octets
    assert decode_xtext(octets) == octets


@pytest.mark.rfc("3461 §4 values-are-in-xtext", "3461 §4.2 address-is-in-xtext")
@pytest.mark.parametrize("octets", [b"a b", b"1+1=2", b"\t", b"=20"])
def test_any_printable_characters_get_through(octets: bytes) -> None:
    pair = Pair(ServerConnection("mx.example", STANDARD, offer=(DSN,)), ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    pair.send(Mail("a@b", ENVID(octets)))
    mail = pair.server_events[-1]
    assert isinstance(mail, Mail)
    assert ENVID.of(mail.parameters) == octets
    pair.send(Rcpt("c@d", ORCPT(OriginalRecipient("x-odd", octets))))
    rcpt = pair.server_events[-1]
    assert isinstance(rcpt, Rcpt)
    assert ORCPT.of(rcpt.parameters) == OriginalRecipient("x-odd", octets)


@pytest.mark.rfc(
    "3461 §4.1 notify-esmtp-value",
    "3461 §4.1 notify-list-element",
    "3461 §4.1 several-elements-may-be-listed",
    "3461 §4.1 letters-are-of-any-case",
)
@pytest.mark.parametrize(
    ("value", "notify"),
    [
        (b"NEVER", set()),
        (b"SUCCESS", {Notify.SUCCESS}),
        (b"FAILURE", {Notify.FAILURE}),
        (b"DELAY", {Notify.DELAY}),
        (b"DELAY,SUCCESS", {Notify.SUCCESS, Notify.DELAY}),
        (b"SUCCESS,FAILURE,DELAY", set(Notify)),
        (b"nEvEr", set()),
        (b"success,Failure,dELAY", set(Notify)),
    ],
)
def test_values_of_notify(value: bytes, notify: set[Notify]) -> None:
    rcpt = taken(RCPT + b" NOTIFY=" + value)
    assert isinstance(rcpt, Rcpt)
    assert NOTIFY.of(rcpt.parameters) == notify


@pytest.mark.rfc("3461 §4.2 addr-type", "3461 §4.2 address-need-not-fit-its-type")
@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b"rfc822;no address at all".replace(b" ", b"+20"), ("rfc822", b"no address at all")),
        (b"rfc822;@@", ("rfc822", b"@@")),
        (b"x400;", ("x400", b"")),
        (b"a!#$%&'*+-/?^_`{|}~9;x", ("a!#$%&'*+-/?^_`{|}~9", b"x")),
    ],
)
def test_original_recipients_of_any_type(value: bytes, read: tuple[str, bytes]) -> None:
    rcpt = taken(RCPT + b" ORCPT=" + value)
    assert isinstance(rcpt, Rcpt)
    assert ORCPT.of(rcpt.parameters) == OriginalRecipient(*read)


@pytest.mark.rfc("3461 §4.2 characters-are-kept-as-the-sender-wrote-them")
def test_no_letter_of_an_original_recipient_is_changed() -> None:
    line = RCPT + b" ORCPT=rfc822;Bob.OBrien+2BNews@Example.COM\r\n"
    assert Rcpt.parse(line[5:-2]).serialize() == line
    rcpt = taken(line[:-2])
    assert isinstance(rcpt, Rcpt)
    original = ORCPT.of(rcpt.parameters)
    assert original is not None
    assert original.text == "Bob.OBrien+News@Example.COM"
    assert Rcpt("c@d", ORCPT(original)).serialize() == line


@pytest.mark.rfc(
    "3461 §4.3 ret-is-full-or-hdrs",
    "3461 §4.3 letters-are-of-any-case",
    "3461 §4.3 mail-may-have-ret",
)
@pytest.mark.parametrize(
    ("value", "ret"),
    [(b"FULL", Ret.FULL), (b"HDRS", Ret.HDRS), (b"full", Ret.FULL), (b"hDrS", Ret.HDRS)],
)
def test_values_of_ret(value: bytes, ret: Ret) -> None:
    mail = taken(MAIL + b" RET=" + value)
    assert isinstance(mail, Mail)
    assert RET.of(mail.parameters) == ret


WRONG = [
    pytest.param(
        MAIL + b" RET",
        marks=pytest.mark.rfc("3461 §4.3 ret-needs-a-value"),
    ),
    pytest.param(
        MAIL + b" RET=BODY",
        marks=pytest.mark.rfc("3461 §4.3 ret-is-full-or-hdrs", "3461 §5.1 bad-ret-or-envid-is-501"),
    ),
    pytest.param(MAIL + b" ENVID", marks=pytest.mark.rfc("3461 §4.4 envid-needs-a-value")),
    pytest.param(
        MAIL + b" ENVID=a+b",
        marks=pytest.mark.rfc(
            "3461 §4.4 envid-parameter", "3461 §5.1 bad-ret-or-envid-is-501", "3461 §4 hexchar"
        ),
    ),
    pytest.param(MAIL + b" ENVID=a+07", marks=pytest.mark.rfc("3461 §4.4 envid-is-printable")),
    pytest.param(MAIL + b" ENVID=+C3+BC", marks=pytest.mark.rfc("3461 §4.4 envid-is-printable")),
    pytest.param(RCPT + b" NOTIFY", marks=pytest.mark.rfc("3461 §4.1 notify-needs-a-value")),
    pytest.param(
        RCPT + b" NOTIFY=ALWAYS",
        marks=pytest.mark.rfc(
            "3461 §4.1 notify-list-element", "3461 §5.1 bad-notify-or-orcpt-is-501"
        ),
    ),
    pytest.param(
        RCPT + b" NOTIFY=NEVER,DELAY",
        marks=pytest.mark.rfc("3461 §4.1 never-stands-alone", "3461 §4.1 notify-esmtp-value"),
    ),
    pytest.param(
        RCPT + b" NOTIFY=DELAY;SUCCESS", marks=pytest.mark.rfc("3461 §4.1 notify-esmtp-value")
    ),
    pytest.param(RCPT + b" ORCPT", marks=pytest.mark.rfc("3461 §4.2 orcpt-needs-a-value")),
    pytest.param(
        RCPT + b" ORCPT=rfc822",
        marks=pytest.mark.rfc(
            "3461 §4.2 original-recipient-address", "3461 §5.1 bad-notify-or-orcpt-is-501"
        ),
    ),
    pytest.param(RCPT + b" ORCPT=;a@b", marks=pytest.mark.rfc("3461 §4.2 addr-type")),
    pytest.param(RCPT + b" ORCPT=a.b;a@b", marks=pytest.mark.rfc("3461 §4.2 addr-type")),
    pytest.param(RCPT + b" ORCPT=a(b;a@b", marks=pytest.mark.rfc("3461 §4.2 addr-type")),
    pytest.param(
        RCPT + b" ORCPT=rfc822;a+2b",
        marks=pytest.mark.rfc("3461 §4.2 address-is-in-xtext", "3461 §4 hexchar"),
    ),
    pytest.param(
        RCPT + b" ORCPT=rfc822;a+07", marks=pytest.mark.rfc("3461 §4.2 address-is-printable")
    ),
    pytest.param(
        RCPT + b" ORCPT=rfc822;+C3+BC", marks=pytest.mark.rfc("3461 §4.2 address-is-printable")
    ),
    pytest.param(
        MAIL + b" RET=FULL RET=FULL",
        marks=pytest.mark.rfc(
            "3461 §4.5 second-in-mail-is-501", "3461 §5.1 second-ret-or-envid-is-501"
        ),
    ),
    pytest.param(
        MAIL + b" ENVID=a RET=FULL envid=b",
        marks=pytest.mark.rfc(
            "3461 §4.5 second-in-mail-is-501", "3461 §5.1 second-ret-or-envid-is-501"
        ),
    ),
    pytest.param(
        RCPT + b" NOTIFY=DELAY NOTIFY=DELAY",
        marks=pytest.mark.rfc(
            "3461 §4.5 second-in-rcpt-is-501", "3461 §5.1 second-notify-or-orcpt-is-501"
        ),
    ),
    pytest.param(
        RCPT + b" ORCPT=x;a NOTIFY=DELAY orcpt=x;a",
        marks=pytest.mark.rfc(
            "3461 §4.5 second-in-rcpt-is-501", "3461 §5.1 second-notify-or-orcpt-is-501"
        ),
    ),
]


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_501_and_no_caller_can_change_that(line: bytes) -> None:
    server = server_after(b"EHLO c.example\r\n" if line.startswith(b"MAIL") else THEN_MAIL, OFFERED)
    server.receive_data(line + b"\r\n")
    event = server.next_event()
    assert isinstance(event, BadCommand)
    assert (event.reply.code, str(event.reply.status)) == (501, "5.5.4")
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250))


@pytest.mark.parametrize("line", WRONG[:-4])  # the last four nobody can make
def test_a_client_that_is_given_the_same_sends_nothing(line: bytes) -> None:
    client = client_after(b"250-mx.example\r\n250 DSN\r\n")
    if line.startswith(b"RCPT"):
        agreed(client, Mail("a@b"))
    with pytest.raises(LocalProtocolError):
        client.send(parse_command(line, BASE_VERBS))
    assert client.owed == 0


@pytest.mark.rfc("3461 §4.2 address-is-printable", "3461 §4.4 envid-is-printable")
@pytest.mark.parametrize("octets", [b"a\r\n", b"\x00", b"\x7f", "ü".encode()])
def test_a_client_writes_what_is_printable(octets: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        ENVID(octets)
    with pytest.raises(LocalProtocolError):
        OriginalRecipient("rfc822", octets)


@pytest.mark.rfc("3461 §4.5 once-in-mail", "3461 §4.5 once-in-rcpt")
@pytest.mark.parametrize("keyword", ["RET", "ENVID", "NOTIFY", "ORCPT"])
def test_a_client_cannot_say_one_twice(keyword: str) -> None:
    with pytest.raises(LocalProtocolError):
        Parameters({keyword: b"FULL", keyword.lower(): b"FULL"})


# --- §5.1: the same answer -------------------------------------------------------------------


@pytest.mark.rfc(
    "3461 §5.1 mail-is-answered-as-without",
    "3461 §5.1 ret-and-envid-are-no-reason-to-refuse",
    "3461 §4.4 envid-has-no-meaning",
)
@pytest.mark.parametrize("code", [250, 451, 550])
@pytest.mark.parametrize("parameters", [b"RET=FULL", b"RET=HDRS ENVID=QQ314159", b"ENVID=+3C+3E"])
def test_mail_is_answered_as_it_would_be_without_them(parameters: bytes, code: int) -> None:
    assert answered(MAIL + b" " + parameters, code) == answered(MAIL, code)
    assert answered(MAIL, code).startswith(b"%d" % code)


@pytest.mark.rfc(
    "3461 §5.1 rcpt-is-answered-as-without",
    "3461 §5.1 notify-and-orcpt-are-no-reason-to-refuse",
)
@pytest.mark.parametrize("code", [250, 450, 550])
@pytest.mark.parametrize("parameters", [b"NOTIFY=NEVER", b"ORCPT=x;y", b"NOTIFY=DELAY ORCPT=x;y"])
def test_rcpt_is_answered_as_it_would_be_without_them(parameters: bytes, code: int) -> None:
    assert answered(RCPT + b" " + parameters, code) == answered(RCPT, code)
    assert answered(RCPT, code).startswith(b"%d" % code)


# --- §5.4: sizes -----------------------------------------------------------------------------


@pytest.mark.rfc("3461 §5.4 envid-of-100", "3461 §4.4 envid-of-100")
def test_an_envelope_id_of_a_hundred_characters() -> None:
    mail = taken(MAIL + b" ENVID=" + b"a" * 100)
    assert isinstance(mail, Mail)
    assert ENVID.of(mail.parameters) == b"a" * 100
    assert answered(MAIL + b" ENVID=" + b"a" * 101).startswith(b"501")
    assert ENVID(b"a" * 100)
    with pytest.raises(LocalProtocolError):
        ENVID(b"a" * 101)


@pytest.mark.rfc("3461 §5.4 orcpt-of-500", "3461 §4.2 orcpt-of-500")
def test_an_original_recipient_of_five_hundred_characters() -> None:
    written = b"ORCPT=rfc822;" + b"a" * 487
    assert len(written) == 500
    rcpt = taken(RCPT + b" " + written)
    assert isinstance(rcpt, Rcpt)
    assert ORCPT.of(rcpt.parameters) == OriginalRecipient("rfc822", b"a" * 487)
    assert answered(RCPT + b" " + written + b"a").startswith(b"501")
    assert Rcpt("c@d", ORCPT(OriginalRecipient("rfc822", b"a" * 487))).serialize() == (
        RCPT + b" " + written + b"\r\n"
    )
    with pytest.raises(LocalProtocolError):
        ORCPT(OriginalRecipient("rfc822", b"a" * 488))


#: Of the type utf-8 and 500 octets in all, written as RFC 6533 §3 has it.
LONGEST_IN_UTF8 = [
    "é" * 244,
    "\U00010348" * 122,
    "中" * 162,
    r"\x{F6}" * 81,
    r"\x{5C}" * 40 + "é" * 124,
]


@pytest.mark.rfc("3461 §5.4 orcpt-of-500", "3461 §4.2 orcpt-of-500")
@pytest.mark.parametrize("written", LONGEST_IN_UTF8, ids=lambda written: ascii(written[:8]))
def test_500_octets_of_utf8_are_taken_and_can_be_passed_on(written: str) -> None:
    written += "x" * (500 - len(b"ORCPT=utf-8;" + written.encode()))
    line = f"RCPT TO:<c@d> ORCPT=utf-8;{written}".encode()
    offer = (*OFFERED, EIGHTBITMIME, evolve(SMTPUTF8, obliges=""))
    server = server_after(THEN_MAIL.replace(b">", b"> SMTPUTF8"), offer)
    assert say(server, line + b"x\r\n").startswith(b"501 ")  # 501 octets
    server.receive_data(line + b"\r\n")
    rcpt = server.next_event()
    assert isinstance(rcpt, Rcpt)
    original = ORCPT.of(rcpt.parameters)
    assert original is not None
    meant = re.sub(r"\\x\{(..)\}", lambda found: chr(int(found[1], 16)), written)
    assert original == OriginalRecipient("utf-8", meant)
    again = Parameters(ORCPT(original))
    assert ORCPT.of(again) == original
    assert len(again.serialize()) <= 501


@pytest.mark.rfc("3461 §4.2 orcpt-of-500")
def test_a_long_original_recipient_goes_in_utf8_where_that_may_pass() -> None:
    """82 letters are too many as `\\x{E9}`, and 164 octets as they are (RFC 6533 §3)."""
    short, long = (OriginalRecipient("utf-8", "é" * letters) for letters in (81, 82))
    assert ORCPT(short) == {"ORCPT": rb"utf-8;" + rb"\x{E9}" * 81}
    assert ORCPT(long) == {"ORCPT": b"utf-8;" + "é".encode() * 82}
    assert ORCPT(OriginalRecipient("utf-8", "é" * 242))
    with pytest.raises(LocalProtocolError):
        ORCPT(OriginalRecipient("utf-8", "é" * 245))
    with_utf8 = b"250-mx.example\r\n250-DSN\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
    asking, other = client_after(with_utf8), client_after(with_utf8)
    agreed(asking, Mail("a@b", {"SMTPUTF8": None}))
    assert len(asking.send(Rcpt("c@d", ORCPT(long)))) < 512
    agreed(other, Mail("a@b"))
    with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
        other.send(Rcpt("c@d", ORCPT(long)))
    assert other.send(Rcpt("c@d", ORCPT(short))).isascii()


@pytest.mark.rfc("3461 §5.4 notify-of-28", "3461 §5.4 ret-of-8")
def test_the_longest_of_the_others() -> None:
    for line, length in ((RCPT + b" NOTIFY=SUCCESS,FAILURE,DELAY", 28), (MAIL + b" RET=FULL", 8)):
        assert len(line.rpartition(b" ")[2]) == length
        assert answered(line).startswith(b"250")


#: The longest of RFC 5321 with spaces before the parameters, and then both at their longest.
LONGEST = (
    RCPT
    + b" " * (512 - len(RCPT) - 2)
    + b" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;"
    + b"a" * 487
    + b"\r\n"
)


@pytest.mark.rfc("3461 §5.4 line-of-1036")
def test_the_line_of_rcpt_may_be_530_octets_longer() -> None:
    server = server_after(THEN_MAIL, OFFERED)
    assert len(LONGEST) == 512 + 530
    assert say(server, LONGEST).startswith(b"250")
    assert say(server, LONGEST.replace(b" NOTIFY", b"  NOTIFY")).startswith(b"500")


@pytest.mark.rfc("3461 §5.4 line-has-room-for-all-extensions")
def test_the_line_is_longer_by_what_every_extension_needs() -> None:
    line = LONGEST.replace(b"\r\n", b" RRVS=2014-04-03T23:01:00+00:00;C\r\n")
    assert say(server_after(THEN_MAIL, OFFERED), line).startswith(b"500")
    server = server_after(THEN_MAIL, (*OFFERED, evolve(RRVS, obliges="")))
    assert say(server, line).startswith(b"250")


# --- §5.2, §6: the relay ---------------------------------------------------------------------

SENDER = "ann@our.dom"


async def put(node: Node, sender: str, *rcpts: Rcpt) -> None:
    """Put a message into the spool, past the listeners: these offer no DSN."""
    async with node.spool.receive() as incoming:
        await incoming.write(MESSAGE)
        mail = Mail(sender, RET(Ret.FULL) | ENVID(b"QQ314159"))
        await incoming.commit(mail, rcpts, now=node.world.now, origin="test")
    node.relay.dispatcher.wake()


def rcpt(address: str, value: bytes | None = None) -> Rcpt:
    return Rcpt(address, {} if value is None else {"NOTIFY": value})


@pytest.mark.rfc(
    "3461 §5.2.2 failure-asked-for-is-reported",
    "3461 §5.2.2 never-is-not-reported",
    "3461 §5.2.2 failure-without-notify-is-reported",
    "3461 §5.2.6 failure-asked-for-is-reported",
    "3461 §5.2.6 failure-not-asked-for-is-not-reported",
    "3461 §5.2.6 failure-without-notify-is-reported",
    "3461 §5.2.8 report-names-only-who-is-owed-one",
    "3461 §6.3 status-without-better-is-5-0-0",
    "3461 §4.3 full-returns-the-message",
    "3461 §6.2 full-message-goes-back-on-failure",
)
async def test_the_report_names_those_whose_notify_wants_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "ext.example", {"RCPT": "550 nobody"})
        node = await w.node("relay.example")
        await put(
            node,
            SENDER,
            rcpt("plain@ext.example"),
            rcpt("asked@ext.example", b"success,failure"),
            rcpt("never@ext.example", b"NEVER"),
            rcpt("other@ext.example", b"SUCCESS,DELAY"),
        )
        await node.until(Failed, 4)
        report, (_, *theirs) = await the_report(node)
        assert report["To"] == SENDER
        *_, original = report.iter_parts()
        assert original.get_content_type() == "message/rfc822"
        assert ".dots and words" in original.as_string()
        assert [(group["Final-Recipient"], group["Status"]) for group in theirs] == [
            ("rfc822; plain@ext.example", "5.0.0"),
            ("rfc822; asked@ext.example", "5.0.0"),
        ]


@pytest.mark.rfc("3461 §5.2.2 never-is-not-reported", "3461 §4.1 never-asks-for-no-report")
async def test_where_nobody_wants_a_report_there_is_none(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "ext.example", {"RCPT": "550 nobody"})
        node = await w.node("relay.example")
        await put(node, SENDER, rcpt("never@ext.example", b"NEVER"))
        (reported,) = await node.until(Reported)
        assert reported.report == ""
        assert await node.queue() == []
        assert node.files() == []


@pytest.mark.rfc(
    "3461 §5.2.2 success-without-notify-is-not-reported",
    "3461 §5.2.3 success-not-asked-for-is-not-reported",
    "3461 §5.2.3 success-without-notify-is-not-reported",
)
async def test_success_is_not_reported_to_who_does_not_ask(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example")
        await put(
            node,
            SENDER,
            rcpt("v@ext.example"),
            rcpt("v@our.dom"),
            rcpt("w@our.dom", b"FAILURE,DELAY"),
        )
        await node.until(Delivered, 3)
        await node.stop()
        assert node.told(Reported) == []
        assert node.mail(SENDER) == []


@pytest.mark.rfc("3461 §5.2.2 no-parameters-where-not-offered")
async def test_no_parameter_goes_to_a_server_that_does_not_offer_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=())
        node = await w.node("relay.example")
        await put(node, SENDER, rcpt("v@ext.example", b"NEVER"))
        await node.until(Delivered)
        assert host.lines[1:3] == [f"MAIL FROM:<{SENDER}>", "RCPT TO:<v@ext.example>"]


@pytest.mark.rfc(
    "3461 §5.2.1 no-envid-is-made-up",
    "3461 §5.2.1 no-ret-is-made-up",
    "3461 §5.2.1 no-notify-is-made-up",
)
async def test_nothing_is_asked_for_that_the_sender_did_not_ask_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=("DSN",))
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        await node.until(Delivered)
        assert host.lines[1:3] == [f"MAIL FROM:<{SENDER}>", "RCPT TO:<v@ext.example>"]


@pytest.mark.rfc(
    "3461 §6.1 report-has-the-null-reverse-path",
    "3461 §6.1 report-goes-to-the-reverse-path",
    "3461 §6.1 report-has-no-ret",
)
async def test_a_report_goes_from_nobody_to_the_reverse_path(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=("DSN",))
        node = await w.node("relay.example", policy=listed_mailboxes(["ann"]))
        await put(node, "Sam@ext.example", rcpt("gone@our.dom"))
        await node.until(Delivered)
        assert host.lines[1:3] == ["MAIL FROM:<>", "RCPT TO:<Sam@ext.example> NOTIFY=NEVER"]
        assert b"multipart/report" in host.contents[0]
