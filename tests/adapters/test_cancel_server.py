"""A server's session cancelled at every await, in each of its powers: nothing of it is left."""

import itertools
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from attrs import field, frozen

from smtpproto.core.proxy import ProxyHeader
from smtpproto.server import Server

from .faults.falling import go_through
from .faults.places import DATA, EHLO, GREETED, LMTP, MAIL, RCPT, SECURE, Step
from .faults.witness import Witness
from .test_cancel import closed
from .wire import HOST, LOST, connect
from .world import CancelAt, Certificates

pytestmark = pytest.mark.anyio

HEADER = ProxyHeader(1, source=("192.0.2.7", 4711), destination=("192.0.2.25", 25)).serialize()


class Pausing(Witness):
    """Waits a little in every power."""

    async def see(self, where: str) -> None:
        self.saw.append(where)
        for _ in range(2):
            await anyio.lowlevel.checkpoint()


@frozen
class Session:
    """What a client says; `sees` are the powers that are asked if nobody cuts that short."""

    name: str
    steps: tuple[Step, ...]
    sees: str
    options: dict[str, Any] = field(factory=dict)


CONTENT: Step = ("hi\r\n.\r\n", "250")
SESSIONS = (
    Session(
        "small commands",
        (
            *(GREETED, EHLO, ("VRFY c\r\n", "252"), ("EXPN c\r\n", "252")),
            *(("ETRN d.example\r\n", "458"), ("XBOO\r\n", "500"), ("QUIT\r\n", "221")),
        ),
        "connect helo vrfy expn etrn unknown closed",
    ),
    Session(
        "errors that are answered slowly",
        (GREETED, EHLO, ("XBOO\r\n", "500"), ("XBOO\r\n", "500")),
        "connect helo unknown unknown closed",
        {"max_quick_errors": 0, "error_delay": 0.001},
    ),
    Session(
        "a login",
        (
            *(GREETED, EHLO, ("AUTH LOGIN\r\n", "334"), ("YW5u\r\n", "334")),
            *(("c2VjcmV0\r\n", "235"), MAIL, RCPT, DATA, CONTENT),
        ),
        "connect helo verify mail rcpt content closed",
    ),
    Session("STARTTLS", (*SECURE, ("QUIT\r\n", "221")), "connect helo helo closed"),
    Session(
        "chunks",
        (
            *(GREETED, EHLO, MAIL, RCPT, ("BDAT 4\r\nhi\r\n", "250"), ("VRFY c\r\n", "252")),
            *(("BDAT 4 LAST\r\nho\r\n", "250"), ("QUIT\r\n", "221")),
        ),
        "connect helo mail rcpt content vrfy closed",
    ),
    Session(
        "chunks, and then none",
        (GREETED, EHLO, MAIL, RCPT, ("BDAT 4\r\nhi\r\n", "250"), ("RSET\r\n", "250")),
        "connect helo mail rcpt content content_broke_off closed",
    ),
    Session(
        "LMTP",
        (*LMTP, CONTENT, ("", "250"), ("QUIT\r\n", "221")),
        "connect helo mail rcpt rcpt content closed",
        {"lmtp": True},
    ),
    Session(
        "behind a proxy",
        ((HEADER[:20].decode(), ""), (HEADER[20:].decode(), "220"), EHLO, ("QUIT\r\n", "221")),
        "connect helo closed",
        {"proxy_from": [HOST]},
    ),
    Session(
        "XCLIENT and XFORWARD",
        (
            *(GREETED, EHLO, ("XCLIENT ADDR=192.0.2.7\r\n", "220"), EHLO),
            *(("XFORWARD ADDR=192.0.2.8\r\n", "250"), MAIL, RCPT, DATA, CONTENT),
        ),
        "connect helo connect helo mail rcpt content closed",
        {"xclient_from": [HOST], "xforward_from": [HOST]},
    ),
    Session(
        "a client that does not wait for the greeting",
        ((EHLO[0], ""), GREETED, ("", "250"), ("QUIT\r\n", "221")),
        "connect helo closed",
        {"greeting_delay": 0.002},
    ),
)


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
async def test_session_cancelled_at_every_await(
    session: Session, tls: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """No task, socket or count is left, `closed` is told, and the next session works."""
    witness = Pausing()
    server = Server(
        witness,
        tls=tls.server,
        authenticator=witness,
        plaintext_auth="always",
        **session.options,
    )

    async def visit() -> None:
        with suppress(*LOST):
            async with await connect(port) as wire:
                await go_through(wire, session.steps, tls.trusting)

    async with await anyio.create_tcp_listener(local_host=HOST) as listener:
        port = listener.extra(SocketAttribute.local_port)
        accepting = listener.listeners[0]
        assert isinstance(accepting, anyio.abc.SocketListener)
        running = len(anyio.get_running_tasks())
        with anyio.fail_after(60):
            for number in itertools.count(1):
                witness.saw.clear()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(visit)
                    stream = await accepting.accept()
                    with anyio.CancelScope() as scope:
                        journey = CancelAt(server.serve_stream(stream), number, scope)
                        await journey
                assert closed(stream)
                assert not server.dialogues
                assert not len(server.connections)
                assert len(anyio.get_running_tasks()) == running
                assert witness.saw[-1:] == ["closed"] or not witness.saw
                if not journey.reached:
                    break
    seen = [name.replace(" ", "_") for name in witness.saw if name != "end of content"]
    assert seen == session.sees.split()
    assert number > 5
    assert caplog.text == ""
