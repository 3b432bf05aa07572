"""8BITMIME (RFC 6152): content with octets over 127, declared as BODY=8BITMIME."""

from __future__ import annotations

from collections.abc import Mapping

from smtpproto.core.command import Command, Mail
from smtpproto.core.errors import GrammarError
from smtpproto.core.extension import Extension
from smtpproto.core.parameter import Parameter
from smtpproto.core.reply import Reply

__all__ = ["BODY", "EIGHTBITMIME", "judge_body"]

# body-value ::= "7BIT" / "8BITMIME" (RFC 6152 §2) / "BINARYMIME" (RFC 3030 §3)
_VALUES = ("7BIT", "8BITMIME", "BINARYMIME")
_NEEDS = {"8BITMIME": {"8BITMIME"}, "BINARYMIME": {"BINARYMIME", "CHUNKING"}}


def _read(value: bytes | None) -> str:
    body = (value or b"").decode("ascii", "replace").upper()
    if body not in _VALUES:
        raise GrammarError("BODY takes 7BIT or 8BITMIME")
    return body


BODY: Parameter[str] = Parameter("BODY", _read, str.encode, octets=17)


def judge_body(command: Command, offered: Mapping[str, str]) -> Reply | None:
    """Judge BODY, which two extensions define, by what is offered of them."""
    body = BODY.of(command.parameters) if isinstance(command, Mail) else None
    if body is None or _NEEDS.get(body, set()) <= offered.keys():
        return None
    return Reply(501, "5.5.4", f"BODY={body} is not offered")


EIGHTBITMIME = Extension("8BITMIME", rfc=6152, mail=(BODY,), judge=judge_body)
