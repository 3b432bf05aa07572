"""Passwords as they are stored: `{SCHEME}...`, in the spelling of Dovecot's `doveadm pw`.

Each scheme is a class that reads what it wrote, and tells whether a password fits. To tell takes
from microseconds ({PLAIN}) to a tenth of a second and 64 MiB ({ARGON2ID}), and blocks.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Callable, Mapping
from typing import Protocol, Self

from attrs import field, frozen

from smtpproto.core.base64 import decode_base64, encode_base64
from smtpproto.core.errors import GrammarError, LocalProtocolError
from smtpproto.core.sasl import ScramKeys
from smtpproto.mechanisms.saslprep import saslprep
from smtpproto.mechanisms.scram import derive_keys

from .sha_crypt import is_sha_crypt, sha_crypt

__all__ = [
    "DEFAULT",
    "MAX_PASSWORD",
    "SCHEMES",
    "Argon2",
    "Plain",
    "ScramSha256",
    "Secret",
    "ShaCrypt",
    "make_secret",
    "read_secret",
]

#: Octets of a password that anything is hashed of; a longer one is never right.
MAX_PASSWORD = 1024
#: What PBKDF2 is made to cost where we make the keys (RFC 7677 §4 asks for 4096 at least).
ITERATIONS = 32_768
#: A login should not take minutes, nor all memory: what a hash may ask for, in iterations of
#: PBKDF2, and in KiB of Argon2's memory, once and through all passes.
MAX_ITERATIONS = 5_000_000
MAX_MEMORY = 1 << 20
MAX_WORK = 1 << 24

_SCHEME = re.compile(r"\{([^{}]*)\}")


class Secret(Protocol):
    """What is stored of one password."""

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what stands behind `{SCHEME}`; ValueError, without a word of it, if it is none."""
        ...

    @property
    def scheme(self) -> str:
        """The name of its scheme, as in SCHEMES."""
        ...

    def fits(self, password: str) -> bool:
        """Tell whether this is the password, after SASLprep. It blocks."""
        ...


@frozen
class Plain:
    """The password itself: for tests."""

    password: str = field(repr=False)

    @property
    def scheme(self) -> str:
        """Its name."""
        return "PLAIN"

    @classmethod
    def read(cls, text: str) -> Self:
        """Take it as it is, but for SASLprep."""
        try:
            return cls(saslprep(text, stored=True))
        except GrammarError:
            raise ValueError("it has characters that no password has") from None

    def fits(self, password: str) -> bool:
        """Compare the two."""
        return hmac.compare_digest(self.password.encode(), password.encode())

    def keys(self, salt: bytes) -> ScramKeys:
        """Return what SCRAM needs, with this salt. It blocks."""
        return derive_keys(self.password, salt)


