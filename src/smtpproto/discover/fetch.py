"""Files from web servers: `Fetcher` is the seam, `HttpxFetcher` asks real ones."""

from __future__ import annotations

import socket
import ssl
from typing import Protocol

import anyio
import httpx
from anyio import to_thread

from smtpproto.security import verifying
from smtpproto.stream import causes

from .account import host_name

__all__ = ["FetchError", "Fetcher", "HttpxFetcher"]

MAX_REDIRECTS = 5


class FetchError(Exception):
    """There is no such file; `failed` where nobody could be asked."""

    def __init__(self, reason: str, *, failed: bool = False) -> None:
        super().__init__(reason)
        self.failed = failed


class Fetcher(Protocol):
    """Gets a file by HTTPS, the server verified."""

    async def __call__(self, url: str, most: int) -> bytes:
        """Return the file at `url`; FetchError where there is none, or of over `most` octets.

        How long that may take is the caller's affair, who cancels. What redirects to anything but
        HTTPS is not followed.
        """
        ...


class HttpxFetcher:
    """A fetcher over httpx, on asyncio and trio.

    `ssl_context` replaces the default one, which trusts what the system does. It has to be one
    for this alone: httpx sets ALPN on it.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._context = ssl_context

    async def __call__(self, url: str, most: int) -> bytes:
        """Return the file at `url` (see Fetcher)."""
        if self._context is None:
            self._context = await to_thread.run_sync(verifying)
        # Content that unpacks to more than it seems is not asked for, and not taken.
        headers = {"Accept-Encoding": "identity", "User-Agent": "smtpproto"}
        try:
            async with httpx.AsyncClient(
                verify=self._context,
                timeout=None,  # noqa: S113 - the caller cancels
                headers=headers,
            ) as client:
                request = client.build_request("GET", url)
                for _ in range(MAX_REDIRECTS + 1):
                    _admit(request.url)
                    response = await client.send(request, stream=True)
                    try:
                        if response.next_request is None:
                            return await _content(response, most)
                        request = response.next_request
                    finally:
                        await response.aclose()
        except (httpx.InvalidURL, UnicodeError) as error:  # UnicodeError: a name that IDNA forbids
            raise FetchError(f"it leads nowhere: {error}") from error
        except httpx.HTTPError as error:
            for cause in causes(error):
                if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
                    raise FetchError("no such host") from error
                if isinstance(cause, ssl.SSLCertVerificationError):
                    why = f"its certificate is not accepted: {cause.verify_message}"
                    raise FetchError(why) from error
            why = str(error) or type(error).__name__
            raise FetchError(f"no answer: {why}", failed=True) from error
        raise FetchError(f"it leads on more than {MAX_REDIRECTS} times")


def _admit(url: httpx.URL) -> None:
    """FetchError for what is not HTTPS at a host with a name, or would confuse what connects."""
    if url.scheme != "https":
        raise FetchError(f"it leads to {url.scheme or 'nowhere'}, where anybody can lie")
    try:
        host_name(url.raw_host.decode("ascii"))
        if url.port is not None and not 0 < url.port < 65_536:
            raise ValueError(f"not a port: {url.port}")
    except ValueError as error:
        raise FetchError(f"it leads nowhere: {error}") from None


async def _content(response: httpx.Response, most: int) -> bytes:
    if response.status_code != 200:
        raise FetchError(f"no such file: {response.status_code}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchError("it is packed")
    octets = bytearray()
    with anyio.CancelScope() as enough:
        # Not left by `break`: cancelled, all of httpx' generators come to their end, here and now.
        async for chunk in response.aiter_raw():
            if len(octets) <= most:
                octets += chunk
            if len(octets) > most:
                enough.cancel()
    if len(octets) > most:
        raise FetchError(f"it has more than {most} octets")
    return bytes(octets)
