"""What a node tells of itself over HTTP: `/metrics`, `/health` and `/ready`. Needs `metrics`.

HTTP is h11's affair; here are the bounds: few connections, one small request on each, and seconds
for it. There is no way to change anything.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
import h11
from anyio.abc import Listener, SocketStream
from attrs import frozen

from smtpproto.relay.metrics import CONTENT_TYPE

from .running import NotNowError

__all__ = ["Monitor", "Watched"]

log = logging.getLogger(__name__)

#: Seconds for a request and its answer.
PATIENCE = 10.0
#: Connections at a time; another one waits to be accepted.
AT_ONCE = 8
#: Octets of a request.
LARGEST = 8192
TEXT = "text/plain; charset=utf-8"


class Watched(Protocol):
    """What is asked: a node, however many processes it has."""

    async def metrics(self) -> bytes:
        """Return its numbers as `relay.metrics` writes them. NotNowError."""
        ...

    async def must_be_ready(self) -> None:
        """Do nothing if all of it listens and can keep mail; else raise NotNowError."""
        ...


@frozen
class Monitor:
    """Answers on a port what there is to know of a node."""

    watched: Watched

    async def serve(self, listener: Listener[SocketStream]) -> None:
        """Answer whoever comes there, until cancellation."""
        places = anyio.CapacityLimiter(AT_ONCE)

        async def visit(stream: SocketStream) -> None:
            async with stream, places:
                with anyio.move_on_after(PATIENCE):
                    try:
                        await self._answer(stream)
                    except (anyio.BrokenResourceError, anyio.EndOfStream, h11.ProtocolError):
                        pass
                    except Exception:
                        log.exception("a question about the node could not be answered")

        await listener.serve(visit)

    async def _answer(self, stream: SocketStream) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST)
        code, kind, body, asked = 400, TEXT, b"bad request\n", b""
        try:
            while (event := http.next_event()) is h11.NEED_DATA:
                try:
                    http.receive_data(await stream.receive())
                except anyio.EndOfStream:
                    http.receive_data(b"")
            if isinstance(event, h11.Request):
                asked = event.method
                code, kind, body = await self._say(event)
            elif isinstance(event, h11.ConnectionClosed):
                return
        except h11.RemoteProtocolError as error:
            code = error.error_status_hint
        headers = [
            ("content-type", kind),
            ("content-length", str(len(body))),
            ("cache-control", "no-store"),
            ("connection", "close"),
        ]
        if code == 405:
            headers.append(("allow", "GET, HEAD"))
        octets = http.send(h11.Response(status_code=code, headers=headers)) or b""
        if asked != b"HEAD":
            octets += http.send(h11.Data(data=body)) or b""
        await stream.send(octets)

    async def _say(self, request: h11.Request) -> tuple[int, str, bytes]:
        """Return status, media type and body of an answer."""
        if request.method not in {b"GET", b"HEAD"}:
            return 405, TEXT, b"there is only something to read here\n"
        pages: dict[bytes, Callable[[], Awaitable[tuple[int, str, bytes]]]] = {
            b"/metrics": self._metrics,
            b"/health": self._health,
            b"/ready": self._ready,
        }
        page = pages.get(request.target.partition(b"?")[0])
        if page is None:
            return 404, TEXT, b"there are /metrics, /health and /ready\n"
        return await page()

    async def _metrics(self) -> tuple[int, str, bytes]:
        try:
            return 200, CONTENT_TYPE, await self.watched.metrics()
        except NotNowError as error:
            return 503, TEXT, f"{error}\n".encode()

    async def _health(self) -> tuple[int, str, bytes]:
        """Say that the event loop turns."""
        return 200, TEXT, b"alive\n"

    async def _ready(self) -> tuple[int, str, bytes]:
        try:
            await self.watched.must_be_ready()
        except NotNowError as error:
            return 503, TEXT, f"{error}\n".encode()
        return 200, TEXT, b"ready\n"
