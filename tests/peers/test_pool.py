"""Our pool against servers that others wrote, and their ways to end a session."""

import re
from contextlib import ExitStack

import pytest
from anyio import to_thread

from smtpproto import Envelope
from smtpproto.client import Client
from smtpproto.pool import Pool

from .programs import HOST, SmtpSink, free_port, postfix, smtp_sink, wait_for

pytestmark = pytest.mark.anyio

TIRED = "timeout after END-OF-MESSAGE"
MESSAGE = b"From: ann@example.org\r\nSubject: number %d\r\n\r\n.dots and words\r\n..\r\n"


def envelope(number: int) -> Envelope:
    return Envelope("ann@example.org", [f"bob{number}@example.net"])


def numbers(dump: str) -> list[int]:
    return sorted(
        int(number) for number in re.findall(r"^Subject: number (\d+)$", dump, re.MULTILINE)
    )


@pytest.mark.peer("smtp-sink")
async def test_many_messages_to_smtp_sink(sink: SmtpSink) -> None:
    """By a few sessions, each of which says QUIT."""
    clients = 0

    def connect() -> Client:
        nonlocal clients
        clients += 1
        return Client(HOST, sink.port, tls="none")

    async with Pool(connect, each=3, messages=40) as pool:
        source = ((envelope(number), MESSAGE % number) for number in range(200))
        async with pool.send_many(source) as outcomes:
            assert all([bool(sent) async for sent in outcomes])
    assert numbers(sink.dump()) == list(range(200))
    assert 5 <= clients <= 8  # for 40 each, by 3 at a time


@pytest.mark.peer("smtp-sink")
async def test_smtp_sink_is_started_anew() -> None:
    """Which ends all connections, and costs no message."""
    port = free_port()
    async with Pool(lambda: Client(HOST, port, tls="none"), idle=60) as pool:
        for _ in range(2):
            with ExitStack() as peers:
                sink = await to_thread.run_sync(lambda: peers.enter_context(smtp_sink(port=port)))
                source = ((envelope(number), MESSAGE % number) for number in range(20))
                async with pool.send_many(source) as outcomes:
                    assert all([bool(sent) async for sent in outcomes])
                assert numbers(sink.dump()) == list(range(20))


@pytest.mark.peer("postfix")
async def test_postfix_is_tired_of_waiting() -> None:
    """It says 421 to who is silent for its smtpd_timeout; nothing is lost, and nothing doubled."""
    with ExitStack() as peers:
        server = await to_thread.run_sync(
            lambda: peers.enter_context(
                postfix(mailboxes=["bob@example.test"], settings={"smtpd_timeout": "1s"})
            )
        )
        clients = 0

        def connect() -> Client:
            nonlocal clients
            clients += 1
            return Client(HOST, server.port, tls="none")

        bob = Envelope("ann@example.org", ["bob@example.test"])
        async with Pool(connect, idle=60) as pool:
            await pool.send(bob, MESSAGE % 1)
            await pool.send(bob, MESSAGE % 2)
            used = clients  # one, unless we were that slow ourselves
            await to_thread.run_sync(
                wait_for, lambda: server.log().count(TIRED) == used, f"{used} sessions to time out"
            )
            await pool.send(bob, MESSAGE % 3)
            assert clients == used + 1
        messages = await to_thread.run_sync(server.wait_for_messages, "bob@example.test", 3)
        assert numbers(b"".join(messages).decode()) == [1, 2, 3]
