"""The server over anyio: sessions, deadlines and limits around a `ServerConnection`.

Policy is the handler's, protocol the core's; between them are only octets and time.
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import anyio
from anyio.abc import ByteStream, TaskStatus
from attrs import Factory, define, field, frozen

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
from .mechanisms import STANDARD as MECHANISMS
from .stream import local_address, peer_address
from .wire import listen_tcp

__all__ = [
    "Authenticator",
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
class ServerDeadlines:
    """How long the server waits, in seconds; None for ever.

    RFC 5321 §4.5.3.2.7 asks for at least 5 minutes of patience with a client's next command.
    `command` bounds the wait for one whole line however it dribbles in, `block` that for the
    next octets of content, `handler` what a handler may take to answer, or between two readings
    of content (clients give the final dot 10 minutes), `linger` how long a client that was sent
    away is listened to, so that it hears why, and `drain` how long transactions under way may go
    on after `stop()`.
    """

    tls: float | None = 60
    command: float | None = 300
    auth: float | None = 120
    block: float | None = 180
    write: float | None = 180
    linger: float | None = 2
    handler: float | None = 570
    session: float | None = 4 * 3600
    drain: float | None = 30


@define(eq=False)
class Server:
    """An SMTP server: `await task_group.start(server.serve, host, port)`.

    `handler` decides about mail; `authenticator` about logins, of `mechanisms` those are offered
    that it can answer. `sasl` is what those need: -PLUS forms are offered if it has a channel
    binding (`mechanisms.binding` makes one of the certificate). `tls` is the context for
    STARTTLS, or from the first octet with `implicit_tls`.
    `plaintext_auth` says where passwords may be sent without TLS. `max_connections_per_peer`
    counts by client address. `greeting_delay` is how many seconds to listen before the greeting
    for clients that will not wait for it. `trace(session, line)` is shown the dialogue, redacted.
    LocalProtocolError for a hostname that is no domain, or implicit TLS without a context.
    """

    handler: Handler
    hostname: str = "localhost"
    tls: ssl.SSLContext | None = field(default=None, kw_only=True)
    implicit_tls: bool = field(default=False, kw_only=True)
    authenticator: AnyAuthenticator | None = field(default=None, kw_only=True)
    mechanisms: Sequence[Mechanism] = field(default=MECHANISMS, kw_only=True)
    sasl: ServerContext = field(factory=ServerContext, kw_only=True)
    plaintext_auth: Literal["never", "loopback", "always"] = field(default="never", kw_only=True)
    extensions: Sequence[Extension] = field(default=STANDARD, kw_only=True)
    offer: Sequence[Extension] | None = field(default=None, kw_only=True)
    limits: Limits = field(factory=Limits, kw_only=True)
    deadlines: ServerDeadlines = field(factory=ServerDeadlines, kw_only=True)
    max_connections: int = field(default=1000, kw_only=True)
    max_connections_per_peer: int = field(default=50, kw_only=True)
    max_failed_logins: int = field(default=3, kw_only=True)
    failed_login_delay: float = field(default=1.0, kw_only=True)
    greeting_delay: float = field(default=0.0, kw_only=True)
    repair: bool = field(default=False, kw_only=True)
    trace: Callable[[Session, str], None] | None = field(default=None, kw_only=True)

    # What the running server keeps, for its dialogues.
    stopping: anyio.Event = field(factory=anyio.Event, init=False, repr=False)
    dialogues: set[Dialogue] = field(default=Factory(set[Dialogue]), init=False, repr=False)
    peers: Counter[str] = field(default=Factory(Counter[str]), init=False, repr=False)
    ids: Iterator[int] = field(default=Factory(lambda: itertools.count(1)), init=False, repr=False)
    # Powers of the handler that few have; to look for them in each session costs some 10 µs.
    interceptor: Interceptor | None = field(init=False, repr=False)
    closer: Closer | None = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        as_domain(self.hostname)
        if self.implicit_tls and self.tls is None:
            raise LocalProtocolError("a server with implicit_tls needs a TLS context")
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

    def stop(self) -> None:
        """End gracefully: no new connections, 421 to idle ones, transactions may finish.

        `serve` returns when they have, or when the drain deadline is over.
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
        async with (
            await listen_tcp(host, port) as listener,
            anyio.create_task_group() as sessions,
        ):
            task_status.started(listener.address)
            async with anyio.create_task_group() as accepting:
                accepting.start_soon(listener.serve, self.serve_stream, sessions)
                await self.stopping.wait()
                accepting.cancel_scope.cancel()
            await listener.aclose()
            if self.deadlines.drain is not None:
                sessions.cancel_scope.deadline = anyio.current_time() + self.deadlines.drain

    async def serve_stream(self, stream: ByteStream) -> None:
        """Serve one connection on a stream that is open already, and close it."""
        peer = peer_address(stream)
        session = Session(next(self.ids), peer, local_address(stream))
        self.peers[peer[0]] += 1
        dialogue = Dialogue(self, session, stream)
        self.dialogues.add(dialogue)
        try:
            await dialogue.run()
        except Exception:
            log.exception("session %d with %s ended by an error", session.id, peer[0])
        finally:
            self.dialogues.discard(dialogue)
            self.peers[peer[0]] -= 1
            if not self.peers[peer[0]]:
                del self.peers[peer[0]]
            if self.closer is not None:
                await self._tell_closed(self.closer, session)
            await anyio.aclose_forcefully(stream)

    async def _tell_closed(self, closer: Closer, session: Session) -> None:
        with anyio.move_on_after(FAREWELL, shield=True):
            try:
                await closer.closed(session)
            except Exception:
                log.exception("a handler failed after session %d", session.id)

    def has_room(self, session: Session) -> bool:
        address = session.peer[0]  # empty for streams that are no TCP
        return self.peers.total() <= self.max_connections and not (
            address and self.peers[address] > self.max_connections_per_peer
        )

    def plaintext_allowed(self, session: Session) -> bool:
        if self.plaintext_auth == "loopback":
            return bool(session.peer[0]) and ipaddress.ip_address(session.peer[0]).is_loopback
        return self.plaintext_auth == "always"
