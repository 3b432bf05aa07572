"""A relay whose queue is kept elsewhere, here in memory: python … DIRECTORY PORT

The mailboxes are in DIRECTORY. What waits in the queue when this ends is lost.
"""

import os
import random
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import anyio
from attrs import define, evolve, field

from smtpproto import Mail, Rcpt
from smtpproto.relay import DnsResolver, Listener, Maildir, Relay, Router
from smtpproto.relay.spool.seam import (
    ID_RANDOM,
    Entry,
    Fresh,
    Incoming,
    Parked,
    Recipient,
    Settlement,
    SpoolUnavailable,
    new_id,
    successor,
)


@define
class MemoryIncoming:
    """A message on its way in."""

    spool: "MemorySpool"
    id: str
    content: bytearray = field(factory=bytearray)

    async def write(self, chunk: bytes) -> None:
        self.content += chunk

    async def commit(
        self,
        mail: Mail,
        rcpts: Sequence[Rcpt],
        *,
        now: float,
        origin: str = "",
        held: str | None = None,
        parked: Parked | None = None,
    ) -> None:
        # 250 is said when this returns. A spool that is to keep its promise syncs here.
        self.spool.put(self.id, Fresh(mail, tuple(rcpts), bytes(self.content), origin), now)
        if held is not None:
            await self.spool.hold(self.id, held)
        if parked is not None:
            self.spool.later[self.id] = parked


