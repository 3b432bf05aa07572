"""Our client's ways of handing over, with servers that others wrote: BDAT, LMTP, SMTPUTF8, DSN."""

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
from anyio import to_thread

from smtpproto import Envelope, Mail, Mailbox, Rcpt
from smtpproto.client import Client
from smtpproto.result import Result
from smtpproto.source import CHUNK, Source

from .programs import HOST, PostfixServer, SmtpSink, dovecot, postfix, smtp_sink
from .test_client import ENVELOPE, MESSAGE, Kept, aiosmtpd

pytestmark = pytest.mark.anyio

HEADER = b"From: ann@example.org\r\nSubject: big\r\n\r\n"
BIG = HEADER + b"".join(b".%07d abcdefghijklmnopqrstuvwxyz\r\n" % n for n in range(20_000))


def fates(result: Result) -> list[str]:
    return [outcome.fate.value for outcome in result.outcomes]


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), 10_000):
        yield content[at : at + 10_000]


@pytest.mark.peer("postfix")
@pytest.mark.parametrize("chunking", [True, False])
async def test_postfix_takes_content_by_either_way(chunking: bool) -> None:
    """In one piece and in many, at hand and as it comes: the same octets arrive."""
    lines: list[str] = []
    mailbox = "alice@example.test"
    contents = [MESSAGE, HEADER + b"no end of line", BIG]
    with contextlib.ExitStack() as peers:
        hidden = {} if chunking else {"smtpd_discard_ehlo_keywords": "chunking"}
        start = partial(postfix, mailboxes=[mailbox], settings=hidden)
        server = await to_thread.run_sync(lambda: peers.enter_context(start()))
        async with Client(HOST, server.port, tls="none", trace=lines.append) as client:
            assert ("CHUNKING" in client.offered) is chunking
            for content in contents:
                await client.send(Envelope("ann@example.org", [mailbox]), content)
                await client.send(Envelope("ann@example.org", [mailbox]), chunks(content))
        messages = await to_thread.run_sync(server.wait_for_messages, mailbox, 2 * len(contents))
    bodies = sorted(message.partition(b"\n\n")[2] for message in messages)
    expected = [content.replace(b"\r\n", b"\n").partition(b"\n\n")[2] for content in contents]
    assert bodies == sorted(2 * [body.removesuffix(b"\n") + b"\n" for body in expected])
    assert (sum(line.startswith("C: BDAT") for line in lines) > 2 * len(BIG) // CHUNK) is chunking
    assert ("C: DATA" in lines) is not chunking


@pytest.mark.peer("postfix")
async def test_postfix_refuses_in_mid_content_and_the_session_goes_on() -> None:
    mailbox = "alice@example.test"
    envelope = Envelope("ann@example.org", [mailbox])
    with contextlib.ExitStack() as peers:
        start = partial(postfix, mailboxes=[mailbox], settings={"message_size_limit": "100000"})
        server = await to_thread.run_sync(lambda: peers.enter_context(start()))
        async with Client(HOST, server.port, tls="none") as client:
            (outcome,) = (await client.deliver(envelope, chunks(BIG))).outcomes
            assert outcome.fate.value == "permanent"
            assert outcome.reply is not None
            assert (outcome.reply.code, outcome.local) == (552, False)
            (outcome,) = (await client.deliver(envelope, BIG)).outcomes
            assert outcome.local
            # and content that turns out to be at fault costs no more than that message
            with pytest.raises(RuntimeError):
                await client.deliver(envelope, failing())
            await client.send(envelope, MESSAGE)
        assert len(await to_thread.run_sync(server.wait_for_messages, mailbox)) == 1


async def failing() -> AsyncIterator[bytes]:
    yield BIG[: CHUNK + CHUNK // 4]
    raise RuntimeError("the disk is gone")


@pytest.mark.peer("postfix")
@pytest.mark.peer("smtp-sink")
async def test_postfix_passes_on_what_each_recipient_asked_for(
    sink: SmtpSink, smart_host: Callable[[int], PostfixServer]
) -> None:
    """DSN by recipient, and SMTPUTF8; smtp-sink shows what came out at the other end."""
    server = await to_thread.run_sync(smart_host, sink.port)
    rcpts = [Rcpt("b@example.org", {"NOTIFY": "NEVER"}), Rcpt("c@example.org", {"NOTIFY": "DELAY"})]
    async with Client(HOST, server.port, tls="none") as client:
        await client.send(Envelope(Mail("ann@example.org", {"RET": "HDRS"}), rcpts), MESSAGE)
        assert "SMTPUTF8" in client.offered
        await client.send(Envelope("ann@example.org", [Mailbox("josé", "example.org")]), MESSAGE)
    dump = await to_thread.run_sync(sink.wait_for, ".dots and words\n..\n")
    for recipient in "b@example.org", "c@example.org":
        assert f"X-Rcpt-Args: <{recipient}>" in dump


@pytest.mark.peer("aiosmtpd")
@pytest.mark.parametrize("offered", [True, False])
async def test_aiosmtpd_and_addresses_beyond_ascii(offered: bool) -> None:
    handler = Kept()
    envelope = Envelope("ann@example.org", [Mailbox("josé", "example.net"), "b@example.net"])
    with aiosmtpd(handler, enable_SMTPUTF8=offered) as port:
        async with Client(HOST, port, tls="none") as client:
            result = await client.deliver(envelope, MESSAGE)
            assert fates(result) == ["accepted" if offered else "permanent", "accepted"]
            await client.send(ENVELOPE, MESSAGE)
    asked = ["SMTPUTF8" in kept.mail_options for kept in handler.envelopes]
    assert asked == [offered, False]


# LMTP


@pytest.mark.peer("smtp-sink")
async def test_smtp_sink_speaks_lmtp() -> None:
    names = [f"r{number}@example.net" for number in range(30)]
    with contextlib.ExitStack() as peers:
        sink = await to_thread.run_sync(lambda: peers.enter_context(smtp_sink("-L")))
        async with Client(HOST, sink.port, tls="none", lmtp=True) as client:
            for _ in range(3):
                result = await client.send(Envelope("ann@example.org", names), MESSAGE)
                assert len(result.outcomes) == len(names)
        dump = await to_thread.run_sync(sink.wait_for, ".dots and words\n..\n")
        assert dump.count("X-Rcpt-Args: <r29@example.net>") == 3


@pytest.mark.peer("dovecot")
@pytest.mark.parametrize("content", [MESSAGE, BIG])
async def test_dovecot_has_a_verdict_for_each_recipient(content: bytes, tmp_path: Path) -> None:
    with contextlib.ExitStack() as peers:
        server = await to_thread.run_sync(
            lambda: peers.enter_context(dovecot("%h/../mail-%n", lmtp=True))
        )
        (server.directory / "mail-broken").write_text("a file where a mailbox should be\n")
        envelope = Envelope("ann@example.org", ["alice@x.test", "broken@x.test", "bob@x.test"])
        async with Client(HOST, server.lmtp_port, tls="none", lmtp=True) as client:
            result = await client.deliver(envelope, content)
            assert fates(result) == ["accepted", "transient", "accepted"], server.log()
            source = Source(chunks(content), len(content), eight_bit=False)
            await client.send(Envelope("ann@example.org", ["alice@x.test"]), source)
            assert client.usable
        messages = await to_thread.run_sync(server.messages, "alice")
    assert [message.partition(b"\r\n\r\n")[2] for message in messages] == [
        content.partition(b"\r\n\r\n")[2]
    ] * 2
