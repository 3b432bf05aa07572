"""SASLprep (RFC 4013) and the trace profile (RFC 4505 §3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import GrammarError
from smtpproto.mechanisms.saslprep import check_trace, saslprep


@pytest.mark.rfc("4013 §3")
@pytest.mark.parametrize(
    ("text", "prepared"),
    [("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX")],
)
def test_the_examples(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared
    assert saslprep(text, stored=True) == prepared


@pytest.mark.rfc("4013 §3")
@pytest.mark.parametrize("text", ["\u0007", "\u0627\u0031"])
def test_the_examples_of_errors(text: str) -> None:
    with pytest.raises(GrammarError):
        saslprep(text)


@pytest.mark.rfc("4013 §2.1")
def test_other_spaces_become_spaces() -> None:
    assert saslprep("a\u00a0b\u2003c") == "a b c"


@pytest.mark.rfc("4013 §2.3")
@pytest.mark.parametrize(
    "character",
    [
        "\0",
        "\x7f",
        "\x80",
        "\ue000",
        "\ufdd0",
        "\ud800",
        "\ufff9",
        "\u2ff0",
        "\u200e",
        "\U000e0001",
    ],
)
def test_what_is_prohibited(character: str) -> None:
    with pytest.raises(GrammarError):
        saslprep(f"a{character}b")


@pytest.mark.rfc("4013 §2.4")
@pytest.mark.parametrize("text", ["\u0627a\u0627", "1\u0627", "\u06271"])
def test_both_directions_in_one_name(text: str) -> None:
    with pytest.raises(GrammarError):
        saslprep(text)
    assert saslprep("\u06271\u0627") == "\u06271\u0627"


@pytest.mark.rfc("4013 §2.5")
def test_unassigned_code_points_may_be_asked_for_and_not_stored() -> None:
    assert saslprep("\U0001f600") == "\U0001f600"
    with pytest.raises(GrammarError):
        saslprep("\U0001f600", stored=True)


@given(st.text())
def test_preparing_is_total_and_done_once(text: str) -> None:
    try:
        prepared = saslprep(text)
    except GrammarError:
        return
    try:
        assert saslprep(prepared) == prepared
    except GrammarError:
        # NFKC of Unicode 3.2 can make of an unassigned one nothing that it knows itself.
        assert not prepared.isascii()


@pytest.mark.rfc("4505 §3")
def test_a_trace_is_not_mapped_and_holds_spaces() -> None:
    check_trace("a\u00a0b\u00ad")
    with pytest.raises(GrammarError):
        check_trace("a\nb")
