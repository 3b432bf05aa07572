"""SHA-crypt: what crypt(3) writes as `$5$` (SHA-256) and `$6$` (SHA-512).

By Ulrich Drepper's specification, in hashlib: the standard library has lost its `crypt`, and
nothing that replaces it is kept well.
"""

from __future__ import annotations

import hashlib
import re
from itertools import chain

__all__ = ["DEFAULT_ROUNDS", "MAX_ROUNDS", "is_sha_crypt", "sha_crypt"]

DEFAULT_ROUNDS = 5000
#: The specification has two hundred times more; a login should not take minutes.
MAX_ROUNDS = 5_000_000
MIN_ROUNDS = 1000

_SETTING = re.compile(r"\$([56])\$(?:rounds=([0-9]{1,9})\$)?([^$:\s]{0,16})")
_HASH = {"5": 43, "6": 86}  # characters of the result
_DIGITS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def is_sha_crypt(text: str) -> bool:
    """Tell whether `text` is a whole `$5$` or `$6$` hash, of at most MAX_ROUNDS."""
    match = _SETTING.match(text)
    if match is None or not MIN_ROUNDS <= int(match[2] or DEFAULT_ROUNDS) <= MAX_ROUNDS:
        return False
    dollar, result = text[match.end() : match.end() + 1], text[match.end() + 1 :]
    return dollar == "$" and len(result) == _HASH[match[1]] and set(result) <= set(_DIGITS)


def sha_crypt(password: bytes, setting: str) -> str:
    """Return the hash of a password, by the method, rounds and salt that `setting` begins with.

    `setting` may be a whole hash: the password is right if the result is the same. It blocks for
    some milliseconds, and longer for long passwords. ValueError for another `setting`.
    """
    match = _SETTING.match(setting)
    if match is None:
        raise ValueError("neither $5$ nor $6$")
    name = {"5": "sha256", "6": "sha512"}[match[1]]
    digest = _digest(password, match[3].encode(), int(match[2] or DEFAULT_ROUNDS), name)
    return f"{match[0]}${_written(digest)}"


def _digest(password: bytes, salt: bytes, rounds: int, name: str) -> bytes:
    def hashed(*parts: bytes) -> bytes:
        return hashlib.new(name, b"".join(parts)).digest()

    def stretched(octets: bytes, length: int) -> bytes:
        return (octets * (length // len(octets) + 1))[:length]

    length = len(password)
    inner = hashed(password, salt, password)
    bits = (inner if length >> at & 1 else password for at in range(length.bit_length()))
    result = hashed(password, salt, stretched(inner, length), *bits)
    p = stretched(hashed(password * length), length)
    s = stretched(hashed(salt * (16 + result[0])), len(salt))
    for number in range(rounds):
        odd = number % 2
        result = hashed(
            p if odd else result,
            s if number % 3 else b"",
            p if number % 7 else b"",
            result if odd else p,
        )
    return result


def _written(digest: bytes) -> str:
    """Write a digest as the specification has it: three octets to four digits, each its own way."""
    third = len(digest) // 3
    groups = [(at, at + third, at + 2 * third) for at in range(third)]
    turn = -1 if len(digest) == 32 else 1  # SHA-256 turns its triples one way, SHA-512 the other
    order = list(chain.from_iterable(_turned(group, turn * at) for at, group in enumerate(groups)))
    text = ""
    for at in range(0, len(order), 3):
        number = int.from_bytes(digest[place] for place in order[at : at + 3])
        text += _base64(number, 4)
    last = digest[3 * third :]  # one octet of SHA-512, two of SHA-256
    return text + _base64(int.from_bytes(last[::-1]), 2 if len(last) == 1 else 3)


def _turned(group: tuple[int, int, int], by: int) -> tuple[int, ...]:
    by %= 3
    return group[by:] + group[:by]


def _base64(number: int, digits: int) -> str:
    return "".join(_DIGITS[number >> 6 * at & 63] for at in range(digits))
