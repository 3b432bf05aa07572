"""Mail servers of others, by script: in a good mood, or in one of many bad ones."""

import random
from collections.abc import Callable, Sequence

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import define, field, frozen

from .books import Copy
from .ledger import Ledger
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
    """A mail server that takes mail, and all of it but for `nobody`. It may speak `lmtp`."""

    name: str
    dice: random.Random
    ledger: Ledger
    tell: Callable[[str], None]
    mood: Callable[[], Mood]
    start: Callable[..., None]
    keywords: Sequence[str] = ()
    lmtp: bool = False
    taken: int = field(default=0, init=False)
    _seen: dict[tuple[str, str], float] = field(factory=dict, init=False)

    @property
    def ports(self) -> tuple[int, ...]:
        return (24,) if self.lmtp else (25,)

    @property
    def protocol(self) -> str:
        return "LMTP" if self.lmtp else "ESMTP"

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
        said = await self._answer(end, "greeting", f"220 {self.name} {self.protocol}")
        if said[0] == "5":
            self.ledger.refused(end.other.life, self.name)
        await self._say(end, said)
        now, offered = _Transaction(), list[str]()
        while True:
            line = (await lines.receive_until(b"\r\n", 2048)).decode()
            verb, _, rest = line.partition(" ")
            verb = verb.upper()
            usual = "250 2.0.0 ok"
            if verb in ("EHLO", "LHLO"):
                words = [self.name, *self.keywords]
                usual = "\r\n".join([*(f"250-{word}" for word in words), "250 HELP"])
                if (verb == "LHLO") != self.lmtp:
                    usual = "500 5.5.1 not here"
            elif verb in ("MAIL", "RSET"):
                now = _Transaction(*_path_in(rest), anyio.current_time(), offered)
            elif verb == "RCPT":
                usual = self._about(now.sender, _path_in(rest)[0])
            elif verb == "DATA":
                usual = "354 go on" if now.recipients else "554 5.5.1 for nobody"
            elif verb == "BDAT":
                now.content += await lines.receive_exactly(int(rest.split()[0]))
                if not now.recipients:
                    usual = "503 5.5.1 for nobody"
            elif verb == "QUIT":
                usual = "221 2.0.0 bye"
            last = verb == "BDAT" and rest.upper().endswith("LAST")
            if last and now.recipients:
                await self._verdicts(end, now)
                now = _Transaction()
                continue
            said = await self._answer(end, verb, usual)
            if verb in ("EHLO", "LHLO"):
                offered = [*self.keywords] if said == usual else []
            if said[0] == "5" and verb in ("EHLO", "LHLO", "MAIL", "DATA", "BDAT"):
                self.ledger.refused(end.other.life, self.name)
            if verb == "RCPT":
                path = _path_in(rest)[0]
                if said[0] == "2":
                    now.recipients.append(path)
                elif said[0] == "5":
                    self.ledger.refused(end.other.life, path)
            await self._say(end, said)
            if verb == "DATA" and said[0] == "3":
                content = await lines.receive_until(b"\r\n.\r\n", 1 << 20) + b"\r\n"
                now.content = content.replace(b"\r\n..", b"\r\n.")
                await self._verdicts(end, now)
            if last or verb == "DATA" or (verb == "BDAT" and said[0] in "45"):
                now = _Transaction()
            if verb == "QUIT":
                return

    def _about(self, sender: str, path: str) -> str:
        """Answer RCPT."""
        if path.startswith("nobody@"):
            return "550 5.1.1 nobody of that name"
        if self.mood().greylist and self._is_new(sender, path):
            return "451 4.7.1 greylisted"
        return "250 2.0.0 ok"

    async def _verdicts(self, end: End, now: "_Transaction") -> None:
        """Answer for the whole message: once, or by LMTP for each recipient (RFC 2033 §4.2)."""
        if not self.lmtp:
            await self._verdict(end, now, now.recipients, self.name)
            return
        for path in now.recipients:
            await self._verdict(end, now, [path], path)

    async def _verdict(
        self, end: End, now: "_Transaction", recipients: Sequence[str], whom: str
    ) -> None:
        usual = "250 2.0.0 taken"
        if self.lmtp and self.dice.random() < 0.3:
            usual = self.dice.choice(["452 4.2.2 full", "451 4.0.0 later", "552 5.2.2 full"])
            self.tell(f"{self.name} answers for {whom}: {usual}")
        said = await self._answer(end, ".", usual)
        if said[0] == "5":
            self.ledger.refused(end.other.life, whom)
        if said[0] == "2":
            # It is ours from here on, whether they hear it or not.
            copy = Copy(
                self.name,
                end.other.life,
                anyio.current_time(),
                end.outgoing,
                end.outgoing.sent + len(said) + 2,
                offers=now.offers,
                asked=now.asked,
                asked_at=now.at,
            )
            self.ledger.arrived(copy, recipients, now.content, now.sender)
            self.taken += len(recipients)
        await self._say(end, said)

    def _is_new(self, sender: str, path: str) -> bool:
        first = self._seen.setdefault((sender, path), anyio.current_time())
        return anyio.current_time() < first + 240


@define
class _Transaction:
    sender: str = ""
    asked: dict[str, str] = field(factory=dict[str, str])
    at: float = 0.0
    offers: Sequence[str] = ()
    recipients: list[str] = field(factory=list[str])
    content: bytes = b""


def _path_in(rest: str) -> tuple[str, dict[str, str]]:
    """Read a path, and the parameters behind it."""
    path, _, words = rest.partition("<")[2].partition(">")
    pairs = (word.partition("=") for word in words.split())
    return path.lower(), {key.upper(): value for key, _, value in pairs}
