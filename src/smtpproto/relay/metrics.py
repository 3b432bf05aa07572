"""Numbers of a relay for Prometheus; needs the extra `metrics` (prometheus-client).

No label has a value that strangers could make up: no address, no domain, no reply.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from .relay import Relay
from .reports.story import (
    Accepted,
    Bounced,
    Deferred,
    Delivered,
    Discarded,
    Event,
    Expanded,
    Failed,
    Held,
    Judged,
    Reported,
)
from .spool.seam import Tally, made_at

__all__ = ["CONTENT_TYPE", "Metrics", "Tallied", "joined"]

#: What `Metrics.text` is, for HTTP.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Seconds from 250 to delivery: from at once to the five days after which mail comes back.
SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 1800, 3600, 4 * 3600, 86_400, 5 * 86_400)

_FINDING = re.compile(r"([\w.-]{1,64})=(\w{1,16})")


class Tallied(Protocol):
    """A spool that can be counted."""

    async def tally(self) -> Tally:
        """Count what is there; SpoolUnavailable as any method of a spool."""
        ...


class Metrics:
    """Counts events (`observe`), and looks at the relay when it is asked (`text`).

    Together they make a relay's numbers, in a registry of their own. `clock` gives wall time in
    seconds since the epoch. For how long a message took, its id tells when it came.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._accepted = self._counter("messages_accepted", "Messages that came in")
        self._octets = self._counter("octets_accepted", "Octets of their content")
        self._outcomes = Counter(
            "smtpproto_recipients",
            "What became of recipients; one that is deferred is counted each time",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in _OUTCOMES.values():
            self._outcomes.labels(outcome)  # they are there from the start, with 0
        self._reports = self._counter("reports", "Reports to senders")
        self._findings = Counter(
            "smtpproto_filter_findings",
            "What filters found",
            ["filter", "stage", "found"],
            registry=self.registry,
        )
        self._took = Histogram(
            "smtpproto_delivery_seconds",
            "From the arrival of a message to the delivery to a recipient",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._messages = self._gauge("queue_messages", "Messages in the queue")
        self._recipients = self._gauge("queue_recipients", "Recipients in the queue")
        self._held = self._gauge("queue_recipients_held", "Recipients the operator has to release")
        self._oldest = self._gauge("queue_oldest_seconds", "Age of the oldest message; 0: none")
        self._in = self._gauge("sessions_in", "Clients that are connected")
        self._out = self._gauge("sessions_out", "Connections with next hops")
        self._hops = self._gauge("next_hops_held", "Next hops that are left alone for a while")

    def _counter(self, name: str, about: str) -> Counter:
        return Counter(f"smtpproto_{name}", about, registry=self.registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(f"smtpproto_{name}", about, registry=self.registry)

    def observe(self, event: Event) -> None:
        """Count an event."""
        outcome = _OUTCOMES.get(type(event))
        if outcome is not None:
            self._outcomes.labels(outcome).inc()
        match event:
            case Accepted():
                self._accepted.inc()
                self._octets.inc(event.octets)
            case Judged():
                if (found := _FINDING.match(event.said)) is not None:
                    self._findings.labels(found[1], event.stage, found[2]).inc()
            case Delivered():
                if (arrived := made_at(event.id)) is not None:
                    self._took.observe(max(self._clock() - arrived, 0.0))
            case Reported():
                if event.report:
                    self._reports.inc()
            case _:
                pass

    async def text(self, relay: Relay, spool: Tallied) -> bytes:
        """Return all numbers as they are now, in Prometheus' text format (CONTENT_TYPE).

        SpoolUnavailable if the spool cannot be counted.
        """
        tally = await spool.tally()
        self._messages.set(tally.messages)
        self._recipients.set(tally.recipients)
        self._held.set(tally.held)
        age = 0.0 if tally.oldest is None else max(self._clock() - tally.oldest, 0.0)
        self._oldest.set(age)
        self._in.set(relay.sessions_in)
        self._out.set(relay.sessions_out)
        self._hops.set(relay.hops.holding())
        return generate_latest(self.registry)


def joined(texts: Sequence[bytes]) -> bytes:
    """Return the numbers of several relays (`Metrics.text`) as those of one.

    They are added up. But the oldest message is the oldest of all, next hops are left alone by
    several of them at once, and counting began when the first one began.
    """
    families: dict[str, Metric] = {}
    samples: dict[tuple[Hashable, ...], Sample] = {}
    for text in texts:
        for family in text_string_to_metric_families(text.decode()):
            families.setdefault(family.name, family)
            usual = min if family.name.endswith("_created") else sum
            merge = _MERGED.get(family.name, usual)
            for sample in family.samples:
                key = (family.name, sample.name, *sorted(sample.labels.items()))
                old = samples.get(key)
                value = sample.value if old is None else merge([old.value, sample.value])
                samples[key] = sample._replace(value=value)
    for family in families.values():
        family.samples = [each for key, each in samples.items() if key[0] == family.name]
    return generate_latest(_Families(list(families.values())))


#: What is not the sum of its parts.
_MERGED: Mapping[str, Callable[[Iterable[float]], float]] = {
    "smtpproto_queue_oldest_seconds": max,
    "smtpproto_next_hops_held": max,  # they find out about the same ones
}


class _Families(CollectorRegistry):
    """Metrics that have been collected elsewhere."""

    def __init__(self, families: Sequence[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


_OUTCOMES: dict[type[Event], str] = {
    Delivered: "delivered",
    Deferred: "deferred",
    Expanded: "expanded",
    Held: "held",
    Discarded: "discarded",
    Failed: "failed",
    Bounced: "bounced",
}
