"""Whom a server believes what it says of others: listed networks, the PROXY protocol, XCLIENT."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import TypeAlias

from .core.errors import LocalProtocolError, RemoteProtocolError
from .core.proxy import ProxyHeader, ProxyReader
from .deadline import deadline
from .extensions.xclient import XClient
from .handler import Session
from .stream import LOST, StreamLostError, lost
from .wire import Wire

__all__ = [
    "AnyNetwork",
    "Network",
    "as_address",
    "as_networks",
    "is_listed",
    "read_proxy_header",
    "take_for",
]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
AnyNetwork: TypeAlias = str | Network


def as_networks(values: Iterable[AnyNetwork]) -> tuple[Network, ...]:
    """Read networks, `192.0.2.0/24`, and addresses; LocalProtocolError for what is neither."""
    if isinstance(values, str):
        raise LocalProtocolError(f"a list of networks is wanted, not {values!r}")
    try:
        return tuple(ipaddress.ip_network(value) for value in values)
    except ValueError as error:
        raise LocalProtocolError(str(error)) from None


@lru_cache(1024)  # of those who come again and again
def as_address(host: str) -> Address | None:
    """Read an IP address; an IPv4 client's at a socket of both kinds is IPv4's. None for others."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_listed(host: str, networks: tuple[Network, ...]) -> bool:
    """Tell whether an IP address is in one of the networks; what is no address is in none."""
    if not networks:
        return False
    address = as_address(host)
    return address is not None and any(address in network for network in networks)


async def read_proxy_header(wire: Wire, seconds: float | None) -> tuple[ProxyHeader, bytes]:
    """Read the header that stands first, and what came behind it.

    StreamLostError where something else does, or nothing; DeadlineError after `seconds`.
    """
    reader = ProxyReader()
    header: ProxyHeader | None = None
    with deadline("proxy", seconds):
        while header is None:
            try:
                header = reader.feed(await wire.receive())
            except LOST as error:
                raise lost(error) from error
            except RemoteProtocolError as error:
                raise StreamLostError(str(error)) from error
    return header, reader.leftover


def take_for(session: Session, command: XClient) -> None:
    """Let a session begin anew with the client that XCLIENT speaks of.

    What it does not speak of stays as it is, but for what a session is told by its client itself:
    name and login. An address that is not known is none, not that of whoever spoke.
    """
    said = {
        name: value.decode() if isinstance(value, bytes) else ""
        for name, value in command.attributes.items()
    }
    session.peer = _end(session.peer, said, "ADDR", "PORT")
    session.local = _end(session.local, said, "DESTADDR", "DESTPORT")
    session.helo_name = said.get("HELO", "")
    session.extended = said.get("PROTO", "").upper() == "ESMTP"
    session.identity = said.get("LOGIN") or None
    session.early_talker = False
    session.xclient = command


def _end(known: tuple[str, int], said: dict[str, str], host: str, port: str) -> tuple[str, int]:
    if host in said:
        address = said[host]
        known = (address[5:] if address[:5].upper() == "IPV6:" else address, 0)
    return (known[0], int(said[port] or 0)) if port in said else known
