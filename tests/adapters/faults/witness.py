"""A handler with every power that a server knows, which tells what it saw, and can go wrong."""

from collections.abc import Mapping
from typing import Any

import anyio

from smtpproto import Command, Ehlo, Envelope, Helo, Mail, Rcpt, Reply
from smtpproto.core.event import BadCommand
from smtpproto.handler import ContentError, HangUp
from smtpproto.server import ContentStream, Session

__all__ = ["Witness"]


class Witness:
    """Keeps what it is asked in `saw`. In the power named by `where` it does what `does` says.

    `raises`, `waits` for ever, `hangs up`, or holds until `go`. `taken` has the messages.
    """

    def __init__(self, where: str = "", does: str = "") -> None:
        self.where, self.does = where, does
        self.saw: list[str] = []
        self.taken: list[bytes] = []
        self.go = anyio.Event()
        self.there = anyio.Event()

    async def see(self, where: str) -> None:
        """Keep it, and go wrong where that is to be."""
        self.saw.append(where)
        if where != self.where:
            return
        self.there.set()
        if self.does == "raises":
            raise ZeroDivisionError("the secret of the house")
        if self.does == "hangs up":
            raise HangUp
        if self.does == "holds":
            await self.go.wait()
        if self.does == "waits":
            try:
                await anyio.sleep_forever()
            finally:
                self.saw.append(f"{where} cancelled")

    async def connect(self, session: Session) -> Reply | None:
        await self.see("connect")
        return None

    async def before(
        self, session: Session, command: Command | BadCommand, usual: Reply | None
    ) -> Reply | None:
        if self.where == "before":
            await self.see("before")
        return None

    async def helo(self, session: Session, command: Ehlo | Helo) -> Reply | None:
        await self.see("helo")
        return None

    async def verify(self, session: Session, question: object) -> bool:
        await self.see("verify")
        return True

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        await self.see("mail")
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        await self.see("rcpt")
        return None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        await self.take(content)
        return None

    async def deliver(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Mapping[Rcpt, Reply | None]:
        await self.take(content)
        return dict.fromkeys(envelope.rcpts)

    async def take(self, content: ContentStream) -> None:
        await self.see("content")
        octets = b""
        try:
            async for chunk in content:
                octets += chunk
                if self.where == "within content":
                    await self.see("within content")
        except ContentError:
            self.saw.append("content broke off")
            raise
        await self.see("end of content")
        self.taken.append(octets)

    async def vrfy(self, session: Session, command: Any) -> Reply | None:
        await self.see("vrfy")
        return None

    async def expn(self, session: Session, command: Any) -> Reply | None:
        await self.see("expn")
        return None

    async def etrn(self, session: Session, command: Any) -> Reply | None:
        await self.see("etrn")
        return None

    async def unknown(self, session: Session, command: Any) -> Reply | None:
        await self.see("unknown")
        return None

    async def closed(self, session: Session) -> None:
        await self.see("closed")
