"""Guessing is slow, and locks out who guesses; not the one whose password it is."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.core.reply import Reply
from smtpproto.handler import LoginGuard, Session
from smtpproto.relay.accounts.guessing import Bucket, Guessing, Locked, network_of

pytestmark = pytest.mark.anyio

HOUR = 3600.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def at(address: str) -> Session:
    return Session(1, (address, 4000), ("192.0.2.25", 587))


HERE, THERE = at("198.51.100.1"), at("203.0.113.1")


class Guessed:
    """A guard on a clock of ours, and what it told."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.told: list[Locked] = []
        self.guard = Guessing(clock=self.clock, observe=self.told.append, **settings)

    async def fails(self, session: Session, username: str = "ann") -> float | Reply:
        """One wrong password: the refusal, or for how long the answer waits."""
        refusal = await self.guard.admit(session, username)
        if refusal is not None:
            return refusal
        return await self.guard.ended(session, username, success=False)

    async def succeeds(self, session: Session, username: str = "ann") -> bool:
        if await self.guard.admit(session, username) is not None:
            return False
        assert await self.guard.ended(session, username, success=True) == 0
        return True


def test_it_is_a_guard() -> None:
    assert isinstance(Guessing(), LoginGuard)


@pytest.mark.rfc("4954 §6 454-is-temporary-failure")
async def test_each_failure_waits_longer_and_then_there_is_a_lock() -> None:
    them = Guessed()
    assert [await them.fails(HERE) for _ in range(5)] == [1, 2, 4, 8, 8]
    refusal = await them.fails(HERE)
    assert isinstance(refusal, Reply)
    assert str(refusal) == "454 4.7.0 Too many failed logins; try again in 15 minutes"
    assert not await them.succeeds(HERE)  # a right password changes nothing: it is not looked at
    assert them.told == [Locked("198.51.100.1", "ann", 900)]


async def test_a_lock_ends_and_then_there_is_one_try_at_a_time() -> None:
    them = Guessed()
    for _ in range(5):
        await them.fails(HERE)
    them.clock.now += 899
    assert isinstance(await them.fails(HERE), Reply)
    them.clock.now += 1
    assert await them.fails(HERE) == 8
    assert isinstance(await them.fails(HERE), Reply)
    them.clock.now += 900
    assert await them.succeeds(HERE)
    assert [await them.fails(HERE) for _ in range(4)] == [1, 2, 4, 8]  # all is forgotten


async def test_what_was_long_ago_is_forgotten() -> None:
    them = Guessed()
    for _ in range(50):
        assert await them.fails(HERE) == 1
        them.clock.now += 900


async def test_the_owner_elsewhere_is_not_locked_out_by_a_stranger() -> None:
    them = Guessed()
    for _ in range(2000):
        await them.fails(THERE)
        them.clock.now += 1
    assert await them.succeeds(HERE)
    assert not await them.succeeds(THERE)


async def test_a_network_that_tries_one_account_after_the_other_is_locked() -> None:
    them = Guessed()
    tries = [await them.fails(THERE, f"user{number}") for number in range(40)]
    assert tries[:30] == [1] * 30
    assert all(isinstance(each, Reply) for each in tries[30:])
    assert not await them.succeeds(THERE, "somebody else")
    assert await them.succeeds(HERE, "user1")
    assert them.told == [Locked("203.0.113.1", "", 120)]


async def test_an_account_of_ones_own_is_no_way_around() -> None:
    them = Guessed()
    for number in range(30):
        await them.fails(THERE, f"user{number}")
        if number < 29:
            assert await them.succeeds(THERE, "eve")
    assert isinstance(await them.fails(THERE, "user31"), Reply)


async def test_many_tries_at_once_are_no_way_around() -> None:
    them = Guessed()
    admitted = [await them.guard.admit(HERE, "ann") for _ in range(20)]
    assert admitted.count(None) == 5
    # Those that broke off count, too: nobody says that they ended.
    assert isinstance(await them.guard.admit(HERE, "ann"), Reply)


