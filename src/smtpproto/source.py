"""Where a client's content comes from, made into pieces of octets that may be sent."""

from __future__ import annotations

import copy
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from email.encoders import encode_base64
from email.message import EmailMessage, Message
from email.policy import SMTPUTF8, EmailPolicy
from email.utils import getaddresses
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import anyio
from anyio import to_thread
from attrs import define, evolve, field, frozen

from .core.content import LineEnds
from .core.errors import LocalProtocolError
from .core.event import Content, Lines

__all__ = [
    "AnyContent",
    "Reading",
    "Repeatable",
    "Source",
    "crlf",
    "is_at_hand",
    "repeatable",
    "source",
]

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

    `chunks` are its octets: all of them at hand, or what returns them when they are wanted, or as
    they come. `octets` is its size as SIZE counts it (RFC 1870 §3), `eight_bit` whether it has
    octets over 127, `utf8` whether its header needs SMTPUTF8 (RFC 6532); None where that is not
    known before it is read. `binary` content has no lines (RFC 3030 §3): any octets may stand in
    it, and it goes by BDAT only.
    """

    chunks: AsyncIterable[bytes] | Callable[[], bytes] | bytes = field(repr=False)
    octets: int | None = None
    eight_bit: bool | None = None
    utf8: bool | None = None
    binary: bool = False


async def source(
    content: AnyContent, *, eight_bit_offered: bool, binary_offered: bool = False
) -> Source:
    """Make a Source of what a caller gives.

    Text (`str`, EmailMessage) gets CRLF line ends; an EmailMessage is written without its Bcc, in
    7 bits where the server does not take 8, and with its binary parts encoded where it does not
    take them as they are. Octets (bytes, a path, a binary file, an async iterable) are sent as
    they are. OSError as files raise it, TypeError for what is none of these.
    """
    if isinstance(content, Source):
        return content
    if isinstance(content, bytes):
        return _at_hand(content)
    if isinstance(content, Message):
        return _flatten(content, eight_bit=eight_bit_offered, binary=binary_offered)
    if isinstance(content, str):
        return _at_hand(crlf(content.encode()))
    if isinstance(content, Path):
        octets = (await anyio.Path(content).stat()).st_size
        return Source(_path(content), octets)
    if isinstance(content, AsyncIterable):
        return Source(content)
    if hasattr(content, "read"):
        return Source(_file(content))
    raise TypeError(f"no content can be made of {type(content).__name__}")


def is_at_hand(content: AnyContent) -> bool:
    """Tell whether nothing has to be waited for to read it."""
    if isinstance(content, Source):
        return isinstance(content.chunks, bytes) or callable(content.chunks)
    return isinstance(content, (bytes, str, Message))


def _at_hand(octets: bytes, *, binary: bool = False) -> Source:
    return Source(octets, _size(octets, binary=binary), not octets.isascii(), binary=binary)


def _size(octets: bytes, *, binary: bool) -> int:
    """Return how many there are, with the end that a last line without one gets on the way."""
    unended = octets and not binary and not octets.endswith(b"\r\n")
    return len(octets) + 2 * bool(unended)


BARE = (
    "content with a bare CR or LF (RFC 5321 §2.3.8): octets go as they are, "
    "text and messages get their CRLF"
)


@define
class Reading:
    """Content whose beginning has been read, and what is known of it from there.

    `head` is its first CHUNK octets, or all of it where `rest` is None. For the others see Source;
    what has been seen is no longer unknown.
    """

    head: bytes
    rest: AsyncGenerator[bytes] | None
    octets: int | None
    eight_bit: bool | None
    utf8: bool
    binary: bool
    _pieces: Iterator[Content] = field(factory=lambda: iter(()))  # of the head

    @classmethod
    async def of(cls, taken: Source, *, binary: bool = False) -> Reading:
        """Read the beginning; `binary` says that the content is so, whatever the source says.

        LocalProtocolError where there is a bare CR or LF in it that is not binary.
        """
        binary = binary or taken.binary
        reading = cls(b"", None, taken.octets, taken.eight_bit, False, binary)
        try:
            if isinstance(taken.chunks, bytes):
                reading.head = taken.chunks
            elif callable(taken.chunks):
                reading.head = taken.chunks()
            else:
                reading.rest = _gathered(taken.chunks)
                reading.head = await anext(reading.rest, b"")
                if len(reading.head) < CHUNK:  # so it was the last
                    await reading.aclose()
            reading._look(taken.utf8)
        except BaseException:
            await reading.aclose()
            raise
        return reading

    def _look(self, utf8: bool | None) -> None:
        ascii_only = self.head.isascii()
        if self.rest is None:
            self.octets = _size(self.head, binary=self.binary)
            self.eight_bit = not ascii_only
        elif not ascii_only:
            self.eight_bit = True
        self.utf8 = (not ascii_only and _has_utf8_header(self.head)) if utf8 is None else utf8
        if self.rest is None and not self.binary:
            try:
                self._pieces = Lines(self.head).pieces(CHUNK)
            except LocalProtocolError:
                raise LocalProtocolError(BARE) from None
            return
        if not self.binary:
            ends = LineEnds()
            ends.feed(self.head)
            if ends.bare:
                raise LocalProtocolError(BARE)
        self._pieces = (
            Content(self.head[at : at + CHUNK]) for at in range(0, len(self.head), CHUNK)
        )

    def piece(self) -> Content | None:
        """Return the next piece of the head, of CHUNK octets at most; None when there is none."""
        return next(self._pieces, None)

    async def next_piece(self) -> Content | None:
        """Return the next piece of all; None when there is none."""
        piece = self.piece()
        if piece is None and self.rest is not None:
            octets = await anext(self.rest, b"")
            return Content(octets) if octets else None
        return piece

    async def aclose(self) -> None:
        """Leave the source, wherever it is."""
        if self.rest is not None:
            await self.rest.aclose()
            self.rest = None


async def _gathered(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Cut chunks anew, into CHUNK octets each and at the end what is left, if anything."""
    iterator = aiter(chunks)
    held = bytearray()
    try:
        async for chunk in iterator:
            _check_octets(chunk)
            if not held and len(chunk) == CHUNK:
                yield chunk  # as files give them
                continue
            held += chunk
            while len(held) >= CHUNK:
                yield bytes(held[:CHUNK])
                del held[:CHUNK]
        if held:
            yield bytes(held)
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


