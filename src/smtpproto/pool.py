"""Many messages over few connections, which are kept for the next one: the pool.

For an app with one server::

    def connect() -> Client:
        return Client("mail.example.org", 587, login=("me", "secret"))

    async with Pool(connect) as pool:
        await pool.send(Envelope("me@example.org", ["you@example.net"]), message)

        async with pool.send_many(messages) as outcomes:
            async for sent in outcomes:
                print(sent.number, sent.result)

For many, whatever tells them apart is an argument of that function, and of all that sends::

    async with Pool(lambda host: Client(host, 25, tls="opportunistic")) as pool:
        await pool.send(envelope, message, "mx.example.net")
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVarTuple, cast

import anyio
from anyio.abc import TaskGroup
from attrs import define, field, frozen

from .arguments import expect
from .client import Client
from .core.envelope import Envelope
from .core.errors import LocalProtocolError
from .core.reply import Reply, Severity
from .holdoff import HoldOffs
from .lanes import Lane, Lanes
from .many import each_done
from .result import ClientError, DeliveryError, Fate, LoginError, Outcome, RefusedError, Result
from .source import AnyContent, repeatable

__all__ = ["Pool", "Sent", "Suited"]

log = logging.getLogger(__name__)

D = TypeVarTuple("D")

#: Makes the envelope for a server that offers this, keyword -> argument: what one is asked for may
#: hang on what it can do, and on when it is asked. The recipients are the same each time.
Suited: TypeAlias = "Callable[[Mapping[str, str]], Envelope]"


@frozen
class Sent(Generic[*D]):
    """What became of one message of `Pool.send_many`, which was number `number`, from 0.

    It is true where all recipients were accepted. Where there was no session for it, or nothing
    that may be sent, nobody has it: `error` is what `Pool.deliver` would have raised, and `result`
    says so for each recipient, TRANSIENT where trying again is sensible.
    """

    number: int
    message: tuple[Envelope, AnyContent, *D] = field(repr=False)
    result: Result
    error: Exception | None = None

    def __bool__(self) -> bool:
        return self.result.all_accepted

    def __str__(self) -> str:
        return f"message {self.number}: {self.result}"


@define(eq=False)
class _Connection:
    """A session of the pool's."""

    client: Client
    lane: Lane[_Connection]
    #: When it is too old, and when it was idle for too long, by the event loop's clock.
    aged: float
    until: float = math.inf
    messages: int = 0
    #: It was unused for a while, however short, and may have died of that.
    kept: bool = False


