"""LIMITS (RFC 9422): what a session may hold, said beforehand."""

from __future__ import annotations

import re

from attrs import field, fields, frozen

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.extension import Extension, Standing

__all__ = ["LIMITS", "Maxima", "limits"]

# A limit is a name, "=" and a number of 1 to 6 digits that is not 0.
_MOST = 999_999
_LIMIT = re.compile(r"([A-Za-z0-9_-]+)=([1-9][0-9]{0,5})")


def _check(_: object, __: object, value: int | None) -> None:
    if value is not None and not 1 <= value <= _MOST:
        raise LocalProtocolError("a limit is 1 to 999999")


def _maximum(name: str) -> int | None:
    value: int | None = field(default=None, validator=_check, metadata={"name": name})
    return value


@frozen
class Maxima:
    """The limits a server announces; None where it says nothing. LocalProtocolError over 999999.

    What a client may send is read with `Maxima.parse(client.offered.get("LIMITS", ""))`; read
    it again after STARTTLS and AUTH, for it may differ.
    """

    mail: int | None = _maximum("MAILMAX")  #: transactions in a session
    rcpt: int | None = _maximum("RCPTMAX")  #: recipients in a transaction
    rcpt_domain: int | None = _maximum("RCPTDOMAINMAX")  #: domains of recipients in a session

    @classmethod
    def parse(cls, argument: str) -> Maxima:
        """Read what stands behind LIMITS in the EHLO reply.

        Names that are unknown and values that are no number are passed over, as those of a
        newer server; so this raises nothing.
        """
        matches = (_LIMIT.fullmatch(limit) for limit in argument.split(" "))
        found = {match[1].upper(): int(match[2]) for match in matches if match}
        return cls(*(found.get(each.metadata["name"]) for each in fields(cls)))

    def serialize(self) -> str:
        """Write what stands behind LIMITS in the EHLO reply; empty for no limits."""
        said = ((each.metadata["name"], getattr(self, each.name)) for each in fields(Maxima))
        return " ".join(f"{name}={value}" for name, value in said if value is not None)


def limits(maxima: Maxima | None = None) -> Extension:
    """Make the extension that announces `maxima`; where they hold nothing, it is not offered.

    None announces what the connection itself enforces: RCPTMAX, from `Limits.recipients`.
    """

    def announce(standing: Standing) -> str | None:
        enforced = Maxima(rcpt=min(standing.max_recipients, _MOST) or None)
        return (enforced if maxima is None else maxima).serialize() or None

    return Extension(
        "LIMITS", rfc=9422, obliges="take as much as it announces, and no more", announce=announce
    )


LIMITS = limits()
