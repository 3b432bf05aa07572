"""One session that blocks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from email.message import Message
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
from anyio.abc import ByteStream
from attrs import evolve

from smtpproto.arguments import arguments_of, expect
from smtpproto.client import Client as AsyncClient
from smtpproto.core.command import Command
from smtpproto.core.envelope import Envelope
from smtpproto.core.event import TlsInfo
from smtpproto.core.reply import Reply
from smtpproto.message import envelope_of
from smtpproto.result import ClientError, Result

from .content import BlockingContent, content_of, told_to
from .loop import Loop

__all__ = ["Client", "inner_of", "send_message"]

log = logging.getLogger(__name__)

T = TypeVar("T")


class Client:
    """One session with one server, as a context manager: `smtpproto.client.Client` that blocks.

    It takes the same arguments, and raises the same; deadlines are the same, too. ClientError
    where there is no session (any more), RuntimeError in a process that was forked from that of
    the session, and where content asks its own session for something.
    """

    @arguments_of(AsyncClient)
    def __init__(self, inner: AsyncClient) -> None:
        self._inner = inner
        self._loop: Loop | None = None
        self._observers = inner.observe, inner.trace
        if inner.observe is not None:
            inner.observe = self._here(inner.observe)
        if inner.trace is not None:
            inner.trace = self._here(inner.trace)

    def __repr__(self) -> str:
        return f"blocking.{self._inner!r}"

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise ClientError("this session is open already")
        self._loop = loop = Loop()
        # Anew: Ctrl-C may have ended the last one in the midst of anything.
        self._inner = evolve(self._inner)
        try:
            loop.run(self._inner.__aenter__)
        except BaseException:
            self._loop = None
            loop.run(self._abandon, last=True)  # Ctrl-C may have come when it was open already
            raise
        return self

    async def _abandon(self) -> None:
        with anyio.move_on_after(0):
            await self._inner.aclose()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Say QUIT where that is possible, wait for its answer within the deadline, and close."""
        loop = self._loop
        if loop is not None and not loop.inherited:
            try:
                loop.run(self._inner.aclose, last=True)
            finally:
                self._loop = None if loop.closed else loop

    @property
    def greeting(self) -> Reply | None:
        """The server's greeting, once connected."""
        return self._inner.greeting

    @property
    def offered(self) -> dict[str, str]:
        """Keyword -> argument of the extensions that the server offers."""
        return self._inner.offered

    @property
    def tls_info(self) -> TlsInfo | None:
        """The TLS layer, None in clear."""
        return self._inner.tls_info

    @property
    def stream(self) -> ByteStream:
        """The stream below, for its attributes (certificate, addresses)."""
        return self._inner.stream

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried (`smtpproto.client.Client.usable`)."""
        return self._inner.usable

    def takes(self, envelope: Envelope) -> bool:
        """Tell whether its domains may still be named (`smtpproto.client.Client.takes`)."""
        return self._inner.takes(envelope)

    def send(self, envelope: Envelope, content: BlockingContent) -> Result:
        """Hand a message over, to all of its recipients (`smtpproto.client.Client.send`)."""
        loop = self._open()
        return loop.run(partial(self._inner.send, envelope, content_of(content, loop)))

    def deliver(
        self,
        envelope: Envelope,
        content: BlockingContent,
        *,
        told: Callable[[int, Reply], None] | None = None,
    ) -> Result:
        """Hand a message over; return an outcome for each (`smtpproto.client.Client.deliver`).

        An iterable gives its octets one by one, as they can be sent; a generator is closed when
        no more are wanted.
        """
        loop = self._open()
        deliver = partial(self._inner.deliver, told=told_to(told, loop))
        return loop.run(partial(deliver, envelope, content_of(content, loop)))

    def command(self, command: Command) -> Reply:
        """Send a command that is no part of a transaction (`smtpproto.client.Client.command`)."""
        return self._open().run(partial(self._inner.command, command))

    def _open(self) -> Loop:
        if self._loop is None:
            raise ClientError("no session: it begins and ends with the `with` block")
        return self._loop

    def _here(self, observe: Callable[[T], object]) -> Callable[[T], None]:
        """Have it called by the thread that called us."""

        def call(value: T) -> None:
            try:
                observe(value)
            except Exception:
                log.exception("an observer failed")

        return lambda value: self._open().leave(partial(call, value))


@arguments_of(Client)
def send_message(message: Message[Any, Any], client: Client) -> Result:
    """Hand one message over, in a session of its own (`smtpproto.client.send_message`)."""
    envelope = envelope_of(message)
    with client:
        return client.send(envelope, message)


def inner_of(client: Client) -> AsyncClient:
    """Return the client that it drives, for somebody else to drive; observers are called there."""
    expect(client, Client, "this pool's function returns a smtpproto.blocking.Client")
    inner = client._inner  # pyright: ignore[reportPrivateUsage]  # this is its room
    inner.observe, inner.trace = client._observers  # pyright: ignore[reportPrivateUsage]
    return inner
