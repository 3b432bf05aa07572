"""How a session is secured, and who may log in over what (RFC 3207, RFC 4954, RFC 8314)."""

import base64
from collections.abc import Callable

import pytest

from smtpproto import LocalProtocolError, Reply
from smtpproto.client import Client, ClientDeadlines, Tls
from smtpproto.core.sasl import Verify
from smtpproto.mechanisms import LOGIN, PLAIN
from smtpproto.result import ConnectError, LoginError, RefusedError, TlsError
from smtpproto.server import Server, Session
from tests.peers.programs import free_port

from .wire import HOST, Wire, connect, raw_server, script
from .world import ENVELOPE, MESSAGE, PASSWORD, Accounts, Box, Certificates, clear, running, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("mode", "implicit", "secured"),
    [
        (Tls.NONE, False, False),
        (Tls.REQUIRED, False, True),
        pytest.param(
            *(Tls.OPPORTUNISTIC, False, True),
            marks=pytest.mark.rfc(
                "3207 §4.1 unauthenticated-may-be-enough", "3207 §6 tls-where-it-can-be-had"
            ),
        ),
        (Tls.IMPLICIT, True, True),
    ],
)
async def test_every_mode_delivers(
    mode: Tls, implicit: bool, secured: bool, box: Box, tls: Certificates
) -> None:
    context = tls.trusting if mode in (Tls.REQUIRED, Tls.IMPLICIT) else None
    server = Server(box, tls=tls.server, implicit_tls=implicit)
    async with (
        running(server) as port,
        Client("localhost", port, tls=mode, ssl_context=context) as client,
    ):
        assert (client.tls_info is not None) is secured
        assert (client.tls_info is not None and client.tls_info.verified) is (context is not None)
        assert ("STARTTLS" in client.offered) is not secured
        result = await client.send(ENVELOPE, MESSAGE)
    assert result.all_accepted
    (received,) = box.received
    assert received.content == MESSAGE
    assert (received.session.tls is not None) is secured
    assert received.session.extended
    assert received.session.helo_name == "[127.0.0.1]"


@pytest.mark.rfc("3207 §6 tls-where-it-can-be-had")
async def test_opportunistic_goes_on_in_clear_where_nothing_is_offered(box: Box) -> None:
    async with running(Server(box)) as port, Client(HOST, port, tls="opportunistic") as client:
        assert client.tls_info is None
        await client.send(ENVELOPE, MESSAGE)


@pytest.mark.rfc(
    "3207 §6 client-decides-behind-a-failure", "3207 §6 login-alone-need-not-hold-mail-up"
)
async def test_opportunistic_connects_anew_in_clear_when_the_handshake_fails(box: Box) -> None:
    seen: list[str] = []

    async def behaviour(wire: Wire) -> None:
        seen.append("connection")
        await wire.play("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 STARTTLS")
        if len(seen) == 1:
            await wire.play("C: STARTTLS\nS: 220 go\n")
            await wire.receive()
            await wire.say("this is no handshake")
        else:
            await wire.play("C: QUIT\nS: 221 bye")
        await wire.rest()

    async with raw_server(behaviour) as port, Client(HOST, port, tls="opportunistic") as client:
        assert client.tls_info is None
    assert len(seen) == 2


@pytest.mark.rfc("4954 §9 nothing-leaves-where-the-login-is-required")
async def test_opportunistic_does_not_go_back_to_clear_for_a_login(
    box: Box, tls: Certificates
) -> None:
    """Only a handshake that fails permits clear text; a login that is not offered does not."""
    connections: list[str] = []
    server = Server(box, tls=tls.server, trace=lambda session, line: connections.append(line))
    async with running(server) as port:
        with pytest.raises(TlsError, match="offers no login"):
            async with Client(
                HOST, port, tls="opportunistic", login=("ann", PASSWORD), login_in_clear=True
            ):
                pass
    assert sum(line.startswith("S: 220 localhost") for line in connections) == 1


