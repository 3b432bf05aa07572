"""What people write on command lines and in files, into values. Each function raises ValueError.

Its message ends the sentence "TEXT is ...": it says what is wrong, or what is accepted.
"""

from __future__ import annotations

import re
from ipaddress import (
    IPv4Network,
    IPv6Network,
    ip_address,
    ip_network,
)

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import as_domain
from smtpproto.relay.routing.route import HostPort

__all__ = [
    "domain",
    "duration",
    "host_port",
    "is_loopback",
    "listen_address",
    "network",
    "size",
]

_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::(.*))?", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")
_SIZE = re.compile(r"([0-9]{1,15})([KMG]?)i?B?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,9}) ?(s|min|m|h|d|)", re.IGNORECASE)
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

HOST_PORT = 'no HOST:PORT, such as "mail.example.org:587", "192.0.2.1:25" or "[2001:db8::1]:25"'
LISTEN = 'no HOST:PORT, such as "127.0.0.1:2525", "[::1]:2525" or, for all addresses, ":25"'


def host_port(text: str, default_port: int | None = None) -> HostPort:
    """Read HOST:PORT, or HOST alone where there is a `default_port`.

    A host is a name, an IPv4 address, or an IPv6 address in brackets (or bare, without a port).
    """
    host, port = _split(text, HOST_PORT)
    if port is None:
        if default_port is None:
            raise ValueError(f"without a port: {HOST_PORT}")
        return HostPort(host, default_port)
    return HostPort(host, _port(port, lowest=1))


def listen_address(text: str) -> HostPort:
    """Read where to listen: as `host_port`; no host, or `*`, means all addresses.

    Port 0 stands for any that is free.
    """
    if text[:1] in {":", "*"} and text.count(":") == 1 and text[:2] not in {"*", "::"}:
        host, _, digits = text.partition(":")
        if host in {"", "*"}:
            return HostPort("", _port(digits, lowest=0))
    host, port = _split(text, LISTEN)
    if port is None:
        raise ValueError(f"without a port: {LISTEN}")
    return HostPort(host, _port(port, lowest=0))


def _split(text: str, accepted: str) -> tuple[str, str | None]:
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed is not None:
        host, port = bracketed.groups()
        if not _is_address(host):
            raise ValueError(accepted)
        return host, port
    if text.count(":") > 1 and _is_address(text):
        return text, None
    host, colon, digits = text.partition(":")
    # All digits and dots is an address that was meant, and mistyped, never a name.
    if not _NAME.fullmatch(host) or (
        not host.strip("0123456789.") and "." in host and not _is_address(host)
    ):
        raise ValueError(accepted)
    return host, digits if colon else None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return text.isascii() and text.isprintable()


def _port(digits: str, *, lowest: int) -> int:
    if not (digits.isascii() and digits.isdigit() and lowest <= int(digits[:6]) <= 65535):
        raise ValueError(f"no good: a port is a number from {lowest} to 65535")
    return int(digits)


def is_loopback(host: str) -> bool:
    """Tell whether a host, by name or address, is this machine's own loopback."""
    if host.lower().rstrip(".") == "localhost":
        return True
    return _is_address(host) and ip_address(host).is_loopback


def domain(text: str) -> str:
    """Read a domain name; no address literal, no final dot."""
    try:
        as_domain(text)
    except LocalProtocolError:
        raise ValueError('no domain name, such as "example.org"') from None
    if text.startswith("["):
        raise ValueError('an address; a domain name is needed, such as "example.org"')
    return text.lower()


def network(text: str) -> IPv4Network | IPv6Network:
    """Read an IP network in CIDR notation, or one address. All the world is not accepted."""
    try:
        found = ip_network(text)
    except ValueError:
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise ValueError('no network, such as "192.0.2.0/24" or "2001:db8::/32"') from None
        raise ValueError(f'an address within a network; did you mean "{meant}"?') from None
    if found.prefixlen == 0:
        raise ValueError("everybody, which would make an open relay")
    return found


def size(text: str) -> int:
    """Read a number of octets, such as 26214400, 500K, 25M or 1G (by powers of 1024)."""
    match = _SIZE.fullmatch(text.strip(" "))
    if match is None or not text.isascii() or not int(match[1]):
        raise ValueError('no size above 0, such as 26214400, "500K", "25M" or "1G"')
    return int(match[1]) * _UNITS[match[2].upper()]


def duration(text: str) -> float:
    """Read a time span in seconds, or with a unit: 30 s, 10 min, 4 h, 5 d."""
    match = _DURATION.fullmatch(text.strip(" "))
    if match is None or not text.isascii() or not int(match[1]):
        raise ValueError('no time above 0, such as 30, "30 s", "10 min", "4 h" or "5 d"')
    return float(int(match[1]) * _SECONDS[match[2].lower()])
