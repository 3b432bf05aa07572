"""DSN (RFC 3461): which reports the sender wants, and what they are to say."""

from __future__ import annotations

import enum
import re
from collections.abc import Set as AbstractSet

from attrs import field, frozen

from smtpproto.core.errors import GrammarError, LocalProtocolError
from smtpproto.core.extension import Extension
from smtpproto.core.grammar import CONTROL
from smtpproto.core.parameter import Parameter
from smtpproto.core.path import Mailbox, as_octets
from smtpproto.core.value import taken
from smtpproto.core.xtext import decode_xtext, encode_xtext

__all__ = [
    "DSN",
    "ENVID",
    "NEVER",
    "NOTIFY",
    "ORCPT",
    "RET",
    "Notify",
    "OriginalRecipient",
    "Ret",
    "utf8_in_ascii",
]

# §4.2 and §4.4: printable (graphic and white space) US-ASCII
_PRINTABLE = re.compile(rb"[\t\x20-\x7e]*")
# addr-type = atom (RFC 822 §3.3), without the "=" that no ESMTP value may hold
_ADDR_TYPE = re.compile(rb"[A-Za-z0-9!#$%&'*+\-/?^_`{|}~]+")
# EmbeddedUnicodeChar = "\x{" HEXPOINT "}" (RFC 6533 §3)
_EMBEDDED = re.compile(rb"\\x\{([0-9A-Fa-f]{2,6})\}")
# utf-8-addr-unitext has UTF-8 as it is, where SMTPUTF8 lets it through.
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
# What RFC 6533 §3 asks to be embedded: controls, SP, "\", "+", "=" and, where UTF-8 may not pass,
# all beyond ASCII.
_TO_EMBED = re.compile(r"[\x00-\x20\\+=\x7f]")
_TO_EMBED_IN_ASCII = re.compile(r"[\x00-\x20\\+=\x7f-\U0010ffff]")


class Ret(enum.Enum):
    """What of the message a failure report returns (§4.3)."""

    FULL = "FULL"  #: all of it
    HDRS = "HDRS"  #: the header


