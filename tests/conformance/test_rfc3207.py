"""RFC 3207: STARTTLS, and what holds behind the handshake, at either end."""

import ssl
from pathlib import Path

import pytest

from smtpproto import (
    PAUSED,
    Auth,
    Ehlo,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reply,
    Rset,
    ServerConnection,
    StartTls,
    State,
    TlsInfo,
)
from smtpproto.client import Client, ClientDeadlines, Tls
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions import AUTH, PIPELINING, STARTTLS
from smtpproto.handler import Session
from smtpproto.mechanisms import PLAIN
from smtpproto.relay import Access
from smtpproto.relay.reports.story import Deferred, Delivered, Reported
from smtpproto.result import RefusedError, TlsError
from smtpproto.server import Server
from smtpproto.testing import suggested
from smtpproto.testing.pair import answer
from tests.adapters.wire import Wire, raw_server
from tests.adapters.world import ENVELOPE, MESSAGE, Box, certificates, running, until
from tests.conformance.ends import HELLO, agreed, client_after, hear, say, saying
from tests.relay.world import DAY, world

OFFERED = b"250-mx.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
PLAY = "S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 STARTTLS\nC: STARTTLS\n"


def serving(octets: bytes = HELLO, *, can: bool = True) -> ServerConnection:
    """A server with STARTTLS, if it `can`, that has answered `octets` well."""
    extensions = (PIPELINING, STARTTLS, AUTH)
    server = ServerConnection("mx.example", extensions, mechanisms=(PLAIN,), tls_available=can)
    answer(server)
    say(server, octets)
    return server


# The offer and the command


@pytest.mark.rfc(
    "3207 §2 keyword-is-starttls",
    "3207 §2 keyword-stands-alone",
    "3207 §3 keyword-has-no-argument",
    "3207 §3 keyword-means-now",
    "3207 §2 no-parameter-is-added",
)
def test_it_is_announced_by_its_keyword_alone_where_it_works() -> None:
    assert say(serving(b""), HELLO).endswith(b"\r\n250 STARTTLS\r\n")
    assert b"STARTTLS" not in say(serving(b"", can=False), HELLO)
    assert not STARTTLS.mail
    assert not STARTTLS.rcpt


@pytest.mark.rfc(
    "3207 §2 verb-is-starttls",
    "3207 §4 command-is-one-word",
    "3207 §4 220-501-or-454-is-the-answer",
)
def test_the_command_and_its_answers() -> None:
    assert STARTTLS.verbs == (StartTls,)
    assert client_after(OFFERED).send(StartTls()) == b"STARTTLS\r\n"
    for line in (b"STARTTLS", b"starttls", b"STARTTLS \t"):
        server = serving()
        assert say(server, line + b"\r\n") == b"220 Ready to start TLS\r\n"
        assert server.state is State.TLS
    server = serving()
    for line in (b"STARTTLS now", b"STARTTLS =", b"STARTTLS STARTTLS"):
        assert say(server, line + b"\r\n").startswith(b"501")
    not_now = Reply(454, None, "TLS not available")
    assert say(server, b"STARTTLS\r\n", saying(not_now)) == b"454 TLS not available\r\n"
    assert server.state is State.READY
    assert say(server, b"NOOP\r\n").startswith(b"250")


@pytest.mark.rfc("3207 §3 client-takes-the-keyword-for-the-offer")
@pytest.mark.parametrize("said", [b"250 mx\r\n", b"250-mx\r\n250 TLS\r\n", b"250 STARTTLS\r\n"])
def test_where_the_keyword_is_not_offered_nobody_asks(said: bytes) -> None:
    """The first line of the reply is a greeting, whatever it says."""
    with pytest.raises(LocalProtocolError, match="does not offer STARTTLS"):
        client_after(said).send(StartTls())


@pytest.mark.rfc("3207 §4 session-may-go-on-behind-454")
def test_behind_454_a_client_may_go_on() -> None:
    client = client_after(OFFERED)
    client.send(StartTls())
    assert hear(client, b"454 not now\r\n") == [Reply(454, None, "not now")]
    assert (client.state, client.tls) == (State.READY, None)
    assert client.send(Mail("a@b")) == b"MAIL FROM:<a@b>\r\n"


@pytest.mark.rfc("3207 §4 starttls-is-the-last-of-a-group")
def test_nothing_is_pipelined_behind_starttls() -> None:
    client = client_after(OFFERED)
    client.send(Rset())
    client.send(StartTls())
    for command in (Noop(), Mail("a@b"), Rset(), Quit(), Ehlo("c.example"), StartTls()):
        with pytest.raises(LocalProtocolError):
            client.send(command)
    hear(client, b"250 ok\r\n")
    with pytest.raises(LocalProtocolError):
        client.send(Mail("a@b"))


