"""xtext (RFC 3461 §4)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import GrammarError
from smtpproto.core.grammar import PARAMETER
from smtpproto.core.xtext import decode_xtext, encode_xtext


@pytest.mark.rfc("3461 §4 values-are-in-xtext", "3461 §4 xtext")
@given(st.binary(max_size=60))
def test_any_octets_come_back_and_fit_an_esmtp_value(octets: bytes) -> None:
    written = encode_xtext(octets)
    assert decode_xtext(written) == octets
    assert not octets or PARAMETER.fullmatch(b"K=" + written)


@pytest.mark.rfc("3461 §4 xtext")
@given(st.binary(max_size=30))
def test_what_is_no_xtext_is_a_grammar_error(octets: bytes) -> None:
    try:
        decoded = decode_xtext(octets)
    except GrammarError:
        return
    assert decode_xtext(encode_xtext(decoded)) == decoded


@pytest.mark.rfc("3461 §4 xchar", "3461 §4 all-else-is-encoded")
@pytest.mark.parametrize(
    ("octets", "written"),
    [
        (b"", b""),
        (b"e=mc2@example.com", b"e+3Dmc2@example.com"),  # RFC 4954 §5.1
        (b"a b", b"a+20b"),
        (b"1+1", b"1+2B1"),
        (b"\x00\x7f\xff", b"+00+7F+FF"),
        (b"<>", b"<>"),
    ],
)
def test_written(octets: bytes, written: bytes) -> None:
    assert encode_xtext(octets) == written
    assert decode_xtext(written) == octets


@pytest.mark.rfc("3461 §4 xchar-may-be-encoded-all-the-same")
def test_an_octet_may_be_encoded_needlessly() -> None:
    assert decode_xtext(b"+41b+63") == b"Abc"


@pytest.mark.rfc("3461 §4 xchar", "3461 §4 hexchar")
@pytest.mark.parametrize(
    "octets", [b"+", b"+4", b"+4g", b"+3d", b"a=b", b"a b", b"\x7f", b"a\r\n", b"\xc3\xbc", b"a\n"]
)
def test_refused(octets: bytes) -> None:
    with pytest.raises(GrammarError) as caught:
        decode_xtext(octets)
    assert (caught.value.code, caught.value.status) == (501, "5.5.4")
