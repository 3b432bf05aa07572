"""parse(serialize(x)) == x, and what is written is canonical: written again, it is the same."""

import pytest
from hypothesis import given

from smtpproto import (
    STANDARD,
    AuthResponse,
    Command,
    EnhancedStatus,
    ForwardPath,
    Mailbox,
    Reply,
    ReversePath,
)
from smtpproto.core.command import BASE_VERBS, parse_command
from smtpproto.core.content import DotReader, DotWriter
from smtpproto.core.parameter import Parameters
from smtpproto.testing import strategies as smtp

VERBS = dict(BASE_VERBS) | {verb.verb: verb for e in STANDARD for verb in e.verbs}


@given(smtp.commands())
def test_command(command: Command) -> None:
    wire = command.serialize()
    read = parse_command(wire.removesuffix(b"\r\n"), VERBS)
    assert read == command
    assert hash(read) == hash(command)
    assert read.serialize() == wire
    assert wire.count(b"\r") == wire.count(b"\n") == 1


@given(smtp.auth_responses())
def test_auth_response(response: AuthResponse) -> None:
    wire = response.serialize()
    assert AuthResponse.parse(wire.removesuffix(b"\r\n")) == response


@given(smtp.replies())
def test_reply(reply: Reply) -> None:
    wire = reply.serialize()
    assert Reply.parse(wire) == reply
    assert Reply.parse(wire).serialize() == wire
    assert wire.count(b"\r") == wire.count(b"\n") == len(reply.lines)


@given(smtp.mailboxes())
def test_mailbox(mailbox: Mailbox) -> None:
    read = Mailbox.parse(mailbox.serialize())
    assert read == mailbox
    assert read.serialize() == mailbox.serialize()
    assert Mailbox.of(str(mailbox)) == mailbox


@given(smtp.reverse_paths())
def test_reverse_path(path: ReversePath) -> None:
    wire = path.serialize()
    assert ReversePath.read(wire) == (path, len(wire))
    assert str(path).encode() == wire


@given(smtp.forward_paths())
def test_forward_path(path: ForwardPath) -> None:
    wire = path.serialize()
    assert ForwardPath.read(wire) == (path, len(wire))
    assert str(path).encode() == wire


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


@given(smtp.clean_content())
def test_content(content: bytes) -> None:
    writer, reader = DotWriter(), DotReader()
    body, behind = reader.feed(writer.feed(content) + writer.finish())
    assert reader.ended
    assert not reader.bare
    assert behind == 0
    assert body in {content, content + b"\r\n"}
    assert body.endswith(b"\r\n") or not body
