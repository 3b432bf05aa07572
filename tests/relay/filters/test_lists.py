"""Block lists (RFC 5782), and the names of clients (RFC 5321 §4.1.4)."""

from ipaddress import ip_address, ip_network

import pytest

from smtpproto.relay.filters import Accept, BlockList, ClientNames, Networks, Refuse, Stage, Tag
from smtpproto.relay.filters.blocklist import question
from smtpproto.resolve import ResolveFailed
from tests.relay.filters.seen import Dns, seen

pytestmark = pytest.mark.anyio

PEER = "203.0.113.99"
ASKED = "99.113.0.203.bad.example"


@pytest.fixture(autouse=True)
def documentation_networks_are_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses that nobody has count as private; here they are somebody's."""
    for room in ("blocklist", "names"):
        monkeypatch.setattr(f"smtpproto.relay.filters.{room}.is_public", lambda address: True)


@pytest.mark.rfc("5782 §2.1", "5782 §2.4")
@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.99", "99.2.0.192.ugly.example.com"),
        (
            "2001:db8:1:2:3:4:567:89ab",
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ugly.example.com",
        ),
    ],
)
def test_an_address_is_looked_up_backwards(address: str, name: str) -> None:
    assert question(ip_address(address), "ugly.example.com") == name


@pytest.mark.rfc("5782 §2.1")
async def test_who_is_listed_is_refused_with_what_the_list_says() -> None:
    dns = Dns({("A", ASKED): ["127.0.0.2"], ("TXT", ASKED): ["see https://bad.example\n99"]})
    answer = await BlockList("bad.example", dns).judge(Stage.CONNECT, seen(PEER))
    assert isinstance(answer, Refuse)
    assert answer.reply.serialize() == (
        b"554 5.7.1 203.0.113.99 is listed at bad.example: see https://bad.example?99\r\n"
    )


@pytest.mark.parametrize(("does", "kind"), [("tag", Tag), ("accept", Accept)])
async def test_being_listed_leads_to_what_is_said(does: str, kind: type) -> None:
    dns = Dns({("A", ASKED): ["127.0.0.2"]})
    one = BlockList("bad.example", dns, does=does)  # type: ignore[arg-type]  # one of them
    assert isinstance(await one.judge(Stage.CONNECT, seen(PEER)), kind)


@pytest.mark.rfc("5782 §2.3")
@pytest.mark.parametrize(
    ("answers", "codes", "listed"),
    [
        (["127.0.0.2"], (), True),
        (["127.0.0.2"], ("127.0.0.4",), False),
        (["127.0.0.3", "127.0.0.4"], ("127.0.0.4",), True),
        (["192.0.2.1"], (), False),  # a list that is gone, its domain sold
        (["127.255.255.254"], (), False),  # "you ask by a public resolver"
    ],
)
async def test_what_an_answer_means(
    answers: list[str], codes: tuple[str, ...], listed: bool
) -> None:
    one = BlockList("bad.example", Dns({("A", ASKED): answers}), codes=codes)
    assert (await one.judge(Stage.CONNECT, seen(PEER)) is not None) is listed


@pytest.mark.rfc("5782 §5")
@pytest.mark.parametrize(
    ("peer", "entry"),
    [
        (PEER, "1.0.0.127.bad.example"),
        ("2001:db8::1", f"1.0.0.0.0.0.f.7.f.f.f.f{'.0' * 20}.bad.example"),
    ],
)
async def test_a_list_of_all_the_world_says_nothing(peer: str, entry: str) -> None:
    everything = [question(ip_address(peer), "bad.example"), entry]
    dns = Dns({("A", name): ["127.0.0.2"] for name in everything})
    assert await BlockList("bad.example", dns).judge(Stage.CONNECT, seen(peer)) is None
    assert dns.asked == everything


@pytest.mark.rfc("5782 §5")
async def test_a_list_of_all_domains_says_nothing() -> None:
    dns = Dns({("A", f"{name}.doms.example"): ["127.0.0.2"] for name in ("a.example", "invalid")})
    one = BlockList("doms.example", dns, of="sender")
    assert await one.judge(Stage.MAIL, seen(sender="x@a.example")) is None


async def test_a_domain_in_another_script_is_looked_up_as_the_dns_has_it() -> None:
    dns = Dns({("A", "xn--bcher-kva.example.doms.example"): ["127.0.0.2"]})
    one = BlockList("doms.example", dns, of="sender")
    answer = await one.judge(Stage.MAIL, seen(sender="x@Bücher.example"))
    assert isinstance(answer, Refuse)
    assert answer.reply.is_writable()
    assert await one.judge(Stage.MAIL, seen(sender="x@\u2488.example")) is None


async def test_a_list_that_does_not_answer_has_failed_and_says_nothing() -> None:
    one = BlockList("bad.example", Dns(failing={ASKED}))
    with pytest.raises(ResolveFailed):
        await one.judge(Stage.CONNECT, seen(PEER))


async def test_who_is_not_listed_may_pass() -> None:
    dns = Dns()
    assert await BlockList("bad.example", dns).judge(Stage.CONNECT, seen(PEER)) is None
    assert dns.asked == [ASKED]


