"""Our client against servers that others wrote."""

import contextlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, Session
from aiosmtpd.smtp import Envelope as AiosmtpdEnvelope
from anyio import to_thread

from smtpproto import Envelope, Noop
from smtpproto.client import Client, ClientDeadlines, Tls
from smtpproto.core.sasl import Mechanism
from smtpproto.mechanisms import LOGIN, PLAIN
from smtpproto.result import ConnectError, LoginError, RefusedError, Result
from tests.adapters.world import Certificates, certificates

from .programs import HOST, PATIENCE, PostfixServer, SmtpSink, free_port, smtp_sink

pytestmark = pytest.mark.anyio

ENVELOPE = Envelope("ann@example.org", ["bob@example.net"])
MESSAGE = b"From: ann@example.org\r\nSubject: greetings\r\n\r\n.dots and words\r\n..\r\n"


def fates(result: Result) -> list[str]:
    return [outcome.fate.value for outcome in result.outcomes]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(Path(tmp_path_factory.mktemp("tls")))


# aiosmtpd


class Kept:
    """aiosmtpd's handler: keeps envelopes, refuses recipients named `no-…`."""

    def __init__(self) -> None:
        self.envelopes: list[AiosmtpdEnvelope] = []

    async def handle_RCPT(  # noqa: N802 - its name for it
        self,
        server: SMTP,
        session: Session,
        envelope: AiosmtpdEnvelope,
        address: str,
        options: list[str],
    ) -> str:
        if address.startswith("no-"):
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: AiosmtpdEnvelope
    ) -> str:
        self.envelopes.append(envelope)
        return "250 2.0.0 taken"


def authenticate(
    server: SMTP, session: Session, envelope: AiosmtpdEnvelope, mechanism: str, data: Any
) -> AuthResult:
    good = isinstance(data, LoginPassword) and data == LoginPassword(b"ann", b"secret")
    return AuthResult(success=good, handled=False)


@contextlib.contextmanager
def aiosmtpd(handler: Kept, **settings: Any) -> Iterator[int]:
    controller = Controller(
        handler, hostname=HOST, port=free_port(), ready_timeout=PATIENCE, **settings
    )
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@pytest.mark.peer("aiosmtpd")
@pytest.mark.parametrize("mode", [Tls.NONE, Tls.REQUIRED, Tls.IMPLICIT])
async def test_aiosmtpd_takes_our_mail(mode: Tls, tls: Certificates) -> None:
    settings: dict[Tls, dict[str, Any]] = {
        Tls.NONE: {},
        Tls.REQUIRED: {"tls_context": tls.server, "require_starttls": True},
        Tls.IMPLICIT: {"ssl_context": tls.server},
    }
    handler = Kept()
    with aiosmtpd(handler, **settings[mode]) as port:
        async with Client(HOST, port, tls=mode, ssl_context=tls.trusting) as client:
            envelope = Envelope("ann@example.org", ["no-x@example.net", "bob@example.net"])
            assert fates(await client.deliver(envelope, MESSAGE)) == ["permanent", "accepted"]
            assert (await client.command(Noop())).code == 250
            assert (await client.deliver(ENVELOPE, MESSAGE)).all_accepted
    assert [kept.rcpt_tos for kept in handler.envelopes] == [["bob@example.net"]] * 2
    assert handler.envelopes[0].content == MESSAGE


@pytest.mark.peer("aiosmtpd")
@pytest.mark.parametrize("mechanism", [PLAIN, LOGIN])
@pytest.mark.parametrize("password", ["secret", "wrong"])
async def test_aiosmtpd_lets_us_in(mechanism: Mechanism, password: str, tls: Certificates) -> None:
    handler = Kept()
    settings = {"tls_context": tls.server, "authenticator": authenticate, "auth_required": True}
    with aiosmtpd(handler, **settings) as port:
        client = Client(
            HOST,
            port,
            ssl_context=tls.trusting,
            login=("ann", password),
            mechanisms=[mechanism],
            deadlines=ClientDeadlines(quit=1),
        )
        if password == "secret":
            async with client:
                await client.send(ENVELOPE, MESSAGE)
        else:
            with pytest.raises(LoginError, match="535"):
                await client.__aenter__()
    assert len(handler.envelopes) == (password == "secret")


# Postfix


@pytest.mark.peer("postfix")
@pytest.mark.peer("smtp-sink")
async def test_postfix_as_our_smart_host(
    sink: SmtpSink, smart_host: Callable[[int], PostfixServer]
) -> None:
    server = await to_thread.run_sync(smart_host, sink.port)
    async with Client(HOST, server.port, tls="opportunistic") as client:
        assert "PIPELINING" in client.offered
        await client.send(Envelope("ann@example.org", ["b@example.org", "c@example.org"]), MESSAGE)
        await client.send(ENVELOPE, "Subject: again\n\nöne more\n")
    dump = await to_thread.run_sync(sink.wait_for, "Subject: again")
    dump = await to_thread.run_sync(sink.wait_for, ".dots and words\n..\n")
    for recipient in "b@example.org", "c@example.org":
        assert f"X-Rcpt-Args: <{recipient}>" in dump


