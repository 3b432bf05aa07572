"""The content of one message on its way in: after DATA up to the final dot, or by BDAT chunks."""

from __future__ import annotations

from .buffer import ReceiveBuffer
from .content import DotReader, LineEnds
from .reply import Reply

__all__ = ["Reception"]

TOO_BIG = Reply(552, "5.3.4", "Message too big")
BARE_LINE_END = Reply(554, "5.6.0", "Message has a bare CR or LF")

MAX_PIECE = 65_536  # octets in one event
FIRST_LOOK = 8192  # not all at once: behind a small message a long backlog may stand


class Reception:
    """Takes one message's content off a buffer, counts it, and remembers what is wrong with it.

    `limit` is the octets it may have; what is more is swallowed. `repair` mends line ends after
    DATA; `binary` content has none (BODY=BINARYMIME, RFC 3030 §3).
    """

    __slots__ = ("_binary", "_dots", "_ends", "_left", "_limit", "_repair", "_window", "octets")

    def __init__(self, limit: int | None, *, repair: bool, binary: bool) -> None:
        self._limit = limit
        self._repair = repair
        self._dots: DotReader | None = None
        self._binary = binary
        self._ends: LineEnds | None = None
        self._left = 0
        self._window = FIRST_LOOK
        #: Octets of content so far, as RFC 1870 counts them.
        self.octets = 0

    def begin_data(self) -> None:
        """Read dot-stuffed content from here on."""
        self._dots = DotReader(repair=self._repair)

    def begin_chunk(self, size: int) -> None:
        """Read `size` octets of content as they are."""
        self._left = size
        if self._ends is None and not self._binary:
            self._ends = LineEnds()

    @property
    def ended(self) -> bool:
        """Whether the final dot, or the last octet of the chunk, has been read."""
        return self._dots.ended if self._dots is not None else not self._left

    def take(self, buffer: ReceiveBuffer) -> bytes | None:
        """Take content off the buffer; None when there is none there, or it has ended."""
        while len(buffer) and not self.ended:
            body = self._dotted(buffer, self._dots) if self._dots else self._counted(buffer)
            before = self.octets
            self.octets += len(body)
            if self._limit is not None and self.octets > self._limit:
                body = body[: max(self._limit - before, 0)]
            if body:
                return body
        return None

    def _dotted(self, buffer: ReceiveBuffer, dots: DotReader) -> bytes:
        octets = min(self._window, len(buffer))
        self._window = min(4 * self._window, MAX_PIECE)
        body, behind = dots.feed(buffer.peek(octets))
        buffer.skip(octets - behind)
        return body

    def _counted(self, buffer: ReceiveBuffer) -> bytes:
        body = buffer.peek(min(self._left, MAX_PIECE))
        buffer.skip(len(body))
        self._left -= len(body)
        if self._ends is not None:
            self._ends.feed(body)
        return body

    def fault(self, *, final: bool) -> Reply | None:
        """Return the reply owed if the content so far has broken a rule; `final`: it is whole."""
        if self._limit is not None and self.octets > self._limit:
            return TOO_BIG
        if self._dots is not None:
            return BARE_LINE_END if self._dots.bare and not self._repair else None
        if self._ends is not None:
            if final:
                self._ends.finish()
            return BARE_LINE_END if self._ends.bare else None
        return None
