"""The transport table: rules that say what is done with mail, by recipient and by sender.

`Routes` is the seam; `RouteTable` is the one real table, in memory: an ordered list of rules, of
which the first that fits decides. It is asked before the DNS, and behind the aliases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from attrs import field, frozen

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox, ReversePath, as_domain

from .schedule import Schedule
from .transport import Transport, canonical

__all__ = ["RouteTable", "Routes", "Rule", "no_routes"]

#: The pattern for the null path, that of reports.
NULL = "<>"


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise LocalProtocolError(f"a list of addresses and domains is wanted, not {values!r}")
    return tuple(values)


@frozen
class Rule:
    """What is done with mail that fits: `to`.

    It fits where its recipient is among `recipients` and its sender among `senders`; without any,
    everybody is. Each is an address (`ann@our.dom`, and with it `ann+tag@our.dom`), a domain
    (`our.dom`), or all domains below one (`.our.dom`); `<>` is the sender of reports. Case makes
    no difference. `schedule` is when what could not be delivered is tried again, and when it is
    given up; None: as the relay does it.

    LocalProtocolError for what is none of these.
    """

    to: Transport
    recipients: tuple[str, ...] = field(default=(), converter=_texts, kw_only=True)
    senders: tuple[str, ...] = field(default=(), converter=_texts, kw_only=True)
    schedule: Schedule | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        for pattern in (*self.recipients, *(each for each in self.senders if each != NULL)):
            _key(pattern)


class Routes(Protocol):
    """Tells by which rule mail goes."""

    async def find(self, mailbox: Mailbox, sender: ReversePath) -> Rule | None:
        """Return the rule for mail from `sender` to `mailbox`; None where none fits.

        The domain is never empty, and in small letters, unless it has others than ASCII.
        What is raised defers the mail.
        """
        ...


class RouteTable:
    """Rules in order: the first that fits decides.

    `separator` stands in an address before its tag, empty for no tags. However many rules there
    are, few are looked at.
    """

    def __init__(self, rules: Iterable[Rule] = (), *, separator: str = "+") -> None:
        self.rules = tuple(rules)
        self._separator = separator.encode()
        self._by_recipient: dict[str, list[int]] = {}
        self._by_sender: dict[str, list[int]] = {}  # of rules that fit every recipient
        self._always: list[int] = []  # … and every sender
        self._senders: dict[int, frozenset[str]] = {}
        for number, rule in enumerate(self.rules):
            senders = frozenset(each if each == NULL else _key(each) for each in rule.senders)
            if senders:
                self._senders[number] = senders
            for key in map(_key, rule.recipients):
                self._by_recipient.setdefault(key, []).append(number)
            if not rule.recipients:
                for key in senders:
                    self._by_sender.setdefault(key, []).append(number)
                if not senders:
                    self._always.append(number)

    async def find(self, mailbox: Mailbox, sender: ReversePath) -> Rule | None:
        """Return the first rule that fits."""
        if not self.rules:
            return None
        from_ = [NULL] if sender.mailbox is None else [*self._keys(sender.mailbox)]
        fitting = self._always[:1]
        for key in from_:
            fitting += self._by_sender.get(key, ())[:1]
        for key in self._keys(mailbox):
            for number in self._by_recipient.get(key, ()):
                senders = self._senders.get(number)
                if senders is None or not senders.isdisjoint(from_):
                    fitting.append(number)
                    break
        return self.rules[min(fitting)] if fitting else None

    def _keys(self, mailbox: Mailbox) -> Iterator[str]:
        """Return the patterns that a mailbox fits."""
        local, domain = mailbox.local_part.lower(), canonical(mailbox.domain)
        yield _address(local, domain)
        if self._separator and (untagged := local.partition(self._separator)[0]) not in (
            b"",
            local,
        ):
            yield _address(untagged, domain)
        yield domain
        parent = domain
        while "." in parent and not domain.startswith("["):
            parent = parent.partition(".")[2]
            yield "." + parent


def _address(local_part: bytes, domain: str) -> str:
    return f"{local_part.decode()}@{domain}"


def _key(pattern: str) -> str:
    """Spell a pattern as those of a mailbox are spelled."""
    if "@" in pattern:
        mailbox = Mailbox.of(pattern)
        return _address(mailbox.local_part.lower(), canonical(mailbox.domain))
    below = pattern.startswith(".")
    domain = canonical(as_domain(pattern.removeprefix(".").removesuffix("."), utf8=True))
    return f".{domain}" if below else domain


class _NoRoutes:
    async def find(self, mailbox: Mailbox, sender: ReversePath) -> Rule | None:
        return None


#: No rule: what is ours stays here, and all else goes by MX, or to the smart host.
no_routes: Routes = _NoRoutes()
