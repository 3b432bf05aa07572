"""Where mail goes: local, smart host, literals, MX in all its shapes (RFC 5321 §5.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from random import Random
from typing import Any

import pytest

from smtpproto.core.path import ForwardPath, Mailbox, ReversePath
from smtpproto.relay.routing.route import (
    Host,
    HostPort,
    Local,
    NextHop,
    Route,
    Router,
    Undetermined,
    Unroutable,
)
from smtpproto.relay.routing.table import Routes, RouteTable, Rule, no_routes
from smtpproto.resolve import Mx, NoRecords, NoSuchDomain, ResolveError, ResolveFailed

pytestmark = pytest.mark.anyio

NXDOMAIN, NODATA, SERVFAIL = NoSuchDomain("no"), NoRecords("no"), ResolveFailed("no")


class Zone:
    """A resolver that has its answers from a mapping; what is missing does not exist."""

    def __init__(
        self,
        mx: Mapping[str, Sequence[tuple[int, str]] | ResolveError] | None = None,
        addresses: Mapping[str, Sequence[str] | ResolveError] | None = None,
    ) -> None:
        self._mx = mx or {}
        self._addresses = addresses or {}
        self.asked: list[str] = []

    async def mx(self, domain: str) -> Sequence[Mx]:
        self.asked.append(domain)
        answer = self._mx.get(domain, NXDOMAIN)
        if isinstance(answer, ResolveError):
            raise answer
        return [Mx(*record) for record in answer]

    async def addresses(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        answer = self._addresses.get(host, NXDOMAIN)
        if isinstance(answer, ResolveError):
            raise answer
        return answer


def as_it_is(records: MutableSequence[Any]) -> None:
    pass


def router(
    zone: Zone | None = None,
    *,
    local_domains: Iterable[str] = ("our.dom",),
    smart_host: HostPort | None = None,
    shuffle: Callable[[MutableSequence[Any]], None] = as_it_is,
    own_addresses: Iterable[str] = ("127.0.0.0/8", "::1", "198.51.100.1"),
    max_hosts: int = 10,
    routes: Routes = no_routes,
) -> Router:
    return Router(
        local_domains=local_domains,
        smart_host=smart_host,
        resolver=zone or Zone(),
        shuffle=shuffle,
        hostname="mx.our.dom",
        own_addresses=own_addresses,
        max_hosts=max_hosts,
        routes=routes,
    )


async def usual(router: Router, mailbox: str) -> Route:
    """Where mail goes for which there is no rule."""
    path = ForwardPath.of(mailbox)
    return await router.route(path.mailbox, ReversePath("bob@far.example"))


def tried(route: Route) -> list[tuple[str, str | None]]:
    assert isinstance(route, NextHop), route
    return [(host.name, host.address) for host in route.hosts]


def refusal(route: Route) -> str:
    assert isinstance(route, Unroutable), route
    assert route.reply.code // 100 == 5
    return f"{route.reply.code} {route.reply.status}"


def is_deferred(route: Route) -> None:
    assert isinstance(route, Undetermined), route
    assert (route.reply.code, str(route.reply.status)) == (451, "4.4.3")


@pytest.mark.rfc("5321 §2.4 domains-do-not-differ-by-case")
@pytest.mark.parametrize("domain", ["our.dom", b"OUR.Dom", "our.dom.", b"our.DOM."])
async def test_a_local_domain_is_local_in_any_case_and_with_its_dot(domain: str | bytes) -> None:
    smart = router(smart_host=HostPort("smart.example"))
    assert smart.is_local(domain)
    assert smart.is_ours(domain)
    assert await usual(smart, "ann@OUR.Dom") == Local("our.dom")


@pytest.mark.parametrize(
    "domain", ["notour.dom", "sub.our.dom", "our.dom.ext", "our", "our.dom..", "[our.dom]"]
)
async def test_what_only_looks_like_a_local_domain_is_not(domain: str) -> None:
    zone = Zone()
    assert not router(zone).is_local(domain)
    assert refusal(await router(zone).by_mx(domain)) == "550 5.1.2"


@pytest.mark.rfc("5321 §4.5.1 postmaster-is-a-mailbox-in-any-case")
async def test_the_bare_postmaster_is_ours() -> None:
    assert await usual(router(), "postmaster") == Local("our.dom")
    assert await usual(router(local_domains=()), "Postmaster") == Local("mx.our.dom")


async def test_a_smart_host_gets_all_that_is_not_ours_and_no_dns_is_asked() -> None:
    zone = Zone({"ext.example": SERVFAIL})
    smart = router(zone, smart_host=HostPort("smart.example", 587))
    expected = NextHop.fixed(Host("smart.example", port=587))
    for domain in ("ext.example", "[192.0.2.1]", "other.example"):
        assert await usual(smart, f"v@{domain}") == expected
    assert zone.asked == []
    assert str(HostPort("2001:db8::1", 25)) == "[2001:db8::1]:25"


@pytest.mark.rfc("5321 §4.1.3 literal-is-routed-without-dns")
@pytest.mark.parametrize(
    ("literal", "address"),
    [
        (b"[192.0.2.1]", "192.0.2.1"),
        ("[192.000.002.010]", "192.0.2.10"),
        ("[IPv6:2001:DB8:0:0::1]", "2001:db8::1"),
    ],
)
async def test_an_address_literal_is_its_own_host(literal: bytes | str, address: str) -> None:
    zone = Zone()
    route = await router(zone).by_mx(literal)
    assert [address] == [found for _, found in tried(route)]
    assert zone.asked == []


@pytest.mark.parametrize("literal", ["[tag:whatever]", "[192.0.2]", "[]", "[192.0.2.٣]"])
async def test_a_literal_that_is_no_address_has_no_route(literal: str) -> None:
    assert refusal(await router().by_mx(literal)) == "550 5.1.2"


@pytest.mark.parametrize(
    "literal", ["[127.0.0.1]", "[127.9.9.9]", "[IPv6:::1]", "[IPv6:::ffff:127.0.0.1]"]
)
async def test_a_literal_that_is_ourselves_is_a_loop(literal: str) -> None:
    assert refusal(await router().by_mx(literal)) == "554 5.4.6"


async def test_a_literal_may_be_a_local_domain() -> None:
    ours = router(local_domains=["[IPv6:2001:db8::1]", "[192.0.2.1]"])
    assert isinstance(await usual(ours, "ann@[IPv6:2001:DB8:0::1]"), Local)
    assert isinstance(await usual(ours, "ann@[192.0.02.1]"), Local)
    assert isinstance(await usual(ours, "ann@[192.0.2.2]"), NextHop)


@pytest.mark.rfc("5321 §2.1 relay-asks-the-dns-for-the-host")
@pytest.mark.rfc(
    "5321 §5.1 domains-are-looked-up",
    "5321 §5.1 mx-comes-first",
    "5321 §5.1 lowest-preference-first",
    "5321 §5.1 addresses-in-the-order-given",
)
async def test_mx_by_preference_with_all_addresses_in_their_order() -> None:
    zone = Zone(
        {"ext.example": [(20, "b.example"), (10, "a.example"), (30, "c.example")]},
        {
            "a.example": ["2001:db8::a", "192.0.2.1"],
            "b.example": ["192.0.2.2"],
            "c.example": ["192.0.2.4", "192.0.2.3"],
        },
    )
    route = await router(zone).by_mx(b"Ext.Example.")
    assert tried(route) == [
        ("a.example", "2001:db8::a"),
        ("a.example", "192.0.2.1"),
        ("b.example", "192.0.2.2"),
        ("c.example", "192.0.2.4"),
        ("c.example", "192.0.2.3"),
    ]
    assert isinstance(route, NextHop)
    assert route.name == "ext.example"
    assert {host.port for host in route.hosts} == {25}


async def test_equals_of_a_rule_are_shuffled_and_no_others() -> None:
    a, b, c, d = (Host(f"{name}.example") for name in "abcd")
    hop = NextHop.fixed(a, [b, c, d])
    assert str(hop) == (
        "smtp:a.example:25, smtp:b.example:25 or smtp:c.example:25 or smtp:d.example:25"
    )
    orders: set[tuple[Host, ...]] = set()
    for seed in range(30):
        table = RouteTable([Rule(hop)])
        routing = router(shuffle=Random(seed).shuffle, routes=table)
        to = (await routing.rule(Mailbox("v", "ext.example"), ReversePath(None))).to
        assert isinstance(to, NextHop)
        assert (to.hosts[0], to.name) == (a, hop.name)
        assert set(to.hosts) == {a, b, c, d}
        orders.add(to.hosts)
    assert len(orders) == 6


def test_a_next_hop_is_a_host_at_least() -> None:
    nobody: Sequence[Host] = []
    for levels in [], [nobody], [Host("a.example"), nobody]:
        with pytest.raises(ValueError, match="without a host"):
            NextHop.fixed(*levels)
    a = Host("a.example")
    assert NextHop.fixed([a]) == NextHop.fixed(a)


@pytest.mark.rfc("5321 §5.1 equals-are-shuffled")
async def test_equal_preferences_are_shuffled_and_no_others() -> None:
    names = [f"{letter}.example" for letter in "abcdef"]
    zone = Zone(
        {"ext.example": [(20, name) for name in names] + [(10, "first.example")]},
        {name: ["192.0.2.1"] for name in [*names, "first.example"]},
    )
    orders = set[tuple[str, ...]]()
    for seed in range(50):
        route = await router(zone, shuffle=Random(seed).shuffle).by_mx("ext.example")
        order = tuple(name for name, _ in tried(route))
        assert order[0] == "first.example"
        assert sorted(order[1:]) == names
        orders.add(order)
    assert len(orders) > 10
    again = await router(zone, shuffle=Random(7).shuffle).by_mx("ext.example")
    assert again == await router(zone, shuffle=Random(7).shuffle).by_mx("ext.example")


@pytest.mark.rfc("5321 §2.1 relay-asks-the-dns-for-the-host")
@pytest.mark.rfc("5321 §5.1 implicit-mx")
@pytest.mark.parametrize("none", [NODATA, []])
async def test_without_mx_the_domain_is_its_own_host(none: ResolveError | list[Any]) -> None:
    zone = Zone({"ext.example": none}, {"ext.example": ["192.0.2.9"]})
    assert tried(await router(zone).by_mx("ext.example")) == [("ext.example", "192.0.2.9")]


@pytest.mark.rfc("5321 §5.1 addresses-only-by-mx", "5321 §5.1 no-usable-mx-is-an-error")
async def test_with_mx_the_domain_is_not_its_own_host() -> None:
    zone = Zone({"ext.example": [(10, "gone.example")]}, {"ext.example": ["192.0.2.9"]})
    assert refusal(await router(zone).by_mx("ext.example")) == "550 5.4.4"
    assert "ext.example" not in zone.asked[1:]


@pytest.mark.rfc("5321 §5.1 no-such-domain-is-an-error", "5321 §5.1 no-usable-mx-is-an-error")
async def test_no_such_domain_is_permanent() -> None:
    assert refusal(await router().by_mx("gone.example")) == "550 5.1.2"
    neither = Zone({"ext.example": NODATA}, {"ext.example": NODATA})
    assert refusal(await router(neither).by_mx("ext.example")) == "550 5.4.4"


@pytest.mark.rfc("7505 §4.1 recipient-gets-556-and-5-1-10")
async def test_a_null_mx_refuses() -> None:
    zone = Zone({"ext.example": [(0, ".")]}, {"ext.example": ["192.0.2.9"]})
    assert refusal(await router(zone).by_mx("ext.example")) == "556 5.1.10"
    assert zone.asked == ["ext.example"]


@pytest.mark.rfc("7505 §3 null-mx-stands-alone")
async def test_a_null_mx_beside_others_is_none() -> None:
    zone = Zone({"ext.example": [(0, "."), (5, "a.example")]}, {"a.example": ["192.0.2.1"]})
    assert tried(await router(zone).by_mx("ext.example")) == [("a.example", "192.0.2.1")]


@pytest.mark.rfc("5321 §5.1 temporary-error-queues")
async def test_a_failing_dns_is_temporary() -> None:
    is_deferred(await router(Zone({"ext.example": SERVFAIL})).by_mx("ext.example"))
    implicit = Zone({"ext.example": NODATA}, {"ext.example": SERVFAIL})
    is_deferred(await router(implicit).by_mx("ext.example"))


async def test_an_exchanger_that_does_not_resolve_is_skipped() -> None:
    zone = Zone(
        {"ext.example": [(10, "gone.example"), (20, "sick.example"), (30, "a.example")]},
        {"sick.example": SERVFAIL, "a.example": ["192.0.2.1"]},
    )
    assert tried(await router(zone).by_mx("ext.example")) == [("a.example", "192.0.2.1")]


async def test_as_long_as_one_exchanger_may_yet_resolve_nothing_is_permanent() -> None:
    zone = Zone(
        {"ext.example": [(10, "gone.example"), (20, "sick.example")]}, {"sick.example": SERVFAIL}
    )
    is_deferred(await router(zone).by_mx("ext.example"))


SELVES = [("MX.Our.Dom", "192.0.2.1"), ("our.dom", "192.0.2.1"), ("other.name", "198.51.100.1")]


@pytest.mark.rfc(
    "5321 §5.1 relaying-exchanger-sorts-the-records",
    "5321 §5.1 relay-looks-for-itself",
    "5321 §5.1 as-good-or-worse-is-discarded",
    "5321 §5.1 those-left-are-tried",
)
@pytest.mark.parametrize(("name", "address"), SELVES)
async def test_where_we_are_an_exchanger_only_better_ones_remain(name: str, address: str) -> None:
    zone = Zone(
        {"ext.example": [(10, "a.example"), (20, "b.example"), (20, name), (30, "c.example")]},
        {
            "a.example": ["192.0.2.11"],
            "b.example": ["192.0.2.12"],
            "c.example": ["192.0.2.13"],
            name: ["192.0.2.14", address],
        },
    )
    assert tried(await router(zone).by_mx("ext.example")) == [("a.example", "192.0.2.11")]


@pytest.mark.rfc("5321 §5.1 relay-looks-for-itself", "5321 §5.1 nothing-left-is-an-error")
@pytest.mark.parametrize(("name", "address"), SELVES)
async def test_where_we_are_the_best_exchanger_it_is_a_loop(name: str, address: str) -> None:
    zone = Zone(
        {"ext.example": [(20, "b.example"), (10, name)]},
        {"b.example": ["192.0.2.12"], name: [address]},
    )
    assert refusal(await router(zone).by_mx("ext.example")) == "554 5.4.6"


async def test_a_better_exchanger_that_is_sick_is_waited_for() -> None:
    zone = Zone(
        {"ext.example": [(10, "sick.example"), (20, "self.example")]},
        {"sick.example": SERVFAIL, "self.example": ["127.0.0.1"]},
    )
    is_deferred(await router(zone).by_mx("ext.example"))


async def test_an_implicit_mx_that_is_ourselves_is_a_loop() -> None:
    zone = Zone({"ext.example": NODATA}, {"ext.example": ["127.0.0.1"]})
    assert refusal(await router(zone).by_mx("ext.example")) == "554 5.4.6"
    anywhere = router(zone, own_addresses=())
    assert tried(await anywhere.by_mx("ext.example")) == [("ext.example", "127.0.0.1")]


@pytest.mark.rfc("5321 §5.1 addresses-may-be-limited")
async def test_hosts_tried_and_names_asked_are_bounded() -> None:
    names = [f"mx{number}.example" for number in range(1000)]
    zone = Zone(
        {"ext.example": [(10, name) for name in names]},
        {name: [f"192.0.2.{number}" for number in range(50)] for name in names},
    )
    route = await router(zone, max_hosts=4).by_mx("ext.example")
    assert len(tried(route)) == 4
    assert len(zone.asked) == 5


async def test_our_own_name_is_found_behind_the_bound_too() -> None:
    records = [(10, f"mx{number}.example") for number in range(20)]
    zone = Zone(
        {"ext.example": [*records, (10, "mx.our.dom")]},
        {name: ["192.0.2.1"] for _, name in records},
    )
    assert refusal(await router(zone).by_mx("ext.example")) == "554 5.4.6"


async def test_a_mailbox_that_is_too_long_in_a_labels_keeps_its_spelling() -> None:
    mailbox = Mailbox.parse("a" * 150 + "@" + ".".join(["ü"] * 30))
    assert router(Zone()).home(mailbox) is mailbox