@pytest.mark.rfc("3207 §4 client-decides-behind-454", "3207 §6 client-decides-behind-a-failure")
@pytest.mark.parametrize("answer", ["454 4.7.0 not now", "501 5.5.4 no"])
async def test_refused_starttls_is_an_error_where_it_is_required(answer: str) -> None:
    play = f"S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 STARTTLS\nC: STARTTLS\nS: {answer}\nC: QUIT"
    async with raw_server(script(play)) as port:
        with pytest.raises(TlsError, match="refused"):
            await Client(HOST, port, deadlines=ClientDeadlines(quit=0.05)).__aenter__()


@pytest.mark.rfc(
    "3207 §4 client-decides-behind-454",
    "3207 §4 session-may-go-on-behind-454",
    "3207 §6 login-alone-need-not-hold-mail-up",
)
async def test_refused_starttls_leaves_clear_where_it_is_opportunistic() -> None:
    play = """
    S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 not now
    C: QUIT\nS: 221 bye
    """
    async with raw_server(script(play)) as port, Client(HOST, port, tls="opportunistic") as client:
        assert client.tls_info is None


async def test_421_to_starttls_is_no_session(tls: Certificates) -> None:
    play = "S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 STARTTLS\nC: STARTTLS\nS: 421 bye"
    async with raw_server(script(play)) as port:
        with pytest.raises(RefusedError, match="421 bye"):
            await Client(HOST, port, tls="opportunistic").__aenter__()


@pytest.mark.rfc(
    "4954 §9 nothing-leaves-where-the-login-is-required",
    "3207 §6 client-can-be-told-to-demand-tls",
)
async def test_required_and_not_offered_sends_nothing_but_quit() -> None:
    heard: list[str] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 AUTH PLAIN")
        heard.append(await wire.hear())
        await wire.say("221 bye")
        heard.append((await wire.rest()).decode())

    async with raw_server(behaviour) as port:
        with pytest.raises(TlsError, match="does not offer STARTTLS"):
            await Client(HOST, port, login=("ann", PASSWORD)).__aenter__()
        await until(lambda: len(heard) == 2)
    assert heard == ["QUIT", ""]


@pytest.mark.rfc(
    "3207 §4.1 either-end-decides-at-once",
    "3207 §4.1 unauthenticated-may-be-too-little",
    "3207 §4.1 whom-to-believe-is-a-local-matter",
    "3207 §6 outcome-of-the-handshake-is-checked",
    "3207 §6 client-can-be-told-to-demand-tls",
    "8689 §2 certificate-is-verified",
)
@pytest.mark.parametrize("implicit", [False, True])
async def test_untrusted_certificate(implicit: bool, box: Box, tls: Certificates) -> None:
    server = Server(box, tls=tls.server, implicit_tls=implicit)
    mode = Tls.IMPLICIT if implicit else Tls.REQUIRED
    async with running(server) as port:
        with pytest.raises(TlsError, match="certificate verify failed"):
            await Client("localhost", port, tls=mode).__aenter__()


@pytest.mark.rfc(
    "3207 §4.1 certificate-has-the-servers-name", "8689 §4.2.1 certificate-names-the-host"
)
async def test_certificate_for_another_host(box: Box, tls: Certificates) -> None:
    async with running(Server(box, tls=tls.wrong_name)) as port:
        with pytest.raises(TlsError, match="Hostname mismatch"):
            await Client("localhost", port, ssl_context=tls.trusting).__aenter__()
        async with Client(
            "localhost", port, ssl_context=tls.trusting, server_name="elsewhere.example"
        ):
            pass


async def test_name_that_no_certificate_can_have(box: Box, tls: Certificates) -> None:
    async with running(Server(box, tls=tls.server)) as port:
        with pytest.raises(TlsError):
            await Client(
                "localhost", port, ssl_context=tls.trusting, server_name=".leading.dot"
            ).__aenter__()


@pytest.mark.parametrize("host", ["two..dots", "a" * 64 + ".example", "nul\0.example"])
async def test_host_that_cannot_be_looked_up(host: str) -> None:
    with pytest.raises(ConnectError):
        await Client(host, 25).__aenter__()


