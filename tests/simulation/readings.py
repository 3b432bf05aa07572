"""What can be read off a message: whose it is, and of a report, what it says."""

import re
from collections.abc import Sequence

from attrs import frozen

__all__ = ["END", "Reading", "hops_of", "identify", "message_id_of", "read_report"]

_BY = re.compile(rb"\bby\s+([\w.-]+).*?\bid\s+(\w+)", re.DOTALL)
_RECIPIENT = re.compile(rb"^Final-Recipient: rfc822; (\S+)\r\nAction: (\w+)", re.MULTILINE)
_MESSAGE_ID = re.compile(rb"^Message-ID: (<[^>]+>)", re.MULTILINE)
_ENVID = re.compile(rb"^Original-Envelope-Id: (\S+)", re.MULTILINE)

#: The last line of each message that a client hands in.
END = b"X-End: 1\r\n"


def identify(content: bytes) -> tuple[str, str] | None:
    """Tell whose message this is, by what the last of our nodes wrote on top; None: not so."""
    header = content.partition(b"\r\n\r\n")[0] + b"\r\n"
    while header.startswith((b"Return-Path:", b"Delivered-To:")):
        header = header.partition(b"\r\n")[2]
    if header.startswith(b"Received:"):
        first = re.split(rb"\r\n(?![ \t])", header, maxsplit=1)[0]
        if (match := _BY.search(first)) is not None:
            return match[1].decode(), match[2].decode()
    return None


def hops_of(content: bytes) -> int:
    """Count the servers that a message has come through, by its header or the beginning of it."""
    header = content.partition(b"\r\n\r\n")[0]
    return len(re.findall(rb"^Received:", header, re.MULTILINE))


def message_id_of(content: bytes) -> bytes | None:
    header = content.partition(b"\r\n\r\n")[0] + b"\r\n"
    match = _MESSAGE_ID.search(header)
    return None if match is None else match[1]


@frozen
class Reading:
    """What a report says: of whom which action, under what id, and what it gives back.

    `original` is the message or its header as it is given back, empty where there is none;
    `whole` tells whether it is all of one that a client has handed in.
    """

    told: Sequence[tuple[str, str]]
    envid: str | None
    original: bytes
    whole: bool


def read_report(content: bytes) -> Reading:
    """Read a report. The second part is ours; in the third anything may stand."""
    fields = content.partition(b"Content-Type: message/delivery-status")[2]
    ours, _, original = fields.partition(b"Content-Type: ")
    original = original.partition(b"\r\n\r\n")[2].lstrip(b"\r\n")
    if original.startswith(b"--"):
        original = b""
    envid = _ENVID.search(ours)
    return Reading(
        [(path.decode().lower(), action.decode()) for path, action in _RECIPIENT.findall(ours)],
        None if envid is None else envid[1].decode(),
        original,
        END in original,
    )
