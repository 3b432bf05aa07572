"""What sees the inside of a node: the spool, the mailboxes and the intake, each with a witness.

They do what the real ones do, and tell the ledger of it.
"""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import trio
from attrs import define

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply, Severity
from smtpproto.handler import ContentStream, Session
from smtpproto.relay import Maildir, SQLiteSpool
from smtpproto.relay.spool.incoming import SQLiteIncoming
from smtpproto.relay.spool.seam import Entry, Fresh, Settlement

from .books import Copy
from .loop import Life
from .readings import hops_of
from .terms import path_of, sender_of

if TYPE_CHECKING:
    from .nodes import Node

__all__ = ["Witness", "WitnessedMaildir", "WitnessedSpool"]


class WitnessedSpool(SQLiteSpool):
    """The real one, and the ledger sees what reports it takes in."""

    node: "Node"
    life: Life
    #: Who is settling: its reports, and what they become.
    settling: dict[Any, tuple[Sequence[Fresh], list[SQLiteIncoming]]]

    async def settle(
        self,
        id: str,
        settlements: Sequence[Settlement],
        fresh: Sequence[Fresh] = (),
        *,
        now: float,
    ) -> list[str]:
        task = trio.lowlevel.current_task()
        self.settling[task] = fresh, []
        try:
            ids = await super().settle(id, settlements, fresh, now=now)
            if ids and task in self.settling:
                self._report(fresh, ids)
        finally:
            self.settling.pop(task, None)
        return ids

    def _begin(self) -> SQLiteIncoming:
        incoming = super()._begin()
        _, reports = self.settling.get(trio.lowlevel.current_task(), ((), []))
        reports.append(incoming)
        return incoming

    async def _remove(self, paths: Sequence[Path]) -> None:
        # It is committed, and from here on the reports may be delivered: now they are known.
        task = trio.lowlevel.current_task()
        fresh, reports = self.settling.get(task, ((), []))
        if len(fresh) == len(reports):
            self.settling.pop(task, None)
            self._report(fresh, [report.id for report in reports])
        await super()._remove(paths)

    def _report(self, fresh: Sequence[Fresh], ids: Sequence[str]) -> None:
        if self.life.dead:
            return
        for new, report in zip(fresh, ids, strict=True):
            self.node.world.ledger.reported(self.node.name, report, new)
            self.node.world.tell(f"{self.node.name} queues {report}, a {new.origin}")

    async def claim(self, now: float, limit: int, lease: float) -> list[Entry]:
        self.node.check_bounds()
        return await super().claim(now, limit, lease)


class WitnessedMaildir(Maildir):
    """The real one, and the ledger sees what is put there."""

    node: "Node"
    life: Life

    async def deliver_once(
        self, mailbox: Mailbox, content: AsyncIterable[bytes], *, key: str, again: bool
    ) -> None:
        if self.node.trouble and self.node.world.dice.random() < 0.2:
            raise self.node.mailbox_trouble()
        octets = b"".join([chunk async for chunk in content])

        async def same() -> AsyncIterator[bytes]:
            yield octets

        ledger = self.node.world.ledger
        message = ledger.identify(octets)
        if message is None:
            raise ledger.breach("content", f"mailbox {mailbox} got what is of none of our nodes")
        copy = Copy(f"mailbox {mailbox}", self.life, self.node.world.clock(), None)
        directory = self.directory(mailbox)
        before = files_in(directory, key)
        try:
            await super().deliver_once(mailbox, same(), key=key, again=again)
        finally:
            # Dead or alive: it is there if it has its name.
            if files_in(directory, key) > before:
                ledger.arrived_for(copy, message, str(mailbox), return_path_in(octets))


def return_path_in(octets: bytes) -> str:
    """Return the reverse-path that final delivery has written on top (RFC 5321 §4.4)."""
    first = octets.partition(b"\r\n")[0].decode()
    return first.removeprefix("Return-Path: <").removesuffix(">").lower()


def files_in(directory: Path, key: str) -> int:
    """Count what stands there of the delivery with this key."""
    try:
        return sum(f"K{key}." in path.name for path in (directory / "new").iterdir())
    except FileNotFoundError:
        return 0


@define(eq=False)
class Witness:
    """The intake, and the ledger sees what it says 250 to, and what it refuses of other nodes."""

    intake: Any
    node: "Node"
    life: Life

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        reply: Reply | None = await self.intake.mail(session, command)
        self._refused(session, reply, self.node.name)
        return reply

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        reply: Reply | None = await self.intake.rcpt(session, command)
        self._refused(session, reply, path_of(command))
        return reply

    def _refused(self, session: Session, reply: Reply | None, whom: str) -> None:
        if reply is not None and reply.severity is Severity.PERMANENT:
            near = self.node.world.network.by_port[session.peer[1]]
            self.node.world.ledger.refused(near.life, whom)

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        head = _Head(content)
        world, name = self.node.world, self.node.name
        began = world.clock()
        reply: Reply | None = await self.intake.content(session, envelope, head)
        self._refused(session, reply, name)
        if reply is None or reply.code != 250 or self.life.dead:
            return reply
        id = reply.text.rpartition(" ")[2]
        near = world.network.by_port[session.peer[1]]
        before = None
        if near.life is not None:
            before = world.ledger.identify(bytes(head.octets))
            if before is None:
                raise world.ledger.breach("content", f"{id} comes from a node, and has none's line")
        hops = 0 if before is None else hops_of(bytes(head.octets))
        world.ledger.accepted((name, id), envelope.mail, envelope.rcpts, arrived=began, hops=hops)
        world.accepted(self.node, id)
        if before is not None:
            pipe = near.incoming
            until = pipe.sent + len(reply.serialize())
            at = anyio.current_time()
            copy = Copy(name, near.life, at, pipe, until, offers=("DSN", "DELIVERBY"))
            sender = sender_of(envelope.mail)
            for rcpt in envelope.rcpts:
                world.ledger.arrived_for(copy, before, path_of(rcpt), sender)
        return reply


class _Head:
    """Content as it passes, of which the beginning is kept."""

    def __init__(self, content: ContentStream) -> None:
        self._content = content
        self.octets = bytearray()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._content)
        if len(self.octets) < 4096:
            self.octets += chunk
        return chunk
