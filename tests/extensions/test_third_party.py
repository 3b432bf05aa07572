"""examples/extension.py: an extension that nobody here knows, in one file, works on both ends."""

import importlib.util
import pathlib
import sys
from types import ModuleType

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Ehlo,
    LocalProtocolError,
    Mail,
    Reply,
    ServerConnection,
)
from smtpproto.testing import Pair, suggested

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "extension.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_extension", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_it_runs(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    example.main()
    said = capsys.readouterr().out
    assert "XTICKET" in said
    assert "250 2.0.0 Ticket 4711 is open" in said
    assert "250 2.1.0 Sender ok, for ticket 4711" in said


def test_both_ends_know_it(example: ModuleType) -> None:
    known = (*STANDARD, example.XTICKET)
    status = example.XStatus(7)

    def policy(server: ServerConnection, event: object) -> Reply:
        return Reply(250, None, "open") if event == status else server.suggested_reply()

    pair = Pair(ServerConnection("mx.example", known), ClientConnection(known), policy=policy)
    pair.send(Ehlo("c.example"))
    replies = pair.send(status) + pair.send(Mail("a@example.org", example.TICKET(7)))
    assert [reply.code for reply in replies if isinstance(reply, Reply)] == [250, 250]
    *_, asked, mail = pair.server_events
    assert asked == status
    assert isinstance(mail, Mail)
    assert example.TICKET.of(mail.parameters) == 7
    for wrong in (b"XSTAT 0\r\n", b"XSTAT\r\n", b"XSTAT 1_0\r\n"):
        pair.server.receive_data(wrong)
        refused = pair.server.next_event()
        assert isinstance(refused, BadCommand)
        assert refused.reply.code == 501
        pair.server.send(refused.reply)


def test_it_is_not_sent_to_who_does_not_know_it(example: ModuleType) -> None:
    client = ClientConnection((*STANDARD, example.XTICKET))
    pair = Pair(ServerConnection("mx.example", STANDARD), client, policy=suggested)
    pair.send(Ehlo("c.example"))
    for command in (example.XStatus(7), Mail("a@example.org", example.TICKET(7))):
        with pytest.raises(LocalProtocolError, match="does not offer XTICKET"):
            pair.send(command)
