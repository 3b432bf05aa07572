"""What was decided about the PROXY protocol: for decisions.py."""

import struct

from attrs import frozen

__all__ = ["PROXIED", "Proxied"]


@frozen
class Proxied:
    """Octets at the very beginning come to `result`: whom the connection is for, or `refused`."""

    octets: bytes
    result: str
    why: str


def _block(kind: bytes, payload: bytes, length: int | None = None) -> bytes:
    length = len(payload) if length is None else length
    return b"\r\n\r\n\0\r\nQUIT\n" + kind + struct.pack("!H", length) + payload


_FOUR = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 1025, 25)

PROXIED = [
    Proxied(
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1025 25\r\n", "192.0.2.1 port 1025", "Version 1 (§2.1)."
    ),
    Proxied(
        b"PROXY TCP6 2001:DB8::1 ::1 1025 25\r\n", "2001:db8::1 port 1025", "In any way of writing."
    ),
    Proxied(b"PROXY UNKNOWN\r\n", "unknown", "The connection is as it is."),
    Proxied(b"PROXY UNKNOWN ffff:f 1 2 x\r\n", "unknown", "What follows is passed over."),
    Proxied(
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "refused", "108 octets; a line has 107 at most."
    ),
    Proxied(b"proxy UNKNOWN\r\n", "refused", "In upper case."),
    Proxied(b"PROXY TCP4 192.0.2.1 192.0.2.2 1025 25\n\r\n", "refused", "A bare LF."),
    Proxied(b"PROXY TCP4 192.0.2.1 192.0.2.2 01025 25\r\n", "refused", "No leading zeros."),
    Proxied(b"PROXY TCP4 192.0.2.1 192.0.2.2 1025 65536\r\n", "refused", "No such port."),
    Proxied(b"PROXY TCP4 192.0.2.1 ::1 1025 25\r\n", "refused", "Of one family."),
    Proxied(b"PROXY TCP6 192.0.2.1 192.0.2.2 1025 25\r\n", "refused", "Of the one announced."),
    Proxied(b"EHLO c.example\r\n", "refused", "Where one is due, nothing else may come first."),
    Proxied(_block(b"\x21\x11", _FOUR), "192.0.2.1 port 1025", "Version 2 (§2.2)."),
    Proxied(
        _block(b"\x21\x11", _FOUR + b"\x04\x00\x02ab"), "192.0.2.1 port 1025", "With a vector."
    ),
    Proxied(_block(b"\x20\x00", b""), "nobody", "LOCAL: the proxy itself asks how we are."),
    Proxied(_block(b"\x20\x11", b"\xff" * 30), "nobody", "What it has with it is passed over."),
    Proxied(_block(b"\x20\x51", b""), "nobody", "So is a family that there is not (§2.2)."),
    Proxied(_block(b"\x21\x00", b"\xff" * 9), "unknown", "UNSPEC, likewise."),
    Proxied(_block(b"\x31\x11", _FOUR), "refused", "Version 3."),
    Proxied(_block(b"\x22\x11", _FOUR), "refused", "Neither LOCAL nor PROXY."),
    Proxied(_block(b"\x21\x12", _FOUR), "192.0.2.1 port 1025", "UDP, too, has addresses."),
    Proxied(_block(b"\x21\x13", _FOUR), "refused", "No such transport."),
    Proxied(_block(b"\x21\x11", _FOUR[:-1]), "refused", "A length too small for its addresses."),
    Proxied(
        _block(b"\x21\x11", b"", 4097), "refused", "One too large, at once: nothing is waited for."
    ),
    Proxied(_block(b"\x21\x11", b"", 65535), "refused", "The same."),
    Proxied(
        _block(b"\x21\x11", _FOUR + b"\x04\x00\x03ab"), "refused", "A vector longer than the rest."
    ),
    Proxied(
        _block(b"\x21\x11", _FOUR + b"\x03\x00\x04\0\0\0\0"), "refused", "A checksum that is wrong."
    ),
]
