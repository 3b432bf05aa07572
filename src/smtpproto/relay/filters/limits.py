"""Limits: so many messages, recipients or octets in a time, for whoever it is.

Counted over a window that slides: what was used in the last whole window counts for as much of it
as is still within reach. So no more than the limit passes in any stretch of a window's length, as
near as two numbers can tell, and who is turned away is told when there is room again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, ip_network
from typing import Literal, TypeAlias

from attrs import field, frozen

from smtpproto.core.reply import Reply
from smtpproto.trust import as_address

from .memory import Book, Memory
from .seam import Answer, Refuse, Seen, Stage

__all__ = ["Limit", "Limits"]

What: TypeAlias = Literal["messages", "recipients", "octets"]
Whom: TypeAlias = Literal["account", "network", "domain"]

_STAGES: dict[What, Stage] = {
    "messages": Stage.MAIL,
    "recipients": Stage.RCPT,
    "octets": Stage.CONTENT,
}
_UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))


@frozen
class Limit:
    """At most `most` of something in `seconds`, for each account, client network or domain.

    A "domain" is a recipient's; messages have none, so that its limit is one of recipients. Of
    octets, what is in one message is counted once; `who` names the one account, network or domain
    that it is for, None for each of them by itself.
    """

    what: What
    per: Whom
    most: float
    seconds: float
    who: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.per == "domain" and self.what != "recipients":
            raise ValueError("a domain's limit is one of recipients")
        if self.most < 0 or self.seconds <= 0:
            raise ValueError("a limit wants a number, and a time in which it is not passed")

    def __str__(self) -> str:
        unit, name = next((u, n) for u, n in _UNITS if self.seconds >= u)
        return f"{self.most:g} {self.what} in {self.seconds / unit:g} {name}"


def _now(limit: Limit, used: tuple[float, ...] | None, now: float) -> tuple[float, float, float]:
    """Return the window that it is now, and what was used in the one before and within it."""
    window = now // limit.seconds
    if used is None or used[0] < window - 1:
        return window, 0.0, 0.0
    if used[0] == window - 1:
        return window, used[2], 0.0
    return used[0], used[1], used[2]  # a clock that was put back changes nothing


def _wait(limit: Limit, used: tuple[float, ...] | None, amount: float, now: float) -> float:
    """Return in how many seconds there is room for so much more: 0 for now, inf for never."""
    if amount > limit.most:
        return math.inf
    window, before, within = _now(limit, used, now)
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
class Limits:
    """Refuses, with when to come back, what is over one of the limits (450, 452).

    `size` bounds the octets of one message by account (`""` for who has none): 552 for more.
    """

    limits: Sequence[Limit]
    memory: Memory
    size: dict[str, int] = field(factory=dict[str, int])
    ipv4_prefix: int = 32
    ipv6_prefix: int = 64
    name: str = "limits"

    @property
    def stages(self) -> Collection[Stage]:
        """Return those at which something is counted."""
        stages = {_STAGES[limit.what] for limit in self.limits}
        return stages | {Stage.CONTENT} if self.size else stages

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        """Count it, where all limits have room for it; of what is refused nothing is counted."""
        amount = 1.0
        if stage is Stage.CONTENT and seen.content is not None:
            amount = float(seen.content.octets)
            largest = self.size.get(seen.session.identity or "")
            if largest is not None and amount > largest:
                return Refuse(Reply(552, "5.3.4", f"The message has more than {largest} octets"))
        applying = [
            (limit, f"limit {limit.what} {limit.per} {who} {limit.seconds:g}")
            for limit in self.limits
            if _STAGES[limit.what] is stage
            and (who := self._who(limit.per, seen)) is not None
            and limit.who in (None, who)
        ]
        if not applying:
            return None

        def work(book: Book) -> tuple[float, Limit] | None:
            found = [(limit, key, book.get(key, seen.now)) for limit, key in applying]
            waits = [(_wait(limit, used, amount, seen.now), limit) for limit, _, used in found]
            longest = max(waits, key=lambda wait: wait[0])
            if longest[0] > 0:
                return longest
            for limit, key, used in found:
                window, before, within = _now(limit, used, seen.now)
                book.put(key, (window, before, within + amount), (window + 2) * limit.seconds)
            return None

        full = await self.memory.transact(work)
        if full is None:
            return None
        wait, limit = full
        when = "" if math.isinf(wait) else f", come again in {math.ceil(wait)} seconds"
        code, status = (452, "4.5.3") if limit.what == "recipients" else (450, "4.7.1")
        return Refuse(
            Reply(code, status, f"Too much mail: {limit} is the limit{when}"),
            f"{limit} for each {limit.per}",
        )

    def _who(self, per: Whom, seen: Seen) -> str | None:
        if per == "account":
            return seen.session.identity
        if per == "domain":
            return (
                None
                if seen.rcpt is None
                else seen.rcpt.forward_path.mailbox.domain.decode("utf-8", "replace").lower()
            )
        address = as_address(seen.session.peer[0])
        if address is None:
            return None
        prefix = self.ipv4_prefix if isinstance(address, IPv4Address) else self.ipv6_prefix
        return str(ip_network((address, prefix), strict=False))
