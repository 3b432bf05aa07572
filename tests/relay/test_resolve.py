"""The resolver against a DNS server of its own on loopback: a zone of a few names over UDP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
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
    ("ext.example.search.test.", "MX"): ["5 wrong.example."],
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
        case _:
            response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *records))
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


def resolver(server: Server, lifetime: float = 30.0) -> DnsResolver:
    return DnsResolver(["127.0.0.1"], port=server.port, timeout=30.0, lifetime=lifetime)


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


async def test_what_was_answered_is_not_asked_again_while_it_holds(server: Server) -> None:
    remembering = resolver(server)
    first = await remembering.mx("ext.example")
    asked = len(server.asked)
    assert await remembering.mx("EXT.example") == first
    assert len(server.asked) == asked > 0
