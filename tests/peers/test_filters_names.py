"""What filters ask of the DNS, with a real server: block lists (RFC 5782), names of addresses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from smtpproto.relay.filters import BlockList, ClientNames, Refuse, Stage, Tag
from smtpproto.resolve import DnsResolver, NoRecords, NoSuchDomain, ResolveFailed
from tests.relay.filters.seen import seen

from .names import NameServer, named
from .programs import HOST

pytestmark = [pytest.mark.anyio, pytest.mark.peer("named")]

LISTED = "99.113.0.203"
# RFC 5782 §5: 127.0.0.2 is on every list, 127.0.0.1 on none.
ENTRY = '2.0.0.127 A 127.0.0.2\n2.0.0.127 TXT "a test"\n'

ZONES = {
    "bad.example": f"""{ENTRY}
        {LISTED} A 127.0.0.2
        {LISTED} A 127.0.0.4
        {LISTED} TXT "see " "https://bad.example/?ip=203.0.113.99"
        {".".join("1" + "0" * 23 + "8bd01002")} A 127.0.0.2
    """,
    "closed.example": f"""{ENTRY}
        {LISTED} A 127.255.255.254
    """,
    "sold.example": "* A 198.51.100.80",
    "all.example": "* A 127.0.0.2",
    "lame.example": "sub NS nowhere.lame.example.",
    "0.0.8.e.f.ip6.arpa": "@ PTR mx.six.example.",
    "113.0.203.in-addr.arpa": """
        7 PTR mx.good.example.
        7 PTR other.good.example.
        8 PTR mx.good.example.
        9 TXT "no name"
    """,
    "good.example": """
        mx A 203.0.113.7
        other A 203.0.113.99
        text TXT "one" "two"
        text TXT "\\252"
        six AAAA 2001:db8::1
    """,
}


@pytest.fixture(scope="module")
def server() -> Iterator[NameServer]:
    with named(ZONES) as server:
        yield server


@pytest.fixture
def resolver(server: NameServer) -> DnsResolver:
    return DnsResolver([HOST], port=server.port, lifetime=5)


@pytest.fixture(autouse=True)
def documentation_networks_are_public(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("blocklist", "names"):
        monkeypatch.setattr(f"smtpproto.relay.filters.{room}.is_public", lambda address: True)


async def test_addresses_names_and_texts(resolver: DnsResolver) -> None:
    assert await resolver.ipv4("mx.good.example") == ["203.0.113.7"]
    assert sorted(await resolver.names("203.0.113.7")) == ["mx.good.example", "other.good.example"]
    assert sorted(await resolver.texts("text.good.example")) == [
        "onetwo",
        "\N{REPLACEMENT CHARACTER}",
    ]
    with pytest.raises(NoRecords):
        await resolver.ipv4("six.good.example")
    with pytest.raises(NoRecords):
        await resolver.names("203.0.113.9")
    for wrong in ("203.0.113.10", "nonsense", "::ffff:1", "203.0.113.7:25"):
        with pytest.raises(NoSuchDomain):
            await resolver.names(wrong)
    with pytest.raises(NoSuchDomain):
        await resolver.texts("none.good.example")
    for ask in (resolver.ipv4, resolver.texts):
        with pytest.raises(ResolveFailed):
            await ask("x.sub.lame.example")


async def test_an_answer_is_remembered_and_so_is_a_no(
    server: NameServer, resolver: DnsResolver
) -> None:
    asked = {
        kind: server.asked(name, kind)
        for name, kind in (("8.113.0.203.in-addr.arpa", "PTR"), ("1.2.3.4.bad.example", "A"))
    }
    for _ in range(3):
        assert await resolver.names("203.0.113.8") == ["mx.good.example"]
        with pytest.raises(NoSuchDomain):
            await resolver.ipv4("1.2.3.4.bad.example")
    assert server.asked("8.113.0.203.in-addr.arpa", "PTR") == asked["PTR"] + 1
    assert server.asked("1.2.3.4.bad.example", "A") == asked["A"] + 1


@pytest.mark.rfc("5782 §2.1", "5782 §5")
@pytest.mark.parametrize(
    ("zone", "peer", "said"),
    [
        ("bad.example", "127.0.0.2", "a test"),
        ("bad.example", "203.0.113.99", "see https://bad.example/?ip=203.0.113.99"),
        ("bad.example", "2001:db8::1", ""),
        ("bad.example", "203.0.113.98", None),
        ("bad.example", "127.0.0.1", None),
        ("closed.example", "203.0.113.99", None),  # "you ask by a public resolver"
        ("sold.example", "203.0.113.99", None),
        ("all.example", "203.0.113.99", None),
        ("gone.example", "203.0.113.99", None),
    ],
)
async def test_who_is_on_a_list(
    resolver: DnsResolver, zone: str, peer: str, said: str | None
) -> None:
    answer = await BlockList(zone, resolver).judge(Stage.CONNECT, seen(peer))
    if said is None:
        assert answer is None
    else:
        assert isinstance(answer, Refuse)
        colon = f": {said}" if said else ""
        assert str(answer.reply) == f"554 5.7.1 {peer} is listed at {zone}{colon}"


async def test_a_list_that_does_not_answer_has_failed(resolver: DnsResolver) -> None:
    with pytest.raises(ResolveFailed):
        await BlockList("sub.lame.example", resolver).judge(Stage.CONNECT, seen("203.0.113.99"))


@pytest.mark.rfc("8601 §2.7.3")
@pytest.mark.parametrize(
    ("peer", "fine"), [("203.0.113.7", True), ("203.0.113.8", False), ("203.0.113.9", False)]
)
async def test_a_name_that_leads_back(resolver: DnsResolver, peer: str, fine: bool) -> None:
    answer = await ClientNames(resolver, "mx.our.dom").judge(Stage.HELO, seen(peer))
    assert answer is None if fine else isinstance(answer, Tag)
