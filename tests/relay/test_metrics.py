"""Numbers of a relay: what is counted, and that strangers make up no label."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest

from smtpproto.core.path import ForwardPath, ReversePath
from smtpproto.relay.metrics import Metrics, joined
from smtpproto.relay.reports.story import Accepted, Delivered, Judged, Reported
from smtpproto.relay.spool.seam import ID_RANDOM, made_at, new_id

BOB = ForwardPath.of("bob@far.example")


@given(st.integers(0, 10**16), st.integers(0, ID_RANDOM - 1))
def test_an_id_tells_when_it_was_made(microseconds: int, random: int) -> None:
    made = made_at(new_id(microseconds / 1_000_000, random))
    assert made == pytest.approx(microseconds / 1_000_000, abs=2e-6)


@pytest.mark.parametrize(
    "id", ["", "short", "x" * 16, "with-a-dash0000", "0" * 14 + "\N{DIGIT ONE}é"]
)
def test_another_spools_id_tells_nothing(id: str) -> None:
    assert made_at(id) is None


def test_how_long_a_message_took_is_known_after_a_restart() -> None:
    metrics = Metrics(clock=lambda: 1000.0)
    metrics.observe(Delivered(new_id(940.0, 7), BOB, "mailbox bob", "250"))
    metrics.observe(Delivered("an id of yours", BOB, "mailbox bob", "250"))
    value = metrics.registry.get_sample_value
    assert value("smtpproto_delivery_seconds_sum") == pytest.approx(60.0)
    assert value("smtpproto_delivery_seconds_count") == 1
    assert value("smtpproto_recipients_total", {"outcome": "delivered"}) == 2


def test_filters_are_counted_by_their_names() -> None:
    metrics = Metrics()
    for said in ("dnsbl=refuse (listed at zen.example)", "dnsbl=refuse (other words)", "?", ""):
        metrics.observe(Judged("", "192.0.2.7", "connect", said))
    labels = {"filter": "dnsbl", "stage": "connect", "found": "refuse"}
    assert metrics.registry.get_sample_value("smtpproto_filter_findings_total", labels) == 2


def test_what_nobody_is_told_is_no_report() -> None:
    metrics = Metrics()
    metrics.observe(Reported("a", "", ReversePath.of("ann@our.example")))
    metrics.observe(Reported("a", "b", ReversePath.of("ann@our.example")))
    assert metrics.registry.get_sample_value("smtpproto_reports_total") == 1


def test_numbers_of_several_are_added_up() -> None:
    """But not ages, and not what all of them know."""
    first, second = Metrics(clock=lambda: 100.0), Metrics(clock=lambda: 100.0)
    for counts, many in (first, 2), (second, 5):
        for _ in range(many):
            counts.observe(Accepted("id", ReversePath(None), (), 10, "client"))
    texts = [
        b"# TYPE smtpproto_queue_oldest_seconds gauge\nsmtpproto_queue_oldest_seconds 7.0\n",
        b"# TYPE smtpproto_queue_oldest_seconds gauge\nsmtpproto_queue_oldest_seconds 3.0\n",
        generate_latest(first.registry),
        generate_latest(second.registry),
    ]
    found = joined(texts).decode()
    assert "\nsmtpproto_messages_accepted_total 7.0\n" in found
    assert "\nsmtpproto_octets_accepted_total 70.0\n" in found
    assert "\nsmtpproto_queue_oldest_seconds 7.0\n" in found
    assert found.count("# TYPE smtpproto_messages_accepted_total counter\n") == 1
    assert joined([found.encode()]).decode() == found
