"""How much a server bears: how long it waits, and how many connections from where it holds.

Nothing here knows what is said in a session. `Connections` may be shared by several servers, which
then are counted as one.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Protocol, TypeAlias

import attrs
from attrs import Factory, define, field, frozen

from .core.errors import LocalProtocolError

__all__ = ["Connections", "Member", "ServerDeadlines"]


#: What may get shorter under pressure: each wait, and not the session in all.
_BOUNDED = ("proxy", "tls", "command", "auth", "block", "grace", "write", "linger", "handler")


@frozen
class ServerDeadlines:
    """How long the server waits, in seconds; None for ever.

    RFC 5321 §4.5.3.2.7 asks for at least 5 minutes of patience with a client's next command.
    `proxy` bounds the wait for the header of a proxy that is believed, `command` that for one
    whole line however it dribbles in, `block` that for the
    next octets of content, `handler` what a handler may take to answer, or between two readings
    of content (clients give the final dot 10 minutes), `linger` how long a client that was sent
    away is listened to, so that it hears why, `drain` how long transactions under way may go
    on after `stop()`, and `cut` how long they have after that to hear 421.

    Content has to keep up with `rate`, in octets/s, or falls behind: `grace` is by how many seconds
    in all it may. Time that a handler takes is not the client's, and does not count.
    """

    proxy: float | None = 5
    tls: float | None = 60
    command: float | None = 300
    auth: float | None = 120
    block: float | None = 180
    rate: float | None = 100
    grace: float | None = 300
    write: float | None = 180
    linger: float | None = 2
    handler: float | None = 570
    session: float | None = 4 * 3600
    drain: float | None = 30
    cut: float | None = 5

    @classmethod
    def under_pressure(cls) -> ServerDeadlines:
        """Return what is left of the defaults when there are too many connections.

        This is less than RFC 5321 §4.5.3.2.7 asks for: at such a time it is that, or turning away
        clients who have something to say.
        """
        return cls(tls=10, command=10, auth=20, block=30, grace=30, write=30, linger=0.5)

    def at_most(self, other: ServerDeadlines) -> ServerDeadlines:
        """Return the shorter of each; the rate and what follows `stop()` stay as they are."""
        shorter = {
            name: min((mine, its), key=lambda each: float("inf") if each is None else each)
            for name in _BOUNDED
            for mine, its in [(getattr(self, name), getattr(other, name))]
        }
        return attrs.evolve(self, **shorter)


class Member(Protocol):
    """Who holds a connection, and wants to know when it gets crowded."""

    def press(self, pressed: bool) -> None:
        """From now on be in a hurry, or no more."""
        ...


#: One client's network: an address, or the number that its first bits are.
Network: TypeAlias = "str | tuple[int, int]"


@define(eq=False)
class Connections:
    """Counts the connections of a server, or of several servers that share it.

    `most` are let in at a time, and `most_per_network` of one client network (None: as many as
    of all), which is what an address shares with others in its first `ipv4_prefix` or
    `ipv6_prefix` bits. Clients without an address, as those of UNIX sockets, count in all only.

    While more than `pressure` (a part of `most`) are open, servers are in a hurry: their
    deadlines are those of `Server.under_pressure`, and errors are not answered slowly. That is
    over when an eighth of these have gone.
    LocalProtocolError for a prefix that such addresses cannot have.
    """

    most: int = 1000
    most_per_network: int | None = 50
    ipv4_prefix: int = field(default=32, kw_only=True)
    ipv6_prefix: int = field(default=64, kw_only=True)
    pressure: float = field(default=0.8, kw_only=True)

    #: Whether there are so many that servers are in a hurry.
    pressed: bool = field(default=False, init=False)
    _networks: Counter[Network] = field(default=Factory(Counter[Network]), init=False, repr=False)
    _members: dict[Member, Network] = field(
        default=Factory(dict[Member, Network]), init=False, repr=False
    )

    def __attrs_post_init__(self) -> None:
        if not (0 <= self.ipv4_prefix <= 32 and 0 <= self.ipv6_prefix <= 128):
            raise LocalProtocolError("a prefix has at most 32 bits of IPv4, 128 of IPv6")

    def __len__(self) -> int:
        """How many are open."""
        return len(self._members)

    def of(self, address: str) -> int:
        """Return how many are open from the network of an IP address."""
        return self._networks[self._network(address)]

    def enter(self, member: Member, address: str) -> bool:
        """Count a connection from an IP address ("": none); False, and not counted: no room.

        Who is counted already is from now on counted under this address.
        """
        self.leave(member)
        network = self._network(address)
        if len(self._members) >= self.most:
            return False
        most = self.most_per_network
        if network and most is not None and self._networks[network] >= most:
            return False
        self._members[member] = network
        self._networks[network] += 1
        if self.pressed:
            member.press(True)
        elif len(self._members) > self.pressure * self.most:
            self._press(True)
        return True

    def leave(self, member: Member) -> None:
        """Count it no more, if it was counted."""
        network = self._members.pop(member, None)
        if network is not None:
            self._networks[network] -= 1
            if not self._networks[network]:
                del self._networks[network]
        if self.pressed and len(self._members) <= 0.875 * self.pressure * self.most:
            self._press(False)

    def _press(self, pressed: bool) -> None:
        self.pressed = pressed
        for member in self._members:
            member.press(pressed)

    def _network(self, address: str) -> Network:
        if not address or (self.ipv4_prefix == 32 and ":" not in address):
            return address
        ip = ipaddress.ip_address(address.partition("%")[0])  # a zone is none of the client's
        if isinstance(ip, ipaddress.IPv6Address):
            if ip.ipv4_mapped is None:
                return 6, int(ip) >> (128 - self.ipv6_prefix)
            ip = ip.ipv4_mapped
        return str(ip) if self.ipv4_prefix == 32 else (4, int(ip) >> (32 - self.ipv4_prefix))
