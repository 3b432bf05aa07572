"""Canonical form: parse(serialize(x)) == x, and all that is accepted has one way to be written."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from smtpproto import (
    STANDARD,
    AuthResponse,
    Command,
    EnhancedStatus,
    ForwardPath,
    Mailbox,
    Parameter,
    Reply,
    ReversePath,
)
from smtpproto.core.command import BASE_VERBS, LMTP_VERBS, parse_command
from smtpproto.core.content import DotReader, DotWriter
from smtpproto.core.errors import GrammarError
from smtpproto.core.parameter import Parameters
from smtpproto.core.proxy import ProxyHeader
from smtpproto.extensions.futurerelease import Horizon
from smtpproto.extensions.limits import Maxima
from smtpproto.testing import strategies as smtp

T = TypeVar("T")
VERBS = {**BASE_VERBS, **LMTP_VERBS, **{verb.verb: verb for e in STANDARD for verb in e.verbs}}
COMMANDS = st.one_of(
    smtp.commands(), smtp.commands(STANDARD, lmtp=True), smtp.mail_commands(STANDARD)
)


def parse(line: bytes) -> Command:
    return parse_command(line, VERBS)


@given(COMMANDS, st.data())
def test_command(command: Command, data: st.DataObject) -> None:
    wire = command.serialize()
    assert wire.count(b"\r") == wire.count(b"\n") == 1
    for line in (wire.removesuffix(b"\r\n"), data.draw(smtp.command_spellings(command))):
        read = parse(line)
        assert read == command
        assert hash(read) == hash(command)
        assert read.serialize() == wire


@given(smtp.auth_responses())
def test_auth_response(response: AuthResponse) -> None:
    wire = response.serialize()
    assert AuthResponse.parse(wire.removesuffix(b"\r\n")) == response


@given(smtp.replies(utf8=True), st.data())
def test_reply(reply: Reply, data: st.DataObject) -> None:
    wire = reply.serialize()
    assert wire.count(b"\r") == wire.count(b"\n") == len(reply.lines)
    for octets in (wire, data.draw(smtp.reply_spellings(reply))):
        assert Reply.parse(octets) == reply
        assert Reply.parse(octets).serialize() == wire


@given(smtp.mailboxes(utf8=True), st.data())
def test_mailbox(mailbox: Mailbox, data: st.DataObject) -> None:
    for octets in (mailbox.serialize(), data.draw(smtp.mailbox_spellings(mailbox))):
        read = Mailbox.parse(octets)
        assert read == mailbox
        assert read.serialize() == mailbox.serialize()
    assert Mailbox.of(str(mailbox)) == mailbox


@given(smtp.reverse_paths(utf8=True), st.data())
def test_reverse_path(path: ReversePath, data: st.DataObject) -> None:
    for octets in (path.serialize(), data.draw(smtp.path_spellings(path))):
        assert ReversePath.read(octets) == (path, len(octets))
    assert str(path).encode() == path.serialize()


@given(smtp.forward_paths(utf8=True), st.data())
def test_forward_path(path: ForwardPath, data: st.DataObject) -> None:
    for octets in (path.serialize(), data.draw(smtp.path_spellings(path))):
        assert ForwardPath.read(octets) == (path, len(octets))
    assert str(path).encode() == path.serialize()


@given(smtp.parameters())
def test_parameters(items: dict[str, bytes | None]) -> None:
    parameters = Parameters(items)
    assert Parameters.parse(parameters.serialize()) == parameters
    assert dict(parameters) == items


@pytest.mark.parametrize("class_", [2, 4, 5])
def test_status(class_: int) -> None:
    @given(smtp.enhanced_statuses(class_))
    def law(status: EnhancedStatus) -> None:
        assert EnhancedStatus.parse(str(status)) == status

    law()


@given(smtp.horizons(), smtp.maxima())
def test_what_stands_behind_a_keyword(horizon: Horizon, maxima: Maxima) -> None:
    assert Horizon.parse(horizon.serialize()) == horizon
    assert Maxima.parse(maxima.serialize()) == maxima


@given(smtp.clean_content(), st.data())
def test_content(content: bytes, data: st.DataObject) -> None:
    writer, reader = DotWriter(), DotReader()
    pieces = data.draw(smtp.cuttings(content)) if content else []
    wire = b"".join(map(writer.feed, pieces)) + writer.finish()
    assert wire == DotWriter().feed(content) + b"\r\n" * (not _ends(content)) + b".\r\n"
    body, behind = reader.feed(wire)
    assert reader.ended
    assert not reader.bare
    assert behind == 0
    assert body == content + b"\r\n" * (not _ends(content))


def _ends(content: bytes) -> bool:
    return not content or content.endswith(b"\r\n")


# What nobody wrote in our way, and we read nevertheless


def canonical(read: Callable[[bytes], T], write: Callable[[T], bytes], octets: bytes) -> None:
    """What is accepted is written so that it reads back equal, and is written so again."""
    try:
        value = read(octets)
    except GrammarError:
        event("refused")
        return
    wire = write(value)
    event("read as it is written" if wire == octets else "read, and written otherwise")
    assert read(wire) == value
    assert write(read(wire)) == wire


def _line(command: Command) -> bytes:
    return command.serialize().removesuffix(b"\r\n")


@given(smtp.mutations(COMMANDS.flatmap(smtp.command_spellings), 1))
def test_commands_as_others_write_them(line: bytes) -> None:
    canonical(parse, _line, line)


@given(smtp.mutations(smtp.auth_responses().map(_line), 1))
def test_auth_responses_as_others_write_them(line: bytes) -> None:
    canonical(AuthResponse.parse, _line, line)


@given(smtp.mutations(smtp.replies(utf8=True).flatmap(smtp.reply_spellings), 1))
def test_replies_as_others_write_them(octets: bytes) -> None:
    canonical(Reply.parse, Reply.serialize, octets)


@given(smtp.mutations(smtp.mailboxes(utf8=True).flatmap(smtp.mailbox_spellings), 1))
def test_mailboxes_as_others_write_them(octets: bytes) -> None:
    canonical(Mailbox.parse, Mailbox.serialize, octets)


@given(smtp.proxy_octets())
def test_headers_as_others_write_them(octets: bytes) -> None:
    canonical(ProxyHeader.parse, ProxyHeader.serialize, octets)


@given(st.sampled_from([p for e in STANDARD for p in (*e.mail, *e.rcpt)]), st.data())
def test_values_as_others_write_them(parameter: Parameter[Any], data: st.DataObject) -> None:
    written = parameter.write(data.draw(smtp.values_of(parameter)))
    if written is None:
        assert parameter.write(parameter.read(None)) is None
        return
    octets = data.draw(smtp.mutations(st.sampled_from([written, written.lower()]), 1))
    canonical(parameter.read, lambda value: parameter.write(value) or b"", octets)
