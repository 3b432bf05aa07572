"""Tests of a policy, with smtpproto.testing: pytest examples/howto/test_policy.py."""

import anyio
import pytest
from hypothesis import given

from smtpproto import (
    STANDARD,
    Ehlo,
    Envelope,
    Mail,
    Mailbox,
    Rcpt,
    Reply,
    ServerConnection,
)
from smtpproto.client import Client
from smtpproto.core.server_connection import ServerEvent
from smtpproto.result import Fate
from smtpproto.server import ContentStream, Server, Session
from smtpproto.testing import Cut, Pair, octet_by_octet, play_server, strategies, whole

# What is tested: one rule, used by a connection of ours and by a handler.

BLOCKED = Reply(550, "5.7.1", "Not from there")


def judge(command: Mail) -> Reply | None:
    mailbox = command.reverse_path.mailbox
    return BLOCKED if mailbox and mailbox.domain.lower() == b"spam.example" else None


def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
    refusal = judge(event) if isinstance(event, Mail) else None
    return refusal or server.suggested_reply()


class Handler:
    async def mail(self, session: Session, command: Mail) -> Reply | None:
        return judge(command)

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        return None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        return None


# Two ends, joined in memory


def test_it_refuses_one_sender_and_takes_another() -> None:
    pair = Pair(policy=policy)
    pair.send(Ehlo("client.example"))
    (reply,) = pair.send(Mail("a@SPAM.example"))
    assert reply == BLOCKED
    (reply,) = pair.send(Mail("a@example.net"))
    assert isinstance(reply, Reply)
    assert reply.code == 250


# A dialogue as it stands on the wire, whole and octet by octet

DIALOGUE = """
S: 220 mx.example ESMTP
C: EHLO client.example
S: 250-mx.example greets client.example
S: 250-PIPELINING
S: 250 SIZE 26214400
C: MAIL FROM:<a@spam.example>
C: RCPT TO:<b@example.org>
S: 550 Not from there
S: 503 ...
C: QUIT
S: 221 ...
-- CLOSED
"""


@pytest.mark.parametrize("cut", [whole, octet_by_octet])
def test_what_is_pipelined_behind_it_is_refused_too(cut: Cut) -> None:
    extensions = [e for e in STANDARD if e.keyword in ("PIPELINING", "SIZE")]
    play_server(DIALOGUE, ServerConnection("mx.example", extensions), policy=policy, cut=cut)


# Any mailbox that there can be


@given(strategies.mailboxes())
def test_whoever_else_it_is_may_come_in(mailbox: Mailbox) -> None:
    if mailbox.domain and mailbox.domain.lower() != b"spam.example":
        assert judge(Mail(mailbox)) is None


# The handler, by a client of the same library and a port that the system chooses


@pytest.mark.anyio
async def test_the_handler_says_so_on_the_wire() -> None:
    async with anyio.create_task_group() as tasks:
        server = Server(Handler())
        host, port = await tasks.start(server.serve)
        async with Client(host, port, tls="none") as client:
            envelope = Envelope("a@spam.example", ["b@example.org"])
            (outcome,) = (await client.deliver(envelope, "Subject: Hi\n\n")).outcomes
        server.stop()
    assert (outcome.fate, outcome.reply) == (Fate.PERMANENT, BLOCKED)
