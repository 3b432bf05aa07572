"""The cutting of an RFC's text, on a text of our own: the RFCs' are not kept here."""

from textwrap import dedent

import pytest

from tests.conformance.ledger import Ledger, Row
from tests.conformance.statements import gaps, statements

TEXT = dedent(
    """\
    1.  Introduction

       Nobody must read this, as section one is out of scope.

    4.5.2.  Of Dots

       A client MUST double dots, e.g. the first one.  A dot is small.  The server (see
       Section 2.1.) removes them and should



    Doe                         Standards Track                    [Page 1]

    RFC 5321                          SMTP                      October 2008


       be glad of it.

       dots = 1*dot ; which may be many
       dot = "."

       o  First, it is required to wait.

       o  Second, the wait is short.
    """
)
WANTED = [
    "A client MUST double dots, e.g. the first one.",
    "The server (see Section 2.1.) removes them and should be glad of it.",
    "dots = 1*dot ; which may be many",
    'dot = "."',
    "o First, it is required to wait.",
]


def test_sentences_productions_and_items_are_told_apart() -> None:
    cut = [each for each in statements(5321, TEXT) if each.section == "4.5.2"]
    assert [each.text for each in cut if each.normative] == WANTED
    assert [each.text for each in cut if not each.normative] == [
        "A dot is small.",
        "o Second, the wait is short.",
    ]
    assert [each.production for each in cut if each.production] == ["dots", "dot"]


def test_where_a_page_ends_does_not_matter() -> None:
    begin, _, rest = TEXT.partition("should\n")
    whole = f"{begin}should\n{rest[rest.index('   be glad') :]}"
    assert list(statements(5321, whole)) == list(statements(5321, TEXT))


def covering(*digests: str) -> Ledger:
    return Ledger(
        (Row(5321, "4.5.2", "dots", "Says.", ("client",), digests, "tested", ""),), frozenset()
    )


def test_a_statement_without_a_row_is_reported() -> None:
    first, *others = (s.digest for s in statements(5321, TEXT) if s.text in WANTED)
    assert not list(gaps(5321, TEXT, covering(first, *others)))
    [gap] = gaps(5321, TEXT, covering(*others))
    assert (gap.section, gap.digest) == ("4.5.2", first)


def test_a_row_whose_statement_changed_is_reported() -> None:
    all_of_it = [s.digest for s in statements(5321, TEXT) if s.text in WANTED]
    [first, second] = gaps(5321, TEXT.replace("double", "triple"), covering(*all_of_it))
    assert first.why.startswith("no row")
    assert second.digest == all_of_it[0]


@pytest.mark.parametrize(("rfc", "normative"), [(1870, True), (5321, False)])
def test_where_capitals_are_rare_the_future_tense_obliges(rfc: int, normative: bool) -> None:
    [statement] = statements(rfc, "4.  Size\n\n   The server will refuse it.\n")
    assert statement.normative is normative
