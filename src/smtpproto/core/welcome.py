"""What a server says under its own name: the greeting, the answer to EHLO, the goodbye.

Each is remembered, for a server says the same to most of its clients.
"""

from __future__ import annotations

from functools import lru_cache

from attrs import evolve

from .path import as_domain
from .reply import Reply

__all__ = ["greeting", "hello", "named", "own_name"]


@lru_cache(maxsize=64)
def own_name(hostname: str) -> str:
    """Check what a server calls itself; LocalProtocolError if no domain or address literal."""
    return as_domain(hostname).decode()


@lru_cache(maxsize=64)
def greeting(hostname: str, *, lmtp: bool) -> Reply:
    """Return the first reply of all (RFC 5321 §3.1)."""
    return Reply(220, None, f"{hostname} {'LMTP' if lmtp else 'ESMTP'}")


@lru_cache(maxsize=256)
def hello(hostname: str, client: bytes, lines: tuple[bytes, ...]) -> Reply:
    """Return the answer to an EHLO of `client`, with the `lines` that say what is offered."""
    # Cut, for two longest names are more than a reply line may hold.
    return Reply(250, None, [f"{hostname} greets {client[:200].decode()}", *lines])


@lru_cache(maxsize=64)
def named(hostname: str, reply: Reply) -> Reply:
    """Return a 221 or 421 with the server's name before its text (§4.2), cut to a line's length."""
    first, *others = reply.lines
    return evolve(reply, lines=[b"%b %b" % (hostname.encode(), first[:240]), *others])
