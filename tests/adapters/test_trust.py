"""PROXY, XCLIENT and XFORWARD: believed from listed networks, and from nobody else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from attrs import define, field

from smtpproto import LocalProtocolError, Mail, Reply
from smtpproto.core.proxy import ProxyCommand, ProxyHeader
from smtpproto.extensions import SIZE
from smtpproto.extensions.dsn import DSN
from smtpproto.extensions.xforward import XForward
from smtpproto.server import Connections, Server, ServerDeadlines, Session
from smtpproto.trust import as_networks, is_listed

from .clock import anyio_backend  # noqa: F401 - a fixture
from .wire import HOST, Wire, connect
from .world import Accounts, Box, Certificates, running, until

pytestmark = pytest.mark.anyio

CLIENT, SERVICE = ("192.0.2.7", 40_000), ("192.0.2.25", 25)
V1 = ProxyHeader(1, source=CLIENT, destination=SERVICE).serialize()
V2 = ProxyHeader(2, source=CLIENT, destination=SERVICE, tlvs=[(4, b"x")]).serialize()
SIX = ProxyHeader(2, source=("2001:db8::7", 40_000), destination=("2001:db8::25", 25)).serialize()


@define
class Door(Box):
    """Knows who came; refuses 203.0.113.0/24 at the door."""

    came: list[tuple[str, int]] = field(factory=list)
    forwarded: list[XForward | None] = field(factory=list)
    gone: list[str] = field(factory=list)

    async def connect(self, session: Session) -> Reply | None:
        self.came.append(session.peer)
        refused = session.peer[0].startswith("203.0.113.")
        return Reply(554, "5.7.1", "Not you") if refused else None

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        self.forwarded.append(session.preamble(XForward))
        return None

    async def closed(self, session: Session) -> None:
        self.gone.append(session.peer[0])


@pytest.fixture
def door() -> Door:
    return Door()


async def hello(wire: Wire, verb: str = "EHLO") -> set[str]:
    reply = await wire.ask(f"{verb} client.example")
    assert reply.startswith("250"), reply
    return {line[4:].partition(" ")[0] for line in reply.splitlines()[1:]}


async def send(wire: Wire) -> None:
    await wire.say("MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>", "DATA")
    assert [(await wire.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
    assert (await wire.ask("x", ".")).startswith("250")


# Networks


def test_networks() -> None:
    listed = as_networks(["192.0.2.0/24", "198.51.100.7", "2001:db8::/32"])
    for host, inside in (
        ("192.0.2.255", True),
        ("192.0.3.0", False),
        ("198.51.100.7", True),
        ("198.51.100.8", False),
        ("2001:db8:ffff::1", True),
        ("2001:db9::1", False),
        ("::ffff:192.0.2.1", True),  # an IPv4 client at a socket of both kinds
        ("fe80::1%eth0", False),
        ("", False),
    ):
        assert is_listed(host, listed) is inside
    assert as_networks(["192.0.2.1"]) == as_networks(["192.0.2.1/32"])
    assert not is_listed("192.0.2.1", ())
    for wrong in (["localhost"], ["192.0.2.1/24"], "192.0.2.1", [""]):
        with pytest.raises(LocalProtocolError):
            Server(Box(), proxy_from=wrong)
    assert not is_listed("a.example", listed)


@pytest.mark.parametrize(
    ("peer", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),  # at a socket of both kinds
        ("::ffff:192.0.2.1", False),
        ("192.0.2.1", False),
        ("a.example", False),
        ("", False),
    ],
)
def test_who_is_on_loopback(peer: str, loopback: bool) -> None:
    server = Server(Box(), plaintext_auth="loopback")
    session = Session(1, (peer, 1), (peer, 25))
    assert server.plaintext_allowed(session) is loopback


# PROXY


@pytest.mark.parametrize("header", [V1, V2, SIX], ids=["1", "2", "2, IPv6"])
@pytest.mark.parametrize("cut", ["whole", "with more", "octet by octet"])
async def test_the_client_is_whom_the_proxy_says(header: bytes, cut: str, door: Door) -> None:
    async with running(Server(door, proxy_from=[HOST])) as port, await connect(port) as wire:
        if cut == "octet by octet":
            for octet in header:
                await wire.send(bytes([octet]))
        elif cut == "whole":
            await wire.send(header)
        else:
            await wire.send(header + b"EHLO client.example\r\n")
        assert (await wire.reply()).startswith("220")
        if cut == "with more":
            assert (await wire.reply()).startswith("250")
        else:
            await hello(wire)
        await send(wire)
    (received,) = door.received
    v6 = header == SIX
    assert received.session.peer == (("2001:db8::7", 40_000) if v6 else CLIENT)
    assert received.session.local == (("2001:db8::25", 25) if v6 else SERVICE)
    assert door.came == [received.session.peer]
    assert received.session.proxy is not None
    assert received.session.proxy.tlvs == (((4, b"x"),) if header == V2 else ())


@pytest.mark.parametrize(
    "header",
    [
        ProxyHeader(2, ProxyCommand.LOCAL),
        ProxyHeader(1),
        ProxyHeader(2, source=b"/run/s", destination=b"/run/t"),
    ],
    ids=["LOCAL", "UNKNOWN", "a unix socket"],
)
async def test_a_proxy_that_does_not_say(header: ProxyHeader, door: Door) -> None:
    """The connection is taken as it is."""
    server = Server(door, proxy_from=["127.0.0.0/8"])
    async with running(server) as port, await connect(port) as wire:
        await wire.send(header.serialize())
        assert (await wire.reply()).startswith("220")
    assert door.came[0][0] == HOST


@pytest.mark.parametrize(
    "first",
    [
        b"EHLO client.example\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 1 99999\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        V2[:12] + b"\x21\x11\xff\xff",  # says that 64 KiB follow
        b"\x16\x03\x01",
        b"\0",
    ],
)
async def test_anything_else_is_closed_without_a_word(first: bytes, door: Door) -> None:
    async with running(Server(door, proxy_from=[HOST])) as port, await connect(port) as wire:
        await wire.send(first)
        assert await wire.rest() == b""
        async with await connect(port) as other:
            await other.send(V1)
            assert (await other.reply()).startswith("220")
    assert door.came == [CLIENT]
    assert door.gone == [CLIENT[0]]  # of a session that never was, nobody is told


@pytest.mark.parametrize("first", [b"", V1[:-1], V2[:20]])
@pytest.mark.parametrize("ends", [True, False])
async def test_a_header_that_does_not_come(
    first: bytes, ends: bool, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """Its end, or the deadline's: not even a greeting may be sent before it is whole."""
    deadlines = ServerDeadlines(proxy=None if ends else 0.05)
    server = Server(door, proxy_from=[HOST], deadlines=deadlines)
    async with running(server) as port, await connect(port) as wire:
        if first:
            await wire.send(first)
        if ends:
            await wire.stream.send_eof()
        assert await wire.rest() == b""
    assert door.came == []
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("header", [V1, V2], ids=["1", "2"])
async def test_a_header_from_anybody_else_is_bad_input(header: bytes, door: Door) -> None:
    server = Server(door, proxy_from=["192.0.2.0/24"])
    async with running(server) as port, await connect(port) as wire:
        await wire.send(header)
        assert (await wire.reply()).startswith("220")
        assert (await wire.reply())[0] == "5"
    assert door.came[0][0] == HOST


