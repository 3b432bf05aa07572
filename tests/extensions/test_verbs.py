"""ETRN, XCLIENT, XFORWARD: the commands as values."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import Command, GrammarError, LocalProtocolError
from smtpproto.extensions.attributes import TEMPUNAVAIL, UNAVAILABLE
from smtpproto.extensions.etrn import Etrn, Queue
from smtpproto.extensions.xclient import XClient
from smtpproto.extensions.xforward import XForward

WRITTEN: list[tuple[Command, bytes]] = [
    (Etrn("sigurd.innosoft.com"), b"ETRN sigurd.innosoft.com"),  # RFC 1985 §7
    (Etrn("foo.com", Queue.SUBDOMAINS), b"ETRN @foo.com"),  # §5.3
    (Etrn("uucp", Queue.NAMED), b"ETRN #uucp"),  # §5.3
    (Etrn("com", Queue.SUBDOMAINS), b"ETRN @com"),  # §8: to refuse it is the server's decision
    (
        XForward({"NAME": "spike.porcupine.org", "ADDR": "168.100.189.2", "PROTO": "ESMTP"}),
        b"XFORWARD NAME=spike.porcupine.org ADDR=168.100.189.2 PROTO=ESMTP",
    ),
    (XForward({"ADDR": UNAVAILABLE}), b"XFORWARD ADDR=[UNAVAILABLE]"),
    (
        XForward({"SOURCE": "LOCAL", "IDENT": "3CF6B2AAE8"}),
        b"XFORWARD SOURCE=LOCAL IDENT=3CF6B2AAE8",
    ),
    (
        XClient({"NAME": TEMPUNAVAIL, "ADDR": "IPV6:2001:db8::1", "PORT": "65535"}),
        b"XCLIENT NAME=[TEMPUNAVAIL] ADDR=IPV6:2001:db8::1 PORT=65535",
    ),
    (XClient({"LOGIN": "jo=doe+x"}), b"XCLIENT LOGIN=jo+3Ddoe+2Bx"),
    (XClient({"helo": "a", "DESTADDR": "192.0.2.1"}), b"XCLIENT HELO=a DESTADDR=192.0.2.1"),
]


@pytest.mark.parametrize(("command", "line"), WRITTEN)
def test_written_and_read(command: Command, line: bytes) -> None:
    assert command.serialize() == line + b"\r\n"
    read = type(command).parse(line.partition(b" ")[2])
    assert (read, hash(read)) == (command, hash(command))


def test_names_and_unknowns_are_read_in_any_case() -> None:
    read = XClient.parse(b"name=[tempunavail]  helo=+41b proto=smtp")
    assert read == XClient({"NAME": TEMPUNAVAIL, "HELO": "Ab", "PROTO": "smtp"})
    assert read.attributes["HELO"] == b"Ab"


REFUSED: list[tuple[type[Command], list[bytes]]] = [
    (
        Etrn,
        [b"", b"localname", b"@", b"#", b"a b.c", b"@a..b", b".com", b"*.example", b"a.b\0"],
        # RFC 1985 §7: no argument, and a name that is not fully qualified
    ),
    (
        XClient,
        [b"", b"NAME", b"NAME=", b"NAME=a NAME=b", b"IDENT=a", b"PORT=65536", b"PORT=-1"],
    ),
    (XClient, [b"PORT=1_0", b"ADDR=[192.0.2.1]", b"ADDR=192.0.2.256", b"ADDR=2001:db8::1"]),
    (XClient, [b"ADDR=x:y", b"PROTO=LMTP", b"NAME=a+20b", b"NAME=+00", b"NAME=a=b", b"NAME=+C3"]),
    (XClient, [b"NAME=" + b"a" * 256, b"NAME=\xff", b"\xff=a", b"NAME=a\tHELO=b"]),
    (XForward, [b"LOGIN=a", b"SOURCE=HERE", b"NAME=<a>", b"HELO=a;b", b"PROTO=" + b"a" * 65]),
]


@pytest.mark.parametrize(("verb", "argument"), [(v, a) for v, all_ in REFUSED for a in all_])
def test_refused(verb: type[Command], argument: bytes) -> None:
    with pytest.raises(GrammarError) as caught:
        verb.parse(argument)
    # RFC 1985 §7 has 500 for an ETRN without an argument.
    code = (500, "5.5.2") if (verb, argument) == (Etrn, b"") else (501, "5.5.4")
    assert (caught.value.code, caught.value.status) == code


UNWRITABLE: list[Callable[[], Command]] = [
    lambda: Etrn(""),
    lambda: Etrn("localname"),
    lambda: Etrn("@foo.com"),
    lambda: Etrn("#uucp"),
    lambda: Etrn("foo.com\r\nRSET"),
    lambda: Etrn("f\u00fc.example"),
    lambda: Etrn("a b", Queue.NAMED),
    lambda: XClient({}),
    lambda: XClient({"IDENT": "a"}),
    lambda: XClient({"NAME": "a b"}),
    lambda: XClient({"NAME": "a\r\nRSET"}),
    lambda: XClient({"NAME": ""}),
    lambda: XClient({" NAME": "a"}),
    lambda: XClient({"NAME": "a", "name": "b"}),
    lambda: XClient({"NAME": "[unavailable]"}),
    lambda: XClient({"NAME=x HELO": "a"}),
    lambda: XClient({"NAME": "\u00fc"}),
    lambda: XClient({"\ud800": "a"}),
    lambda: XForward({"NAME": "a" * 256}),
    lambda: XForward({"SOURCE": "HERE"}),
]


@pytest.mark.parametrize("make", UNWRITABLE)
def test_what_a_caller_gives_and_nothing_can_write(make: Callable[[], Command]) -> None:
    with pytest.raises(LocalProtocolError):
        make()


NEAR = st.lists(
    st.sampled_from(
        [*XClient.rules, *XForward.rules, "=", " ", "+41", "[UNAVAILABLE]", "@", "a.b"]
    ).map(str.encode)
    | st.binary(max_size=3),
    max_size=9,
).map(b"".join)


@given(st.sampled_from([Etrn, XClient, XForward]), NEAR)
def test_any_argument_is_read_or_a_grammar_error(verb: type[Command], argument: bytes) -> None:
    try:
        command = verb.parse(argument)
    except GrammarError:
        return
    assert verb.parse(command.argument()) == command
