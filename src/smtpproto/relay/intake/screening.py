"""Intake behind filters: each stage of a session is shown to them, and what they say is done.

Our own rules come first at every stage: who may not send to somebody is not worth a question, and
no filter learns of recipients that do not exist.
"""

from __future__ import annotations

import logging

from attrs import evolve, field, frozen

from smtpproto.core.command import Ehlo, Helo, Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.reply import Reply
from smtpproto.handler import Session
from smtpproto.relay.filters.chain import Chain, words_of
from smtpproto.relay.filters.held import Held
from smtpproto.relay.filters.seam import Finding, Seen, Stage
from smtpproto.relay.reports.story import Judged, Refused
from smtpproto.trace import without_fields

from .handler import UNAVAILABLE, Handed, Intake, origin_of

__all__ = ["ScreenedIntake"]

log = logging.getLogger(__name__)

#: Octets of a reply's line with room for a message's id beside them (RFC 5321 §4.5.3.1.5).
ROOM = 450


@frozen
class ScreenedIntake(Intake):
    """An Intake that asks filters, too (`filters`)."""

    chain: Chain = field(kw_only=True)
    _known: dict[int, Seen] = field(factory=dict[int, Seen], init=False)

    async def connect(self, session: Session) -> Reply | None:
        """Show a client to the filters; what they refuse is sent away."""
        reply = await self._judge(Stage.CONNECT, session)
        if reply is None or reply.code in (421, 554):
            return reply
        return evolve(reply, code=554 if reply.code >= 500 else 421)

    async def helo(self, session: Session, command: Ehlo | Helo) -> Reply | None:
        """Show the name that a client gives to the filters."""
        self._seen(session).helo = command.name.decode("utf-8", "replace")
        reply = await self._judge(Stage.HELO, session)
        if reply is None or reply.code in (421, 550):
            return reply
        return evolve(reply, code=550 if reply.code >= 500 else 421)

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        """Judge a sender by the rules, and then by the filters."""
        reply = await Intake.mail(self, session, command)
        if reply is not None and reply.code >= 400:
            return reply
        seen = self._seen(session)
        seen.mail, seen.rcpts = command, ()
        return await self._judge(Stage.MAIL, session) or reply

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        """Judge a recipient by the rules, and then by the filters."""
        reply = await Intake.rcpt(self, session, command)
        if reply is not None and reply.code >= 400:
            return reply
        seen = self._seen(session)
        seen.rcpt = command
        reply = await self._judge(Stage.RCPT, session) or reply
        seen.rcpt = None
        if reply is None or reply.code < 400:
            seen.rcpts += (command,)
        return reply

    async def closed(self, session: Session) -> None:
        """Forget a client that has gone."""
        self._known.pop(session.id, None)

    async def _take(self, handed: Handed) -> Reply:
        """Show the content to the filters, if any of them looks at it; keep what they let pass."""
        session, id = handed.session, handed.incoming.id
        seen = self._seen(session)
        seen.id = id
        content = handed.content
        try:
            async with Held() as whole:
                if self.chain.wants(Stage.CONTENT):
                    async for chunk in content:
                        await whole.write(chunk)
                    content = whole.chunks()
                    seen.content = whole
                    reply = await self._judge(Stage.CONTENT, session)
                    if reply is not None:
                        return self._refused(session, handed.envelope, id, reply)
                outcome = self.chain.outcome(seen)
                marked = evolve(
                    handed,
                    head=handed.head + outcome.fields,
                    content=without_fields(content, outcome.removed),
                )
                judged = [self._judged(id, seen, each) for each in seen.findings]
                return await self._keep(marked, held=outcome.quarantine, judged=judged)
        except OSError as error:
            log.error("a message from %s cannot be held: %s", session.peer[0], error)
            return UNAVAILABLE
        finally:
            seen.content, seen.id = None, ""

    def _refused(self, session: Session, envelope: Envelope, id: str, reply: Reply) -> Reply:
        """Say no by a name to ask for: whoever complains has it from his server's report."""
        *others, last = reply.lines
        if len(last) < ROOM:
            reply = evolve(reply, lines=[*others, b"%b (%b)" % (last, id.encode())])
        paths = envelope.reverse_path, envelope.forward_paths
        self.observe(Refused(id, *paths, origin_of(session), str(reply)))
        return reply

    def _seen(self, session: Session) -> Seen:
        seen = self._known.get(session.id)
        if seen is None or seen.session is not session:
            seen = self._known[session.id] = Seen(session, self.clock())
        return seen

    async def _judge(self, stage: Stage, session: Session) -> Reply | None:
        seen = self._seen(session)
        seen.now = self.clock()
        seen.trusted = self.policy.trusts(session)
        no = await self.chain.judge(stage, seen)
        if no is None:
            return None
        before = seen.findings if seen.id else ()  # the whole story of a message that ends here
        for finding in (*before, no.finding):
            self.observe(self._judged(seen.id, seen, finding))
        return no.reply

    def _judged(self, id: str, seen: Seen, finding: Finding) -> Judged:
        return Judged(id, seen.session.peer[0], finding.stage.value, words_of(finding))
