"""What follows from an attempt: when to try again, and what the sender is to be told.

Pure: attempts and a time in, values out. RFC 3461 §5.2 says who hears what; `dispatch.py` writes it
down, and puts the reports into the spool.
"""

from __future__ import annotations

from datetime import UTC, datetime

from attrs import field, frozen

from smtpproto.core.errors import GrammarError
from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.core.status import EnhancedStatus
from smtpproto.extensions.dsn import ENVID, ORCPT, RET, Ret
from smtpproto.relay.reports.report import Action, Failure, is_report_owed
from smtpproto.relay.reports.story import (
    Bounced,
    Deferred,
    Delivered,
    Discarded,
    Expanded,
    Failed,
    Held,
)
from smtpproto.relay.routing.schedule import Schedule, next_attempt
from smtpproto.relay.routing.transport import Discard, OnHold, folded
from smtpproto.relay.spool.seam import Entry, Recipient, Settlement
from smtpproto.result import Fate

from .attempt import Attempt
from .times import Times

__all__ = ["Verdict", "envelope_id", "judge", "whole_wanted"]

EXPIRED = EnhancedStatus(5, 4, 7)  # delivery time expired (RFC 3463 §3.5)
DELAYED = EnhancedStatus(4, 4, 7)
UNEXPLAINED = EnhancedStatus(5, 0, 0)
SUCCEEDED = EnhancedStatus(2, 1, 5)

#: In how many seconds what is on hold is looked at again: the rule may be gone.
LOOK_AGAIN = 3600.0


@frozen
class Verdict:
    """What is to be written down of one recipient, and told of it.

    `report` is what its sender is owed, if anything; where there is none, what the postmaster is to
    be told. A verdict that `waits` is one of failure or
    delay: it is written down with the others at the end of the attempt, so that one report can
    tell of them all.
    """

    settlement: Settlement
    event: Bounced | Expanded | Delivered | Deferred | Held | Discarded | Failed | None
    report: Failure | None = None
    waits: bool = field(default=False)


def judge(
    entry: Entry,
    attempt: Attempt,
    *,
    now: float,
    jitter: float,
    schedule: Schedule,
    postmaster: Mailbox | None = None,
) -> Verdict:
    """Return what follows from one attempt at `now`; `jitter` is a random number in [0, 1).

    `postmaster` is told what failed of mail without a sender, None: nobody is.
    """
    recipient, path, text = attempt.recipient, attempt.recipient.rcpt.forward_path, attempt.text
    number = recipient.number
    match attempt.by_rule:
        case OnHold():
            return _on_hold(entry, attempt, now, jitter, schedule)
        case Discard():
            return Verdict(Settlement(number, None, text), Discarded(entry.id, path, text))
        case None:
            pass
    if attempt.fate is Fate.ACCEPTED:
        action = attempt.action
        return Verdict(
            Settlement(number, None, text, becomes=attempt.becomes, alias=attempt.alias),
            _success(entry, attempt, text),
            None if action is None else _report(entry, attempt, action, now),
        )
    times = Times.of(entry, schedule)
    wait = _wait(times, attempt, now, jitter, schedule)
    if wait is None:
        return Verdict(
            Settlement(number, None, text),
            Failed(entry.id, path, attempt.where, text),
            _report(entry, attempt, "failed", now, postmaster=postmaster),
            waits=True,
        )
    late = now >= times.late
    report = None
    if text and late and not recipient.warned:
        report = _report(entry, attempt, "delayed", now, times)
    # To have stood in a line is no news before it is late.
    said = bool(text) and (not attempt.in_line or (late and text != recipient.last_reply))
    return Verdict(
        Settlement(
            number,
            now + wait,
            text if said else None,
            counted=attempt.put_off is None,
            warned=report is not None,
        ),
        Deferred(entry.id, path, attempt.where, text, wait) if said else None,
        report,
        waits=report is not None,
    )


def _on_hold(
    entry: Entry, attempt: Attempt, now: float, jitter: float, schedule: Schedule
) -> Verdict:
    """Look again later. By when it was wanted its sender hears of that all the same (RFC 2852)."""
    recipient, text, times = attempt.recipient, attempt.text, Times.of(entry, schedule)
    report = None
    if times.behind(now) and not recipient.warned:
        report = _report(entry, attempt, "delayed", now, times)
    again = now + times.wait(now, LOOK_AGAIN * (1 + schedule.spread * jitter))
    said_before = text == recipient.last_reply
    return Verdict(
        Settlement(recipient.number, again, text, counted=False, warned=report is not None),
        None if said_before else Held(entry.id, recipient.rcpt.forward_path, text),
        report,
        waits=report is not None,
    )


