"""Take all mail, keep none."""

from __future__ import annotations

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.reply import Reply
from smtpproto.handler import ContentStream, Session

__all__ = ["Discard"]


class Discard:
    """Accepts every sender and recipient, reads the content and forgets it."""

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        """Accept any sender."""
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        """Accept any recipient."""
        return None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        """Read it to its end."""
        async for _ in content:
            pass
        return None
