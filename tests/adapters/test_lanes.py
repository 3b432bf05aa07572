"""The books of a pool: whatever happens in whatever order, nobody gets what is another's."""

import itertools
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from smtpproto.lanes import Lane, Lanes, Ticket
from smtpproto.result import ClientError

REFUSED = ClientError("refused")


class Books(RuleBasedStateMachine):
    """Everything that a pool does with its books, and a second set of books to compare with."""

    lanes: Lanes[int]

    @initialize(total=st.integers(1, 4), each=st.integers(1, 3))
    def begin(self, total: int, each: int) -> None:
        self.numbers = itertools.count()
        self.lanes = Lanes(total, each, self.part)
        self.waiting: list[Ticket[int]] = []
        self.opening: list[Lane[int]] = []
        self.in_use: dict[int, Lane[int]] = {}
        self.parted: list[Lane[int]] = []
        self.closed: set[int] = set()

    def part(self, lane: Lane[int], session: int) -> None:
        assert session not in self.closed
        self.closed.add(session)
        self.parted.append(lane)

    def look(self) -> None:
        """Take what was granted: that is what the tasks would do that wait."""
        for ticket in [each for each in self.waiting if each.settled]:
            self.waiting.remove(ticket)
            if ticket.session is not None:
                assert ticket.session not in self.in_use
                assert ticket.session not in self.closed
                self.in_use[ticket.session] = ticket.lane
            elif ticket.granted:
                self.opening.append(ticket.lane)

    @rule(key=st.sampled_from("abc"), first=st.booleans())
    def ask(self, key: str, first: bool) -> None:
        self.waiting.append(self.lanes.ask(key, first=first))
        self.look()

    @rule(which=st.integers(0, 20), wait=st.booleans())
    def withdraw(self, which: int, wait: bool) -> None:
        """Somebody is cancelled, perhaps between being granted something and taking it."""
        if not self.waiting:
            return
        ticket = self.waiting.pop(which % len(self.waiting))
        if not wait and self.in_use:
            session, lane = next(iter(self.in_use.items()))
            del self.in_use[session]
            self.lanes.put_back(lane, session)
        self.lanes.withdraw(ticket)
        self.look()

    @rule(which=st.integers(0, 20), well=st.booleans(), refused=st.booleans())
    def open(self, which: int, well: bool, refused: bool) -> None:
        if not self.opening:
            return
        lane = self.opening.pop(which % len(self.opening))
        if well:
            self.lanes.opened(lane)
            self.in_use[next(self.numbers)] = lane
        else:
            others = lane.alive > 0
            again = self.lanes.unopened(lane, REFUSED if refused else None)
            assert again is (refused and others)
        self.look()

    @rule(which=st.integers(0, 20), well=st.booleans())
    def done(self, which: int, well: bool) -> None:
        if not self.in_use:
            return
        session = list(self.in_use)[which % len(self.in_use)]
        lane = self.in_use.pop(session)
        (self.lanes.put_back if well else self.lanes.retire)(lane, session)
        self.look()

    @rule(which=st.integers(0, 20), all_of_them=st.booleans())
    def expire(self, which: int, all_of_them: bool) -> None:
        if self.lanes.idle:
            session = list(self.lanes.idle)[which % len(self.lanes.idle)]
            if all_of_them:
                self.lanes.retire_idle(self.lanes.idle[session])
            else:
                self.lanes.expire(session)
            self.look()

    @rule(which=st.integers(0, 20))
    def close(self, which: int) -> None:
        if self.parted:
            self.lanes.closed(self.parted.pop(which % len(self.parted)))
            self.look()

    @invariant()
    def limits_hold_and_the_books_agree(self) -> None:
        lanes = self.lanes
        held = len(self.in_use) + len(self.opening) + len(self.parted) + len(lanes.idle)
        assert lanes.count == held <= lanes.total
        assert lanes.closing == len(self.parted)
        assert not lanes.idle.keys() & (self.in_use.keys() | self.closed)
        counts = Counter(
            lane.key for lane in [*self.in_use.values(), *self.opening, *self.parted]
        ) + Counter(lane.key for lane in lanes.idle.values())
        assert counts == Counter({lane.key: lane.count for lane in lanes.lanes if lane.count})
        for lane in lanes.lanes:
            assert lane.count <= lanes.each
            assert lane.count or lane.waiting

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        lanes = self.lanes
        wanting = [lane for lane in lanes.lanes if lane.wants]
        for lane in lanes.lanes:
            assert not (lane.waiting and lane.idle)
        if wanting:
            assert lanes.count == lanes.total
            # Connections that nobody uses make room, a place for each lane that wants one.
            assert not lanes.idle or lanes.closing >= len(wanting)

    def teardown(self) -> None:
        """If from now on all goes well, everybody gets what they wait for."""
        if not hasattr(self, "waiting"):
            return
        for _ in range(1000):
            if not (self.waiting or self.opening or self.in_use or self.parted):
                break
            if self.opening:
                self.open(0, True, False)
            elif self.in_use:
                self.done(0, True)
            else:
                assert self.parted, "everybody waits for nothing"
                self.close(0)
        assert not self.waiting
        self.lanes.end(REFUSED)
        while self.parted:
            self.close(0)
        assert not self.lanes.count
        assert not self.lanes.lanes
        assert self.lanes.ask("a").error is REFUSED


