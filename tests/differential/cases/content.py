"""Content behind DATA: where it ends, and what arrives of it."""

from tests.differential.case import MAIL, RCPT, Case, escaped
from tests.differential.play import Cut
from tests.differential.servers import LIMIT

__all__ = ["CONTENT", "END_OF_DATA"]

HEAD = b"Subject: s\r\n\r\n"
#: What would be a second message, if what stands before it ended the first.
_SECOND = MAIL + RCPT + b"DATA\r\n" + HEAD + b"two\r\n.\r\n"


def _not_the_end(name: str, octets: bytes) -> Case:
    return Case(
        f"{name} is no end",
        HEAD + b"one" + octets + _SECOND,
        "250/5yz",
        "§4.1.1.4",
        "One message and one reply; what looks like commands is content.",
        after="DATA",
        shown=f"{escaped(octets)}MAIL …RCPT …DATA …",
    )


def _body(
    name: str,
    body: bytes,
    demand: str,
    clause: str,
    why: str,
    *arrives: bytes,
    shown: str = "",
) -> Case:
    """A body sent with its header, dots stuffed already; it may arrive as any of `arrives`."""
    return Case(
        name,
        HEAD + body + b".\r\n",
        demand,
        clause,
        why,
        after="DATA",
        contents=tuple(HEAD + one for one in arrives) or None,
        shown=shown or escaped(body.removesuffix(b"\r\n")),
    )


_EIGHT_BITS = b"caf\xe9 \xff\r\n"
_LINE_1000 = b"x" * 998 + b"\r\n"
_LINE_2000 = b"x" * 1998 + b"\r\n"

END_OF_DATA = [
    Case(
        r"CRLF . CRLF is the end",
        HEAD + b"one\r\n.\r\n" + _SECOND,
        "250, 250, 250, 354, 250",
        "§4.1.1.4",
        "Two messages.",
        after="DATA",
        shown=r"\r\n.\r\nMAIL …RCPT …DATA …",
    ),
    _not_the_end("LF . LF", b"\n.\n"),
    _not_the_end("LF . CRLF", b"\n.\r\n"),
    _not_the_end("CRLF . LF", b"\r\n.\n"),
    _not_the_end("CR . CR", b"\r.\r"),
    _not_the_end("CR . LF", b"\r.\n"),
    _not_the_end("LF . CR", b"\n.\r"),
    _not_the_end("CR . CRLF", b"\r.\r\n"),
    _not_the_end("CRLF . CR", b"\r\n.\r"),
    _not_the_end("CRLF NUL . CRLF", b"\r\n\0.\r\n"),
    _not_the_end("CRLF . NUL CRLF", b"\r\n.\0\r\n"),
    _not_the_end("CRLF . CR CRLF", b"\r\n.\r\r\n"),
    _not_the_end("CR CRLF . CR CRLF", b"\r\r\n.\r\r\n"),
    _not_the_end("CRLF . space CRLF", b"\r\n. \r\n"),
    _not_the_end("CRLF .. CRLF", b"\r\n..\r\n"),
    Case(
        "CR CRLF . CRLF is the end",
        HEAD + b"one\r\r\n.\r\nNOOP\r\n",
        "250/5yz, 250",
        "§4.1.1.4",
        "Its last five octets are it; a CR before them changes nothing.",
        after="DATA",
        shown=r"\r\r\n.\r\nNOOP",
    ),
    Case(
        "no content at all",
        b".\r\nNOOP\r\n",
        "250/5yz, 250",
        "§4.1.1.4",
        "The CRLF of DATA is the first of the end.",
        after="DATA",
    ),
    Case(
        "QUIT behind the dot",
        HEAD + b"one\r\n.\r\nQUIT\r\n",
        "250, 221",
        "RFC 2920 §3.1",
        "Content may be the first in a group.",
        after="DATA",
        contents=(HEAD + b"one\r\n",),
        leaves=True,
        shown=r"one\r\n.\r\nQUIT",
    ),
    Case(
        "RSET, MAIL and RCPT behind the dot",
        HEAD + b"one\r\n.\r\nRSET\r\n" + MAIL + RCPT,
        "250, 250, 250, 250",
        "RFC 2920 §3.1",
        "The same.",
        after="DATA",
        shown=r"one\r\n.\r\nRSET\r\nMAIL …RCPT …",
    ),
    Case(
        "content that does not wait for 354",
        b"DATA\r\n" + HEAD + b"one\r\n.\r\n",
        "354, 250",
        "RFC 2920 §3.1",
        "The client has to wait; but nothing at hand may be lost (§3.2).",
        after="RCPT",
        contents=(HEAD + b"one\r\n",),
        shown=r"DATA\r\none\r\n.\r\n",
    ),
    Case(
        "the client goes before the dot",
        Cut(HEAD + b"half a mess"),
        "closed",
        "§4.1.1.10",
        "The transaction must be cancelled.",
        after="DATA",
        contents=(),
        leaves=True,
    ),
]

