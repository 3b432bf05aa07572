"""Whether a server is one to log in to: TLS for the right name, and AUTH under it.

Nothing is said there but EHLO and QUIT, and no password is ever at hand.
"""

from __future__ import annotations

import ssl

from anyio import to_thread
from attrs import field, frozen
from cryptography import x509

from smtpproto.client import Client, ClientDeadlines, Connector, Tls
from smtpproto.result import ClientError, RefusedError, TlsError
from smtpproto.stream import causes

from .account import Account
from .found import Verdict
from .srv import SERVICES

__all__ = ["Check", "check", "vouches"]

#: id-on-dnsSRV (RFC 4985 §2).
_SRV_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.7")
# What the library raises for a certificate of which it makes nothing, besides ValueError.
_UNREADABLE = (
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
#: X509_V_ERR_HOSTNAME_MISMATCH of OpenSSL.
_OTHER_NAME = 62


@frozen
class Check:
    """What a server turned out to be.

    `vouches`: its certificate has the domain of the address, too.
    """

    verdict: Verdict
    reason: str
    mechanisms: tuple[str, ...] = ()
    server_name: str = ""
    vouches: bool = False
    error: ClientError | None = field(default=None, eq=False)


async def check(
    host: str,
    port: int,
    tls: Tls,
    account: Account,
    *,
    context: ssl.SSLContext,
    connector: Connector,
    seconds: float,
) -> Check:
    """Open a session at `host`, and look at what it offers under TLS.

    Each wait has at most `seconds`, and a session twice that. The certificate has to be for `host`
    or else, for which a second session is needed, for the domain of the address: those are the
    reference identifiers of RFC 7817 §3. `context` has to verify.
    """
    found: Check | None = None
    for name in dict.fromkeys([host, account.domain]):
        client = Client(
            host,
            port,
            tls=tls,
            ssl_context=context,
            server_name=name,
            connector=connector,
            deadlines=_deadlines(seconds),
        )
        try:
            async with client:
                return await _look(client, tls, account, name)
        except ClientError as error:
            found = found or _failed(error)  # worth telling is why the host's own name does not do
            if not _is_for_another_name(error):
                break
    assert found is not None
    return found


def _deadlines(seconds: float) -> ClientDeadlines:
    return ClientDeadlines(
        connect=seconds,
        tls=seconds,
        greeting=seconds,
        ehlo=seconds,
        quit=min(seconds, 2),
        session=2 * seconds,
    )


async def _look(client: Client, tls: Tls, account: Account, name: str) -> Check:
    assert client.tls_info is not None, "entered without TLS"
    mechanisms = tuple(client.offered.get("AUTH", "").upper().split())
    vouched = await to_thread.run_sync(vouches, client.tls_info.certificate, account.domain, tls)
    if not mechanisms:
        return Check(Verdict.NO_LOGIN, "no logins are offered there", (), name, vouched)
    reason = f"{client.tls_info.version}, a certificate for {name}, AUTH {' '.join(mechanisms)}"
    return Check(Verdict.USABLE, reason, mechanisms, name, vouched)


def _failed(error: ClientError) -> Check:
    match error:
        case TlsError():
            verdict = Verdict.UNTRUSTED if _certificate_errors(error) else Verdict.NO_TLS
        case RefusedError():
            verdict = Verdict.REFUSED
        case _:
            verdict = Verdict.UNREACHABLE
    return Check(verdict, str(error), error=error)


def _certificate_errors(error: ClientError) -> list[ssl.SSLCertVerificationError]:
    return [each for each in causes(error) if isinstance(each, ssl.SSLCertVerificationError)]


def _is_for_another_name(error: ClientError) -> bool:
    return any(each.verify_code == _OTHER_NAME for each in _certificate_errors(error))


def vouches(certificate: bytes, domain: str, tls: Tls) -> bool:
    """Whether a certificate, in DER, is for `domain` or for its submission service.

    That is a DNS-ID of the domain, or an SRV-ID of its service of this kind (RFC 7817 §3). Trust
    in the certificate is another matter.
    """
    try:
        found = x509.load_der_x509_certificate(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        for presented in names.get_values_for_type(x509.DNSName):
            if _is_same(presented.lower(), domain):
                return True
        for other in names.get_values_for_type(x509.OtherName):
            if other.type_id == _SRV_NAME:
                service, _, name = _ia5_string(other.value).partition(".")
                if (service, name) == (SERVICES.get(tls), domain):
                    return True
    except (ValueError, *_UNREADABLE):
        pass  # what cannot be read vouches for nothing
    return False


def _is_same(presented: str, domain: str) -> bool:
    """Compare names; a `*` stands for the first label, and for one (RFC 7817 §3, RFC 9525 §6.3)."""
    if presented.startswith("*."):
        return presented[2:] == domain.partition(".")[2]
    return presented == domain


def _ia5_string(der: bytes) -> str:
    """Read an IA5String of less than 256 octets, in lower case; ValueError if it is none."""
    header = 3 if der[1:2] == b"\x81" else 2
    if der[:1] != b"\x16" or len(der) <= header or der[header - 1] != len(der) - header:
        raise ValueError("not an IA5String")
    return der[header:].decode("ascii").lower()
