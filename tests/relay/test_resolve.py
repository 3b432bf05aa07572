"""The resolver against a DNS server of its own on loopback: a zone of a few names over UDP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import dns.asyncresolver
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
from dns.rdatatype import RdataType

from smtpproto.resolve import (
    DnsResolver,
    Family,
    Mx,
    NoRecords,
    NoSuchDomain,
    ResolveError,
    ResolveFailed,
    Srv,
)

pytestmark = pytest.mark.anyio

ZONE: dict[tuple[str, str], list[str]] = {
    ("ext.example.", "MX"): ["20 b.ext.example.", "10 a.ext.example."],
    ("null.example.", "MX"): ["0 ."],
    ("_submissions._tcp.ext.example.", "SRV"): [
        "0 5 465 a.ext.example.",
        "10 0 4650 b.ext.example.",
    ],
    ("_submission._tcp.ext.example.", "SRV"): ["0 0 0 ."],
    ("alias.example.", "CNAME"): ["ext.example."],
    ("dangling.example.", "CNAME"): ["gone.example."],
    ("a.ext.example.", "A"): ["192.0.2.1", "192.0.2.2"],
    ("a.ext.example.", "AAAA"): ["2001:db8::1"],
    ("b.ext.example.", "A"): ["192.0.2.3"],
    ("www.example.", "CNAME"): ["b.ext.example."],
    ("half.example.", "A"): ["192.0.2.9"],
    ("half.example.", "AAAA"): ["SERVFAIL"],
    ("empty.example.", "TXT"): ["there"],
    ("no4.example.", "AAAA"): ["SERVFAIL"],
    ("no6.example.", "A"): ["SERVFAIL"],
    ("sick.example.", "MX"): ["SERVFAIL"],
    ("sick.example.", "A"): ["SERVFAIL"],
    ("sick.example.", "AAAA"): ["SERVFAIL"],
    ("refused.example.", "MX"): ["REFUSED"],
    ("mute.example.", "MX"): ["MUTE"],
    ("mute.example.", "A"): ["MUTE"],
    ("mute.example.", "AAAA"): ["MUTE"],
    ("garbage.example.", "MX"): ["GARBAGE"],
    ("dangling.soa.example.", "CNAME"): ["gone.soa.example."],
    ("empty.soa.example.", "TXT"): ["there"],
    ("once.example.", "MX"): ["0 once.example."],
    ("many.example.", "MX"): [f"{number} mx.many.example." for number in range(32)],
    ("huge.example.", "MX"): [f"{number} mx.huge.example." for number in range(33)],
    ("ext.example.search.test.", "MX"): ["5 wrong.example."],
}


#: The zones that say for how long a no may be believed: the TTL of the SOA record, or less.
SOA = {
    "soa.example.": (600, "ns.soa.example. who.soa.example. 1 2 3 4 300"),
    "long.example.": (1 << 20, f"ns.long.example. who.long.example. 1 2 3 4 {1 << 20}"),
}


def answer(query: dns.message.Message) -> dns.message.Message | bytes | None:
    """Answer from ZONE; CNAMEs are followed, the words in capitals are obeyed."""
    question = query.question[0]
    kind = question.rdtype.name
    name = question.name.to_text().lower()
    response = dns.message.make_response(query)
    response.flags |= dns.flags.RA
    while target := ZONE.get((name, "CNAME")):
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", *target))
        name = target[0]
    records = ZONE.get((name, kind), [])
    match records:
        case ["MUTE"]:
            return None
        case ["GARBAGE"]:
            return b"\x00" * 5
        case ["SERVFAIL"] | ["REFUSED"]:
            response.set_rcode(dns.rcode.from_text(records[0]))
        case []:
            if not any(there == name for there, _ in ZONE):
                response.set_rcode(dns.rcode.NXDOMAIN)
            for zone, (ttl, soa) in SOA.items():
                if name.endswith(f".{zone}"):
                    response.authority.append(dns.rrset.from_text(zone, ttl, "IN", "SOA", soa))
        case _:
            ttl = 0 if name == "once.example." else 60
            response.answer.append(dns.rrset.from_text(name, ttl, "IN", kind, *records))
    return response


class Server:
    """A DNS server on UDP, in a thread, until closed. `asked` keeps what it was asked."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.asked: list[tuple[str, RdataType]] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            wire, peer = self._socket.recvfrom(4096)
            if wire == b"stop":
                return
            query = dns.message.from_wire(wire)
            self.asked.append((query.question[0].name.to_text(), query.question[0].rdtype))
            response = answer(query)
            if isinstance(response, dns.message.Message):
                response = response.to_wire()
            if response is not None:
                self._socket.sendto(response, peer)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopper:
            stopper.sendto(b"stop", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def resolver(
    server: Server, lifetime: float = 30.0, families: Sequence[Family] = ("IPv6", "IPv4")
) -> DnsResolver:
    return DnsResolver(
        ["127.0.0.1"], port=server.port, timeout=30.0, lifetime=lifetime, families=families
    )


async def test_mx_records_with_their_preferences(server: Server) -> None:
    records = await resolver(server).mx("ext.example")
    assert sorted(records, key=lambda record: record.preference) == [
        Mx(10, "a.ext.example"),
        Mx(20, "b.ext.example"),
    ]


@pytest.mark.rfc("7505 §3 null-mx-is-preference-0-and-a-dot")
async def test_a_null_mx_is_a_dot(server: Server) -> None:
    assert await resolver(server).mx("null.example") == [Mx(0, ".")]


async def test_srv_records(server: Server) -> None:
    records = await resolver(server).srv("_submissions._tcp.ext.example")
    assert sorted(records, key=lambda record: record.priority) == [
        Srv(0, 5, 465, "a.ext.example"),
        Srv(10, 0, 4650, "b.ext.example"),
    ]


@pytest.mark.rfc("6186 §3.4")
async def test_an_srv_record_that_says_there_is_no_service(server: Server) -> None:
    assert await resolver(server).srv("_submission._tcp.ext.example") == [Srv(0, 0, 0, ".")]


@pytest.mark.rfc("5321 §2.3.5 relay-refers-to-what-a-cname-leads-to")
@pytest.mark.rfc("5321 §5.1 cname-is-followed")
async def test_a_cname_is_followed(server: Server) -> None:
    assert len(await resolver(server).mx("alias.example")) == 2
    assert await resolver(server).addresses("www.example") == ["192.0.2.3"]


@pytest.mark.rfc("5321 §5.2 both-families-are-tried")
async def test_addresses_of_both_families_by_turns(server: Server) -> None:
    addresses = await resolver(server).addresses("a.ext.example")
    assert [":" in address for address in addresses] == [True, False, False]
    assert set(addresses) == {"2001:db8::1", "192.0.2.1", "192.0.2.2"}


@pytest.mark.rfc("5321 §5.2 families-can-be-tuned")
@pytest.mark.parametrize(
    ("families", "wide"),
    [(["IPv4", "IPv6"], [False, True, False]), (["IPv4"], [False, False]), (["IPv6"], [True])],
)
async def test_an_operator_says_how_the_families_are_used(
    server: Server, families: list[Family], wide: list[bool]
) -> None:
    addresses = await resolver(server, families=families).addresses("a.ext.example")
    assert [":" in address for address in addresses] == wide


def test_there_has_to_be_a_family() -> None:
    with pytest.raises(ValueError, match="family"):
        DnsResolver(["127.0.0.1"], families=[])


async def test_what_one_family_has_is_enough(server: Server) -> None:
    assert await resolver(server).addresses("half.example") == ["192.0.2.9"]
    assert await resolver(server).addresses("b.ext.example.") == ["192.0.2.3"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("gone.example", NoSuchDomain),
        ("dangling.example", NoSuchDomain),
        ("empty.example", NoRecords),
        ("sick.example", ResolveFailed),
    ],
)
async def test_permanent_and_temporary_are_told_apart(
    server: Server, name: str, error: type[ResolveError]
) -> None:
    for ask in (resolver(server).mx, resolver(server).addresses):
        with pytest.raises(ResolveError) as caught:
            await ask(name)
        assert type(caught.value) is error


