"""The handing over of one message: MAIL, RCPTs and content, and what becomes of each recipient.

What the server does not offer and this message needs is found before the first command leaves;
the outcome is then the refusal that the server would have had to give. Where it offers PIPELINING
the commands leave in one write, RSET first if something was left over; and the end of the content
leaves with its last octets.

The content goes by BDAT (RFC 3030) instead of DATA where CHUNKING is offered and that pays:

- always, if it is binary: there is no other way (§3);
- if it is one piece: there is no 354 to wait for, and no empty message to send where a server
  says 354 and has accepted nobody (RFC 2920 §3.1);
- if it is more and PIPELINING is offered: nothing is stuffed, a server may refuse in mid-content,
  and content that turns out to be at fault costs RSET and not the session.

Else each piece would cost a round trip of its own. The first chunk waits for the replies to MAIL
and RCPT, as §2 wants it: who pipelines it too has sent the message, and cannot take it back, before
knowing who was refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .core.command import Command, Data, Mail, Rcpt, Rset
from .core.envelope import Envelope
from .core.errors import RemoteProtocolError
from .core.event import Chunk, Content, EndOfContent
from .core.parameter import NO_PARAMETERS
from .core.reply import Reply, Severity
from .core.state import State
from .deadline import DeadlineError
from .extensions.eightbitmime import BODY
from .extensions.size import SIZE_OCTETS
from .extensions.smtputf8 import UTF8
from .observe import ContentProgress
from .result import RefusedError, Transaction
from .session import ClientSession
from .source import CHUNK, Reading
from .stream import StreamLostError

__all__ = ["Handover"]

#: Commands on their way at most: what the replies to them fill must fit the pipe (RFC 2920 §3.1).
WINDOW = 100
#: The same for chunks, each of CHUNK octets.
CHUNKS = 32

# What is asked of every reply: up to Python 3.12 a class of Enum is slow to look into.
_COMPLETION = Severity.COMPLETION

_DEADLINES = {b"RSET": "ehlo", b"MAIL": "mail", b"RCPT": "rcpt", b"DATA": "data"}

NO_ROOM = Reply(552, "5.3.4", "The server takes no message of this size")
NOT_EIGHT_BIT = Reply(554, "5.6.3", "The server takes no 8-bit content")
NOT_BINARY = Reply(554, "5.6.3", "The server takes no binary content")
NO_UTF8_HEADER = Reply(554, "5.6.9", "The server takes no header beyond ASCII")
TOO_MANY = Reply(452, "4.5.3", "The server takes no more recipients at a time")
TOO_MANY_DOMAINS = Reply(452, "4.5.3", "The server takes no more domains in a session")


class Handover:
    """One message for one server, on a session that is usable."""

    def __init__(
        self,
        session: ClientSession,
        envelope: Envelope,
        told: Callable[[int, Reply], None] | None = None,
    ) -> None:
        self._session = session
        self._connection = session.connection
        self._offer = session.offer
        self._envelope = envelope
        self._told = told
        self.transaction = Transaction(envelope)
        #: Numbers of the recipients that are asked for, and of those the server said yes to.
        self._asked: list[int] = []
        self._in_turn = iter(self._asked)  # as they are answered
        self._accepted: list[int] = []
        self._refused = False  # MAIL was
        #: Nothing was heard of the server since this message was begun, but perhaps its farewell.
        self.unheard = True
        self._utf8 = False  # the envelope needs it
        self._octets = 0  # of content, on their way so far

    # Before anything is sent

    @property
    def binary(self) -> bool:
        """Whether the caller says that the content is binary."""
        body = self._envelope.mail.parameters.get("BODY")
        return body is not None and body.upper() == b"BINARYMIME"

    def fits(self, octets: int | None) -> bool:
        """Tell whether content of this size may be sent; if not, all is settled."""
        limit = self._offer.lines.get("SIZE", "")
        known = limit.isdecimal() and len(limit) <= 20  # RFC 1870 §5
        if octets and known and 0 < int(limit) < octets:
            self.transaction.settle(NO_ROOM, local=True)
            return False
        return True

    def _prepare(self, reading: Reading) -> Mail | None:
        """Return the MAIL that this message needs; None where it cannot be sent at all."""
        refusal: Reply | None = None
        eight_bit = "8BITMIME" in self._connection.offered
        if reading.binary and not self._offer.takes_binary:
            refusal = NOT_BINARY
        elif reading.eight_bit and not reading.binary and not eight_bit:
            refusal = NOT_EIGHT_BIT
        elif reading.utf8 and "SMTPUTF8" not in self._offer:
            refusal = NO_UTF8_HEADER
        else:
            refusal = self._objection(self._envelope.mail)
        if refusal is None:
            self._choose()
            if self._asked:
                return self._dressed(reading)
        else:
            self.transaction.settle(refusal, local=True)
        return None

    def _objection(self, command: Mail | Rcpt) -> Reply | None:
        if command.parameters is NO_PARAMETERS and command.serialize().isascii():
            return None
        self._utf8 |= not (command.is_ascii and command.parameters.is_ascii)
        return self._connection.objection(command)

    def _choose(self) -> None:
        """Choose the recipients to ask for: all but those who cannot be."""
        maxima, domains = self._offer.maxima, self._session.domains
        for number, rcpt in enumerate(self._envelope.rcpts):
            refusal = self._objection(rcpt)
            if refusal is None and maxima.rcpt is not None and len(self._asked) >= maxima.rcpt:
                refusal = TOO_MANY
            if refusal is None and maxima.rcpt_domain is not None:
                domain = rcpt.forward_path.mailbox.domain.lower()
                if domain not in domains and len(domains) >= maxima.rcpt_domain:
                    refusal = TOO_MANY_DOMAINS
                else:
                    domains.add(domain)
            if refusal is None:
                self._asked.append(number)
            else:
                self.transaction.heard(number, refusal, local=True)

    def _dressed(self, reading: Reading) -> Mail:
        """Add what the server has to know of this message, and no more."""
        mail, offer = self._envelope.mail, self._offer
        extra: dict[str, bytes | None] = {}
        if reading.octets is not None and "SIZE" in offer:
            extra |= SIZE_OCTETS(reading.octets)
        if reading.binary:
            extra |= BODY("BINARYMIME")
        elif reading.eight_bit is not False and "8BITMIME" in offer:
            extra |= BODY("8BITMIME")
        if (reading.utf8 or self._utf8) and "SMTPUTF8" in offer:
            extra |= UTF8(True)
        missing = {key: value for key, value in extra.items() if key not in mail.parameters}
        return Mail(mail.reverse_path, {**mail.parameters, **missing}) if missing else mail

    def _goes_by_chunks(self, reading: Reading) -> bool:
        if reading.binary:
            return True
        in_one = reading.rest is None and len(reading.head) <= CHUNK
        return "CHUNKING" in self._offer and (in_one or "PIPELINING" in self._offer)

    # The transaction

    async def run(self, reading: Reading) -> None:
        """Hand it over; what becomes of each recipient is in `transaction`.

        What ends the session is raised: RefusedError for a 421, StreamLostError,
        RemoteProtocolError; and LocalProtocolError, or what the source raises, where the content
        is at fault: nothing is delivered then.
        """
        mail = self._prepare(reading)
        if mail is None:
            return
        chunked = self._goes_by_chunks(reading)
        commands: list[Command] = [mail, *(self._envelope.rcpts[n] for n in self._asked)]
        if not chunked:
            commands.append(Data())
        if self._connection.state is not State.READY or self._connection.must_reset:
            commands.insert(0, Rset())
        self._session.transactions += 1
        await self._ask_all(commands)
        if self._connection.state is State.CONTENT:
            # A server may say 354 though it accepted nobody; it gets an empty message, which goes
            # to nobody (RFC 2920 §3.1).
            if self._accepted:
                await self._send_by_data(reading)
            self._session.put(EndOfContent())
            await self._verdict()
        elif chunked and self._accepted:
            await self._send_by_chunks(reading)

    async def _ask_all(self, commands: Sequence[Command]) -> None:
        """Ask as far as it makes sense, and take the replies as they come."""
        session = self._session
        together = WINDOW if "PIPELINING" in self._offer else 1
        for at in range(0, len(commands), together):
            group = commands[at : at + together]
            in_vain = isinstance(group[0], Data) and not self._accepted
            if self._refused or in_vain:
                return
            session.put_group(group)
            for command in group:
                reply = session.reply_at_hand()
                if reply is None:
                    reply = await session.reply_to_come(_DEADLINES[command.verb])
                self._heard(command, reply)

    def _heard(self, command: Command, reply: Reply) -> None:
        """Take the reply to one of the commands."""
        if reply.code == 421:  # to whatever comes, and so to nothing of this (RFC 5321 §3.8)
            raise RefusedError("the session", reply)
        self.unheard = False
        accepts = reply.severity is _COMPLETION
        if isinstance(command, Rcpt):
            number = next(self._in_turn)
            if accepts:
                self._accepted.append(number)
            else:
                self.transaction.heard(number, reply)
        elif isinstance(command, Mail):
            if not accepts:
                self._refused = True
                self.transaction.settle(reply)
        elif isinstance(command, Data):
            if reply.severity is not Severity.INTERMEDIATE:
                self.transaction.settle(reply)
        elif not accepts:
            raise RemoteProtocolError(f"RSET was refused: {reply}")

    async def _send_by_data(self, reading: Reading) -> None:
        """Send all of the content; its last piece waits for the final dot, to share its write."""
        session = self._session
        piece = await self._next(reading)
        while piece:
            following = await self._next(reading)
            session.put(piece)
            if following:
                await session.flush("block")
            self._count(piece.data, reading)
            piece = following

    async def _send_by_chunks(self, reading: Reading) -> None:
        session, connection = self._session, self._connection
        try:
            piece = await self._next(reading)
            while following := await self._next(reading):
                assert piece is not None  # another one follows
                session.put(Chunk(piece.data))
                await session.flush("block")
                self._count(piece.data, reading)
                while connection.owed >= CHUNKS:
                    await self._chunk_reply()
                if not self.transaction.open:
                    await self._chunk_replies()
                    return
                piece = following
            last = piece.data if piece else b""
            # As behind DATA (RFC 5321 §4.1.1.4); the CR of its LF may be in the piece before.
            if last and not reading.binary and not last.endswith(b"\n"):
                last += b"\r\n"
            session.put(Chunk(last, last=True))
        except _UnfitError:
            await self._chunk_replies()
            return
        except (StreamLostError, DeadlineError, RemoteProtocolError, RefusedError):
            raise
        except Exception:
            await self._chunk_replies()  # the content is at fault, not the session: RSET will do
            raise
        self._count(last, reading)
        await self._verdict()

    async def _chunk_replies(self) -> None:
        while self._connection.owed:
            await self._chunk_reply()

    async def _chunk_reply(self) -> None:
        reply = await self._session.reply("block")
        if reply.severity is not _COMPLETION:
            self.transaction.settle(reply)
        if reply.code == 421:
            raise RefusedError("the session", reply)

    async def _verdict(self) -> None:
        """Take the reply to the end of the content: in LMTP one for each (RFC 2033 §4.2)."""
        # In LMTP whatever is not answered then has failed for now (RFC 2033 §5).
        self.transaction.end_sent = bool(self._accepted) and not self._connection.lmtp
        await self._session.flush("block")
        while self._connection.owed > 1:  # to the chunks before
            await self._chunk_reply()
        for number in self._accepted if self._connection.lmtp else (None,):
            reply = await self._session.reply("final_dot")
            if reply.code == 421:
                raise RefusedError("the session", reply)
            if number is None:
                self.transaction.settle(reply)
            else:
                self.transaction.decide(number, reply)
                if self._told is not None:
                    self._told(number, reply)

    async def _next(self, reading: Reading) -> Content | None:
        if reading.rest is None:
            return reading.piece()
        self._session.clock.within("session")
        piece = await reading.next_piece()
        unasked = reading.eight_bit is not False and not reading.binary
        asked_for = "8BITMIME" in self._connection.offered
        if piece and unasked and not asked_for and not piece.data.isascii():
            self.transaction.settle(NOT_EIGHT_BIT, local=True)
            raise _UnfitError("8-bit content for a server that takes none")
        return piece

    def _count(self, piece: bytes, reading: Reading) -> None:
        if self._session.observed:
            self._octets += len(piece)
            self._session.tell(ContentProgress(self._octets, reading.octets))


class _UnfitError(StreamLostError):
    """The content needs what the server does not offer, and DATA knows no way back."""
