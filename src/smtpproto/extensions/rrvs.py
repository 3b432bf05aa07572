"""RRVS (RFC 7293): deliver only if the mailbox has not changed hands since then."""

from __future__ import annotations

import enum
from datetime import datetime

from attrs import frozen

from smtpproto.core.errors import GrammarError
from smtpproto.core.extension import Extension
from smtpproto.core.parameter import Parameter

from .values import read_date_time, write_date_time

__all__ = ["RRVS", "VALID_SINCE", "NoSupport", "ValidSince"]


class NoSupport(enum.Enum):
    """What to do where the next server does not know RRVS (§3.1)."""

    REJECT = "R"
    CONTINUE = "C"


@frozen
class ValidSince:
    """The recipient's mailbox has had one owner since `moment`, an aware datetime.

    `no_support` is None where nothing was said, which means REJECT; it is passed on as it came
    (§5.1.1).
    """

    moment: datetime
    no_support: NoSupport | None = None


def _read(value: bytes | None) -> ValidSince:
    # rrvs-param = "RRVS=" date-time [ ";" ( "C" / "R" ) ], without time-secfrac (§3.1)
    moment, separator, action = (value or b"").partition(b";")
    if b"." in moment:
        raise GrammarError("RRVS takes whole seconds")
    try:
        no_support = NoSupport(action.decode().upper()) if separator else None
    except ValueError:
        raise GrammarError("RRVS takes a date and time, then ;C or ;R or nothing") from None
    return ValidSince(read_date_time(moment), no_support)


def _write(since: ValidSince) -> bytes:
    action = f";{since.no_support.value}" if since.no_support else ""
    return write_date_time(since.moment) + action.encode()


VALID_SINCE: Parameter[ValidSince] = Parameter("RRVS", _read, _write, octets=33)

RRVS = Extension(
    "RRVS",
    rfc=7293,
    rcpt=(VALID_SINCE,),
    obliges="refuse what is for a former owner, and pass the condition on",
)
