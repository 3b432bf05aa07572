"""A server's certificates: one for each name that clients ask for, and new ones without a restart.

A TLS context holds one certificate, and whoever was given the context keeps it. So the one that is
given away here is only a front: at each handshake it hands over to the context of now, for the name
that the client gave (SNI, RFC 6066 §3).
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from os import PathLike
from typing import TypeAlias

import idna
from attrs import field, frozen

from .core.errors import LocalProtocolError
from .wire.tls import refuse_old_versions

__all__ = ["Certificates", "KeyPair"]

log = logging.getLogger(__name__)

File: TypeAlias = "str | PathLike[str]"


@frozen
class KeyPair:
    """A PEM file with a certificate and its chain, and one with its key (None: the same one)."""

    cert: File
    key: File | None = None
    #: Of the key; None if it has none.
    password: str | None = field(default=None, repr=False)


def server_context() -> ssl.SSLContext:
    """Return a TLS context for a server, as Python thinks best, without a certificate.

    It takes TLS 1.2 and later (RFC 8314 §4). Nobody may shake hands again within a session, as some
    versions of OpenSSL would let them.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    refuse_old_versions(context)
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


class Certificates:
    """Key pairs as a TLS context for a server; give it to `Server(tls=…)`.

    `default` is for clients that give no name, or one that is not in `names`. Those are domain
    names, in letters of any kind or as A-labels (RFC 5890); `*.example.org` is for all names with
    one label more than example.org, and a whole name goes before that. `make` makes an empty
    context, with your own settings: one is made for each key pair.

    The files are read at once, which blocks. OSError if one cannot be;
    LocalProtocolError for what is no domain name.
    """

    def __init__(
        self,
        default: KeyPair,
        names: Mapping[str, KeyPair] | None = None,
        *,
        make: Callable[[], ssl.SSLContext] = server_context,
    ) -> None:
        self._pairs = {"": default}
        self._pairs.update((_a_labels(name), pair) for name, pair in (names or {}).items())
        self._make = make
        self._contexts = self._load()
        #: What to make TLS connections with, before and after any `reload`.
        self.context = make()
        self.context.sni_callback = self._hand_over

    def _load(self) -> dict[str, ssl.SSLContext]:
        loaded: dict[KeyPair, ssl.SSLContext] = {}
        for pair in self._pairs.values():
            if pair not in loaded:
                context = loaded[pair] = self._make()
                try:
                    # No password is an empty one: else OpenSSL would ask whoever sits there.
                    context.load_cert_chain(pair.cert, pair.key, pair.password or "")
                except OSError as error:
                    files = pair.cert if pair.key is None else f"{pair.cert} with {pair.key}"
                    raise OSError(f"{files}: {error}") from error
        return {name: loaded[pair] for name, pair in self._pairs.items()}

    def reload(self) -> bool:
        """Read the files again, for handshakes from now on; it blocks.

        Where any of them cannot be used, that is logged, all stays as it was, and False returned.
        """
        try:
            self._contexts = self._load()
        except OSError as error:
            log.error("the old certificates stay, as new ones cannot be used: %s", error)
            return False
        log.info("certificates are read again: %s", ", ".join(self._files()))
        return True

    def _files(self) -> list[str]:
        return sorted({str(pair.cert) for pair in self._pairs.values()})

    def _hand_over(
        self, tls: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
    ) -> None:
        tls.context = self.context_for(name or "")

    def context_for(self, name: str) -> ssl.SSLContext:
        """Return the context for a name that a client gave; the default one for any other."""
        contexts = self._contexts
        name = name.lower().rstrip(".")
        _, dot, parent = name.partition(".")
        found = contexts.get(name) or (contexts.get(f"*.{parent}") if dot else None)
        return found or contexts[""]


def _a_labels(name: str) -> str:
    wildcard = "*." if name.startswith("*.") else ""
    try:
        encoded: bytes = idna.encode(name.removeprefix("*."), uts46=True)
    except idna.IDNAError as error:
        raise LocalProtocolError(f"not a domain name: {name!r}: {error}") from None
    return wildcard + encoded.decode().rstrip(".")
