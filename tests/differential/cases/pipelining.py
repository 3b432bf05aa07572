"""Commands that do not wait for replies."""

from tests.differential.case import EHLO, MAIL, RCPT, Case
from tests.differential.servers import REFUSED

__all__ = ["PIPELINING"]

_REFUSED = b"RCPT TO:<%b>\r\n" % REFUSED.encode()
_CONTENT = b"Subject: s\r\n\r\none\r\n"

PIPELINING = [
    Case(
        "MAIL, RCPT and DATA",
        (MAIL + RCPT + b"DATA\r\n", _CONTENT + b".\r\n"),
        "250, 250, 354, 250",
        "RFC 2920 §3.2",
        "A reply to each, in their order.",
        contents=(_CONTENT,),
    ),
    Case(
        "MAIL refused",
        b"MAIL FROM:<a@c.example> XYZ=1\r\n" + RCPT + b"DATA\r\n",
        "5yz, 503, 503/554",
        "RFC 2920 §3.2",
        "No 354 without a recipient.",
    ),
    Case(
        "all recipients refused",
        MAIL + _REFUSED + b"DATA\r\n",
        "250, 5yz, 503/554",
        "RFC 2920 §3.2",
        "No 354 without a recipient.",
    ),
    Case(
        "one of two recipients refused",
        (MAIL + _REFUSED + RCPT + b"DATA\r\n", _CONTENT + b".\r\n"),
        "250, 5yz, 250, 354, 250",
        "RFC 2920 §3.2",
        "The other gets it.",
        contents=(_CONTENT,),
    ),
    Case(
        "everything behind EHLO",
        EHLO + MAIL + RCPT + b"NOOP\r\n",
        "250, 250, 250, 250",
        "RFC 2920 §3.2",
        "EHLO comes last in a group; but nothing at hand may be lost.",
        after="at once",
    ),
    Case(
        "NOOP and VRFY in the middle",
        MAIL + b"NOOP\r\nVRFY b\r\n" + RCPT,
        "250, 250, 2yz/5yz, 250",
        "RFC 2920 §3.2",
        "They come last in a group; the order stays.",
    ),
    Case(
        "50 times NOOP",
        b"NOOP\r\n" * 50,
        "250×50",
        "RFC 2920 §3.2",
        "The same.",
        shown="NOOP\\r\\n (50 times)",
    ),
]
