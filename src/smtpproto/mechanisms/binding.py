"""Channel bindings of TLS (RFC 5929): what can be had of them without exporters.

tls-server-end-point is made of the server's certificate, tls-unique is what the TLS library says.
"""

from __future__ import annotations

import hashlib

from smtpproto.core.errors import GrammarError
from smtpproto.core.event import TlsInfo
from smtpproto.core.sasl import ChannelBinding

__all__ = ["binding_of", "tls_server_end_point"]

# Signature algorithms by object identifier, as DER has it, and the hash that RFC 5929 §4.1 takes:
# the algorithm's own, but SHA-256 for MD5 and SHA-1. Those with none, or with several, have none.
_HASHES = {
    bytes.fromhex("2a864886f70d010104"): "sha256",  # md5WithRSAEncryption
    bytes.fromhex("2a864886f70d010105"): "sha256",  # sha1WithRSAEncryption
    bytes.fromhex("2a864886f70d01010e"): "sha224",  # sha224WithRSAEncryption
    bytes.fromhex("2a864886f70d01010b"): "sha256",  # sha256WithRSAEncryption
    bytes.fromhex("2a864886f70d01010c"): "sha384",  # sha384WithRSAEncryption
    bytes.fromhex("2a864886f70d01010d"): "sha512",  # sha512WithRSAEncryption
    bytes.fromhex("2a8648ce3d0401"): "sha256",  # ecdsa-with-SHA1
    bytes.fromhex("2a8648ce3d040301"): "sha224",  # ecdsa-with-SHA224
    bytes.fromhex("2a8648ce3d040302"): "sha256",  # ecdsa-with-SHA256
    bytes.fromhex("2a8648ce3d040303"): "sha384",  # ecdsa-with-SHA384
    bytes.fromhex("2a8648ce3d040304"): "sha512",  # ecdsa-with-SHA512
}
_SEQUENCE, _IDENTIFIER = 0x30, 0x06


def tls_server_end_point(certificate: bytes) -> ChannelBinding | None:
    """Return the binding of a server's certificate (RFC 5929 §4), given in DER.

    None where it has none: its signature algorithm does not have exactly one hash (Ed25519, PSS).
    GrammarError where this is no certificate.
    """
    # Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OID … } … }
    parts, _ = _element(certificate, _SEQUENCE)
    _, parts = _element(parts, _SEQUENCE)
    algorithm, _ = _element(parts, _SEQUENCE)
    identifier, _ = _element(algorithm, _IDENTIFIER)
    name = _HASHES.get(identifier)
    if name is None:
        return None
    return ChannelBinding("tls-server-end-point", hashlib.new(name, certificate).digest())


def binding_of(tls: TlsInfo) -> ChannelBinding | None:
    """Return what a client binds its login to; None where there is nothing.

    tls-unique where there is one, which every server has that binds at all (RFC 5802 §6.1).
    """
    if tls.unique:
        return ChannelBinding("tls-unique", tls.unique)
    try:
        return tls_server_end_point(tls.certificate)
    except GrammarError:
        return None


def _element(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """Split off the first element: its content, and what is behind it."""
    if len(der) < 2 or der[0] != tag:
        raise GrammarError("not a certificate in DER")
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    if start > len(der) or len(der) < start + length:
        raise GrammarError("a certificate in DER that is cut short")
    return der[start : start + length], der[start + length :]
