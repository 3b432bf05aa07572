"""What the relay offers its clients beyond what every server of ours does, for it keeps its part.

SMTPUTF8 and BINARYMIME go on where the next hop takes them, and else as `delivery` has it; reports
and times are kept as DSN and DELIVERBY ask, and messages until FUTURERELEASE lets them go. The last
is for submission alone (RFC 4865 §4.2). Not offered: REQUIRETLS, LIMITS, MT-PRIORITY, RRVS, and
ETRN: who has a queue run makes us work, and ours runs by itself.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from smtpproto.core.extension import Extension
from smtpproto.extensions import BINARYMIME, DELIVERBY, DSN, FUTURERELEASE, SMTPUTF8, STANDARD
from smtpproto.extensions.deliverby import deliverby
from smtpproto.extensions.futurerelease import Horizon, futurerelease

__all__ = ["RENEWED_EACH", "offer"]

#: Seconds after which the offer is to be made anew: a time until which messages are held is a date.
RENEWED_EACH = 86_400


def offer(
    *, submission: bool, least_by: int | None, longest_hold: int, now: float
) -> tuple[Extension, ...]:
    """Return what is offered at `now`, in seconds since the epoch.

    BY in mode R is taken from `least_by` seconds up. Messages are held for `longest_hold` seconds
    at most, and as long beyond the date until which this offer is made; 0 holds none.
    """
    kept = {each.keyword: each for each in (DSN, SMTPUTF8, BINARYMIME)}
    kept[DELIVERBY.keyword] = deliverby(least_by)
    if submission and longest_hold:
        until = datetime.fromtimestamp(int(now), UTC)
        until += timedelta(seconds=longest_hold + RENEWED_EACH)
        kept[FUTURERELEASE.keyword] = futurerelease(Horizon(longest_hold, until))
    return tuple(
        kept.get(each.keyword, each)
        for each in STANDARD
        if not each.obliges or each.keyword in kept
    )
