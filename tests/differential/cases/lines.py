"""Command lines: where they end, what stands in them, how long they are; and what is no SMTP."""

from tests.differential.case import MAIL, RCPT, Case

__all__ = ["LINES", "STRANGERS"]

LINES = [
    Case(
        "lower case",
        b"mail from:<a@c.example>\r\n",
        "250",
        "§2.4",
        "Verbs are read in any case.",
    ),
    Case(
        "spaces at the end",
        b"MAIL FROM:<a@c.example>   \r\n",
        "250",
        "§4.1.1",
        "Receivers should tolerate white space there.",
    ),
    Case("a tab at the end", b"NOOP\t\r\n", "250", "§4.1.1", "A tab is white space, too."),
    Case("QUIT and a space", b"QUIT \r\n", "221", "§4.1.1", "The same."),
    Case(
        "a space in front",
        b" NOOP\r\n",
        "250/500",
        "§4.1.1",
        "A command begins with its verb; nothing says what becomes of one that does not.",
    ),
    Case(
        "two spaces behind the verb",
        b"MAIL  FROM:<a@c.example>\r\n",
        "250/500/501",
        "§4.1.1",
        "The grammar has one.",
    ),
    Case(
        "a tab behind the verb",
        b"MAIL\tFROM:<a@c.example>\r\n",
        "250/500/501",
        "§4.1.1",
        "The grammar has a space.",
    ),
    Case("an empty line", b"\r\n", "500", "§4.3.2", "No verb, so none that is known."),
    Case(
        "an unknown verb",
        b"XYZZY\r\n",
        "500",
        "§4.2.4",
        "500 for what is not recognised; 502 is for what is, and is not done.",
    ),
    Case(
        "25 unknown verbs",
        b"XYZZY\r\n" * 25,
        "500/502×25 | …, 421, closed",
        "§3.8",
        "Who has enough of them closes with 421, and no other code.",
        shown="XYZZY\\r\\n (25 times)",
    ),
    Case(
        "a bare LF between two commands",
        b"NOOP\nNOOP\r\n",
        "250/5yz",
        "§2.3.8",
        "Only CRLF ends a line, so this is one.",
    ),
    Case(
        "a bare LF between MAIL and RCPT",
        MAIL[:-2] + b"\n" + RCPT,
        "5yz",
        "§2.3.8",
        "One line, and no MAIL.",
    ),
    Case(
        "a bare CR between two commands",
        b"NOOP\rNOOP\r\n",
        "250/5yz",
        "§2.3.8",
        "One line.",
    ),
    Case(
        "line ends of other worlds",
        b"NOOP a\x0bNOOP\x0cNOOP\x1cNOOP\xc2\x85NOOP\xe2\x80\xa8NOOP\r\n",
        "250/5yz",
        "§2.3.8",
        "VT, FF, FS, NEL and U+2028 end no line.",
    ),
    Case(
        "NUL in an argument",
        b"NOOP a\0b\r\n",
        "250/5yz",
        "§4.1.1.9",
        "The argument of NOOP should be ignored; that it is malformed may be told.",
    ),
    Case(
        "NUL in a path",
        b"MAIL FROM:<a\0b@c.example>\r\n",
        "500/501/550/553",
        "§4.1.2",
        "Control characters must not be used in MAIL; such commands must be refused.",
    ),
    Case(
        "DEL in a path",
        b"MAIL FROM:<a\x7fb@c.example>\r\n",
        "500/501/550/553",
        "§4.1.2",
        "The same.",
    ),
    Case(
        "Latin-1 in an argument",
        b"NOOP caf\xe9\r\n",
        "250/500/501",
        "§2.4",
        "Octets over 127 should be refused, arguments of NOOP ignored (§4.1.1.9).",
    ),
    Case(
        "a line of 512 octets",
        b"NOOP " + b"x" * 505 + b"\r\n",
        "250",
        "§4.5.3.1.4",
        "Everybody takes as many, CRLF included.",
    ),
    Case(
        "a line of 513 octets",
        b"NOOP " + b"x" * 506 + b"\r\n",
        "250/500",
        "§4.5.3.1.4",
        "More may be refused.",
    ),
    Case(
        "a line of 20,000 octets",
        b"NOOP " + b"x" * 20_000 + b"\r\n",
        "250/500",
        "§4.5.3.1.9",
        "The same; and one line gets one reply.",
    ),
    Case(
        "a line of 70,000 octets",
        b"NOOP " + b"x" * 70_000 + b"\r\n",
        "250/500 | 500, closed",
        "§7.8",
        "The same; who takes it for an attack may close.",
    ),
]

_POSTED = (
    b"POST / HTTP/1.1\r\nHost: mx\r\n\r\nEHLO web.example\r\n" + MAIL + RCPT + b"DATA\r\n"
    b"Subject: from a web page\r\n\r\n.\r\n"
)

STRANGERS = [
    Case(
        "talk before the greeting",
        b"EHLO c.example\r\n",
        "220, 250 | 554, … | 421, …",
        "§4.3.1",
        "The client should wait; a server may notice, and need not.",
        after="at once",
        early=True,
    ),
    Case(
        "HTTP: GET",
        b"GET / HTTP/1.1\r\nHost: mx\r\n\r\n",
        "…",
        "§3.8, §7.8",
        "Patience with unknown commands is asked for, defence permitted.",
        after="at once",
    ),
    Case(
        "HTTP: a POST with mail in it",
        _POSTED,
        "…",
        "§3.8, §7.8",
        "The same; but only who closes keeps web pages from sending mail.",
        after="at once",
    ),
    Case(
        "HTTP: CONNECT",
        b"CONNECT mx:25 HTTP/1.1\r\n\r\n",
        "…",
        "§3.8, §7.8",
        "The same.",
        after="at once",
    ),
    Case(
        "a TLS ClientHello",
        b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03" + bytes(range(0x80, 0xA0)) + b"\r\n",
        "5yz | …, closed",
        "§3.8, §7.8",
        "The same.",
        after="at once",
    ),
    Case(
        "a PROXY header",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n",
        "500",
        "§4.2.4",
        "Nobody is set up for it here, so it is an unknown verb.",
        after="at once",
    ),
]
