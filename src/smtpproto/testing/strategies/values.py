"""The typed values of every parameter in STANDARD, and what stands behind the keywords."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import strategies as st

from smtpproto.extensions import (
    AUTH,
    DELIVERBY,
    FUTURERELEASE,
    LIMITS,
    MT_PRIORITY,
    SIZE,
    XCLIENT,
    XFORWARD,
)
from smtpproto.extensions.auth import SUBMITTER, Submitter
from smtpproto.extensions.deliverby import BY, ByMode, DeliverBy
from smtpproto.extensions.dsn import ENVID, NOTIFY, ORCPT, RET, Notify, OriginalRecipient, Ret
from smtpproto.extensions.eightbitmime import BODY
from smtpproto.extensions.futurerelease import HOLDFOR, HOLDUNTIL, Horizon
from smtpproto.extensions.limits import Maxima
from smtpproto.extensions.mt_priority import PRIORITY
from smtpproto.extensions.requiretls import REQUIRE_TLS
from smtpproto.extensions.rrvs import VALID_SINCE, NoSupport, ValidSince
from smtpproto.extensions.size import SIZE_OCTETS
from smtpproto.extensions.smtputf8 import UTF8
from smtpproto.extensions.xclient import XClient
from smtpproto.extensions.xforward import XForward
from smtpproto.mechanisms import STANDARD as MECHANISMS

from .paths import mailboxes
from .registry import register
from .words import LET_DIG, PRINTABLE, utf8_texts

__all__ = [
    "deliver_bys",
    "horizons",
    "maxima",
    "moments",
    "notifies",
    "original_recipients",
    "submitters",
]


def moments() -> st.SearchStrategy[datetime]:
    """Aware datetimes of whole seconds, with offsets of whole minutes (RFC 3339 §5.6)."""
    zones = st.one_of(
        st.just(UTC),
        st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    )
    # From the year 2 to 9998, so that no zone leads beyond what a date can be.
    seconds = st.integers(-62_100_000_000, 253_300_000_000)
    return st.builds(_moment, seconds, zones)


def _moment(seconds: int, zone: timezone) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).astimezone(zone)


def submitters() -> st.SearchStrategy[Submitter]:
    """Values of AUTH= on MAIL (RFC 4954 §5)."""
    return st.builds(Submitter, st.one_of(st.none(), mailboxes()))


def notifies() -> st.SearchStrategy[frozenset[Notify]]:
    """Values of NOTIFY (RFC 3461 §4.1); none is NEVER."""
    return st.frozensets(st.sampled_from(Notify))


def original_recipients() -> st.SearchStrategy[OriginalRecipient]:
    """Values of ORCPT (RFC 3461 §4.2, RFC 6533 §3), of several address types."""
    printable = st.text(PRINTABLE + "\t", max_size=20)
    types = st.sampled_from(["rfc822", "x400", "X-Other"])
    unicode = st.one_of(st.text(PRINTABLE, max_size=20), utf8_texts())
    return st.one_of(
        mailboxes(utf8=True).map(OriginalRecipient.of),
        st.builds(OriginalRecipient, types, printable),
        st.builds(OriginalRecipient, st.sampled_from(["utf-8", "UTF-8"]), unicode),
    )


def deliver_bys() -> st.SearchStrategy[DeliverBy]:
    """Values of BY (RFC 2852 §4)."""
    most = 999_999_999
    return st.one_of(
        st.builds(DeliverBy, st.integers(-most, most), st.just(ByMode.NOTIFY), st.booleans()),
        st.builds(DeliverBy, st.integers(1, most), st.just(ByMode.RETURN), st.booleans()),
    )


def horizons() -> st.SearchStrategy[Horizon]:
    """How far ahead servers say that they hold messages (RFC 4865 §4.2)."""
    return st.builds(Horizon, st.integers(1, 999_999_999), moments())


def maxima() -> st.SearchStrategy[Maxima]:
    """What servers announce behind LIMITS (RFC 9422 §3); nothing, perhaps."""
    limit = st.one_of(st.none(), st.integers(1, 999_999))
    return st.builds(Maxima, limit, limit, limit)


def _some(words: list[str]) -> st.SearchStrategy[str]:
    chosen = st.lists(st.sampled_from(words), min_size=1, max_size=len(words), unique=True)
    return chosen.map(" ".join)


register(SIZE_OCTETS, st.one_of(st.integers(0, 10**6), st.integers(0, 10**20 - 1)))
register(BODY, st.sampled_from(["7BIT", "8BITMIME", "BINARYMIME"]))
register(UTF8, st.just(True))
register(SUBMITTER, submitters())
register(RET, st.sampled_from(Ret))
register(ENVID, st.text(PRINTABLE + "\t", min_size=1, max_size=100).map(str.encode))
register(NOTIFY, notifies())
register(ORCPT, original_recipients())
register(BY, deliver_bys())
register(HOLDFOR, st.one_of(st.integers(1, 10_000), st.integers(1, 999_999_999)))
register(HOLDUNTIL, moments())
register(PRIORITY, st.integers(-9, 9))
register(REQUIRE_TLS, st.just(True))
register(
    VALID_SINCE, st.builds(ValidSince, moments(), st.one_of(st.none(), st.sampled_from(NoSupport)))
)

register(SIZE, st.one_of(st.sampled_from(["", "0"]), st.integers(1, 10**20 - 1).map(str)))
register(AUTH, _some([mechanism.name for mechanism in MECHANISMS]))
register(DELIVERBY, st.one_of(st.sampled_from(["", "0", ",X"]), st.integers(1, 10**9 - 1).map(str)))
register(FUTURERELEASE, horizons().map(Horizon.serialize))
register(MT_PRIORITY, st.one_of(st.just(""), st.text(LET_DIG + "-_.", min_size=1, max_size=20)))
register(LIMITS, maxima().map(Maxima.serialize))
register(XCLIENT, _some([*XClient.rules]))
register(XFORWARD, _some([*XForward.rules]))
