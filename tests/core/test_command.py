"""What a caller may put into a command."""

from collections.abc import Callable
from typing import Any

import pytest

from smtpproto import (
    Auth,
    Bdat,
    Command,
    Data,
    Ehlo,
    Expn,
    GrammarError,
    Helo,
    Help,
    LocalProtocolError,
    Mail,
    Mailbox,
    Noop,
    Quit,
    Rcpt,
    Reply,
    ReversePath,
    Vrfy,
)
from smtpproto.core.command import BASE_VERBS, parse_command
from smtpproto.core.parameter import Parameters
from smtpproto.extensions.eightbitmime import BODY
from smtpproto.extensions.size import SIZE_OCTETS

BAD_OCTETS = [*map(chr, range(0x20)), "\r\n", "\x7f", "\ud800"]
BEYOND_ASCII = ["\x80", "é", "\u2028"]


@pytest.mark.parametrize("bad", BAD_OCTETS)
@pytest.mark.parametrize(
    "make",
    [
        Ehlo,
        Helo,
        Noop,
        Help,
        Vrfy,
        Expn,
        Mail,
        Rcpt,
        Auth,
        lambda text: Mail("a@b", {"KEY": text}),
        lambda text: Mail("a@b", {text: None}),
        lambda text: Rcpt(Mailbox(text, "b.example")),
        lambda text: Rcpt(Mailbox("b", text)),
    ],
)
def test_no_argument_breaks_out(make: Callable[[str], object], bad: str) -> None:
    for text in (f"a@b{bad}", f"a{bad}b@c", f"a{bad}QUIT"):
        with pytest.raises(LocalProtocolError):
            make(text)


@pytest.mark.rfc("6531 §3.7.1 name-in-ehlo-is-ascii")
@pytest.mark.parametrize("bad", BEYOND_ASCII)
@pytest.mark.parametrize(
    "make",
    [Ehlo, Helo, Noop, Help, Auth, lambda text: Mail("a@b", {text: None})],
)
def test_only_addresses_and_queries_go_beyond_ascii(
    make: Callable[[str], object], bad: str
) -> None:
    for text in (f"a@b{bad}", f"a{bad}b@c", f"a{bad}QUIT"):
        with pytest.raises(LocalProtocolError):
            make(text)
    value = Parameters({"KEY": f"a{bad}"})
    for asking in (Mail(f"a{bad}b@c"), Rcpt(f"a@b{bad}"), Vrfy(f"a{bad}"), Expn(bad), value):
        assert not asking.is_ascii
    assert Mail("a@b").is_ascii
    assert Mail(None).is_ascii
    assert Rcpt("Postmaster").is_ascii


@pytest.mark.rfc("5321 §4.1.2 esmtp-param")
@pytest.mark.parametrize(
    "items",
    [
        {"": None},
        {"-A": None},
        {"A=B": None},
        {"A=B": "C"},
        {"A B": None},
        {"A": ""},
        {"A": "b=c"},
        {"A": "b c"},
        {"A": 1, "a": 2},
        {"A": True},
        {"A": False},
    ],
)
def test_no_parameters(items: dict[str, str | int | None]) -> None:
    with pytest.raises(LocalProtocolError):
        Parameters(items)


def test_parameters_are_a_mapping() -> None:
    one, other = Parameters({"size": 1, "X": None}), Parameters({"X": None, "SIZE": b"1"})
    assert one == other
    assert hash(one) == hash(other)
    assert one != {"SIZE": b"1", "X": None}
    assert (len(one), list(one), one["X"]) == (2, ["SIZE", "X"], None)
    assert repr(one) == "Parameters({'SIZE': b'1', 'X': None})"
    assert one.serialize() == b" SIZE=1 X"
    assert Mail(None, {"AUTH": "<>"}).serialize() == b"MAIL FROM:<> AUTH=<>\r\n"


def test_typed_parameters() -> None:
    assert SIZE_OCTETS(10) | BODY("8BITMIME") == {"SIZE": b"10", "BODY": b"8BITMIME"}
    assert SIZE_OCTETS.of(Parameters({"SIZE": 7})) == 7
    assert SIZE_OCTETS.of(Parameters()) is None
    for value in (-1, 10**20):
        with pytest.raises(LocalProtocolError):
            SIZE_OCTETS(value)
    with pytest.raises(LocalProtocolError):
        BODY("9BIT")