async def test_nobody_listens() -> None:
    with pytest.raises(ConnectError, match="cannot connect"):
        await Client(HOST, free_port()).__aenter__()


@pytest.mark.rfc("3207 §6 nothing-of-before-is-kept")
async def test_client_stops_at_octets_injected_before_the_handshake(tls: Certificates) -> None:
    play = """
    S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 STARTTLS\nC: STARTTLS
    S: 220 go\nS: 250-evil\nS: 250 AUTH PLAIN
    """
    for mode in "required", "opportunistic":
        async with raw_server(script(play)) as port:
            with pytest.raises(ConnectError, match="in clear between the 220"):
                await Client(HOST, port, tls=mode, ssl_context=tls.trusting).__aenter__()


@pytest.mark.rfc("3207 §4.2 server-forgets-what-came-in-clear", "3207 §4.2 server-starts-tls-once")
async def test_server_never_executes_what_was_injected_before_the_handshake(
    box: Box, tls: Certificates
) -> None:
    async with running(Server(box, tls=tls.server)) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO client.example")
        assert await wire.ask("STARTTLS", "MAIL FROM:<evil@example.org>", "NOOP") == (
            "220 2.0.0 Ready to start TLS"
        )
        await wire.start_tls(tls.trusting, server_side=False)
        assert (await wire.ask("RCPT TO:<b@example.net>")).startswith("503")
        assert "STARTTLS" not in await wire.ask("EHLO client.example")
        assert (await wire.ask("STARTTLS")).startswith("503 5.5.1")


@pytest.mark.rfc("3207 §4.2 server-forgets-what-came-in-clear")
async def test_login_and_name_do_not_survive_starttls(box: Box, tls: Certificates) -> None:
    server = Server(box, tls=tls.server, authenticator=Accounts(), plaintext_auth="always")
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO first.example")
        assert (await wire.ask("AUTH LOGIN YW5u")).startswith("334")
        assert (await wire.ask(base64.b64encode(PASSWORD.encode()).decode())).startswith("235")
        await wire.ask("STARTTLS")
        await wire.start_tls(tls.trusting, server_side=False)
        await wire.ask("EHLO second.example")
        await wire.play(
            "C: MAIL FROM:<a@example.org>\nS: 250*\nC: RCPT TO:<b@example.net>\nS: 250*\nC: DATA\n"
            "S: 354*\nC: hi\nC: .\nS: 250*",
            side="C",
        )
    (received,) = box.received
    assert received.session.identity is None
    assert received.session.helo_name == "second.example"


@pytest.mark.parametrize(
    "mechanism",
    [pytest.param(PLAIN, marks=pytest.mark.rfc("4954 §4 plain-over-tls-is-there")), LOGIN],
)
async def test_login(mechanism: object, box: Box, tls: Certificates) -> None:
    server = Server(box, tls=tls.server, authenticator=Accounts())
    async with (
        running(server) as port,
        Client(
            "localhost",
            port,
            ssl_context=tls.trusting,
            login=("ann", PASSWORD),
            mechanisms=[mechanism],  # type: ignore[list-item]  # parametrize knows no types
        ) as client,
    ):
        await client.send(ENVELOPE, MESSAGE)
    assert box.received[0].session.identity == "ann"


@pytest.mark.rfc("4954 §4 long-initial-response-waits")
async def test_initial_response_too_long_for_the_line_waits_for_the_challenge(box: Box) -> None:
    class Long:
        async def verify(self, session: Session, question: Verify) -> bool:
            return question.password == "x" * 600

    lines: list[str] = []
    server = Server(box, authenticator=Long(), plaintext_auth="always")
    async with (
        running(server) as port,
        clear(port, login=("ann", "x" * 600), login_in_clear=True, trace=lines.append),
    ):
        pass
    assert "C: AUTH PLAIN" in lines
    assert "C: ****" in lines