CONTENT = [
    _body(
        "dots in front of lines",
        b"..a\r\n...\r\n.b\r\n..\r\n",
        "250",
        "§4.5.2",
        "The first dot is taken away.",
        b".a\r\n..\r\nb\r\n.\r\n",
    ),
    _body(
        "a bare LF",
        b"a\nb\r\n",
        "250/5yz",
        "§2.3.8",
        "The client must not; it may be refused, mended or kept.",
        b"a\nb\r\n",
        b"a\r\nb\r\n",
    ),
    _body(
        "a bare CR",
        b"a\rb\r\n",
        "250/5yz",
        "§2.3.8",
        "The same.",
        b"a\rb\r\n",
        b"a\r\nb\r\n",
        b"a b\r\n",
    ),
    _body("NUL", b"a\0b\r\n", "250", "§4.5.2", "All characters are to be delivered.", b"a\0b\r\n"),
    _body(
        "control characters",
        b"\x01\t\x08\x0b\x0c\x1b\x7f\r\n",
        "250",
        "§4.5.2",
        "The same.",
        b"\x01\t\x08\x0b\x0c\x1b\x7f\r\n",
    ),
    _body(
        "octets over 127, not declared",
        _EIGHT_BITS,
        "250/5yz",
        "§2.4",
        "May be refused, or the highest bit cleared; or the octets kept.",
        _EIGHT_BITS,
        bytes(octet & 0x7F for octet in _EIGHT_BITS),
    ),
    Case(
        "octets over 127, declared",
        (
            b"MAIL FROM:<a@c.example> BODY=8BITMIME\r\n",
            RCPT,
            b"DATA\r\n",
            HEAD + _EIGHT_BITS + b".\r\n",
        ),
        "250, 250, 354, 250",
        "RFC 6152 §3",
        "They are preserved.",
        needs="8BITMIME",
        contents=(HEAD + _EIGHT_BITS,),
        shown=r"MAIL … BODY=8BITMIME, RCPT …, DATA, caf\xe9 \xff",
    ),
    _body(
        "a line of 1,000 octets",
        _LINE_1000,
        "250",
        "§4.5.3.1.6",
        "Everybody takes as many, CRLF included.",
        _LINE_1000,
        shown="x…x (998)",
    ),
    _body(
        "a line of 1,001 octets that begins with a dot",
        b"." + b"." + b"x" * 997 + b"\r\n",
        "250",
        "§4.5.3.1.6",
        "The dot that was added does not count.",
        b"." + b"x" * 997 + b"\r\n",
        shown="..x…x (997)",
    ),
    _body(
        "a line of 2,000 octets",
        _LINE_2000,
        "250/5yz",
        "§4.5.3.1.9",
        "More may be refused; what is accepted is not changed.",
        _LINE_2000,
        shown="x…x (1998)",
    ),
    _body(
        "more than the limit",
        (b"x" * 78 + b"\r\n") * (LIMIT // 80 + 10),
        "552",
        "RFC 1870 §6.3",
        "Swallowed to its end, and refused.",
        shown=f"lines, together over {LIMIT} octets",
    ),
    Case(
        "more than the SIZE told",
        (
            b"MAIL FROM:<a@c.example> SIZE=10\r\n",
            RCPT,
            b"DATA\r\n",
            HEAD + b"more than ten octets\r\n.\r\n",
        ),
        "250, 250, 354, 250/552",
        "RFC 1870 §6.3",
        "May be accepted.",
        needs="SIZE",
        shown="MAIL … SIZE=10, RCPT …, DATA, more",
    ),
    _body(
        "header fields that are none",
        b"",
        "250",
        "§3.3",
        "Perceived defects should be no reason to refuse.",
        shown="nothing behind the header",
    ),
]
