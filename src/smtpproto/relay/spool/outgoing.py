"""A message's content on its way out of the SQLite spool, a chunk at a time.

It has to be what came in. A disk loses a part of a file, or has other octets one day than were
written, and says nothing. So the row has the content's length and its CRC-32, which finds what
happens by accident, at a cost that is not noticed; who can write here on purpose could write any
checksum, a cryptographic one as well. The length is looked at before anything is given out. What
the checksum says is known when all has been read, and the last chunk waits for that: whoever has
got all of it has got what came in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast
from zlib import crc32

from .incoming import Store
from .seam import CHUNK_OCTETS, DamagedError, Pages, SpoolUnavailable

__all__ = ["read_content"]


def read_content(spool: Store, id: str) -> Pages[bytes]:
    """Read a message's content, from its row or its file; errors as `Spool.content` raises them."""
    path = spool.content_path(id)
    octets = -1  # not known yet
    checksum: int | None = None
    offset = seen = 0

    def damaged(how: str) -> DamagedError:
        return DamagedError(f"message {id} is damaged: {how}")

    def verified(chunk: bytes) -> bytes:
        """Take note of what comes next; DamagedError where it is the last, and all is not right."""
        nonlocal offset, seen
        offset += len(chunk)
        seen = crc32(chunk, seen)
        if offset == octets and checksum is not None and seen != checksum:
            raise damaged("its content has changed since it came")
        return chunk

    async def fetch() -> Sequence[bytes]:
        nonlocal octets, checksum
        if octets < 0:
            row = await spool.database.read(
                lambda db: db.execute(
                    "SELECT octets, checksum, CAST(content AS BLOB) FROM message WHERE id = ?",
                    (id,),
                ).fetchone()
            )
            if row is None:
                raise SpoolUnavailable(f"message {id} is not there (any more)")
            octets, checksum, inline = cast("tuple[int, int | None, bytes | None]", row)
            if inline is None:
                there = await spool.in_thread(lambda: spool.disk.size(path))
            else:
                there = len(inline)
            if there != octets:
                raise damaged(f"{octets} octets expected, {there} there")
            if inline is not None:
                whole = verified(inline)
                return [whole[at : at + CHUNK_OCTETS] for at in range(0, octets, CHUNK_OCTETS)]
        if offset == octets:
            return []
        size = min(CHUNK_OCTETS, octets - offset)
        chunk = await spool.in_thread(lambda: spool.disk.read(path, offset, size))
        if not chunk:  # it was longer a moment ago
            raise damaged(f"{octets} octets expected, {offset} there")
        return [verified(chunk)]

    return Pages(fetch)
