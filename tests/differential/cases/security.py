"""AUTH and STARTTLS."""

import base64

from tests.adapters.world import PASSWORD
from tests.differential.case import EHLO, MAIL, RCPT, Case
from tests.differential.play import Handshake, Step

__all__ = ["AUTH", "TLS"]


def _plain(password: str) -> bytes:
    return base64.b64encode(f"\0ann\0{password}".encode())


_GOOD = _plain(PASSWORD)
_MUST_BE_501 = "What is no base64 must get 501."


def _auth(
    name: str,
    sends: Step | tuple[Step, ...],
    demand: str,
    why: str,
    *,
    after: str = "EHLO",
    clause: str = "RFC 4954 §4",
    shown: str = "",
) -> Case:
    return Case(name, sends, demand, clause, why, after=after, needs="AUTH", shown=shown)


def _initial(name: str, response: bytes, demand: str, why: str, shown: str = "") -> Case:
    return _auth(name, b"AUTH PLAIN %b\r\n" % response, demand, why, shown=shown)


def _response(name: str, response: bytes, demand: str, why: str, shown: str = "") -> Case:
    return _auth(name, (b"AUTH PLAIN\r\n", response + b"\r\n"), demand, why, shown=shown)


AUTH = [
    _initial("PLAIN", _GOOD, "235", "As it should be."),
    _response("PLAIN in two steps", _GOOD, "334, 235", "As it should be."),
    _auth(
        "LOGIN",
        (
            b"AUTH LOGIN\r\n",
            base64.b64encode(b"ann") + b"\r\n",
            base64.b64encode(PASSWORD.encode()) + b"\r\n",
        ),
        "334, 334, 235",
        "It was never standardised; all know it.",
    ),
    _auth(
        "a mechanism in lower case",
        b"AUTH plain %b\r\n" % _GOOD,
        "235/501/504",
        "SASL's names are in capitals; SMTP's arguments in any case (RFC 5321 §2.4).",
        clause="RFC 4422 §3.1",
    ),
    _initial("a wrong password", _plain("wrong"), "535", "Should be 535."),
    _auth("an unknown mechanism", b"AUTH XYZZY\r\n", "504", "Rejected with 504."),
    _auth("no mechanism", b"AUTH\r\n", "501", "It has an argument.", clause="§4.3.2"),
    _auth("a name that is none", b"AUTH P!AIN\r\n", "501/504", "Malformed and unknown."),
    _initial("letters that are not base64", b"AGFub!BodW50", "501", _MUST_BE_501),
    _initial("no padding", b"AGFubgBodW50ZXIyLWFuZC1tb3J", "501", _MUST_BE_501),
    _initial("padding in front", b"=AAA", "501", _MUST_BE_501),
    _initial("padding in the middle", b"AGE=YgBj", "501", _MUST_BE_501),
    _initial(
        "two words",
        _GOOD + b" AAAA",
        "501",
        "There is one initial response.",
    ),
    _initial("an asterisk", b"*", "501", "It cancels what has begun, and is no base64."),
    _initial("an empty initial response", b"=", "501/535", "Decoded, and no PLAIN (RFC 4616 §2)."),
    _response("cancelled", b"*", "334, 501", "Must be 501."),
    _response("an empty response", b"", "334, 501/535", "Decoded, and no PLAIN."),
    _response("`=` as a response", b"=", "334, 501", _MUST_BE_501),
    _response("a response that is not base64", b"a b", "334, 501", _MUST_BE_501),
    _response("QUIT as a response", b"QUIT", "334, 501/535", "It is base64, and no PLAIN."),
    _initial(
        "an initial response of 13,000 octets",
        b"A" * 13_000,
        "500/501/535",
        "500 where it is too long.",
    ),
    _response(
        "a response of 13,000 octets",
        b"A" * 13_000,
        "334, 500/501/535",
        "500 where it is too long.",
    ),
    _auth("AUTH twice", b"AUTH PLAIN %b\r\n" % _GOOD, "503", "Must be 503.", after="AUTH"),
    _auth(
        "AUTH in a transaction", b"AUTH PLAIN %b\r\n" % _GOOD, "503", "Must be 503.", after="MAIL"
    ),
    _auth(
        "AUTH before EHLO",
        b"AUTH PLAIN %b\r\n" % _GOOD,
        "235/5yz",
        "Nothing was offered; nothing says what becomes of it.",
        after="at once",
        clause="§2.2.1",
    ),
    _auth(
        "AUTH after HELO",
        b"AUTH PLAIN %b\r\n" % _GOOD,
        "235/5yz",
        "The same.",
        after="HELO",
        clause="§2.2.1",
    ),
]


def _tls(
    name: str,
    sends: Step | tuple[Step, ...],
    demand: str,
    why: str,
    *,
    after: str = "EHLO",
    clause: str = "RFC 3207 §4.2",
    shown: str = "",
) -> Case:
    return Case(name, sends, demand, clause, why, after=after, needs="STARTTLS", shown=shown)


_START = (b"STARTTLS\r\n", Handshake())

TLS = [
    _tls("STARTTLS", (*_START, EHLO, MAIL), "220, TLS, 250, 250", "As it should be."),
    _tls(
        "STARTTLS with an argument",
        b"STARTTLS now\r\n",
        "501",
        "No parameters.",
        clause="RFC 3207 §4",
    ),
    _tls(
        "NOOP behind STARTTLS",
        (b"STARTTLS\r\nNOOP\r\n", Handshake(), b"RSET\r\n"),
        "220, TLS, 250",
        "What came in clear is no part of the session under TLS (CVE-2011-0411).",
    ),
    _tls(
        "EHLO and MAIL behind STARTTLS",
        (b"STARTTLS\r\n" + EHLO + MAIL, Handshake(), EHLO, RCPT),
        "220, TLS, 250, 503",
        "The same.",
        shown=r"STARTTLS\r\nEHLO …MAIL …, TLS handshake, EHLO …, RCPT …",
    ),
    _tls(
        "a transaction before STARTTLS",
        (*_START, RCPT),
        "220, TLS, 503 | 503, 250",
        "It does not survive; STARTTLS may be refused there.",
        after="MAIL",
    ),
    _tls(
        "the greeting before STARTTLS",
        (*_START, MAIL),
        "220, TLS, 250/503",
        "It is forgotten; then as for MAIL before EHLO.",
    ),
    _tls(
        "a login before STARTTLS",
        (*_START, EHLO, b"AUTH PLAIN %b\r\n" % _GOOD),
        "220, TLS, 250, 235",
        "It is forgotten, so one may log in again.",
        after="AUTH",
    ),
    _tls(
        "STARTTLS twice",
        (*_START, EHLO, b"STARTTLS\r\n"),
        "220, TLS, 250, 454/5yz",
        "There is TLS already.",
    ),
    _tls(
        "STARTTLS before EHLO",
        (*_START, EHLO),
        "220, TLS, 250 | 503, 250",
        "Nothing was offered; nothing says what becomes of it.",
        after="at once",
        clause="§2.2.1",
    ),
    _tls(
        "STARTTLS after HELO",
        (*_START, EHLO),
        "220, TLS, 250 | 5yz, 250",
        "The same.",
        after="HELO",
        clause="§2.2.1",
    ),
]
