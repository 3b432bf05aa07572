"""What a transaction gathers before its content (RFC 5321 §2.3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from attrs import field, frozen

from .command import Mail, Rcpt
from .errors import LocalProtocolError
from .path import ForwardPath, Mailbox, ReversePath
from .value import taker

__all__ = ["Envelope", "take_envelope"]

AnySender: TypeAlias = "Mail | ReversePath | Mailbox | str | bytes | None"
AnyRecipient: TypeAlias = "Rcpt | ForwardPath | Mailbox | str | bytes"


def _mail(value: AnySender) -> Mail:
    return value if isinstance(value, Mail) else Mail(value)


def _rcpts(values: AnyRecipient | Iterable[AnyRecipient]) -> tuple[Rcpt, ...]:
    if isinstance(values, (Rcpt, ForwardPath, Mailbox, str, bytes)):
        values = (values,)
    rcpts = tuple(value if isinstance(value, Rcpt) else Rcpt(value) for value in values)
    if not rcpts:
        raise LocalProtocolError("an envelope needs a recipient")
    return rcpts


@frozen
class Envelope:
    """The accepted MAIL and RCPT commands of one message, with their parameters.

    Takes addresses as text, too: `Envelope("a@example.org", ["b@example.net"])`; the sender
    None is the null reverse-path. LocalProtocolError for what is no address, or no recipients.
    """

    mail: Mail = field(converter=_mail)
    rcpts: tuple[Rcpt, ...] = field(converter=_rcpts)

    @property
    def reverse_path(self) -> ReversePath:
        """Where reports about it go, as MAIL said."""
        return self.mail.reverse_path

    @property
    def forward_paths(self) -> tuple[ForwardPath, ...]:
        """Where it goes, as each RCPT said, in their order."""
        return tuple(rcpt.forward_path for rcpt in self.rcpts)


take_envelope = taker(Envelope, "mail", "rcpts")
