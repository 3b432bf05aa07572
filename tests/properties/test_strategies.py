"""The strategies themselves: all that is registered is spoken, and so is what others register."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from operator import is_
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import find as find_least
from hypothesis import strategies as st

from smtpproto import (
    STANDARD,
    Auth,
    BadCommand,
    Bdat,
    Chunk,
    Command,
    Data,
    Ehlo,
    EndOfContent,
    Extension,
    Mail,
    Parameter,
    Parameters,
    Quit,
    Rcpt,
    Reply,
    Rset,
    ServerConnection,
    StartTls,
)
from smtpproto.core import command as command_module
from smtpproto.core.answer import misleads
from smtpproto.core.command import BASE_VERBS, LMTP_VERBS, AuthResponse
from smtpproto.core.proxy import ProxyFamily
from smtpproto.core.state import Greeting, State, moves
from smtpproto.extensions import PIPELINING
from smtpproto.testing import strategies as smtp
from smtpproto.testing.pair import answer

from .ends import OFFER, make_server

T = TypeVar("T")


def find(made: st.SearchStrategy[T], fits: Callable[[T], object] = lambda _: True) -> T:
    """Find one that fits, whichever: it need not be the least."""
    quick = settings(max_examples=2000, phases=[Phase.generate], database=None)
    return find_least(made, lambda found: bool(fits(found)), settings=quick, random=Random(1))


def verbs() -> Iterator[type[Command]]:
    """Every class of commands that there is, in an order that does not change."""
    yield from dict.fromkeys([*BASE_VERBS.values(), *LMTP_VERBS.values(), AuthResponse])
    yield from (verb for extension in STANDARD for verb in extension.verbs)


PARAMETERS = [p for e in STANDARD for p in (*e.mail, *e.rcpt)]


@pytest.mark.parametrize("extension", STANDARD, ids=lambda e: e.keyword)
def test_every_extension_is_spoken(extension: Extension) -> None:
    """Whoever adds one to STANDARD registers what makes its values, its verbs and its line."""
    for parameter in (*extension.mail, *extension.rcpt):
        smtp.values_of(parameter)
    for verb in extension.verbs:
        smtp.commands_of(verb)
    if extension.mail or extension.rcpt:
        items = find(smtp.parameters_of(extension))
        assert set(items) <= {p.keyword for p in (*extension.mail, *extension.rcpt)}

    @settings(max_examples=10)
    @given(smtp.arguments_of(extension))
    def is_a_line(argument: str) -> None:
        Reply(250, None, ["server.example", f"{extension.keyword} {argument}"])

    is_a_line()


@pytest.mark.parametrize("verb", [*verbs()], ids=lambda v: v.__name__)
def test_every_command_is_made(verb: type[Command]) -> None:
    assert type(find(smtp.commands_of(verb))) is verb


def test_no_command_of_the_core_is_forgotten() -> None:
    named = [getattr(command_module, name) for name in command_module.__all__]
    # Those with a verb of their own are said; the others are what they are made of.
    said = {n for n in named if isinstance(n, type) and issubclass(n, Command) and n.verb}
    assert said <= {*verbs()}


@given(st.data(), st.sampled_from(PARAMETERS))
def test_values_are_such_as_their_parameter_takes(
    data: st.DataObject, parameter: Parameter[Any]
) -> None:
    value = data.draw(smtp.values_of(parameter))
    parameters = Parameters(parameter(value))
    assert parameter.of(Parameters.parse(parameters.serialize())) == value


@given(st.data(), st.booleans())
def test_commands_with_extensions_are_such_as_a_server_takes(
    data: st.DataObject, of_rcpt: bool
) -> None:
    """Nothing is wrong with the MAIL and RCPT that extensions make, where they are on offer."""
    utf8 = data.draw(st.booleans())
    server = make_server()
    server.tls_started()
    answer(server)
    begin = b"MAIL FROM:<> SMTPUTF8\r\n" if utf8 else b"MAIL FROM:<>\r\n"
    server.receive_data(b"EHLO c\r\n" + (begin if of_rcpt else b""))
    answer(server)
    rcpts, mails = smtp.rcpt_commands(OFFER, utf8=utf8), smtp.mail_commands(OFFER)
    command: Mail | Rcpt = data.draw(rcpts) if of_rcpt else data.draw(mails)
    assume(int(command.parameters.get("SIZE") or 0) <= 300)
    server.receive_data(command.serialize())
    assert server.next_event() == command


@given(st.data(), st.sampled_from([*verbs(), Greeting, Chunk(b"", last=True)]))
def test_replies_to_a_command_are_legal_somewhere(data: st.DataObject, asked: Any) -> None:
    reply = data.draw(smtp.replies_to(asked))
    kind = asked if isinstance(asked, type) else Bdat
    rows = [moves(state, kind) for state in State]
    assert any(row is not None and reply.severity in row for row in rows)
    assert reply.code >= 400 or not misleads(EndOfContent if kind is Bdat else kind, reply)


@pytest.mark.parametrize(
    "code", [2, 3, 4, 5], ids=["completion", "intermediate", "transient", "permanent"]
)
def test_replies_of_every_severity_are_found(code: int) -> None:
    find(smtp.replies_to(Auth), lambda reply: reply.code // 100 == code)


# What is meant to be found is found; a strategy that never makes it proves nothing.


def test_addresses_of_every_kind_are_found() -> None:
    for kind in (rb"\[IPv6:.*", rb"\[[0-9.]+\]", rb"\[(?!IPv6:)[^:]+:.*", rb"[^\[].*"):
        domains = smtp.mailboxes().map(lambda mailbox: mailbox.domain)
        assert re.fullmatch(kind, find(domains, re.compile(kind).fullmatch))
    find(smtp.mailboxes(), lambda mailbox: mailbox.serialize().startswith(b'"'))
    find(smtp.mailboxes(utf8=True), lambda mailbox: not mailbox.domain.isascii())
    find(smtp.mailboxes(utf8=True), lambda mailbox: not mailbox.local_part.isascii())
    find(smtp.forward_paths(), lambda path: not path.mailbox.domain)
    find(smtp.reverse_paths(), lambda path: path.mailbox is None)


def test_headers_of_every_kind_are_found() -> None:
    for version in (1, 2):
        for family in {*ProxyFamily} - ({ProxyFamily.UNIX} if version == 1 else set()):
            families = smtp.proxy_headers([version]).map(lambda header: header.family)
            assert find(families, partial(is_, family)) is family
    find(smtp.proxy_headers(), lambda header: header.checksum and bool(header.tlvs))


def test_sessions_of_every_kind_are_found() -> None:
    kinds: set[type] = set()

    @settings(max_examples=100, database=None, derandomize=True)
    @given(smtp.sessions(OFFER, tls=True))
    def gather(groups: list[smtp.Group]) -> None:
        kinds.update(type(thing) for group in groups for thing in group)

    gather()
    of_the_machine = {Ehlo, Mail, Rcpt, Data, Chunk, EndOfContent, Rset, Auth, StartTls, Quit}
    assert of_the_machine <= kinds


def test_without_pipelining_each_waits() -> None:
    @settings(max_examples=20)
    @given(smtp.transactions([]))
    def law(groups: list[smtp.Group]) -> None:
        assert all(len(g) == 1 for g in groups[:-1])

    law()


# An extension of somebody else's


class XPing(Command):
    """XPING: are you there?"""

    __slots__ = ()

    verb = b"XPING"

    @classmethod
    def parse(cls, argument: bytes) -> "XPing":
        return cls()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, XPing)

    def __hash__(self) -> int:
        return hash(XPing)


def _read(value: bytes | None) -> int:
    return int(value or b"0")


COLOUR: Parameter[int] = Parameter("XCOLOUR", _read, lambda colour: b"%d" % colour, octets=12)
XCOLOUR = Extension("XCOLOUR", mail=(COLOUR,), verbs=(XPing,), announce=lambda _: "7")


def test_what_is_not_registered_is_missed() -> None:
    silent = Extension("XSILENT", mail=(Parameter("XSILENT", _read, lambda n: b"%d" % n),))
    mute = Extension("XMUTE", verbs=(type("XMute", (XPing,), {}),))
    for extension in (silent, mute):
        with pytest.raises(LookupError, match=r"register\(\)"):
            smtp.commands((*STANDARD, extension))
    with pytest.raises(LookupError, match="XSILENT"):
        smtp.parameters_of(silent)


def test_an_extension_of_ones_own_is_spoken_once_it_is_registered() -> None:
    smtp.register(COLOUR, st.integers(0, 7))
    smtp.register(XPing, st.builds(XPing))
    known = (PIPELINING, XCOLOUR)
    found = find(smtp.mail_commands(known), lambda mail: COLOUR.of(mail.parameters) == 7)
    assert found.parameters["XCOLOUR"] == b"7"
    find(smtp.offers(known), lambda offer: offer.get("XCOLOUR") == "7")
    groups = find(smtp.sessions(known), lambda groups: [XPing()] in groups)
    server = ServerConnection("server.example", known)
    answer(server)
    server.receive_data(smtp.octets_of(groups))
    events, _ = answer(server)
    assert XPing() in events
    assert not any(isinstance(each, BadCommand) for each in events)
    smtp.register(XCOLOUR, st.just("0"))
    find(smtp.ehlo_replies([XCOLOUR]), lambda reply: b"XCOLOUR 0" in reply.lines)
