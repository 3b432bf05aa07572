"""What every kind of odd input gets: the table behind `docs/explanation/decisions.md`.

`python -m tests.core.decisions` writes that page; `test_decisions.py` holds both the page and
the server to the table.
"""

import re
from pathlib import Path

from attrs import frozen

from smtpproto import Limits, ServerConnection
from smtpproto.extensions import (
    AUTH,
    BINARYMIME,
    CHUNKING,
    EIGHTBITMIME,
    ENHANCEDSTATUSCODES,
    PIPELINING,
    SIZE,
    SMTPUTF8,
    STARTTLS,
)
from smtpproto.mechanisms import LOGIN, PLAIN

__all__ = ["BASIC", "DECISIONS", "PAGE", "Decision", "make_server", "render"]

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "decisions.md"

#: What the page speaks of; more extensions know more parameters, and allow longer lines.
BASIC = (PIPELINING, SIZE, EIGHTBITMIME, ENHANCEDSTATUSCODES, STARTTLS, AUTH)
CHUNKED = (*BASIC, CHUNKING, BINARYMIME)

HELLO = b"EHLO c.example\r\n"
MAIL = HELLO + b"MAIL FROM:<a@b>\r\n"
RCPT = MAIL + b"RCPT TO:<c@d>\r\n"
DATA = RCPT + b"DATA\r\n"
BINARY = HELLO + b"MAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<c@d>\r\n"
UTF8 = HELLO + b"MAIL FROM:<a@b> SMTPUTF8\r\n"


@frozen
class Decision:
    """Input `octets`, sent after `before`, gets exactly the `replies` named; `why` says why.

    `options` are those of the ServerConnection, where they are not the usual ones.
    """

    octets: bytes
    replies: str
    why: str
    before: bytes = HELLO
    options: tuple[tuple[str, object], ...] = ()


def make_server(decision: Decision) -> ServerConnection:
    """Make the server that a decision speaks of."""
    usual: dict[str, object] = {
        "extensions": BASIC,
        "limits": Limits(message=1000, recipients=1),
        "mechanisms": (PLAIN, LOGIN),
        "plaintext_auth": True,
        "tls_available": True,
    }
    return ServerConnection("mx.example", **(usual | dict(decision.options)))  # type: ignore[arg-type]  # a table of options


def _line(text: str, replies: str, why: str, before: bytes = HELLO, **options: object) -> Decision:
    octets = text.encode("utf-8") + b"\r\n"
    return Decision(octets, replies, why, before, tuple(options.items()))


def _content(content: bytes, replies: str, why: str, **options: object) -> Decision:
    return Decision(content, replies, why, DATA, tuple(options.items()))


def _chunks(octets: bytes, replies: str, why: str, before: bytes = RCPT) -> Decision:
    return Decision(octets, replies, why, before, (("extensions", CHUNKED), ("offer", CHUNKED)))


def _utf8(text: str, replies: str, why: str, before: bytes = HELLO) -> Decision:
    with_utf8 = (*BASIC, SMTPUTF8)
    return _line(text, replies, why, before, extensions=with_utf8, offer=with_utf8)