@pytest.mark.rfc("5321 §4.1.1.6 vrfy", "5321 §4.1.1.7 expn")
def test_a_query_asks_for_something() -> None:
    for make in (Vrfy, Expn):
        with pytest.raises(LocalProtocolError):
            make("")
    assert Noop().serialize() == b"NOOP\r\n"
    assert Help("me").serialize() == b"HELP me\r\n"


def test_values_are_values() -> None:
    assert Data() == Data()
    assert len({Quit(), Data(), Quit()}) == 2
    assert len({Mail("a@b"), Mail("a@B"), Mail(ReversePath.of("a@b"))}) == 1
    for name in ("", "x y", "x_y", "x."):
        with pytest.raises(LocalProtocolError):
            Ehlo(name)
    with pytest.raises(NotImplementedError):
        Command.parse(b"")
    with pytest.raises(LocalProtocolError):
        Noop(" x")


@pytest.mark.parametrize(
    "make",
    [
        Ehlo,
        Noop,
        Vrfy,
        lambda octets: Mail(Mailbox(octets, "b")),
        lambda octets: Rcpt(Mailbox("a", octets)),
        lambda octets: Mail("a@b", {"X": octets}),
        lambda octets: Reply(250, None, [octets]),
    ],
)
def test_what_was_judged_does_not_change(make: Callable[[Any], Command | Reply]) -> None:
    octets = bytearray(b"host")
    thing = make(octets)
    octets[:] = b"x\r\nRSET"
    assert thing.serialize().count(b"\r\n") == 1
    assert b"host" in thing.serialize()
    hash(thing)


@pytest.mark.parametrize("size", [-1, 10**20])
def test_a_chunk_has_a_size(size: int) -> None:
    with pytest.raises(LocalProtocolError):
        Bdat(size)
    assert Bdat.parse(b"99999999999999999999").serialize() == b"BDAT 99999999999999999999\r\n"


def test_a_text_of_any_letters_is_written_and_read_as_it_is() -> None:
    for command in (Noop("X"), Noop("Xmas X"), Vrfy("X"), Vrfy("Xaver X")):
        assert parse_command(command.serialize()[:-2], BASE_VERBS) == command
    for make in (Noop, Vrfy):
        for text in (" X", "X "):
            with pytest.raises(LocalProtocolError):
                make(text)


def test_spaces_around_a_text_are_no_part_of_it() -> None:
    assert parse_command(b"NOOP   a  b ", BASE_VERBS) == Noop("a  b")
    assert parse_command(b"VRFY   a  b ", BASE_VERBS) == Vrfy("a  b")
    assert parse_command(b"VRFY   X  SMTPUTF8", BASE_VERBS) == Vrfy("X", smtputf8=True)


@pytest.mark.parametrize("line", [b"NOOP \tX", b"VRFY \tX", b"VRFY a\tb"])
def test_a_tab_is_tolerated_at_the_end_alone(line: bytes) -> None:
    with pytest.raises(GrammarError):
        parse_command(line, BASE_VERBS)
    parse_command(line.replace(b"\t", b"") + b"\t", BASE_VERBS)


@pytest.mark.rfc("5321 §2.3.8 nothing-else-is-taken-for-a-line-end")
@pytest.mark.parametrize("octet", [b"\r", b"\n", b"\0"])
@pytest.mark.parametrize("line", [b"NOOP a%bb", b"RSET %b", b"MAIL FROM:<a@b>%b", b"VRFY a%b"])
def test_a_bare_line_end_or_nul_in_a_command_is_a_syntax_error(line: bytes, octet: bytes) -> None:
    with pytest.raises(GrammarError) as caught:
        parse_command(line % octet, BASE_VERBS)
    assert (caught.value.code, caught.value.status) == (501, "5.5.2")


def test_a_parameter_that_is_not_there_is_what_the_caller_says() -> None:
    parameters = Parameters({"A": "1", "B": None})
    assert parameters.get("A", b"x") == b"1"
    assert parameters.get("B", b"x") is None
    assert parameters.get("C", b"x") == b"x"
    assert parameters.get("C") is None


def test_a_command_is_written_once() -> None:
    command = Mail("a@b.example")
    assert command.serialize() is command.serialize()
