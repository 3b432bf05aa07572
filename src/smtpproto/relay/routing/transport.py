"""What can be done with mail for a recipient, as values: it stays here, goes to a host, waits, ….

Who chooses is a rule of a table (`table.py`), and where none fits the Router (`route.py`).
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence, Sequence
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeAlias

from attrs import field, frozen

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import AnyMailbox, Mailbox, as_octets
from smtpproto.core.reply import Reply, Severity
from smtpproto.security import a_labels
from smtpproto.trace import address_literal

from .access import Access

__all__ = [
    "SMTP_PORT",
    "Address",
    "ByMx",
    "Discard",
    "Here",
    "Host",
    "HostPort",
    "Local",
    "NextHop",
    "OnHold",
    "Refuse",
    "Route",
    "Transport",
    "Undetermined",
    "Unroutable",
    "address_in",
    "canonical",
    "folded",
    "folded_name",
]

SMTP_PORT = 25


@frozen
class HostPort:
    """A host, by name or IP address, and a TCP port."""

    host: str
    port: int = SMTP_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen(cache_hash=True)  # what is known of next hops is kept by them
class Host:
    """One attempt: connect to `address` at `port`, and expect `name` there (TLS, Remote-MTA).

    `address` is an IP address; None leaves it to the connector to resolve `name` (A and AAAA, no
    MX). With `path` it listens on that UNIX socket instead, and has no port. `lmtp`: it speaks
    LMTP, which is not for port 25 (LocalProtocolError; RFC 2033 §5). `access` is how it is talked
    to, and the only place for a login; None: as all that MX finds, by the relay's own.
    """

    name: str
    address: str | None = None
    port: int = SMTP_PORT
    lmtp: bool = field(default=False, kw_only=True)
    path: str | None = field(default=None, kw_only=True)
    access: Access | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.lmtp and self.path is None and self.port == SMTP_PORT:
            raise LocalProtocolError("LMTP is not for port 25 (RFC 2033 §5)")

    @property
    def where(self) -> str:
        """What it is called where attempts are told of: its name, and the port or path."""
        bare = ":" in self.name and not self.name.startswith("[")  # an IPv6 address
        name = f"[{self.name}]" if bare else self.name
        return f"{name}:{self.port if self.path is None else self.path}"

    @property
    def domain(self) -> str:
        """Its name as a domain, or as an address literal where it is an IP address."""
        return _domain(self.name)

    def __str__(self) -> str:
        protocol = "lmtp" if self.lmtp else "smtp"
        there = str(HostPort(self.address or self.name, self.port))
        return f"{protocol}:{there}" if self.path is None else f"{protocol}:unix:{self.path}"


@lru_cache(4096)
def _domain(name: str) -> str:
    try:
        return address_literal(name).decode()
    except ValueError:
        return name


@frozen
class Local:
    """The mail is for us. `domain` is what stands behind the `@` of its mailbox here."""

    domain: str


@frozen
class NextHop:
    """Try `hosts` in this order until one takes the mail.

    Recipients whose next hops have one `name` may share a transaction, and if it is down it is held
    by its name. That is the domain that the hosts are the mail exchangers of, or what `fixed`
    hosts are: so two accesses to one host are two next hops.
    """

    hosts: tuple[Host, ...]
    name: str | tuple[Host | tuple[Host, ...], ...]

    @classmethod
    def fixed(cls, *hosts: Host | Sequence[Host]) -> NextHop:
        """Return the next hop of hosts that are given, in their order; of one at least.

        Those in a sequence are equals, and come in another order each time that a Router gives
        them (`shuffled`), as mail exchangers of one preference do (RFC 5321 §5.1). ValueError for
        none.
        """
        levels = [(each,) if isinstance(each, Host) else tuple(each) for each in hosts]
        if not all(levels) or not levels:
            raise ValueError("a next hop without a host")
        name = tuple(level[0] if len(level) == 1 else level for level in levels)
        return cls(tuple(host for level in levels for host in level), name)

    @property
    def levels(self) -> Sequence[Sequence[Host]]:
        """The hosts in their order, equals together."""
        if isinstance(self.name, str):
            return [[host] for host in self.hosts]
        return [[level] if isinstance(level, Host) else level for level in self.name]

    def shuffled(self, shuffle: Callable[[MutableSequence[Any]], None]) -> NextHop:
        """Return it with equals in the order that `shuffle`, as `random.shuffle`, puts them in."""
        if isinstance(self.name, str) or len(self.name) == len(self.hosts):
            return self
        hosts: list[Host] = []
        for level in self.levels:
            equals = [*level]
            shuffle(equals)
            hosts += equals
        return NextHop(tuple(hosts), self.name)

    def __str__(self) -> str:
        if isinstance(self.name, str):
            return self.name
        return ", ".join(" or ".join(map(str, level)) for level in self.levels)


@frozen
class Unroutable:
    """There is no way, and there will be none: `reply` (5yz) is what its recipients get."""

    reply: Reply


@frozen
class Undetermined:
    """The DNS did not say; ask again later. `reply` (4yz) says what failed."""

    reply: Reply


# What a rule says, besides a NextHop


@frozen
class Here:
    """It stays here, in the mailbox of its address."""

    def __str__(self) -> str:
        return "here"


@frozen
class ByMx:
    """It goes where the MX records of its domain lead."""

    def __str__(self) -> str:
        return "mx"


@frozen
class OnHold:
    """It stays in the queue as long as the rule stands, and never expires; `reason` is shown."""

    reason: str = ""

    def __str__(self) -> str:
        return f"on hold: {self.reason}" if self.reason else "on hold"


@frozen
class Discard:
    """It is gone, and nobody hears of it but the observer; `reason` is for that."""

    reason: str = ""

    def __str__(self) -> str:
        return f"discarded: {self.reason}" if self.reason else "discarded"


@frozen
class Refuse:
    """It is refused with `reply`, 4yz or 5yz; LocalProtocolError for another, and for 421.

    That would end the session, and with it what others are sent in it.
    """

    reply: Reply

    def __attrs_post_init__(self) -> None:
        refuses = self.reply.severity in {Severity.TRANSIENT, Severity.PERMANENT}
        if not refuses or self.reply.code == 421:
            raise LocalProtocolError(f"a refusal is 4yz or 5yz, and not 421: {self.reply}")

    def __str__(self) -> str:
        return f"refused: {self.reply}"


#: What a rule says.
Transport: TypeAlias = NextHop | Here | ByMx | OnHold | Discard | Refuse
#: What that is for one recipient, when the DNS has been asked.
Route: TypeAlias = Local | NextHop | OnHold | Discard | Refuse | Unroutable | Undetermined

Address: TypeAlias = IPv4Address | IPv6Address


@lru_cache(4096)
def canonical(domain: bytes | str) -> str:
    """Spell a domain in the one way it is compared in: small letters, A-labels, no final dot.

    A-labels are what the DNS has (RFC 6531 §3.2). What is no name by IDNA stays what it is, and is
    no name there.
    """
    octets = as_octets(domain)
    name = octets.lower().decode("ascii", "backslashreplace").removesuffix(".")
    if not octets.isascii():
        with suppress(UnicodeError):  # idna's own errors are some of these
            name = a_labels(octets.decode().removesuffix(".")).lower()
    address = address_in(name)
    return name if address is None else _literal(address)


def folded(mailbox: Mailbox) -> bytes:
    """Spell a mailbox in the one way it is compared in: case apart, its domain as `canonical`."""
    local, domain = mailbox.local_part.lower(), canonical(mailbox.domain).encode()
    return b"%b@%b" % (local, domain) if domain else local


def folded_name(name: AnyMailbox) -> bytes:
    """Spell a name in a table so: an address, or a local part alone."""
    octets = b"@" if isinstance(name, Mailbox) else as_octets(name)
    return folded(Mailbox.of(name)) if b"@" in octets else octets.lower()


def _literal(address: Address) -> str:
    return f"[ipv6:{address}]" if isinstance(address, IPv6Address) else f"[{address}]"


def address_in(name: str) -> Address | None:
    """Read the IP address of an address literal in small letters (RFC 5321 §4.1.3), if it is one.

    Leading zeros are decimal there: `[010.0.0.1]` is 10.0.0.1.
    """
    if not (name.startswith("[") and name.endswith("]")):
        return None
    inside = name[1:-1]
    try:
        if inside.startswith("ipv6:"):
            return IPv6Address(inside.removeprefix("ipv6:"))
        return IPv4Address(".".join(part.lstrip("0") or "0" for part in inside.split(".")))
    except ValueError:
        return None
