"""The messages that `send` sends: one made from options, or one that is finished."""

from __future__ import annotations

import mimetypes
import re
import uuid
from collections.abc import Sequence
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path

from attrs import field, frozen

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import ForwardPath, ReversePath
from smtpproto.source import crlf

__all__ = ["Correspondent", "Draft", "compose", "finished"]

# 7 bits, so that it fits every server and is written only once, however often it is sent.
POLICY = SMTP.clone(cte_type="7bit")

# name-addr (RFC 5322 §3.4); what is not quoted has none of the specials but the dot.
_NAMED = re.compile(r'(?:"([^"\\]*)"|([^()<>\[\]:;@\\,"]*?)) *<(.*)>')
_FIELD_NAME = re.compile(rb"[!-9;-~]+[ \t]*:")  # RFC 5322 §2.2, §4.5.3


@frozen
class Correspondent:
    """Somebody as written on the command line: `a@example.org` or `Ann <a@example.org>`."""

    address: str
    name: str = ""

    @classmethod
    def read(cls, text: str) -> Correspondent:
        """Read it; `<>` is the null reverse-path, and has an empty address."""
        match = _NAMED.fullmatch(text)
        if match is None or not text.isprintable():
            return cls(text)
        quoted, name, address = match.groups()
        return cls(address, quoted or name or "")

    @classmethod
    def sender(cls, text: str) -> Correspondent:
        """Read a sender; ValueError if the address is none."""
        return cls._checked(text, ReversePath.of)

    @classmethod
    def recipient(cls, text: str) -> Correspondent:
        """Read a recipient; ValueError if the address is none."""
        return cls._checked(text, ForwardPath.of)

    @classmethod
    def _checked(cls, text: str, check: object) -> Correspondent:
        read = cls.read(text)
        if not read.address.isascii():  # the client does not ask for SMTPUTF8
            raise ValueError(_why(read.address, ""))
        try:
            assert callable(check)
            check(read.address)
        except LocalProtocolError as error:
            raise ValueError(_why(read.address, str(error))) from None
        return read

    def header(self) -> Address:
        """Return it as headers have it. ValueError for what no header can hold."""
        if "@" not in self.address:  # the bare Postmaster
            return Address(self.name, username=self.address)
        return Address(self.name, addr_spec=self.address)


def _why(address: str, found: str) -> str:
    if not address.isascii():
        return "no address that SMTP can carry: it has letters beyond ASCII"
    if "@" not in address:
        return 'no address: there is no "@", as in ann@example.org'
    return "no address, such as ann@example.org" + (
        "" if found.startswith("not a mailbox") else f" ({found})"
    )


@frozen
class Draft:
    """Content to send: CRLF line ends; `octets_for` gives each copy an identity of its own."""

    octets: bytes = field(repr=False)
    #: Domain to make a Message-ID in; None: the message has what it has.
    id_domain: str | None = None

    def octets_for(self, number: int) -> bytes:
        """Return the content of one copy."""
        if self.id_domain is None:
            return self.octets
        identity = f"Message-ID: <{uuid.uuid4().hex}.{number}@{self.id_domain}>\r\n"
        return identity.encode() + self.octets


def compose(
    sender: Correspondent,
    recipients: Sequence[Correspondent],
    *,
    subject: str | None,
    body: str,
    attachments: Sequence[Path],
    date: datetime,
) -> Draft:
    """Make a message (RFC 5322). Blocks on reading attachments.

    Raises ValueError for what a header cannot hold, and OSError for an attachment.
    """
    message = EmailMessage(POLICY)
    for name, people in (("From", [sender]), ("To", recipients)):
        message[name] = tuple(person.header() for person in people)
    if subject is not None:
        message["Subject"] = subject
    message["Date"] = format_datetime(date)
    message.set_content(body if body.endswith("\n") or not body else body + "\n")
    for path in attachments:
        kind, encoding = mimetypes.guess_type(path.name)
        # What is compressed is another kind of thing than what is in it.
        main, _, sub = (kind if kind and not encoding else "application/octet-stream").partition(
            "/"
        )
        if main in {"message", "multipart"}:
            main, sub = "application", "octet-stream"
        message.add_attachment(path.read_bytes(), maintype=main, subtype=sub, filename=path.name)
    return Draft(crlf(message.as_bytes()), sender.address.rpartition("@")[2])


def finished(octets: bytes) -> Draft:
    """Take a finished message; only its line ends are changed, where they are not CRLF.

    ValueError if it does not begin with a header field, as every message does (RFC 5322 §3.5).
    """
    octets = crlf(octets)
    if not octets.strip():
        raise ValueError("empty")
    first = octets[: octets.find(b"\r\n")]
    if first.startswith(b"From "):
        raise ValueError("a mailbox file, not one message: it begins with a line `From `")
    if _FIELD_NAME.match(first) is None:
        raise ValueError(
            "no message: its first line is no header field, such as `Subject: greetings`"
        )
    return Draft(octets)