@pytest.mark.parametrize("name", ["refused.example", "garbage.example"])
async def test_a_server_that_does_not_answer_the_question_is_temporary(
    server: Server, name: str
) -> None:
    with pytest.raises(ResolveFailed):
        await resolver(server, lifetime=0.5).mx(name)


@pytest.mark.parametrize("name", ["no4.example", "no6.example"])
async def test_no_address_here_and_none_known_there_is_temporary(server: Server, name: str) -> None:
    with pytest.raises(ResolveFailed):
        await resolver(server).addresses(name)


async def test_silence_ends_with_the_lifetime(server: Server) -> None:
    impatient = resolver(server, lifetime=0.05)
    with pytest.raises(ResolveFailed):
        await impatient.mx("mute.example")
    with pytest.raises(ResolveFailed):
        await impatient.addresses("mute.example")


async def test_nobody_listening_is_temporary(server: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nobody = DnsResolver(["127.0.0.1"], port=port, timeout=0.05, lifetime=0.1)
    with pytest.raises(ResolveFailed):
        await nobody.mx("ext.example")


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example", "a." * 200, "\\999", "\udcff.x"])
async def test_what_is_no_name_does_not_exist_and_is_not_asked(server: Server, name: str) -> None:
    with pytest.raises(NoSuchDomain):
        await resolver(server).mx(name)
    assert server.asked == []


@pytest.mark.rfc("5321 §2.3.5 relay-takes-names-as-complete")
async def test_names_are_absolute_and_no_search_list_is_used(server: Server) -> None:
    searching = resolver(server)
    searching._resolver.search = [dns.name.from_text("search.test.")]
    assert len(await searching.mx("ext.example")) == 2
    assert {name for name, _ in server.asked} == {"ext.example."}


async def test_without_any_configuration_this_machine_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = dns.resolver.BaseResolver.read_resolv_conf
    monkeypatch.setattr(
        dns.resolver.BaseResolver,
        "read_resolv_conf",
        lambda self, file: read(self, str(tmp_path / "none")),
    )
    assert DnsResolver()._resolver.nameservers == ["127.0.0.1"]
    (tmp_path / "none").write_text("nameserver 192.0.2.53\n")
    assert DnsResolver()._resolver.nameservers == ["192.0.2.53"]


# What is remembered


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def remembering(server: Server, clock: Clock, keep: int = 100) -> DnsResolver:
    return DnsResolver(
        ["127.0.0.1"], port=server.port, timeout=30.0, lifetime=30.0, keep=keep, now=clock
    )


@pytest.mark.rfc("1035 §3.2.1")
async def test_an_answer_is_believed_for_its_ttl(server: Server) -> None:
    clock = Clock()
    asking = remembering(server, clock)
    for now, asked in ((0, 1), (59.9, 1), (60, 2), (119, 2), (200, 3)):
        clock.now = 1000.0 + now
        assert len(await asking.mx("EXT.example")) == 2
        assert len(await asking.mx("ext.example.")) == 2
        assert len(server.asked) == asked, now
    with pytest.raises(NoRecords):
        await asking.srv("ext.example")  # another question
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("name", "error", "seconds"),
    [
        ("gone.soa.example", NoSuchDomain, 300),
        ("dangling.soa.example", NoSuchDomain, 60),  # its CNAME lives no longer
        ("empty.soa.example", NoRecords, 300),
        ("gone.long.example", NoSuchDomain, 3 * 3600),
        ("gone.example", NoSuchDomain, 0),  # nobody said for how long
        ("sick.example", ResolveFailed, 0),  # which is no answer
    ],
)
async def test_a_no_is_believed_as_long_as_its_zone_says(
    server: Server, name: str, error: type[ResolveError], seconds: int
) -> None:
    clock = Clock()
    asking = remembering(server, clock)

    async def ask() -> int:
        server.asked.clear()
        with pytest.raises(error) as caught:
            await asking.mx(name)
        assert name in str(caught.value)
        return len(server.asked)

    assert await ask()
    if seconds:
        clock.now += seconds - 0.5
        assert not await ask()
        clock.now += 0.5
    assert await ask()


async def test_an_answer_without_a_ttl_is_for_once(server: Server) -> None:
    asking = remembering(server, Clock())
    for _ in range(2):
        assert await asking.mx("once.example")
    assert len(server.asked) == 2


async def test_what_is_remembered_is_bounded(server: Server) -> None:
    asking = remembering(server, Clock(), keep=2)
    for name in ("ext.example", "null.example", "ext.example", "many.example", "ext.example"):
        await asking.mx(name)
    assert [name for name, _ in server.asked] == ["ext.example.", "null.example.", "many.example."]
    await asking.mx("null.example")  # not asked for the longest
    assert len(server.asked) == 4
    for _ in range(2):
        assert len(await asking.mx("huge.example")) == 33  # more than anybody needs
    assert len(server.asked) == 6
    assert len(asking._known._answers) == 2
