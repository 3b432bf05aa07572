"""BDAT."""

from tests.differential.case import MAIL, RCPT, Case
from tests.differential.play import Cut, Step
from tests.differential.servers import LIMIT

__all__ = ["CHUNKS"]

HEAD = b"Subject: s\r\n\r\n"


def _bdat(
    name: str,
    sends: Step | tuple[Step, ...],
    demand: str,
    why: str,
    *,
    after: str = "RCPT",
    contents: tuple[bytes, ...] | None = None,
    clause: str = "RFC 3030 §2",
    leaves: bool = False,
    shown: str = "",
) -> Case:
    return Case(
        name,
        sends,
        demand,
        clause,
        why,
        after=after,
        contents=contents,
        needs="CHUNKING",
        leaves=leaves,
        shown=shown,
    )


def _chunk(content: bytes, end: bytes = b"") -> bytes:
    return b"BDAT %d%b\r\n%b" % (len(content), end, content)


def _last(content: bytes) -> bytes:
    return _chunk(content, b" LAST")


def _no_size(name: str, argument: bytes) -> Case:
    return _bdat(
        name,
        b"BDAT%b\r\n" % argument,
        "5yz | 5yz, closed",
        "No chunk-size; what follows cannot be told from content, so that closing is defence.",
        clause="RFC 3030 §2; RFC 5321 §7.8",
    )


_DOTS = HEAD + b".\r\nQUIT\r\n.\r\n"
_TWO = HEAD + b"two chunks\r\n"
_TOO_BIG = HEAD + (b"x" * 78 + b"\r\n") * (LIMIT // 80 + 10)

CHUNKS = [
    _bdat("one chunk", _last(_TWO), "250", "A message.", contents=(_TWO,)),
    _bdat(
        "BDAT in lower case",
        b"bdat 14 last\r\n" + HEAD,
        "250",
        "In any case.",
        clause="§2.4",
        contents=(HEAD,),
    ),
    _bdat(
        "two chunks",
        (_chunk(_TWO[:20]), _last(_TWO[20:])),
        "250, 250",
        "A reply to each.",
        contents=(_TWO,),
    ),
    _bdat(
        "two chunks in one write",
        _chunk(_TWO[:20]) + _last(_TWO[20:]),
        "250, 250",
        "BDAT may be pipelined (RFC 3030 §4.2).",
        contents=(_TWO,),
    ),
    _bdat(
        "an empty last chunk",
        (_chunk(_TWO), b"BDAT 0 LAST\r\n"),
        "250, 250",
        "The last may have no octets.",
        contents=(_TWO,),
    ),
    _bdat(
        "an empty first chunk",
        (b"BDAT 0\r\n", _last(_TWO)),
        "250, 250 | 5yz, 5yz",
        "0 is a chunk-size; but that a chunk may have none is only said of the last.",
        contents=(_TWO,),
    ),
    _bdat(
        "a dot and QUIT",
        _last(_DOTS),
        "250",
        "Octets are counted; dots end nothing.",
        contents=(_DOTS,),
    ),
    _bdat(
        "no line end at the end",
        _last(HEAD + b"end"),
        "250",
        "Octets are counted.",
        contents=(HEAD + b"end", HEAD + b"end\r\n"),
    ),
    _bdat(
        "a bare LF in a chunk",
        _last(HEAD + b"a\nb\r\n"),
        "250/5yz",
        "Text has CRLF; refuse or repair.",
        contents=(HEAD + b"a\nb\r\n", HEAD + b"a\r\nb\r\n"),
    ),
    _bdat(
        "a pair of CR and LF cut in two",
        (_chunk(HEAD + b"a\r"), _last(b"\nb\r\n")),
        "250, 250",
        "Chunks are no lines.",
        contents=(HEAD + b"a\r\nb\r\n",),
    ),
    _bdat(
        "a chunk before RCPT",
        _last(b"NOOP\r\n"),
        "503/554",
        "Its octets must be discarded before it is refused.",
        after="MAIL",
    ),
    _bdat("a chunk before MAIL", _last(b"NOOP\r\n"), "503", "The same.", after="EHLO"),
    _bdat("a chunk before EHLO", _last(b"NOOP\r\n"), "503", "The same.", after="at once"),
    _bdat("DATA behind a chunk", (_chunk(HEAD), b"DATA\r\n"), "250, 503", "Must be 503."),
    _bdat(
        "a chunk behind the last",
        (_last(HEAD), _last(b"NOOP\r\n")),
        "250, 503",
        "Must be 503.",
        contents=(HEAD,),
    ),
    _bdat(
        "MAIL behind a chunk",
        (_chunk(HEAD), MAIL),
        "250, 503",
        "In a transaction.",
        clause="§4.1.4",
    ),
    _bdat(
        "RCPT behind a chunk",
        (_chunk(HEAD), RCPT),
        "250, 250/503",
        "Out of order; nothing says what becomes of it.",
        clause="§4.1.4",
    ),
    _bdat(
        "NOOP between two chunks",
        (_chunk(HEAD), b"NOOP\r\n", _last(b"a\r\n")),
        "250, 250, 250",
        "At any time.",
        clause="§4.1.1.9",
        contents=(HEAD + b"a\r\n",),
    ),
    _bdat(
        "RSET between two chunks",
        (_chunk(HEAD), b"RSET\r\n", _last(b"NOOP\r\n")),
        "250, 250, 503",
        "It drops the transaction.",
        contents=(),
    ),
    _bdat(
        "a chunk over the limit",
        _last(_TOO_BIG),
        "552",
        "Must be discarded before it is refused.",
        shown=f"BDAT …(over {LIMIT}) LAST",
    ),
    _bdat(
        "a chunk behind a refused one",
        _chunk(_TOO_BIG) + _last(b"NOOP\r\n"),
        "552, 5yz",
        "What was on its way must be discarded, too.",
        shown=f"BDAT …(over {LIMIT}), BDAT 6 LAST",
        contents=(),
    ),
    _bdat(
        "the client goes in mid chunk",
        Cut(b"BDAT 100 LAST\r\n" + HEAD),
        "closed",
        "The transaction must be cancelled.",
        clause="§4.1.1.10",
        contents=(),
        leaves=True,
    ),
    _bdat(
        "the client goes between two chunks",
        (_chunk(HEAD), Cut(b"")),
        "250, closed",
        "The same.",
        clause="§4.1.1.10",
        contents=(),
        leaves=True,
    ),
    _no_size("no size", b""),
    _no_size("LAST, and no size", b" LAST"),
    _no_size("a size below 0", b" -1"),
    _no_size("a size with a plus", b" +1"),
    _no_size("a size as Python reads it", b" 1_0"),
    _no_size("a size in hexadecimal", b" 0x1"),
    _no_size("a size of 21 digits", b" 1" + b"0" * 20),
    _no_size("a word that is not LAST", b" 0 FIRST"),
]