DECISIONS: dict[str, list[Decision]] = {
    "Addresses": [
        _line("mail from:<a@b>", "250 2.1.0", "Verbs and keywords are read in any case (§2.4)."),
        _line("MAIL FROM:<a@b>  ", "250 2.1.0", "White space at the end is tolerated (§4.1.1)."),
        _line(
            "MAIL FROM: <a@b>", "250 2.1.0", "One space there is wrong (§3.3), common, and clear."
        ),
        _line("MAIL FROM:  <a@b>", "501 5.1.7", "One, not two."),
        _line("MAIL FROM :<a@b>", "501 5.5.4", "No space before the colon."),
        _line("MAIL  FROM:<a@b>", "501 5.5.4", "One space behind the verb."),
        _line("MAIL\tFROM:<a@b>", "500 5.5.2", "A tab is no space: the verb is unknown."),
        _line("MAIL FROM:a@b", "501 5.1.7", "Brackets are part of a path (§4.1.2)."),
        _line("MAIL FROM:<a@b", "501 5.1.7", "Both of them."),
        _line("MAIL FROM:<a@b>>", "501 5.5.4", "Nothing stands behind the path but a space."),
        _line("MAIL FROM:< a@b >", "501 5.1.7", "No spaces in a path."),
        _line("MAIL FROM:<a>", "501 5.1.7", "A sender has a domain."),
        _line("MAIL FROM:<>", "250 2.1.0", "The null reverse-path (§4.5.5)."),
        _line("MAIL FROM:<Postmaster>", "501 5.1.7", "Only a recipient may lack its domain."),
        _line("RCPT TO:<Postmaster>", "250 2.1.5", "§4.5.1.", MAIL),
        _line("RCPT TO:<pOSTMASTER>", "250 2.1.5", "In any case.", MAIL),
        _line("RCPT TO:<>", "501 5.1.3", "A recipient is somebody.", MAIL),
        _line(
            "RCPT TO:<@x.example,@y.example:c@d>", "250 2.1.5", "A route is dropped (app. C).", MAIL
        ),
        _line("RCPT TO:<@x.example:>", "501 5.1.3", "A route needs a mailbox behind it.", MAIL),
        _line('RCPT TO:<"c d"@e>', "250 2.1.5", "A quoted local part.", MAIL),
        _line('RCPT TO:<""@e>', "250 2.1.5", "An empty one is a Quoted-string, too.", MAIL),
        _line('RCPT TO:<"v@ext">', "501 5.1.3", "Quotes do not make a domain.", MAIL),
        _line("RCPT TO:<v@ext@our.dom>", "501 5.1.3", "One @ outside quotes.", MAIL),
        _line(
            "RCPT TO:<v%ext@our.dom>",
            "250 2.1.5",
            "`%` is an octet of a local part, no more.",
            MAIL,
        ),
        _line("RCPT TO:<c.@d>", "501 5.1.3", "Dots stand between atoms (§4.1.2).", MAIL),
        _line("RCPT TO:<c@d.>", "501 5.1.3", "A Domain does not end in a dot.", MAIL),
        _line("RCPT TO:<c@d_e>", "501 5.1.3", "No `_` in the domain of an address.", MAIL),
        _line(
            "RCPT TO:<c@-d>", "501 5.1.3", "A label begins and ends with a letter or digit.", MAIL
        ),
        _line("RCPT TO:<c@[192.0.2.1]>", "250 2.1.5", "An IPv4 literal (§4.1.3).", MAIL),
        _line("RCPT TO:<c@[192.0.2.256]>", "501 5.1.3", "Malformed.", MAIL),
        _line("RCPT TO:<c@[IPv6:2001:db8::1]>", "250 2.1.5", "An IPv6 literal.", MAIL),
        _line(
            "RCPT TO:<c@[2001:db8::1]>",
            "250 2.1.5",
            "Untagged, it reads as the general literal `2001:`.",
            MAIL,
        ),
        _line(
            "RCPT TO:<c@[IPv6:1:2:3:4:5:6:7::]>",
            "501 5.1.3",
            "`::` stands for two groups or more.",
            MAIL,
        ),
        _line("RCPT TO:<c@é>", "553 5.6.7", "Not without SMTPUTF8 (RFC 6531 §3.5).", MAIL),
        _line("MAIL FROM:<é@b>", "553 5.6.7", "Nor the sender."),
        _line("RCPT TO:<é@c> XYZ", "553 5.6.7", "Nor what policy might let pass.", MAIL),
        Decision(b"RCPT TO:<c\xe9@d>\r\n", "501 5.1.3", "Octets that are no UTF-8.", MAIL),
        _line(f"RCPT TO:<c@{'d' * 64}>", "501 5.1.3", "A label has 63 octets at most.", MAIL),
        _line(
            f"RCPT TO:<{'c' * 200}@d>",
            "250 2.1.5",
            "Of the lengths, only the path's 256 counts.",
            MAIL,
        ),
        _line(f"RCPT TO:<{'c' * 252}@d>", "250 2.1.5", "256 octets, brackets included.", MAIL),
        _line(f"RCPT TO:<{'c' * 253}@d>", "501 5.1.3", "257.", MAIL),
        _line("RCPT TO:<c@d>", "452 4.5.3", "Over the limit of recipients, here 1.", RCPT),
    ],
    "Parameters": [
        _line("MAIL FROM:<a@b>SIZE=1", "501 5.5.4", "A space stands before them."),
        _line("MAIL FROM:<a@b>  SIZE=1", "250 2.1.0", "More than one is tolerated."),
        _line("MAIL FROM:<a@b>\tSIZE=1", "501 5.5.4", "A tab is no space."),
        _line("MAIL FROM:<a@b> size=1", "250 2.1.0", "Keywords are read in any case."),
        _line("MAIL FROM:<a@b> SIZE=1 SIZE=1", "501 5.5.4", "Once each, though the values agree."),
        _line("MAIL FROM:<a@b> SIZE=1 size=2", "501 5.5.4", "Whatever the case."),
        _line("MAIL FROM:<a@b> SIZE", "501 5.5.4", "SIZE has a value (RFC 1870 §3)."),
        _line("MAIL FROM:<a@b> SIZE=", "501 5.5.4", "A value has an octet (§4.1.2)."),
        _line("MAIL FROM:<a@b> SIZE=1_0", "501 5.5.4", "Digits alone."),
        _line("MAIL FROM:<a@b> SIZE=٣", "501 5.5.4", "ASCII digits."),
        _line("MAIL FROM:<a@b> SIZE=-1", "501 5.5.4", "No sign."),
        _line("MAIL FROM:<a@b> SIZE=+1", "501 5.5.4", "No sign."),
        _line("MAIL FROM:<a@b> SIZE=0", "250 2.1.0", "An empty message may come."),
        _line("MAIL FROM:<a@b> SIZE=0001000", "250 2.1.0", "Leading zeros are digits."),
        _line("MAIL FROM:<a@b> SIZE=1001", "552 5.3.4", "Over the limit, here 1000."),
        _line("MAIL FROM:<a@b> SIZE=99999999999999999999", "552 5.3.4", "20 digits are a number."),
        _line(
            "MAIL FROM:<a@b> SIZE=100000000000000000000", "501 5.5.4", "21 are none (RFC 1870 §5)."
        ),
        _line("MAIL FROM:<a@b> BODY=8bitmime", "250 2.1.0", "Values of BODY in any case."),
        _line("MAIL FROM:<a@b> BODY=", "501 5.5.4", "Empty."),
        _line("MAIL FROM:<a@b> BODY", "501 5.5.4", "BODY has a value (RFC 6152 §2)."),
        _line("MAIL FROM:<a@b> BODY=9BIT", "501 5.5.4", "One of two."),
        _line("MAIL FROM:<a@b> BODY=BINARYMIME", "501 5.5.4", "Not without BINARYMIME (RFC 3030)."),
        _line("MAIL FROM:<a@b> XYZ=1", "555 5.5.4", "Nobody offered it (§4.1.1.11)."),
        _line("MAIL FROM:<a@b> XYZ SIZE=x", "501 5.5.4", "What is malformed is told first."),
        _line("MAIL FROM:<a@b> A=B=C", "501 5.5.4", "`=` in a value is written otherwise."),
        _line("MAIL FROM:<a@b> -A=1", "501 5.5.4", "A keyword begins with a letter or digit."),
        _line(
            "MAIL FROM:<a@b> SIZE=1", "555 5.5.4", "HELO asked for no extensions.", b"HELO c\r\n"
        ),
        _line("RCPT TO:<c@d> SIZE=1", "555 5.5.4", "SIZE belongs to MAIL.", MAIL),
        _line("RCPT TO:<c@d> NOTIFY=NEVER", "555 5.5.4", "DSN is not offered.", MAIL),
    ],
    "Greeting": [
        _line("EHLO c.example", "250-", "", b""),
        _line("EHLO", "501 5.5.4", "A name is asked for (§4.1.1.1).", b""),
        _line("EHLO a b", "501 5.5.4", "One name.", b""),
        _line("EHLO my_host", "250-", "`_` is no reason to refuse mail (§4.1.4).", b""),
        _line("EHLO [192.0.2.1]", "250-", "§4.1.3.", b""),
        _line("EHLO 192.0.2.1", "250-", "It fits Domain.", b""),
        _line("EHLO [IPv6:2001:db8::1]", "250-", "§4.1.3.", b""),
        _line("EHLO [IPv6:zz]", "501 5.5.4", "Malformed.", b""),
        _line("EHLO [IPv6:]", "501 5.5.4", "Malformed.", b""),
        _line("EHLO []", "501 5.5.4", "Malformed.", b""),
        _line("EHLO é", "501 5.5.4", "Not ASCII.", b""),
        _line("EHLO c.", "501 5.5.4", "A Domain does not end in a dot.", b""),
        _line("EHLO " + "n" * 255, "250-", "255 octets of name (§4.5.3.1.2).", b""),
        _line("EHLO " + "n" * 256, "501 5.5.4", "256.", b""),
        _line("EHLO " + "n" * 4000, "500 5.5.2", "Too long a line.", b""),
        _line("HELO c.example", "250", "", b""),
    ],
    "Lines": [
        _line("", "500 5.5.2", "An empty line is no command."),
        _line("XYZZY", "500 5.5.2", "Unknown (§4.2.4)."),
        _line("EXPN list", "502 5.5.1", "Known, and not done (§4.2.4)."),
        _line("VRFY someone", "252 2.5.2", "§7.3."),
        _line("VRFY", "501 5.5.4", "Whom?"),
        _line("HELP me", "214 2.0.0", ""),
        _line("NOOP really", "250 2.0.0", "Its argument is ignored (§4.1.1.9)."),
        _line("NOOP a\x01b", "501 5.5.4", "Control octets are in no argument."),
        _line("NOOP é", "501 5.5.4", "Nor what is not ASCII."),
        _line("NOOP a\0b", "500 5.5.2", "NUL is nowhere."),
        _line("NOOP a\rb", "500 5.5.2", "A bare CR ends no line and stands in none (§2.3.8)."),
        _line("NOOP\nQUIT", "500 5.5.2", "A bare LF ends no line: this is one."),
        _line(
            "NOOP a\x0bb\x0cc\x1cd\x85e\u2028f", "501 5.5.4", "Nor do other line ends of Python's."
        ),
        _line("RSET now", "501 5.5.4", "No argument."),
        _line("QUIT\t ", "221 2.0.0", "White space at the end is tolerated."),
        _line(" QUIT", "500 5.5.2", "None in front."),
        _line("NOOP " + "x" * 505, "250 2.0.0", "512 octets with CRLF (§4.5.3.1.4)."),
        _line("NOOP " + "x" * 506, "500 5.5.2", "513."),
        _line("XYZZY" + "x" * 20000, "500 5.5.2", "Swallowed to its end; still in step."),
        Decision(
            b"x" * 70000, "500 5.5.2, closed", "No end within 65536 octets: the framing is lost."
        ),
        _line(
            "GET / HTTP/1.1", "500 5.5.2, closed", "HTTP: what follows may be forged by a web page."
        ),
        _line("POST /", "500 5.5.2, closed", "The same.", b""),
        Decision(b"\x16\x03\x01", "500 5.5.2, closed", "A TLS ClientHello.", b""),
    ],
    "Sequence": [
        _line("MAIL FROM:<a@b>", "503 5.5.1", "EHLO or HELO first (§4.1.4).", b""),
        _line("RSET", "250 2.0.0", "Any time (§4.1.4).", b""),
        _line("NOOP", "250 2.0.0", "Any time.", b""),
        _line("VRFY a", "252 2.5.2", "Any time.", b""),
        _line("QUIT", "221 2.0.0", "Any time.", b""),
        _line("RCPT TO:<c@d>", "503 5.5.1", "MAIL first."),
        _line("DATA", "503 5.5.1", "MAIL first."),
        _line("MAIL FROM:<a@b>", "503 5.5.1", "MAILs do not nest (§4.1.4).", MAIL),
        _line("DATA", "503 5.5.1", "A recipient first (§3.3).", MAIL),
        _line("DATA now", "501 5.5.4", "No argument.", RCPT),
        _line("STARTTLS", "220 2.0.0", "RFC 3207."),
        _line("STARTTLS", "503 5.5.1", "Not in a transaction.", MAIL),
        _line("STARTTLS", "503 5.5.1", "EHLO first.", b""),
        _line("STARTTLS now", "501 5.5.4", "No argument (RFC 3207 §4)."),
        _line("STARTTLS", "502 5.5.1", "Where it is not offered.", tls_available=False),
    ],
    "AUTH": [
        _line(
            "AUTH PLAIN AGEAYg==",
            "504 5.5.4",
            "In clear, unless it is allowed.",
            plaintext_auth=False,
        ),
        _line("AUTH PLAIN AGEAYg==", "503 5.5.1", "EHLO first.", b""),
        _line("AUTH PLAIN AGEAYg==", "503 5.5.1", "Not in a transaction (RFC 4954 §4).", MAIL),
        _line("AUTH PLAIN AGEAYg==", "502 5.5.1", "No mechanisms: not offered.", mechanisms=()),
        _line("AUTH", "501 5.5.4", "Which?"),
        _line("AUTH CRAM-MD5", "504 5.5.4", "Not configured."),
        _line("AUTH P!AIN", "501 5.5.4", "No name of a mechanism."),
        _line("AUTH PLAIN AGEAYg", "501 5.5.2", "base64 without its padding (RFC 4954 §4)."),
        _line("AUTH PLAIN AGE", "501 5.5.2", "Length 4n+3."),
        _line("AUTH PLAIN AGEAYg==AAAA", "501 5.5.2", "Padding ends it."),
        _line("AUTH PLAIN AG EA", "501 5.5.2", "No spaces in base64."),
        _line("AUTH PLAIN *", "501 5.5.2", "`*` cancels only what has begun."),
        _line("AUTH PLAIN " + "A" * 20000, "500 5.5.6", "Over 12288 octets (RFC 4954 §4)."),
        _line("AUTH PLAIN\r\nA", "334, 501 5.5.2", "A response of bad base64."),
        _line("AUTH PLAIN\r\n*", "334, 501 5.7.0", "Cancelled (RFC 4954 §4)."),
        _line("AUTH PLAIN\r\n=", "334, 501 5.5.2", "`=` is an initial response, not a response."),
        _line("AUTH PLAIN\r\n", "334, 501 5.5.2", "An empty response is one, and no PLAIN."),
        _line("AUTH PLAIN =", "501 5.5.2", "An empty initial response, and no PLAIN."),
        _line("AUTH PLAIN\r\n" + "A" * 12289, "334, 500 5.5.6", "12289 octets without CRLF."),
        _line("AUTH plain AGEAYg==", "235 2.7.0", "Names of mechanisms in any case."),
        _line("AUTH PLAIN AGEAYg==\r\nAUTH PLAIN", "235 2.7.0, 503 5.5.1", "Once (RFC 4954 §4)."),
        _line(
            "AUTH LOGIN YQ==\r\nYg==",
            "334, 235 2.7.0",
            "LOGIN was never standardised: taken so, too.",
        ),
        _line("AUTH LOGIN\r\nYQ==\r\nYw==", "334, 334, 535 5.7.8", "A wrong password."),
    ],
    "Content": [
        _content(b".\r\n", "250 2.0.0", "Empty: the CRLF of DATA counts (§4.1.1.4)."),
        _content(b"a\r\n.\r\n", "250 2.0.0", ""),
        _content(
            b"a\n.\nb\r\n.\r\n", "554 5.6.0", "A bare LF ends nothing, and is refused (§2.3.8)."
        ),
        _content(b"a\n.\r\nb\r\n.\r\n", "554 5.6.0", "The same."),
        _content(b"a\r\n.\nb\r\n.\r\n", "554 5.6.0", "The same."),
        _content(b"a\r.\rb\r\n.\r\n", "554 5.6.0", "A bare CR, too."),
        _content(b"a\r.\r\nb\r\n.\r\n", "554 5.6.0", "The same."),
        _content(b"a\r\n.\rb\r\n.\r\n", "554 5.6.0", "The same."),
        _content(b"a\r\r\n.\r\n", "554 5.6.0", "Its end, since the last five octets are."),
        _content(b"a\r\n.\r\r\nb\r\n.\r\n", "554 5.6.0", "Not its end."),
        _content(
            b"a\r\n\0.\r\nb\r\n.\r\n", "250 2.0.0", "NUL is an octet of content; no end here."
        ),
        _content(
            b"a\n.\nb\r\n.\r\n",
            "250 2.0.0",
            "With `repair`: made CRLF, and no end either.",
            repair=True,
        ),
        _content(
            b"x" * 1001 + b"\r\n.\r\n",
            "552 5.3.4",
            "Over the limit, here 1000: swallowed, refused.",
        ),
        _content(
            b"x" * 998 + b"\r\n.\r\n", "250 2.0.0", "1000, without the end mark (RFC 1870 §3)."
        ),
    ],
    "Chunks, where CHUNKING and BINARYMIME are offered": [
        _chunks(b"BDAT 3 LAST\r\nHi\n", "554 5.6.0", "A bare LF is refused as after DATA."),
        _chunks(b"BDAT 4 LAST\r\nHi\r\n", "250 2.0.0", "One chunk is a message."),
        _chunks(b"bdat 2 last\r\nHi", "250 2.0.0", "In any case; no line end is asked for."),
        _chunks(b"BDAT 2   LAST \r\nHi", "250 2.0.0", "More spaces than one are tolerated."),
        _chunks(b"BDAT 2\r\nHiBDAT 2 LAST\r\n\r\n", "250 2.0.0, 250 2.0.0", "One reply for each."),
        _chunks(b"BDAT 0\r\nBDAT 0 LAST\r\n", "250 2.0.0, 250 2.0.0", "Empty ones are chunks."),
        _chunks(b"BDAT 005 LAST\r\n.\r\n.\r", "554 5.6.0", "Leading zeros are digits; a bare CR."),
        _chunks(
            b"BDAT 11 LAST\r\n.a\r\n..\r\n.\r\n", "250 2.0.0", "Dots are dots, and end nothing."
        ),
        _chunks(
            b"BDAT 12 LAST\r\nRSET\r\nQUIT\r\n", "250 2.0.0", "Content, whatever it looks like."
        ),
        _chunks(
            b"BDAT 2\r\na\rBDAT 2 LAST\r\n\nb",
            "250 2.0.0, 250 2.0.0",
            "A pair of CR and LF may be cut by two chunks.",
        ),
        _chunks(
            b"BDAT 2\r\na\rBDAT 1 LAST\r\nb",
            "250 2.0.0, 554 5.6.0",
            "That CR stays bare.",
        ),
        _chunks(
            b"BDAT 2\r\na\nBDAT 2\r\nbcBDAT 1 LAST\r\ndBDAT 1\r\ne",
            "554 5.6.0, 503 5.5.1, 503 5.5.1, 503 5.5.1",
            "After a refused chunk, those on their way are swallowed and refused (RFC 3030 §2).",
        ),
        _chunks(
            b"BDAT 1\r\n\rBDAT 1\r\n\rRSET\r\nMAIL FROM:<a@b>\r\n",
            "250 2.0.0, 554 5.6.0, 250 2.0.0, 250 2.1.0",
            "RSET ends that state, too.",
        ),
        _chunks(
            b"BDAT 2\r\nabRSET\r\nBDAT 1 LAST\r\nc",
            "250 2.0.0, 250 2.0.0, 503 5.5.1",
            "RSET between chunks drops the message.",
        ),
        _chunks(
            b"BDAT 2\r\nabNOOP\r\nBDAT 0 LAST\r\n",
            "250 2.0.0, 250 2.0.0, 250 2.0.0",
            "What moves nothing may stand between them.",
        ),
        _chunks(
            b"BDAT 2\r\nabDATA\r\nRCPT TO:<c@d>\r\nMAIL FROM:<>\r\nBDAT 0 LAST\r\n",
            "250 2.0.0, 503 5.5.1, 503 5.5.1, 503 5.5.1, 250 2.0.0",
            "What would, may not (RFC 3030 §3).",
        ),
        _chunks(
            b"BDAT 600\r\n" + b"x" * 600 + b"BDAT 401 LAST\r\n" + b"x" * 401,
            "250 2.0.0, 552 5.3.4",
            "The limit, here 1000, is on all chunks together.",
        ),
        _chunks(b"BDAT 5 LAST\r\nQUIT\n", "503 5.5.1", "No recipient; swallowed.", MAIL),
        _chunks(b"BDAT 5\r\nQUIT\n", "503 5.5.1", "The same.", MAIL),
        _chunks(b"BDAT 6\r\nQUIT\r\n", "503 5.5.1", "No transaction; swallowed.", HELLO),
        _chunks(b"BDAT 6 LAST\r\nQUIT\r\n", "503 5.5.1", "No EHLO; swallowed.", b""),
        _chunks(b"BDAT\r\n", "501 5.5.4, closed", "How much is content, nobody knows."),
        _chunks(b"BDAT LAST\r\n", "501 5.5.4, closed", "The same."),
        _chunks(b"BDAT -1\r\n", "501 5.5.4, closed", "The same."),
        _chunks(b"BDAT +1\r\n", "501 5.5.4, closed", "The same."),
        _chunks(b"BDAT 1_0\r\n", "501 5.5.4, closed", "The same."),
        _chunks(b"BDAT 0x1\r\n", "501 5.5.4, closed", "The same."),
        _chunks("BDAT ٣\r\n".encode(), "501 5.5.4, closed", "The same."),
        _chunks(b"BDAT 1 LASTLY\r\n", "501 5.5.4, closed", "The same."),
        _chunks(b"BDAT 1LAST\r\n", "501 5.5.4, closed", "The same."),
        _chunks(b"BDAT 1 LAST LAST\r\n", "501 5.5.4, closed", "The same."),
        _chunks(b"BDAT\t1\r\n", "501 5.5.4, closed", "Unknown, and yet somebody means it."),
        _chunks(b"BDAT 1\0\r\n", "501 5.5.4, closed", "The same."),
        _chunks(b"BDAT 1" + b" " * 520 + b"\r\n", "501 5.5.4, closed", "Too long a line."),
        _chunks(b"BDAT " + b"9" * 21 + b"\r\n", "501 5.5.4, closed", "21 digits are no size."),
        _chunks(b"BDAT\r\n", "501 5.5.4, closed", "In any state.", b""),
        _line("BDAT 1 LAST", "500 5.5.2", "Unknown where nobody knows CHUNKING.", RCPT),
        Decision(
            b"BDAT 6 LAST\r\nQUIT\r\n",
            "502 5.5.1",
            "Known and not offered: swallowed all the same.",
            RCPT,
            (("extensions", CHUNKED), ("offer", BASIC)),
        ),
        _chunks(b"BDAT 3 LAST\r\n\n\r.", "250 2.0.0", "BINARYMIME has no lines.", BINARY),
        _chunks(b"DATA\r\n", "503 5.5.1", "BINARYMIME goes by BDAT (RFC 3030 §3).", BINARY),
    ],
    "UTF-8, where SMTPUTF8 is offered": [
        _utf8("MAIL FROM:<é@b> SMTPUTF8", "250 2.1.0", "It is asked for (RFC 6531 §3.4)."),
        _utf8("MAIL FROM:<é@b> smtputf8", "250 2.1.0", "In any case."),
        _utf8("MAIL FROM:<é@b>", "553 5.6.7", "It is not (RFC 6531 §3.5)."),
        _utf8("MAIL FROM:<é@b> SMTPUTF8=1", "501 5.5.4", "It takes no value."),
        _utf8("MAIL FROM:<a@b> SMTPUTF8", "250 2.1.0", "It need not be made use of."),
        _utf8("RCPT TO:<é@c>", "553 5.6.7", "MAIL did not ask for it.", MAIL),
        _utf8("RCPT TO:<é@c>", "250 2.1.5", "MAIL did.", UTF8),
        _utf8("RCPT TO:<é@c> SMTPUTF8", "555 5.5.4", "It is a parameter of MAIL.", UTF8),
        _utf8('RCPT TO:<"é è"@c>', "250 2.1.5", "In quotes.", UTF8),
        _utf8("RCPT TO:<c@grüße.example>", "250 2.1.5", "A U-label.", UTF8),
        _utf8("RCPT TO:<c@[é:x]>", "501 5.1.3", "No literal has it.", UTF8),
        _utf8("VRFY é SMTPUTF8", "501 5.5.4", "What is asked for is ASCII."),
        _utf8("VRFY jo SMTPUTF8", "252 2.5.2", "RFC 6531 §3.7.4.2."),
        _utf8("EHLO é", "501 5.5.4", "A name is an A-label (RFC 6531 §3.7.1).", b""),
    ],
}


