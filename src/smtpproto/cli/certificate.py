"""What a person wants to know of a certificate."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509

__all__ = ["days_left", "facts"]


def facts(der: bytes) -> list[tuple[str, str]]:
    """Return rows of name and value about a certificate in DER."""
    try:
        found = x509.load_der_x509_certificate(der)
        return [
            ("subject", found.subject.rfc4514_string() or "(empty)"),
            ("issuer", found.issuer.rfc4514_string() or "(empty)"),
            ("names", ", ".join(_names(found)) or "(none)"),
            ("valid", f"{found.not_valid_before_utc:%Y-%m-%d} to {_last_day(found)}"),
        ]
    except ValueError as error:
        return [("certificate", f"cannot be read: {error}")]


def days_left(der: bytes, now: datetime) -> int | None:
    """Return for how many whole days from `now` a certificate in DER is valid; None: unreadable."""
    try:
        return (x509.load_der_x509_certificate(der).not_valid_after_utc - now).days
    except ValueError:
        return None


def _last_day(found: x509.Certificate) -> str:
    return f"{found.not_valid_after_utc:%Y-%m-%d}"


def _names(found: x509.Certificate) -> list[str]:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    domains = names.get_values_for_type(x509.DNSName)
    return [*domains, *map(str, names.get_values_for_type(x509.IPAddress))]