TestBooks = Books.TestCase


class Plain:
    """Books in which nothing is closed before the test says so."""

    def __init__(self, total: int, each: int) -> None:
        self.parted: list[tuple[object, int]] = []
        self.lanes: Lanes[int] = Lanes(total, each, self.part)
        self.numbers = itertools.count(1)
        self.last: Lane[int]

    def part(self, lane: Lane[int], session: int) -> None:
        self.parted.append((lane.key, session))
        self.last = lane

    def opened(self, ticket: Ticket[int]) -> int:
        assert ticket.granted
        assert ticket.session is None
        self.lanes.opened(ticket.lane)
        return next(self.numbers)


def test_one_goes_first_and_the_others_wait_for_what_becomes_of_it() -> None:
    books = Plain(10, 3)
    tickets = [books.lanes.ask("a") for _ in range(5)]
    assert [ticket.granted for ticket in tickets] == [True, False, False, False, False]
    books.opened(tickets[0])
    assert [ticket.granted for ticket in tickets] == [True, True, True, False, False]


def test_one_failure_is_for_all_who_wait_for_that_destination() -> None:
    books = Plain(10, 3)
    first, *others = [books.lanes.ask("a") for _ in range(5)]
    elsewhere = books.lanes.ask("b")
    assert books.lanes.unopened(first.lane, REFUSED) is False
    assert all(ticket.error is REFUSED for ticket in others)
    assert elsewhere.granted
    assert books.lanes.ask("a").granted  # who comes later tries again


def test_a_server_that_wants_no_more_is_asked_for_more_one_by_one() -> None:
    books = Plain(10, 5)
    tickets = [books.lanes.ask("a") for _ in range(9)]
    one = books.opened(tickets[0])
    lane = tickets[0].lane
    for _ in range(4):
        assert books.lanes.unopened(lane, REFUSED) is True
    assert not any(ticket.error for ticket in tickets)
    assert lane.count == lane.most == 1
    assert not books.lanes.ask("a").granted
    books.lanes.retire(lane, one)
    books.lanes.closed(lane)
    assert lane.opening == 1
    books.lanes.opened(lane)
    assert (lane.most, lane.opening) == (2, 1)


def test_who_is_dealt_a_place_is_who_has_least() -> None:
    books = Plain(4, 4)
    tickets = [books.lanes.ask("a") for _ in range(9)]
    sessions = [books.opened(ticket) for ticket in tickets[:4]]
    lane = tickets[0].lane
    waiting = [books.lanes.ask("b") for _ in range(3)]
    books.lanes.put_back(lane, sessions[0])
    assert books.parted == [("a", sessions[0])]  # given up, though others wait in its own lane
    books.lanes.put_back(lane, sessions[1])  # but one for one
    assert tickets[4].session == sessions[1]
    books.lanes.closed(lane)
    books.opened(waiting[0])
    books.lanes.put_back(lane, sessions[2])
    books.lanes.closed(lane)
    assert waiting[1].granted
    books.opened(waiting[1])
    books.lanes.put_back(lane, sessions[3])  # two and two: nobody has too much
    assert tickets[5].session == sessions[3]


def test_the_one_idle_for_longest_makes_room_and_the_last_used_is_used() -> None:
    books = Plain(3, 2)
    a, b = books.lanes.ask("a"), books.lanes.ask("b")
    x, y = books.opened(a), books.opened(b)
    z = books.opened(books.lanes.ask("a"))
    books.lanes.put_back(b.lane, y)
    books.lanes.put_back(a.lane, x)
    books.lanes.put_back(a.lane, z)
    assert books.lanes.ask("a").session == z
    c = books.lanes.ask("c")
    assert books.parted == [("b", y)]
    assert not c.granted
    books.lanes.closed(books.last)
    assert c.granted


def test_a_place_may_rotate_where_there_are_fewer_than_destinations() -> None:
    books = Plain(1, 1)
    order: list[object] = []
    tickets = [books.lanes.ask(key) for key in "aaabbb"]
    left = list(tickets)
    while left:
        (ticket,) = [each for each in left if each.granted]
        left.remove(ticket)
        order.append(ticket.lane.key)
        session = books.opened(ticket) if ticket.session is None else ticket.session
        books.lanes.put_back(ticket.lane, session)
        if ticket.lane.closing:
            books.lanes.closed(ticket.lane)
    assert order == list("ababab")


def test_connections_go_round_in_the_order_of_asking() -> None:
    books = Plain(1, 1)
    tickets = [books.lanes.ask("a") for _ in range(5)]
    session = books.opened(tickets[0])
    before = books.lanes.ask("a", first=True)
    for ticket in [before, *tickets[1:]]:
        assert not ticket.granted
        books.lanes.put_back(ticket.lane, session)
        assert ticket.session == session


@pytest.mark.parametrize("taken", [False, True])
def test_what_is_withdrawn_is_for_the_next(taken: bool) -> None:
    books = Plain(1, 1)
    first, second, third = (books.lanes.ask("a") for _ in range(3))
    if taken:
        session = books.opened(first)
        books.lanes.put_back(first.lane, session)
        assert second.session == session
        books.lanes.withdraw(second)
        assert third.session == session
    else:
        books.lanes.withdraw(second)
        books.lanes.withdraw(first)
        assert third.granted
