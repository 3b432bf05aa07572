"""Who may log in."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from attrs import field, frozen

from smtpproto.core.sasl import Verify
from smtpproto.handler import Session
from smtpproto.mechanisms.saslprep import saslprep

__all__ = ["Passwords"]


def _prepared(passwords: Mapping[str, str]) -> dict[str, str]:
    return {  # as stored strings, in which nothing unassigned may stand (RFC 4616 §2)
        saslprep(name, stored=True): saslprep(password, stored=True)
        for name, password in passwords.items()
    }


@frozen
class Passwords:
    """An Authenticator over username -> password, held in memory.

    A user acts as themselves and nobody else. An unknown user takes as long as a wrong password.
    GrammarError for names and passwords that SASLprep refuses, such as those with a tab.
    """

    passwords: Mapping[str, str] = field(repr=False, converter=_prepared)

    async def verify(self, session: Session, question: Verify) -> bool:
        """Tell whether the password is right."""
        if question.authorization not in ("", question.username):
            return False
        password = self.passwords.get(question.username)
        same = hmac.compare_digest((password or "").encode(), question.password.encode())
        return same and password is not None
