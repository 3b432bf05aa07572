"""Every dialogue in this folder, at every split point, and mirrored where a client of ours can
play it: those named `session_…`.

The first line of a file names the clause. A line `# offers: CHUNKING DSN` has the server offer that
beside the usual; `# lmtp` has both ends speak LMTP.
"""

import base64
import re
from functools import cache
from pathlib import Path

import pytest
from attrs import frozen

from smtpproto import (
    STANDARD,
    Auth,
    AuthResponse,
    ClientConnection,
    EndOfContent,
    Extension,
    LocalProtocolError,
    Rcpt,
    Reply,
    ServerConnection,
)
from smtpproto.core.sasl import Challenge, Lookup, ScramKeys, ServerContext, ServerExchange
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions.xclient import XClient
from smtpproto.extensions.xforward import XForward
from smtpproto.mechanisms import LOGIN, PLAIN, SCRAM_SHA_256
from smtpproto.mechanisms.scram import derive_keys
from smtpproto.testing import (
    Dialogue,
    DialogueError,
    at_points,
    octet_by_octet,
    play_client,
    play_server,
)
from smtpproto.testing.pair import Policy
from tests.core.decisions import BASIC
from tests.core.logins import with_passwords

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.txt"))
SESSIONS = [file for file in FILES if file.stem.startswith("session_")]


@frozen
class Script:
    """A dialogue, and what its server offers."""

    dialogue: Dialogue
    offer: tuple[Extension, ...]
    lmtp: bool

    @classmethod
    def read(cls, file: Path) -> "Script":
        text = file.read_text(encoding="utf-8")
        assert re.match(r"# (RFC \d+ §|Postfix)", text), "the first line names the source"
        offers = re.search(r"(?m)^# offers: (.+)$", text)
        more = offers[1].split() if offers else []
        offered = [next(e for e in STANDARD if e.keyword == keyword) for keyword in more]
        return cls(Dialogue.parse(text), (*BASIC, *offered), "\n# lmtp\n" in text)

    def server(self) -> ServerConnection:
        scram = "SCRAM" in str(self.dialogue.lines)
        return ServerConnection(
            "mx.example",
            self.offer,
            offer=self.offer,
            mechanisms=(SCRAM_SHA_256,) if scram else (PLAIN, LOGIN),
            plaintext_auth=True,
            tls_available=True,
            lmtp=self.lmtp,
        )

    def client(self) -> ClientConnection:
        return ClientConnection(STANDARD, lmtp=self.lmtp)


@cache
def pencil() -> ScramKeys:
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    return derive_keys("pencil", salt, mechanism="SCRAM-SHA-256")


def policy() -> Policy:
    """Suggested replies; logins; what the local parts say; XCLIENT and XFORWARD are believed."""
    exchange: ServerExchange | None = None
    passwords = with_passwords()
    full: list[Rcpt] = []

    def decide(server: ServerConnection, event: ServerEvent | None) -> Reply:
        nonlocal exchange
        match event:
            case Auth(mechanism="SCRAM-SHA-256"):
                context = ServerContext(nonce=lambda: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
                exchange = ServerExchange(SCRAM_SHA_256, event.initial_response, context)
                step = exchange.step()
            case AuthResponse() if exchange is not None:
                step = exchange.step(event.data)
            case Rcpt() if b"nobody" in event.forward_path.mailbox.local_part:
                return Reply(550, "5.1.1", "No such mailbox")
            case EndOfContent(fault=None) if server.lmtp and server.envelope is not None:
                if not full:
                    full.extend(server.envelope.rcpts)
                rcpt = full.pop(0)
                if b"full" in rcpt.forward_path.mailbox.local_part:
                    return Reply(452, "4.2.2", f"Full: {rcpt.forward_path}")
                return Reply(250, "2.0.0", f"Delivered to {rcpt.forward_path}")
            case XClient():
                return Reply(220, None, "mx.example ESMTP")
            case XForward():
                return Reply(250, "2.0.0", "Ok")
            case _:
                return passwords(server, event)
        if isinstance(step, Lookup):
            step = exchange.step(pencil())
        return step.reply() if isinstance(step, Challenge) else Reply(235, "2.7.0", "In")

    return decide


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_server(file: Path) -> None:
    script = Script.read(file)
    play_server(script.dialogue, script.server(), policy=policy(), cut=octet_by_octet)
    for at in range(script.dialogue.client_octets):
        play_server(script.dialogue, script.server(), policy=policy(), cut=at_points(at))


@pytest.mark.parametrize("file", SESSIONS, ids=lambda file: file.stem)
def test_client(file: Path) -> None:
    script = Script.read(file)
    play_client(script.dialogue, script.client(), cut=octet_by_octet)
    for at in range(script.dialogue.server_octets):
        play_client(script.dialogue, script.client(), cut=at_points(at))


def test_there_are_dialogues() -> None:
    assert len(SESSIONS) >= 12
    assert len(FILES) >= 20


GREETING = "S: 220 mx.example ESMTP\n"


@pytest.mark.parametrize(
    "text",
    [
        "S: 220 other\n",
        "S: 220 mx.example\n",
        "C: NOOP\nS: 250 Ok\n",
        GREETING + "C: NOOP\nS: 251...\n",
        GREETING + "C: NOOP\n",
        GREETING + "C: NOOP\nS: 250 Ok\nS: 250 Ok\n",
        GREETING + "-- CLOSED\n",
        GREETING + "C: NOOP\n-- EOF\n",
    ],
)
def test_a_dialogue_that_goes_otherwise_fails(text: str) -> None:
    with pytest.raises(DialogueError):
        play_server(text, ServerConnection("mx.example"))


@pytest.mark.parametrize("text", ["X: y", "C:y", "-- NOW", "C: €", "just text", " C: x"])
def test_a_text_that_is_no_dialogue_is_refused(text: str) -> None:
    with pytest.raises(DialogueError):
        Dialogue.parse(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (GREETING + "C: noop\nS: 250 ok\n", DialogueError),  # it writes NOOP
        (GREETING + "C: EHLO c\nS: 250-x\n", DialogueError),  # a reply without its end
        (GREETING + "-- CLOSED\n", DialogueError),
        (GREETING + "C: MAIL FROM:<>\n", LocalProtocolError),
        (GREETING + "C: BDAT 3 LAST\nC| Hi\n", DialogueError),  # an octet is missing
        (GREETING + "C: BDAT 1 LAST\nC| Hi\n", DialogueError),  # one too many
    ],
)
def test_a_mirrored_dialogue_that_goes_otherwise_fails(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        play_client(text, ClientConnection(STANDARD))


def test_escapes() -> None:
    lines = Dialogue.parse("C: a\\r\\n\\t\\0\\\\\\x80é\nC| b\n# c\n\nS: d...\n").lines
    assert [line.octets for line in lines] == [b"a\r\n\t\0\\\x80\xe9", b"b", b"d..."]
    assert [line.wire for line in lines[:2]] == [b"a\r\n\t\0\\\x80\xe9\r\n", b"b"]
