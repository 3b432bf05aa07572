"""Every dialogue in this folder, at every split point, and mirrored where a client of ours can
play it: those named `session_…`.
"""

from pathlib import Path

import pytest

from smtpproto import STANDARD, ClientConnection, LocalProtocolError, ServerConnection
from smtpproto.mechanisms import LOGIN, PLAIN
from smtpproto.testing import (
    Dialogue,
    DialogueError,
    at_points,
    octet_by_octet,
    play_client,
    play_server,
)
from tests.core.decisions import BASIC
from tests.core.test_decisions import with_passwords

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.txt"))
SESSIONS = [file for file in FILES if file.stem.startswith("session_")]


def server() -> ServerConnection:
    return ServerConnection(
        "mx.example",
        BASIC,
        mechanisms=(PLAIN, LOGIN),
        plaintext_auth=True,
        tls_available=True,
    )


def read(file: Path) -> Dialogue:
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# RFC "), "the first line names the clause"
    return Dialogue.parse(text)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_server(file: Path) -> None:
    dialogue = read(file)
    play_server(dialogue, server(), policy=with_passwords(), cut=octet_by_octet)
    for at in range(dialogue.client_octets):
        play_server(dialogue, server(), policy=with_passwords(), cut=at_points(at))


@pytest.mark.parametrize("file", SESSIONS, ids=lambda file: file.stem)
def test_client(file: Path) -> None:
    dialogue = read(file)
    play_client(dialogue, ClientConnection(STANDARD), cut=octet_by_octet)
    for at in range(dialogue.server_octets):
        play_client(dialogue, ClientConnection(STANDARD), cut=at_points(at))


def test_there_are_dialogues() -> None:
    assert len(SESSIONS) >= 4
    assert len(FILES) >= 10


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
    ],
)
def test_a_mirrored_dialogue_that_goes_otherwise_fails(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        play_client(text, ClientConnection(STANDARD))


def test_escapes() -> None:
    lines = Dialogue.parse("C: a\\r\\n\\t\\0\\\\\\x80é\nC| b\n# c\n\nS: d...\n").lines
    assert [line.octets for line in lines] == [b"a\r\n\t\0\\\x80\xe9", b"b", b"d..."]
    assert [line.wire for line in lines[:2]] == [b"a\r\n\t\0\\\x80\xe9\r\n", b"b"]
