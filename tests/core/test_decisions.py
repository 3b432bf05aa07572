"""Every row of docs/explanation/decisions.md is what the server does."""

import re

import pytest

from smtpproto import Auth, AuthResponse, Reply, ServerConnection, State
from smtpproto.core.sasl import (
    AuthenticationError,
    Challenge,
    ServerExchange,
    Verify,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.mechanisms import LOGIN, PLAIN
from smtpproto.testing.pair import Policy, answer

from .decisions import DECISIONS, PAGE, Decision, make_server, render

ROWS = [decision for decisions in DECISIONS.values() for decision in decisions]


def with_passwords() -> Policy:
    """Suggested replies, and an AUTH that knows the user `a` by the password `b`."""
    exchange: ServerExchange | None = None

    def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
        nonlocal exchange
        given: bytes | bool | None = None
        if isinstance(event, Auth):
            mechanism = {"PLAIN": PLAIN, "LOGIN": LOGIN}[event.mechanism]
            exchange = ServerExchange(mechanism, event.initial_response)
        elif isinstance(event, AuthResponse):
            given = event.data
        else:
            return server.suggested_reply()
        assert exchange is not None
        try:
            question = exchange.step(given)
            if isinstance(question, Challenge):
                return question.reply()
            assert isinstance(question, Verify)
            exchange.step((question.username, question.password) == ("a", "b"))
        except AuthenticationError as error:
            return error.reply
        return Reply(235, "2.7.0", "In")

    return policy


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


@pytest.mark.parametrize("decision", ROWS, ids=lambda d: f"{d.before[-6:]!r}{d.octets[:40]!r}")
def test_at_every_split_point(decision: Decision) -> None:
    for pieces in cuts(decision.octets):
        assert played(decision, pieces) == decision.replies.split(", ")


def test_the_page_is_made_of_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == render()


def test_no_row_stands_twice() -> None:
    keys = [(d.before, d.octets, d.options) for d in ROWS]
    assert len(set(keys)) == len(keys)
