"""SRV records in the order in which they are to be tried (RFC 2782, RFC 6186 §3.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice

from smtpproto.client import Tls
from smtpproto.resolve import Srv

__all__ = ["SERVICES", "in_order", "unavailable"]

#: TLS -> service label; TLS from the first octet first (RFC 8314 §3, §5.1).
SERVICES = {Tls.IMPLICIT: "_submissions", Tls.REQUIRED: "_submission"}


def unavailable(records: Sequence[Srv]) -> bool:
    """Whether the domain says that it has no such service (RFC 6186 §3.4)."""
    return bool(records) and all(record.target == "." for record in records)


def in_order(
    records: Mapping[Tls, Sequence[Srv]],
    randint: Callable[[int, int], int],
    most: int | None = None,
) -> list[tuple[Tls, Srv]]:
    """Merge the records of both services; return the first `most`, or all.

    The lowest priority goes first, whichever service it is of (RFC 6186 §3.4); where they are
    equal, TLS from the first octet; then by weight. Targets "." are left out. `randint(a, b)`
    returns a number from a to b, both included.
    """
    there = [
        (record.priority, tls, record)
        for tls in SERVICES
        for record in records.get(tls, ())
        if record.target != "."
    ]
    there.sort(key=lambda each: each[0])  # which leaves the services in their order
    drawn = (
        (tls, record)
        for (_, tls), group in groupby(there, key=lambda each: each[:2])
        for record in _by_weight((each[2] for each in group), randint)
    )
    return list(islice(drawn, most))


def _by_weight(records: Iterable[Srv], randint: Callable[[int, int], int]) -> Iterator[Srv]:
    """Draw one after the other, each as likely as its share of the weights that are left."""
    # Those of weight 0 stand first, so that they are drawn by 0 alone.
    left = sorted(records, key=lambda record: record.weight > 0)
    while left:
        number = randint(0, sum(record.weight for record in left))
        for record in left:
            number -= record.weight
            if number <= 0:
                left.remove(record)
                yield record
                break
