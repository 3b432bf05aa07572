"""Paths in MAIL and RCPT."""

from tests.differential.case import MAIL, Case

__all__ = ["ADDRESSES"]


def _mail(name: str, path: bytes, demand: str, clause: str, why: str) -> Case:
    return Case(name, b"MAIL FROM:%b\r\n" % path, demand, clause, why)


def _rcpt(name: str, path: bytes, demand: str, clause: str, why: str, *, shown: str = "") -> Case:
    return Case(name, b"RCPT TO:%b\r\n" % path, demand, clause, why, after="MAIL", shown=shown)


# Where the grammar is broken and no clause says what then.
_FREE = "250/501/550/553/555"
_REFUSED = "500/501/550/553"

_LONG_DOMAIN = b".".join([b"d" * 61] * 3)
_RCPTS = [b"RCPT TO:<r%d@example.test>\r\n" % number for number in range(1010)]

ADDRESSES = [
    Case(
        "a space before the path",
        b"MAIL FROM: <a@c.example>\r\n",
        "250/500/501",
        "§3.3",
        "Not permitted to clients; servers may understand it.",
    ),
    Case(
        "a space before the colon",
        b"MAIL FROM :<a@c.example>\r\n",
        "250/500/501",
        "§3.3",
        "The same.",
    ),
    Case(
        "two spaces before the path",
        b"MAIL FROM:  <a@c.example>\r\n",
        "250/500/501",
        "§3.3",
        "The same.",
    ),
    _mail(
        "no brackets",
        b"a@c.example",
        _FREE,
        "§3.3",
        "Always with brackets; nothing says what else.",
    ),
    _mail("no closing bracket", b"<a@c.example", _FREE, "§4.1.2", "No Path; the same."),
    _mail("no opening bracket", b"a@c.example>", _FREE, "§4.1.2", "The same."),
    _mail("one bracket too many", b"<a@c.example>>", _FREE, "§4.1.2", "The same."),
    _mail("spaces in the brackets", b"< a@c.example >", _FREE, "§4.1.2", "The same."),
    _mail("a name before the brackets", b"Ann <a@c.example>", _FREE, "§4.1.2", "The same."),
    _mail(
        "a comment", b"<a@c.example(comment)>", _FREE, "§4.1.2", "The same: SMTP has no comments."
    ),
    _mail("no domain", b"<a>", _FREE, "§4.1.2", "The same."),
    _mail("nothing", b"", "500/501/550/553", "§4.1.1.2", "MAIL has a reverse-path."),
    _mail("the null path", b"<>", "250", "§4.5.5", "Bounces come from it."),
    _rcpt("the null path as recipient", b"<>", "5yz", "§4.1.1.3", "A Forward-path is never null."),
    _rcpt("Postmaster", b"<Postmaster>", "250", "§4.5.1", "Must be supported without a domain."),
    _rcpt("pOSTMASTER", b"<pOSTMASTER>", "250", "§4.5.1", "In any case."),
    _rcpt(
        "a source route",
        b"<@x.example,@y.example:b@example.test>",
        "250/550",
        "§4.1.2, §3.3",
        "Its syntax must be accepted; what it asks for may be declined.",
    ),
    _rcpt("a quoted local part", b'<"b c"@example.test>', "250", "§4.1.2", "A Quoted-string."),
    _rcpt("an empty local part in quotes", b'<""@example.test>', "250/550", "§4.1.2", "The same."),
    _rcpt("a quoted pair", rb'<"b\"c"@example.test>', "250", "§4.1.2", "The same."),
    _rcpt("`@` in quotes", b'<"b@c"@example.test>', "250", "§4.1.2", "The same."),
    _rcpt("quotes and no domain", b'<"b@example.test">', _FREE, "§4.1.2", "No Mailbox."),
    _rcpt("two `@`", b"<b@c@example.test>", _FREE, "§4.1.2", "No Mailbox."),
    _rcpt("a dot at the end of the domain", b"<b@example.test.>", _FREE, "§4.1.2", "No Domain."),
    _rcpt("two dots in the domain", b"<b@example..test>", _FREE, "§4.1.2", "No Domain."),
    _rcpt("two dots in the local part", b"<b..c@example.test>", _FREE, "§4.1.2", "No Dot-string."),
    _rcpt("a dot in front", b"<.b@example.test>", _FREE, "§4.1.2", "No Dot-string."),
    _rcpt("`_` in the domain", b"<b@my_host.test>", "501", "§4.1.2", "Must be refused with 501."),
    _rcpt("`-` in front of a label", b"<b@-d.test>", _FREE, "§4.1.2", "No Domain."),
    _rcpt("a label of 64 octets", b"<b@%b.test>" % (b"d" * 64), _FREE, "§2.3.5", "No name in DNS."),
    _mail("an IPv4 literal", b"<a@[192.0.2.1]>", "250", "§4.1.3", "Has its form."),
    _mail("an IPv6 literal", b"<a@[IPv6:2001:db8::1]>", "250", "§4.1.3", "Has its form."),
    _mail("an IPv4 literal with 256", b"<a@[192.0.2.256]>", _FREE, "§4.1.3", "It lacks the form."),
    _mail("a malformed IPv6 literal", b"<a@[IPv6:zz]>", _FREE, "§4.1.3", "It lacks the form."),
    _mail("`::` for one group", b"<a@[IPv6:1:2:3:4:5:6:7::]>", _FREE, "§4.1.3", "Two at least."),
    _mail("Latin-1", b"<caf\xe9@c.example>", _REFUSED, "§4.1.2", "Must be refused."),
    _mail(
        "UTF-8 in MAIL, not asked for",
        "<é@c.example>".encode(),
        "500/501/550",
        "RFC 6531 §3.5",
        "Refused with 550; 500 and 501 where SMTPUTF8 is unknown (§2.4, §4.1.2).",
    ),
    _rcpt(
        "UTF-8 in RCPT, not asked for",
        "<é@example.test>".encode(),
        "500/501/553",
        "RFC 6531 §3.5",
        "Here it is 553.",
    ),
    _rcpt(
        "a local part of 64 octets",
        b"<%b@example.test>" % (b"b" * 64),
        "250",
        "§4.5.3.1.1",
        "Everybody takes as many.",
    ),
    _rcpt(
        "a local part of 65 octets",
        b"<%b@example.test>" % (b"b" * 65),
        "250/500/501/550/553",
        "§4.5.3.1",
        "More may be refused, and better is not.",
    ),
    _rcpt(
        "a path of 256 octets",
        b"<%b@%b.test>" % (b"b" * 63, _LONG_DOMAIN),
        "250",
        "§4.5.3.1.3",
        "Everybody takes as many.",
        shown="RCPT TO:<b…b@d….test> (256 octets)",
    ),
    _rcpt(
        "a path of 391 octets",
        b"<%b@%b.test>" % (b"b" * 64, b".".join([b"d" * 63] * 5)),
        "250/500/501/550/553",
        "§4.5.3.1.9",
        "More may be refused.",
        shown="RCPT TO:<b…b@d….test> (391 octets)",
    ),
    Case(
        "100 recipients",
        MAIL + b"".join(_RCPTS[:100]),
        "250×101",
        "§4.5.3.1.8",
        "Must be taken.",
        shown="MAIL …, RCPT … (100 times)",
    ),
    Case(
        "1,010 recipients",
        MAIL + b"".join(_RCPTS),
        "250×1011 | 250×1001, 452×10",
        "§4.5.3.1.10",
        "Who has a limit says 452.",
        shown="MAIL …, RCPT … (1,010 times)",
    ),
]
