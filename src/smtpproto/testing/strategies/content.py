"""Content: clean, hostile and binary; in chunks; and octets cut in pieces."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import strategies as st

from smtpproto.core.command import Bdat
from smtpproto.core.event import Chunk

__all__ = [
    "binary_content",
    "chunk_octets",
    "chunks",
    "clean_content",
    "cuttings",
    "hostile_content",
]


def clean_content(*, ascii_only: bool = False) -> st.SearchStrategy[bytes]:
    """Message content with CRLF line ends alone, dots where they hurt, perhaps no last CRLF.

    With `ascii_only` it may go without BODY=8BITMIME (RFC 6152 §3).
    """
    some = [b"", b".", b"..", b".x", b"x.", b"\0", b"x" if ascii_only else b"\x80\xff"]
    any_octets = st.lists(st.integers(0, 127), max_size=20).map(bytes)
    lines = st.one_of(
        st.sampled_from(some),
        (any_octets if ascii_only else st.binary(max_size=20)).map(_without_line_ends),
    )
    ends = st.sampled_from([b"", b"\r\n"])
    return st.tuples(st.lists(lines, max_size=8).map(b"\r\n".join), ends).map(b"".join)


def _without_line_ends(octets: bytes) -> bytes:
    return octets.replace(b"\r", b"").replace(b"\n", b"")


def hostile_content() -> st.SearchStrategy[bytes]:
    """Octets that try to be an end of data: CR, LF and dots in all orders."""
    parts = st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"\0", b"x", b"\r\n.\r\n"])
    return st.lists(parts, max_size=16).map(b"".join)


def binary_content() -> st.SearchStrategy[bytes]:
    """Any octets: what BODY=BINARYMIME may send in chunks (RFC 3030 §3)."""
    return st.one_of(st.binary(max_size=60), hostile_content(), clean_content())


@st.composite
def chunks(draw: st.DrawFn, content: bytes) -> list[Chunk]:
    """Ways to send `content` as chunks, the last one marked, empty or not (RFC 3030 §2)."""
    parts = draw(cuttings(content)) if content else []
    if not parts or draw(st.booleans()):
        parts = [*parts, b""]
    return [Chunk(part, last=at == len(parts)) for at, part in enumerate(parts, 1)]


def chunk_octets() -> st.SearchStrategy[bytes]:
    """Message content as BDAT commands with their octets, the last among them or not."""

    def write(parts: Sequence[bytes], last: bool) -> bytes:
        ends = [*[False] * (len(parts) - 1), last]
        lines = [Bdat(len(p), end).serialize() for p, end in zip(parts, ends, strict=True)]
        return b"".join(itertools.chain(*zip(lines, parts, strict=True)))

    parts = st.lists(st.one_of(clean_content(), hostile_content()), min_size=1, max_size=4)
    return st.builds(write, parts, st.booleans())


def cuttings(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Ways to cut `data` into pieces, none of them empty."""
    points = st.sets(st.integers(1, max(len(data) - 1, 1)), max_size=12)

    def cut(at: set[int]) -> list[bytes]:
        edges = [0, *sorted(at), len(data)]
        found = [data[a:b] for a, b in itertools.pairwise(edges)]
        return [piece for piece in found if piece]

    each = st.just([data[at : at + 1] for at in range(len(data))])
    return st.one_of(points.map(cut), each)