@pytest.mark.peer("postfix")
async def test_postfix_as_next_hop_has_a_reply_for_each_recipient(next_hop: PostfixServer) -> None:
    names = ["alice@example.test", "nobody@example.test", "bob@example.test", "eve@elsewhere.test"]
    async with Client(HOST, next_hop.port, tls="none") as client:
        result = await client.deliver(Envelope("ann@example.org", names), MESSAGE)
        assert fates(result) == ["accepted", "permanent", "accepted", "permanent"]
        codes = [str(outcome.reply.status) for outcome in result.outcomes if outcome.reply]
        assert codes[1:4:2] == ["5.1.1", "5.7.1"]
        nobody = Envelope(None, names[1::2])
        assert fates(await client.deliver(nobody, MESSAGE)) == ["permanent", "permanent"]
        assert client.usable
    for mailbox in names[0::2]:
        (message,) = await to_thread.run_sync(next_hop.wait_for_messages, mailbox)
        assert message.endswith(b"\n\n.dots and words\n..\n")


# smtp-sink and its faults


@pytest.mark.peer("smtp-sink")
async def test_smtp_sink_takes_many(sink: SmtpSink) -> None:
    names = [f"r{number}@example.net" for number in range(250)]
    async with Client(HOST, sink.port, tls="none") as client:
        for _ in range(5):
            await client.send(Envelope("ann@example.org", names), MESSAGE)
    dump = await to_thread.run_sync(sink.dump)
    assert dump.count("X-Rcpt-Args: <r249@example.net>") == 5


@pytest.mark.peer("smtp-sink")
@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        # -f: 5xx, -r: 4xx, -q: closes without a word; to the command named
        (("-f", "MAIL"), "permanent"),
        (("-f", "RCPT"), "permanent"),
        (("-f", "DATA"), "permanent"),
        (("-f", "."), "permanent"),
        (("-r", "MAIL"), "transient"),
        (("-r", "RCPT"), "transient"),
        (("-r", "DATA"), "transient"),
        (("-r", "."), "transient"),
        (("-q", "MAIL"), "transient"),
        (("-q", "RCPT"), "transient"),
        (("-q", "DATA"), "transient"),
        (("-q", "."), "unknown"),
        (("-Q", "RCPT"), "transient"),
        (("-Q", "."), "transient"),
    ],
)
async def test_smtp_sink_at_fault(flags: tuple[str, str], expected: str, pipelining: bool) -> None:
    with contextlib.ExitStack() as peers:
        more = () if pipelining else ("-p",)
        sink = await to_thread.run_sync(lambda: peers.enter_context(smtp_sink(*flags, *more)))
        async with Client(HOST, sink.port, tls="none") as client:
            # It does not offer it where it is to refuse something.
            assert ("PIPELINING" in client.offered) is (pipelining and flags[0] in ("-q", "-Q"))
            result = await client.deliver(
                Envelope("ann@example.org", ["b@example.net", "c@example.net"]), MESSAGE
            )
            assert fates(result) == [expected] * 2
            assert client.usable is (flags[0] in ("-f", "-r"))


@pytest.mark.peer("smtp-sink")
@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (("-f", "CONNECT"), RefusedError),
        (("-r", "CONNECT"), RefusedError),
        (("-q", "CONNECT"), ConnectError),
        (("-q", "EHLO"), ConnectError),
        (("-r", "EHLO"), RefusedError),
        (("-Q", "EHLO"), RefusedError),
    ],
)
async def test_smtp_sink_at_fault_from_the_start(
    flags: tuple[str, str], error: type[Exception]
) -> None:
    with contextlib.ExitStack() as peers:
        sink = await to_thread.run_sync(lambda: peers.enter_context(smtp_sink(*flags)))
        with pytest.raises(error):
            await Client(HOST, sink.port, tls="none").__aenter__()


@pytest.mark.peer("smtp-sink")
@pytest.mark.parametrize("flags", [("-e",), ("-8",), ("-a",), ("-f", "EHLO"), ("-E",)])
async def test_smtp_sink_that_offers_less(flags: tuple[str, ...]) -> None:
    """-e: no 8BITMIME … -a: no EHLO at all; HELO is the fall-back wherever EHLO is refused."""
    with contextlib.ExitStack() as peers:
        sink = await to_thread.run_sync(lambda: peers.enter_context(smtp_sink(*flags)))
        async with Client(HOST, sink.port, tls="none") as client:
            if flags == ("-f", "EHLO"):
                assert client.offered == {}
            await client.send(ENVELOPE, MESSAGE)
        await to_thread.run_sync(sink.wait_for, ".dots and words")


@pytest.mark.peer("smtp-sink")
async def test_nobody_there() -> None:
    with pytest.raises(ConnectError):
        await Client(HOST, free_port()).__aenter__()
    assert isinstance(ssl.create_default_context(), ssl.SSLContext)
