"""What a client may log in with, by which mechanism, and what either end may say in between."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from smtpproto.core.errors import GrammarError
from smtpproto.core.sasl import ChannelBinding, Credentials, Mechanism
from smtpproto.mechanisms import CRAM_MD5, STANDARD
from smtpproto.mechanisms.saslprep import check_trace, saslprep

from .words import LET_DIG, LETTERS, PRINTABLE, utf8_texts

__all__ = ["ALL", "bindings", "credentials", "mechanisms", "sasl_messages", "sasl_names"]

#: Every mechanism, with the one that is off unless it is asked for.
ALL = (*STANDARD, CRAM_MD5)


def mechanisms(known: Sequence[Mechanism] = ALL) -> st.SearchStrategy[Mechanism]:
    """One of these mechanisms; by default, all that there are."""
    return st.sampled_from(list(known))


def sasl_names() -> st.SearchStrategy[str]:
    """User names and passwords that can be stored (SASLprep, RFC 4013 §2)."""
    return st.one_of(st.text(PRINTABLE, min_size=1, max_size=12), utf8_texts()).filter(_storable)


def _storable(text: str) -> bool:
    try:
        return saslprep(text, stored=True) != ""
    except GrammarError:
        return False


def bindings() -> st.SearchStrategy[ChannelBinding]:
    """What names a TLS channel (RFC 5929)."""
    kinds = st.sampled_from(["tls-unique", "tls-server-end-point", "tls-exporter"])
    return st.builds(ChannelBinding, kinds, st.binary(min_size=1, max_size=40))


@st.composite
def credentials(draw: st.DrawFn, mechanism: Mechanism) -> Credentials:
    """What serves to log in by `mechanism`, and what is of no use to it.

    Where there is a binding, it is one that the mechanism needs; few iterations are enough.
    """
    name = draw(sasl_names())
    nonce = draw(st.text(LET_DIG, min_size=1, max_size=16))
    token = st.builds(
        "{}{}".format, st.text(LET_DIG + "-._~+/", min_size=1, max_size=40), st.just("==")
    )
    made = Credentials(
        name,
        draw(sasl_names()),
        draw(st.sampled_from(["", name])),
        token=draw(token),
        host=draw(st.sampled_from(["", "mx.example.org"])),
        port=draw(st.sampled_from([0, 587])),
        external=True,
        trace=draw(
            st.one_of(st.just(""), st.text(LETTERS + "@ é", max_size=40)).filter(_traceable)
        ),
        binding=draw(bindings()) if mechanism.binds else None,
        nonce=lambda: nonce,
        iterations=(1, 1_000_000),
    )
    assert mechanism.serves(made), mechanism
    return made


def _traceable(text: str) -> bool:
    try:
        check_trace(text)
    except GrammarError:
        return False
    return True


_NEAR = [
    b"n", b"y", b"p=", b"tls-unique", b",", b",,", b"a=", b"n=ann", b"r=c", b"r=cs", b"\0", b"\1",
    b"\1\1", b"auth=Bearer ", b"auth=", b"token", b"user=", b"ann", b"pw", b"=", b" ", b"=2C",
    b"c=biws", b"s=QQ==", b"i=4096", b"i=99999999999", b"v=", b"e=x", b"QQ==", b"m=1", b"host=h",
    b"port=1", b"\xff", "ﬀ".encode(), b"{}", b"0" * 32,
]  # fmt: skip


def sasl_messages() -> st.SearchStrategy[bytes]:
    """Octets that either end of an exchange may hear, most of them near to what it expects."""
    near = st.lists(st.sampled_from(_NEAR), max_size=12).map(b"".join)
    return st.one_of(near, near, st.binary(max_size=60))