async def test_who_is_trusted_is_not_looked_up() -> None:
    dns = Dns({("A", ASKED): ["127.0.0.2"]})
    one = BlockList("bad.example", dns)
    assert await one.judge(Stage.CONNECT, seen(PEER, trusted=True)) is None
    assert dns.asked == []


@pytest.mark.rfc("5782 §3")
async def test_a_senders_domain_is_looked_up_as_it_is() -> None:
    dns = Dns({("A", "phish.example.doms.example"): ["127.0.0.2"]})
    one = BlockList("doms.example", dns, of="sender")
    assert one.stages == {Stage.MAIL}
    answer = await one.judge(Stage.MAIL, seen(sender="x@Phish.Example"))
    assert isinstance(answer, Refuse)
    assert answer.reply.code == 550
    for sender in (None, "x@[192.0.2.1]"):
        assert await one.judge(Stage.MAIL, seen(sender=sender)) is None


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3", "::1", "fd00::1", ""])
async def test_an_address_of_our_own_network_is_on_no_list_of_strangers(
    peer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    dns = Dns()
    assert await BlockList("bad.example", dns).judge(Stage.CONNECT, seen(peer)) is None
    assert dns.asked == []


def names(dns: Dns, **settings: str) -> ClientNames:
    return ClientNames(dns, "mx.our.dom", **settings)


GOOD = Dns({("PTR", PEER): ["client.example"], ("A", "client.example"): ["192.0.2.1", PEER]})


async def test_a_name_that_leads_back_is_nothing_to_speak_of() -> None:
    # Not the one it gave: that is no reason (RFC 5321 §4.1.4).
    assert await names(GOOD).judge(Stage.HELO, seen(PEER, helo="other.example")) is None


@pytest.mark.parametrize("helo", ["MX.our.dom", "mx.our.dom."])
async def test_nobody_else_has_our_name(helo: str) -> None:
    answer = await names(GOOD).judge(Stage.HELO, seen(PEER, helo=helo))
    assert isinstance(answer, Refuse)
    assert answer.reply.code == 550


@pytest.mark.parametrize("helo", ["localhost", "pc", "[nonsense]", "a_b.example", "x."])
async def test_a_bare_name_is_tagged_or_refused(helo: str) -> None:
    assert isinstance(await names(GOOD).judge(Stage.HELO, seen(PEER, helo=helo)), Tag)
    strict = await names(GOOD, bare="refuse").judge(Stage.HELO, seen(PEER, helo=helo))
    assert isinstance(strict, Refuse)


async def test_an_address_literal_is_a_full_name() -> None:
    said = seen(PEER, helo=f"[{PEER}]")
    assert await names(GOOD, bare="refuse").judge(Stage.HELO, said) is None


@pytest.mark.parametrize(
    "dns",
    [
        Dns(),
        Dns({("PTR", PEER): ["client.example"]}),
        Dns({("PTR", PEER): ["client.example"], ("A", "client.example"): ["192.0.2.1"]}),
    ],
    ids=["no name", "a name without an address", "another's name"],
)
async def test_an_address_without_a_name_is_tagged_or_refused(dns: Dns) -> None:
    assert isinstance(await names(dns).judge(Stage.HELO, seen(PEER)), Tag)
    strict = await names(dns, nameless="refuse").judge(Stage.HELO, seen(PEER))
    assert isinstance(strict, Refuse)
    assert strict.reply.serialize().startswith(b"550 5.7.25 ")


@pytest.mark.parametrize("failing", [PEER, "client.example"])
async def test_a_dns_that_does_not_answer_is_no_fault_of_the_clients(failing: str) -> None:
    dns = Dns({("PTR", PEER): ["client.example"]}, failing={failing})
    assert await names(dns).judge(Stage.HELO, seen(PEER)) is None
    strict = await names(dns, nameless="refuse").judge(Stage.HELO, seen(PEER))
    assert isinstance(strict, Refuse)
    assert strict.reply.code == 450


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "192.0.2.1"])
async def test_this_machine_may_have_our_name(peer: str) -> None:
    dns = Dns({("PTR", peer): ["mx.our.dom"], ("A", "mx.our.dom"): [peer]})
    assert await names(dns).judge(Stage.HELO, seen(peer, helo="mx.our.dom")) is None


async def test_addresses_of_a_private_network_need_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    dns = Dns()
    strict = names(dns, nameless="refuse")
    assert await strict.judge(Stage.HELO, seen("10.1.2.3", helo="printer.lan")) is None
    assert dns.asked == []


@pytest.mark.rfc("6647 §5")
@pytest.mark.parametrize(("does", "answer"), [("accept", Accept), ("tag", Tag), ("refuse", Refuse)])
async def test_whom_the_operator_knows(does: str, answer: type) -> None:
    one = Networks([ip_network("192.0.2.0/24")], does=does)  # type: ignore[arg-type]  # one of them
    for peer in ("192.0.2.7", "::ffff:192.0.2.7"):
        assert isinstance(await one.judge(Stage.CONNECT, seen(peer)), answer)
    for peer in ("192.0.3.7", "2001:db8::1", ""):
        assert await one.judge(Stage.CONNECT, seen(peer)) is None


async def test_who_is_trusted_may_be_called_anything() -> None:
    assert await names(Dns()).judge(Stage.HELO, seen(PEER, helo="pc", trusted=True)) is None
