"""`send --direct`: to the mail exchangers of each domain, over a DNS of our own."""

from collections.abc import Sequence
from contextlib import ExitStack

import pytest
from anyio.abc import ByteStream

from smtpproto.cli.direct import deliver_direct
from smtpproto.client import Tls, connect_tcp
from smtpproto.core.envelope import Envelope
from smtpproto.relay.routing.route import Router
from smtpproto.resolve import Mx, NoSuchDomain, ResolveFailed
from smtpproto.result import Fate, Result
from tests.cli.servers import Mailroom, scripted

pytestmark = pytest.mark.anyio

CONTENT = b"Subject: x\r\n\r\nx\r\n"


class Dns:
    """MX records by domain, and for each host the loopback address that stands for it."""

    def __init__(self, **mx: list[str]) -> None:
        self.records = mx

    async def mx(self, domain: str) -> Sequence[Mx]:
        if domain == "broken":
            raise ResolveFailed
        if domain not in self.records:
            raise NoSuchDomain
        return [Mx(number, host) for number, host in enumerate(self.records[domain])]

    async def addresses(self, host: str) -> Sequence[str]:
        return [f"192.0.2.{ord(host[0])}"]


async def deliver(
    dns: Dns, ports: dict[str, int], *recipients: str, tls: Tls = Tls.OPPORTUNISTIC
) -> tuple[Result, list[str]]:
    """Deliver in a world where `ports` says what stands behind the host of each first letter."""

    async def connect(host: str, port: int) -> ByteStream:
        letter = chr(int(host.rpartition(".")[2]))
        if letter not in ports:
            raise ConnectionRefusedError(111, "Connection refused")
        return await connect_tcp("127.0.0.1", ports[letter])

    lines: list[str] = []
    router = Router(
        local_domains=(),
        smart_host=None,
        resolver=dns,
        shuffle=lambda records: None,
        hostname="",
        own_addresses=(),
    )
    result = await deliver_direct(
        Envelope("ann@example.org", recipients),
        CONTENT,
        tls=tls,
        trace=lines.append,
        router=router,
        connector=connect,
    )
    assert [str(outcome.forward_path) for outcome in result.outcomes] == [
        f"<{recipient}>" for recipient in recipients
    ]
    return result, lines


async def test_one_transaction_for_each_domain(mailroom: Mailroom, clear_port: int) -> None:
    dns = Dns(one=["a.one"], two=["b.two"])
    ports = {"a": clear_port, "b": clear_port}
    result, lines = await deliver(dns, ports, "x@one", "y@two", "z@one")
    assert result.all_accepted
    assert sorted(len(envelope.rcpts) for envelope, _ in mailroom.mails) == [1, 2]
    assert [line for line in lines if line.startswith("--")] == [
        "-- a.one at 192.0.2.97, port 25",
        "-- b.two at 192.0.2.98, port 25",
    ]


@pytest.mark.rfc("5321 §5.1 each-address-can-be-tried")
async def test_the_next_exchanger_is_tried(mailroom: Mailroom, clear_port: int) -> None:
    dns = Dns(one=["a.one", "b.one", "c.one"])
    with scripted(b"554 no\r\n") as refusing:
        result, lines = await deliver(dns, {"b": refusing, "c": clear_port}, "x@one")
    assert result.all_accepted
    assert sum(line.startswith("--") for line in lines) == 3


async def test_what_one_says_about_a_recipient_holds(mailroom: Mailroom, clear_port: int) -> None:
    dns = Dns(one=["a.one", "b.one"])
    result, lines = await deliver(dns, {"a": clear_port, "b": clear_port}, "550x@one", "y@one")
    assert [outcome.fate for outcome in result.outcomes] == [Fate.PERMANENT, Fate.ACCEPTED]
    assert sum(line.startswith("--") for line in lines) == 1


async def test_no_exchanger_can_be_reached() -> None:
    result, _ = await deliver(Dns(one=["a.one", "b.one"]), {}, "x@one")
    (outcome,) = result.outcomes
    assert outcome.fate is Fate.TRANSIENT
    assert outcome.reason == (
        "a.one: connection refused: nothing listens there; "
        "b.one: connection refused: nothing listens there"
    )


@pytest.mark.parametrize(
    ("greetings", "fate"),
    [
        ([b"554 no\r\n"], Fate.PERMANENT),
        ([b"554 no\r\n", b"554 no\r\n"], Fate.PERMANENT),
        ([b"554 no\r\n", b"421 later\r\n"], Fate.TRANSIENT),
        ([b"554 no\r\n", b""], Fate.TRANSIENT),
    ],
)
async def test_refused_for_good_by_all_of_them(greetings: list[bytes], fate: Fate) -> None:
    hosts = ["a.one", "b.one"][: len(greetings)]
    with ExitStack() as stack:
        ports = [stack.enter_context(scripted(greeting)) for greeting in greetings]
        result, _ = await deliver(Dns(one=hosts), dict(zip("ab", ports, strict=False)), "x@one")
    (outcome,) = result.outcomes
    assert outcome.fate is fate
    assert "a.one: greeting was refused: 554 no" in outcome.reason


async def test_domains_that_are_none(mailroom: Mailroom, clear_port: int) -> None:
    dns = Dns(one=["a.one"], null=["."])
    recipients = ("x@nowhere", "y@one", "z@null", "w@broken", "Postmaster", "v@[X:1]")
    result, _ = await deliver(dns, {"a": clear_port}, *recipients)
    assert [outcome.fate for outcome in result.outcomes] == [
        Fate.PERMANENT,
        Fate.ACCEPTED,
        Fate.PERMANENT,
        Fate.TRANSIENT,
        Fate.PERMANENT,
        Fate.PERMANENT,
    ]
    assert len(mailroom.mails) == 1


@pytest.mark.rfc("7435")
async def test_tls_is_taken_where_it_is_offered(mailroom: Mailroom, tls_port: int) -> None:
    dns = Dns(one=["a.one"])
    result, lines = await deliver(dns, {"a": tls_port}, "x@one")
    assert result.all_accepted
    assert "C: STARTTLS" in lines
    result, _ = await deliver(dns, {"a": tls_port}, "x@one", tls=Tls.REQUIRED)
    (outcome,) = result.outcomes
    assert outcome.fate is Fate.TRANSIENT
    assert "the certificate is self-signed" in outcome.reason
    assert len(mailroom.mails) == 1
