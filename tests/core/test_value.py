"""What a parser has checked becomes a value as it is; what a caller gives is checked."""

from typing import NoReturn

import pytest
from attrs import frozen

from smtpproto.core.value import remembered, taken, taker


@frozen
class One:
    """Nobody can make one by calling it."""

    only: str

    def __attrs_post_init__(self) -> NoReturn:
        raise ValueError("checked")


@frozen
class Two(One):
    """Nor one of these."""

    other: str


def test_what_a_caller_makes_is_checked() -> None:
    with pytest.raises(ValueError, match="checked"):
        One("a")
    with pytest.raises(ValueError, match="checked"):
        Two("a", "b")


def test_attributes_by_name_are_taken_as_they_are() -> None:
    value = taken(Two, other="b", only="a")
    assert type(value) is Two
    assert (value.only, value.other) == ("a", "b")
    assert taken(One, only="a").only == "a"


def test_one_attribute_is_taken_as_it_is() -> None:
    take = taker(One, "only")
    first, second = take("a"), take("b")
    assert type(first) is type(second) is One
    assert (first.only, second.only) == ("a", "b")
    assert first == taken(One, only="a")


def test_two_attributes_are_taken_in_the_order_that_was_named() -> None:
    value = taker(Two, "only", "other")("a", "b")
    assert type(value) is Two
    assert (value.only, value.other) == ("a", "b")
    assert taker(Two, "other", "only")("b", "a") == value


def test_what_a_function_returned_is_remembered_for_the_last_thousand() -> None:
    asked: list[int] = []

    @remembered
    def half(number: int) -> float:
        asked.append(number)
        return number / 2

    assert [half(3), half(3)] == [1.5, 1.5]
    assert asked == [3]
    for number in range(10, 1034):  # 1024 others
        half(number)
    half(3)
    assert asked[-2:] == [1033, 3]
    half(1033)
    assert asked[-1] == 3
