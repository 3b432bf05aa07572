"""A server for tests of any kind: it runs in a thread of its own, and keeps what it is sent.

::

    with SmtpServer() as server:
        my_program.send_the_newsletter(server.host, server.port)
        (message,) = server.wait_for(1)
    assert message.recipients == ["ann@example.org"]
"""

from __future__ import annotations

import ssl
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal, Self

import anyio
from anyio import to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from smtpproto.client import Client
from smtpproto.core.command import Mail
from smtpproto.core.envelope import Envelope
from smtpproto.core.event import Content
from smtpproto.core.reply import Reply, Severity
from smtpproto.core.sasl import Verify
from smtpproto.core.server_connection import ServerEvent
from smtpproto.handler import ContentError, ContentStream, Handler, Session
from smtpproto.handlers.discard import Discard
from smtpproto.handlers.faulty import Fault, Faulty
from smtpproto.handlers.memory import Memory, Received
from smtpproto.handlers.wrapper import Wrapper
from smtpproto.mechanisms.saslprep import saslprep
from smtpproto.result import Result
from smtpproto.server import Server, ServerDeadlines
from smtpproto.source import AnyContent

from .certificate import Authority

__all__ = ["NotArrivedError", "SmtpClient", "SmtpServer"]

HOST = "127.0.0.1"
LOGIN_FIRST = Reply(530, "5.7.0", "Authentication required")
#: Lines of dialogue that are kept, and of those how many an error shows.
_KEPT, _SHOWN = 10_000, 20


class NotArrivedError(AssertionError):
    """Not as many messages arrived in time; says which did, and what was said last."""