@pytest.mark.rfc("4954 §9 failures-may-end-the-session", "4954 §9 three-tries-are-granted")
async def test_failures_are_counted_and_then_the_session_ends(box: Box) -> None:
    server = Server(
        box, authenticator=Accounts(), plaintext_auth="loopback", failed_login_delay=0.001
    )
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO client.example")
        assert (await wire.ask("AUTH PLAIN AGFubgB3cm9uZw==")).startswith("535 5.7.8")
        assert (await wire.ask("AUTH LOGIN")).startswith("334")
        assert (await wire.ask("*")).startswith("501 5.7.0")
        assert (await wire.ask("AUTH PLAIN")).startswith("334")
        assert await wire.ask("no base64!") == "421 4.7.0 localhost Too many failed logins"
        assert await wire.rest() == b""


async def test_connection_lost_within_the_exchange(box: Box) -> None:
    server = Server(box, authenticator=Accounts(), plaintext_auth="always")
    async with running(server) as port:
        async with await connect(port) as wire:
            await wire.reply()
            await wire.ask("EHLO client.example")
            await wire.ask("AUTH LOGIN")
        async with clear(port, login=("ann", PASSWORD), login_in_clear=True):
            pass


async def test_a_login_goes_by_what_was_offered(box: Box) -> None:
    server = Server(box, authenticator=Accounts(), plaintext_auth="always")
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO client.example")
        server.mechanisms = [LOGIN]
        assert (await wire.ask("AUTH PLAIN AGFubgB4")).startswith("535")
        assert (await wire.ask("EHLO client.example")).count("PLAIN") == 1


@pytest.mark.rfc("4954 §9 nothing-leaves-where-the-login-is-required")
async def test_wrong_password_is_a_login_error(box: Box) -> None:
    server = Server(
        box, authenticator=Accounts(), plaintext_auth="always", failed_login_delay=0.001
    )
    async with running(server) as port:
        with pytest.raises(LoginError, match=r"535 5\.7\.8") as caught:
            await clear(port, login=("ann", "wrong"), login_in_clear=True).__aenter__()
    assert caught.value.reply.code == 535


