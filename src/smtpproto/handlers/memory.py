"""Keep mail in memory: for tests."""

from __future__ import annotations

import copy
import email
import email.policy
from email.message import EmailMessage
from functools import cached_property

from attrs import field, frozen

from smtpproto.core.envelope import Envelope
from smtpproto.core.reply import Reply
from smtpproto.handler import ContentStream, Session

from .discard import Discard

__all__ = ["Memory", "Received"]


@frozen
class Received:
    """One message that was accepted.

    `session` is what was known of the client then, `content` what came, with CRLF line ends.
    """

    session: Session
    envelope: Envelope
    content: bytes = field(repr=False)

    @property
    def sender(self) -> str:
        """The address in MAIL; empty for the null reverse-path of bounces."""
        mailbox = self.envelope.reverse_path.mailbox
        return str(mailbox) if mailbox is not None else ""

    @property
    def recipients(self) -> list[str]:
        """The addresses in RCPT that were accepted."""
        return [str(path.mailbox) for path in self.envelope.forward_paths]

    @cached_property
    def message(self) -> EmailMessage:
        """The content with LF line ends, parsed by the email package's default policy."""
        content = self.content.replace(b"\r\n", b"\n")
        return email.message_from_bytes(content, policy=email.policy.default)

    def __str__(self) -> str:
        to = ", ".join(self.recipients)
        subject = self.message["Subject"]
        return f"<{self.sender}> -> {to}: {str(subject)!r}, {len(self.content)} octets"


class Memory(Discard):
    """Keeps each message in `received`, in the order of their final dots.

    Nothing bounds that list but what you clear of it.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        """Keep the message."""
        self.keep(session, envelope, b"".join([chunk async for chunk in content]))
        return None

    def keep(self, session: Session, envelope: Envelope, content: bytes) -> None:
        """Keep a message, with what is known of the client now."""
        self.received.append(Received(copy.copy(session), envelope, content))