class SmtpServer:
    """A running server on loopback, as a context manager: `messages` has the mail it was sent.

    It listens on a free port, unless one is given. It accepts everything, or what `handler` does,
    whose mail is kept all the same. `tls` offers STARTTLS, or begins with TLS (`implicit`), with a
    certificate for localhost and 127.0.0.1 by `authority`, which else is made on the spot.
    `accounts` are passwords by user name: who has one may log in, by PLAIN or LOGIN, under TLS
    where there is TLS; with `login_required` nobody else may send. `faults` go wrong, by the lots
    of `seed`. It runs on the event loop `backend` ("trio" is another), whatever the tests run on.
    `options` are `Server`'s.

    ModuleNotFoundError for TLS without `cryptography`, what `Server` raises for its options.
    """

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        tls: Literal["starttls", "implicit"] | None = None,
        accounts: Mapping[str, str] | None = None,
        login_required: bool = False,
        faults: Iterable[Fault] = (),
        seed: int = 0,
        authority: Authority | None = None,
        port: int = 0,
        backend: str = "asyncio",
        **options: Any,
    ) -> None:
        if tls not in ("starttls", "implicit", None):
            raise ValueError(f"tls is 'starttls', 'implicit' or None, not {tls!r}")
        self._news = threading.Condition()
        self._keeping = _Keeping(handler or Discard(), self._news, login_required=login_required)
        self._faulty = Faulty(self._keeping, faults, seed=seed)
        self._tls = tls
        self._accounts = _Accounts(accounts) if accounts is not None else None
        self._authority = authority
        self._backend = backend
        self._options = options
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._dialogue: deque[str] = deque(maxlen=_KEPT)
        #: Where it listens.
        self.host = HOST
        self.port = port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the thread, and return when the server listens. ValueError if it does already."""
        if self._portal is not None:
            raise ValueError("this server is running")
        with ExitStack() as stack:
            context: ssl.SSLContext | None = None
            if self._tls is not None:
                if self._authority is None:
                    directory = stack.enter_context(TemporaryDirectory(prefix="smtpproto-"))
                    self._authority = Authority(Path(directory))
                    stack.callback(setattr, self, "_authority", None)
                context = self._authority.server_context("localhost", HOST)
            settings: dict[str, Any] = {
                "tls": context,
                "implicit_tls": self._tls == "implicit",
                "authenticator": self._accounts,
                "plaintext_auth": "never" if self._tls else "loopback",
                "failed_login_delay": 0,
                "deadlines": ServerDeadlines(drain=1),
                # A test may ask for as much as it likes, and does not want to wait.
                "max_commands": None,
                "max_idle_commands": None,
                "error_delay": 0,
                "trace": self._note,
            }
            portal = stack.enter_context(start_blocking_portal(self._backend))
            # Made where it runs, for who starts it may be in an event loop of another kind.
            server = portal.call(partial(Server, self._faulty, **settings | self._options))
            serving, (self.host, self.port) = portal.start_task(server.serve, HOST, self.port)
            stack.callback(serving.result)
            stack.callback(portal.call, server.stop)
            self._portal = portal
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Stop, giving sessions within a transaction a second; return when the thread has ended."""
        self._portal = None
        self._stack.pop_all().close()

    # What came

    @property
    def messages(self) -> list[Received]:
        """The messages that were accepted, in the order of their final dots."""
        return list(self._keeping.memory.received)

    @property
    def dialogue(self) -> list[str]:
        """What was said: `1 C: EHLO …` with the session's number; no passwords, no content."""
        return list(self._dialogue)

    def clear(self) -> None:
        """Forget the messages and the dialogue so far."""
        self._keeping.memory.received.clear()
        self._dialogue.clear()

    def wait_for(self, count: int = 1, timeout: float = 5) -> list[Received]:
        """Wait until `count` messages have arrived, `timeout` seconds at most; return all.

        This blocks: in a coroutine `await` arrives, so that what sends there can go on.
        NotArrivedError when the time is over.
        """
        with self._news:
            self._news.wait_for(lambda: len(self._keeping.memory.received) >= count, timeout)
        messages = self.messages
        if len(messages) < count:
            raise NotArrivedError(self._report(count, timeout, messages))
        return messages

    async def arrives(self, count: int = 1, timeout: float = 5) -> list[Received]:  # noqa: ASYNC109 - as wait_for
        """Wait as `wait_for` does, in a coroutine of asyncio or trio."""
        return await to_thread.run_sync(self.wait_for, count, timeout, abandon_on_cancel=True)

    def _report(self, count: int, seconds: float, messages: list[Received]) -> str:
        lines = [f"{len(messages)} of {count} messages arrived within {seconds:g} s"]
        lines += [f"  {number}. {message}" for number, message in enumerate(messages, 1)]
        said = self.dialogue[-_SHOWN:]
        lines += ["said last:", *(f"  {line}" for line in said)] if said else ["nobody came"]
        if _in_event_loop():
            lines.append("(wait_for blocked this event loop meanwhile; await arrives() instead)")
        return "\n".join(lines)

    def _note(self, session: Session, line: str) -> None:
        self._dialogue.append(f"{session.id} {line}")

    # What goes wrong

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults in force; set others at any time, and none with `()`."""
        return self._faulty.faults

    @faults.setter
    def faults(self, faults: Iterable[Fault]) -> None:
        self._faulty.faults = tuple(faults)

    # Who comes

    @property
    def authority(self) -> Authority:
        """Who signed its certificate: `ca_file`, and `client_context()` for those who trust it.

        ValueError for a server without TLS.
        """
        if self._authority is None or self._tls is None:
            raise ValueError("this server has no TLS: ask for it with tls='starttls'")
        return self._authority

    def client(self, **options: Any) -> Client:
        """Return a Client for this server, to be entered: `async with server.client() as client`.

        `options` are Client's. By default it uses TLS as the server has it, trusts its
        certificate, and does not log in.
        """
        mode = {"starttls": "required", "implicit": "implicit", None: "none"}[self._tls]
        trusting = self.authority.client_context() if self._tls else None
        settings: dict[str, Any] = {
            "tls": mode,
            "ssl_context": trusting,
            "login_in_clear": self._tls is None,
        }
        return Client(self.host, self.port, **settings | options)

    def deliver(self, envelope: Envelope, content: AnyContent, **options: Any) -> Result:
        """Hand a message over in a session of its own, and block; an outcome for each recipient.

        `options` are Client's; raises what entering a Client raises, and its `deliver`.
        """

        async def deliver() -> Result:
            async with self.client(**options) as client:
                return await client.deliver(envelope, content)

        if self._portal is None:
            raise ValueError("this server is not running")
        return self._portal.call(deliver)


class SmtpClient:
    """A client of a server: `async with` what a call returns, or `deliver` in a blocking test."""

    def __init__(self, server: SmtpServer) -> None:
        self.server = server

    def __call__(self, **options: Any) -> Client:
        """Return a Client for the server, to be entered (`SmtpServer.client`)."""
        return self.server.client(**options)

    def deliver(self, envelope: Envelope, content: AnyContent, **options: Any) -> Result:
        """Hand a message over, and block (`SmtpServer.deliver`)."""
        return self.server.deliver(envelope, content, **options)


class _Keeping(Wrapper):
    """Keeps what a handler accepts."""

    def __init__(
        self, handler: Handler, news: threading.Condition, *, login_required: bool
    ) -> None:
        super().__init__(handler)
        self.memory = Memory()
        self._news = news
        self._login_required = login_required

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        if self._login_required and session.identity is None:
            return LOGIN_FIRST
        return await super().mail(session, command)

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        chunks: list[bytes] = []

        async def pull() -> ServerEvent:
            try:
                chunks.append(await anext(content))
            except StopAsyncIteration:
                assert content.end is not None
                return content.end
            except ContentError:
                if content.end is not None:
                    return content.end
                assert content.lost is not None
                raise content.lost from None
            return Content(chunks[-1])

        copied = ContentStream(pull)
        reply = await super().content(session, envelope, copied)
        async for _ in copied:  # what the handler did not care to read
            pass
        if reply is None or reply.severity is Severity.COMPLETION:
            with self._news:
                self.memory.keep(session, envelope, b"".join(chunks))
                self._news.notify_all()
        return reply


class _Accounts:
    """Passwords by user name."""

    def __init__(self, accounts: Mapping[str, str]) -> None:
        self._accounts = {saslprep(name): saslprep(word) for name, word in accounts.items()}

    async def verify(self, session: Session, question: Verify) -> bool:
        known = self._accounts.get(question.username) == question.password
        return known and question.authorization in ("", question.username)


def _in_event_loop() -> bool:
    try:
        anyio.get_current_task()
    except RuntimeError:
        return False
    return True
