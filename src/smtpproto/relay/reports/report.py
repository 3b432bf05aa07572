"""Reports: the message that tells a sender what became of theirs.

A report is a multipart/report (RFC 6522) of three parts: words for people, fields for programs
(RFC 3464), and the message in question or its header. It is plain 7-bit text with short lines,
whatever the message was, so every next hop takes it. Where the message is not, only its header
goes back, quoted-printable if need be: RFC 6522 §3 allows that, a message/rfc822 part may not be
encoded (RFC 2046 §5.2.1), and rewriting the message would break what signs it. A message that came
with SMTPUTF8 is message/global, which may be encoded (RFC 6533 §4.4), and goes back whole.

To an address beyond ASCII a report is UTF-8 itself (RFC 6533 §4): who takes mail for it takes that.

The parts are put together here and not by `email.generator`, which would parse the original and
write another one: it must come back octet for octet, however it is built and whatever it costs
to parse.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from datetime import datetime
from textwrap import fill
from typing import Literal, TypeAlias

from attrs import field, frozen

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import ForwardPath, Mailbox, ReversePath, as_domain, as_octets, is_utf8
from smtpproto.core.reply import Reply
from smtpproto.core.status import EnhancedStatus
from smtpproto.extensions.dsn import utf8_in_ascii
from smtpproto.relay.content.header import MAX_LINE
from smtpproto.relay.content.quoted import quoted_printable
from smtpproto.trace import END_OF_HEADER, date_time

__all__ = ["MAX_RETURNED", "Action", "Failure", "failure_report", "is_report_owed"]

#: Octets of a message, or of its header, that a report gives back at most.
MAX_RETURNED = 50 * 1024

Action: TypeAlias = Literal["failed", "delayed", "delivered", "relayed", "expanded"]

# What people read: the subject, and what stands before the recipients and after.
_WORDS: dict[Action, tuple[str, str, str]] = {
    "failed": (
        "Mail could not be delivered",
        "Your message could not be delivered to these recipients:",
        "It will not be tried again. To reach them, send a new message.",
    ),
    "delayed": (
        "Mail is delayed",
        "Your message has not reached these recipients yet:",
        "It is still being tried, and there is nothing you need to do.",
    ),
    "delivered": (
        "Mail was delivered",
        "Your message was delivered to these recipients:",
        "",
    ),
    "relayed": (
        "Mail was passed on",
        "Your message was passed on for these recipients; you may hear no more of it:",
        "",
    ),
    "expanded": (
        "Mail was delivered to a list",
        "Your message was delivered to these addresses, and sent on to those behind them:",
        "",
    ),
}


#: The subject where there is no sender to tell.
ORPHANED = "Mail without a sender could not be delivered"


def _status(value: EnhancedStatus | str) -> EnhancedStatus:
    return EnhancedStatus.of(value)


@frozen
class Failure:
    """What became of a message for one recipient; mostly, that it failed.

    `diagnostic` is the reply that decided it, `remote_mta` the host that gave that reply: None
    where it is our own. `original_recipient` is the value of ORCPT as `type;address`, no longer
    in xtext (RFC 3461 §4.2). `last_attempt` is when it was last tried, `retry_until` when
    a delayed one will be given up.
    """

    recipient: ForwardPath
    action: Action
    status: EnhancedStatus = field(converter=_status)
    diagnostic: Reply | None = None
    remote_mta: str | None = None
    original_recipient: str | None = None
    last_attempt: datetime | None = None
    retry_until: datetime | None = None


def is_report_owed(
    reverse_path: ReversePath, notify: str | bytes | None = None, action: Action = "failed"
) -> bool:
    """Tell whether the sender is to hear of `action` for one recipient.

    Never on the null reverse path: nobody is there to read it, and reports about reports would
    have no end (RFC 5321 §6.1, §4.5.5). Else as the recipient's NOTIFY asks, whose value is
    `notify`; without one, failures and delays are told (RFC 3461 §4.1).
    """
    if reverse_path.mailbox is None:
        return False
    value = "FAILURE,DELAY" if notify is None else as_octets(notify).decode("ascii", "replace")
    asked = {word.strip().upper() for word in value.split(",")}
    return {"failed": "FAILURE", "delayed": "DELAY"}.get(action, "SUCCESS") in asked


_MESSAGE_ID = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>")
_BOUNDARY = re.compile(r"[A-Za-z0-9'()+_,./:=?-]{1,60}")  # without space (RFC 2046 §5.1.1)


def failure_report(
    *,
    hostname: str,
    to: Mailbox,
    failures: Sequence[Failure],
    original: bytes,
    whole: bool,
    arrived: datetime,
    now: datetime,
    message_id: str,
    boundary: str,
    envelope_id: str | None = None,
    deliver_by: datetime | None = None,
    release: str | None = None,
    utf8: bool = False,
    orphan: bool = False,
) -> bytes:
    """Return a delivery status notification (RFC 3464), CRLF line ends, 7-bit, lines ≤ 998 octets.

    It goes to `to`, the mailbox of the reverse path, with the null reverse path (RFC 3461 §6.1);
    where that is beyond ASCII, with SMTPUTF8, and is then UTF-8 where need be. With `orphan` the
    message has no sender, and `to` is who looks after such. `hostname` is ours.

    `original` is the message's content; with `whole` False it is a beginning of it only, or only
    the header is wanted (RET=HDRS), and the header is what is returned. So it is, too, for what is
    longer than MAX_RETURNED, is not 7-bit with lines of at most 998 octets between CRLFs, or has
    not failed (RFC 3461 §6.2). With `utf8` it came with SMTPUTF8, and may be more than 7-bit.
    `arrived` is when we accepted the message, `now` the time of this report. `message_id`
    (`<…@…>`) and `boundary` (at most 60 octets, best random) have to be new. `envelope_id` is
    the value of ENVID, no longer in xtext. `deliver_by` is by when the message was wanted
    (RFC 2852 §5), `release` when it was to be sent: `for;60`, `until;…` (RFC 4865 §5.1.2).

    LocalProtocolError if a hostname, message id or boundary is not one or nothing is to be
    reported, ValueError for a time without zone. Whatever octets the original and the replies
    hold cannot do anything: they come out as text.
    """
    domain = as_domain(hostname).decode()
    if _MESSAGE_ID.fullmatch(message_id) is None or len(message_id) > 900:
        raise LocalProtocolError(f"not a message id: {message_id!r}")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise LocalProtocolError(f"not a boundary: {boundary!r}")
    if not failures:
        raise LocalProtocolError("a report needs a recipient to report on")

    wide = not to.is_ascii
    failed = any(failure.action == "failed" for failure in failures)
    parts = [
        _text_part(_words(domain, failures, arrived, orphan=orphan), wide),
        _status_part(
            [
                ("Original-Envelope-Id", None if envelope_id is None else _plain(envelope_id)),
                ("Reporting-MTA", f"{_mta_type(domain)}; {domain}"),
                ("Arrival-Date", date_time(arrived)),
                ("Deliver-By-Date", None if deliver_by is None else date_time(deliver_by)),
                ("Future-Release-Request", None if release is None else _plain(release)),
            ],
            failures,
            wide,
        ),
        _returned(original, whole and failed, utf8, wide),
    ]
    subject = ORPHANED if orphan else _WORDS[_gravest(failures)][0]
    replied = _message_id(original)
    delimiter = _unused(boundary, parts)
    header = [
        f"From: Mail Delivery System <MAILER-DAEMON@{domain}>",
        f"To: <{to}>",
        f"Subject: {subject}",
        f"Date: {date_time(now)}",
        f"Message-ID: {message_id}",
        *([f"In-Reply-To: {replied}", f"References: {replied}"] if replied else []),
        "Auto-Submitted: auto-replied",  # RFC 3834 §5.2
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f' boundary="{delimiter}"',
        "",
    ]
    between = f"\r\n--{delimiter}".encode()
    body = b"".join(between + b"\r\n" + part for part in parts)
    return "\r\n".join(header).encode() + body + between + b"--\r\n"


_ORIGINAL_ID = re.compile(
    rb"^message-id[ \t]{0,16}:(?:[ \t]|\r?\n[ \t]){0,16}(<[!-;=?A-~]{1,120}@[!-;=?A-~]{1,120}>)"
    rb"[ \t]{0,16}\r?$",
    re.IGNORECASE | re.MULTILINE,
)


def _message_id(original: bytes) -> str | None:
    """Return the id of the message, so that its report stands beside it (RFC 3834 §3.1.6)."""
    found = _ORIGINAL_ID.search(_header(original))
    return None if found is None else found[1].decode()


def _gravest(failures: Sequence[Failure]) -> Action:
    """Return the action that comes first in _WORDS."""
    there = {failure.action for failure in failures}
    return next(action for action in _WORDS if action in there)


def _unused(boundary: str, parts: Sequence[bytes]) -> str:
    """Return a boundary that begins with `boundary` and stands in no part (RFC 2046 §5.1.1)."""
    everything = b"\n".join(parts)
    if b"--" + boundary.encode() not in everything:
        return boundary
    numbered = (f"{boundary}.{number}" for number in itertools.count())
    return next(each for each in numbered if f"--{each}".encode() not in everything)


# --- the words -------------------------------------------------------------------------------

_MAX_TOLD = 100  # recipients that the words name; the fields have them all


def _words(domain: str, failures: Sequence[Failure], arrived: datetime, *, orphan: bool) -> bytes:
    lines = [f"This is the mail server at {domain}.", ""]
    if orphan:
        lines += ["A message without a sender, most likely a report, has failed.", ""]
    for action, (_, before, after) in _WORDS.items():
        those = [failure for failure in failures if failure.action == action]
        if not those:
            continue
        lines += [before, ""]
        for failure in those[:_MAX_TOLD]:
            lines += [f"  {failure.recipient}", *_reason(failure), ""]
        if len(those) > _MAX_TOLD:
            lines += [f"  and {len(those) - _MAX_TOLD} more, named in the next part.", ""]
        lines += [after, ""] if after else []
    lines += [
        f"We accepted the message on {date_time(arrived)}.",
        "The next part says the same for programs; the message, or its header, follows.",
        "",
    ]
    return "\r\n".join(lines).encode()


def _text_part(words: bytes, wide: bool) -> bytes:
    charset = b"us-ascii" if words.isascii() else b"utf-8"
    return _part(b"text/plain; charset=" + charset, words, wide)


def _reason(failure: Failure) -> list[str]:
    went_well = failure.action not in {"failed", "delayed"}
    if failure.diagnostic is None or (went_well and not failure.remote_mta):
        return []
    who = f"{_plain(failure.remote_mta, 255)} said:" if failure.remote_mta else "The reason:"
    said = " ".join(_reply_lines(failure.diagnostic))
    indent = " " * 6
    return [
        f"    {who}",
        *fill(said, 76, initial_indent=indent, subsequent_indent=indent).split("\n"),
    ]


# --- the fields ------------------------------------------------------------------------------

_Fields: TypeAlias = Sequence[tuple[str, str | None]]  # None: it is left out


def _status_part(of_message: _Fields, failures: Sequence[Failure], wide: bool) -> bytes:
    groups = [
        of_message,
        *(
            _recipient_fields(failure, wide, _MAX_LINES if number < _MAX_TOLD else 1)
            for number, failure in enumerate(failures)
        ),
    ]
    fields = b"\r\n".join(
        "".join(f"{name}: {value}\r\n" for name, value in group if value is not None).encode()
        for group in groups
    )
    if fields.isascii():
        return _part(b"message/delivery-status", fields)
    return _part(b"message/global-delivery-status", fields, True)


def _recipient_fields(failure: Failure, wide: bool, lines: int) -> _Fields:
    until = failure.retry_until if failure.action == "delayed" else None
    last, remote = failure.last_attempt, failure.remote_mta
    original, diagnostic = failure.original_recipient, failure.diagnostic
    # A space before each line but the first (RFC 3461 §9.2), which is just how a field folds.
    reply = None if diagnostic is None else "\r\n ".join(_reply_lines(diagnostic, lines))
    return [
        ("Original-Recipient", None if original is None else _typed(original, wide)),
        ("Final-Recipient", _address(failure.recipient.mailbox, wide)),
        ("Action", failure.action),
        ("Status", str(failure.status)),
        ("Remote-MTA", f"dns; {_plain(remote, 255)}" if remote else None),
        ("Diagnostic-Code", None if reply is None else f"smtp; {reply}"),
        ("Last-Attempt-Date", None if last is None else date_time(last)),
        ("Will-Retry-Until", None if until is None else date_time(until)),
    ]


def _mta_type(name: str) -> str:
    # Only a fully qualified name may say it is one (RFC 3461 §6.3 b).
    return "dns" if "." in name and not name.startswith("[") else "x-local-hostname"


def _address(mailbox: Mailbox, wide: bool) -> str:
    """Write an address with its type, which is utf-8 beyond ASCII (RFC 6533 §3)."""
    return f"rfc822; {mailbox}" if mailbox.is_ascii else _utf8(str(mailbox), wide)


def _utf8(address: str, wide: bool) -> str:
    """Write an address of type utf-8: as it is where UTF-8 may stand, else in ASCII."""
    text = _CONTROL.sub("?", address) if wide else utf8_in_ascii(address)
    return f"utf-8; {text if len(text) <= _MAX_ADDRESS else text[: _MAX_ADDRESS - 3] + '...'}"


def _typed(original_recipient: str, wide: bool) -> str:
    kind, _, address = original_recipient.partition(";")
    if kind.strip().lower() == "utf-8" and address:
        return _utf8(address.strip(), wide)
    kind, semicolon, address = _plain(original_recipient).partition(";")
    if not semicolon:
        return f"unknown; {kind}"  # RFC 3464 §2.3.1
    return f"{kind.strip()}; {address.strip()}"


# --- foreign text ----------------------------------------------------------------------------

_MAX_LINES = 10  # of a reply
_MAX_TEXT = 500  # octets of one foreign text, escapes counted: far below a line's 998
_MAX_ADDRESS = 900  # characters of an address of type utf-8, of which ORCPT has 500 octets
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _plain(text: str | bytes, most: int = _MAX_TEXT) -> str:
    """Show any text as printable US-ASCII on one line: other octets as `\\xNN`, the rest cut."""
    octets = as_octets(text)
    shown = "".join(chr(o) if 0x20 <= o < 0x7F else f"\\x{o:02x}" for o in octets[: most + 1])
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def _reply_lines(reply: Reply, most: int = _MAX_LINES) -> list[str]:
    """Write a reply as it came, but plain, and of bounded length: its end, and what has room."""
    lines = reply.serialize().removesuffix(b"\r\n").split(b"\r\n")
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[-1]]
    return [_plain(line) for line in lines]


# --- what is returned ------------------------------------------------------------------------


def _returned(original: bytes, whole: bool, utf8: bool, wide: bool) -> bytes:
    if whole and len(original) <= MAX_RETURNED:
        if _is_7bit(original):
            return _part(b"message/rfc822", original)
        if utf8:
            return _part(b"message/global", original, wide)
    header = _header(original)
    kind = b"message/global-headers" if utf8 and is_utf8(header) else b"text/rfc822-headers"
    return _part(b"text/rfc822-headers" if header.isascii() else kind, header, wide)


def _part(kind: bytes, octets: bytes, wide: bool = False) -> bytes:
    """Write a part as it is if it is 7-bit, or 8bit and the report is `wide`; else encode it."""
    if _is_7bit(octets):
        return b"Content-Type: %b\r\n\r\n%b" % (kind, octets)
    encoding = b"quoted-printable"
    if wide and _is_8bit(octets):
        encoding = b"8bit"
    else:
        octets = quoted_printable(octets)
    return b"Content-Type: %b\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (
        kind,
        encoding,
        octets,
    )


def _is_7bit(octets: bytes) -> bool:
    """Tell whether octets are 7bit data as RFC 2045 §2.7 defines it."""
    return octets.isascii() and _is_8bit(octets)


def _is_8bit(octets: bytes) -> bool:
    """Tell whether octets are 8bit data as RFC 2045 §2.8 defines it."""
    if b"\0" in octets:
        return False
    ends = octets.count(b"\r\n")
    if octets.count(b"\r") != ends or octets.count(b"\n") != ends:
        return False
    return max(map(len, octets.split(b"\r\n"))) <= MAX_LINE


def _header(original: bytes) -> bytes:
    """Return the header of a message, all whole lines of it that MAX_RETURNED has room for."""
    beginning = original[:MAX_RETURNED]
    end = END_OF_HEADER.search(beginning)
    if end is not None:
        return beginning[: end.start()]
    if len(original) <= MAX_RETURNED:
        return original
    return beginning[: beginning.rfind(b"\n") + 1] or beginning