@pytest.mark.rfc("3207 §4 handshake-comes-behind-the-220")
def test_behind_the_220_there_is_nothing_but_the_handshake() -> None:
    client = client_after(OFFERED)
    client.send(StartTls())
    hear(client, b"220 go\r\n")
    assert client.state is State.TLS
    assert client.next_event() is PAUSED
    for command in (Ehlo("c.example"), Mail("a@b"), Noop(), Quit(), StartTls()):
        with pytest.raises(LocalProtocolError):
            client.send(command)
    client.tls_started()
    assert client.send(Ehlo("c.example")) == b"EHLO c.example\r\n"


# Who demands TLS, and who does not


TRANSACTION = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nhi\r\n.\r\n"


@pytest.mark.rfc("3207 §4 public-server-demands-no-tls")
def test_a_server_that_has_tls_takes_mail_without_it() -> None:
    said = say(serving(), TRANSACTION)
    assert [line[:3] for line in said.splitlines()] == [b"250", b"250", b"354", b"250"]


def demanding_tls(server: ServerConnection, event: ServerEvent | None) -> Reply:
    if server.tls is None and not isinstance(event, (Ehlo, Noop, Quit, StartTls)):
        return Reply(530, "5.7.0", "Must issue a STARTTLS command first")
    return suggested(server, event)


