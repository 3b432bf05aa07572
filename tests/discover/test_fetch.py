"""The real fetcher against a web server on loopback: what it takes, and what it does not."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.streams.tls import TLSListener
from attrs import define, field

from smtpproto.discover import FetchError, HttpxFetcher
from tests.adapters.world import until
from tests.peers.programs import free_port

from .world import Authority

pytestmark = pytest.mark.anyio

MOST = 1000
CHUNK = b"200\r\n%b\r\n" % (b"x" * 512)


@define
class Web:
    """A web server: path -> its response, octets; None is silence. `asked` keeps requests."""

    pages: dict[str, bytes | None]
    port: int = 0
    asked: list[bytes] = field(factory=list)

    async def serve(self, stream: ByteStream) -> None:
        async with stream:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                try:
                    request += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return
            self.asked.append(request)
            response = self.pages.get(request.split()[1].decode(), b"HTTP/1.1 404 No\r\n\r\n")
            if response is None:
                await anyio.sleep_forever()
            else:
                with suppress(anyio.BrokenResourceError):  # they may have had enough
                    await stream.send(response)

    def url(self, path: str) -> str:
        return f"https://localhost:{self.port}{path}"


@asynccontextmanager
async def web(
    authority: Authority, pages: dict[str, bytes | None], *, names: tuple[str, ...] = ("localhost",)
) -> AsyncIterator[Web]:
    server = Web(pages)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    server.port = listener.extra(anyio.abc.SocketAttribute.local_port)
    context = authority.context(*names)
    secure = TLSListener(listener, context, standard_compatible=False, handshake_timeout=60)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(secure.serve, server.serve)
        with anyio.fail_after(60):
            yield server
        tasks.cancel_scope.cancel()


def page(body: bytes, *headers: bytes) -> bytes:
    head = [b"HTTP/1.1 200 OK", *headers, b"Content-Length: %d" % len(body), b"", b""]
    return b"\r\n".join(head) + body


def leads_to(location: str, code: int = 302) -> bytes:
    return (f"HTTP/1.1 {code} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").encode()


async def test_a_file(authority: Authority) -> None:
    async with web(authority, {"/mail/x.xml?emailaddress=a@b": page(b"<x/>")}) as server:
        fetch = HttpxFetcher(authority.trusting())
        assert await fetch(server.url("/mail/x.xml?emailaddress=a@b"), MOST) == b"<x/>"
    (request,) = server.asked
    assert b"\r\nAccept-Encoding: identity\r\n" in request
    assert b"Cookie" not in request
    assert b"Authorization" not in request


async def test_no_such_file_is_an_answer(authority: Authority) -> None:
    async with web(authority, {}) as server:
        with pytest.raises(FetchError, match="404") as caught:
            await HttpxFetcher(authority.trusting())(server.url("/"), MOST)
    assert not caught.value.failed


async def test_redirects_by_https_are_followed(authority: Authority) -> None:
    pages = {"/a": leads_to("/b"), "/b": leads_to("c"), "/c": page(b"here")}
    async with web(authority, dict(pages)) as server:
        assert await HttpxFetcher(authority.trusting())(server.url("/a"), MOST) == b"here"


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://localhost:{port}/c", "leads to http"),
        ("file:///etc/passwd", "leads to file"),
    ],
)
async def test_redirects_to_anything_else_are_not(
    authority: Authority, location: str, words: str
) -> None:
    async with web(authority, {"/c": page(b"here")}) as server:
        server.pages["/a"] = leads_to(location.format(port=server.port))
        with pytest.raises(FetchError, match=words):
            await HttpxFetcher(authority.trusting())(server.url("/a"), MOST)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "location",
    [
        *(
            "https://[/",
            "https://",
            "https:",
            "https://a..example/",
            "https://xn--zzzzzz--.example/",
        ),
        *("https://localhost:99999/", "https://localhost:x/", "https://\xff\x00/", "https://@/"),
        *("//" + "a" * 300 + ".example/", "https://localhost:0/", "https://127.0.0.1/"),
    ],
)
async def test_redirects_to_nowhere_are_no_file(authority: Authority, location: str) -> None:
    async with web(authority, {"/a": leads_to(location)}) as server:
        with pytest.raises(FetchError):
            await HttpxFetcher(authority.trusting())(server.url("/a"), MOST)
    assert len(server.asked) == 1


async def test_nor_is_what_is_http_to_begin_with() -> None:
    with pytest.raises(FetchError, match="leads to http"):
        await HttpxFetcher()(f"http://127.0.0.1:{free_port()}/", MOST)


async def test_redirects_in_a_circle_end(authority: Authority) -> None:
    async with web(authority, {"/a": leads_to("/a")}) as server:
        with pytest.raises(FetchError, match="more than 5 times"):
            await HttpxFetcher(authority.trusting())(server.url("/a"), MOST)
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    "response",
    [
        page(b"x" * (MOST + 1)),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"200\r\n%b\r\n" % (b"x" * 512) * 3,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 70_000,
    ],
)
async def test_what_is_too_long_is_not_read_to_its_end(
    authority: Authority, response: bytes
) -> None:
    async with web(authority, {"/": response}) as server:
        with pytest.raises(FetchError, match=f"more than {MOST} octets"):
            await HttpxFetcher(authority.trusting())(server.url("/"), MOST)


async def test_of_the_greatest_length_it_is_taken(authority: Authority) -> None:
    async with web(authority, {"/": page(b"x" * MOST)}) as server:
        assert len(await HttpxFetcher(authority.trusting())(server.url("/"), MOST)) == MOST


async def test_what_is_packed_is_not_unpacked(authority: Authority) -> None:
    packed = page(gzip.compress(b"\0" * 10_000_000)[:900], b"Content-Encoding: gzip")
    async with web(authority, {"/": packed}) as server:
        with pytest.raises(FetchError, match="packed"):
            await HttpxFetcher(authority.trusting())(server.url("/"), MOST)


@pytest.mark.parametrize(
    "response", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_what_is_no_http_is_no_answer(authority: Authority, response: bytes) -> None:
    async with web(authority, {"/": response}) as server:
        with pytest.raises(FetchError, match="no answer") as caught:
            await HttpxFetcher(authority.trusting())(server.url("/"), MOST)
    assert caught.value.failed


async def test_the_server_is_verified(authority: Authority) -> None:
    async with web(authority, {"/": page(b"x")}, names=("example.org",)) as server:
        with pytest.raises(FetchError, match="certificate"):
            await HttpxFetcher(authority.trusting())(server.url("/"), MOST)
    async with web(authority, {"/": page(b"x")}) as server:
        with pytest.raises(FetchError, match="certificate"):
            await HttpxFetcher()(server.url("/"), MOST)
        assert not server.asked


async def test_nobody_there() -> None:
    with pytest.raises(FetchError, match="no answer") as caught:
        await HttpxFetcher()(f"https://localhost:{free_port()}/", MOST)
    assert caught.value.failed
    with pytest.raises(FetchError):
        await HttpxFetcher()("https://nosuch.invalid/", MOST)


async def test_whoever_waits_can_be_cancelled(authority: Authority) -> None:
    async with web(authority, {"/": None}) as server, anyio.create_task_group() as tasks:
        tasks.start_soon(HttpxFetcher(authority.trusting()), server.url("/"), MOST)
        await until(lambda: bool(server.asked))
        tasks.cancel_scope.cancel()