@pytest.mark.parametrize("cut", [True, False])
async def test_tls_begins_behind_the_header(cut: bool, door: Door, tls: Certificates) -> None:
    """Also where both came in one segment."""
    server = Server(door, proxy_from=[HOST], tls=tls.server, implicit_tls=True)
    async with running(server) as port, await connect(port) as wire:
        if cut:
            await wire.send(V2)
        else:
            send_hello, ahead = wire.stream.send, [V2]

            async def together(item: bytes) -> None:
                await send_hello(b"".join(ahead) + item)
                ahead.clear()

            wire.stream.send = together  # type: ignore[method-assign]  # for one write
        await wire.start_tls(tls.trusting, server_side=False)
        assert (await wire.reply()).startswith("220")
        await hello(wire)
        await send(wire)
    assert door.received[0].session.peer == CLIENT
    assert door.received[0].session.tls is not None


async def test_starttls_has_nothing_of_what_came_with_the_header(
    door: Door, tls: Certificates
) -> None:
    server = Server(door, proxy_from=[HOST], tls=tls.server)
    async with running(server) as port, await connect(port) as wire:
        await wire.send(V1 + b"EHLO client.example\r\n")
        assert [(await wire.reply())[:3] for _ in range(2)] == ["220", "250"]
        assert (await wire.ask("STARTTLS")).startswith("220")
        await wire.start_tls(tls.trusting, server_side=False)
        await hello(wire)


