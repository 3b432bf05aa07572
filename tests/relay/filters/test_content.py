"""Filters that look at the content: its header, what rspamd says of it, and how it is held."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.abc
import httpx
import pytest
from anyio.abc import SocketStream
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.core.command import Rcpt
from smtpproto.relay.filters import HeaderSanity, Quarantine, Refuse, Stage, Tag
from smtpproto.relay.filters.held import IN_MEMORY, Held
from smtpproto.relay.filters.rspamd import LONGEST, Rspamd
from smtpproto.relay.filters.sanity import fault_of
from tests.relay.filters.seen import holding, seen

pytestmark = pytest.mark.anyio

GOOD = b"From: a@b.example\r\nDate: Tue, 14 Nov 2023 12:00:00 +0000\r\nSubject: x\r\n\r\nbody\r\n"


async def test_what_is_held_is_read_as_often_as_one_likes_from_memory_and_file() -> None:
    for size in (0, 10, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY + 12345):
        octets = bytes(range(256)) * (size // 256 + 1)
        octets = octets[:size]
        async with await holding(octets, cut=70_000) as held:
            for _ in range(2):
                chunks = [chunk async for chunk in held.chunks()]
                assert b"".join(chunks) == octets
                assert all(0 < len(chunk) <= 1 << 16 for chunk in chunks)
            assert held.octets == size
            assert await held.beginning(100) == octets[:100]


async def test_only_so_much_of_it_is_in_memory() -> None:
    async with Held() as held:
        for _ in range(64):
            await held.write(b"x" * 65536)
            assert len(held._memory) <= IN_MEMORY


@pytest.mark.rfc("5322 §3.6", "5322 §2.1.1", "5322 §2.2")
@pytest.mark.parametrize(
    ("header", "fault"),
    [
        (GOOD, None),
        (GOOD.replace(b"\r\n", b"\n"), None),
        (GOOD.replace(b"From:", b"fRoM \t:"), None),
        (GOOD.replace(b"Subject: x", b"Subject: x\r\n folded: on"), None),
        (GOOD.replace(b"Date: Tue, 14", b"Date:\r\n Tue,\r\n\t14"), None),
        (GOOD.replace(b"+0000", b"+0000\r\n (CET)"), None),
        (b"", "no field From"),
        (GOOD.replace(b"From: a@b.example\r\n", b""), "no field From"),
        (GOOD.replace(b"Subject", b"From"), "2 fields From"),
        (GOOD.replace(b"Subject", b"Date"), "2 fields Date"),
        (GOOD.replace(b"Date", b"Data"), "no field Date"),
        (GOOD.replace(b"Tue, 14 Nov 2023", b"yesterday"), "a Date that is no date"),
        (GOOD.replace(b"Subject: x", b"what is this"), "a line is no field"),
        (b" folded\r\n" + GOOD, "a line is no field"),  # of which it would be the rest
        (
            GOOD.replace(b"Subject: x", b"Subject: " + b"x" * 1000),
            "a line has more than 998 octets",
        ),
        (b"From: x\r\n" * (1 << 16), "it has more than 262144 octets"),
    ],
)
async def test_a_header_is_one_or_is_at_fault(header: bytes, fault: str | None) -> None:
    content = await holding(header, cut=50_000)
    answer = await HeaderSanity().judge(Stage.CONTENT, seen(content=content))
    if fault is None:
        assert answer is None
    else:
        assert isinstance(answer, Refuse)
        assert str(answer.reply) == f"550 5.6.0 The header is at fault: {fault}"
        tagging = HeaderSanity(does="tag")
        assert await tagging.judge(Stage.CONTENT, seen(content=content)) == Tag(fault)
    await content.__aexit__(None, None, None)


@given(
    st.binary(max_size=300) | st.text(max_size=100).map(lambda t: b"From: x\r\nDate: " + t.encode())
)
def test_no_header_breaks_the_look_at_it(octets: bytes) -> None:
    fault = fault_of(octets, whole=len(octets))
    assert fault is None or fault.isascii()


def rspamd(answer: Any, status: int = 200, **settings: Any) -> tuple[Rspamd, list[httpx.Request]]:
    requests: list[httpx.Request] = []

    async def respond(request: httpx.Request) -> httpx.Response:
        await request.aread()
        requests.append(request)
        return httpx.Response(status, content=json.dumps(answer))

    transport = httpx.MockTransport(respond)
    return Rspamd(
        "http://127.0.0.1:11333/", "mx.our.dom", transport=transport, **settings
    ), requests


async def test_rspamd_is_told_what_is_known() -> None:
    one, requests = rspamd({"action": "no action", "score": 1.5, "required_score": 15})
    looked = seen(content=await holding(GOOD), identity="ann", id="ID1")
    looked.rcpts = (Rcpt("bob@our.dom"), Rcpt("eve@our.dom"))
    assert await one.judge(Stage.CONTENT, looked) == Tag("no action, 1.5 of 15")
    (request,) = requests
    assert (str(request.url), request.content) == ("http://127.0.0.1:11333/checkv2", GOOD)
    said = [(name.lower(), value) for name, value in request.headers.raw]
    for name, value in [
        (b"ip", b"192.0.2.7"),
        (b"helo", b"client.example"),
        (b"user", b"ann"),
        (b"from", b"ann@there.example"),
        (b"queue-id", b"ID1"),
        (b"mta-name", b"mx.our.dom"),
        (b"content-length", b"%d" % len(GOOD)),
    ]:
        assert (name, value) in said
    assert [value for name, value in said if name == b"rcpt"] == [b"bob@our.dom", b"eve@our.dom"]


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        ("add header", Tag),
        ("rewrite subject", Tag),
        ("greylist", Tag),
        ("soft reject", 451),
        ("reject", 554),
        ("quarantine", Quarantine),
        ("discard", Quarantine),
    ],
)
async def test_what_rspamd_wants_is_done(action: str, answer: Any) -> None:
    said = {"action": action, "score": 6, "required_score": 15, "symbols": {"B": {}, "A": {}}}
    found = await rspamd(said)[0].judge(Stage.CONTENT, seen(content=await holding(GOOD)))
    if isinstance(answer, int):
        assert isinstance(found, Refuse)
        assert found.reply.code == answer
    else:
        assert isinstance(found, answer)
    assert found is not None
    assert found.reason == f"{action}, 6 of 15: A B"


async def test_what_is_rejected_is_held_where_that_is_wanted() -> None:
    one, _ = rspamd({"action": "reject"}, quarantine=True)
    answer = await one.judge(Stage.CONTENT, seen(content=await holding(GOOD)))
    assert isinstance(answer, Quarantine)


@pytest.mark.parametrize(
    ("answer", "status"),
    [({}, 200), ({"action": "sing"}, 200), ({"action": "reject"}, 500), ([], 200)],
)
async def test_an_answer_that_is_none_is_a_failure(answer: Any, status: int) -> None:
    one, _ = rspamd(answer, status)
    with pytest.raises((httpx.HTTPError, ValueError, KeyError, TypeError)):
        await one.judge(Stage.CONTENT, seen(content=await holding(GOOD)))


async def test_an_answer_without_end_is_not_read_to_it() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 65536
            await anyio.lowlevel.checkpoint()  # as from a socket
            yield b" " * 65536

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=endless()))
    one = Rspamd("http://127.0.0.1:11333", "mx.our.dom", transport=transport)
    with pytest.raises(ValueError, match="more than"):
        await one.judge(Stage.CONTENT, seen(content=await holding(GOOD)))
    assert read <= LONGEST + 2 * 65536


async def test_no_proxy_of_the_environments_sees_the_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def answer(stream: SocketStream) -> None:
        async with stream:
            asked.append((await stream.receive()).split(b"\r\n")[0].decode())
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n")
            await stream.send(b'{"action": "no action" }')

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        one = Rspamd(f"http://127.0.0.1:{port}", "mx.our.dom")
        answered = await one.judge(Stage.CONTENT, seen(content=await holding(GOOD)))
        tasks.cancel_scope.cancel()
    assert isinstance(answered, Tag)
    assert asked == ["POST /checkv2 HTTP/1.1"]


async def test_a_message_too_large_for_it_is_not_shown() -> None:
    one, requests = rspamd({"action": "reject"}, largest=10)
    assert await one.judge(Stage.CONTENT, seen(content=await holding(GOOD))) is None
    assert requests == []


async def test_nothing_of_a_peers_begins_another_line_of_the_request() -> None:
    one, requests = rspamd({"action": "no action"})
    await one.judge(Stage.CONTENT, seen(helo="x\r\nUser: root", content=await holding(GOOD)))
    (request,) = requests
    assert request.headers["helo"] == "x??User: root"
    assert "user" not in request.headers


def test_a_relay_alone_needs_no_httpx() -> None:
    """It is in the extra `rspamd`, and not in `relay`."""
    code = "import sys, smtpproto.relay.filters; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
