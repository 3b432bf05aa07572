"""Where a client's content comes from, made into chunks of octets that may be sent."""

from __future__ import annotations

import copy
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from email.encoders import encode_base64
from email.message import EmailMessage, Message
from email.policy import SMTP
from pathlib import Path
from typing import BinaryIO, TypeAlias

import anyio
from anyio import to_thread
from attrs import frozen

from .core.content import DotWriter

__all__ = ["AnyContent", "Source", "crlf", "source"]

CHUNK = 65_536

AnyContent: TypeAlias = (
    "bytes | str | EmailMessage | Message | Path | BinaryIO | AsyncIterable[bytes] | Source"
)

_LINE_END = re.compile(rb"\r\n|\r|\n")


def crlf(text: bytes) -> bytes:
    """Make every line end of a text CRLF, whichever it was."""
    return _LINE_END.sub(b"\r\n", text)


@frozen
class Source:
    """Content ready to be sent.

    `octets` is its size as SIZE counts it (RFC 1870 §3), `eight_bit` whether it has octets over
    127; None where that is not known before the end.
    """

    chunks: AsyncIterable[bytes]
    octets: int | None
    eight_bit: bool | None

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Iterate over the chunks; a generator is closed at the end, however that comes."""
        chunks = aiter(self.chunks)
        try:
            yield chunks
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()


async def source(content: AnyContent, *, eight_bit_offered: bool) -> Source:
    """Make a Source of what a caller gives.

    Text (`str`, EmailMessage) gets CRLF line ends; an EmailMessage is written without its Bcc,
    and in 7 bits where the server does not take 8. Octets (bytes, a path, a binary file, an async
    iterable) pass as they are: bytes with a bare CR or LF are refused here with
    LocalProtocolError, the others when the fault is reached. OSError as files raise it, TypeError
    for what is none of these.
    """
    if isinstance(content, Source):
        return content
    if isinstance(content, Message):
        content = _flatten(content, "8bit" if eight_bit_offered else "7bit")
    if isinstance(content, str):
        content = crlf(content.encode())
    if isinstance(content, bytes):
        check = DotWriter()
        check.feed(content)
        check.finish()
        unended = bool(content) and not content.endswith(b"\r\n")  # so CRLF is added on the way
        return Source(_slices(content), len(content) + 2 * unended, not content.isascii())
    if isinstance(content, Path):
        octets = (await anyio.Path(content).stat()).st_size
        return Source(_path(content), octets, None)
    if isinstance(content, AsyncIterable):
        return Source(content, None, None)
    if hasattr(content, "read"):
        return Source(_file(content), None, None)
    raise TypeError(f"no content can be made of {type(content).__name__}")


def _flatten(message: Message, cte_type: str) -> bytes:
    policy = SMTP.clone(cte_type=cte_type)
    # Those who are named there are so on condition that nobody sees it (RFC 5322 §3.6.3).
    # A deep copy: writing gives parts their boundaries.
    message = copy.deepcopy(message)
    del message["Bcc"], message["Resent-Bcc"]
    for part in message.walk():
        encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
        if encoding == "binary" and not part.is_multipart():
            # Its line ends are octets like others, and would not survive (RFC 3030 §3).
            del part["Content-Transfer-Encoding"]
            encode_base64(part)
    return crlf(message.as_bytes(policy=policy))


async def _slices(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), CHUNK):
        yield content[at : at + CHUNK]


async def _path(path: Path) -> AsyncIterator[bytes]:
    file = await to_thread.run_sync(path.open, "rb")
    with file:  # closing what was only read does not wait, so no cancellation can leave it open
        while chunk := await to_thread.run_sync(file.read, CHUNK):
            yield chunk


async def _file(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await to_thread.run_sync(file.read, CHUNK):
        yield chunk
