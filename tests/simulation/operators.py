"""Who looks after the nodes: keeps messages and lets them go, and mends their tables."""

from typing import TYPE_CHECKING

import anyio
from attrs import define

from smtpproto.relay.routing.table import RouteTable

from .books import Held
from .nodes import Node

if TYPE_CHECKING:
    from .world import World

__all__ = ["Operator"]

MINUTE, HOUR = 60.0, 3600.0
#: Seconds in which a node learns what somebody else has done to its spool.
LOOK = 2.0


@define(eq=False)
class Operator:
    """One person, with `smtpproto queue` and an editor."""

    world: "World"
    kept: int = 0

    async def mend_tables(self, at: float) -> None:
        """Take out the rules that were meant for a while."""
        await anyio.sleep(at)
        for node in self.world.nodes:
            node.table.table = RouteTable(node.plan.rules)
        self.world.lifted = True
        self.world.tell("the tables are mended")

    async def keep_some(self, at: float) -> None:
        """Hold a message for a while, as `smtpproto queue hold` does, and release it."""
        dice = self.world.dice
        await anyio.sleep(at)
        for _ in range(50):
            if chosen := [held for held in self.world.ledger.held.values() if self._can(held)]:
                break
            await anyio.sleep(10 * MINUTE)
        else:
            return
        held = dice.choice(chosen)
        await self._keep(held, self.world.by_name[held.key[0]])
        await anyio.sleep(dice.uniform(MINUTE, 6 * HOUR))
        await self._let_go(held, self.world.by_name[held.key[0]])

    def _can(self, held: Held) -> bool:
        return bool(held.owed) and held.stopped is False and self.world.by_name[held.key[0]].up

    async def _keep(self, held: Held, node: Node) -> None:
        world, id = self.world, held.key[1]
        held.prompt.clear()
        held.stopped = None
        count = await node.visit(lambda spool: spool.hold(id, "by the operator"))
        world.tell(f"the operator holds {held.key}: {count}")
        if count is None:
            return
        if not count:  # it went away meanwhile
            held.stopped = False
            return
        life, self.kept = node.life, self.kept + 1
        held.stopped = True
        await anyio.sleep(LOOK)
        while node.life is life and node.up and node.is_trying(id):  # noqa: ASYNC110
            await anyio.sleep(1)
        held.quiet = True

    async def _let_go(self, held: Held, node: Node) -> None:
        world, id = self.world, held.key[1]
        while True:
            held.stopped, held.quiet = None, False
            if node.up:
                count = await node.visit(lambda spool: spool.retry(id, world.clock()))
                world.tell(f"the operator lets go of {held.key}: {count}")
                if count is not None:
                    break
            await anyio.sleep(world.dice.uniform(MINUTE, HOUR))
        held.stopped = False
        await anyio.sleep(5)
        node.wake()
