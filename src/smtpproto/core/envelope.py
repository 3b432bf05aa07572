"""What a transaction gathers before its content (RFC 5321 §2.3.1)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeAlias, TypeVar

from attrs import evolve, field, frozen

from .command import Mail, Rcpt
from .errors import LocalProtocolError
from .path import ForwardPath, Mailbox, ReversePath
from .value import taker

__all__ = ["Envelope", "take_envelope"]

C = TypeVar("C", Mail, Rcpt)
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


def _without(command: C, keywords: Collection[str]) -> C:
    there = command.parameters
    kept = {keyword: value for keyword, value in there.items() if keyword not in keywords}
    return command if len(kept) == len(there) else evolve(command, parameters=kept)


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
    def keywords(self) -> frozenset[str]:
        """Of the parameters that its commands have."""
        return frozenset(self.mail.parameters).union(*(rcpt.parameters for rcpt in self.rcpts))

    def without(self, keywords: Collection[str]) -> Envelope:
        """Return it without the parameters of these keywords."""
        return Envelope(
            _without(self.mail, keywords), [_without(rcpt, keywords) for rcpt in self.rcpts]
        )

    @property
    def forward_paths(self) -> tuple[ForwardPath, ...]:
        """Where it goes, as each RCPT said, in their order."""
        return tuple(rcpt.forward_path for rcpt in self.rcpts)


take_envelope = taker(Envelope, "mail", "rcpts")
