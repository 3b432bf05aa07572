"""SASL mechanisms, one file each; STANDARD is the registry, in order of preference.

::

    external, anonymous        nothing to prove here
    oauth                      a token
    scram                      a password, proved by both ends and not shown
    plain, login               a password, shown: for TLS
    cram_md5                   off unless it is asked for: `STANDARD + (CRAM_MD5,)`
    binding                    what binds SCRAM to the TLS channel below
    saslprep, text             names and passwords in the form that is compared

Add your own beside them: `(MINE, *STANDARD)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from smtpproto.core.sasl import Credentials, Mechanism

from .anonymous import ANONYMOUS
from .cram_md5 import CRAM_MD5
from .external import EXTERNAL
from .login import LOGIN
from .oauth import OAUTHBEARER, XOAUTH2
from .plain import PLAIN
from .scram import SCRAM_SHA_1, SCRAM_SHA_1_PLUS, SCRAM_SHA_256, SCRAM_SHA_256_PLUS

__all__ = [
    "ANONYMOUS",
    "CRAM_MD5",
    "EXTERNAL",
    "LOGIN",
    "OAUTHBEARER",
    "PLAIN",
    "SCRAM_SHA_1",
    "SCRAM_SHA_1_PLUS",
    "SCRAM_SHA_256",
    "SCRAM_SHA_256_PLUS",
    "STANDARD",
    "XOAUTH2",
    "strongest",
]

#: With binding first, whatever the hash: where the server offers it, a client that can must
#: not go without (RFC 5802 §6).
STANDARD: tuple[Mechanism, ...] = (
    EXTERNAL,
    OAUTHBEARER,
    XOAUTH2,
    SCRAM_SHA_256_PLUS,
    SCRAM_SHA_1_PLUS,
    SCRAM_SHA_256,
    SCRAM_SHA_1,
    PLAIN,
    LOGIN,
    ANONYMOUS,
)


def strongest(
    offered: Iterable[str],
    credentials: Credentials,
    mechanisms: Sequence[Mechanism] = STANDARD,
) -> Mechanism | None:
    """Return the first of `mechanisms` that a server offers and the credentials can serve.

    `offered` are names in any case; None where there is no such mechanism.
    """
    names = {name.upper() for name in offered}
    return next((m for m in mechanisms if m.name in names and m.serves(credentials)), None)
