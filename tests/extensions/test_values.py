"""The typed values of parameters, held to the ABNF and the examples of their RFCs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import STANDARD, GrammarError, LocalProtocolError, Mailbox, Parameter, Parameters
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
from smtpproto.extensions.eightbitmime import BODY
from smtpproto.extensions.futurerelease import HOLDFOR, HOLDUNTIL, Horizon
from smtpproto.extensions.limits import Maxima, limits
from smtpproto.extensions.mt_priority import PRIORITY, mt_priority
from smtpproto.extensions.requiretls import REQUIRE_TLS
from smtpproto.extensions.rrvs import VALID_SINCE, NoSupport, ValidSince
from smtpproto.extensions.smtputf8 import UTF8
from smtpproto.extensions.values import read_date_time, write_date_time

S, F, D = Notify.SUCCESS, Notify.FAILURE, Notify.DELAY
APRIL = datetime(2014, 4, 3, 23, 1, 0, tzinfo=UTC)
INDIA = timezone(timedelta(hours=5, minutes=30))

# Parameter, typed value, octets as we write them.
CANONICAL: list[tuple[Parameter[Any], Any, bytes | None]] = [
    (RET, Ret.HDRS, b"HDRS"),  # RFC 3461 §10.1
    (RET, Ret.FULL, b"FULL"),
    (ENVID, b"QQ314159", b"QQ314159"),  # RFC 3461 §10.1
    (ENVID, b"a b\t+=", b"a+20b+09+2B+3D"),
    (ENVID, b"=" * 100, b"+3D" * 100),
    (NOTIFY, NEVER, b"NEVER"),
    (NOTIFY, {S}, b"SUCCESS"),
    (NOTIFY, {S, F}, b"SUCCESS,FAILURE"),
    (NOTIFY, {D, F}, b"FAILURE,DELAY"),
    (NOTIFY, {S, D, F}, b"SUCCESS,FAILURE,DELAY"),
    (ORCPT, OriginalRecipient("rfc822", b"Bob@Example.COM"), b"rfc822;Bob@Example.COM"),  # §10.1
    (ORCPT, OriginalRecipient("rfc822", b"a+b=c@d"), b"rfc822;a+2Bb+3Dc@d"),
    (ORCPT, OriginalRecipient("x400", b"/S=Jo Doe/"), b"x400;/S+3DJo+20Doe/"),
    (ORCPT, OriginalRecipient("rfc822", b""), b"rfc822;"),  # xtext may be empty
    (ORCPT, OriginalRecipient("utf-8", "jö@ex.example"), rb"utf-8;j\x{F6}@ex.example"),
    (
        ORCPT,
        OriginalRecipient("utf-8", "\U0001f600+=\\ @x"),
        rb"utf-8;\x{1F600}\x{2B}\x{3D}\x{5C}\x{20}@x",
    ),
    (  # as it is where it would be too long in ASCII
        ORCPT,
        OriginalRecipient("utf-8", "ö" * 81 + "+ @x"),
        b"utf-8;" + "ö".encode() * 81 + rb"\x{2B}\x{20}@x",
    ),
    (SUBMITTER, Submitter(Mailbox.parse("e=mc2@example.com")), b"e+3Dmc2@example.com"),  # §5.1
    (SUBMITTER, Submitter(None), b"<>"),  # RFC 4954 §5.1
    (BY, DeliverBy(120, ByMode.RETURN), b"120;R"),  # RFC 2852 §6
    (BY, DeliverBy(-5, ByMode.NOTIFY, trace=True), b"-5;NT"),
    (BY, DeliverBy(0, ByMode.NOTIFY), b"0;N"),
    (BY, DeliverBy(999_999_999, ByMode.RETURN, trace=True), b"999999999;RT"),
    (HOLDFOR, 1, b"1"),
    (HOLDFOR, 999_999_999, b"999999999"),
    (HOLDUNTIL, APRIL, b"2014-04-03T23:01:00Z"),
    (HOLDUNTIL, APRIL.replace(microsecond=500_000), b"2014-04-03T23:01:00.500000Z"),
    *((PRIORITY, n, str(n).encode()) for n in range(-9, 10)),
    (REQUIRE_TLS, True, None),
    (UTF8, True, None),
    (VALID_SINCE, ValidSince(APRIL), b"2014-04-03T23:01:00Z"),  # RFC 7293 §13
    (VALID_SINCE, ValidSince(APRIL, NoSupport.CONTINUE), b"2014-04-03T23:01:00Z;C"),
    (
        VALID_SINCE,
        ValidSince(APRIL.replace(tzinfo=INDIA), NoSupport.REJECT),
        b"2014-04-03T23:01:00+05:30;R",
    ),
    (BODY, "7BIT", b"7BIT"),
    (BODY, "8BITMIME", b"8BITMIME"),
    (BODY, "BINARYMIME", b"BINARYMIME"),  # RFC 3030 §3
]


@pytest.mark.parametrize(("parameter", "value", "octets"), CANONICAL)
def test_written_and_read(parameter: Parameter[Any], value: Any, octets: bytes | None) -> None:
    assert parameter(value) == {parameter.keyword: octets}
    parameters = Parameters(parameter(value))
    assert parameter.of(Parameters.parse(parameters.serialize())) == value
    assert parameter.write(parameter.read(octets)) == octets


# Wider than what we write, and what it is read as.
READ: list[tuple[Parameter[Any], bytes, Any]] = [
    (RET, b"hDrS", Ret.HDRS),  # §4.3: any combination of cases
    (NOTIFY, b"never", NEVER),
    (NOTIFY, b"Delay,success", {S, D}),
    (NOTIFY, b"SUCCESS,SUCCESS", {S}),
    (NOTIFY, b",SUCCESS,,DELAY,", {S, D}),  # RFC 822 §2.7: null elements
    (ENVID, b"+41bc", b"Abc"),
    (ORCPT, b"RFC822;A+42", OriginalRecipient("rfc822", b"AB")),
    (ORCPT, "utf-8;jö@x".encode(), OriginalRecipient("UTF-8", "jö@x")),  # utf-8-addr-unitext
    (ORCPT, b"utf-8;j+C3+B6@x", OriginalRecipient("utf-8", "jö@x")),
    (SUBMITTER, b"+3C+3E", Submitter(None)),
    (SUBMITTER, b'"a+20b"@x.example', Submitter(Mailbox("a b", "x.example"))),
    (BY, b"+120;rt", DeliverBy(120, ByMode.RETURN, trace=True)),
    (BY, b"-0;n", DeliverBy(0, ByMode.NOTIFY)),
    (BY, b"007;N", DeliverBy(7, ByMode.NOTIFY)),
    (HOLDUNTIL, b"2014-04-03t23:01:00z", APRIL),
    (HOLDUNTIL, b"2014-04-03T23:01:00+00:00", APRIL),
    (HOLDUNTIL, b"2014-04-03T23:01:00-00:00", APRIL),
    (HOLDUNTIL, b"2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
    (HOLDUNTIL, b"2014-04-03T23:01:00.0000001Z", APRIL),
    (VALID_SINCE, b"2014-04-03T23:01:00z;c", ValidSince(APRIL, NoSupport.CONTINUE)),
    (BODY, b"8bitMime", "8BITMIME"),
]


@pytest.mark.parametrize(("parameter", "octets", "value"), READ)
def test_read_wider(parameter: Parameter[Any], octets: bytes, value: Any) -> None:
    assert parameter.read(octets) == value


REFUSED: list[tuple[Parameter[Any], list[bytes | None]]] = [
    (RET, [None, b"", b"BODY", b"FULL,HDRS", b"FULL\n", b"\xff"]),
    (ENVID, [None, b"", b"a=b", b"+0A", b"+C3+BC", b"+2b", b"a" * 101, b"+3D" * 101]),
    (
        NOTIFY,
        [None, b"", b",", b"NEVER,SUCCESS", b"NEVER,", b"ALWAYS", b"SUCCESS;DELAY", b"\xff"],
    ),
    (
        ORCPT,
        [
            None,
            b"",
            b"rfc822",
            b";a@b",
            b"rfc 822;a@b",
            b"rfc822;a@b+0D+0A",
            b"rfc822;+C3+BC",
            b"rfc822;\xc3\xbc",
            b"r(c;a@b",
            b"r\xc3\xbcc;a@b",
            b"rfc822;a+2b",
            b"utf-8;+FF",
            b"utf-8;\xff",
            rb"utf-8;\x{D800}",
            rb"utf-8;\x{110000}",
            rb"utf-8;\x{0A}",
            b"rfc822;" + b"a" * 488,
            b"utf-8;" + "é".encode() * 245,
            # No utf-8-addr-xtext, and too long as one, so that nobody could pass it on.
            b"utf-8;" + b"\\" * 82,
            b"utf-8;" + b"+2B" * 82,
        ],
    ),
    (
        SUBMITTER,
        [None, b"", b"jo", b"<a@b>", b"a@b+0A", b"a@b c", b"a=b@c", b"+C3+BC@x", b"@x:a@b"],
    ),
    (
        BY,
        [
            None,
            b"",
            b"120",
            b"120;",
            b"120;X",
            b"120;RTT",
            b"0;R",
            b"-1;R",
            b"1234567890;N",
            b"1_0;N",
            b"--1;N",
            b"12 ;N",
            b"\xd9\xa3;N",
            b"120;TR",
            b"120;N\n",
        ],
    ),
    (HOLDFOR, [None, b"", b"0", b"01", b"-1", b"+1", b"1234567890", b"1_0", b"1.5", b"1\n"]),
    (
        HOLDUNTIL,
        [
            None,
            b"",
            b"2014-04-03",
            b"2014-04-03T23:01Z",
            b"2014-04-03T23:01:00",
            b"2014-04-03T23:01:00+05:30",
            b"2014-02-30T00:00:00Z",
            b"0000-01-01T00:00:00Z",
            b"2014-04-03T24:00:00Z",
            b"2014-04-03T23:00:61Z",
            b"2014-04-03T12:00:60Z",
            b"2014-04-03T23:01:00.Z",
            b"9999-12-31T23:59:60Z",
            b"20140403T230100Z",
            b"2014-04-03 23:01:00Z",
        ],
    ),
    (PRIORITY, [None, b"", b"10", b"-10", b"+1", b"-0", b"01", b"1.0", b"\xd9\xa3", b"1\n"]),
    (REQUIRE_TLS, [b"", b"YES"]),
    (UTF8, [b"", b"1"]),
    (
        VALID_SINCE,
        [
            None,
            b"",
            b";C",
            b"2014-04-03T23:01:00Z;",
            b"2014-04-03T23:01:00Z;X",
            b"2014-04-03T23:01:00.5Z",
            b"2014-04-03T23:01:00Z;C;R",
            b"2014-04-03T23:01:00+24:00",
            b"2014-04-03T23:01:00Z;\xff",
            b"2014-13-03T23:01:00Z",
        ],
    ),
    (BODY, [None, b"", b"9BIT", b"8BITMIME\n", b"BINARY"]),
]


@pytest.mark.parametrize(
    ("parameter", "octets"), [(p, octets) for p, all_of_them in REFUSED for octets in all_of_them]
)
def test_refused(parameter: Parameter[Any], octets: bytes | None) -> None:
    with pytest.raises(GrammarError) as caught:
        parameter.read(octets)
    status = "5.5.2" if parameter is PRIORITY else "5.5.4"  # RFC 6710 §4.1
    assert (caught.value.code, caught.value.status) == (501, status)
    assert str(caught.value).isascii()


UNWRITABLE: list[Callable[[], object]] = [
    lambda: ENVID(b""),
    lambda: ENVID(b"a" * 101),
    lambda: ENVID(b"a\r\nRCPT"),
    lambda: ENVID("ü".encode()),
    lambda: OriginalRecipient("rfc 822", b"a@b"),
    lambda: OriginalRecipient("", b"a@b"),
    lambda: OriginalRecipient("\ud800", b"a@b"),
    lambda: OriginalRecipient("rfc822", "ü@b"),
    lambda: OriginalRecipient("rfc822", b"a\r\n"),
    lambda: OriginalRecipient("utf-8", b"\xff"),
    lambda: OriginalRecipient("utf-8", b"a\x00"),
    lambda: ORCPT(OriginalRecipient("rfc822", b"a" * 488)),
    lambda: DeliverBy(0, ByMode.RETURN),
    lambda: DeliverBy(10**9, ByMode.NOTIFY),
    lambda: HOLDFOR(0),
    lambda: HOLDFOR(10**9),
    lambda: HOLDUNTIL(APRIL.replace(tzinfo=None)),
    lambda: HOLDUNTIL(datetime(1, 1, 1, tzinfo=INDIA)),
    lambda: PRIORITY(10),
    lambda: REQUIRE_TLS(False),
    lambda: UTF8(False),
    lambda: VALID_SINCE(ValidSince(APRIL.replace(tzinfo=None))),
    lambda: VALID_SINCE(ValidSince(APRIL.replace(microsecond=1))),
    lambda: VALID_SINCE(ValidSince(APRIL.replace(tzinfo=timezone(timedelta(seconds=1))))),
    lambda: BODY("9BIT"),
    lambda: deliverby(-1),
    lambda: deliverby(10**9),
    lambda: mt_priority("a b"),
    lambda: mt_priority("x" * 21),
    lambda: Horizon(0, APRIL),
    lambda: Horizon(1, APRIL.replace(tzinfo=None)),
    lambda: Maxima(mail=0),
    lambda: Maxima(rcpt=10**6),
]


@pytest.mark.parametrize("make", UNWRITABLE)
def test_what_a_caller_gives_and_nothing_can_write(make: Callable[[], object]) -> None:
    with pytest.raises(LocalProtocolError):
        make()


def test_holduntil_is_written_in_utc() -> None:
    local = APRIL.astimezone(INDIA)
    assert HOLDUNTIL(local) == {"HOLDUNTIL": b"2014-04-03T23:01:00Z"}


@given(st.datetimes(timezones=st.sampled_from([UTC, INDIA, timezone(-timedelta(hours=23))])))
def test_date_times_come_back(moment: datetime) -> None:
    read = read_date_time(write_date_time(moment))
    assert (read, read.utcoffset()) == (moment, moment.utcoffset())


@given(st.sets(st.sampled_from(Notify)))
def test_notify_comes_back(notify: set[Notify]) -> None:
    assert NOTIFY.of(Parameters(NOTIFY(notify))) == notify


@given(st.text(max_size=40))
def test_original_recipients_come_back(address: str) -> None:
    for addr_type in ("utf-8", "rfc822"):
        try:
            recipient = OriginalRecipient(addr_type, address)
            parameters = Parameters(ORCPT(recipient))
        except LocalProtocolError:
            continue
        assert ORCPT.of(parameters) == recipient
        assert recipient.text == address
        assert (parameters["ORCPT"] or b"").isascii()


def test_no_original_recipient_is_read_that_cannot_be_written() -> None:
    r"""Found by fuzzing: a bare `\` is read, and takes six octets where it stands as it should."""
    for count, written in ((81, 498), (82, None)):
        value = b"utf-8;" + b"\\" * count
        if written is None:
            with pytest.raises(GrammarError):
                ORCPT.read(value)
        else:
            recipient = ORCPT.read(value)
            assert recipient == OriginalRecipient("utf-8", b"\\" * count)
            (again,) = ORCPT(recipient).values()
            assert again == b"utf-8;" + rb"\x{5C}" * count
            assert len("ORCPT=") + len(again or b"") == written


@pytest.mark.rfc("3461 §4.2 addr-type-is-registered")
def test_an_original_recipient_of_a_mailbox() -> None:
    assert OriginalRecipient.of(Mailbox("a+b", "x.example")) == OriginalRecipient(
        "rfc822", b"a+b@x.example"
    )


ALL = [p for e in STANDARD for p in e.mail + e.rcpt]
# Octets that come close to something, so that more than the first check is reached.
NEAR = st.lists(
    st.sampled_from([o[i : i + 4] for _, _, o in CANONICAL if o for i in range(0, len(o), 2)])
    | st.binary(max_size=3),
    max_size=8,
).map(b"".join)


@given(st.sampled_from(ALL), st.none() | NEAR)
def test_any_octets_are_read_or_a_grammar_error(
    parameter: Parameter[Any], octets: bytes | None
) -> None:
    try:
        value = parameter.read(octets)
    except GrammarError:
        return
    assert parameter.read(parameter.write(value)) == value


# What stands behind the keyword in the EHLO reply


@pytest.mark.rfc(
    "2852 §2 deliverby-param",
    "2852 §2 min-by-time",
    "2852 §2 unknown-options-are-no-hindrance",
)
@pytest.mark.parametrize(
    ("argument", "least"),
    [("", None), ("240", 240), ("240,X,y-z", 240), (",X", None), ("a", None), ("1234567890", None)],
)
def test_min_by_time(argument: str, least: int | None) -> None:
    assert min_by_time(argument) == least


@pytest.mark.rfc(
    "4865 §3 two-limits-stand-behind-it",
    "4865 §3 max-future-release-interval",
    "4865 §3 max-future-release-date-time",
)
def test_horizon() -> None:
    horizon = Horizon(86400, APRIL)
    assert horizon.serialize() == "86400 2014-04-03T23:01:00Z"
    assert Horizon.parse(horizon.serialize()) == horizon
    for wrong in ("", "86400", "0 2014-04-03T23:01:00Z", "86400 tomorrow", "\xe9"):
        with pytest.raises(GrammarError):
            Horizon.parse(wrong)


@pytest.mark.rfc("9422 §3")
def test_maxima() -> None:
    maxima = Maxima(mail=20, rcpt=100, rcpt_domain=1)
    assert maxima.serialize() == "MAILMAX=20 RCPTMAX=100 RCPTDOMAINMAX=1"
    assert Maxima.parse(maxima.serialize()) == maxima
    assert Maxima.parse("rcptmax=5 NEWMAX=3 MAILMAX=0 RCPTDOMAINMAX=1234567 X") == Maxima(rcpt=5)
    assert Maxima.parse("RCPTMAX=\u0663 MAILMAX=1_0") == Maxima()
    assert limits(Maxima()).keyword == "LIMITS"


@given(st.text(max_size=40))
def test_a_strange_limits_line_is_passed_over(argument: str) -> None:
    maxima = Maxima.parse(argument)
    assert Maxima.parse(maxima.serialize()) == maxima


@given(st.text(max_size=40))
def test_a_strange_futurerelease_line_is_a_grammar_error(argument: str) -> None:
    try:
        horizon = Horizon.parse(argument)
    except GrammarError:
        return
    assert Horizon.parse(horizon.serialize()) == horizon