async def test_who_has_many_programs_logs_in_with_all_of_them_at_once() -> None:
    them = Guessed()
    for _ in range(100):
        assert await them.succeeds(HERE)


async def test_spelling_a_name_otherwise_is_no_way_around() -> None:
    them = Guessed()
    for name in ("ann", "Ann", "ANN", "aNn", "anN"):
        await them.fails(HERE, name)
    assert isinstance(await them.fails(HERE, "AnN"), Reply)


async def test_from_many_networks_an_account_is_slowed_and_not_locked() -> None:
    them = Guessed()
    waits = [await them.fails(at(f"203.0.{number}.1")) for number in range(120)]
    assert waits[:99] == [1] * 99
    assert waits[100:] == [8] * 20
    assert them.told == [Locked("", "ann", 0)]
    assert await them.succeeds(HERE)


async def test_a_network_apart_is_not_locked_as_a_whole() -> None:
    them = Guessed(apart=["203.0.113.0/24"])
    for number in range(200):
        await them.fails(THERE, f"user{number}")
    assert await them.succeeds(THERE, "ann")
    for _ in range(5):
        await them.fails(THERE, "bob")
    assert not await them.succeeds(THERE, "bob")


async def test_what_nobody_could_judge_is_no_guess_and_forgives_none() -> None:
    them = Guessed()
    for _ in range(4):
        await them.fails(HERE)
    for _ in range(10):
        assert await them.guard.admit(HERE, "ann") is None
        assert await them.guard.ended(HERE, "ann", success=None) == 0
    assert await them.fails(HERE) == 8
    assert isinstance(await them.fails(HERE), Reply)


async def test_a_long_name_is_not_kept() -> None:
    them = Guessed()
    for end in "abcde":
        await them.fails(HERE, "x" * 5000 + end)
    assert isinstance(await them.fails(HERE, "x" * 5000), Reply)
    assert not isinstance(await them.fails(HERE, "x" * 200), Reply)
    assert len(max(them.guard._anywhere._levels, key=len)) <= 256  # type: ignore[arg-type]


async def test_memory_has_a_bound() -> None:
    them = Guessed(most=100)
    for number in range(1000):
        await them.fails(at(f"203.0.{number // 250}.{number % 250}"), f"user{number}")
    kept = [getattr(them.guard, name) for name in ("_accounts", "_networks", "_anywhere")]
    assert [len(each) for each in kept] == [100] * 3


async def test_without_an_observer_the_log_tells(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guessing(by_account=Bucket(1, 60), clock=Clock())
    await guard.admit(HERE, "ann\n")
    await guard.ended(HERE, "ann\n", success=False)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        r"too many failed logins as 'ann\n' from 198.51.100.1: refused for 60 s"
    )


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("2001:db8::ffff:2:3:4", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("", ""),
    ],
)
def test_networks_of_addresses(address: str, network: str) -> None:
    assert network_of(address) == network


@given(steps=st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=200))
def test_no_more_guesses_than_the_bucket_holds_and_lets_through(
    steps: list[tuple[bool, float]],
) -> None:
    """Whatever the moments: of one account from one network, 5 and one more each 900 seconds."""
    them = Guessed()
    admitted: list[float] = []

    async def play() -> None:
        for ends, pause in steps:
            if await them.guard.admit(HERE, "ann") is None:
                admitted.append(them.clock.now)
                if ends:
                    await them.guard.ended(HERE, "ann", success=False)
            them.clock.now += pause

    _at_once(play)
    for at_, first in enumerate(admitted):
        for last in admitted[at_:]:
            count = sum(first <= moment <= last for moment in admitted)
            assert count <= 5 + (last - first) / 900 + 1e-6


def _at_once(play: Callable[[], Any]) -> None:
    """Run a coroutine that waits for nothing."""
    with pytest.raises(StopIteration):
        play().send(None)