@define(eq=False)
class Pool(Generic[*D]):
    """Sessions that are opened when they are needed and kept for a while; a context manager.

    `client` makes a Client, not entered yet, for a destination. What a destination is, its
    arguments say: there are none where all goes to one server; else hashable values, such as host
    and port, and all who send there name it by equal ones. `login`, `tls` and the like are its own
    affair. It is called, and the Client entered, in a task of the pool's; it must not block.

    There are `total` connections at most, and `each` to one destination, counted from before they
    open until they are closed. One is closed when it was unused for `idle` seconds, and behind a
    message when it is `life` seconds old or has carried `messages` of them, or as many as the
    server grants (MAILMAX, RFC 9422). So by default a burst costs few sessions, and nobody's server
    is kept waiting for the next one. QUIT is said to each, and its answer waited for as long as
    ClientDeadlines.quit has it, by nobody who sends.

    Who finds no connection free waits for one, in the order of asking, and only behind those who
    wait for the same destination. Where `total` is reached, unused connections make room, and busy
    destinations give some up until each has its share. Where a server that has some of our
    connections refuses another, the message waits for one of those.

    Who does not answer keeps its place until a deadline of the Client's ends that. So the first
    connection to a destination has but a part of the places: seven eighths of them for all first
    ones together; of these six where none was opened when it was tried last, or none was tried; and
    four where it failed. However many servers are silent, there is room for those that answered.
    How it went is remembered of the 10,000 that were tried last.

    Where a destination cannot be reached, or does not let us in, one attempt tells all who wait for
    it at the time; and for a while it is not tried again, so that who sends by the thousand neither
    waits for each nor hammers a server that is down, or locks an account. Who asks for it then gets
    HeldOffError at once, which says when. That while is `hold_off` seconds, or as long as the
    attempt took, doubles from failure to failure up to `hold_off_longest`, and is lengthened by up
    to a quarter, as `jitter()` says by a number from 0 to 1; a `hold_off` of 0 is none. Where one
    connection was opened, all is as before. A message with `patience` waits for that, so many
    seconds in all that it is held off, before it hears any of these errors: so a server that
    restarts does not cost what is left of a long list.

    **Never twice by our doing.** A server may close a connection that nobody uses, which shows only
    when it is used again. Then the message goes to another connection, provided that the server
    has said nothing to it, or 421 and nothing else. That is safe: content leaves only when MAIL,
    RCPT and DATA, if it goes by that, have been answered, and what a server has not seen it cannot
    have accepted (RFC 5321 §4.2.5). Once another reply has come, a message is not tried again: its
    outcome is TRANSIENT until the end of the content leaves, and UNKNOWN behind that, for then the
    server may have it (RFC 5321 §4.5.3.2.6, RFC 1047). Whether to send it again is yours to say.

    Leaving the block waits for the messages under way and closes all; who still waits for a
    connection gets ClientError. Cancelled, that closes unused connections without waiting for an
    answer, and each of the others when its message is done. A pool is opened once.
    """

    client: Callable[[*D], Client] = field(repr=False)  # it may show a password
    total: int = field(default=50, kw_only=True)
    each: int = field(default=5, kw_only=True)
    idle: float = field(default=10, kw_only=True)
    life: float = field(default=300, kw_only=True)
    messages: int = field(default=100, kw_only=True)
    hold_off: float = field(default=1, kw_only=True)
    hold_off_longest: float = field(default=60, kw_only=True)
    patience: float = field(default=0, kw_only=True)
    jitter: Callable[[], float] = field(default=random.random, kw_only=True, repr=False)

    _lanes: Lanes[_Connection] = field(init=False, repr=False)
    _held: HoldOffs = field(init=False, repr=False)
    # Those who open and close connections; None before and after.
    _tasks: TaskGroup | None = field(default=None, init=False, repr=False)
    _opening: set[anyio.CancelScope] = field(factory=set[anyio.CancelScope], init=False, repr=False)
    # When unused connections are looked at next, by the event loop's clock.
    _looks_at: float = field(default=math.inf, init=False, repr=False)
    _look: anyio.Event = field(init=False, repr=False)
    _left: anyio.Event = field(init=False, repr=False)
    _empty: anyio.Event | None = field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if min(self.total, self.each, self.messages) < 1:
            raise ValueError("a pool needs at least one connection, for at least one message")
        self._held = HoldOffs(self.hold_off, self.hold_off_longest, self.jitter, anyio.current_time)
        self._lanes = Lanes(self.total, self.each, self._open, self._part)
        self._lanes.over = ClientError("this pool is not open")

    # Opening and closing

    def __len__(self) -> int:
        """How many connections there are, those that open or close included."""
        return self._lanes.count

    def __bool__(self) -> bool:
        """True: a pool without connections is one, too."""
        return True

    async def __aenter__(self) -> Self:
        if self._empty is not None:
            raise RuntimeError("a pool is opened once")
        self._look, self._left, self._empty = anyio.Event(), anyio.Event(), anyio.Event()
        tasks = anyio.create_task_group()
        await tasks.__aenter__()
        self._tasks = tasks
        tasks.start_soon(self._close_unused)
        self._lanes.over = None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks, empty = self._tasks, self._empty
        assert tasks is not None
        assert empty is not None
        try:
            self._lanes.end(ClientError("this pool was closed"))
            self._left.set()
            for scope in self._opening:
                scope.cancel()
            if self._lanes.count:
                await empty.wait()
        finally:
            self._tasks = None
            tasks.cancel_scope.cancel()
            # Not the error: it is the block's, and would come out in a group.
            await tasks.__aexit__(None, None, None)

    # Sending

    async def send(self, envelope: Envelope, content: AnyContent, *destination: *D) -> Result:
        """Hand a message over, to all of its recipients.

        Returns when every one was accepted; else raises DeliveryError with the Result, in which
        some may be. For the rest, see `deliver`.
        """
        result = await self.deliver(envelope, content, *destination)
        if not result.all_accepted:
            raise DeliveryError(result)
        return result

    async def deliver(
        self,
        envelope: Envelope | Suited,
        content: AnyContent,
        *destination: *D,
        told: Callable[[int, Reply], None] | None = None,
    ) -> Result:
        """Hand a message over; return an outcome for each recipient, whatever the server does.

        As `Client.deliver`, and when no session can be had it raises what entering a Client does:
        nothing has been delivered then. Content that can be read only once is read no further than
        its first 64 KiB until the server has answered. An envelope that is a function is made when
        there is a session, just before it is used; what that raises comes out.
        """
        if not callable(envelope):
            expect(envelope, Envelope, "an Envelope comes first")
        content, chunks = repeatable(content)
        try:
            again = False
            while True:
                connection = await self._acquire(destination, again)
                kept, full, result = connection.kept, False, None
                try:
                    client = connection.client
                    suited = envelope(client.offered) if callable(envelope) else envelope
                    full = connection.messages > 0 and not client.takes(suited)
                    if not full:
                        result = await client.deliver(suited, content, told=told)
                finally:
                    connection.messages += 1
                    await self._release(connection, full=full)
                if result is not None and not (kept and result.unheard):
                    return result
                if result is not None:
                    # What has ended this one may have ended those that were unused as long.
                    self._lanes.retire_idle(connection.lane)
                again = True
        finally:
            if chunks is not None:
                await chunks.aclose()

    def send_many(
        self,
        messages: Iterable[tuple[Envelope, AnyContent, *D]]
        | AsyncIterable[tuple[Envelope, AnyContent, *D]],
        *,
        concurrency: int = 20,
    ) -> AbstractAsyncContextManager[AsyncIterator[Sent[*D]]]:
        """Deliver messages as they come; a context manager, whose value gives what became of each.

        ::

            async with pool.send_many(messages) as outcomes:
                async for sent in outcomes:
                    ...

        A message is a tuple of what `deliver` takes: envelope, content, and the destination where
        there is one; something else ends it all, with TypeError. They are read one by one, and
        `concurrency` of them are in hand at most, each from when it is read until its Sent is
        taken: who takes slowly makes all wait. A Sent comes when its message is done, so not in
        their order; `number` is its place in that. No message that fails stops the others. Where
        some destinations are slow, `concurrency` should be some times `each`: what waits for them
        is in hand, too.

        `messages` are read in one task, which is not yours; those that are no AsyncIterable must
        not block. What they raise, the iterator raises behind the Sents of all that came before.
        Whoever waits for a Sent may be cancelled, by a deadline say, and wait again: none is lost.

        Leaving the block early cuts off what is under way, and tells nothing of it, though it may
        have been delivered. To stop in good order, end `messages` and take what is left.
        ValueError for a concurrency below 1.
        """
        if concurrency < 1:
            raise ValueError("send_many needs a concurrency of at least one")
        return each_done(self._send_one, messages, concurrency)

    async def _send_one(self, number: int, message: tuple[Envelope, AnyContent, *D]) -> Sent[*D]:
        expect(message, tuple, "a message is a tuple: envelope, content, destination")
        expect(message[0], Envelope, "an Envelope comes first")
        try:
            return Sent(number, message, await self.deliver(*message))
        except Exception as error:  # noqa: BLE001 - it is told
            return Sent(number, message, _nobody_has_it(message[0], error), error)

    # Connections

    async def _acquire(self, destination: tuple[*D], first: bool) -> _Connection:
        """Return a connection that is nobody else's until it is released.

        Whatever keeps one from being opened is raised by all who wait for it, but for those who
        have the patience to wait until it is tried again.
        """
        patience = self.patience
        while True:
            held = self._held.refusal(destination)
            if held is None or self._lanes.over is not None:
                try:
                    return await self._granted(destination, first)
                except ClientError:
                    # In a busy loop it may be over before who waits has their turn.
                    wait = self._held.lasts(destination)
                    if not 0 < wait <= patience or self._lanes.over is not None:
                        raise
                    held = self._held.refusal(destination)
            elif (wait := held.seconds) > patience:
                raise held from held.error
            patience -= wait
            if held is not None:
                with anyio.move_on_after(held.seconds):
                    await self._left.wait()

    async def _granted(self, destination: tuple[*D], first: bool) -> _Connection:
        ticket = self._lanes.ask(destination, first=first)
        try:
            if not ticket.settled:
                settled = anyio.Event()
                ticket.wake = settled.set
                await settled.wait()
        except BaseException:
            if ticket.session is not None:
                await self._release(ticket.session)
            else:
                self._lanes.withdraw(ticket)
            raise
        if ticket.error is not None:
            raise _own(ticket.error)
        assert ticket.session is not None
        return ticket.session

    def _open(self, lane: Lane[_Connection]) -> None:
        assert self._tasks is not None
        scope = anyio.CancelScope()
        self._opening.add(scope)
        self._tasks.start_soon(self._connect, lane, scope)

    async def _connect(self, lane: Lane[_Connection], scope: anyio.CancelScope) -> None:
        """Open a connection for whoever waits: it may not be for whom it was begun."""
        connection: _Connection | None = None
        failure: Exception = ClientError("it was given up")
        since = anyio.current_time()
        with scope:
            try:
                client = self.client(*cast("tuple[*D]", lane.key))
                expect(client, Client, "a pool's function returns a Client")
                await client.__aenter__()
                connection = _Connection(client, lane, anyio.current_time() + self.life)
                self._held.reached(lane.key)
            except ClientError as error:
                failure = error
                if not lane.alive and lane.opening == 1:  # else others may fare better
                    self._held.failed(lane.key, error, anyio.current_time() - since)
            except Exception as error:  # noqa: BLE001 - it is raised by who waits
                failure = error
            finally:
                self._opening.discard(scope)
                if connection is None:
                    self._lanes.unopened(lane, failure)
                    self._tell_if_empty()
                else:
                    self._keep(connection, self._lanes.opened, anyio.current_time())
                    await self._close_if_left(connection)

    async def _release(self, connection: _Connection, *, full: bool = False) -> None:
        """Keep a connection for others, or close it if that cannot be, or it is `full`.

        Waits for nothing as long as the pool is open.
        """
        fit = connection.client.usable and connection.messages < self.messages and not full
        if fit and (now := anyio.current_time()) < connection.aged:
            connection.kept = True
            self._keep(connection, self._lanes.put_back, now)
        else:
            self._lanes.retire(connection.lane, connection)
        await self._close_if_left(connection)

    async def _close_if_left(self, connection: _Connection) -> None:
        """Where there is nobody any more who would close it: the pool was cancelled."""
        if self._tasks is None:
            await connection.client.aclose()

    def _keep(
        self,
        connection: _Connection,
        put: Callable[[Lane[_Connection], _Connection], None],
        now: float,
    ) -> None:
        connection.until = min(now + self.idle, connection.aged)
        put(connection.lane, connection)
        if connection in self._lanes.idle:
            connection.kept = True
            if connection.until < self._looks_at:
                self._look.set()

    def _part(self, lane: Lane[_Connection], connection: _Connection) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(self._close, lane, connection)

    async def _close(self, lane: Lane[_Connection], connection: _Connection) -> None:
        try:
            await connection.client.aclose()
        except Exception:
            log.exception("a connection could not be closed")
        finally:
            self._lanes.closed(lane)
            self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if self._empty is not None and self._lanes.over is not None and not self._lanes.count:
            self._empty.set()

    async def _close_unused(self) -> None:
        """Close connections when they were idle for long enough."""
        while True:
            self._look = anyio.Event()
            self._looks_at = min((each.until for each in self._lanes.idle), default=math.inf)
            with anyio.CancelScope(deadline=self._looks_at):
                await self._look.wait()
            now = anyio.current_time()
            for connection in [each for each in self._lanes.idle if each.until <= now]:
                self._lanes.expire(connection)


def _own(error: Exception) -> Exception:
    """Copy a client's error: what several raise at a time would gather the tracebacks of all."""
    if not isinstance(error, ClientError):
        return error
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error
    return copy


def _nobody_has_it(envelope: Envelope, error: Exception) -> Result:
    """Say for each recipient what kept the message from being sent at all."""
    reply = error.reply if isinstance(error, RefusedError) else None
    permanent = isinstance(error, LocalProtocolError)
    if reply is not None and not isinstance(error, LoginError):  # which is ours to mend
        permanent = reply.severity is Severity.PERMANENT
    fate = Fate.PERMANENT if permanent else Fate.TRANSIENT
    reason = str(error) or type(error).__name__
    return Result(tuple(Outcome(path, fate, reply, reason) for path in envelope.forward_paths))
