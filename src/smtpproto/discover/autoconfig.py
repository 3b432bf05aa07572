"""The configuration file that mail programs read (config-v1.1.xml), as far as it is about sending.

It came with Thunderbird and is described in draft-ietf-mailmaint-autoconfig; there is no RFC.
"""

from __future__ import annotations

import re
from typing import NoReturn
from urllib.parse import quote
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from attrs import frozen

from smtpproto.client import Tls

from .account import Account, host_name

__all__ = ["ConfigError", "Outgoing", "fill", "own_urls", "provider_url", "read_config"]

FILE = "mail/config-v1.1.xml"
_SOCKETS = {"SSL": Tls.IMPLICIT, "STARTTLS": Tls.REQUIRED, "plain": Tls.NONE}
_PORT = re.compile("[0-9]{1,5}")
_PLACEHOLDER = re.compile("%(EMAILADDRESS|EMAILLOCALPART|EMAILDOMAIN)%")
MAX_TEXT = 255  # characters of a value that anybody could mean
MAX_AUTHENTICATION = 8


class ConfigError(ValueError):
    """This is no such file, or one that is not to be trusted."""


@frozen
class Outgoing:
    """One server of a file. `username` "" means that the file names none."""

    host: str
    port: int
    tls: Tls
    username: str = ""
    authentication: tuple[str, ...] = ()


def own_urls(account: Account) -> tuple[str, ...]:
    """Return where a domain publishes its file: the better one first. All by HTTPS."""
    return (
        _autoconfig(account.domain, account),
        f"https://{account.domain}/.well-known/autoconfig/{FILE}",
    )


def provider_url(domain: str, account: Account) -> str:
    """Return where a provider publishes the file for the domains that it serves."""
    return _autoconfig(domain, account)


def _autoconfig(domain: str, account: Account) -> str:
    return f"https://autoconfig.{domain}/{FILE}?emailaddress={quote(account.address, safe='@')}"


def fill(text: str, account: Account) -> str:
    """Put the address, or a part of it, where a file has placeholders. What is put in stays."""
    values = {
        "EMAILADDRESS": account.address,
        "EMAILLOCALPART": account.local_part,
        "EMAILDOMAIN": account.domain,
    }
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def read_config(octets: bytes, account: Account, *, most: int) -> list[Outgoing]:
    """Read the SMTP servers of a file, in its order, at most `most`; placeholders are filled in.

    A server that cannot be understood is left out. ConfigError where the whole file cannot, or
    where it declares a document type: with that, entities could make it grow without bound.
    """
    servers = _parse(octets).iterfind("emailProvider/outgoingServer[@type='smtp']")
    found: list[Outgoing] = []
    for element in servers:
        if len(found) == most:
            break
        server = _outgoing(element, account)
        if server is not None:
            found.append(server)
    return found


class _Builder(TreeBuilder):
    def doctype(self, name: str, pubid: str, system: str) -> NoReturn:
        raise ConfigError("it declares a document type")


def _parse(octets: bytes) -> Element:
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("it is not in UTF-8") from None
    if "<!DOCTYPE" in text:  # before the parser sees it, which would go on to the end
        raise ConfigError("it declares a document type")
    parser = XMLParser(target=_Builder())  # noqa: S314 - without a DOCTYPE there are no entities
    try:
        parser.feed(text)
        root = parser.close()
    except (ParseError, ValueError) as error:
        raise ConfigError(f"it is not XML: {error}") from None
    if root.tag != "clientConfig":
        raise ConfigError("it is not a configuration file for mail programs")
    return root


def _outgoing(element: Element, account: Account) -> Outgoing | None:
    tls = _SOCKETS.get(_text(element, "socketType"))
    port = _text(element, "port")
    if tls is None or not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        return None
    try:
        host = host_name(fill(_text(element, "hostname"), account))
    except ValueError:
        return None
    username = fill(_text(element, "username"), account)
    named = (_value(each) for each in element.findall("authentication")[:MAX_AUTHENTICATION])
    authentication = tuple(word for word in named if word)
    return Outgoing(host, int(port), tls, username, authentication)


def _text(element: Element, name: str) -> str:
    return _value(element.find(name))


def _value(element: Element | None) -> str:
    """Return the text of an element; "" where there is none, or none that fits one line."""
    text = "" if element is None else (element.text or "").strip()
    return text if len(text) <= MAX_TEXT and text.isprintable() else ""