def _success(entry: Entry, attempt: Attempt, text: str) -> Bounced | Expanded | Delivered:
    path, becomes = attempt.recipient.rcpt.forward_path, attempt.becomes
    if attempt.returned is not None:
        sender, who = attempt.returned
        notice = attempt.notice
        return Bounced(entry.id, path, sender, who, notice.action, notice.status)
    if becomes:
        return Expanded(entry.id, path, tuple(new.rcpt.forward_path for new in becomes))
    return Delivered(entry.id, path, attempt.where, text)


def _wait(
    times: Times, attempt: Attempt, now: float, jitter: float, schedule: Schedule
) -> float | None:
    """Return in how many seconds to try again; None: not any more."""
    if attempt.fate is Fate.PERMANENT:
        return None
    age = now - times.begins
    if attempt.put_off is None:
        wait = next_attempt(age, attempt.recipient.attempts + 1, jitter, schedule)
    else:
        left = schedule.lifetime - age
        wait = min(max(attempt.put_off - now, 0.0), left) if left > 0 else None
    return None if wait is None else times.wait(now, wait)


def _report(
    entry: Entry,
    attempt: Attempt,
    action: Action,
    now: float,
    times: Times | None = None,
    *,
    postmaster: Mailbox | None = None,
) -> Failure | None:
    """Say it as a report does, if one is owed, or has a postmaster to read it."""
    parameters = attempt.recipient.rcpt.parameters
    notify = parameters.get("NOTIFY")
    if attempt.unasked and action == "relayed" and (notify or b"").upper() != b"NEVER":
        notify = b"SUCCESS"
    owed = is_report_owed(entry.mail.reverse_path, notify, action)
    if not owed and (
        postmaster is None
        or entry.mail.reverse_path.mailbox is not None
        or _is_for(attempt.recipient, postmaster)  # that would come back to him for ever
    ):
        return None
    reply = attempt.reply or Reply(451, "4.4.1", _printable(attempt.reason))
    given_up = attempt.fate is not Fate.PERMANENT
    behind = times is not None and times.behind(now)  # RFC 2852 §4.1.3 has one for that
    status = {
        "failed": EXPIRED if given_up else reply.status or UNEXPLAINED,
        "delayed": DELAYED if behind or reply.status is None else reply.status,
    }.get(action, SUCCEEDED)
    until = None if times is None else times.ends
    return Failure(
        attempt.recipient.rcpt.forward_path,
        action,
        status,
        diagnostic=reply,
        remote_mta=attempt.remote,
        original_recipient=_original(attempt),
        last_attempt=datetime.fromtimestamp(now, UTC),
        retry_until=None if until is None else _date(until),
    )


def _date(seconds: float) -> datetime | None:
    """Return a time as reports have it; None for one that no calendar has: a very long life."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _is_for(recipient: Recipient, mailbox: Mailbox) -> bool:
    """Tell whether a recipient is this address, or came by it."""
    asked = recipient.alias or recipient.rcpt.forward_path.mailbox
    return folded(asked) == folded(mailbox)


def _original(attempt: Attempt) -> str | None:
    """Read ORCPT; one that nobody can read is not worth a report that is not sent."""
    try:
        original = ORCPT.of(attempt.recipient.rcpt.parameters)
    except GrammarError:
        return None
    return None if original is None else f"{original.addr_type};{original.text}"


def envelope_id(entry: Entry) -> str | None:
    """Return what ENVID said, if it was given and can be read (RFC 3461 §4.4)."""
    try:
        envid = ENVID.of(entry.mail.parameters)
    except GrammarError:
        return None
    return None if envid is None else envid.decode("ascii", "backslashreplace")


def whole_wanted(entry: Entry) -> bool:
    """Tell whether a report of failure may give back more than the header (RFC 3461 §4.3)."""
    try:
        return RET.of(entry.mail.parameters) is not Ret.HDRS
    except GrammarError:
        return True


def _printable(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)[:400]
