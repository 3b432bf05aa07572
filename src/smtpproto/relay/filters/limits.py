"""Limits: so many messages, recipients or octets in a time, for whoever it is.

What is counted is what is taken. It is looked at MAIL and RCPT whether there is room, and counted
when the content has come, at once for all limits: what is refused before, by our own rules or a
filter that is asked earlier, is not counted, nor is a transaction that ends without content.

What is counted is in the memory by then, and who counts sees what all others have, whatever their
process. But before the content nobody asks the memory again for what was there the last time: it
can only have become more since, by others, and then it is the content that is turned away.

Counted over a window that slides: what was used in the last whole window counts for as much of it
as is still within reach. So no more than the limit passes in any stretch of a window's length, as
near as two numbers can tell, and who is turned away is told when there is room again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, ip_network
from typing import Literal, TypeAlias

from attrs import field, frozen

from smtpproto.core.command import Rcpt
from smtpproto.core.errors import GrammarError
from smtpproto.core.reply import Reply
from smtpproto.extensions.size import SIZE_OCTETS
from smtpproto.relay.accounts.passwd import key_of
from smtpproto.trust import as_address

from .memory import Book, Memory
from .seam import Answer, Refuse, Seen, Stage

__all__ = ["Limit", "RateLimits", "What", "Whom"]

What: TypeAlias = Literal["messages", "recipients", "octets", "size"]
Whom: TypeAlias = Literal["account", "network", "domain"]

#: Where it can be seen, before the content, that there is no room.
_LOOKED_AT: Mapping[What, Stage] = {
    "messages": Stage.MAIL,
    "recipients": Stage.RCPT,
    "octets": Stage.MAIL,
    "size": Stage.MAIL,
}
#: Whose counts are known without asking, at most; of strangers' networks there may be more.
KNOWN = 10_000
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


@frozen
class Limit:
    """At most `most` of something in `seconds`, for each account, client network or domain.

    A "size" is the octets of one message, and has no time. A "domain" is a recipient's, so that its
    limit is one of recipients, or the size of what goes there. `who` names the one account, network
    (`192.0.2.0/24`, as a whole) or domain that it is for, in place of what holds for each of them
    by itself (None). ValueError for a limit that cannot be kept.
    """

    what: What
    per: Whom
    most: int
    seconds: float = 0
    who: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.per == "domain" and self.what not in ("recipients", "size"):
            raise ValueError("a domain's limit is one of recipients, or a size")
        if self.most < 1:
            raise ValueError("a limit wants a number above 0")
        if (self.seconds > 0) is (self.what == "size"):
            raise ValueError("a size has no time, and any other limit wants one")

    def __str__(self) -> str:
        if self.what == "size":
            return f"{self.most} octets in one message"
        unit, name = next((u, n) for u, n in (*_UNITS, (0, "")) if self.seconds >= u)
        count = self.seconds / (unit or 1)
        return f"{self.most} {self.what} in {count:g} {name}{'' if count == 1 else 's'}"


#: A window, what was used in the one before, and what within it; None for nothing.
_Used: TypeAlias = "tuple[float, ...] | None"


def _now(limit: Limit, used: _Used, now: float) -> tuple[float, float, float]:
    """Return the window that it is now, and what was used in the one before and within it."""
    window = now // limit.seconds
    # What is further ahead was counted by a clock that has been put back.
    if used is None or abs(used[0] - window) > 1:
        return window, 0.0, 0.0
    if used[0] == window - 1:
        return window, used[2], 0.0
    return used[0], used[1], used[2]  # the next window, too, by a clock that was put back a little


def _wait(limit: Limit, used: _Used, amount: float, now: float, *, pending: float = 0) -> float:
    """Return in how many seconds there is room for so much more: 0 for now, inf for never.

    `pending` is what will have been used by then, though it is not counted yet.
    """
    if amount > limit.most:
        return math.inf
    window, before, within = _now(limit, used, now)
    within += pending
    room = limit.most - amount
    # What the window before counts for falls in a straight line, to nothing at its end.
    left = (window + 1) * limit.seconds - now
    if within + before * left / limit.seconds <= room:
        return 0.0
    if within <= room:
        return left - (room - within) / before * limit.seconds
    # This window has used too much by itself: it is the one before, by then.
    return left + limit.seconds * (1 - room / within)


@frozen
class _Claim:
    """What somebody wants of a limit: `amount` more, behind what is `pending`."""

    limit: Limit
    key: str
    amount: float
    pending: float = 0


@frozen
class RateLimits:
    """Refuses, with when to come back, what is over one of the limits (450, 452).

    What is too large for ever is refused for good (552). A network is one of `ipv4_prefix` or
    `ipv6_prefix` bits.
    """

    limits: Sequence[Limit]
    memory: Memory
    ipv4_prefix: int = 32
    ipv6_prefix: int = 64
    name: str = "limits"
    stages: Collection[Stage] = field(init=False)
    #: What was used when the memory was asked last, by key.
    _known: dict[str, _Used] = field(factory=dict[str, "_Used"], init=False)

    def __attrs_post_init__(self) -> None:
        stages = {
            Stage.RCPT if limit.per == "domain" else _LOOKED_AT[limit.what] for limit in self.limits
        }
        object.__setattr__(self, "stages", frozenset(stages | {Stage.CONTENT}))

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        """Look whether there is room; of a message that has come, count it where there is."""
        octets = self._octets(stage, seen)
        rcpts = seen.rcpts if stage is not Stage.RCPT or seen.rcpt is None else [seen.rcpt]
        for limit, _, _ in self._applying(["size"], seen, rcpts):
            if octets > limit.most:
                return _never(limit)
        match stage:
            case Stage.CONTENT:
                return await self._count(octets, seen)
            case Stage.RCPT:
                mine = self._applying(["recipients"], seen, rcpts)
                before = {key: n for _, key, n in self._applying(["recipients"], seen, seen.rcpts)}
                claims = [_Claim(limit, key, 1, before.get(key, 0)) for limit, key, _ in mine]
            case _:
                claims = [
                    _Claim(limit, key, 1 if limit.what == "messages" else octets)
                    for limit, key, _ in self._applying(["messages", "octets"], seen, ())
                ]
        if not claims:
            return None
        if all(claim.key in self._known for claim in claims):
            return _refusal(stage, _look(self._known, claims, seen.now))
        return await self._ask(stage, claims, seen.now)

    async def _count(self, octets: float, seen: Seen) -> Answer | None:
        what: list[What] = ["messages", "recipients", "octets"]
        claims = [
            _Claim(limit, key, {"messages": 1, "octets": octets}.get(limit.what, recipients))
            for limit, key, recipients in self._applying(what, seen, seen.rcpts)
        ]
        return await self._ask(Stage.CONTENT, claims, seen.now) if claims else None

    async def _ask(self, stage: Stage, claims: Sequence[_Claim], now: float) -> Answer | None:
        """Ask the memory whether there is room for all; at CONTENT, count it where there is."""
        by_key = {claim.key: claim for claim in claims}

        def work(book: Book) -> tuple[dict[str, _Used], tuple[float, Limit] | None]:
            used = {key: book.get(key, now) for key in by_key}
            full = _look(used, claims, now)
            if full is None and stage is Stage.CONTENT:
                for key, claim in by_key.items():
                    window, before, within = _now(claim.limit, used[key], now)
                    used[key] = counted = (window, before, within + claim.amount)
                    book.put(key, counted, (window + 2) * claim.limit.seconds)
            return used, full

        used, full = await self.memory.transact(work)
        if len(self._known) > KNOWN:
            self._known.clear()
        self._known.update(used)
        return _refusal(stage, full)

    def _octets(self, stage: Stage, seen: Seen) -> int:
        """Return how large the message is, or is said to be (RFC 1870 §6)."""
        if stage is Stage.CONTENT and seen.content is not None:
            return seen.content.octets
        declared = None if seen.mail is None else SIZE_OCTETS.of(seen.mail.parameters)
        return declared or 0

    def _applying(
        self, what: Collection[What], seen: Seen, rcpts: Sequence[Rcpt]
    ) -> Iterable[tuple[Limit, str, int]]:
        """Return the limits that hold here, whose count each is, and of how many recipients."""
        for per, whos in self._whos(seen, rcpts).items():
            for who, recipients in whos.items():
                some = [each for each in self.limits if each.what in what and each.per == per]
                named = [each for each in some if each.who is not None and _is(each, who)]
                own = {each.what for each in named}
                general = [each for each in some if each.who is None and each.what not in own]
                for limit in (*named, *general):
                    whose = who if limit.who is None else limit.who
                    if per == "network" and limit.who is None:
                        whose = self._network(who)
                    key = f"limit-{per} {limit.what} {whose} {limit.seconds:g}"
                    yield limit, key, recipients

    def _whos(self, seen: Seen, rcpts: Sequence[Rcpt]) -> dict[Whom, Mapping[str, int]]:
        account = seen.session.identity
        address = as_address(seen.session.peer[0])
        domains = Counter(
            rcpt.forward_path.mailbox.domain.decode("utf-8", "replace").lower() for rcpt in rcpts
        )
        return {
            "account": {} if account is None else {_account(account): len(rcpts)},
            "network": {} if address is None else {str(address): len(rcpts)},
            "domain": domains,
        }

    def _network(self, host: str) -> str:
        address = as_address(host)
        assert address is not None
        prefix = self.ipv4_prefix if isinstance(address, IPv4Address) else self.ipv6_prefix
        return str(ip_network((address, prefix), strict=False))


def _account(name: str) -> str:
    """Return an account's name as its file does: Ann and ann are the same (key_of)."""
    try:
        return key_of(name)
    except GrammarError:
        return name