def _check_octets(chunk: object) -> None:
    if not isinstance(chunk, bytes):
        hint = " (is the file open as 'rb'?)" if isinstance(chunk, str) else ""
        raise TypeError(f"pieces of content are bytes, not {type(chunk).__name__}{hint}")


def _has_utf8_header(head: bytes) -> bool:
    """Tell whether a header beyond ASCII is UTF-8 (RFC 6532 §3); else it is only wrong."""
    header = b"" if head.startswith(b"\r\n") else head.partition(b"\r\n\r\n")[0]
    try:
        return not header.isascii() and bool(header.decode())
    except UnicodeDecodeError as error:
        return error.end == len(head)  # cut off in the midst of a character


class Repeatable:
    """Chunks that may be begun again, as long as nobody has read further than a Reading looks.

    So content of which nothing was sent is not lost with the session that it was for.
    """

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._iterator = aiter(chunks)
        self._head: list[bytes] | None = []
        self._octets = 0

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        assert self._head is not None, "begun again, and some of it was sent"
        for chunk in [*self._head]:
            yield chunk
        while True:
            if self._octets >= CHUNK:
                self._head = None
            try:
                chunk = await anext(self._iterator)
            except StopAsyncIteration:
                return
            if chunk and self._head is not None:
                self._head.append(chunk)
                self._octets += len(chunk)
            yield chunk

    async def aclose(self) -> None:
        """Leave the source of the chunks, wherever it is."""
        iterator = self._iterator
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


def repeatable(content: AnyContent) -> tuple[AnyContent, Repeatable | None]:
    """Make content that can be begun again; and the Repeatable in it, to be closed, if it has one.

    Raises nothing: what is no content is returned as it is, for `source` to say so.
    """
    if isinstance(content, (bytes, str, Message, Path)):
        return content, None
    if isinstance(content, Source):
        if isinstance(content.chunks, bytes) or callable(content.chunks):
            return content, None
        chunks = Repeatable(content.chunks)
        return evolve(content, chunks=chunks), chunks
    if isinstance(content, AsyncIterable):
        chunks = Repeatable(content)
    elif hasattr(content, "read"):
        chunks = Repeatable(_file(content))
    else:
        return content, None
    return chunks, chunks


async def _path(path: Path) -> AsyncGenerator[bytes]:
    file = await to_thread.run_sync(path.open, "rb")
    with file:  # closing what was only read does not wait, so no cancellation can leave it open
        while chunk := await to_thread.run_sync(file.read, CHUNK):
            yield chunk


async def _file(file: BinaryIO) -> AsyncGenerator[bytes]:
    while chunk := await to_thread.run_sync(file.read, CHUNK):
        yield chunk


# Messages


_ADDRESSES = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "resent-")
    for name in ("from", "sender", "reply-to", "to", "cc")
)


def _flatten(message: Message[Any, Any], *, eight_bit: bool, binary: bool) -> Source:
    # Writing gives parts their boundaries, so those that have parts are copied to the bottom.
    message = copy.deepcopy(message) if message.is_multipart() else copy.copy(message)
    # Those who are named there are so on condition that nobody sees it (RFC 5322 §3.6.3).
    del message["Bcc"], message["Resent-Bcc"]
    as_they_are: dict[str, bytes] = {}
    for part in message.walk():
        encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
        if encoding == "binary" and not part.is_multipart():
            # Its line ends are octets like others, and would not survive (RFC 3030 §3).
            if binary:
                stand_in = secrets.token_hex(16)
                as_they_are[stand_in] = _octets(part)
                part.set_payload(stand_in)
            else:
                del part["Content-Transfer-Encoding"]
                encode_base64(part)
    utf8 = _needs_utf8(message)
    policy = message.policy
    if isinstance(policy, EmailPolicy):
        policy = policy.clone(utf8=utf8)
    elif utf8:  # the older policy knows no UTF-8, as the newer one knows no Header objects
        policy = SMTPUTF8
    policy = policy.clone(cte_type="8bit" if eight_bit or utf8 else "7bit", linesep="\r\n")
    octets = crlf(message.as_bytes(policy=policy))
    for stand_in, payload in as_they_are.items():
        octets = octets.replace(stand_in.encode(), payload)
    return _at_hand(octets, binary=bool(as_they_are))


def _octets(part: Message[Any, Any]) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _needs_utf8(message: Message[Any, Any]) -> bool:
    """Tell whether an address in the header is beyond ASCII: only words can be encoded."""
    return any(
        not address.isascii()
        for name, value in message.raw_items()
        if name.lower() in _ADDRESSES and not str(value).isascii()
        for _, address in getaddresses([str(value)])
    )
