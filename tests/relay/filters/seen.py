"""What the tests of filters show them: a client, its mail, and a DNS of their own."""

from collections.abc import Sequence
from typing import Any

from attrs import define, field

from smtpproto.core.command import Mail, Rcpt
from smtpproto.handler import Session
from smtpproto.relay.filters.held import Held
from smtpproto.relay.filters.seam import Seen
from smtpproto.resolve import NoRecords, NoSuchDomain, ResolveFailed

__all__ = ["NOON", "Dns", "holding", "seen"]

#: A day's noon, UTC.
NOON = 1_700_049_600.0


def seen(
    peer: str = "192.0.2.7",
    *,
    helo: str = "client.example",
    identity: str | None = None,
    sender: str | None = "ann@there.example",
    rcpt: str | None = None,
    now: float = NOON,
    content: Held | None = None,
    **more: Any,
) -> Seen:
    session = Session(1, (peer, 40000), ("192.0.2.1", 25), helo_name=helo, identity=identity)
    return Seen(
        session,
        now,
        helo,
        mail=Mail(sender),
        rcpt=None if rcpt is None else Rcpt(rcpt),
        content=content,
        **more,
    )


async def holding(octets: bytes, *, cut: int = 1000) -> Held:
    held = Held()
    for at in range(0, len(octets), cut):
        await held.write(octets[at : at + cut])
    return held


@define
class Dns:
    """Names and what they lead to, by (kind, name); `failing` are those that do not answer."""

    records: dict[tuple[str, str], Sequence[str]] = field(factory=dict[Any, Any])
    failing: set[str] = field(factory=set[str])
    asked: list[str] = field(factory=list[str])

    def _look_up(self, kind: str, name: str) -> Sequence[str]:
        self.asked.append(name)
        if name in self.failing:
            raise ResolveFailed(name)
        if (kind, name) not in self.records:
            known = any(name == other for _, other in self.records)
            raise NoRecords(name) if known else NoSuchDomain(name)
        return self.records[kind, name]

    async def addresses(self, host: str) -> Sequence[str]:
        return self._look_up("A", host)

    async def ipv4(self, name: str) -> Sequence[str]:
        return self._look_up("A", name)

    async def names(self, address: str) -> Sequence[str]:
        return self._look_up("PTR", address)

    async def texts(self, name: str) -> Sequence[str]:
        return self._look_up("TXT", name)