@pytest.mark.rfc(
    "3207 §4 private-server-may-demand-tls",
    "3207 §4 530-where-tls-is-demanded",
    "3207 §6 server-can-be-told-to-demand-tls",
)
def test_a_server_may_be_made_to_demand_tls() -> None:
    server = serving()
    for line in (b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA", b"RSET", b"VRFY x", b"AUTH PLAIN"):
        assert say(server, line + b"\r\n", demanding_tls).startswith(b"530 ")
    assert server.state is State.READY
    for line in (b"NOOP", b"EHLO c.example"):
        assert say(server, line + b"\r\n", demanding_tls).startswith(b"250")
    assert say(serving(), b"QUIT\r\n", demanding_tls).startswith(b"221")
    assert say(server, b"STARTTLS\r\n", demanding_tls).startswith(b"220")
    server.tls_started()
    assert say(server, HELLO + TRANSACTION, demanding_tls).endswith(b"250 Message accepted\r\n")


def friends_only(server: ServerConnection, event: ServerEvent | None) -> Reply:
    friend = server.tls is not None and server.tls.certificate == b"a friend's"
    if isinstance(event, Rcpt) and not friend:
        return Reply(550, None, "No relaying")
    return suggested(server, event)


@pytest.mark.rfc(
    "3207 §4 relaying-may-hang-on-the-certificate",
    "3207 §4 private-server-may-refuse-by-the-certificate",
)
@pytest.mark.parametrize("certificate", [b"", b"a stranger's", b"a friend's"])
def test_policy_sees_the_certificate(certificate: bytes) -> None:
    server = serving(HELLO + b"STARTTLS\r\n")
    server.tls_started(TlsInfo("TLSv1.3", "AES", certificate))
    say(server, HELLO + b"MAIL FROM:<a@b>\r\n")
    said = say(server, b"RCPT TO:<c@d>\r\n", friends_only)
    assert said.startswith(b"250" if certificate == b"a friend's" else b"550")


@pytest.mark.rfc(
    "3207 §4.1 server-says-554-where-it-is-too-little", "3207 §6 too-weak-may-end-the-session"
)
def test_a_server_may_refuse_all_but_quit_where_tls_is_too_weak() -> None:
    def too_weak(server: ServerConnection, event: ServerEvent | None) -> Reply:
        if isinstance(event, Quit):
            return suggested(server, event)
        return Reply(554, None, "Command refused due to lack of security")

    server = serving(HELLO + b"STARTTLS\r\n")
    server.tls_started(TlsInfo("TLSv1", "NULL"))
    for line in (b"EHLO c.example", b"HELO c.example", b"MAIL FROM:<a@b>", b"NOOP", b"RSET", b"?"):
        assert say(server, line + b"\r\n", too_weak).startswith(b"554 ")
    assert say(server, b"QUIT\r\n", too_weak).startswith(b"221")


@pytest.mark.rfc(
    "3207 §4.1 client-quits-where-it-is-too-little", "3207 §6 too-weak-may-end-the-session"
)
def test_a_client_may_leave_at_once_where_tls_is_too_weak() -> None:
    client = client_after(OFFERED)
    client.send(StartTls())
    hear(client, b"220 go\r\n")
    client.tls_started(TlsInfo("TLSv1", "NULL"))
    assert client.send(Quit()) == b"QUIT\r\n"


# Anew


@pytest.mark.rfc(
    "3207 §4.2 session-begins-anew",
    "3207 §4.2 server-forgets-what-came-in-clear",
    "3207 §4.2 both-know-whether-tls-is-on",
    "3207 §4.2 server-starts-tls-once",
    "3207 §6 nothing-of-before-is-kept",
)
def test_a_server_begins_anew() -> None:
    server = serving(HELLO + b"MAIL FROM:<a@b>\r\nRSET\r\nSTARTTLS\r\n")
    assert server.tls is None
    server.tls_started(TlsInfo("TLSv1.3"))
    assert server.tls == TlsInfo("TLSv1.3")
    assert server.state is State.GREETED
    assert (server.helo_name, server.extended, server.envelope) == (None, False, None)
    assert say(server, b"MAIL FROM:<a@b>\r\n").startswith(b"503")
    assert say(server, b"STARTTLS\r\n").startswith(b"503")
    assert b"STARTTLS" not in say(server, HELLO)
    assert say(server, b"STARTTLS\r\n").startswith(b"503")
    with pytest.raises(LocalProtocolError):
        server.tls_started()


@pytest.mark.rfc(
    "3207 §4.2 session-begins-anew",
    "3207 §4.2 client-forgets-what-came-in-clear",
    "3207 §4.2 both-know-whether-tls-is-on",
    "3207 §6 nothing-of-before-is-kept",
)
def test_a_client_begins_anew() -> None:
    client = client_after(b"250-mx\r\n250-AUTH PLAIN\r\n250-SIZE 10\r\n250 STARTTLS\r\n")
    agreed(client, Auth("PLAIN", b"\0a\0b"))
    client.send(StartTls())
    hear(client, b"220 go\r\n")
    assert client.tls is None
    client.tls_started(TlsInfo("TLSv1.3"))
    assert client.tls == TlsInfo("TLSv1.3")
    assert client.state is client.asked is State.GREETED
    assert (client.offered, client.authenticated) == ({}, False)
    with pytest.raises(LocalProtocolError, match="out of sequence"):
        client.send(Mail("a@b"))


@pytest.mark.rfc("3207 §4.2 offer-may-be-another")
def test_the_offer_may_be_another_under_tls() -> None:
    server, client = serving(b""), client_after(OFFERED)
    assert b"AUTH" not in say(server, HELLO)
    for end in (server, client):
        if end is server:
            say(server, b"STARTTLS\r\n")
        else:
            client.send(StartTls())
            hear(client, b"220 go\r\n")
        end.tls_started()
    hear(client, say(server, client.send(Ehlo("c.example"))))
    assert client.offered == {"PIPELINING": "", "AUTH": "PLAIN"}


# Over sockets


@pytest.mark.anyio
@pytest.mark.rfc("3207 §4.2 ehlo-comes-first", "3207 §4 handshake-comes-behind-the-220")
async def test_behind_the_handshake_a_client_says_ehlo(tmp_path: Path) -> None:
    contexts = certificates(tmp_path)
    lines: list[str] = []
    async with (
        running(Server(Box(), tls=contexts.server)) as port,
        Client(
            "localhost",
            port,
            ssl_context=contexts.trusting,
            helo_name="c.example",
            trace=lines.append,
        ),
    ):
        pass
    said = [line for line in lines if line.startswith("C:")]
    assert said == ["C: EHLO c.example", "C: STARTTLS", "C: EHLO c.example", "C: QUIT"]


@pytest.mark.anyio
@pytest.mark.rfc("3207 §4 failed-handshake-ends-the-connection")
@pytest.mark.parametrize("mode", [Tls.REQUIRED, Tls.OPPORTUNISTIC])
async def test_a_failed_handshake_ends_the_connection(mode: Tls) -> None:
    """Opportunistic, the client begins anew on another one."""
    connections: list[Wire] = []
    heard: list[bytes] = []

    async def behaviour(wire: Wire) -> None:
        connections.append(wire)
        if len(connections) > 1:
            await wire.play("S: 421 come back later")
            return
        await wire.play(PLAY + "S: 220 go\n")
        await wire.receive()
        await wire.say("this is no handshake")
        heard.append(await wire.rest())

    async with raw_server(behaviour) as port:
        client = Client("localhost", port, tls=mode, deadlines=ClientDeadlines(quit=0.05))
        with pytest.raises(TlsError if mode is Tls.REQUIRED else RefusedError):
            await client.__aenter__()
        await until(lambda: len(heard) == 1)
    assert len(connections) == (1 if mode is Tls.REQUIRED else 2)
    assert b"QUIT" not in heard[0]
    assert b"EHLO" not in heard[0]


@pytest.mark.anyio
@pytest.mark.rfc(
    "3207 §4.1 either-end-decides-at-once",
    "3207 §4.1 unauthenticated-may-be-too-little",
    "3207 §4.1 whom-to-believe-is-a-local-matter",
    "3207 §6 outcome-of-the-handshake-is-checked",
)
async def test_a_server_may_take_only_clients_that_it_can_verify(tmp_path: Path) -> None:
    contexts = certificates(tmp_path)
    contexts.server.verify_mode = ssl.CERT_REQUIRED
    contexts.server.load_verify_locations(tmp_path / "ca.pem")
    contexts.server.maximum_version = ssl.TLSVersion.TLSv1_2  # refuses within the handshake
    box = Box()
    async with running(Server(box, tls=contexts.server)) as port:
        with pytest.raises(TlsError):
            await Client("localhost", port, ssl_context=contexts.trusting).__aenter__()
        contexts.trusting.load_cert_chain(tmp_path / "localhost.pem")
        async with Client("localhost", port, ssl_context=contexts.trusting) as client:
            await client.send(ENVELOPE, MESSAGE)
    (received,) = box.received
    assert received.session.tls is not None
    assert received.session.tls.certificate


@pytest.mark.anyio
@pytest.mark.rfc("3207 §6 server-can-be-told-to-demand-tls")
async def test_a_handler_can_demand_tls(tmp_path: Path) -> None:
    class Demanding(Box):
        async def mail(self, session: Session, command: Mail) -> Reply | None:
            if session.tls is None:
                return Reply(530, "5.7.0", "Must issue a STARTTLS command first")
            return None

    contexts = certificates(tmp_path)
    async with running(Server(Demanding(), tls=contexts.server)) as port:
        for mode in (Tls.NONE, Tls.OPPORTUNISTIC):
            async with Client("localhost", port, tls=mode) as client:
                result = await client.deliver(ENVELOPE, MESSAGE)
                assert result.all_accepted is (mode is Tls.OPPORTUNISTIC)


@pytest.mark.anyio
@pytest.mark.rfc("3207 §6 client-can-be-told-to-demand-tls")
async def test_ciphers_that_will_not_do_are_no_tls(tmp_path: Path) -> None:
    contexts = certificates(tmp_path)
    contexts.server.maximum_version = ssl.TLSVersion.TLSv1_2
    contexts.server.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    box = Box()
    async with running(Server(box, tls=contexts.server)) as port:
        contexts.trusting.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
        with pytest.raises(TlsError, match="TLS with"):
            await Client("localhost", port, ssl_context=contexts.trusting).__aenter__()
    assert not box.received


# What a relay makes of it


@pytest.mark.anyio
@pytest.mark.rfc("3207 §6 tls-is-tried-again-later")
async def test_tls_that_cannot_be_had_is_tried_again_and_at_last_given_up(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        says = {"STARTTLS": "454 4.7.0 no certificate today"}
        host = await w.host("mx.ext.example", "ext.example", says, keywords=("STARTTLS",))
        node = await w.node("relay.example", access=Access("required"))
        await node.send("ann@our.dom", ["v@ext.example"])
        await node.until(Deferred)
        w.move(600)
        await node.until(Deferred, 2)
        assert host.lines.count("STARTTLS") == 2
        w.move(6 * DAY)
        await node.until(Reported)
        assert not [line for line in host.lines if line.startswith("MAIL")]


@pytest.mark.anyio
@pytest.mark.rfc("3207 §4 public-server-demands-no-tls")
async def test_a_relay_that_has_tls_takes_mail_from_strangers_without_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("mx.our.dom", networks=(), tls=True)
        async with node.dial() as wire:
            await wire.hello()
            await wire.say("MAIL FROM:<a@ext.example>")
            assert (await wire.say("RCPT TO:<v@our.dom>")).startswith("250")
            assert (await wire.say("DATA")).startswith("354")
            assert (await wire.say("hi\r\n.")).startswith("250")
        await node.until(Delivered)
        assert len(node.mail("v@our.dom")) == 1


@pytest.mark.rfc("3207 §4.2 client-starts-tls-once")
def test_a_client_does_not_ask_twice() -> None:
    client = client_after(OFFERED)
    client.send(StartTls())
    hear(client, b"220 go\r\n")
    client.tls_started()
    client.send(Ehlo("c.example"))
    hear(client, OFFERED)  # which no server may say here
    assert "STARTTLS" in client.offered
    with pytest.raises(LocalProtocolError):
        client.send(StartTls())
