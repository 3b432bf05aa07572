"""Mail servers of others, by script: in a good mood, or in one of many bad ones."""

import random
from collections.abc import Callable, Sequence

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import define, field, frozen

from .ledger import Copy, Ledger
from .network import End, Host, Link

__all__ = ["GOOD", "Mood", "Peer"]


@frozen
class Mood:
    """How a server is just now.

    `connect`: "ok", "refuse", "nobody" (no answer), or "mute" (accepted, and then silence). At
    each command, with the probability `trouble`, one of `troubles` befalls: a reply's code,
    "close", "hang" or "slow". `greylist` turns who is new away for some minutes. `links` is how
    connections fare: "ok", "poor" (slow, in many pieces), "reset", "silent".
    """

    name: str
    connect: str = "ok"
    trouble: float = 0.0
    troubles: Sequence[str] = ("450", "452", "421", "close", "hang", "slow")
    greylist: bool = False
    links: str = "ok"


GOOD = Mood("good")


@define(eq=False)
class Peer(Host):
    """A mail server that takes mail for its domain, and all of it."""

    name: str
    domain: str
    dice: random.Random
    ledger: Ledger
    tell: Callable[[str], None]
    mood: Callable[[], Mood]
    start: Callable[..., None]
    keywords: Sequence[str] = ()
    _seen: dict[tuple[str, str], float] = field(factory=dict, init=False)

    def answer(self, address: str) -> Link | None:
        mood = self.mood()
        if mood.connect == "refuse":
            raise ConnectionRefusedError(111, "Connection refused")
        if mood.connect == "nobody":
            return None
        if mood.links == "poor":
            return Link((0.05, 5.0), 8)
        if mood.links in ("reset", "silent"):
            # Where it hurts: around the final dot, and its answer.
            there = self.dice.choice([None, self.dice.randrange(1, 4000)])
            back = self.dice.randrange(1, 600)
            return Link((0.001, 0.2), 4, there, back, mood.links == "silent")
        return Link(pieces=self.dice.choice([1, 1, 3]))

    def arrive(self, end: End) -> None:
        self.start(self._serve, end)

    async def _serve(self, end: End) -> None:
        try:
            # The longest that a client of ours would wait.
            with anyio.move_on_after(5 * 3600):
                if self.mood().connect == "mute":
                    await anyio.sleep_forever()
                await self._talk(end, BufferedByteReceiveStream(end))
        except (anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        except (anyio.EndOfStream, anyio.DelimiterNotFound):
            pass
        finally:
            end.shut()

    async def _answer(self, end: End, verb: str, usual: str) -> str:
        """Answer, as the mood is; return what was said."""
        mood = self.mood()
        said = usual
        if mood.trouble and self.dice.random() < mood.trouble and verb != "QUIT":
            what = self.dice.choice(list(mood.troubles))
            self.tell(f"{self.name} answers {verb} with {what}")
            if what == "hang":
                await anyio.sleep_forever()
            elif what == "slow":
                await anyio.sleep(self.dice.uniform(1, 900))
            elif what == "close":
                raise anyio.ClosedResourceError
            else:
                said = f"{what} {what[0]}.0.0 so there"
        return said

    async def _say(self, end: End, said: str) -> None:
        await end.send(said.encode() + b"\r\n")
        if said.startswith("421"):
            raise anyio.ClosedResourceError

    async def _talk(self, end: End, lines: BufferedByteReceiveStream) -> None:
        said = await self._answer(end, "greeting", f"220 {self.name} ESMTP")
        if said[0] == "5":
            self.ledger.refused(end.other.life, self.domain)
        await self._say(end, said)
        sender, recipients, content, offered = "", list[str](), b"", list[str]()
        while True:
            line = (await lines.receive_until(b"\r\n", 2048)).decode()
            verb, _, rest = line.partition(" ")
            verb = verb.upper()
            path = rest.partition("<")[2].partition(">")[0].lower()
            usual = "250 2.0.0 ok"
            chunk = None
            if verb == "EHLO":
                words = [self.name, *self.keywords]
                usual = "\r\n".join([*(f"250-{word}" for word in words), "250 HELP"])
            elif verb in ("MAIL", "RSET"):
                sender, recipients, content = path, [], b""
            elif verb == "RCPT" and self.mood().greylist and self._is_new(sender, path):
                usual = "451 4.7.1 greylisted"
            elif verb == "DATA":
                usual = "354 go on" if recipients else "554 5.5.1 for nobody"
            elif verb == "BDAT":
                chunk = await lines.receive_exactly(int(rest.split()[0]))
                content += chunk
                if not recipients:
                    usual = "503 5.5.1 for nobody"
            elif verb == "QUIT":
                usual = "221 2.0.0 bye"
            last = verb == "BDAT" and rest.upper().endswith("LAST")
            said = await self._answer(end, verb, usual)
            if verb == "EHLO":
                offered = [*self.keywords] if said == usual else []
            if said[0] == "5" and verb in ("EHLO", "MAIL", "DATA", "BDAT"):
                self.ledger.refused(end.other.life, self.domain)
            if verb == "RCPT":
                if said[0] == "2":
                    recipients.append(path)
                elif said[0] == "5":
                    self.ledger.refused(end.other.life, path)
            if last and said[0] == "2" and recipients:
                await self._accept(end, recipients, content, said, "DSN" in offered)
            else:
                await self._say(end, said)
            if verb == "DATA" and said[0] == "3":
                content = await lines.receive_until(b"\r\n.\r\n", 1 << 20) + b"\r\n"
                content = content.replace(b"\r\n..", b"\r\n.")
                said = await self._answer(end, ".", "250 2.0.0 taken")
                if said[0] == "2":
                    await self._accept(end, recipients, content, said, "DSN" in offered)
                else:
                    if said[0] == "5":
                        self.ledger.refused(end.other.life, self.domain)
                    await self._say(end, said)
            if last or (verb in ("DATA", "BDAT") and said[0] in "45"):
                recipients, content = [], b""
            if verb == "QUIT":
                return

    async def _accept(
        self, end: End, recipients: Sequence[str], content: bytes, said: str, dsn: bool
    ) -> None:
        """It is ours from here on, whether they hear it or not."""
        copy = Copy(
            self.name,
            end.other.life,
            anyio.current_time(),
            end.outgoing,
            end.outgoing.sent + len(said) + 2,
            dsn=dsn,
        )
        self.ledger.arrived(copy, recipients, content)
        await self._say(end, said)

    def _is_new(self, sender: str, path: str) -> bool:
        first = self._seen.setdefault((sender, path), anyio.current_time())
        return anyio.current_time() < first + 240
