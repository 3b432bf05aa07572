"""Which messages of a queue are meant: the filters of `smtpproto queue`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import wraps
from typing import Any, TypeVar

import click
from attrs import frozen

from smtpproto.relay.spool.seam import Entry, Recipient

from .options import Value
from .shares import Spools
from .values import domain, duration

__all__ = ["Wanted", "confirmed", "selection"]

F = TypeVar("F", bound=Callable[..., Any])


@frozen
class Wanted:
    """What a message has to be; nothing: any. One recipient that fits is enough.

    `older` in seconds. Addresses and domains are compared without regard to case.
    """

    sender: str | None = None
    recipient: str | None = None
    domain: str | None = None
    older: float | None = None
    held: bool = False
    deferred: bool = False

    def __bool__(self) -> bool:
        return self != Wanted()

    def takes(self, entry: Entry, now: float) -> bool:
        """Tell whether this message is meant."""
        if self.sender is not None and not _is(self.sender, str(entry.mail.reverse_path)):
            return False
        if self.older is not None and now - entry.arrived < self.older:
            return False
        return any(map(self._takes, entry.recipients))

    def _takes(self, recipient: Recipient) -> bool:
        to = str(recipient.rcpt.forward_path)
        return (
            (self.recipient is None or _is(self.recipient, to))
            and (self.domain is None or to.lower().endswith(f"@{self.domain}>"))
            and (not self.held or recipient.held)
            and (not self.deferred or (recipient.attempts > 0 and not recipient.held))
        )

    async def among(self, spools: Spools, now: float) -> AsyncIterator[Entry]:
        """Read the messages that are meant, as they come: there may be a million."""
        async for entry in spools.entries():
            if self.takes(entry, now):
                yield entry


def _is(address: str, path: str) -> bool:
    return address.strip("<>").lower() == path.strip("<>").lower()


def selection(command: F) -> F:
    """Add the filters; the command gets them as `wanted`."""

    @wraps(command)
    def filtered(
        *args: Any,
        sender: str | None,
        recipient: str | None,
        to_domain: str | None,
        older: float | None,
        held: bool,
        deferred: bool,
        **kwargs: Any,
    ) -> Any:
        wanted = Wanted(sender, recipient, to_domain, older, held, deferred)
        return command(*args, wanted=wanted, **kwargs)

    options = [
        click.option("--from", "sender", metavar="ADDRESS", help="From this sender; <>: reports."),
        click.option("--to", "recipient", metavar="ADDRESS", help="To this recipient."),
        click.option(
            "--domain",
            "to_domain",
            type=Value("NAME", domain),
            metavar="NAME",
            help="To somebody of this domain.",
        ),
        click.option(
            "--older",
            type=Value("TIME", duration),
            metavar="TIME",
            help='Arrived longer ago than this: "30 min", 4h, 2d.',
        ),
        click.option("--held", is_flag=True, help="On hold until `queue release`."),
        click.option("--deferred", is_flag=True, help="Tried, and to be tried again."),
    ]
    found: Any = filtered
    for option in reversed(options):
        found = option(found)
    return found  # type: ignore[no-any-return]  # as click's own decorators


def confirmed(command: F) -> F:
    """Add --yes."""
    return click.option(
        "--yes", is_flag=True, help="Do not ask, where a filter says which messages."
    )(command)
