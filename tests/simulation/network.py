"""Connections in memory: octets take their time, come in pieces, and may not come at all."""

import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio
import trio
from anyio.abc import ByteStream, SocketAttribute
from attrs import define, field, frozen

from .loop import LIFE, Died, Life

__all__ = ["WINDOW", "End", "Host", "Link", "Network"]

#: Octets on their way in one direction, after which who sends has to wait.
WINDOW = 16_384


@frozen
class Link:
    """How a connection fares.

    `latency` is what a write takes at least and at most, in seconds, `pieces` into how many it may
    be cut. After so many octets `there` or `back` it is reset, or, with `silent`, nothing passes
    any more in either direction.
    """

    latency: tuple[float, float] = (0.001, 0.05)
    pieces: int = 1
    there: int | None = None
    back: int | None = None
    silent: bool = False


@define(eq=False)
class Pipe:
    """One direction: what is on its way."""

    dice: random.Random
    latency: tuple[float, float]
    most: int  # pieces
    dies_after: int | None
    fate: Callable[[], None] = lambda: None

    pieces: deque[tuple[float, bytes]] = field(factory=deque)
    octets: int = 0  # not read yet
    sent: int = 0
    read: int = 0
    last: float = 0.0
    silent: bool = False
    reset: bool = False
    unread: bool = False  # nobody is there any more who would read
    _waiting: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    @property
    def over(self) -> bool:
        """Whether what has not been read will never be."""
        return self.reset or self.silent or self.unread

    def changed(self) -> None:
        self._waiting.unpark_all()

    async def wait(self, until: float = float("inf")) -> None:
        """Wait for a change, or until a time."""
        if until == float("inf"):
            await self._waiting.park()
        else:
            with trio.CancelScope(deadline=until):
                await self._waiting.park()

    def push(self, octets: bytes) -> None:
        """Send; b"" is the end."""
        now = trio.current_time()
        self.sent += len(octets)
        if self.silent:
            self.octets += len(octets)
            return
        fatal = self.dies_after is not None and self.sent >= self.dies_after
        if fatal and self.dies_after is not None:
            octets = octets[: max(0, len(octets) - (self.sent - self.dies_after))]
        for piece in self._cut(octets):
            self.last = max(self.last, now + self.dice.uniform(*self.latency))
            self.pieces.append((self.last, piece))
            self.octets += len(piece)
        self.changed()
        if fatal:
            self.fate()

    def _cut(self, octets: bytes) -> list[bytes]:
        count = min(len(octets), self.dice.randint(1, self.most)) if self.most > 1 else 1
        if count < 2:
            return [octets]
        at = sorted(self.dice.randrange(1, len(octets)) for _ in range(count - 1))
        return [octets[a:b] for a, b in itertools.pairwise([0, *at, len(octets)]) if b > a]

    def break_(self) -> None:
        self.reset = True
        self.pieces.clear()
        self.changed()


class End(ByteStream):
    """One end of a connection. `life` is whose it is; None: of somebody in the world outside."""

    other: "End"

    def __init__(
        self, incoming: Pipe, outgoing: Pipe, local: tuple[str, int], remote: tuple[str, int]
    ) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.local = local
        self.remote = remote
        self.life: Life | None = None
        self.closed = False
        self._forget: Callable[[], object] = lambda: None

    def _alive(self) -> None:
        if self.life is not None:
            self.life.step()

    def _check(self) -> None:
        if self.life is not None and self.life.dead:
            raise Died
        if self.closed:
            raise anyio.ClosedResourceError

    async def receive(self, max_bytes: int = 65536) -> bytes:
        self._alive()
        pipe = self.incoming
        while True:
            self._check()
            if pipe.reset:
                raise anyio.BrokenResourceError from ConnectionResetError(104, "reset by peer")
            until, octets = float("inf"), b""
            if pipe.pieces:
                until, octets = pipe.pieces[0]
                if until <= trio.current_time():
                    break
            await pipe.wait(until)
        if not octets:
            raise anyio.EndOfStream
        pipe.pieces.popleft()
        if len(octets) > max_bytes:
            pipe.pieces.appendleft((until, octets[max_bytes:]))
            octets = octets[:max_bytes]
        pipe.octets -= len(octets)
        pipe.read += len(octets)
        pipe.changed()
        return octets

    async def send(self, item: bytes) -> None:
        self._alive()
        await trio.lowlevel.checkpoint()
        pipe = self.outgoing
        while True:
            self._check()
            if pipe.reset or pipe.unread:
                raise anyio.BrokenResourceError from ConnectionResetError(104, "reset by peer")
            if pipe.octets < WINDOW:
                break
            await pipe.wait()
        pipe.push(item)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        if not self.outgoing.reset:
            self.outgoing.push(b"")

    async def aclose(self) -> None:
        self.shut()
        await trio.lowlevel.checkpoint()

    def shut(self) -> None:
        """Close. As with TCP, unread input takes back what was sent last."""
        if self.closed:
            return
        self.closed = True
        self.incoming.unread = True
        self.incoming.changed()
        if self.incoming.octets and not self.incoming.silent:
            self.outgoing.break_()
        elif not self.outgoing.reset:
            self.outgoing.push(b"")
        self._forget()

    def cut(self) -> None:
        """Reset both directions."""
        self.incoming.break_()
        self.outgoing.break_()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {
            SocketAttribute.local_address: lambda: self.local,
            SocketAttribute.remote_address: lambda: self.remote,
        }


class Host:
    """Who listens at some addresses: a connection is accepted, refused, or never answered."""

    @property
    def ports(self) -> tuple[int, ...]:
        return (25,)

    def answer(self, address: str) -> Link | None:
        """Tell how the connection will fare; None: nobody answers. OSError refuses it."""
        raise NotImplementedError

    def arrive(self, end: End) -> None:
        """Take a connection."""
        raise NotImplementedError


class Network:
    """Addresses, and who is there."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.hosts: dict[str, Host] = {}
        self.open: dict[End, None] = {}
        self.by_port: dict[int, End] = {}  # the end that connected, by its port
        self._ports = itertools.count(20_000)
        self.most_open = 0

    async def connect(self, from_: str, host: str, port: int) -> ByteStream:
        """Connect; OSError where that cannot be. Whoever is not answered waits."""
        life = LIFE.get()
        if life is not None:
            life.step()
        await trio.sleep(self.dice.uniform(0.001, 0.1))
        there = self.hosts.get(host)
        if there is None or port not in there.ports:
            raise ConnectionRefusedError(111, "Connection refused")
        link = there.answer(host)
        if link is None:
            await trio.sleep_forever()
        assert link is not None
        pipes = [
            Pipe(self.dice, link.latency, link.pieces, dies) for dies in (link.there, link.back)
        ]
        number = next(self._ports)
        near = End(pipes[1], pipes[0], (from_, number), (host, port))
        far = End(pipes[0], pipes[1], (host, port), (from_, number))
        near.other, far.other = far, near
        near.life = life

        def fate() -> None:
            if link.silent:
                for pipe in pipes:
                    pipe.silent = True
            else:
                near.cut()

        for pipe in pipes:
            pipe.fate = fate
        for end in (near, far):
            self.open[end] = None
            end._forget = partial(self.open.pop, end, None)
        self.by_port[number] = near
        self.most_open = max(self.most_open, len(self.open))
        there.arrive(far)
        return near

    def sever(self, life: Life) -> None:
        """A process is dead: all of its connections are reset."""
        for end in [each for each in self.open if each.life is life]:
            end.cut()
            end.closed = True
            self.open.pop(end, None)
