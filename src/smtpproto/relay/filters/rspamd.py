"""What rspamd thinks: the message goes to its HTTP interface, and what it says is done.

It needs httpx (the extra `rspamd`), and is therefore imported by itself, from here.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Collection
from typing import Any

import anyio
import httpx
from attrs import define, field

from smtpproto.core.reply import Reply

from .seam import Answer, Quarantine, Refuse, Seen, Stage, Tag

__all__ = ["Rspamd"]

#: The fields of a tag.
SPAM, SCORE = "X-Spam", "X-Spam-Score"
#: Octets of an answer.
LONGEST = 1 << 20


@define(eq=False)
class Rspamd:
    """Asks the rspamd at `url` (its normal worker, `http://127.0.0.1:11333`).

    What it rejects is refused, or with `quarantine` taken and held. Its "add header" and "rewrite
    subject" are a tag (`X-Spam: yes`), its "soft reject" a deferral. "greylist" is a wish that
    rspamd fulfils itself, by a soft reject, where it is set up to; it is none of ours. A message is
    bounded by the server's SIZE; over `largest` octets it is not asked.
    """

    url: str
    hostname: str
    quarantine: bool = False
    largest: int = 20_000_000
    seconds: float = 20
    name: str = "rspamd"
    stages: Collection[Stage] = field(default=frozenset({Stage.CONTENT}), init=False)
    #: What the tag writes.
    fields: Collection[str] = field(default=(SPAM, SCORE), init=False)
    transport: httpx.AsyncBaseTransport | None = field(default=None, kw_only=True)
    _tls: ssl.SSLContext | bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Once, for it takes a while; and not at all where there is no TLS.
        self._tls = ssl.create_default_context() if self.url.startswith("https:") else False

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        """Ask; that rspamd cannot be asked is a failure (`Chain`)."""
        content = seen.content
        if content is None or content.octets > self.largest:
            return None
        async with (
            httpx.AsyncClient(
                transport=self.transport,
                verify=self._tls,
                timeout=self.seconds,
                trust_env=False,  # no proxy of the environment's is shown people's mail
            ) as http,
            http.stream(
                "POST",
                f"{self.url.rstrip('/')}/checkv2",
                content=_bytes(content.chunks()),
                headers=[*self._about(seen), (b"Content-Length", b"%d" % content.octets)],
            ) as answer,
        ):
            answer.raise_for_status()
            said = bytearray()
            with anyio.CancelScope() as enough:
                # Not left by `break`: cancelled, httpx' generators come to their end here and now.
                async for chunk in answer.aiter_bytes():
                    if len(said) <= LONGEST:
                        said += chunk
                    if len(said) > LONGEST:
                        enough.cancel()
        if len(said) > LONGEST:
            raise ValueError(f"its answer has more than {LONGEST} octets")
        return self._answer(json.loads(said))

    def _about(self, seen: Seen) -> list[tuple[bytes, bytes]]:
        session = seen.session
        about: list[tuple[str, str]] = [
            ("IP", session.peer[0]),
            ("Helo", seen.helo),
            ("MTA-Name", self.hostname),
            ("Queue-Id", seen.id),
            ("User", session.identity or ""),
            ("From", "" if seen.mail is None else _address(seen.mail.reverse_path.mailbox)),
            *(("Rcpt", _address(rcpt.forward_path.mailbox)) for rcpt in seen.rcpts),
        ]
        return [(name.encode(), _octets(value)) for name, value in about if value or name == "From"]

    def _answer(self, said: Any) -> Answer | None:
        action = str(said["action"])
        score, most = float(said.get("score", 0)), float(said.get("required_score", 0))
        symbols = sorted(str(name) for name in said.get("symbols", ()))[:10]
        reason = f"{action}, {score:g} of {most:g}"
        if symbols:
            reason += ": " + " ".join(symbols)
        match action:
            case "no action" | "greylist":
                return Tag(reason)
            case "soft reject":
                return Refuse(Reply(451, "4.7.1", "Try again later"), reason)
            case "add header" | "rewrite subject":
                return Tag(reason, ((SPAM, "yes"), (SCORE, f"{score:g}")))
            case "quarantine":
                return Quarantine(reason)
            case "reject":
                if self.quarantine:
                    return Quarantine(reason)
                return Refuse(Reply(554, "5.7.1", "This is taken for spam"), reason)
            case "discard":
                return Quarantine(reason)  # nothing that was accepted is thrown away unseen
            case _:
                raise ValueError(f"rspamd says {action!r}, which nobody here knows")


async def _bytes(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk


def _address(mailbox: object) -> str:
    return "" if mailbox is None else str(mailbox)


def _octets(value: str) -> bytes:
    """Write a header's value: nothing of a peer's may begin another line."""
    return "".join(c if c.isprintable() else "?" for c in value).encode("utf-8")
