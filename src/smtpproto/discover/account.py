"""What an address says: who, and in which domain its settings are to be found."""

from __future__ import annotations

import re

import idna
from attrs import frozen

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox, as_domain

__all__ = ["Account", "AddressError", "host_name"]

MAX_NAME = 253  # visible characters: with its length octets, the 255 of RFC 1035 §2.3.4
# What the last label of a name never is, and what makes systems read an IP address in it.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class AddressError(ValueError):
    """There is nothing to be found out about such an address."""


def host_name(text: str) -> str:
    """Return a host's name as the DNS and certificates have it: A-labels, in lower case.

    U-labels are mapped by UTS #46 and encoded by IDNA 2008 (RFC 5891 §5). ValueError for what is
    no name, and for addresses.
    """
    name = text.strip(" \t\r\n").removesuffix(".").lower()
    try:
        if not name.isascii():
            name = idna.encode(name, uts46=True).decode("ascii")
        as_domain(name)
    except (idna.IDNAError, LocalProtocolError):
        raise ValueError(f"not a host name: {text[:MAX_NAME]!r}") from None
    if len(name) > MAX_NAME or name[0] == "[" or _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise ValueError(f"not a host name: {text[:MAX_NAME]!r}")
    return name


@frozen
class Account:
    """An address, taken apart.

    `address` is as its user writes it, `local_part` without quotes, `domain` in A-labels.
    """

    address: str
    local_part: str
    domain: str

    @classmethod
    def of(cls, address: str) -> Account:
        """Read an address; AddressError where it is none, or has no domain that could be asked."""
        try:
            mailbox = Mailbox.of(address)
        except LocalProtocolError:
            raise AddressError(f"not a mail address: {address!r}") from None
        domain = mailbox.domain.decode()
        if domain.startswith("["):
            raise AddressError(
                f"{address!r} has an IP address where its domain would be: "
                "there is no domain to ask for settings"
            )
        try:
            name = host_name(domain)
        except ValueError:
            raise AddressError(f"{address!r} has no domain that the DNS could know") from None
        return cls(str(mailbox), mailbox.local_part.decode(), name)

    def covers(self, host: str) -> bool:
        """Whether a host is in the domain of the address (RFC 6186 §6)."""
        return host == self.domain or host.endswith("." + self.domain)