def _shown(octets: bytes) -> str:
    text = "".join(chr(o) if 0x20 <= o < 0x7F else f"\\x{o:02x}" for o in octets)
    for octet, name in (("\\x0d", "\\r"), ("\\x0a", "\\n"), ("\\x09", "\\t"), ("\\x00", "\\0")):
        text = text.replace(octet, name)
    text = text.removesuffix("\\r\\n") if not octets.endswith(b".\r\n") else text
    text = re.sub(r"(.)\1{39,}", lambda run: f"{run[1]}…({len(run[0])})…", text)
    return f"`` {text} ``" if "`" in text or text != text.strip() or not text else f"`{text}`"


_AFTER = {
    b"": "at once",
    HELLO: "EHLO",
    b"HELO c\r\n": "HELO",
    MAIL: "MAIL",
    RCPT: "RCPT",
    DATA: "DATA",
    BINARY: "RCPT, BODY=BINARYMIME",
    UTF8: "MAIL … SMTPUTF8",
}


def render() -> str:
    """Write the page."""
    page = [
        "# What odd input gets",
        "",
        "Each of these was decided once. The page is made from `tests/core/decisions.py`, and the",
        "tests send every row to a server, whole, octet by octet, and cut in two at every point",
        "(the longest lines: around their limits), so it cannot say what is not so.",
        "§ alone is RFC 5321. The reply is the suggested one; what a policy refuses is its own",
        "affair. In all rows but those that say *closed* the session stays in step.",
        "",
    ]
    for title, decisions in DECISIONS.items():
        page += [f"## {title}", "", "| after | input | reply | why |", "|---|---|---|---|"]
        for d in decisions:
            why = d.why.replace("|", "\\|")
            shown = _shown(d.octets).replace("|", "\\|")
            page.append(f"| {_AFTER[d.before]} | {shown} | {d.replies} | {why} |")
        page.append("")
    return "\n".join(page)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
