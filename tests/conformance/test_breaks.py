"""The breaks of `prove.py` can still be made, and each is of a row that says tested."""

import pytest

from tests.conformance.ledger import read_ledger
from tests.conformance.prove import SOURCE, Break, read_breaks

TESTED = {row.id for row in read_ledger().rows if row.status == "tested"}


@pytest.mark.parametrize("change", list(read_breaks()), ids=lambda change: change.file)
def test_a_break_can_be_made(change: Break) -> None:
    compile(change.made_in(SOURCE), change.file, "exec")
    assert change.rows
    assert set(change.rows) <= TESTED
