"""Words and octets that much else is made of."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["ATEXT", "LETTERS", "LET_DIG", "PRINTABLE", "base64_octets", "texts", "utf8_texts"]

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
LET_DIG = LETTERS + "0123456789"
ATEXT = LET_DIG + "!#$%&'*+-/=?^_`{|}~"
PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))


def texts() -> st.SearchStrategy[str]:
    """Arguments of NOOP and HELP; VRFY and EXPN take those that are not empty."""
    return st.text(PRINTABLE, max_size=20).map(str.strip)


def utf8_texts(max_size: int = 8) -> st.SearchStrategy[str]:
    """Text beyond ASCII, of one character at least: UTF8-non-ascii (RFC 6531 §3.3).

    Letters mostly, composed or not, and whatever else Unicode has from U+0080 on.
    """
    letters = st.sampled_from("éüßñçøłžабвдеёαβγδ中文字例え日本한글ابجאבג\u0301\u0308\U0001f600")
    others = st.characters(min_codepoint=0x80, exclude_categories=["Cs"])
    return st.text(st.one_of(letters, letters, others), min_size=1, max_size=max_size)


def base64_octets() -> st.SearchStrategy[bytes | None]:
    """What is sent as base64 within AUTH; None where nothing is."""
    return st.one_of(st.none(), st.just(b""), st.binary(max_size=60))
