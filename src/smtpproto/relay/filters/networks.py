"""Whom the operator knows: networks that no filter behind this one is asked about, or nobody is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from attrs import field, frozen

from smtpproto.core.reply import Reply
from smtpproto.trust import Network, is_listed

from .seam import Accept, Answer, Refuse, Seen, Stage, Tag

__all__ = ["Networks"]


@frozen
class Networks:
    """Looks for a client's address in `networks`.

    `does` says what being there leads to: "accept" spares it all filters behind this one, such as
    greylisting (RFC 6647 §5), "tag" lets it be seen, "refuse" sends it away.
    """

    networks: Sequence[Network]
    does: Literal["accept", "tag", "refuse"] = "accept"
    name: str = "networks"
    stages: Collection[Stage] = field(default=frozenset({Stage.CONNECT}), init=False)

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        """Judge by where a client comes from."""
        if not is_listed(seen.session.peer[0], tuple(self.networks)):
            return None
        match self.does:
            case "accept":
                return Accept("known to the operator")
            case "tag":
                return Tag("known to the operator")
            case "refuse":
                return Refuse(Reply(554, "5.7.1", "No mail is taken from your network"))
