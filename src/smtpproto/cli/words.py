"""What went wrong, and what servers offer, in plain words."""

from __future__ import annotations

import errno
import socket
import ssl

from smtpproto.core.errors import RemoteProtocolError
from smtpproto.deadline import DeadlineError
from smtpproto.stream import StreamLostError, causes

from .console import amount

__all__ = ["explain", "offer_in_words"]

#: OpenSSL's X509_V_ERR_ numbers -> words about "the certificate".
_CERTIFICATE = {
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed, and so vouches for nobody but itself",
    19: "comes from an authority that is not trusted here (self-signed at the end of its chain)",
    20: "comes from an issuer that is not trusted here, or its chain is incomplete",
    21: "comes from an issuer that is not trusted here, or its chain is incomplete",
    23: "was revoked",
    26: "is not made for servers",
}

_ERRNO = {
    errno.ECONNREFUSED: "connection refused: nothing listens there",
    errno.ECONNRESET: "the connection was reset by the other end",
    errno.EPIPE: "the connection was closed by the other end",
    errno.ENETUNREACH: "there is no route to that network",
    errno.EHOSTUNREACH: "there is no route to that host",
    errno.ETIMEDOUT: "no answer; perhaps a firewall drops what is sent there",
    errno.EADDRINUSE: "the address is in use by another program",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.EACCES: "permission denied",
}

_TLS_REASONS = {
    "WRONG_VERSION_NUMBER": "the server does not speak TLS here (STARTTLS may be what it wants)",
    "HTTP_REQUEST": "the server does not speak TLS here",
    "PACKET_LENGTH_TOO_LONG": "the server does not speak TLS here",
    "RECORD_LAYER_FAILURE": "the server does not speak TLS here (STARTTLS may be what it wants)",
    "UNSUPPORTED_PROTOCOL": "the server knows only versions of TLS that are too old",
    "TLSV1_ALERT_PROTOCOL_VERSION": "server and client know no common version of TLS",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "server and client know no common cipher",
    "UNEXPECTED_EOF_WHILE_READING": "the server hung up in the middle of the TLS handshake",
}


def explain(error: BaseException, host: str = "") -> str:
    """Say in plain words what an error is about, by the deepest cause that has some."""
    words = str(error) or type(error).__name__
    for cause in causes(error):
        words = _words(cause, host) or words
    return words


def _words(error: BaseException, host: str) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return _certificate(error, host)
        case ssl.SSLError():
            reason = error.reason or ""
            return _TLS_REASONS.get(reason, f"TLS failed: {reason or error}")
        case socket.gaierror():
            if error.errno in {socket.EAI_AGAIN, socket.EAI_FAIL}:
                return f"the name {host} could not be looked up: the DNS did not answer"
            return f"there is no host named {host}" if host else "there is no such host"
        case DeadlineError():
            return _deadline(error)
        case RemoteProtocolError():
            return f"the other end does not keep to SMTP: {error}"
        case StreamLostError():
            return str(error)
        case OSError() if error.errno in _ERRNO:
            return _ERRNO[error.errno]
        case _:
            return ""


def _certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code in {62, 64}:
        return f"the certificate is not for {host}" if host else "the certificate's names differ"
    words = _CERTIFICATE.get(error.verify_code)
    return f"the certificate {words or f'is not accepted: {error.verify_message}'}"


def _deadline(error: DeadlineError) -> str:
    within = f"within {error.seconds:g} s"
    match error.name:
        case "connect":
            return f"no answer {within}; perhaps a firewall drops what is sent there"
        case "greeting":
            return (
                f"connected, and no greeting came {within}: "
                "no SMTP server, a very busy one, or one that waits for TLS first (--tls implicit)"
            )
        case "tls":
            return f"the TLS handshake did not end {within}"
        case _:
            return f"no reply {within} ({error.name})"


_OFFERS = {
    "8BITMIME": "takes 8-bit content (RFC 6152)",
    "ATRN": "hands queued mail over to those who ask (RFC 2645)",
    "AUTH": "takes logins by {} (RFC 4954)",
    "BINARYMIME": "takes binary content (RFC 3030)",
    "BURL": "fetches content from an IMAP server (RFC 4468)",
    "CHUNKING": "takes content in counted chunks, BDAT (RFC 3030)",
    "DELIVERBY": "can keep to a time limit for delivery (RFC 2852)",
    "DSN": "sends delivery reports as asked (RFC 3461)",
    "ENHANCEDSTATUSCODES": "gives precise status codes (RFC 2034)",
    "ETRN": "sends queued mail on when asked (RFC 1985)",
    "EXPN": "may tell who is on a list (RFC 5321)",
    "FUTURERELEASE": "can hold mail until a given time (RFC 4865)",
    "HELP": "has a HELP command (RFC 5321)",
    "LIMITS": "says how much it takes at once: {} (RFC 9422)",
    "MT-PRIORITY": "sends important mail first (RFC 6710)",
    "MTRK": "can track messages (RFC 3885)",
    "NO-SOLICITING": "takes no solicitations (RFC 3865)",
    "PIPELINING": "takes several commands at a time (RFC 2920)",
    "PIPECONNECT": "takes commands before its greeting",
    "REQUIRETLS": "can insist on TLS along the whole route (RFC 8689)",
    "RRVS": "checks that a mailbox has not changed hands (RFC 7293)",
    "SMTPUTF8": "takes addresses and headers beyond ASCII (RFC 6531)",
    "STARTTLS": "goes over to TLS when asked (RFC 3207)",
    "SUBMITTER": "takes the submitter's address (RFC 4405)",
    "VRFY": "may verify mailboxes (RFC 5321)",
    "XCLIENT": "lets trusted proxies speak for others (Postfix)",
    "XFORWARD": "lets trusted filters pass on who the client was (Postfix)",
}


def offer_in_words(keyword: str, argument: str) -> str:
    """Say what an extension that a server offers means; "" for one that is not known here."""
    if keyword == "SIZE":
        if argument.isascii() and argument.isdigit() and int(argument[:20]):
            return f"takes messages of up to {amount(int(argument[:20]))} (RFC 1870)"
        return "takes a message's size beforehand, and names no limit (RFC 1870)"
    words = _OFFERS.get(keyword, "")
    return words.format(argument or "no mechanism it names")