class Notify(enum.Enum):
    """What a recipient's sender wants to be told of (§4.1)."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


_ELEMENTS = {notify.value for notify in Notify}

#: NOTIFY=NEVER: no report at all.
NEVER: AbstractSet[Notify] = frozenset()


def _read_ret(value: bytes | None) -> Ret:
    try:
        return Ret((value or b"").decode("ascii", "replace").upper())
    except ValueError:
        raise GrammarError("RET takes FULL or HDRS") from None


RET: Parameter[Ret] = Parameter("RET", _read_ret, lambda ret: ret.value.encode(), octets=9)


# §4.4: 100 characters, counted here before they are encoded.
_MAX_ENVID = 100


def _read_envid(value: bytes | None) -> bytes:
    if not value:
        raise GrammarError("ENVID takes a value in xtext")
    return _envid(decode_xtext(value))


def _envid(envid: bytes) -> bytes:
    if not 0 < len(envid) <= _MAX_ENVID or _PRINTABLE.fullmatch(envid) is None:
        raise GrammarError(f"ENVID is 1 to {_MAX_ENVID} printable characters")
    return envid


ENVID: Parameter[bytes] = Parameter(
    "ENVID", _read_envid, lambda envid: encode_xtext(_envid(envid)), octets=7 + 3 * _MAX_ENVID
)


def _read_notify(value: bytes | None) -> AbstractSet[Notify]:
    # notify-esmtp-value = "NEVER" / 1#notify-list-element
    # RFC 822 §2.7: a list may hold null elements, which do not count.
    text = (value or b"").decode("ascii", "replace").upper()
    if text == "NEVER":
        return NEVER
    elements = {element for element in text.split(",") if element}
    if not elements or not elements <= _ELEMENTS:
        raise GrammarError("NOTIFY takes NEVER, or any of SUCCESS,FAILURE,DELAY")
    return frozenset(map(Notify, elements))


def _write_notify(notify: AbstractSet[Notify]) -> bytes:
    return ",".join(n.value for n in Notify if n in notify).encode() or b"NEVER"


NOTIFY: Parameter[AbstractSet[Notify]] = Parameter("NOTIFY", _read_notify, _write_notify, octets=29)


@frozen
class OriginalRecipient:
    """The address that the sender first gave for a recipient (§4.2).

    `addr_type` is a registered address type, compared without regard to case; `address` holds
    the octets that are meant: printable ASCII, for the type utf-8 (RFC 6533 §3) UTF-8.
    LocalProtocolError where the grammar has no way to write it.
    """

    addr_type: str = field(eq=str.lower)
    address: bytes = field(converter=as_octets)

    def __attrs_post_init__(self) -> None:
        try:
            _check_recipient(self.addr_type.encode("utf-8", "surrogatepass"), self.address)
        except GrammarError as error:
            raise LocalProtocolError(str(error)) from None

    @classmethod
    def of(cls, mailbox: Mailbox) -> OriginalRecipient:
        """Make one of an Internet mailbox."""
        octets = mailbox.serialize()
        return cls("rfc822" if octets.isascii() else "utf-8", octets)

    @property
    def text(self) -> str:
        """The address as text."""
        return self.address.decode("utf-8", "backslashreplace")


def _check_recipient(addr_type: bytes, address: bytes) -> None:
    if _ADDR_TYPE.fullmatch(addr_type) is None:
        raise GrammarError("ORCPT takes address-type;xtext")
    if addr_type.lower() == b"utf-8":
        try:
            address.decode()
        except UnicodeDecodeError:
            raise GrammarError("ORCPT of type utf-8 is not UTF-8") from None
        if CONTROL.search(address):
            raise GrammarError("ORCPT of type utf-8 holds a control character")
    elif _PRINTABLE.fullmatch(address) is None:
        raise GrammarError("ORCPT stands for printable ASCII")


# §4.2: the whole parameter has up to 500 characters, which are octets on the wire.
_MAX_ORCPT = 500


def _fits(value: bytes) -> bool:
    return len(b"ORCPT=") + len(value) <= _MAX_ORCPT


def _read_orcpt(value: bytes | None) -> OriginalRecipient:
    if value is None or not _fits(value):
        raise GrammarError(f"ORCPT takes address-type;xtext, up to {_MAX_ORCPT} characters")
    addr_type, separator, encoded = value.partition(b";")
    if not separator or not addr_type.isascii():
        raise GrammarError("ORCPT takes address-type;xtext")
    address = decode_xtext(_BEYOND_ASCII.sub(lambda match: encode_xtext(match[0]), encoded))
    if addr_type.lower() == b"utf-8":
        address = _EMBEDDED.sub(_embedded, address)
    _check_recipient(addr_type, address)
    recipient = taken(OriginalRecipient, addr_type=addr_type.decode(), address=address)
    if not _fits(_write_orcpt(recipient)):
        # Only where the type is utf-8, and "\" or "+" stand as RFC 6533 §3 does not have them.
        raise GrammarError(f"ORCPT takes up to {_MAX_ORCPT} characters, written as they should be")
    return recipient


def _embedded(match: re.Match[bytes]) -> bytes:
    try:
        return chr(int(match[1], 16)).encode()
    except ValueError:  # a surrogate, or beyond Unicode
        raise GrammarError("ORCPT embeds what is no Unicode character") from None


def _write_orcpt(recipient: OriginalRecipient) -> bytes:
    addr_type = recipient.addr_type.encode()
    if addr_type.lower() != b"utf-8":
        return b"%b;%b" % (addr_type, encode_xtext(recipient.address))
    # RFC 6533 §3: utf-8-addr-xtext may go anywhere, and is about three times as long as
    # utf-8-addr-unitext, which may go where SMTPUTF8 was asked for.
    anywhere = b"%b;%b" % (addr_type, _embed(_TO_EMBED_IN_ASCII, recipient.text))
    if _fits(anywhere):
        return anywhere
    return b"%b;%b" % (addr_type, _embed(_TO_EMBED, recipient.text))


def utf8_in_ascii(address: str) -> str:
    """Write an address of type utf-8 as utf-8-addr-xtext, which is ASCII (RFC 6533 §3)."""
    return _embed(_TO_EMBED_IN_ASCII, address).decode()


def _embed(characters: re.Pattern[str], text: str) -> bytes:
    return characters.sub(lambda c: f"\\x{{{ord(c[0]):02X}}}", text).encode()


#: Written in ASCII where that fits; a longer one of type utf-8 in UTF-8, for which MAIL has to ask
#: with SMTPUTF8 (RFC 6533 §3).
ORCPT: Parameter[OriginalRecipient] = Parameter(
    "ORCPT", _read_orcpt, _write_orcpt, octets=1 + _MAX_ORCPT
)

DSN = Extension(
    "DSN",
    rfc=3461,
    mail=(RET, ENVID),
    rcpt=(NOTIFY, ORCPT),
    obliges="report as asked, and pass what was asked on to the next server",
)
