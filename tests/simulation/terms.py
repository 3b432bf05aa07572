"""What a sender has asked for, read from MAIL and RCPT once more, and by no code of the relay's."""

import re
from datetime import datetime

from attrs import frozen

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.path import AnyMailbox, ForwardPath, Mailbox
from smtpproto.relay.routing.schedule import DEFAULT

__all__ = ["Terms", "behind", "domain_of", "owed", "parameters_of", "path_of", "sender_of"]

_BY = re.compile(r"([+-]?\d+);([NR])(T?)", re.IGNORECASE)


@frozen
class Terms:
    """By when a message is wanted, and from when on; wall time in seconds.

    It may go from `begins` on (RFC 4865), and is wanted by `by`, if that is not None (RFC 2852):
    with `returns`, or else not at all. `trace`: whoever passes it on says so.
    """

    begins: float
    by: float | None
    returns: bool
    trace: bool
    envid: str | None
    header_only: bool

    @classmethod
    def of(cls, mail: Mail, arrived: float) -> "Terms":
        """Read them from MAIL, which came at a time."""
        asked = parameters_of(mail)
        begins = arrived + float(asked.get("HOLDFOR") or 0)
        if until := asked.get("HOLDUNTIL"):
            begins = max(arrived, datetime.fromisoformat(until).timestamp())
        match = _BY.fullmatch(asked.get("BY") or "")
        return cls(
            begins,
            None if match is None else arrived + int(match[1]),
            match is not None and match[2].upper() == "R",
            match is not None and match[3] != "",
            asked.get("ENVID"),
            asked.get("RET") == "HDRS",
        )

    @property
    def late(self) -> float:
        """From when on the sender may be told that it is late."""
        if self.by is None or self.returns:
            return self.begins + DEFAULT.notice
        return self.by


def parameters_of(command: Mail | Rcpt) -> dict[str, str]:
    """Return the parameters of a command as they stand there."""
    return {key: (value or b"").decode() for key, value in command.parameters.items()}


def path_of(rcpt: Rcpt) -> str:
    return str(rcpt.forward_path.mailbox).lower()


def sender_of(mail: Mail) -> str:
    mailbox = mail.reverse_path.mailbox
    return "" if mailbox is None else str(mailbox).lower()


def domain_of(path: str) -> str:
    return path.rpartition("@")[2]


def owed(rcpt: Rcpt, action: str) -> bool:
    """Tell whether NOTIFY asks for a report of this (RFC 3461 §4.1)."""
    value = rcpt.parameters.get("NOTIFY")
    words = {"FAILURE", "DELAY"} if value is None else set(value.decode().upper().split(","))
    wanted = {"failed": "FAILURE", "delayed": "DELAY"}.get(action, "SUCCESS")
    return wanted in words


def behind(rcpt: Rcpt, path: AnyMailbox, of: int, owner: str | None) -> Rcpt:
    """Return who stands behind an alias or a list, and what is to be reported of that one.

    Of several, nobody asks for success (RFC 3461 §5.2.7); of a list's, its owner hears of
    failures alone.
    """
    there = ForwardPath(Mailbox.of(path))
    if owner is not None:
        return Rcpt(there, {"NOTIFY": b"FAILURE"})
    asked = rcpt.parameters.get("NOTIFY")
    if asked is None:
        return Rcpt(there)
    words = [word for word in asked.decode().split(",") if of == 1 or word != "SUCCESS"]
    return Rcpt(there, {"NOTIFY": (",".join(words) or "NEVER").encode()})
