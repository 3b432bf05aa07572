"""MT-PRIORITY (RFC 6710): which messages go first. RFC 6758 carries it through other servers."""

from __future__ import annotations

import re

from smtpproto.core.errors import GrammarError, LocalProtocolError
from smtpproto.core.extension import Extension
from smtpproto.core.parameter import Parameter

__all__ = ["MT_PRIORITY", "PRIORITY", "mt_priority"]

# priority-value = (["-"] NZDIGIT) / "0" (§7)
_PRIORITY_VALUE = re.compile(rb"-?[1-9]|0")
# priority-profile = 1*20(ALPHA / DIGIT / "-" / "_" / ".") (§7)
_PRIORITY_PROFILE = re.compile(r"[A-Za-z0-9_.-]{1,20}")


def _read(value: bytes | None) -> int:
    if value is None or _PRIORITY_VALUE.fullmatch(value) is None:
        raise GrammarError("MT-PRIORITY takes -9 to 9", 501, "5.5.2")  # §4.1 has this status
    return int(value)


#: −9 to 9; higher goes first, and 0 is what a message without it has.
PRIORITY: Parameter[int] = Parameter("MT-PRIORITY", _read, lambda p: b"%d" % p, octets=15)


def mt_priority(policy: str = "") -> Extension:
    """Make the extension, announced with the name of the Priority Assignment Policy, if any."""
    if policy and _PRIORITY_PROFILE.fullmatch(policy) is None:
        raise LocalProtocolError(f"not the name of a priority policy: {policy!r}")
    return Extension(
        "MT-PRIORITY",
        rfc=6710,
        mail=(PRIORITY,),
        obliges="send by priority, pass it on, and raise it for trusted clients alone",
        announce=lambda _: policy,
    )


MT_PRIORITY = mt_priority()
