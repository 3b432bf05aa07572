"""What happens to a message, as values: for logs, pages and tests.

A relay tells its story to one callable, `observe(event)`, as it happens. Every event names the
message by its spool id.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Literal, ParamSpec, TypeAlias

from attrs import frozen

from smtpproto.core.path import ForwardPath, Mailbox, ReversePath
from smtpproto.core.status import EnhancedStatus

__all__ = [
    "Accepted",
    "Bounced",
    "Deferred",
    "Delivered",
    "Discarded",
    "Event",
    "Expanded",
    "Failed",
    "Held",
    "Intervened",
    "Judged",
    "Observer",
    "Refused",
    "Reported",
    "harmless",
    "ignore",
]

log = logging.getLogger(__name__)

P = ParamSpec("P")


@frozen
class Accepted:
    """A message is in the spool. `origin` says who handed it in."""

    id: str
    reverse_path: ReversePath
    forward_paths: tuple[ForwardPath, ...]
    octets: int
    origin: str


@frozen
class Judged:
    """What a filter found at a `stage`, of a client at the address `peer`: `rspamd=tag (...)`.

    `id` is empty where no message came of it.
    """

    id: str
    peer: str
    stage: str
    said: str


@frozen
class Refused:
    """A message has come whole, and is not taken, by what a filter said of it.

    `origin` says who handed it in, `reply` is what he heard.
    """

    id: str
    reverse_path: ReversePath
    forward_paths: tuple[ForwardPath, ...]
    origin: str
    reply: str


@frozen
class Delivered:
    """A recipient's part is done: `where` is the mailbox or the next hop, `reply` its answer."""

    id: str
    forward_path: ForwardPath
    where: str
    reply: str


@frozen
class Deferred:
    """An attempt failed for now; the next is due in `wait` seconds."""

    id: str
    forward_path: ForwardPath
    where: str
    reply: str
    wait: float


@frozen
class Expanded:
    """A recipient is an alias, and `becomes` are in its place now."""

    id: str
    forward_path: ForwardPath
    becomes: tuple[ForwardPath, ...]


@frozen
class Held:
    """A recipient is on hold by a rule, and stays in the queue; `reason` is the rule's."""

    id: str
    forward_path: ForwardPath
    reason: str


@frozen
class Discarded:
    """A recipient's part is thrown away by a rule, and nobody else hears of it."""

    id: str
    forward_path: ForwardPath
    reason: str


@frozen
class Bounced:
    """A report came to the return path that `sender` has for `recipient` (VERP); it goes to him.

    `action` and `status` are what it says of itself, such as "failed" and 5.1.1; an automatic
    answer that is no report says nothing. Anybody may write there: believe it as you would mail.
    """

    id: str
    forward_path: ForwardPath
    sender: Mailbox
    recipient: Mailbox
    action: str | None
    status: EnhancedStatus | None


@frozen
class Failed:
    """A recipient is given up; `reply` is what decided it."""

    id: str
    forward_path: ForwardPath
    where: str
    reply: str


@frozen
class Reported:
    """The sender of `id` is told what became of it by the new message `report`.

    `report` is empty where something failed and nobody may be told, or wants to be. Of what has no
    sender it may go to `postmaster`, if there is one.
    """

    id: str
    report: str
    reverse_path: ReversePath
    postmaster: Mailbox | None = None


@frozen
class Intervened:
    """The operator has put a message on hold, let it go, had it tried at once, or deleted it.

    `reason` says why he holds it. It is told by him who does it, not by the relay.
    """

    id: str
    did: Literal["hold", "release", "retry", "delete"]
    reason: str = ""


Event: TypeAlias = (
    Accepted
    | Intervened
    | Judged
    | Refused
    | Bounced
    | Expanded
    | Delivered
    | Deferred
    | Held
    | Discarded
    | Failed
    | Reported
)
Observer: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The observer that does not care."""


def harmless(told: Callable[P, None]) -> Callable[P, None]:
    """Wrap an observer so that what it raises is logged, and does nothing to the mail.

    Otherwise a full disk under a log would make us refuse what we have, or send it twice.
    """

    @wraps(told)
    def tell(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            told(*args, **kwargs)
        except Exception:
            log.exception("an observer failed")

    return tell