def _is(limit: Limit, who: str) -> bool:
    assert limit.who is not None
    if limit.per == "account":
        return _account(limit.who) == who
    if limit.per == "network":
        address = as_address(who)
        return address is not None and address in ip_network(limit.who)
    return limit.who.lower() == who


def _look(
    used: Mapping[str, _Used], claims: Sequence[_Claim], now: float
) -> tuple[float, Limit] | None:
    """Return the longest wait, and for what; None if there is room for all."""
    waits = [
        (_wait(c.limit, used[c.key], c.amount, now, pending=c.pending), c.limit) for c in claims
    ]
    longest = max(waits, key=lambda wait: wait[0])
    return longest if longest[0] > 0 else None


def _refusal(stage: Stage, full: tuple[float, Limit] | None) -> Refuse | None:
    if full is None:
        return None
    wait, limit = full
    if math.isinf(wait):
        return _never(limit)
    # For MAIL there is no 450 (RFC 5321 §4.3.2).
    code = 450 if stage is Stage.CONTENT else 452
    status = "4.5.3" if limit.what == "recipients" else "4.7.1"
    return Refuse(
        Reply(
            code,
            status,
            f"Too much mail: {limit} is the limit, come again in {math.ceil(wait)} seconds",
        ),
        f"{limit} for each {limit.per}" if limit.who is None else f"{limit} for {limit.who}",
    )


def _never(limit: Limit) -> Refuse:
    """Refuse what will never fit (RFC 1870 §6.1)."""
    return Refuse(Reply(552, "5.3.4", f"The message is too large: {limit} is the limit"))