@define(eq=False)
class MemorySpool:
    """A spool for messages that may be lost. Leases end by `steady`, as times go by `clock`."""

    clock: Callable[[], float] = time.time
    steady: Callable[[], float] = anyio.current_time
    random: Callable[[int], int] = random.randrange
    #: By id: what is to be sent later.
    later: dict[str, Parked] = field(factory=dict[str, Parked], init=False)
    _entries: dict[str, Entry] = field(factory=dict[str, Entry], init=False)
    _contents: dict[str, bytes] = field(factory=dict[str, bytes], init=False)
    # By id and number: until when, and with which next attempt it was lent.
    _lent: dict[tuple[str, int], tuple[float, float]] = field(
        factory=dict[tuple[str, int], tuple[float, float]], init=False
    )

    def new_id(self) -> str:
        return new_id(self.clock(), self.random(ID_RANDOM))

    def put(self, id: str, new: Fresh, now: float) -> None:
        if not new.rcpts:
            raise ValueError("a message needs a recipient")
        if id in self._entries:
            raise SpoolUnavailable(f"there is a message {id}")
        owed = tuple(Recipient(n, rcpt, 0, now, None) for n, rcpt in enumerate(new.rcpts))
        self._entries[id] = Entry(id, now, new.mail, owed, len(new.content), new.origin)
        self._contents[id] = new.content

    @asynccontextmanager
    async def receive(self) -> AsyncGenerator[Incoming]:
        yield MemoryIncoming(self, self.new_id())

    # The work of one relay

    def _free(self, entry: Entry) -> list[Recipient]:
        never = (float("-inf"), 0)
        now = self.steady()
        return [
            r for r in entry.recipients if self._lent.get((entry.id, r.number), never)[0] <= now
        ]

    async def claim(self, now: float, limit: int, lease: float) -> list[Entry]:
        due: list[tuple[float, str, Entry]] = []
        for id, entry in self._entries.items():
            owed = tuple(r for r in self._free(entry) if r.next_attempt <= now)
            if owed:
                first = min(r.next_attempt for r in owed)
                due.append((first, id, evolve(entry, recipients=owed)))
        claimed = [entry for _, _, entry in sorted(due)[: max(limit, 0)]]
        for entry in claimed:
            for r in entry.recipients:
                self._lent[entry.id, r.number] = self.steady() + lease, r.next_attempt
        return claimed

    async def settle(
        self,
        id: str,
        settlements: Sequence[Settlement],
        fresh: Sequence[Fresh] = (),
        *,
        now: float,
    ) -> list[str]:
        # All of it, or nothing; and with no await in between nobody sees half of it.
        entry = self._entries.get(id)
        owed = {} if entry is None else {r.number: r for r in entry.recipients}
        if entry is None or (settlements and not any(s.recipient in owed for s in settlements)):
            return []
        for s in settlements:
            _, lent_as = self._lent.pop((id, s.recipient), (None, None))
            if s.recipient not in owed:
                continue
            for n, new in enumerate(s.becomes):
                number = successor(s.recipient, n)
                owed[number] = Recipient(
                    number, new.rcpt, 0, now, None, alias=s.alias, mail=new.mail
                )
            r = owed.pop(s.recipient)
            if s.next_attempt is not None:
                moved = lent_as not in (None, r.next_attempt)
                asked_meanwhile = moved and (r.asked is not None or r.held)
                kept = s.reply is None or (asked_meanwhile and r.held)
                owed[r.number] = evolve(
                    r,
                    attempts=r.attempts + s.counted,
                    next_attempt=r.next_attempt if asked_meanwhile else s.next_attempt,
                    last_reply=r.last_reply if kept else s.reply,
                    warned=r.warned or s.warned,
                )
        if owed:
            recipients = tuple(owed[number] for number in sorted(owed))
            self._entries[id] = evolve(entry, recipients=recipients)
        else:
            await self.delete(id)
        ids = [self.new_id() for _ in fresh]
        for report_id, report in zip(ids, fresh, strict=True):
            self.put(report_id, report, now)
        return ids

    async def release(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            for r in entry.recipients:
                self._lent.pop((entry.id, r.number), None)

    async def content(self, id: str) -> AsyncIterator[bytes]:
        content = self._contents.get(id)
        if content is None:
            raise SpoolUnavailable(f"no message {id} (any more)")
        for at in range(0, len(content), 65536):
            yield content[at : at + 65536]

    async def next_due(self) -> float | None:
        times = [r.next_attempt for entry in self._entries.values() for r in self._free(entry)]
        now = self.steady()
        times += [self.clock() + end - now for end, _ in self._lent.values() if end > now]
        return min((time for time in times if time < inf), default=None)

    # For the operator

    async def entries(self) -> AsyncIterator[Entry]:
        for id in sorted(self._entries):
            if id in self._entries:
                yield self._entries[id]

    async def get(self, id: str) -> Entry | None:
        return self._entries.get(id)

    async def parked(self, owner: str, now: float) -> tuple[int, int]:
        octets = [
            self._entries[id].octets
            for id, each in self.later.items()
            if each.owner == owner and each.until > now
        ]
        return len(octets), sum(octets)

    async def retry(self, id: str | None, now: float) -> int:
        moved = 0
        for each, entry in self._entries.items():
            waiting = [
                r
                for r in entry.recipients
                if r.next_attempt > 0 and (id == each or (id is None and not r.held))
            ]
            moved += len(waiting)
            self._entries[each] = evolve(
                entry,
                recipients=tuple(
                    evolve(r, next_attempt=-now) if r in waiting else r for r in entry.recipients
                ),
            )
        return moved

    async def hold(self, id: str, reason: str) -> int:
        entry = self._entries.get(id)
        if entry is None:
            return 0
        moved = sum(not r.held for r in entry.recipients)
        held = (
            r if r.held else evolve(r, next_attempt=inf, last_reply=reason)
            for r in entry.recipients
        )
        self._entries[id] = evolve(entry, recipients=tuple(held))
        return moved

    async def delete(self, id: str) -> bool:
        self._lent = {key: lease for key, lease in self._lent.items() if key[0] != id}
        self._contents.pop(id, None)
        self.later.pop(id, None)
        return self._entries.pop(id, None) is not None


async def main(data: Path, port: int) -> None:
    name = "mail.example.org"
    router = Router(
        local_domains=["example.org"],
        smart_host=None,
        resolver=DnsResolver(),
        shuffle=random.shuffle,
        hostname=name,
    )
    mailboxes = Maildir(data, hostname=name, now=time.time, random_bytes=os.urandom)
    async with anyio.create_task_group() as tasks:
        relay = Relay(
            hostname=name, spool=MemorySpool(), mailboxes=mailboxes, router=router, observe=print
        )
        bound = await tasks.start(relay.run, [Listener("smtp", "127.0.0.1", port)])
        print("listening on", *bound[0], flush=True)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
