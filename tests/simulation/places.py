"""Where else mail goes: domains of others, how they fare through the day, and what the DNS says."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio
from attrs import define

from smtpproto.resolve import Mx, NoRecords, NoSuchDomain, ResolveFailed

from .peers import GOOD, Mood, Peer
from .plans import FRONT, LMTP

if TYPE_CHECKING:
    from .nodes import Node
    from .world import World

__all__ = ["BAD_MOODS", "KEYWORDS", "WELL", "Destination", "Phase", "Resolver"]

BAD_MOODS = (
    Mood("refuses", connect="refuse"),
    Mood("does not answer", connect="nobody"),
    Mood("is mute", connect="mute"),
    Mood("is greylisting", greylist=True),
    Mood("has trouble", trouble=0.3),
    Mood("has much trouble", trouble=0.7),
    Mood("is busy", trouble=0.5, troubles=("421", "452")),
    Mood("refuses some", trouble=0.1, troubles=("550", "554", "450")),
    Mood("is slow", trouble=0.5, troubles=("slow",), links="poor"),
    Mood("is far away", links="poor"),
    Mood("is cut off", links="reset"),
    Mood("falls silent", links="silent"),
    Mood("hangs", trouble=0.2, troubles=("hang",)),
)
KEYWORDS = ("PIPELINING", "8BITMIME", "SIZE 10000000", "CHUNKING", "DSN", "DELIVERBY")


@define(eq=False)
class Phase:
    """How a destination is until a time."""

    until: float
    mood: Mood
    dns: str = "ok"  # "servfail", "silent"


WELL = Phase(float("inf"), GOOD)


@define(eq=False)
class Destination:
    """A domain of others, and how it fares through the day."""

    domain: str
    phases: Sequence[Phase]
    hosts: Sequence[Peer] = ()
    null: bool = False
    exists: bool = True

    def now(self) -> Phase:
        now = anyio.current_time()
        return next((phase for phase in self.phases if now < phase.until), WELL)


@define(eq=False)
class Resolver:
    """The DNS, as a node sees it."""

    world: "World"
    node: "Node"

    async def mx(self, domain: str) -> Sequence[Mx]:
        # What lives behind the front node by LMTP is the front node's to everybody else.
        if (node := self.world.node_of(FRONT if domain == LMTP else domain)) is not None:
            await self._wait(WELL)
            return [Mx(10, node.name)]
        there = self.world.destinations.get(domain)
        await self._wait(there.now() if there else WELL)
        if there is None or not there.exists:
            raise NoSuchDomain(domain)
        if there.null:
            return [Mx(0, ".")]
        if domain == "plain.example":
            raise NoRecords(domain)
        return [Mx(10 * (1 + number // 2), peer.name) for number, peer in enumerate(there.hosts)]

    async def addresses(self, host: str) -> Sequence[str]:
        await self._wait(WELL)
        if host not in self.world.addresses:
            raise NoSuchDomain(host)
        return [self.world.addresses[host]]

    async def _wait(self, phase: Phase) -> None:
        await anyio.sleep(self.world.dice.uniform(0.001, 0.2))
        if phase.dns == "silent":
            await anyio.sleep(20)
        if phase.dns != "ok":
            raise ResolveFailed("so the plan has it")
