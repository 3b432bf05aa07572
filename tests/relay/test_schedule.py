"""When to try again (RFC 5321 §4.5.4.1)."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.relay.routing.schedule import DEFAULT, Schedule, next_attempt

JITTER = st.floats(0, 1, exclude_max=True)
ATTEMPTS = st.integers(0, 10**6)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    first = draw(st.floats(1, 10_000))
    return Schedule(
        first=first,
        factor=draw(st.one_of(st.just(1.0), st.floats(1.01, 100))),
        longest=first * draw(st.floats(1, 1000)),
        lifetime=draw(st.floats(0, 1_000_000)),
        spread=draw(st.floats(0, 1)),
    )


def life(schedule: Schedule, jitter: float, most: int) -> list[float]:
    """The ages at which a message is tried that never succeeds."""
    ages = [0.0]
    while len(ages) < most:
        wait = next_attempt(ages[-1], len(ages), jitter, schedule)
        if wait is None:
            break
        ages.append(ages[-1] + wait)
    return ages


@given(schedules(), st.floats(-1000, 2_000_000), ATTEMPTS, JITTER)
def test_a_wait_is_within_bounds(
    schedule: Schedule, age: float, attempts: int, jitter: float
) -> None:
    wait = next_attempt(age, attempts, jitter, schedule)
    if wait is None:
        assert age > schedule.lifetime - schedule.first
    else:
        assert schedule.first <= wait <= schedule.longest * (1 + schedule.spread)
        assert age + wait <= schedule.lifetime + 1e-6


@given(schedules(), ATTEMPTS, ATTEMPTS)
def test_waits_never_get_shorter_before_jitter(schedule: Schedule, one: int, other: int) -> None:
    fewer, more = sorted((one, other))
    assert schedule.wait(fewer) <= schedule.wait(more)


@given(schedules(), JITTER)
def test_the_last_attempt_is_near_the_end_of_life_and_not_beyond(
    schedule: Schedule, jitter: float
) -> None:
    most = 2000
    ages = life(schedule, jitter, most)
    assert ages[-1] <= schedule.lifetime + 1e-6
    if len(ages) < most:
        assert ages[-1] > schedule.lifetime - schedule.first


@given(st.floats(0, 500_000), ATTEMPTS, JITTER)
def test_the_same_question_has_the_same_answer(age: float, attempts: int, jitter: float) -> None:
    assert next_attempt(age, attempts, jitter) == next_attempt(age, attempts, jitter)


@given(st.integers(1, 12), JITTER, JITTER)
def test_jitter_only_lengthens(attempts: int, one: float, other: float) -> None:
    """A greylist's delay is never undercut."""
    little, much = sorted((one, other))
    shorter = next_attempt(0, attempts, little)
    longer = next_attempt(0, attempts, much)
    assert shorter is not None
    assert longer is not None
    assert DEFAULT.wait(attempts) <= shorter <= longer


@pytest.mark.rfc("5321 §4.5.4.1 four-days-at-least")
def test_the_default_doubles_from_five_minutes_to_four_hours_and_ends_after_five_days() -> None:
    ages = life(DEFAULT, 0.0, 1000)
    waits = [after - before for before, after in pairwise(ages)]
    assert waits[:7] == [300, 600, 1200, 2400, 4800, 9600, 14400]
    assert ages[-1] == 5 * 86400
    assert len(ages) == 36


def test_no_lifetime_is_one_attempt() -> None:
    assert next_attempt(0, 1, 0.5, Schedule(lifetime=0)) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": 0},
        {"first": math.nan},
        {"factor": 0.5},
        {"longest": 10},
        {"lifetime": -1},
        {"lifetime": math.inf},
        {"spread": -0.1},
    ],
)
def test_what_is_no_schedule_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|waits"):
        Schedule(**wrong)
