"""Guessing passwords, made slow: who has failed too often waits, and then has one try at a time.

What counts are failures of an account from a network, of that network in all, and of the account
from anywhere. The first two lock: a stranger's guesses cost the stranger, and whoever shares
their network, and never the owner of the account elsewhere. The last one only slows down, and is
told: or anybody could lock anybody out.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from ipaddress import IPv6Address

from attrs import define, field, frozen

from smtpproto.core.reply import Reply
from smtpproto.handler import Session
from smtpproto.trust import Network, as_address, as_networks, is_listed

__all__ = ["Bucket", "Guessing", "Locked", "network_of"]

log = logging.getLogger(__name__)

#: Characters by which names are told from each other: a stranger's may have thousands.
MAX_NAME = 256


@frozen
class Bucket:
    """How many failures are borne: `failures` at once, and one more each `each` seconds."""

    failures: int
    each: float


@frozen
class Locked:
    """Somebody has failed too often. One of the two is "" where it does not matter.

    `wait` is in how many seconds the next try is let through; 0: all are, but they are slowed.
    """

    network: str
    username: str
    wait: float

    def __str__(self) -> str:
        who = f"as {self.username!r}" if self.username else "as anybody"
        where = f"from {self.network}" if self.network else "from many networks"
        then = f"refused for {self.wait:.0f} s" if self.wait else "slowed down"
        return f"too many failed logins {who} {where}: {then}"


class _Levels:
    """How full the bucket of each key is. It holds `most` keys, and forgets who was quiet longest.

    A level sinks by one each `bucket.each` seconds.
    """

    def __init__(self, bucket: Bucket, most: int, clock: Callable[[], float]) -> None:
        self._bucket = bucket
        self._most = most
        self._clock = clock
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def level(self, key: Hashable) -> float:
        level, at = self._levels.get(key, (0.0, 0.0))
        return max(0.0, level - (self._clock() - at) / self._bucket.each)

    def wait(self, key: Hashable) -> float:
        """Return in how many seconds one more failure has room."""
        return max(0.0, self.level(key) + 1 - self._bucket.failures) * self._bucket.each

    def add(self, key: Hashable, count: int = 1) -> None:
        level = min(self.level(key) + count, self._bucket.failures + 1)  # whatever else was let in
        self.drop(key)
        if level > 0:
            self._levels[key] = (level, self._clock())
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)

    def drop(self, key: Hashable) -> None:
        self._levels.pop(key, None)

    def has_just_filled(self, key: Hashable) -> bool:
        """Tell whether the last failure was the one that made it full."""
        return self._bucket.failures - 1 < self.level(key) <= self._bucket.failures


@define(eq=False)
class Guessing:
    """A LoginGuard. Give it to all servers that share their accounts.

    `by_account` is for an account from one network, `by_network` for all accounts from one (the
    first 64 bits of IPv6, an address of IPv4) but those `apart`, from where many users come
    through one program, and `anywhere` for an account from all. A try counts when it begins, so
    that many at once are no way around, and no more once it has succeeded, or nobody could say.

    Who may not try hears 454, whether the account exists or not. A refusal waits for 1 second, 2,
    4, … up to `longest`. `most` entries of each kind are held. `observe` is told when a lock
    begins; without it, the log is. `clock` gives seconds that only grow.
    """

    by_account: Bucket = Bucket(5, 900)
    by_network: Bucket = Bucket(30, 120)
    anywhere: Bucket = Bucket(100, 60)
    apart: tuple[Network, ...] = field(default=(), converter=as_networks, kw_only=True)
    longest: float = field(default=8.0, kw_only=True)
    most: int = field(default=10_000, kw_only=True)
    observe: Callable[[Locked], None] | None = field(default=None, kw_only=True)
    clock: Callable[[], float] = field(default=time.monotonic, kw_only=True)

    _accounts: _Levels = field(init=False)
    _networks: _Levels = field(init=False)
    _anywhere: _Levels = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._accounts = _Levels(self.by_account, self.most, self.clock)
        self._networks = _Levels(self.by_network, self.most, self.clock)
        self._anywhere = _Levels(self.anywhere, self.most, self.clock)

    async def admit(self, session: Session, username: str) -> Reply | None:
        """Let somebody try, unless they or their network have failed too often."""
        network, name = network_of(session.peer[0]), _name(username)
        wait = self._accounts.wait((network, name))
        if not self._is_apart(session):
            wait = max(wait, self._networks.wait(network))
        if wait:
            return _later(wait)
        self._count(network, name, 1)
        return None

    async def ended(self, session: Session, username: str, *, success: bool | None) -> float:
        """Take back what was counted unless it was a guess; else return for how long to wait."""
        network, name = network_of(session.peer[0]), _name(username)
        if success is not False:
            self._count(network, name, -1)
            if success:
                self._accounts.drop((network, name))
            return 0
        if self._accounts.has_just_filled((network, name)):
            self._tell(Locked(network, username, self._accounts.wait((network, name))))
        if self._networks.has_just_filled(network) and not self._is_apart(session):
            self._tell(Locked(network, "", self._networks.wait(network)))
        if self._anywhere.has_just_filled(name):
            self._tell(Locked("", username, 0))
        if self._anywhere.wait(name):
            return self.longest
        tries = round(self._accounts.level((network, name)))
        return min(self.longest, 2.0 ** max(0, tries - 1))

    def _is_apart(self, session: Session) -> bool:
        return is_listed(session.peer[0], self.apart)

    def _count(self, network: str, name: str, count: int) -> None:
        self._accounts.add((network, name), count)
        self._networks.add(network, count)
        self._anywhere.add(name, count)

    def _tell(self, what: Locked) -> None:
        if self.observe is None:
            log.warning("%s", what)
        else:
            self.observe(what)


def _name(username: str) -> str:
    return username.lower()[:MAX_NAME]


def _later(seconds: float) -> Reply:
    return Reply(454, "4.7.0", f"Too many failed logins; try again in {_span(seconds)}")


def _span(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute{'' if minutes == 1 else 's'}"


def network_of(address: str) -> str:
    """Return what stands for an address's network: itself, or the first 64 bits of IPv6."""
    ip = as_address(address)
    if not isinstance(ip, IPv6Address):
        return address if ip is None else str(ip)
    return f"{IPv6Address(int(ip) >> 64 << 64)}/64"
