"""The server over anyio: sessions, deadlines and limits around a `ServerConnection`.

Policy is the handler's, protocol the core's; between them are only octets and time.
"""

from __future__ import annotations

import itertools
import logging
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import compress
from os import PathLike
from typing import Any, Literal

import anyio
from anyio.abc import ByteStream, TaskStatus
from attrs import Attribute, Factory, define, field, frozen

from .certificates import Certificates
from .core.connection import Limits
from .core.errors import LocalProtocolError
from .core.extension import Extension
from .core.path import as_domain
from .core.proxy import ProxyHeader
from .core.sasl import (
    Mechanism,
    ServerContext,
)
from .deadline import DeadlineError, is_stray
from .dialogue import Dialogue
from .extensions import STANDARD
from .handler import (
    AnyAuthenticator,
    Authenticator,
    Closer,
    ContentError,
    ContentStream,
    Handler,
    LoginGuard,
    Session,
    Welcomer,
)
from .limits import Connections, ServerDeadlines
from .mechanisms import STANDARD as MECHANISMS
from .powers import Powers
from .stream import StreamLostError
from .trust import AnyNetwork, Network, as_address, as_networks, is_listed, read_proxy_header
from .wire import Listener, Wire, as_wire, listen_tcp, listen_unix

__all__ = [
    "At",
    "Authenticator",
    "Certificates",
    "Connections",
    "ContentError",
    "ContentStream",
    "Handler",
    "LoginGuard",
    "Server",
    "ServerDeadlines",
    "Session",
    "Welcomer",
]

log = logging.getLogger(__name__)

FAREWELL = 10  # seconds that a handler has after a session
SMTP_PORT = 25  # where LMTP is not spoken (RFC 2033 §5)

NO_LMTP = "LMTP is not for port 25 (RFC 2033 §5)"


def _by_keyword(
    networks: Mapping[str, Iterable[AnyNetwork]],
) -> dict[str, tuple[Network, ...]]:
    return {keyword: as_networks(some) for keyword, some in networks.items()}


def _forget(server: Server, attribute: Attribute[Any], value: Any) -> Any:
    """Let what follows from an attribute be found out again where another value is assigned."""
    server.forget()
    return value


@frozen
class At:
    """Where a server listens: at a host (None: at all addresses) and a port (0: a free one).

    With `implicit_tls` TLS comes first there, as on port 465 (RFC 8314 §3.3); None: as the server
    has it. `path` is that of a UNIX socket instead, and `mode` its permissions; such clients
    have no address, and are not limited each. `reuse_port` lets other processes listen there,
    too, and share the connections (SO_REUSEPORT). `bound` is what listens there already, and is
    closed with the server.
    """

    host: str | None = "127.0.0.1"
    port: int = 0
    implicit_tls: bool | None = field(default=None, kw_only=True)
    path: str | PathLike[str] | None = field(default=None, kw_only=True)
    mode: int | None = field(default=None, kw_only=True)
    reuse_port: bool = field(default=False, kw_only=True)
    bound: Listener | None = field(default=None, kw_only=True)

    def __str__(self) -> str:
        return f"{self.host or '*'}:{self.port}" if self.path is None else str(self.path)

    async def listen(self) -> Listener:
        """Bind there. OSError with the place as its `filename` if that cannot be."""
        if self.bound is not None:
            return self.bound
        try:
            if self.path is not None:
                return await listen_unix(self.path, mode=self.mode)
            return await listen_tcp(self.host, self.port, reuse_port=self.reuse_port)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(self)) from error


class _Waiting:
    """A connection of which its proxy has not said yet whose it is."""

    def press(self, pressed: bool) -> None:
        """Nothing: its deadline is short enough."""


