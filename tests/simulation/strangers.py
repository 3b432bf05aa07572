"""Strangers: who would have us relay, forges senders, asks for reports, talks rubbish, or stays."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import define, field

from .network import End
from .nodes import SUBMISSION, Node
from .plans import BRANCH, LMTP

if TYPE_CHECKING:
    from .world import World

__all__ = ["Strangers"]

#: Longer than any server of ours listens to one who says nothing, or only rubbish.
SILENT, ENOUGH = 3600.0, 2 * 3600.0
_GONE = (
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.DelimiterNotFound,
    anyio.EndOfStream,
    anyio.IncompleteRead,
    OSError,
)


@define(eq=False)
class Strangers:
    """Clients from a network that is nobody's; what they must not get is `strangers`."""

    world: "World"
    refused: int = 0
    taken: int = 0
    _number: int = field(default=0, init=False)

    async def come(self, at: float) -> None:
        """Let one come at that time, and do one of what they do."""
        dice = self.world.dice
        await anyio.sleep(at)
        node = dice.choice(self.world.nodes)
        do: Callable[[Node, Talk], Awaitable[None]] = dice.choice(
            [self._relay, self._relay, self._forge, self._forge, self._babble, self._stay]
        )
        port = SUBMISSION if do == self._relay and dice.random() < 0.2 else 25
        self._number += 1
        from_ = f"192.0.2.{200 + self._number % 50}"
        try:
            end = await self.world.network.connect(from_, node.plan.address, port)
        except OSError:
            return
        assert isinstance(end, End)
        try:
            with anyio.fail_after(SILENT if do == self._stay else ENOUGH):
                await do(node, Talk(end))
        except TimeoutError:  # which is an OSError
            raise self.world.ledger.breach(
                "strangers", f"{node.name} bears with one who does nothing for hours"
            ) from None
        except _GONE as error:
            self.world.tell(f"a stranger at {node.name}: {type(error).__name__}")
        finally:
            end.shut()

    def _must_refuse(self, node: Node, what: str, reply: str) -> None:
        if reply[0] not in "45":
            raise self.world.ledger.breach("strangers", f"{node.name} says {reply} to {what}")
        self.world.tell(f"a stranger at {node.name}: {reply} to {what}")
        self.refused += 1

    async def _relay(self, node: Node, talk: "Talk") -> None:
        """Ask it to send to others, in plain words and in those of old."""
        dice, far = self.world.dice, "user0@good.example"
        await talk.begin()
        sender = await talk.ask(
            f"MAIL FROM:<{dice.choice(['', 'x@evil.example', f'ann@{node.name}'])}>"
        )
        if talk.end.remote[1] == SUBMISSION:
            self._must_refuse(node, "who has not logged in", sender)
        if sender[0] != "2":
            return
        for path in (
            far,
            far.replace("@", "%") + f"@{node.name}",
            f'"{far}"@{node.name}',
            f"good.example!user0@{node.name}",
            f"@{node.name}:{far}",
            "lost@loop.example",
            f"user@{BRANCH if node.name != BRANCH else LMTP}",
        ):
            self._must_refuse(node, path, await talk.ask(f"RCPT TO:<{path}>"))
        self._must_refuse(node, "DATA", await talk.ask("DATA"))

    async def _forge(self, node: Node, talk: "Talk") -> None:
        """Send to one of its own, as somebody else; and ask for what strangers do not get."""
        dice = self.world.dice
        await talk.begin()
        if not node.plan.smart_host:  # who has one does not ask the DNS
            said = await talk.ask("MAIL FROM:<x@null.example>")
            self._must_refuse(node, "who takes no mail", said)
        self._must_refuse(node, "BY", await talk.ask("MAIL FROM:<x@good.example> BY=60;RT"))
        self._must_refuse(node, "RET", await talk.ask("MAIL FROM:<x@good.example> RET=FULL"))
        sender = dice.choice(
            ["", "user@good.example", f"ann@{node.name}", "user@bad1.example", "x@gone.example"]
        )
        if (await talk.ask(f"MAIL FROM:<{sender}>"))[0] != "2":
            return
        ours = dice.choice([f"ann@{node.name}", *node.plan.aliases, *node.plan.lists])
        said = await talk.ask(f"RCPT TO:<{ours}> NOTIFY=SUCCESS")
        self._must_refuse(node, "NOTIFY", said)
        self._must_refuse(node, "nobody", await talk.ask(f"RCPT TO:<nobody@{node.name}>"))
        if (await talk.ask(f"RCPT TO:<{ours}>"))[0] != "2":
            return
        if (await talk.ask("DATA"))[0] != "3":
            return
        said = await talk.ask("Subject: forged\r\nFrom: ann@bank.example\r\n\r\nX-End: 1\r\n.")
        self.world.tell(f"a stranger at {node.name}: {said}")
        if said[0] == "2":
            self.taken += 1
            held = self.world.ledger.held.get((node.name, said.rpartition(" ")[2]))
            if held is None or ours not in held.asked:
                raise self.world.ledger.breach("lost", f"a stranger heard 250 for {ours}")
        await talk.ask("QUIT")

    async def _babble(self, node: Node, talk: "Talk") -> None:
        """Send what is no SMTP, until the server has had enough."""
        dice = self.world.dice
        kinds: Sequence[Callable[[], bytes]] = (
            lambda: dice.randbytes(dice.randrange(1, 3000)),
            lambda: b"EHLO " + b"x" * dice.randrange(10_000),
            lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(500),
            lambda: b"GET / HTTP/1.1\r\nHost: front.example\r\n\r\n",
            lambda: b"MAIL FROM:<\xff\xfe@\x00> SIZE=-1\r\n",
            lambda: b"\r\n" * dice.randrange(1, 200),
            lambda: b"DATA\r\nBDAT 99999999999999999999\r\nRSET\r\nAUTH PLAIN =\r\n",
        )
        async with anyio.create_task_group() as both:

            async def listen() -> None:
                with anyio.CancelScope() as scope:
                    scopes.append(scope)
                    try:
                        while True:
                            await talk.end.receive()
                    except _GONE:
                        both.cancel_scope.cancel()

            scopes: list[anyio.CancelScope] = []
            both.start_soon(listen)
            try:
                for _ in range(dice.randrange(1, 60)):
                    await talk.end.send(dice.choice(kinds)())
                    await anyio.sleep(dice.choice([0, 0, 1, 60]))
            except _GONE:
                pass
            both.cancel_scope.cancel()

    async def _stay(self, node: Node, talk: "Talk") -> None:
        """Begin something, and say nothing more: the server is to see that nobody is there."""
        dice = self.world.dice
        how_far = dice.randrange(5)
        if how_far >= 1:
            await talk.begin()
        if how_far >= 2:
            await talk.ask("MAIL FROM:<x@good.example>")
        if how_far >= 3:
            await talk.ask(f"RCPT TO:<ann@{node.name}>")
        if how_far >= 4:
            await talk.ask("DATA")
            await talk.end.send(b"Subject: half of")
        while True:
            await talk.end.receive()


class Talk:
    """A connection, and who asks over it."""

    def __init__(self, end: End) -> None:
        self.end = end
        self._lines = BufferedByteReceiveStream(end)

    async def begin(self) -> None:
        """Hear the greeting, and say EHLO."""
        await self._reply()
        await self.ask("EHLO stranger.example")

    async def ask(self, line: str) -> str:
        """Send a line, and return the last one of the reply."""
        await self.end.send(line.encode() + b"\r\n")
        return await self._reply()

    async def _reply(self) -> str:
        while True:
            line = (await self._lines.receive_until(b"\r\n", 2048)).decode()
            if line[3:4] != "-":
                return line
