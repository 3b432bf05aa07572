"""The page says what the tests have played."""

from .moments import ENDINGS, MOMENTS, WORDS
from .pages import PAGE, render
from .places import DRAINS, FAILURES, PLACES


def test_the_page_is_made_of_the_tables() -> None:
    assert PAGE.read_text(encoding="utf-8") == render()


def test_no_row_stands_twice_and_none_is_empty() -> None:
    moments = [moment.name for moment in MOMENTS]
    others = [
        [row.name for row in PLACES],
        [row.power for row in FAILURES],
        [row.name for row in DRAINS],
    ]
    for names in (moments, *others):
        assert len(set(names)) == len(names) > 0
    for moment in MOMENTS:
        assert {"reset", "silent"} <= moment.outcomes.keys() <= ENDINGS.keys()
        assert set(moment.outcomes.values()) <= WORDS.keys()
