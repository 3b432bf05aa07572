"""The making of a world: what is in it, drawn from its dice."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from smtpproto.relay.routing.transport import Host

from .books import Promise
from .ledger import Ledger
from .nodes import Node
from .peers import GOOD, Mood, Peer
from .places import BAD_MOODS, KEYWORDS, Destination, Phase
from .plans import DISCARDED, HELD, LATER, LMTP, REFUSED, SMART, Plan, plans

if TYPE_CHECKING:
    from .world import World

__all__ = ["TROUBLE", "build"]

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
#: How long there is trouble.
TROUBLE = DAY


def build(world: "World") -> None:
    dice = world.dice
    for domain in ("good.example", "plain.example", HELD, LATER):
        _add_destination(world, domain, [], 1 if domain == "plain.example" else 2)
    for number in range(5):
        _add_destination(world, f"bad{number}.example", _day(world), dice.randint(1, 3))
    _add_destination(world, SMART, _day(world), 1)
    mood = dice.choice(BAD_MOODS[:3])
    _add_destination(world, "dead.example", [Phase(float("inf"), mood)], 1)
    world.destinations["null.example"] = Destination("null.example", [], null=True)
    world.destinations["gone.example"] = Destination("gone.example", [], exists=False)
    moods = Destination(LMTP, _day(world))
    world.lmtp = _add_peer(world, LMTP, lambda: moods.now().mood, lmtp=True)
    _add_nodes(world)
    hopeless = frozenset(
        [
            "null.example",
            "gone.example",
            DISCARDED,
            REFUSED,
            *(f"nobody@{node.name}" for node in world.nodes),
        ]
    )
    promise = Promise(
        hopeless,
        frozenset({"dead.example"}),
        {node.name: node.plan for node in world.nodes},
        world.places,
        world.says,
        world.offers,
    )
    world.ledger = Ledger(promise, world.clock)
    for host in world.network.hosts.values():
        if isinstance(host, Peer):
            host.ledger = world.ledger


def _day(world: "World") -> Sequence[Phase]:
    """Draw how a destination fares."""
    dice = world.dice
    now = dice.uniform(0, 2 * HOUR)
    phases = [Phase(now, GOOD)]
    while now < TROUBLE:
        now += dice.uniform(10 * MINUTE, 8 * HOUR)
        dns = dice.choice(["ok"] * 6 + ["servfail", "silent"])
        phases.append(Phase(min(now, TROUBLE), dice.choice(BAD_MOODS), dns))
        if dice.random() < 0.4:
            now += dice.uniform(5 * MINUTE, 2 * HOUR)
            phases.append(Phase(min(now, TROUBLE), GOOD))
    return phases


def _add_nodes(world: "World") -> None:
    dice = world.dice
    readers: list[str | None] = []
    for name in ("front.example", "back.example", "branch.example"):
        elsewhere = [f"postmaster@{domain}" for domain in ("good.example", *["gone.example"] * 3)]
        readers.append(dice.choice([None, f"postmaster@{name}", *elsewhere]))
    lmtp = Host(LMTP, world.addresses[LMTP], 24, lmtp=True)
    smart = world.destinations[SMART].hosts[0].name
    for plan in plans(readers, lmtp, Host(smart, world.addresses[smart])):
        _add_node(world, plan)


def _add_node(world: "World", plan: Plan) -> None:
    home = world.home / plan.name
    home.mkdir(parents=True)
    node = Node(world, plan, home)
    world.nodes.append(node)
    world.addresses[plan.name] = plan.address
    world.network.hosts[plan.address] = world.network.hosts[plan.name] = node


def _add_destination(world: "World", domain: str, phases: Sequence[Phase], hosts: int) -> None:
    destination = Destination(domain, phases)
    peers: list[Peer] = []
    for number in range(hosts):
        name = domain if domain == "plain.example" else f"mx{number}.{domain}"
        # Of several hosts one may fare better than the others.
        spared = number and world.dice.random() < 0.3
        mood = (lambda: GOOD) if spared else (lambda: destination.now().mood)
        peers.append(_add_peer(world, name, mood))
    destination.hosts = peers
    world.destinations[domain] = destination


def _add_peer(world: "World", name: str, mood: Callable[[], Mood], *, lmtp: bool = False) -> Peer:
    address = f"192.0.2.{len(world.addresses) + 1}"
    keywords = [word for word in KEYWORDS if world.dice.random() < 0.6]
    if "DELIVERBY" in keywords and world.dice.random() < 0.3:
        keywords[keywords.index("DELIVERBY")] = "DELIVERBY 3600"
    peer = Peer(
        name,
        world.dice,
        None,  # type: ignore[arg-type]  # there is one when all is built
        world.tell,
        mood,
        world.start_work,
        keywords,
        lmtp,
    )
    world.addresses[name] = address
    world.network.hosts[address] = world.network.hosts[name] = peer
    return peer
