"""Hand mail to another server while the client waits: a proxy."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing

import anyio
from attrs import evolve

from smtpproto.client import Client
from smtpproto.core.command import Data, Mail, Rcpt, Rset
from smtpproto.core.envelope import Envelope
from smtpproto.core.errors import LocalProtocolError, RemoteProtocolError
from smtpproto.core.event import Content, EndOfContent
from smtpproto.core.reply import Reply, Severity
from smtpproto.core.state import State
from smtpproto.deadline import DeadlineError
from smtpproto.handler import ContentError, ContentStream, Session
from smtpproto.result import ClientError, ConnectError
from smtpproto.stream import StreamLostError
from smtpproto.trace import MAX_HOPS, HeaderScan, stamp

__all__ = ["Forward", "NextHop"]

log = logging.getLogger(__name__)

UNREACHABLE = Reply(451, "4.4.1", "The next hop does not answer, try again later")
UNWILLING = Reply(451, "4.3.5", "The next hop does not take mail from here, try again later")
LOST = Reply(451, "4.4.2", "The connection to the next hop was lost, try again later")
LOOP = Reply(554, "5.4.6", "Too many hops; this message is in a loop")
NO_BINARY = Reply(554, "5.6.1", "The next hop takes no binary content")
NO_EIGHT_BIT = Reply(554, "5.6.3", "The next hop takes no 8-bit content")
UNSPEAKABLE = Reply(555, "5.5.4", "The next hop cannot be asked that")
NO_UTF8 = Reply(550, "5.6.7", "The next hop takes no UTF-8 in addresses")

#: What a message can do without where it is not offered: it only tells something of the message.
_DISPENSABLE = frozenset({"SIZE", "BODY", "AUTH"})

_BROKEN = (
    StreamLostError,
    DeadlineError,
    RemoteProtocolError,
    LocalProtocolError,
    ClientError,
)


class NextHop(Client):
    """A client that goes through a transaction in steps, each with a reply to wait for.

    Options and errors of entering are `Client`'s. The steps raise StreamLostError, DeadlineError,
    RemoteProtocolError and ClientError; after that the session is of no use.
    """

    async def mail(self, command: Mail) -> Reply:
        """Begin a transaction; parameters that are not offered are left out or refuse it."""
        session = self._session
        with session.clock:
            if session.connection.state is not State.READY:
                self._require("RSET", await session.ask(Rset(), "ehlo"))
            return await self._say(command, "mail")

    async def rcpt(self, command: Rcpt) -> Reply:
        """Add a recipient."""
        with self._session.clock:
            return await self._say(command, "rcpt")

    async def content(self, chunks: AsyncIterable[bytes]) -> Reply:
        """Send the content as it comes; return the reply to DATA, or to the final dot.

        What `chunks` raises is passed on: the content was not ended then, so nothing of it was
        accepted, and the session is of no use.
        """
        session = self._session
        with session.clock:
            reply = await session.ask(Data(), "data")
            if reply.severity is not Severity.INTERMEDIATE:
                return reply
            eight_bit = "8BITMIME" in self.offered
            session.clock.within("session")  # the next chunk is somebody else's time
            async for chunk in chunks:
                if not eight_bit and not chunk.isascii():
                    raise ContentError(NO_EIGHT_BIT)
                session.put(Content(chunk))
                await session.flush("block")
                session.clock.within("session")
            session.put(EndOfContent())
            return await session.reply("final_dot")

    async def drop(self) -> None:
        """Close without a word."""
        await self._session.aclose("dropped")

    async def _say(self, command: Mail | Rcpt, name: str) -> Reply:
        fitting = self._fit(command)
        if isinstance(fitting, Reply):
            return fitting
        try:
            return await self._session.ask(fitting, name)
        except LocalProtocolError:
            if not self.usable:
                raise
            return UNSPEAKABLE

    def _fit(self, command: Mail | Rcpt) -> Mail | Rcpt | Reply:
        """Return the command without what is not offered; the refusal if it needs that."""
        offered = {
            parameter.keyword
            for extension in self.extensions
            if extension.keyword in self.offered
            for parameter in (extension.mail if isinstance(command, Mail) else extension.rcpt)
        }
        lacking = command.parameters.keys() - offered
        if (command.parameters.get("BODY") or b"").upper() == b"BINARYMIME":
            return NO_BINARY  # it would have to go by BDAT
        if "SMTPUTF8" in lacking:
            return NO_UTF8
        if needed := sorted(lacking - _DISPENSABLE):
            return Reply(555, "5.5.4", f"The next hop does not take {' '.join(needed)}")
        if not lacking:
            return command
        left = {k: v for k, v in command.parameters.items() if k not in lacking}
        return evolve(command, parameters=left)


class Forward:
    """Hands mail to another server while the client waits, and answers what that one says.

    `next_hop` makes the client for it: a session there for each session here that has mail,
    opened at its first MAIL and closed with it. Recipients are answered one by one, content streams
    through, and nothing is accepted here before it has been there. Where the next hop cannot be
    reached, is lost or closes, the answer is 451. Received is written in front, `hostname` is our
    name in it, and a message with 100 of those is refused as looping (RFC 5321 §6.3).
    """

    def __init__(
        self,
        next_hop: Callable[[], NextHop],
        *,
        hostname: str = "localhost",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._next_hop = next_hop
        self._hostname = hostname
        self._now = now
        self._hops: dict[int, NextHop] = {}

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        """Ask the next hop about a sender."""
        hop = self._hops.get(session.id)
        if hop is not None and hop.usable:
            reply = await self._step(session, hop.mail(command))
            if reply is not LOST:  # it went meanwhile, and has begun nothing
                return reply
        await self._drop(session)
        hop = self._next_hop()
        try:
            await hop.__aenter__()
        except ClientError as error:
            log.warning("no next hop for session %d: %s", session.id, error)
            return UNREACHABLE if isinstance(error, ConnectError) else UNWILLING
        self._hops[session.id] = hop
        return await self._step(session, hop.mail(command))

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        """Ask the next hop about a recipient."""
        hop = self._hops.get(session.id)
        return LOST if hop is None else await self._step(session, hop.rcpt(command))

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        """Pass the content on, and return what the next hop makes of it."""
        hop = self._hops.get(session.id)
        if hop is None:
            return LOST
        trace = stamp(
            session,
            envelope,
            hostname=self._hostname,
            queue_id=secrets.token_hex(6),
            now=self._now(),
        )
        async with aclosing(_checked(trace, content)) as chunks:
            return await self._step(session, hop.content(chunks))

    async def closed(self, session: Session) -> None:
        """Say goodbye to the session's next hop."""
        hop = self._hops.pop(session.id, None)
        if hop is not None:
            await hop.aclose()

    async def _step(self, session: Session, step: Awaitable[Reply]) -> Reply:
        """Return the next hop's answer as one of ours; what breaks it off ends its session."""
        try:
            reply = await step
        except _BROKEN as error:
            log.warning("the next hop of session %d was lost: %s", session.id, error)
            await self._drop(session)
            return LOST
        except BaseException:  # cancelled, or the content broke off: it must not be ended there
            with anyio.CancelScope(shield=True):
                await self._drop(session)
            raise
        return _ours(reply)

    async def _drop(self, session: Session) -> None:
        hop = self._hops.pop(session.id, None)
        if hop is not None:
            await hop.drop()


async def _checked(trace: bytes, content: ContentStream) -> AsyncGenerator[bytes]:
    yield trace
    scan = HeaderScan()
    async for chunk in content:
        scan.feed(chunk)
        if scan.received >= MAX_HOPS:
            raise ContentError(LOOP)
        yield chunk


def _ours(reply: Reply) -> Reply:
    """Make a reply that was heard one that may be said; the next hop's 421 does not close us."""
    reply = reply.writable()
    return evolve(reply, code=451) if reply.code == 421 else reply
