"""What an attempt came to for one recipient: from who tries to who draws conclusions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from attrs import frozen

from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.relay.mailboxes.verp import NO_NOTICE, Notice
from smtpproto.relay.reports.report import Action
from smtpproto.relay.routing.schedule import Schedule
from smtpproto.relay.routing.transport import Discard, OnHold
from smtpproto.relay.spool.seam import Recipient, Successor
from smtpproto.result import Fate

__all__ = ["Attempt", "Done"]


@frozen
class Attempt:
    """What one attempt came to for one recipient.

    `where` is the mailbox or the host that was tried, `reply` its answer, or None and the
    `reason` in words. `remote` is the host whose own answer it is, None where it is ours. With
    `put_off`, wall time in seconds, nothing was tried: the next hop is held until then, or has no
    place `in_line`, of which nobody is told before the message is late.
    `action` is what a success is called in a report of ours; None where the next hop reports; it is
    `unasked` where whoever wants any reports hears of it. `one_host`: the failure is that of one
    host of the domain, and another may do better.
    `becomes` are those that take the place of `alias`, which this one was addressed to. Where that
    is a return path (VERP), `returned` is whose and for whom, and `notice` what the message says.
    `by_rule` is what a rule had done with it instead of an attempt. `schedule` is that of its rule,
    if it has one of its own.
    """

    recipient: Recipient
    fate: Fate
    where: str
    reply: Reply | None = None
    reason: str = ""
    remote: str | None = None
    put_off: float | None = None
    in_line: bool = False
    action: Action | None = None
    unasked: bool = False
    one_host: bool = False
    becomes: tuple[Successor, ...] = ()
    alias: Mailbox | None = None
    returned: tuple[Mailbox, Mailbox] | None = None
    notice: Notice = NO_NOTICE
    by_rule: OnHold | Discard | None = None
    schedule: Schedule | None = None

    @property
    def text(self) -> str:
        """The answer or the reason, on one line."""
        return " ".join(str(self.reply).split()) if self.reply else self.reason


Done: TypeAlias = Callable[[Sequence[Attempt]], Awaitable[None]]
