"""FUTURERELEASE (RFC 4865): submit now, send later."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from attrs import frozen

from smtpproto.core.command import Command, Mail
from smtpproto.core.errors import GrammarError
from smtpproto.core.extension import Extension
from smtpproto.core.parameter import Parameter
from smtpproto.core.path import as_octets
from smtpproto.core.reply import Reply
from smtpproto.core.value import taken

from .deliverby import BY
from .values import read_date_time, write_date_time

__all__ = ["FUTURERELEASE", "HOLDFOR", "HOLDUNTIL", "TOO_LATE", "Horizon", "futurerelease"]

# future-release-integer = %x31-39 *8DIGIT (§3)
_INTERVAL = re.compile(rb"[1-9][0-9]{0,8}")

BOTH = Reply(501, "5.5.4", "HOLDFOR and HOLDUNTIL exclude each other")
TOO_FAR = Reply(501, "5.5.4", "Held longer than this server holds")
#: To a MAIL that may not be sent before BY is over (§5.2.2).
TOO_LATE = Reply(501, "5.5.4", "Held until BY leaves no time to deliver")


def _read_interval(value: bytes | None) -> int:
    if value is None or _INTERVAL.fullmatch(value) is None:
        raise GrammarError("HOLDFOR takes seconds, 1 to 999999999")
    return int(value)


def _read_until(value: bytes | None) -> datetime:
    # future-release-date-time: a date-time of RFC 3339, normalized to UTC (§3)
    moment = read_date_time(value or b"")
    if moment.utcoffset() != timedelta(0):
        raise GrammarError("HOLDUNTIL takes a time in UTC, like 2014-04-03T23:01:00Z")
    return moment


def _write_until(moment: datetime) -> bytes:
    if moment.utcoffset() is None:
        raise GrammarError("HOLDUNTIL needs a time zone")
    try:
        return write_date_time(moment.astimezone(UTC))
    except OverflowError:
        raise GrammarError("HOLDUNTIL is out of range") from None


#: Seconds.
HOLDFOR: Parameter[int] = Parameter("HOLDFOR", _read_interval, lambda n: b"%d" % n, octets=34)
#: An aware datetime, written in UTC.
HOLDUNTIL: Parameter[datetime] = Parameter("HOLDUNTIL", _read_until, _write_until, octets=34)


@frozen
class Horizon:
    """How far ahead a server holds messages: `interval` seconds, and `until` an aware datetime.

    LocalProtocolError where they cannot be announced.
    """

    interval: int
    until: datetime

    def __attrs_post_init__(self) -> None:
        HOLDFOR(self.interval)
        HOLDUNTIL(self.until)

    @classmethod
    def parse(cls, argument: str) -> Horizon:
        """Read what stands behind FUTURERELEASE in the EHLO reply; GrammarError if it is else."""
        interval, _, until = as_octets(argument).partition(b" ")
        # §3: max-future-release-date-time is any date-time, though said to be in UTC.
        return taken(cls, interval=_read_interval(interval), until=read_date_time(until))

    def serialize(self) -> str:
        """Write what stands behind FUTURERELEASE in the EHLO reply."""
        return f"{self.interval} {_write_until(self.until).decode()}"


def _announced(argument: str) -> Horizon | None:
    try:
        return Horizon.parse(argument)
    except GrammarError:  # a server that does not say, or not so that it can be read
        return None


def _judge(command: Command, offered: Mapping[str, str]) -> Reply | None:
    if not isinstance(command, Mail):
        return None
    interval, until = HOLDFOR.of(command.parameters), HOLDUNTIL.of(command.parameters)
    if interval is not None and until is not None:
        return BOTH
    horizon = _announced(offered["FUTURERELEASE"])
    if horizon is not None and interval is not None and interval > horizon.interval:
        return TOO_FAR
    if horizon is not None and until is not None and until > horizon.until:
        return TOO_FAR
    by = BY.of(command.parameters)
    # A client leaves time behind the hold (§5.2.1). A server has to refuse a hold beyond BY
    # (§5.2.2), and refuses one that ends with it: nothing is delivered in no time.
    # Where HOLDUNTIL meets BY only a clock can tell, and this has none.
    return TOO_LATE if by and interval is not None and interval >= by.seconds else None


def futurerelease(horizon: Horizon | None = None) -> Extension:
    """Make the extension for a submission server that holds as far ahead as `horizon`.

    `until` is a fixed date, so make it anew for each session. Without a horizon it is known and
    cannot be offered, for §4.2 wants one announced.
    """
    return Extension(
        "FUTURERELEASE",
        rfc=4865,
        mail=(HOLDFOR, HOLDUNTIL),
        obliges="serve submission alone, and hold each message until its time",
        announce=lambda _: horizon.serialize() if horizon else None,
        judge=_judge,
    )


FUTURERELEASE = futurerelease()
