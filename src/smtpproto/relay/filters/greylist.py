"""Greylisting (RFC 6647): who is not known has to come twice, as mail servers do."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import blake2b
from ipaddress import IPv4Address, ip_network

from attrs import field, frozen

from smtpproto.core.reply import Reply
from smtpproto.trust import as_address

from .memory import Book, Memory
from .seam import Answer, Refuse, Seen, Stage

__all__ = ["Greylist"]

DAY = 86400.0


@frozen
class Greylist:
    """Defers the first mail of a client's network from a sender to a recipient.

    All times in seconds. It comes again after `delay` at the earliest, and before `window` is
    over (RFC 6647 §5: from a minute to a day); it is known then for `known` without mail, at
    least a week. A network (of `ipv4_prefix`, `ipv6_prefix` bits, for big senders come from many
    addresses) that has done so `enough` times is not asked again. Trusted clients are not at all.
    Of senders and recipients only a hash is remembered.
    """

    memory: Memory
    delay: float = 60
    window: float = DAY
    known: float = 35 * DAY
    enough: int = 1
    ipv4_prefix: int = 24
    ipv6_prefix: int = 64
    name: str = "greylist"
    stages: Collection[Stage] = field(default=frozenset({Stage.RCPT}), init=False)

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        """Judge a recipient."""
        address = as_address(seen.session.peer[0])
        if seen.trusted or address is None or seen.mail is None or seen.rcpt is None:
            return None
        prefix = self.ipv4_prefix if isinstance(address, IPv4Address) else self.ipv6_prefix
        network = str(ip_network((address, prefix), strict=False))
        sender = seen.mail.reverse_path.serialize().lower().decode("utf-8", "replace")
        recipient = seen.rcpt.forward_path.serialize().lower().decode("utf-8", "replace")
        pair = blake2b(f"{sender} {recipient}".encode(), digest_size=16).hexdigest()
        triplet, now = f"grey {network} {pair}", seen.now

        def work(book: Book) -> float:
            """Return for how many seconds it has to wait."""
            friend = book.get(f"friend {network}", now)
            if friend is not None and friend[0] >= self.enough:
                book.put(f"friend {network}", friend, now + self.known)
                return 0
            first = book.get(triplet, now)
            if first is None or first[0] > now:  # or the clock was put back
                book.put(triplet, (now, 0), now + self.window)
                return self.delay
            came, passed = first
            if not passed:
                if now < came + self.delay:
                    return came + self.delay - now
                count = 0 if friend is None else friend[0]
                book.put(f"friend {network}", (count + 1,), now + self.known)
            book.put(triplet, (came, 1), now + self.known)
            return 0

        wait = await self.memory.transact(work)
        if not wait:
            return None
        text = f"Greylisted: not known yet, come again in {max(round(wait), 1)} seconds"
        return Refuse(Reply(450, "4.7.1", text), f"{network} is not known yet")