async def test_who_has_sent_no_header_is_counted_in_all_alone(door: Door) -> None:
    """Whose network that will be, nobody knows; but it has a connection."""
    connections = Connections(2, most_per_network=1)
    server = Server(door, proxy_from=[HOST], connections=connections)
    async with running(server) as port:
        async with await connect(port) as one, await connect(port) as two:
            await until(lambda: len(connections) == 2)
            assert connections.of(HOST) == 0
            async with await connect(port) as wire:
                assert await wire.rest() == b""
            await one.send(V1)
            assert (await one.reply()).startswith("220")
            assert (len(connections), connections.of(CLIENT[0])) == (2, 1)
            await two.send(b"EHLO client.example\r\n")  # no header: it is sent away
            await until(lambda: len(connections) == 1)
            async with await connect(port) as wire:
                await wire.send(V1)
                assert await wire.rest() == b"421 localhost Too many connections\r\n"
        await until(lambda: len(connections) == 0)


async def test_limits_and_passwords_go_by_the_client(door: Door) -> None:
    """Not by the proxy, who may well be on loopback."""
    server = Server(
        door,
        proxy_from=[HOST],
        connections=Connections(most_per_network=1),
        authenticator=Accounts(),
        plaintext_auth="loopback",
    )
    other = ProxyHeader(source=("192.0.2.8", 1), destination=SERVICE).serialize()
    async with running(server) as port, await connect(port) as first:
        await first.send(V1)
        assert (await first.reply()).startswith("220")
        assert "AUTH" not in await hello(first)
        async with await connect(port) as second, await connect(port) as third:
            await second.send(V2)
            assert (await second.reply()).startswith("421 localhost Too many")
            await third.send(other)
            assert (await third.reply()).startswith("220")


async def test_a_client_that_talks_behind_the_header_is_early(door: Door) -> None:
    server = Server(door, proxy_from=[HOST], greeting_delay=0.01)
    async with running(server) as port, await connect(port) as wire:
        await wire.send(V1 + b"EHLO client.example\r\n")
        assert (await wire.reply()).startswith("220")
        await wire.reply()
        await send(wire)
    assert door.received[0].session.early_talker


# XCLIENT


@asynccontextmanager
async def listed(server: Server) -> AsyncIterator[Wire]:
    async with running(server) as port, await connect(port) as wire:
        assert (await wire.reply()).startswith("220")
        yield wire


async def test_xclient_and_xforward_are_offered_to_listed_peers_alone(door: Door) -> None:
    for options, offered in (
        ({"xclient_from": [HOST]}, {"XCLIENT"}),
        ({"xforward_from": [HOST]}, {"XFORWARD"}),
        ({"xclient_from": [HOST], "xforward_from": [HOST]}, {"XCLIENT", "XFORWARD"}),
        ({"xclient_from": ["192.0.2.0/24"], "xforward_from": ["::1"]}, set[str]()),
    ):
        for explicit in (None, ()):
            server = Server(door, offer=explicit, **options)  # type: ignore[arg-type]  # loose
            async with listed(server) as wire:
                assert await hello(wire) & {"XCLIENT", "XFORWARD"} == offered
                for verb in {"XCLIENT", "XFORWARD"} - offered:
                    assert (await wire.ask(f"{verb} ADDR=192.0.2.7")).startswith("502")


