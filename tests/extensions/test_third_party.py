"""examples/extension.py: an extension that nobody here knows, in one file, works on both ends."""

import importlib.util
import pathlib
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
from attrs import frozen

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Command,
    Ehlo,
    Extension,
    LocalProtocolError,
    Mail,
    Parameter,
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


def test_keywords_are_given_in_any_case(example: ModuleType) -> None:
    ticket = Parameter("xticket", example.read_ticket, example.TICKET.write)
    mine = Extension("xticket", mail=[ticket], verbs=[example.XStatus], needs=["pipelining"])
    known = (*STANDARD, mine)
    pair = Pair(ServerConnection("mx.example", known), ClientConnection(known))
    pair.send(Ehlo("c.example"))
    assert "XTICKET" in pair.client.offered
    pair.send(example.XStatus(7))
    (reply,) = pair.send(Mail("a@example.org", ticket(7)))
    assert isinstance(reply, Reply)
    assert reply.code == 250


@frozen
class XEcho(Command):
    """What it says is anything at all."""

    verb = b"XECHO"
    text: bytes

    def argument(self) -> bytes:
        return self.text


class XLower(XEcho):
    verb = b"xlower"


class XLatin(XEcho):
    verb = b"X\xc9CHO"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Extension("X TICKET"),
        lambda: Extension(""),
        lambda: Extension("X\r\n250 Y"),
        lambda: Extension("XTICKET", needs=("8bit mime",)),
        lambda: Extension("XLOWER", verbs=(XLower,)),
        lambda: Extension("XLATIN", verbs=(XLatin,)),
        lambda: Parameter("X_TICKET", int, str),  # type: ignore[arg-type]  # never called
    ],
)
def test_what_is_no_keyword_and_no_verb(make: Callable[[], object]) -> None:
    with pytest.raises(LocalProtocolError):
        make()


@pytest.mark.parametrize("text", [b"a\r\nRSET", b"a\rb", b"a\nb", b"a\0b", b"a\x7fb"])
def test_no_verb_of_an_extension_is_two_lines(text: bytes) -> None:
    client = ClientConnection((Extension("XECHO", verbs=(XEcho,)),))
    client.receive_data(b"220 mx.example\r\n")
    client.next_event()
    client.send(Ehlo("c.example"))
    client.receive_data(b"250-mx.example\r\n250 XECHO\r\n")
    client.next_event()
    with pytest.raises(LocalProtocolError):
        client.send(XEcho(text))
    assert client.send(XEcho(b"a b")) == b"XECHO a b\r\n"
