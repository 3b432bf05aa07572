"""What callers get wrong with a client is said in words, and harms no mail and no socket."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from email.message import EmailMessage
from functools import partial
from typing import Any, cast

import anyio
import pytest

from smtpproto import STANDARD, Envelope, LocalProtocolError, Mail, Noop, Rcpt, blocking
from smtpproto.client import Client, ClientDeadlines
from smtpproto.extensions.limits import LIMITS, Maxima, limits
from smtpproto.pool import Pool
from smtpproto.result import ClientError, ConnectError, Fate, Outcome, Result, TlsError
from smtpproto.server import Server
from smtpproto.source import Source
from tests.peers.programs import free_port

from .test_cancel import Recording, closed
from .wire import raw_server, silence
from .world import ENVELOPE, MESSAGE, Box, Certificates, clear, running, session, until

pytestmark = pytest.mark.anyio


# Outside the block


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.send(ENVELOPE, MESSAGE),
        lambda client: client.deliver(ENVELOPE, MESSAGE),
        lambda client: client.command(Noop()),
    ],
)
async def test_before_it_is_entered_there_is_no_session(
    use: Callable[[Client], Awaitable[object]],
) -> None:
    with pytest.raises(ClientError, match="no session: it begins with `async with`"):
        await use(clear(25))


@pytest.mark.parametrize("name", ["offered", "tls_info", "stream", "usable"])
async def test_nor_is_there_anything_to_be_known_of_it(name: str) -> None:
    with pytest.raises(ClientError, match="no session"):
        getattr(clear(25), name)


async def test_closing_what_was_never_open_does_nothing(box: Box) -> None:
    await clear(25).aclose()
    async with session(Server(box)) as client:
        await client.aclose()
        await client.aclose()
        with pytest.raises(ClientError, match="is over"):
            await client.send(ENVELOPE, MESSAGE)


# Twice


async def test_it_is_not_opened_twice_at_a_time(box: Box) -> None:
    """The session that it has would be lost, and its socket left open."""
    connector = Recording()
    server = Server(box)
    async with running(server) as port:
        client = clear(port, connector=connector)
        for _ in range(2):  # but one time after the other
            async with client:
                with pytest.raises(ClientError, match="open already"):
                    await client.__aenter__()
                await client.send(ENVELOPE, MESSAGE)
        await until(lambda: not server.connections)
        assert len(connector.streams) == 2
        assert all(map(closed, connector.streams))


async def test_nor_while_it_is_being_opened() -> None:
    async def connector(host: str, port: int) -> anyio.abc.ByteStream:
        await anyio.sleep_forever()
        raise AssertionError

    client = clear(25, connector=connector)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.__aenter__)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ClientError, match="open already"):
            await client.__aenter__()
        tasks.cancel_scope.cancel()


async def test_what_failed_to_open_may_be_opened_again(box: Box) -> None:
    client = clear(free_port())
    with pytest.raises(ConnectError):
        await client.__aenter__()
    async with running(Server(box)) as port:
        client.port = port
        async with client:
            await client.send(ENVELOPE, MESSAGE)


def to_eve() -> Envelope:
    return Envelope("ann@example.org", ["eve@example.net"])


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.deliver(to_eve(), MESSAGE),
        lambda client: client.command(Noop()),
    ],
)
async def test_it_is_for_one_task_at_a_time(
    use: Callable[[Client], Awaitable[object]], box: Box
) -> None:
    """Content waits for the caller, no reply is owed: what came between would go to others."""
    begun, go = anyio.Event(), anyio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield MESSAGE * 3000
        begun.set()
        await go.wait()
        yield MESSAGE

    async with session(Server(box)) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.deliver, ENVELOPE, pieces())
        await begun.wait()
        with pytest.raises(RuntimeError, match="another task is using this session"):
            await use(client)
        go.set()
    (received,) = box.received
    assert received.envelope.forward_paths == ENVELOPE.forward_paths
    assert received.content == MESSAGE * 3001


async def test_another_task_may_close_it(box: Box) -> None:
    """Who uses it hears that; nothing is said to the server in the midst of a transaction."""
    begun = anyio.Event()
    outcomes: list[str] = []
    said: list[str] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield MESSAGE * 3000
        begun.set()
        await until(lambda: client.stream.closed)  # type: ignore[attr-defined]  # a wire's
        yield MESSAGE

    async def one() -> None:
        result = await client.deliver(ENVELOPE, pieces())
        outcomes.append(result.outcomes[0].fate.value)

    async with (
        session(Server(box), trace=said.append) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(one)
        await begun.wait()
        await client.aclose()
    assert outcomes == ["transient"]
    assert "C: QUIT" not in said
    assert not box.received


async def test_a_pool_whose_function_gives_the_same_client_again_says_so(box: Box) -> None:
    async with running(Server(box)) as port:
        client = clear(port)
        async with Pool(lambda: client, each=2) as pool, anyio.create_task_group() as tasks:
            for _ in range(9):
                tasks.start_soon(pool.send, ENVELOPE, MESSAGE)
    assert [received.session.id for received in box.received] == [1] * 9


# Content


async def strings() -> AsyncIterator[str]:
    yield "Subject: x\r\n"


@pytest.mark.parametrize(
    "content",
    [
        lambda: io.StringIO("Subject: x\r\n"),
        lambda: io.StringIO("Subject: x\r\n" * 10_000),
        lambda: io.StringIO("x" * 65_536),
        strings,
    ],
)
async def test_content_comes_in_octets(content: Callable[[], object], box: Box) -> None:
    async with session(Server(box)) as client:
        with pytest.raises(TypeError, match="pieces of content are bytes, not str"):
            await client.deliver(ENVELOPE, content())  # type: ignore[arg-type]  # the point
        assert await client.send(ENVELOPE, MESSAGE)


# What is shown


async def test_what_is_shown_of_a_pool_holds_no_secret(box: Box) -> None:
    async with running(Server(box)) as port:
        pool = Pool(partial(clear, port, login=("ann", "sëcret")))
        assert "sëcret" not in repr(pool)
        async with pool, pool.send_many([(ENVELOPE, MESSAGE)]) as outcomes:
            sent = await anext(outcomes)
    assert "Subject: hello" not in repr(sent)
    assert "Subject: hello" not in repr(Source(MESSAGE))
    assert "<bob@example.net>" in str(sent.result)


# Arguments


@pytest.mark.parametrize("envelope", [("ann@example.org", ["bob@example.net"]), MESSAGE, None])
async def test_an_envelope_comes_first(envelope: object, box: Box) -> None:
    """Also where the pool looks at it before a session does (RCPTDOMAINMAX, RFC 9422)."""
    offer = [each for each in STANDARD if each is not LIMITS and not each.obliges]
    server = Server(box, offer=[*offer, limits(Maxima(rcpt_domain=3))])
    async with (
        running(server) as port,
        Pool(lambda: clear(port), each=1) as pool,
        clear(port) as client,
    ):
        for sender in (client, pool):
            await sender.send(ENVELOPE, MESSAGE)
            with pytest.raises(TypeError, match="an Envelope comes first, not builtins"):
                await sender.send(envelope, MESSAGE)  # type: ignore[arg-type]  # the point
            await sender.send(ENVELOPE, MESSAGE)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (EmailMessage(), "a message is a tuple.*not email.message.EmailMessage"),
        ((MESSAGE, ENVELOPE), "an Envelope comes first, not builtins.bytes"),
    ],
)
async def test_what_is_no_message_ends_many(wrong: object, match: str, box: Box) -> None:
    """Behind what became of those before; by an error that is in no group."""
    source: list[object] = [(ENVELOPE, MESSAGE)] * 3 + [wrong] + [(ENVELOPE, MESSAGE)] * 30
    told: list[int] = []

    async def take(pool: Pool[()]) -> None:
        async with pool.send_many(cast("Any", source), concurrency=2) as outcomes:
            async for sent in outcomes:
                assert sent
                told.append(sent.number)

    async with running(Server(box)) as port, Pool(lambda: clear(port)) as pool:
        with pytest.raises(TypeError, match=match):
            await take(pool)
        await pool.send(ENVELOPE, MESSAGE)
    assert set(told) >= {0, 1, 2}
    assert len(told) == len(box.received) - 1 < 10


async def connecting() -> Client:
    return clear(25)


async def test_a_pool_s_function_returns_a_client() -> None:
    coroutine = connecting()
    for wrong in (coroutine, blocking.Client("127.0.0.1"), None):
        async with Pool(cast("Callable[[], Client]", lambda wrong=wrong: wrong)) as pool:
            with pytest.raises(TypeError, match=r"a pool's function returns a Client, not \w+"):
                await pool.send(ENVELOPE, MESSAGE)
    coroutine.close()


def test_as_does_that_of_a_blocking_one() -> None:
    function = cast("Callable[[], blocking.Client]", lambda: clear(25))
    with (
        blocking.Pool(function) as pool,
        pytest.raises(TypeError, match=r"smtpproto\.blocking\.Client, not smtpproto\.client\.Cli"),
    ):
        pool.send(ENVELOPE, MESSAGE)


@pytest.mark.parametrize("login", ["sëcret", "me", ("me",), ("ann", "sëcret", "more"), 7])
def test_a_login_is_a_pair(login: object) -> None:
    with pytest.raises(TypeError, match=r"\(username, password\), or Credentials") as caught:
        Client("localhost", login=login)  # type: ignore[arg-type]  # the point
    assert "sëcret" not in str(caught.value)
    Client("localhost", login=["ann", "sëcret"])  # type: ignore[arg-type]  # as from a file


def test_how_tls_begins_is_one_of_four() -> None:
    with pytest.raises(ValueError, match="required, opportunistic, implicit, none, not 'starttls'"):
        Client("localhost", tls="starttls")


# Hints


async def test_tls_where_none_is_spoken_and_none_where_it_is(box: Box, tls: Certificates) -> None:
    async with running(Server(box)) as port:
        client = Client("localhost", port, tls="implicit", ssl_context=tls.trusting)
        with pytest.raises(TlsError, match="begin by STARTTLS, tls='required'"):
            await client.__aenter__()
        with pytest.raises(TlsError, match=r"not offer STARTTLS .*tls='implicit'.*tls='none'"):
            await Client("localhost", port, ssl_context=tls.trusting).__aenter__()
    deadlines = ClientDeadlines(greeting=0.05)
    async with raw_server(silence) as port:
        with pytest.raises(ConnectError, match=r"greeting deadline.*tls='implicit'\?"):
            await clear(port, deadlines=deadlines).__aenter__()


async def test_a_bare_line_end_is_told_with_the_remedy(box: Box) -> None:
    async with session(Server(box)) as client:
        with pytest.raises(LocalProtocolError, match="text and messages get their CRLF"):
            await client.send(ENVELOPE, b"Subject: x\n\nhi\n")


# Again


async def test_an_envelope_for_those_to_try_again(box: Box) -> None:
    """With their parameters; never those who may have it (RFC 1047)."""
    rcpts = ["bob@example.net", "no-one@example.net", "later-on@example.net", "later-@example.net"]
    envelope = Envelope(Mail("ann@example.org", {"SIZE": b"9"}), [Rcpt(each) for each in rcpts])
    async with session(Server(box)) as client:
        result = await client.deliver(envelope, MESSAGE)
        again = result.again(envelope)
        assert again is not None
        assert again.mail == envelope.mail
        assert again.rcpts == envelope.rcpts[2:]
        assert not (await client.deliver(again, MESSAGE)).any_accepted
        result = await client.deliver(ENVELOPE, MESSAGE)
        assert result.again(ENVELOPE) is None
        with pytest.raises(ValueError, match="zip"):
            result.again(envelope)
    unknown = Result((Outcome(ENVELOPE.forward_paths[0], Fate.UNKNOWN),))
    assert unknown.again(ENVELOPE) is None
