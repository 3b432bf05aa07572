"""The resolver and the router with a real DNS server: what zones say, and where mail goes by it."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator

import anyio
import pytest

from smtpproto.relay.routing.route import NextHop, Route, Router, Undetermined, Unroutable
from smtpproto.resolve import (
    DnsResolver,
    Mx,
    NoRecords,
    NoSuchDomain,
    ResolveError,
    ResolveFailed,
)

from .names import BLACK_HOLE, NameServer, black_hole, named
from .programs import HOST, free_port

pytestmark = [pytest.mark.anyio, pytest.mark.peer("named")]

LONG = "x" * 50  # so that 90 names are more than a datagram; named has no more than 100

ZONES = {
    "ext.example": """
        @ MX 20 b
        @ MX 10 a1
        @ MX 10 a2
        @ MX 10 a3
        a1 A 192.0.2.1
        a2 A 192.0.2.2
        a3 A 192.0.2.3
        b A 192.0.2.4
        b A 192.0.2.5
        b AAAA 2001:db8::4
        b AAAA 2001:db8::5
        implicit A 192.0.2.6
        implicit AAAA 2001:db8::6
        null MX 0 .
        both MX 0 .
        both MX 5 a1
        text TXT "no mail here"
        unaddressed MX 10 text
        nowhere MX 10 gone
        nowhere MX 20 b
        half MX 10 lame.broken.example.
        half MX 20 a1
        lost MX 10 lame.broken.example.
        first MX 5 relay.our.test.
        first MX 10 a1
        middle MX 5 a1
        middle MX 10 relay.our.test.
        middle MX 10 a2
        middle MX 20 a3
        loopback MX 5 home
        home A 127.0.0.1
        alias CNAME @
        elsewhere CNAME other.example.
        ring CNAME ring2
        ring2 CNAME ring
        dangling CNAME gone
        mxalias MX 10 www
        www CNAME a1
        short 1 MX 10 a1
    """,
    "other.example": "@ MX 10 mx\nmx A 192.0.2.20",
    "huge.example": "\n".join(
        [
            *(f"@ MX {number} {LONG}{number}" for number in range(90)),
            *(f"{LONG}{number} A 192.0.2.30" for number in range(90)),
        ]
    ),
    "broken.example": "this is no zone",
}


@pytest.fixture(scope="module")
def server() -> Iterator[NameServer]:
    with named(ZONES) as server:
        yield server


def resolver(server: NameServer, now: Callable[[], float] = time.monotonic) -> DnsResolver:
    return DnsResolver([HOST], port=server.port, timeout=30, lifetime=30, now=now)


def router(server: NameServer, seed: int = 1) -> Router:
    return Router(
        local_domains=["our.test"],
        smart_host=None,
        resolver=resolver(server),
        shuffle=random.Random(seed).shuffle,
        hostname="relay.our.test",
    )


def hosts(route: Route) -> list[str]:
    assert isinstance(route, NextHop), route
    assert {host.port for host in route.hosts} == {25}
    return [f"{host.name} {host.address}" for host in route.hosts]


def said(route: Route) -> str:
    assert isinstance(route, (Unroutable, Undetermined)), route
    return f"{route.reply.code} {route.reply.status}"


@pytest.mark.rfc("5321 §5.1 lowest-preference-first", "5321 §5.1 mx-comes-first")
async def test_preferences_and_equals_in_any_order(server: NameServer) -> None:
    firsts: set[str] = set()
    for seed in range(20):
        found = hosts(await router(server, seed).by_mx("Ext.Example"))
        equals, rest = found[:3], found[3:]
        assert sorted(equals) == [f"a{n}.ext.example 192.0.2.{n}" for n in (1, 2, 3)]
        assert {host.partition(" ")[2] for host in rest} == {
            *("192.0.2.4", "192.0.2.5", "2001:db8::4", "2001:db8::5")
        }
        assert [":" in host for host in rest] == [True, False, True, False]
        firsts.add(equals[0])
    assert len(firsts) == 3


@pytest.mark.rfc("5321 §5.1 implicit-mx")
async def test_the_implicit_mx_has_both_families(server: NameServer) -> None:
    assert hosts(await router(server).by_mx("implicit.ext.example")) == [
        "implicit.ext.example 2001:db8::6",
        "implicit.ext.example 192.0.2.6",
    ]


@pytest.mark.rfc(
    "7505 §3 null-mx-is-preference-0-and-a-dot", "7505 §4.1 recipient-gets-556-and-5-1-10"
)
async def test_a_null_mx(server: NameServer) -> None:
    ours = router(server)
    assert said(await ours.by_mx("null.ext.example")) == "556 5.1.10"
    assert hosts(await ours.by_mx("both.ext.example")) == ["a1.ext.example 192.0.2.1"]
    assert await ours.takes_no_mail("null.ext.example")
    for domain in ("both", "text", "gone", "lame.broken", "implicit"):
        assert not await ours.takes_no_mail(f"{domain}.ext.example"), domain


@pytest.mark.rfc("5321 §5.1 cname-is-followed")
@pytest.mark.parametrize(
    ("domain", "found"),
    [
        ("elsewhere.ext.example", ["mx.other.example 192.0.2.20"]),
        ("mxalias.ext.example", ["www.ext.example 192.0.2.1"]),
    ],
)
async def test_cnames_are_followed(server: NameServer, domain: str, found: list[str]) -> None:
    assert hosts(await router(server).by_mx(domain)) == found


async def test_a_cname_in_the_zone_of_its_domain(server: NameServer) -> None:
    found = hosts(await router(server).by_mx("alias.ext.example"))
    assert len(found) == len(hosts(await router(server).by_mx("ext.example"))) == 7


@pytest.mark.parametrize(
    ("domain", "reply"),
    [
        ("gone.ext.example", "550 5.1.2"),
        ("dangling.ext.example", "550 5.1.2"),
        ("text.ext.example", "550 5.4.4"),  # NODATA, and no address for the implicit MX
        ("unaddressed.ext.example", "550 5.4.4"),
        ("ring.ext.example", "451 4.4.3"),
        ("lame.broken.example", "451 4.4.3"),
        ("lost.ext.example", "451 4.4.3"),
        ("foreign.test", "550 5.1.2"),
        ("first.ext.example", "554 5.4.6"),
        ("loopback.ext.example", "554 5.4.6"),
    ],
)
async def test_there_is_no_way(server: NameServer, domain: str, reply: str) -> None:
    assert said(await router(server).by_mx(domain)) == reply


@pytest.mark.parametrize(
    ("domain", "found"),
    [
        ("nowhere.ext.example", "b.ext.example 2001:db8::4"),
        ("half.ext.example", "a1.ext.example 192.0.2.1"),
    ],
)
async def test_one_exchanger_that_leads_nowhere_is_passed_over(
    server: NameServer, domain: str, found: str
) -> None:
    ways = hosts(await router(server).by_mx(domain))
    assert found in ways or found.replace("::4", "::5") in ways


@pytest.mark.rfc("5321 §5.1 relay-looks-for-itself", "5321 §5.1 as-good-or-worse-is-discarded")
async def test_ourselves_in_the_list_end_it(server: NameServer) -> None:
    assert hosts(await router(server).by_mx("middle.ext.example")) == ["a1.ext.example 192.0.2.1"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("gone.ext.example", NoSuchDomain),
        ("dangling.ext.example", NoSuchDomain),
        ("text.ext.example", NoRecords),
        ("lame.broken.example", ResolveFailed),
        ("foreign.test", NoSuchDomain),
    ],
)
async def test_what_is_a_no_and_what_is_no_answer(
    server: NameServer, name: str, error: type[ResolveError]
) -> None:
    asking = resolver(server)
    for ask in (asking.mx, asking.addresses):
        with pytest.raises(ResolveError) as caught:
            await ask(name)
        assert type(caught.value) is error


async def test_what_no_datagram_holds_comes_by_tcp(server: NameServer) -> None:
    records = await resolver(server).mx("huge.example")
    assert sorted(record.preference for record in records) == list(range(90))
    ways_asked = re.findall(r"query: huge\.example IN MX \+E\(0\)(T?)", server.log())
    assert ways_asked[:2] == ["", "T"]
    ways = hosts(await router(server).by_mx("huge.example"))
    assert ways == [f"{LONG}{number}.huge.example 192.0.2.30" for number in range(10)]


async def test_an_answer_is_believed_for_its_ttl_and_no_longer() -> None:
    with named({"ttl.example": "@ 60 MX 10 mx\nmx 30 A 192.0.2.1"}) as server:
        now = 0.0
        asking = resolver(server, lambda: now)
        assert await asking.mx("ttl.example") == [Mx(10, "mx.ttl.example")]
        assert await asking.addresses("mx.ttl.example") == ["192.0.2.1"]
        with pytest.raises(NoSuchDomain):
            await asking.mx("new.ttl.example")
        await anyio.to_thread.run_sync(
            server.replace, "ttl.example", "@ MX 5 mx2\nmx A 192.0.2.2\nnew MX 1 mx"
        )
        now = 29.5
        assert await asking.addresses("mx.ttl.example") == ["192.0.2.1"]
        now = 59.5
        assert await asking.addresses("mx.ttl.example") == ["192.0.2.2"]
        assert await asking.mx("ttl.example") == [Mx(10, "mx.ttl.example")]
        assert server.asked("ttl.example", "MX") == 1
        now = 60
        assert await asking.mx("ttl.example") == [Mx(5, "mx2.ttl.example")]
        assert server.asked("ttl.example", "MX") == 2
        now = 119.5
        with pytest.raises(NoSuchDomain):
            await asking.mx("new.ttl.example")
        now = 120  # the last number of the SOA record (RFC 2308 §5)
        assert await asking.mx("new.ttl.example") == [Mx(1, "mx.ttl.example")]
        assert server.asked("new.ttl.example", "MX") == 2


async def test_silence_is_no_answer(server: NameServer) -> None:
    with black_hole(server.port):
        asking = DnsResolver([BLACK_HOLE], port=server.port, timeout=0.1, lifetime=0.3)
        with anyio.fail_after(30):
            for ask in (asking.mx, asking.addresses):
                with pytest.raises(ResolveFailed):
                    await ask("ext.example")


async def test_the_next_server_is_asked_where_one_is_silent(server: NameServer) -> None:
    with black_hole(server.port):
        asking = DnsResolver([BLACK_HOLE, HOST], port=server.port, timeout=0.1, lifetime=30)
        with anyio.fail_after(30):
            assert await asking.mx("other.example") == [Mx(10, "mx.other.example")]


async def test_nobody_there_is_no_answer() -> None:
    asking = DnsResolver([HOST], port=free_port(), timeout=0.1, lifetime=0.3)
    ours = Router(
        local_domains=[],
        smart_host=None,
        resolver=asking,
        shuffle=random.shuffle,
        hostname="relay.our.test",
    )
    with anyio.fail_after(30):
        assert said(await ours.by_mx("ext.example")) == "451 4.4.3"
        assert not await ours.takes_no_mail("ext.example")
