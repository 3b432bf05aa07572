"""Those who hand mail in: what they write, and what they ask for with it."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import anyio
from attrs import define

from smtpproto.client import Client, Tls
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.reply import Severity
from smtpproto.result import ClientError, Fate, RefusedError

from .nodes import SUBMISSION, USER, Node
from .plans import BACK, DISCARDED, FRONT, HELD, LATER, LMTP, REFUSED

if TYPE_CHECKING:
    from .world import World

__all__ = ["Clients"]

MINUTE, HOUR = 60.0, 3600.0
NOTIFY = (
    *("", "", "NEVER", "FAILURE", "SUCCESS,FAILURE", "DELAY", "SUCCESS"),
    *("FAILURE,DELAY", "SUCCESS,FAILURE,DELAY", "SUCCESS,DELAY"),
)


@define(eq=False)
class Clients:
    """Mail programs and hosts of our own."""

    world: "World"

    async def submit(self, number: int, at: float) -> None:
        """Hand in a message at that time, or some time later if need be."""
        dice = self.world.dice
        await anyio.sleep(at)
        node = dice.choice(self.world.nodes)
        mail, rcpts, content = self._message(number, node)
        submits = mail.reverse_path.mailbox is not None and dice.random() < 0.3
        hold = dice.choice(["", "HOLDFOR", "HOLDUNTIL"]) if submits else ""
        for attempt in range(10):
            envelope = Envelope(self._dated(mail, hold), rcpts)
            if await self._try(number, node, envelope, content, submits=submits):
                return
            await anyio.sleep(dice.uniform(10, 20 * MINUTE) * (attempt + 1))

    def _dated(self, mail: Mail, hold: str) -> Mail:
        """Ask for it to be held, and for a time by which there is some left."""
        if not hold:
            return mail
        world = self.world
        seconds = round(world.dice.choice([1, 60, world.dice.uniform(MINUTE, 20 * HOUR)]))
        asked = {**mail.parameters}
        if hold == "HOLDFOR":
            asked[hold] = b"%d" % seconds
        else:
            until = datetime.fromtimestamp(int(world.clock()), UTC) + timedelta(seconds=seconds)
            asked[hold] = f"{until:%Y-%m-%dT%H:%M:%SZ}".encode()
        if "BY" in asked:
            _, _, mode = (asked["BY"] or b"").decode().partition(";")
            asked["BY"] = f"{seconds + round(world.dice.uniform(HOUR, 6 * HOUR))};{mode}".encode()
        return Mail(mail.reverse_path, asked)

    async def _try(
        self, number: int, node: Node, envelope: Envelope, content: bytes, *, submits: bool
    ) -> bool:
        """Hand it over; tell whether that is done with."""
        world = self.world
        try:
            async with Client(
                node.plan.address,
                SUBMISSION if submits else 25,
                tls=Tls.NONE,
                login=USER if submits else None,
                login_in_clear=submits,
                helo_name="client.example",
                connector=partial(
                    world.network.connect, "127.0.0.1" if submits else "198.51.100.7"
                ),
            ) as client:
                result = await client.deliver(envelope, content)
        except RefusedError as error:
            world.tell(f"client {number}: {error}")
            return error.reply.severity is Severity.PERMANENT
        except ClientError as error:
            world.tell(f"client {number}: {error}")
            return False
        world.tell(f"client {number}: {result}")
        heard = [o for o in result.outcomes if o.fate is Fate.ACCEPTED]
        for outcome in heard:
            path = str(outcome.forward_path.mailbox).lower()
            id = outcome.reply.text.rpartition(" ")[2] if outcome.reply else ""
            held = world.ledger.held.get((node.name, id))
            if held is None or path not in held.asked:
                raise world.ledger.breach(
                    "lost", f"client {number} heard 250 for {path}, for nothing"
                )
        return bool(heard) or all(o.fate is Fate.PERMANENT for o in result.outcomes)

    def _message(self, number: int, node: Node) -> tuple[Mail, list[Rcpt], bytes]:
        dice = self.world.dice
        names = [each.name for each in self.world.nodes]
        users = [f"ann@{domain}" for domain in names] + [f"bob@{domain}" for domain in names]
        far = [f"user{n}@{domain}" for domain in self.world.destinations for n in range(3)]
        wrong = [f"nobody@{each}" for each in names if each != node.name]
        sender = dice.choice(
            [
                *[None] * 4,
                *users,
                *users,
                "user@good.example",
                "user@bad1.example",
                f"owner@{FRONT}",
            ]
        )
        # Those behind an alias or a list are to be nobody else's.
        alone = [*node.plan.aliases, *node.plan.lists]
        alone += [f"list@{FRONT}", f"round@{BACK}", "lost@loop.example"]
        if dice.random() < 0.25:
            paths = [dice.choice(alone)]
        else:
            tabled = [f"user@{domain}" for domain in (REFUSED, DISCARDED, LATER, HELD)]
            boxes = [f"box{n}@{LMTP}" for n in range(5)]
            pool = [*far, *far, *users, dice.choice(wrong), *tabled * 3, *boxes, f"nobody@{LMTP}"]
            many = dice.choice([1, 1, 2, 3, 5])
            paths = list(dict.fromkeys(dice.choice(pool) for _ in range(many)))
            if dice.random() < 0.1:
                paths = boxes  # who have a server that speaks for each of them
        rcpts = []
        for path in paths:
            notify = dice.choice(NOTIFY)
            rcpts.append(Rcpt(path, {"NOTIFY": notify.encode()} if notify else {}))
        size = dice.choice([100, 1000, 3000, 10_000, 40_000])
        body = b"".join(b"line %d of many, and a dot\r\n.\r\n" % n for n in range(size // 34))
        content = b"Subject: number %d\r\n\r\n%bX-End: 1\r\n" % (number, body)
        return Mail(sender, self._asked(number)), rcpts, content

    def _asked(self, number: int) -> dict[str, bytes | None]:
        """Return what stands behind MAIL: DSN's parameters, and by when it is wanted."""
        dice = self.world.dice
        asked: dict[str, bytes | None] = {}
        if ret := dice.choice(["", "", "HDRS", "FULL"]):
            asked["RET"] = ret.encode()
        if dice.random() < 0.3:
            asked["ENVID"] = b"number-%d" % number
        if dice.random() < 0.25:
            seconds = round(dice.choice([MINUTE, dice.uniform(MINUTE, 8 * HOUR)]))
            mode = dice.choice(["R", "R", "N", "RT", "NT"])
            asked["BY"] = f"{seconds};{mode}".encode()
        return asked