@frozen
class ScramSha256:
    """The keys of SCRAM-SHA-256 (RFC 7677), which are good for PLAIN and LOGIN as well."""

    keys: ScramKeys

    @property
    def scheme(self) -> str:
        """Its name."""
        return "SCRAM-SHA-256"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read `iterations,salt,StoredKey,ServerKey`, all but the first in base64."""
        iterations, *parts = text.split(",")
        if len(parts) != 3 or re.fullmatch(r"[1-9][0-9]{0,9}", iterations) is None:
            raise ValueError("not ITERATIONS,SALT,STOREDKEY,SERVERKEY")
        try:
            salt, stored, server = (decode_base64(part.encode()) for part in parts)
        except GrammarError:
            raise ValueError("not in base64") from None
        if not salt or len(stored) != 32 or len(server) != 32:
            raise ValueError("keys of the wrong length")
        if int(iterations) > MAX_ITERATIONS:
            raise ValueError(f"more than {MAX_ITERATIONS} iterations")
        return cls(ScramKeys(salt, int(iterations), stored, server))

    def fits(self, password: str) -> bool:
        """Make the keys of this password, and compare them."""
        try:
            made = derive_keys(password, self.keys.salt, iterations=self.keys.iterations)
        except LocalProtocolError:  # no stored password has such characters (RFC 3454 §7)
            return False
        return hmac.compare_digest(made.stored_key, self.keys.stored_key)

    def written(self) -> str:
        """Write it as `read` reads it."""
        keys = (self.keys.salt, self.keys.stored_key, self.keys.server_key)
        return ",".join([str(self.keys.iterations), *(encode_base64(key).decode() for key in keys)])


@frozen
class ShaCrypt:
    """`$5$` or `$6$`, as crypt(3) has them."""

    text: str = field(repr=False)

    @property
    def scheme(self) -> str:
        """Its name."""
        return "SHA512-CRYPT" if self.text.startswith("$6$") else "SHA256-CRYPT"

    @classmethod
    def read(cls, text: str) -> Self:
        """Take a whole hash."""
        if not is_sha_crypt(text):
            raise ValueError("neither a $5$ nor a $6$ hash")
        return cls(text)

    def fits(self, password: str) -> bool:
        """Hash it with the same salt, and compare."""
        made = sha_crypt(password.encode(), self.text)
        return hmac.compare_digest(made.encode(), self.text.encode())


@frozen
class Argon2:
    """Argon2 (RFC 9106) in its usual spelling; needs the extra `accounts`."""

    text: str = field(repr=False)

    @property
    def scheme(self) -> str:
        """Its name."""
        return self.text.split("$")[1].upper()

    @classmethod
    def read(cls, text: str) -> Self:
        """Take a whole hash, of at most MAX_MEMORY and MAX_WORK."""
        try:
            import argon2  # noqa: PLC0415 - an extra
        except ImportError:
            raise ValueError("Argon2 needs the extra: pip install 'smtpproto[accounts]'") from None
        try:
            asked = argon2.extract_parameters(text)
        except (argon2.exceptions.InvalidHashError, ValueError):
            raise ValueError("not a hash of Argon2") from None
        memory, passes = asked.memory_cost, asked.time_cost
        if memory > MAX_MEMORY or memory * passes > MAX_WORK:
            raise ValueError(f"{memory} KiB of memory and {passes} passes are too many")
        return cls(text)

    def fits(self, password: str) -> bool:
        """Hash it with the same salt and parameters, and compare."""
        import argon2  # noqa: PLC0415 - an extra

        kind = argon2.extract_parameters(self.text).type
        try:
            return argon2.low_level.verify_secret(self.text.encode(), password.encode(), kind)
        except argon2.exceptions.VerificationError:
            return False


def _make_argon2(kind: str) -> Callable[[str], str]:
    def make(password: str) -> str:
        try:
            import argon2  # noqa: PLC0415 - an extra
        except ImportError:
            raise ValueError("Argon2 needs the extra: pip install 'smtpproto[accounts]'") from None
        return argon2.PasswordHasher(type=argon2.Type[kind]).hash(password)

    return make


def _make_scram(password: str) -> str:
    return ScramSha256(derive_keys(password, os.urandom(16), iterations=ITERATIONS)).written()


def _make_sha(method: str) -> Callable[[str], str]:
    def make(password: str) -> str:
        salt = encode_base64(os.urandom(12)).decode().replace("+", ".")
        return sha_crypt(password.encode(), f"${method}${salt}$")

    return make


#: Each scheme: what reads it, and what makes the text behind `{SCHEME}` of a password.
SCHEMES: Mapping[str, tuple[type[Secret], Callable[[str], str]]] = {
    "SCRAM-SHA-256": (ScramSha256, _make_scram),
    "ARGON2ID": (Argon2, _make_argon2("ID")),
    "ARGON2I": (Argon2, _make_argon2("I")),
    "SHA512-CRYPT": (ShaCrypt, _make_sha("6")),
    "SHA256-CRYPT": (ShaCrypt, _make_sha("5")),
    "PLAIN": (Plain, str),
}
#: What is made where nobody says anything else: it serves all mechanisms.
DEFAULT = "SCRAM-SHA-256"


def read_secret(text: str) -> Secret:
    """Read `{SCHEME}...`; without a scheme, a hash of crypt(3), as Dovecot takes it.

    ValueError for what is not known here or malformed; its text has nothing of the secret.
    """
    match = _SCHEME.match(text)
    scheme = "CRYPT" if match is None else match[1].upper()
    rest = text if match is None else text[match.end() :]
    if scheme == "CRYPT":
        return ShaCrypt.read(rest)
    if scheme not in SCHEMES:
        raise ValueError(f"{{{scheme}}} is not known here; there are {', '.join(SCHEMES)}")
    if not rest:
        raise ValueError("there is no password")
    return SCHEMES[scheme][0].read(rest)


def make_secret(password: str, scheme: str = DEFAULT) -> str:
    """Make `{SCHEME}...` of a password that has gone through SASLprep. It blocks.

    ValueError for an empty or too long password, an unknown scheme, and a missing extra.
    """
    if not password:
        raise ValueError("an empty password lets anybody in")
    if len(password.encode()) > MAX_PASSWORD:
        raise ValueError(f"a password has at most {MAX_PASSWORD} octets")
    if scheme not in SCHEMES:
        raise ValueError(f"{scheme} is not known here; there are {', '.join(SCHEMES)}")
    return f"{{{scheme}}}{SCHEMES[scheme][1](password)}"
