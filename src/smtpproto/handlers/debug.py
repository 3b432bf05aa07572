"""Print mail: to look at what a program sends."""

from __future__ import annotations

import sys
from typing import TextIO

import anyio.to_thread

from smtpproto.core.envelope import Envelope
from smtpproto.core.reply import Reply
from smtpproto.handler import ContentStream, Session

from .discard import Discard

__all__ = ["Debug"]


class Debug(Discard):
    """Prints each message between two rules, its envelope first; controls appear escaped.

    What is longer than `max_octets` is cut there. `out` is standard output, unless given. A
    message is printed as a whole, so that those of several sessions do not mingle.
    """

    def __init__(self, out: TextIO | None = None, *, max_octets: int = 65_536) -> None:
        self._out = out
        self._max_octets = max_octets

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        """Print the message."""
        kept = bytearray()
        octets = 0
        async for chunk in content:
            octets += len(chunk)
            kept += chunk[: self._max_octets - len(kept)]
        to = " ".join(map(str, envelope.forward_paths))
        lines = [
            f"-------- {envelope.reverse_path} -> {to}",
            *kept.decode("utf-8", "backslashreplace").removesuffix("\r\n").split("\r\n"),
        ]
        if octets > len(kept):
            lines.append(f"-------- and {octets - len(kept)} octets more")
        lines.append("--------")
        text = "".join(f"{_visible(line)}\n" for line in lines)
        await anyio.to_thread.run_sync(self._print, text)  # a pipe may be full
        return None

    def _print(self, text: str) -> None:
        out = self._out or sys.stdout
        encoding = getattr(out, "encoding", None) or "utf-8"
        out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        out.flush()


def _visible(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in line)
