"""Every row of docs/explanation/decisions.md is what the server does."""

import re

import pytest

from smtpproto import RemoteProtocolError, Reply, State
from smtpproto.core.proxy import ProxyCommand, ProxyReader
from smtpproto.testing.pair import answer

from .decided_proxy import PROXIED, Proxied
from .decided_replies import HEARD, Heard, asking
from .decisions import DECISIONS, PAGE, Decision, make_server, render
from .logins import with_passwords

ROWS = [decision for decisions in DECISIONS.values() for decision in decisions]


def played(decision: Decision, pieces: list[bytes]) -> list[str]:
    server = make_server(decision)
    policy = with_passwords()
    answer(server, policy)
    if decision.before:
        server.receive_data(decision.before)
        answer(server, policy)
    said = b""
    for piece in pieces:
        server.receive_data(piece)
        said += answer(server, policy)[1]
    in_step = b""
    if server.state not in (State.CLOSED, State.TLS):
        server.receive_data(b"NOOP\r\n")
        in_step = answer(server, policy)[1]
        assert in_step == b"250 2.0.0 Ok\r\n", "out of step"
    found = [_seen(line.decode()) for line in said.split(b"\r\n")[:-1]]
    if any(line.startswith("250-") for line in found):
        found = ["250-"]
    if server.state is State.CLOSED and "221 2.0.0" not in found:
        found.append("closed")
    return found


def _seen(line: str) -> str:
    match = re.match(r"(250-)|(\d{3} [245]\.\d+\.\d+)|(\d{3})", line)
    assert match is not None
    return match[0]


def cuts(octets: bytes) -> list[list[bytes]]:
    points = range(1, len(octets)) if len(octets) < 600 else (1, 511, 512, 513, len(octets) - 1)
    each = [octets[at : at + 1] for at in range(len(octets))]
    return [[octets], each, *([octets[:at], octets[at:]] for at in points)]


def name(octets: bytes) -> str:
    """Tell octets in plain ASCII, for the command lines of other tools."""
    return re.sub(r"[^!-~]+|[\\[\]:;*?\"']", "_", octets.decode("latin-1"))


@pytest.mark.parametrize("decision", ROWS, ids=lambda d: name(d.before[-6:] + d.octets[:40]))
def test_at_every_split_point(decision: Decision) -> None:
    for pieces in cuts(decision.octets):
        assert played(decision, pieces) == decision.replies.split(", ")


def pulled(heard: Heard, pieces: list[bytes]) -> str:
    client = asking(heard)
    found: list[str] = []
    for piece in pieces:
        client.receive_data(piece)
        try:
            while isinstance(event := client.next_event(), Reply):
                found.append(str(event.code))
        except RemoteProtocolError:
            break
    if client.state is State.CLOSED:
        found.append("closed")
    return ", ".join(found)


@pytest.mark.parametrize("heard", HEARD, ids=lambda h: name(h.asked.encode() + h.octets[:40]))
def test_a_reply_at_every_split_point(heard: Heard) -> None:
    for pieces in cuts(heard.octets):
        assert pulled(heard, pieces) == heard.result


def whom_it_is_for(pieces: list[bytes]) -> str:
    reader = ProxyReader()
    try:
        read = [reader.feed(piece) for piece in pieces]
    except RemoteProtocolError:
        return "refused"
    assert read[:-1] == [None] * (len(read) - 1), "not before it is whole"
    header = read[-1]
    assert header is not None
    if header.command is ProxyCommand.LOCAL:
        return "nobody"
    return "{} port {}".format(*header.source) if header.source else "unknown"


@pytest.mark.parametrize("proxied", PROXIED, ids=lambda p: name(p.octets[:40]))
def test_a_proxy_header_at_every_split_point(proxied: Proxied) -> None:
    for pieces in cuts(proxied.octets):
        assert whom_it_is_for(pieces) == proxied.result


def test_the_page_is_made_of_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == render()


def test_no_row_stands_twice() -> None:
    keys = [(d.before, d.octets, d.options) for d in ROWS]
    assert len(set(keys)) == len(keys)
    assert len({proxied.octets for proxied in PROXIED}) == len(PROXIED)
    assert len({(heard.asked, heard.octets) for heard in HEARD}) == len(HEARD)
