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
from itertools import compress
from typing import Any, Literal

import anyio
from anyio.abc import ByteStream, TaskStatus
from attrs import Attribute, Factory, define, field, frozen

from .core.connection import Limits
from .core.errors import LocalProtocolError
from .core.extension import Extension
from .core.path import as_domain
from .core.sasl import (
    Mechanism,
    ServerContext,
)
from .deadline import DeadlineError
from .dialogue import Dialogue
from .extensions import STANDARD
from .handler import (
    AnyAuthenticator,
    Authenticator,
    Closer,
    ContentError,
    ContentStream,
    Handler,
    Session,
    Welcomer,
)
from .mechanisms import STANDARD as MECHANISMS
from .powers import Powers
from .stream import StreamLostError, local_address, peer_address
from .trust import Network, as_networks, is_listed, read_proxy_header
from .wire import Wire, as_wire, listen_tcp

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
SMTP_PORT = 25  # where LMTP is not spoken (RFC 2033 §5)

NO_LMTP = "LMTP is not for port 25 (RFC 2033 §5)"


def _forget(server: Server, attribute: Attribute[Any], value: Any) -> Any:
    """Let what follows from an attribute be found out again where another value is assigned."""
    server.forget()
    return value


@frozen
class ServerDeadlines:
    """How long the server waits, in seconds; None for ever.

    RFC 5321 §4.5.3.2.7 asks for at least 5 minutes of patience with a client's next command.
    `proxy` bounds the wait for the header of a proxy that is believed, `command` that for one
    whole line however it dribbles in, `block` that for the next octets of content, `handler` what
    a handler may take to answer, or between two readings of content (clients give the final dot
    10 minutes), `linger` how long a client that was sent away is listened to, so that it hears
    why, and `drain` how long transactions under way may go on after `stop()`.
    """

    proxy: float | None = 5
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

    `offer` is what is announced of `extensions`: by default those that oblige to nothing, and those
    that the handler has the power for. `lmtp` speaks LMTP (RFC 2033), never on port 25; a handler
    that is a `Deliverer` answers for each recipient, the answer of another holds for all.
    Connections from `proxy_from`, networks or addresses, must begin with a PROXY header, and are
    closed without a word where they do not. XCLIENT and XFORWARD are offered to and believed
    from `xclient_from` and `xforward_from`, and nobody else.

    What the handler and the authenticator can do is found out once, and again where another
    is assigned. LocalProtocolError for a hostname that is no domain, a network that is none, or
    implicit TLS without a context.
    """

    handler: Handler = field(on_setattr=_forget)
    hostname: str = "localhost"
    tls: ssl.SSLContext | None = field(default=None, kw_only=True)
    implicit_tls: bool = field(default=False, kw_only=True)
    authenticator: AnyAuthenticator | None = field(default=None, kw_only=True, on_setattr=_forget)
    mechanisms: Sequence[Mechanism] = field(default=MECHANISMS, kw_only=True, on_setattr=_forget)
    sasl: ServerContext = field(factory=ServerContext, kw_only=True, on_setattr=_forget)
    plaintext_auth: Literal["never", "loopback", "always"] = field(default="never", kw_only=True)
    extensions: Sequence[Extension] = field(default=STANDARD, kw_only=True, on_setattr=_forget)
    offer: Sequence[Extension] | None = field(default=None, kw_only=True, on_setattr=_forget)
    lmtp: bool = field(default=False, kw_only=True)
    proxy_from: tuple[Network, ...] = field(default=(), kw_only=True, converter=as_networks)
    xclient_from: tuple[Network, ...] = field(default=(), kw_only=True, converter=as_networks)
    xforward_from: tuple[Network, ...] = field(default=(), kw_only=True, converter=as_networks)
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
    _powers: Powers | None = field(default=None, init=False, repr=False)
    _offers: dict[tuple[bool, bool], tuple[Extension, ...]] = field(
        default=Factory(dict[tuple[bool, bool], tuple[Extension, ...]]), init=False, repr=False
    )

    def __attrs_post_init__(self) -> None:
        as_domain(self.hostname)
        if self.implicit_tls and self.tls is None:
            raise LocalProtocolError("a server with implicit_tls needs a TLS context")

    def forget(self) -> None:
        """Find out again what the handler can do, and what is offered."""
        self._powers = None
        self._offers.clear()

    @property
    def powers(self) -> Powers:
        """What the handler and the authenticator can do; bound mechanisms if there is a binding."""
        if self._powers is None:
            possible = [m for m in self.mechanisms if self.sasl.bindings or not m.binds]
            self._powers = Powers.of(self.handler, self.authenticator, possible)
        return self._powers

    def offered_to(self, host: str) -> tuple[Extension, ...]:
        """Return what is offered to a client at this address."""
        believed = (is_listed(host, self.xclient_from), is_listed(host, self.xforward_from))
        offer = self._offers.get(believed)
        if offer is None:
            usual = self.powers.offer(self.extensions) if self.offer is None else self.offer
            words = set(compress(("XCLIENT", "XFORWARD"), believed))
            more = {e.keyword: e for e in self.extensions if e.keyword in words}
            offer = tuple({**{e.keyword: e for e in usual}, **more}.values())
            self._offers[believed] = offer
        return offer

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

        Reports the address and port it is bound to when it is ready. OSError if it cannot bind,
        LocalProtocolError for LMTP on port 25 (RFC 2033 §5).
        """
        if self.lmtp and port == SMTP_PORT:
            raise LocalProtocolError(NO_LMTP)
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
        session = Session(
            next(self.ids), peer_address(stream), local_address(stream), lmtp=self.lmtp
        )
        self.enter(session)
        try:
            await self._lead(session, as_wire(stream))
        except Exception:
            log.exception("session %d with %s ended by an error", session.id, session.peer[0])
        finally:
            self.leave(session)
            await anyio.aclose_forcefully(stream)

    async def _lead(self, session: Session, wire: Wire) -> None:
        if self.lmtp and session.local[1] == SMTP_PORT:
            raise LocalProtocolError(NO_LMTP)
        early = b""
        if is_listed(session.peer[0], self.proxy_from):
            try:
                header, early = await read_proxy_header(wire, self.deadlines.proxy)
            except (StreamLostError, DeadlineError) as error:
                log.info("proxy %s, session %d: %s", session.peer[0], session.id, error)
                return
            self.leave(session)
            session.believe(header)
            self.enter(session)
        dialogue = Dialogue(self, session, wire, early)
        self.dialogues.add(dialogue)
        try:
            await dialogue.run()
        finally:
            self.dialogues.discard(dialogue)
            if (closer := self.powers.closer) is not None:
                await self._tell_closed(closer, session)

    # Who is there, by address

    def enter(self, session: Session) -> None:
        self.peers[session.peer[0]] += 1

    def leave(self, session: Session) -> None:
        address = session.peer[0]
        self.peers[address] -= 1
        if not self.peers[address]:
            del self.peers[address]

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