@pytest.mark.rfc("4954 §6 suggested-statuses", "4954 §6 454-is-temporary-failure")
async def test_authenticator_that_fails_is_a_temporary_failure(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def verify(self, session: Session, question: Verify) -> bool:
            raise RuntimeError("the database said something private")

    server = Server(box, authenticator=Broken(), plaintext_auth="always", failed_login_delay=0.001)
    async with running(server) as port:
        with pytest.raises(LoginError, match=r"454 4\.7\.0 Temporary failure"):
            await clear(port, login=("ann", PASSWORD), login_in_clear=True).__aenter__()
    assert "something private" in caplog.text
    assert PASSWORD not in caplog.text


@pytest.mark.rfc("4954 §9 shown-secrets-need-tls")
async def test_no_password_leaves_in_clear() -> None:
    heard: list[bytes] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 AUTH PLAIN LOGIN\nC: QUIT")
        await wire.say("221 bye")
        await wire.rest()
        heard.append(b"".join(wire.reads))

    async with raw_server(behaviour) as port:
        for mode in "none", "opportunistic":
            with pytest.raises(TlsError, match="password in clear"):
                await Client(HOST, port, tls=mode, login=("ann", PASSWORD)).__aenter__()
        await until(lambda: len(heard) == 2)
    assert b"AUTH" not in b"".join(heard)


@pytest.mark.parametrize(
    ("play", "answers"),
    [
        # A challenge that is no base64, and one behind the last response, are cancelled (§4).
        ("C: AUTH LOGIN\nS: 334 no base64\nC: [*]\nS: 501 5.7.0 cancelled", LOGIN),
        ("C: AUTH PLAIN *\nS: 334 \nC: [*]\nS: 501 5.7.0 cancelled", PLAIN),
        ("C: AUTH PLAIN *\nS: 421 4.7.0 enough", PLAIN),
    ],
)
async def test_odd_servers_are_no_way_in(play: str, answers: object) -> None:
    opening = "S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 AUTH PLAIN LOGIN\n"
    async with raw_server(script(opening + play)) as port:
        with pytest.raises(LoginError):
            await clear(
                port,
                login=("ann", PASSWORD),
                login_in_clear=True,
                mechanisms=[answers],
                deadlines=ClientDeadlines(quit=0.05),
            ).__aenter__()


@pytest.mark.rfc("4954 §4 no-passwords-in-clear-can-be-had", "4954 §6 not-advertised-in-clear")
@pytest.mark.parametrize(
    ("setting", "offered"), [("never", False), ("loopback", True), ("always", True)]
)
async def test_plaintext_auth_is_offered_where_it_would_work(
    setting: str, offered: bool, box: Box, tls: Certificates
) -> None:
    server = Server(
        box,
        tls=tls.server,
        authenticator=Accounts(),
        failed_login_delay=0.001,
        plaintext_auth=setting,  # type: ignore[arg-type]  # parametrize knows no types
    )
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        assert ("AUTH PLAIN LOGIN" in await wire.ask("EHLO client.example")) is offered
        reply = await wire.ask("AUTH PLAIN AGFubgB3")
        assert reply.startswith("535" if offered else "504 5.5.4")


@pytest.mark.parametrize(
    ("address", "allowed"), [("127.8.8.8", True), ("::1", True), ("192.0.2.1", False), ("", False)]
)
def test_loopback_is_told_by_address(address: str, allowed: bool, box: Box) -> None:
    server = Server(box, plaintext_auth="loopback")
    assert server.plaintext_allowed(Session(1, (address, 1), ("127.0.0.1", 25))) is allowed


async def test_auth_is_not_offered_without_an_authenticator(box: Box) -> None:
    async with running(Server(box, plaintext_auth="always")) as port, clear(port) as client:
        assert "AUTH" not in client.offered


@pytest.mark.parametrize(
    "make",
    [
        lambda box: Server(box, "no domain at all"),
        lambda box: Server(box, implicit_tls=True),
    ],
)
def test_server_refuses_settings_that_cannot_work(make: Callable[[Box], Server], box: Box) -> None:
    with pytest.raises(LocalProtocolError):
        make(box)


async def test_greeting_may_refuse() -> None:
    async with raw_server(script("S: 554 no service\nC: QUIT\nS: 221 bye")) as port:
        with pytest.raises(RefusedError) as caught:
            await clear(port).__aenter__()
    assert caught.value.reply == Reply(554, None, "no service")
    assert caught.value.step == "greeting"


@pytest.mark.rfc("5321 §3.2 client-falls-back-to-helo", "5321 §2.2.1 helo-is-there-as-a-fallback")
async def test_helo_is_the_fall_back() -> None:
    async def behaviour(wire: Wire) -> None:
        await wire.play(
            """
            S: 220 hi\nC: EHLO me.example\nS: 502 what?\nC: HELO me.example\nS: 250 hi
            C: MAIL FROM:<ann@example.org>\nS: 250 ok\nC: RCPT TO:<bob@example.net>\nS: 250 ok
            C: DATA\nS: 354 go
            """
        )
        assert await wire.hear_content() == ["Subject: hello", "", "..a dot", "and the end"]
        await wire.play("S: 250 ok\nC: QUIT\nS: 221 bye")
        await wire.rest()

    async with raw_server(behaviour) as port, clear(port, helo_name="me.example") as client:
        assert client.offered == {}
        await client.send(ENVELOPE, MESSAGE)


@pytest.mark.parametrize("answer", ["421 bye", "451 later"])
async def test_helo_is_not_tried_where_ehlo_fails_for_now(answer: str) -> None:
    async with raw_server(script(f"S: 220 hi\nC: EHLO *\nS: {answer}")) as port:
        with pytest.raises(RefusedError, match="EHLO"):
            await clear(port, deadlines=ClientDeadlines(quit=0.05)).__aenter__()
