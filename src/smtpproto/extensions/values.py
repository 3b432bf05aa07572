"""What the values of several extensions have in common: parameters without one, and dates."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import partial

from smtpproto.core.errors import GrammarError
from smtpproto.core.parameter import Parameter

__all__ = ["flag", "read_date_time", "write_date_time"]

# date-time = full-date "T" full-time (RFC 3339 §5.6; "T" and "Z" in either case)
# time-offset = "Z" / ("+" / "-") time-hour ":" time-minute
_DATE_TIME = re.compile(
    rb"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    rb"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)


def flag(keyword: str, *, octets: int) -> Parameter[bool]:
    """Make a parameter that says all by being there: True, or absent. It takes no value."""
    return Parameter(keyword, partial(_read_flag, keyword), _write_flag, octets=octets)


def _read_flag(keyword: str, value: bytes | None) -> bool:
    if value is not None:
        raise GrammarError(f"{keyword} takes no value")
    return True


def _write_flag(value: bool) -> None:
    if not value:
        raise GrammarError("leave the parameter out to say no")


def read_date_time(octets: bytes) -> datetime:
    """Read a date-time (RFC 3339 §5.6) as an aware datetime; GrammarError 501 5.5.4 else.

    A leap second is read as the second after it, and fractions are cut to microseconds, for
    datetime has no room for more.
    """
    match = _DATE_TIME.fullmatch(octets)
    if match is None:
        raise GrammarError("not a date and time like 2014-04-03T23:01:00Z")
    year, month, day, hour, minute, second = (int(match[n]) for n in range(1, 7))
    offset = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
    if match[8] == b"-":
        offset = -offset
    micro = int((match[7] or b"")[:6].ljust(6, b"0"))
    try:
        # A leap second is the last of a day in UTC (RFC 3339 §5.7).
        clock = timedelta(hours=hour, minutes=minute) - offset
        leap = second == 60 and clock % timedelta(days=1) == timedelta(hours=23, minutes=59)
        zone = timezone(offset) if offset else UTC
        moment = datetime(year, month, day, hour, minute, second - leap, micro, zone)
        return moment + timedelta(seconds=leap)
    except (ValueError, OverflowError):
        raise GrammarError("no such date or time") from None


def write_date_time(value: datetime) -> bytes:
    """Write an aware datetime as RFC 3339 has it, UTC as `Z`; GrammarError if that cannot be."""
    offset = value.utcoffset()
    if offset is None or offset % timedelta(minutes=1):
        raise GrammarError("a date and time needs a time zone, of whole minutes")
    text = value.isoformat()
    return (text if offset else text.removesuffix("+00:00") + "Z").encode()
