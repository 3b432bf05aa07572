"""What the measured programs have in common. It imports next to nothing: that would be measured."""

from __future__ import annotations

from typing import Any

__all__ = ["HELO_NAME", "HOST", "SENDER", "backend", "content", "peak", "shares"]

HOST = "127.0.0.1"
HELO_NAME = "client.example.test"
SENDER = "sender@example.test"


def content(octets: int) -> bytes:
    """A short header and a body of at least `octets` octets, in lines of 76 and CRLF."""
    line = b"X" * 76 + b"\r\n"
    head = b"From: <%b>\r\nSubject: benchmark\r\n\r\n" % SENDER.encode()
    return head + line * -(-octets // len(line))


def shares(messages: int, sessions: int) -> list[int]:
    """Divide the messages among the sessions."""
    each, more = divmod(messages, sessions)
    return [each + (number < more) for number in range(sessions)]


def backend(loop: str) -> dict[str, Any]:
    """Return what `anyio.run` is told to run on asyncio, uvloop or trio."""
    if loop == "uvloop":
        return {"backend": "asyncio", "backend_options": {"use_uvloop": True}}
    return {"backend": loop}


def peak(pid: int | str = "self") -> int:
    """Return the most octets that a process had resident at any time; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            lines = status.read().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
