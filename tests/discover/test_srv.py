"""SRV records in their order (RFC 2782)."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.client import Tls
from smtpproto.discover.srv import in_order, unavailable
from smtpproto.resolve import Srv

RECORDS = st.lists(
    st.builds(
        Srv,
        st.integers(0, 3),
        st.integers(0, 3) | st.integers(0, 65_535),
        st.integers(1, 65_535),
        st.sampled_from(["a.example", "b.example", "."]),
    ),
    max_size=12,
)
BOTH = st.fixed_dictionaries({Tls.IMPLICIT: RECORDS, Tls.REQUIRED: RECORDS})


def hosts(found: list[tuple[Tls, Srv]]) -> list[str]:
    return [record.target for _, record in found]


@given(BOTH, st.randoms(use_true_random=False))
def test_it_is_a_permutation_that_goes_by_priority_and_then_by_tls(
    records: dict[Tls, list[Srv]], random: Random
) -> None:
    found = in_order(records, random.randint)
    there = [(tls, r) for tls in records for r in records[tls] if r.target != "."]
    assert Counter(found) == Counter(there)
    keys = [(record.priority, tls is Tls.REQUIRED) for tls, record in found]
    assert keys == sorted(keys)


@given(BOTH, st.integers(0, 5), st.integers())
def test_of_many_the_first_are_enough(records: dict[Tls, list[Srv]], most: int, seed: int) -> None:
    """Each draw looks at all that are left, and a domain may have thousands."""
    asked = 0
    random = Random(seed)

    def randint(low: int, high: int) -> int:
        nonlocal asked
        asked += 1
        return random.randint(low, high)

    found = in_order(records, randint, most)
    assert asked <= most
    assert found == in_order(records, Random(seed).randint)[:most]


@pytest.mark.rfc("6186 §3.4")
def test_a_lower_priority_goes_first_whichever_service_it_is_of() -> None:
    records = {
        Tls.IMPLICIT: [Srv(10, 1, 465, "tls.example")],
        Tls.REQUIRED: [Srv(0, 1, 587, "starttls.example")],
    }
    assert hosts(in_order(records, lambda low, high: low)) == ["starttls.example", "tls.example"]


@pytest.mark.rfc("8314 §5.1")
def test_among_equals_tls_from_the_first_octet_goes_first() -> None:
    records = {
        Tls.REQUIRED: [Srv(0, 100, 587, "starttls.example")],
        Tls.IMPLICIT: [Srv(0, 0, 465, "tls.example")],
    }
    assert hosts(in_order(records, lambda low, high: high)) == ["tls.example", "starttls.example"]


@pytest.mark.parametrize(
    ("numbers", "order"),
    [
        ([0, 0, 0], "zae"),
        ([1, 0, 0], "aze"),
        ([3, 1, 0], "aez"),
        ([4, 0, 0], "eza"),
        ([8, 3, 0], "eaz"),
    ],
)
def test_weights_are_drawn_by_running_sums(numbers: list[int], order: str) -> None:
    """The first whose running sum is not below the number; those of weight 0 in front."""
    records = [Srv(0, 3, 1, "a"), Srv(0, 5, 1, "e"), Srv(0, 0, 1, "z")]
    asked = iter(numbers)
    found = in_order({Tls.IMPLICIT: records}, lambda low, high: min(next(asked), high))
    assert "".join(hosts(found)) == order


def test_the_share_of_each_is_its_weight() -> None:
    records = {Tls.IMPLICIT: [Srv(0, 1, 1, "slow"), Srv(0, 3, 1, "fast")]}
    random = Random(6186)
    first = Counter(hosts(in_order(records, random.randint))[0] for _ in range(5000))
    # A number from 0 to 4, both included: two of five are for the first in the list.
    assert 1800 < first["slow"] < 2200


@pytest.mark.rfc("6186 §3.4")
@given(RECORDS)
def test_a_service_is_unavailable_only_if_nothing_else_is_said(records: list[Srv]) -> None:
    targets = {record.target for record in records}
    assert unavailable(records) == (targets == {"."})
