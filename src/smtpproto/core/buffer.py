"""Octets in, lines or runs of octets out: bounded, and linear in what comes in."""

from __future__ import annotations

__all__ = ["ReceiveBuffer"]


class ReceiveBuffer:
    """Received octets that nobody has taken yet.

    It remembers how far it has looked for a line end, so a peer that sends one octet at a time
    costs no more than one that sends a megabyte.
    """

    __slots__ = ("_data", "_dropped", "_searched")

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0  # no CRLF begins before this offset
        self._dropped = 0  # octets of the current line thrown away because it is too long

    def __len__(self) -> int:
        return len(self._data)

    def append(self, data: bytes) -> None:
        """Store `data` behind what is there."""
        self._data += data

    def first_octet(self) -> int | None:
        """Return the octet that the current line begins with, or None while there is none."""
        return self._data[0] if self._data else None

    def take_line(self, keep: int) -> tuple[bytes, int] | None:
        """Take one line off, up to its CRLF; None if it has not ended yet.

        Only CRLF ends a line (RFC 5321 §2.3.8). Of a longer line the first `keep` octets are
        kept, and its true length stands beside it.
        Returns the line without CRLF and the number of octets it took, CRLF included.
        """
        data = self._data
        if not data:
            return None
        at = data.find(b"\r\n", self._searched)
        if at < 0:
            # A CR at the very end may be the first half of the CRLF.
            tail = 1 if data.endswith(b"\r") else 0
            surplus = len(data) - tail - keep
            if surplus > 0:
                self._dropped += surplus
                del data[keep : keep + surplus]
            self._searched = len(data) - tail
            return None
        length = self._dropped + at + 2
        line = bytes(data[: min(at, keep)])
        del data[: at + 2]
        self._searched = self._dropped = 0
        return line, length

    @property
    def line_length(self) -> int:
        """Octets of the current, unfinished line so far, those thrown away included."""
        return self._dropped + len(self._data)

    def peek(self, octets: int) -> bytes:
        """Return the first `octets` octets, or all there are, and leave them where they are."""
        return bytes(self._data[:octets] if octets < len(self._data) else self._data)

    def skip(self, octets: int) -> None:
        """Drop the first `octets` octets; what is left begins a line."""
        del self._data[:octets]
        self._searched = 0

    def clear(self) -> None:
        """Forget everything."""
        self._data.clear()
        self._searched = self._dropped = 0
