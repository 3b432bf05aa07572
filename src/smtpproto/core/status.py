"""Enhanced status codes (RFC 3463), as RFC 2034 puts them into replies."""

from __future__ import annotations

import re

from attrs import frozen

from .errors import GrammarError, LocalProtocolError

__all__ = ["EnhancedStatus"]

# status-code = class "." subject "." detail ; subject and detail: 1*3digit, no leading zeros
_STATUS = re.compile(r"([245])\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")


@frozen(order=True)
class EnhancedStatus:
    """`class_.subject.detail`: 2 success, 4 persistent transient, 5 permanent failure."""

    class_: int
    subject: int
    detail: int

    def __attrs_post_init__(self) -> None:
        if _STATUS.fullmatch(str(self)) is None:
            raise LocalProtocolError(f"not an enhanced status code (RFC 3463 §2): {self}")

    @classmethod
    def parse(cls, text: str) -> EnhancedStatus:
        """Read `5.1.1`; GrammarError if it is not such a code."""
        match = _STATUS.fullmatch(text)
        if match is None:
            raise GrammarError(f"not an enhanced status code: {text!r}")
        return cls(int(match[1]), int(match[2]), int(match[3]))

    @classmethod
    def of(cls, value: EnhancedStatus | str) -> EnhancedStatus:
        """Take a status or a caller's text for one; LocalProtocolError if it is not."""
        if isinstance(value, EnhancedStatus):
            return value
        try:
            return cls.parse(value)
        except GrammarError as error:
            raise LocalProtocolError(str(error)) from None

    def __str__(self) -> str:
        return f"{self.class_}.{self.subject}.{self.detail}"
