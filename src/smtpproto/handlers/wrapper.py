"""A handler around another one."""

from __future__ import annotations

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.reply import Reply
from smtpproto.handler import ContentStream, Handler, Session

__all__ = ["Wrapper"]


class Wrapper:
    """A handler that does what `handler` does, with all of its powers: override what differs."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        # A power is looked for on the object itself: what is delegated in secret is not seen.
        for name in dir(handler):
            power = getattr(handler, name, None)
            if not name.startswith("_") and callable(power) and not hasattr(type(self), name):
                setattr(self, name, power)

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        """Let the handler judge a sender."""
        return await self.handler.mail(session, command)

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        """Let the handler judge a recipient."""
        return await self.handler.rcpt(session, command)

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        """Let the handler take the content."""
        return await self.handler.content(session, envelope, content)
