"""Certificates for tests, by an authority of their own."""

from __future__ import annotations

import ssl
from pathlib import Path

__all__ = ["Authority"]


class Authority:
    """Signs certificates that are valid today, and writes them into `directory` as PEM.

    ModuleNotFoundError if `cryptography` is not installed, which is in the extra `pytest`;
    OSError for the directory.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from .signing import Signer  # noqa: PLC0415 - for those who use TLS
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "TLS in tests needs a certificate, and that needs the package cryptography: "
                "pip install 'smtpproto[pytest]'",
                name=error.name,
            ) from error
        self._signer = Signer()
        self._directory = directory
        #: The authority's own certificate, for clients to trust.
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(self._signer.own())

    def issue(self, *names: str) -> Path:
        """Make a certificate for domains and IP addresses; return the file, its key included."""
        file = self._directory / f"{names[0]}.pem"
        file.write_bytes(self._signer.issue(names))
        return file

    def server_context(self, *names: str) -> ssl.SSLContext:
        """Return a server's context with a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue(*names))
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return a client's context that trusts this authority, and no other."""
        return ssl.create_default_context(cafile=str(self.ca_file))