@define(eq=False)
class Server:
    """An SMTP server: `await task_group.start(server.serve, host, port)`.

    `handler` decides about mail; `authenticator` about logins, of `mechanisms` those are offered
    that it can answer, and `guard` may refuse who guesses. `sasl` is what those need: -PLUS forms
    are offered if it has a channel binding (`mechanisms.binding` makes one of the certificate).
    `tls` is the context for
    STARTTLS, or from the first octet with `implicit_tls`; or `Certificates`, which `reload` reads
    anew.
    `plaintext_auth` says where passwords may be sent without TLS. `greeting_delay` is how many
    seconds to listen before the greeting for clients that will not wait for it.
    `trace(session, line)` is shown the dialogue, redacted.

    `offer` is what is announced of `extensions`: by default those that oblige to nothing, and those
    that the handler has the power for. `lmtp` speaks LMTP (RFC 2033), never on port 25; a handler
    that is a `Deliverer` answers for each recipient, the answer of another holds for all.
    Connections from `proxy_from`, networks or addresses, must begin with a PROXY header, and are
    closed without a word where they do not. XCLIENT and XFORWARD are offered to and believed
    from `xclient_from` and `xforward_from`, and nobody else. `offer_only_to` has networks by
    keyword: that extension is offered to them alone.

    `connections` counts who is there, and says when there are too many; servers may share it.
    Then none of the deadlines is longer than in `under_pressure`. A session may have
    `max_commands` in all, and `max_idle_commands` that are about no mail between two messages
    (None: any number); past that, 421. Each command answered with 5yz is an error; behind
    `max_quick_errors` of them an answer to another takes `error_delay` seconds. What is no
    command at all ends the session when there was too much of it (`limits.bad_commands`).

    What the handler and the authenticator can do is found out once, and again where another
    is assigned. LocalProtocolError for a hostname that is no domain, a network that is none, or
    implicit TLS without a context.
    """

    handler: Handler = field(on_setattr=_forget)
    hostname: str = "localhost"
    tls: ssl.SSLContext | Certificates | None = field(default=None, kw_only=True)
    implicit_tls: bool = field(default=False, kw_only=True)
    authenticator: AnyAuthenticator | None = field(default=None, kw_only=True, on_setattr=_forget)
    mechanisms: Sequence[Mechanism] = field(default=MECHANISMS, kw_only=True, on_setattr=_forget)
    sasl: ServerContext = field(factory=ServerContext, kw_only=True, on_setattr=_forget)
    guard: LoginGuard | None = field(default=None, kw_only=True)
    plaintext_auth: Literal["never", "loopback", "always"] = field(default="never", kw_only=True)
    extensions: Sequence[Extension] = field(default=STANDARD, kw_only=True, on_setattr=_forget)
    offer: Sequence[Extension] | None = field(default=None, kw_only=True, on_setattr=_forget)
    lmtp: bool = field(default=False, kw_only=True)
    proxy_from: tuple[Network, ...] = field(default=(), kw_only=True, converter=as_networks)
    xclient_from: tuple[Network, ...] = field(default=(), kw_only=True, converter=as_networks)
    xforward_from: tuple[Network, ...] = field(default=(), kw_only=True, converter=as_networks)
    offer_only_to: Mapping[str, tuple[Network, ...]] = field(
        factory=dict[str, tuple[Network, ...]], kw_only=True, converter=_by_keyword
    )
    limits: Limits = field(factory=Limits, kw_only=True)
    deadlines: ServerDeadlines = field(factory=ServerDeadlines, kw_only=True, on_setattr=_forget)
    under_pressure: ServerDeadlines = field(
        factory=ServerDeadlines.under_pressure, kw_only=True, on_setattr=_forget
    )
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
    _in_a_hurry: ServerDeadlines | None = field(default=None, init=False, repr=False)
    ids: Iterator[int] = field(default=Factory(lambda: itertools.count(1)), init=False, repr=False)
    _powers: Powers | None = field(default=None, init=False, repr=False)
    _offers: dict[tuple[bool, ...], tuple[Extension, ...]] = field(
        default=Factory(dict[tuple[bool, ...], tuple[Extension, ...]]), init=False, repr=False
    )

    def __attrs_post_init__(self) -> None:
        as_domain(self.hostname)
        if self.implicit_tls and self.tls is None:
            raise LocalProtocolError("a server with implicit_tls needs a TLS context")

    def forget(self) -> None:
        """Find out again what the handler can do, what is offered, and what a hurry is."""
        self._powers = self._in_a_hurry = None
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
        chosen = tuple(is_listed(host, some) for some in self.offer_only_to.values())
        offer = self._offers.get(believed + chosen)
        if offer is None:
            usual = self.powers.offer(self.extensions) if self.offer is None else self.offer
            words = set(compress(("XCLIENT", "XFORWARD"), believed))
            more = {e.keyword: e for e in self.extensions if e.keyword in words}
            kept = set(self.offer_only_to) - set(compress(self.offer_only_to, chosen))
            there = {**{e.keyword: e for e in usual}, **more}
            offer = tuple(e for e in there.values() if e.keyword not in kept)
            self._offers[believed + chosen] = offer
        return offer

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
        It is for good: told before it serves, a server reports where it is bound, and is over.
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

        For one TCP port; `serve_at` has UNIX sockets, and several places.
        Reports the address and port it is bound to when it is ready. OSError if it cannot bind,
        LocalProtocolError for LMTP on port 25 (RFC 2033 §5).
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
        if self.lmtp and any(place.path is None and place.port == SMTP_PORT for place in places):
            raise LocalProtocolError(NO_LMTP)
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
        number, peer = next(self.ids), ""
        implicit_tls = self.implicit_tls if implicit_tls is None else implicit_tls
        wire = as_wire(stream)
        try:
            session = Session(number, wire.peer, wire.local, lmtp=self.lmtp)
            peer = session.peer[0]
            await self._lead(session, wire, implicit_tls=implicit_tls)
        except Exception:
            log.exception("session %d with %s ended by an error", number, peer)
        finally:
            await wire.aclose()

    async def _lead(self, session: Session, wire: Wire, *, implicit_tls: bool) -> None:
        if self.lmtp and session.local[1] == SMTP_PORT:
            raise LocalProtocolError(NO_LMTP)
        early = b""
        if is_listed(session.peer[0], self.proxy_from):
            try:
                header, early = await self._hear_proxy(wire)
            except (StreamLostError, DeadlineError) as error:
                log.info("proxy %s, session %d: %s", session.peer[0], session.id, error)
                return
            session.believe(header)
        dialogue = Dialogue(self, session, wire, early, implicit_tls=implicit_tls)
        self.dialogues.add(dialogue)
        try:
            await dialogue.run()
        finally:
            self.dialogues.discard(dialogue)
            try:
                if (closer := dialogue.powers.closer) is not None:
                    await self._tell_closed(closer, session)
            finally:
                self.connections.leave(dialogue)

    async def _hear_proxy(self, wire: Wire) -> tuple[ProxyHeader, bytes]:
        """Read its header; till then the connection counts in all, and for no network."""
        waiting = _Waiting()
        if not self.connections.enter(waiting, ""):
            raise StreamLostError("there are too many connections")
        try:
            seconds = self.patience(pressed=self.connections.pressed).proxy
            return await read_proxy_header(wire, seconds)
        finally:
            self.connections.leave(waiting)

    async def _tell_closed(self, closer: Closer, session: Session) -> None:
        with anyio.move_on_after(FAREWELL, shield=True):
            try:
                await closer.closed(session)
            except BaseException as error:
                if not (isinstance(error, Exception) or is_stray(error)):
                    raise
                log.exception("a handler failed after session %d", session.id)

    def patience(self, *, pressed: bool) -> ServerDeadlines:
        """Return the deadlines of now: while there are too many connections, the shorter ones."""
        if not pressed:
            return self.deadlines
        if self._in_a_hurry is None:
            self._in_a_hurry = self.deadlines.at_most(self.under_pressure)
        return self._in_a_hurry

    def plaintext_allowed(self, session: Session) -> bool:
        if self.plaintext_auth == "loopback":
            address = as_address(session.peer[0])
            return address is not None and address.is_loopback
        return self.plaintext_auth == "always"