async def test_an_extension_may_be_offered_to_listed_peers_alone(door: Door) -> None:
    for networks, offered in (
        ([HOST], {"DSN", "SIZE"}),
        (["192.0.2.0/24"], {"SIZE"}),
        ([], {"SIZE"}),
    ):
        server = Server(door, offer=[DSN, SIZE], offer_only_to={"DSN": networks})
        async with listed(server) as wire:
            assert await hello(wire) == offered
            reply = await wire.ask("MAIL FROM:<a@b.example> RET=HDRS")
            assert reply[:3] == ("250" if "DSN" in offered else "555"), reply


async def test_the_session_begins_anew_with_another_client(door: Door) -> None:
    server = Server(
        door,
        xclient_from=[HOST],
        authenticator=Accounts(),
        plaintext_auth="loopback",
    )
    async with listed(server) as wire:
        assert "AUTH" in await hello(wire)
        line = "XCLIENT NAME=c.example ADDR=192.0.2.7 PORT=40000 DESTADDR=192.0.2.25 DESTPORT=25"
        assert await wire.ask(line) == "220 localhost ESMTP"
        assert (await wire.ask("MAIL FROM:<a@b.example>")).startswith("503")  # EHLO first
        # Passwords go by the client now; XCLIENT by whom we are connected to.
        assert await hello(wire) & {"AUTH", "XCLIENT"} == {"XCLIENT"}
        assert (server.connections.of(CLIENT[0]), len(server.connections)) == (1, 1)
        await send(wire)
        assert (await wire.ask("XCLIENT ADDR=IPV6:2001:db8::7")).startswith("220")
        await hello(wire, "HELO")
        await send(wire)
    (first, second) = door.received
    assert first.session is second.session
    assert door.came[1:] == [CLIENT, ("2001:db8::7", 0)]
    assert second.session.local == SERVICE
    assert second.session.xclient is not None
    assert not second.session.extended


async def test_what_is_not_known_is_not_the_peers(door: Door) -> None:
    """An address that is not known is none: to be at loopback would be a privilege."""
    server = Server(door, xclient_from=[HOST], authenticator=Accounts(), plaintext_auth="loopback")
    async with listed(server) as wire:
        await hello(wire)
        assert (await wire.ask("XCLIENT ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL]")).startswith("220")
        assert "AUTH" not in await hello(wire)
        await send(wire)
    assert door.received[0].session.peer == ("", 0)


async def test_login_and_name_are_as_xclient_says(door: Door) -> None:
    """LOGIN is the client's, until it logs in itself; a login of before is forgotten."""
    server = Server(door, xclient_from=[HOST], authenticator=Accounts(), plaintext_auth="always")
    seen: list[tuple[str | None, str, bool]] = []
    door.replies["content"] = Reply(250, "2.0.0", "ok")
    login = "AUTH PLAIN AGFubgBodW50ZXIyLWFuZC1tb3Jl"

    async with listed(server) as wire:

        async def now() -> None:
            await send(wire)
            session = door.received[-1].session
            seen.append((session.identity, session.helo_name, session.extended))

        await hello(wire)
        assert (await wire.ask(login)).startswith("235")
        await now()
        await wire.ask("XCLIENT HELO=old.example PROTO=SMTP")
        session = door.received[-1].session
        assert (session.identity, session.helo_name, session.extended) == (
            None,
            "old.example",
            False,
        )
        assert session.peer[0] == HOST  # nothing was said of it
        await hello(wire)
        await now()
        await wire.ask("XCLIENT LOGIN=bob")
        await hello(wire)
        await now()
        assert (await wire.ask(login)).startswith("235")
        await now()
        await wire.ask("XCLIENT LOGIN=[UNAVAILABLE]")
        await hello(wire)
        await now()
    assert [who for who, _, _ in seen] == ["ann", None, "bob", "ann", None]
    assert {(name, extended) for _, name, extended in seen} == {("client.example", True)}


