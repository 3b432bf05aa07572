"""A mail store that speaks LMTP, made of the core alone; and a server that refuses by plan."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteStream, SocketStream
from attrs import define, evolve, field, frozen

from smtpproto import (
    NEED_DATA,
    PAUSED,
    STANDARD,
    ConnectionClosed,
    Content,
    EndOfContent,
    Envelope,
    Rcpt,
    Reply,
    ServerConnection,
)
from smtpproto.result import Fate

from .wire import HOST, LOST, Wire

FULL = Reply(452, "4.2.2", "Mailbox full")
UNKNOWN = Reply(550, "5.1.1", "No such mailbox")
DELIVERED = Reply(250, "2.0.0", "Delivered")
#: STANDARD, to be offered as it is.
ALL = tuple(evolve(extension, obliges="") for extension in STANDARD)


@define
class Store:
    """Knows nobody named `no-…`; mailboxes named `full-…` have no room."""

    offer: Sequence[object] = ALL
    received: list[tuple[Envelope, bytes]] = field(factory=list)

    async def serve(self, stream: ByteStream) -> None:
        server = ServerConnection("store.example", ALL, offer=self.offer, lmtp=True)  # type: ignore[arg-type]  # a list of them
        replies: list[Reply] = []
        content = b""
        while True:
            event = server.next_event()
            if event is PAUSED:
                reply = replies.pop(0) if replies else server.suggested_reply()
                await stream.send(server.send(reply))
            elif event is NEED_DATA:
                try:
                    server.receive_data(await stream.receive())
                except LOST:
                    return
            elif isinstance(event, Rcpt):
                replies = [UNKNOWN] if _named("no-", event) else []
            elif isinstance(event, Content):
                content += event.data
            elif isinstance(event, EndOfContent) and event.fault is None and server.envelope:
                rcpts = server.envelope.rcpts
                replies = [FULL if _named("full-", rcpt) else DELIVERED for rcpt in rcpts]
                self.received.append((server.envelope, content))
                content = b""
            elif isinstance(event, ConnectionClosed):
                return

    @asynccontextmanager
    async def running(self, path: str | None = None) -> AsyncIterator[int]:
        """Listen on loopback, or on a UNIX socket; gives the port."""

        async def serve(stream: SocketStream) -> None:
            async with stream:
                await self.serve(stream)

        if path is None:
            listener = await anyio.create_tcp_listener(local_host=HOST)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
        else:
            listener, port = await anyio.create_unix_listener(path), 0  # type: ignore[assignment]  # another kind
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            yield port
            tasks.cancel_scope.cancel()


def _named(name: str, rcpt: Rcpt) -> bool:
    return str(rcpt.forward_path).startswith(f"<{name}")


@frozen
class Plan:
    """The codes that a server answers one transaction with; `final` for each recipient in LMTP."""

    mail: int
    rcpts: tuple[int, ...]
    data: int
    final: tuple[int, ...]

    def fates(self, *, lmtp: bool, chunked: bool) -> Iterator[Fate]:
        """What that comes to for each recipient, thought out anew."""
        for number, rcpt in enumerate(self.rcpts):
            steps = [self.mail, rcpt]
            if not chunked:
                steps.append(self.data)
            steps.append(self.final[number if lmtp else 0])
            decisive = next((code for code in steps if code >= 400), 250)
            yield {2: Fate.ACCEPTED, 4: Fate.TRANSIENT, 5: Fate.PERMANENT}[decisive // 100]


@define
class Planned:
    """Plays the plans, one transaction each; `eager` says 354 though it has accepted nobody."""

    plans: Sequence[Plan]
    offer: Sequence[str]
    lmtp: bool = False
    eager: bool = False
    #: Whether content came, for each transaction.
    contents: list[bytes | None] = field(factory=list)

    async def __call__(self, wire: Wire) -> None:
        await wire.say("220 hi")
        assert await wire.hear() == f"{'LHLO' if self.lmtp else 'EHLO'} [{HOST}]"
        await wire.say(*(f"250-{word}" for word in ("hi", *self.offer)), "250 HELP")
        plans = iter(self.plans)
        plan = next(plans)
        mail = False
        asked = 0
        accepted: list[int] = []
        while (line := await wire.hear()) != "QUIT":
            verb = line[:4]
            if verb == "RSET":
                await wire.say("250 ok")
                mail = False
                continue
            if verb == "MAIL":
                assert not mail, "a transaction is left over"
                if self.contents or asked:
                    plan = next(plans)
                self.contents.append(None)
                asked, accepted = 0, []
                mail = plan.mail == 250
                await wire.say(f"{plan.mail} mail")
            elif verb == "RCPT":
                code = plan.rcpts[asked] if mail else 503
                if code == 250:
                    accepted.append(asked)
                asked += 1
                await wire.say(f"{code} rcpt")
            elif verb == "DATA":
                if not mail or not (accepted or self.eager):
                    await wire.say("503 nobody")
                    continue
                await wire.say(f"{plan.data} data")
                if plan.data == 354:
                    lines = await wire.hear_content()
                    plain = [text.removeprefix(".") for text in lines]
                    self.contents[-1] = "".join(f"{text}\r\n" for text in plain).encode()
                    await self._verdict(wire, plan, accepted)
                    mail = False
            else:
                assert accepted, "a chunk for nobody"
                _, size, last = line.split()
                assert last == "LAST"
                self.contents[-1] = await wire.take(int(size))
                await self._verdict(wire, plan, accepted)
                mail = plan.final[0] != 250 and not self.lmtp  # RSET has to come (RFC 3030 §2)
        await wire.say("221 bye")

    async def _verdict(self, wire: Wire, plan: Plan, accepted: Sequence[int]) -> None:
        if self.lmtp:
            await wire.say(*(f"{plan.final[number]} final" for number in accepted))
        else:
            await wire.say(f"{plan.final[0] if accepted else 554} final")
