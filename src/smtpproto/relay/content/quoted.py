"""Quoted-printable (RFC 2045 §6.7), of octets that need be no text.

A CR or LF that stands alone is encoded. No line begins with two hyphens: one that was broken here
might become a boundary.
"""

from __future__ import annotations

import binascii

__all__ = ["WINDOW", "QuotedPrintable", "quoted_printable"]

#: Octets that are encoded at a time.
WINDOW = 1 << 16


class QuotedPrintable:
    """Encodes a text that comes in pieces, cut anywhere; feed it them, then finish.

    What comes out does not depend on the cuts. A line of more than WINDOW octets is broken there.
    """

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take more; return what is encoded of it so far."""
        self._held += data
        out: list[bytes] = []
        while len(self._held) > WINDOW:
            end = self._held.rfind(b"\r\n", 0, WINDOW) + 2
            if end >= 2:
                out.append(quoted_printable(self._held[:end]))
            else:
                end = WINDOW - self._held.startswith(b"\r", WINDOW - 1)
                out.append(_beginning(self._held[:end]))
            del self._held[:end]
        return b"".join(out)

    def finish(self) -> bytes:
        """Return the rest."""
        return quoted_printable(self._held)


def quoted_printable(text: bytes | bytearray) -> bytes:
    """Encode a text with CRLF line ends, in lines of at most 76 octets."""
    return b"\r\n".join(map(_quoted, text.split(b"\r\n"))).replace(b"=\n", b"=\r\n")


def _beginning(text: bytes | bytearray) -> bytes:
    """Encode the beginning of a line, and break it; the stand-in keeps room for the break."""
    encoded = _quoted(text + b"\0").removesuffix(b"=00").removesuffix(b"=\n")
    return encoded.replace(b"=\n", b"=\r\n") + b"=\r\n"


def _quoted(line: bytes | bytearray) -> bytes:
    """Encode one line, in lines of at most 76 octets."""
    if b"\n" not in line:  # there `b2a_qp` loses count
        dashed = line.startswith(b"--")
        encoded = binascii.b2a_qp(b"\0" + line[1:] if dashed else line, istext=False)
        if b"=\n--" not in encoded:
            return b"=2D" + encoded[3:] if dashed else encoded
    octets = b"".join(b"=%02X" % octet for octet in line)
    return b"=\n".join(octets[at : at + 75] for at in range(0, len(octets), 75))
