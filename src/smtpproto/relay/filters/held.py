"""Content that has come and is not accepted yet: in memory while it is small, then in a file.

It need not survive a crash, for nobody has said 250; so nothing is synced here.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import IO, Self

from anyio import CancelScope, to_thread

from smtpproto.relay.spool.seam import Pages

__all__ = ["IN_MEMORY", "Held"]

#: Octets that are held in memory.
IN_MEMORY = 1 << 18
CHUNK = 1 << 16


class Held:
    """One message's content, to be written once and read as often as one likes.

    An async context manager. OSError, from `write` and reading, where the file cannot be used.
    """

    def __init__(self) -> None:
        self.octets = 0
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            with CancelScope(shield=True):
                await to_thread.run_sync(self._close)

    async def write(self, chunk: bytes) -> None:
        """Take more of the content."""
        self.octets += len(chunk)
        self._memory += chunk
        if len(self._memory) > IN_MEMORY:
            octets, self._memory = bytes(self._memory), bytearray()
            await to_thread.run_sync(self._append, octets)

    def _close(self) -> None:
        assert self._file is not None
        with suppress(OSError):  # the content is where it is to be, or of no use to anybody
            self._file.close()

    def _append(self, octets: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __aexit__
        self._file.seek(0, 2)
        self._file.write(octets)

    def chunks(self) -> AsyncIterator[bytes]:
        """Read it from its beginning, in chunks of at most 64 KiB."""
        at = 0

        async def fetch() -> list[bytes]:
            nonlocal at
            in_file = self.octets - len(self._memory)
            if at >= self.octets:
                return []
            if at < in_file:
                chunk = await to_thread.run_sync(self._read, at, min(CHUNK, in_file - at))
                if not chunk:
                    raise OSError("content that was held has gone")
            else:
                chunk = bytes(self._memory[at - in_file : at - in_file + CHUNK])
            at += len(chunk)
            return [chunk]

        return Pages(fetch)

    def _read(self, at: int, size: int) -> bytes:
        assert self._file is not None
        self._file.seek(at)
        return self._file.read(size)

    async def beginning(self, octets: int) -> bytes:
        """Return so many octets of it, or all there are."""
        found = bytearray()
        async for chunk in self.chunks():
            found += chunk
            if len(found) >= octets:
                break
        return bytes(found[:octets])