async def test_tls_stays_on(door: Door, tls: Certificates) -> None:
    """As Postfix's XCLIENT_README has it: it cannot be turned off, and is not offered again."""
    async with listed(Server(door, xclient_from=[HOST], tls=tls.server)) as wire:
        await hello(wire)
        await wire.ask("STARTTLS")
        await wire.start_tls(tls.trusting, server_side=False)
        await hello(wire)
        assert (await wire.ask("XCLIENT ADDR=192.0.2.7")).startswith("220")
        assert "STARTTLS" not in await hello(wire)
        await send(wire)
    assert door.received[0].session.tls is not None


async def test_not_within_a_transaction(door: Door) -> None:
    async with listed(Server(door, xclient_from=[HOST])) as wire:
        await hello(wire)
        await wire.ask("MAIL FROM:<a@b.example>")
        assert (await wire.ask("XCLIENT ADDR=192.0.2.7")).startswith("503")
        await wire.ask("RSET")
        for wrong in ("XCLIENT", "XCLIENT ADDR=x", "XCLIENT WHO=me", "XCLIENT PORT=66000"):
            assert (await wire.ask(wrong)).startswith("501")
        assert server_peer(door) == HOST


def server_peer(door: Door) -> str:
    return door.came[-1][0]


async def test_who_is_refused_at_the_door_is_out(door: Door) -> None:
    """And cannot go on as the one who was let in before."""
    async with listed(Server(door, xclient_from=[HOST])) as wire:
        await hello(wire)
        await wire.say("XCLIENT ADDR=203.0.113.9", "EHLO x.example", "MAIL FROM:<a@b.example>")
        assert await wire.rest() == b"554 5.7.1 Not you\r\n"
    assert door.came[-1] == ("203.0.113.9", 0)
    assert door.gone == ["203.0.113.9"]


async def test_xclient_counts_for_the_limits(door: Door) -> None:
    server = Server(door, xclient_from=[HOST], connections=Connections(most_per_network=2))
    async with running(server) as port, await connect(port) as one, await connect(port) as two:
        for number, wire in enumerate((one, two)):
            assert (await wire.reply()).startswith("220")
            await hello(wire)
            assert (await wire.ask(f"XCLIENT ADDR=192.0.2.{number}")).startswith("220")
        assert [server.connections.of(f"192.0.2.{n}") for n in range(2)] == [1, 1]
        server.connections.most_per_network = 1
        await hello(one)  # the session has begun anew
        await hello(two)
        assert (await one.ask("XCLIENT ADDR=192.0.2.9")).startswith("220")
        assert (await two.ask("XCLIENT ADDR=192.0.2.9")).startswith("421 ")
        assert await two.rest() == b""


# XFORWARD


async def test_what_a_filter_says_reaches_the_handler(door: Door) -> None:
    async with listed(Server(door, xforward_from=[HOST])) as wire:
        await hello(wire)
        await wire.say("XFORWARD NAME=c.example ADDR=192.0.2.7", "XFORWARD HELO=c PROTO=ESMTP")
        assert [await wire.reply() for _ in range(2)] == ["250 2.0.0 Noted"] * 2
        await send(wire)
        await send(wire)  # forgotten when the transaction ends
        assert (await wire.ask("XFORWARD ADDR=192.0.2.8")).startswith("250")
        await wire.ask("RSET")
        await send(wire)
    first, *others = door.forwarded
    assert first is not None
    assert dict(first.attributes) == {
        "NAME": b"c.example",
        "ADDR": b"192.0.2.7",
        "HELO": b"c",
        "PROTO": b"ESMTP",
    }
    assert others == [None, None]
    assert door.came[-1][0] == HOST  # for the log: nobody is taken for another


async def test_a_session_outside_of_a_server_was_told_nothing() -> None:
    await anyio.lowlevel.checkpoint()
    assert Session(1, CLIENT, SERVICE).preamble(XForward) is None
