"""The server over anyio: sessions, deadlines and limits around a `ServerConnection`.

Policy is the handler's, protocol the core's; between them are only octets and time.
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from os import PathLike
from typing import Literal

import anyio
from anyio.abc import ByteStream, TaskStatus
from attrs import Factory, define, field, frozen

from .certificates import Certificates
from .core.connection import Limits
from .core.errors import LocalProtocolError
from .core.extension import Extension
from .core.path import as_domain
from .core.sasl import (
    Mechanism,
    ServerContext,
)
from .dialogue import Dialogue
from .extensions import STANDARD
from .handler import (
    AnyAuthenticator,
    Authenticator,
    Closer,
    ContentError,
    ContentStream,
    Handler,
    Interceptor,
    Session,
    Welcomer,
    can_answer,
)
from .limits import Connections, ServerDeadlines
from .mechanisms import STANDARD as MECHANISMS
from .stream import local_address, peer_address
from .wire import Listener, listen_tcp, listen_unix

__all__ = [
    "At",
    "Authenticator",
    "Certificates",
    "Connections",
    "ContentError",
    "ContentStream",
    "Handler",
    "Server",
    "ServerDeadlines",
    "Session",
    "Welcomer",
]

log = logging.getLogger(__name__)

FAREWELL = 10  # seconds that a handler has after a session


@frozen
class At:
    """Where a server listens: at a host (None: at all addresses) and a port (0: a free one).

    With `implicit_tls` TLS comes first there, as on port 465 (RFC 8314 §3.3); None: as the server
    has it. `path` is that of a UNIX socket instead, and `mode` its permissions; such clients
    have no address, and are not limited each. `reuse_port` lets other processes listen there,
    too, and share the connections (SO_REUSEPORT).
    """

    host: str | None = "127.0.0.1"
    port: int = 0
    implicit_tls: bool | None = field(default=None, kw_only=True)
    path: str | PathLike[str] | None = field(default=None, kw_only=True)
    mode: int | None = field(default=None, kw_only=True)
    reuse_port: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        return f"{self.host or '*'}:{self.port}" if self.path is None else str(self.path)

    async def listen(self) -> Listener:
        """Bind there. OSError with the place as its `filename` if that cannot be."""
        try:
            if self.path is not None:
                return await listen_unix(self.path, mode=self.mode)
            return await listen_tcp(self.host, self.port, reuse_port=self.reuse_port)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(self)) from error


@define(eq=False)
class Server:
    """An SMTP server: `await task_group.start(server.serve, host, port)`.

    `handler` decides about mail; `authenticator` about logins, of `mechanisms` those are offered
    that it can answer. `sasl` is what those need: -PLUS forms are offered if it has a channel
    binding (`mechanisms.binding` makes one of the certificate). `tls` is the context for
    STARTTLS, or from the first octet with `implicit_tls`; or `Certificates`, which `reload` reads
    anew.
    `plaintext_auth` says where passwords may be sent without TLS. `greeting_delay` is how many
    seconds to listen before the greeting for clients that will not wait for it.
    `trace(session, line)` is shown the dialogue, redacted.

    `connections` counts who is there, and says when there are too many; servers may share it.
    Then none of the deadlines is longer than in `under_pressure`. A session may have
    `max_commands` in all, and `max_idle_commands` that are about no mail between two messages
    (None: any number); past that, 421. Each command answered with 5yz is an error; behind
    `max_quick_errors` of them an answer to another takes `error_delay` seconds. What is no
    command at all ends the session when there was too much of it (`limits.bad_commands`).
    LocalProtocolError for a hostname that is no domain, or implicit TLS without a context.
    """

    handler: Handler
    hostname: str = "localhost"
    tls: ssl.SSLContext | Certificates | None = field(default=None, kw_only=True)
    implicit_tls: bool = field(default=False, kw_only=True)
    authenticator: AnyAuthenticator | None = field(default=None, kw_only=True)
    mechanisms: Sequence[Mechanism] = field(default=MECHANISMS, kw_only=True)
    sasl: ServerContext = field(factory=ServerContext, kw_only=True)
    plaintext_auth: Literal["never", "loopback", "always"] = field(default="never", kw_only=True)
    extensions: Sequence[Extension] = field(default=STANDARD, kw_only=True)
    offer: Sequence[Extension] | None = field(default=None, kw_only=True)
    limits: Limits = field(factory=Limits, kw_only=True)
    deadlines: ServerDeadlines = field(factory=ServerDeadlines, kw_only=True)
    under_pressure: ServerDeadlines = field(factory=ServerDeadlines.under_pressure, kw_only=True)
    connections: Connections = field(factory=Connections, kw_only=True)
    max_commands: int | None = field(default=10_000, kw_only=True)
    max_idle_commands: int | None = field(default=100, kw_only=True)
    max_quick_errors: int = field(default=10, kw_only=True)
    error_delay: float = field(default=1.0, kw_only=True)
    max_failed_logins: int = field(default=3, kw_only=True)
    failed_login_delay: float = field(default=1.0, kw_only=True)
    greeting_delay: float = field(default=0.0, kw_only=True)
    repair: bool = field(default=False, kw_only=True)
    trace: Callable[[Session, str], None] | None = field(default=None, kw_only=True)

    # What the running server keeps, for its dialogues.
    stopping: anyio.Event = field(factory=anyio.Event, init=False, repr=False)
    cutting: bool = field(default=False, init=False, repr=False)
    dialogues: set[Dialogue] = field(default=Factory(set[Dialogue]), init=False, repr=False)
    _in_a_hurry: ServerDeadlines = field(init=False, repr=False)
    ids: Iterator[int] = field(default=Factory(lambda: itertools.count(1)), init=False, repr=False)
    # Powers of the handler that few have; to look for them in each session costs some 10 µs.
    interceptor: Interceptor | None = field(init=False, repr=False)
    closer: Closer | None = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        as_domain(self.hostname)
        if self.implicit_tls and self.tls is None:
            raise LocalProtocolError("a server with implicit_tls needs a TLS context")
        self._in_a_hurry = self.deadlines.at_most(self.under_pressure)
        self.interceptor = self.handler if isinstance(self.handler, Interceptor) else None
        self.closer = self.handler if isinstance(self.handler, Closer) else None

    def usable_mechanisms(self) -> tuple[Mechanism, ...]:
        """Return those that the authenticator can answer, bound ones if there is a binding."""
        return tuple(
            mechanism
            for mechanism in self.mechanisms
            if can_answer(self.authenticator, mechanism)
            and (self.sasl.bindings or not mechanism.binds)
        )

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        """The context to make TLS connections with; None if there is none."""
        return self.tls.context if isinstance(self.tls, Certificates) else self.tls

    def reload(self) -> bool:
        """Read the files of the certificates again, for new TLS connections; it blocks.

        False, a line in the log, and the old ones stay, if they cannot be used.
        """
        return self.tls.reload() if isinstance(self.tls, Certificates) else True

    def stop(self) -> None:
        """End gracefully: no new connections, 421 to idle ones, transactions may finish.

        `serve` returns when they have. Those that have not within the drain deadline hear 421, too.
        """
        self.stopping.set()
        for dialogue in self.dialogues:
            dialogue.stop()

    async def serve(
        self,
        host: str | None = "127.0.0.1",
        port: int = 0,
        *,
        task_status: TaskStatus[tuple[str, int]] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen and serve until `stop()` or cancellation; None listens on all addresses.

        Reports the address and port it is bound to when it is ready. OSError if it cannot bind.
        """
        await self._serve([At(host, port)], lambda bound: task_status.started(bound[0]))

    async def serve_at(
        self,
        places: Sequence[At],
        *,
        task_status: TaskStatus[list[tuple[str, int]]] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Do as `serve` at several places, as one server: limits are for all of them together.

        Reports what each is bound to, in their order, when all of them are ready: address and
        port, or path and 0. OSError, with the place as its `filename`, if one cannot be bound;
        LocalProtocolError for implicit TLS without a context.
        """
        await self._serve(places, task_status.started)

    async def _serve(
        self, places: Sequence[At], ready: Callable[[list[tuple[str, int]]], None]
    ) -> None:
        if self.tls is None and any(place.implicit_tls for place in places):
            raise LocalProtocolError("a place with implicit_tls needs a TLS context")
        async with AsyncExitStack() as stack:
            listeners = [await stack.enter_async_context(await place.listen()) for place in places]
            ready([listener.address for listener in listeners])
            ending = await stack.enter_async_context(anyio.create_task_group())
            async with anyio.create_task_group() as sessions:
                async with anyio.create_task_group() as accepting:
                    for place, listener in zip(places, listeners, strict=True):
                        begin = partial(self.serve_stream, implicit_tls=place.implicit_tls)
                        accepting.start_soon(listener.serve, begin, sessions)
                    await self.stopping.wait()
                    accepting.cancel_scope.cancel()
                for listener in listeners:
                    await listener.aclose()
                ending.start_soon(self._end, sessions.cancel_scope)
            ending.cancel_scope.cancel()

    async def _end(self, sessions: anyio.CancelScope) -> None:
        """Let sessions finish for a while; tell those that have not, and then cut them off."""
        if self.deadlines.drain is None:
            return
        await anyio.sleep(self.deadlines.drain)
        self.cutting = True
        for dialogue in self.dialogues:
            dialogue.cut()
        if self.deadlines.cut is not None:
            await anyio.sleep(self.deadlines.cut)
            sessions.cancel()

    async def serve_stream(self, stream: ByteStream, *, implicit_tls: bool | None = None) -> None:
        """Serve one connection on a stream that is open already, and close it.

        `implicit_tls` is for this one; None: as for all.
        """
        peer = peer_address(stream)
        session = Session(next(self.ids), peer, local_address(stream))
        implicit_tls = self.implicit_tls if implicit_tls is None else implicit_tls
        dialogue = Dialogue(self, session, stream, implicit_tls=implicit_tls)
        self.dialogues.add(dialogue)
        try:
            await dialogue.run()
        except Exception:
            log.exception("session %d with %s ended by an error", session.id, peer[0])
        finally:
            self.dialogues.discard(dialogue)
            self.connections.leave(dialogue)
            if self.closer is not None:
                await self._tell_closed(self.closer, session)

    async def _tell_closed(self, closer: Closer, session: Session) -> None:
        with anyio.move_on_after(FAREWELL, shield=True):
            try:
                await closer.closed(session)
            except Exception:
                log.exception("a handler failed after session %d", session.id)

    def patience(self, *, pressed: bool) -> ServerDeadlines:
        """Return the deadlines of now: while there are too many connections, the shorter ones."""
        return self._in_a_hurry if pressed else self.deadlines

    def plaintext_allowed(self, session: Session) -> bool:
        if self.plaintext_auth == "loopback":
            return bool(session.peer[0]) and ipaddress.ip_address(session.peer[0]).is_loopback
        return self.plaintext_auth == "always"
