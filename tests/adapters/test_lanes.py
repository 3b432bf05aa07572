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

    @initialize(total=st.integers(1, 8), each=st.integers(1, 3))
    def begin(self, total: int, each: int) -> None:
        self.numbers = itertools.count()
        self.lanes = Lanes(total, each, self.open_one, self.part)
        self.waiting: list[Ticket[int]] = []
        #: With what was known of it when it began.
        self.opening: list[tuple[Lane[int], int]] = []
        self.answered: dict[object, bool] = {}
        self.in_use: dict[int, Lane[int]] = {}
        self.parted: list[Lane[int]] = []
        self.closed: set[int] = set()

    def open_one(self, lane: Lane[int]) -> None:
        self.opening.append((lane, self.kind(lane)))

    def kind(self, lane: Lane[int]) -> int:
        if lane.alive:
            return 0
        return {True: 1, None: 2, False: 3}[self.answered.get(lane.key)]

    def may_open(self, kinds: list[int]) -> bool:
        """Tell whether first connections to these may open side by side: by eighths, rounded up."""
        return all(
            8 * sum(each >= worse for each in kinds) < self.lanes.total * eighths + 8
            for worse, eighths in {1: 7, 2: 6, 3: 4}.items()
        )

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

    @rule(key=st.sampled_from("abcdefgh"), first=st.booleans())
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

    @rule(which=st.integers(0, 20), well=st.booleans())
    def open(self, which: int, well: bool) -> None:
        if not self.opening:
            return
        lane, _ = self.opening.pop(which % len(self.opening))
        waiting = list(lane.waiting)
        self.answered[lane.key] = well or lane.alive > 0
        if well:
            number = next(self.numbers)
            self.lanes.opened(lane, number)
            assert not waiting or waiting[0].session == number
        else:
            hopeless = not lane.alive and lane.opening == 1
            self.lanes.unopened(lane, REFUSED)
            assert all((ticket.error is REFUSED) is hopeless for ticket in waiting)
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
            lane.key
            for lane in [*self.in_use.values(), *(lane for lane, _ in self.opening), *self.parted]
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
        # Those of whom least is known would be the first to open, as far as they may.
        kinds, more = [kind for _, kind in self.opening], 0
        for kind in sorted(map(self.kind, wanting), reverse=True):
            if self.may_open([*kinds, kind]):
                kinds.append(kind)
                more += 1
        if more:
            assert lanes.count == lanes.total
            # Connections that nobody uses make room, a place for each lane that may open one.
            assert not lanes.idle or lanes.closing >= more

    @invariant()
    def who_may_not_live_leaves_room_for_those_that_do(self) -> None:
        assert self.may_open([kind for _, kind in self.opening])

    def teardown(self) -> None:
        """If from now on all goes well, everybody gets what they wait for."""
        if not hasattr(self, "waiting"):
            return
        for _ in range(1000):
            if not (self.waiting or self.opening or self.in_use or self.parted):
                break
            if self.opening:
                self.open(0, True)
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
        self.opening: list[Lane[int]] = []
        self.parted: list[tuple[object, int]] = []
        self.lanes: Lanes[int] = Lanes(total, each, self.opening.append, self.part)
        self.numbers = itertools.count(1)
        self.last: Lane[int]

    def part(self, lane: Lane[int], session: int) -> None:
        self.parted.append((lane.key, session))
        self.last = lane

    def opened(self) -> int:
        """The opening that was begun first has come to its end, and a good one."""
        session = next(self.numbers)
        self.lanes.opened(self.opening.pop(0), session)
        return session

    def refused(self) -> None:
        self.lanes.unopened(self.opening.pop(0), REFUSED)

    def answer(self, *keys: object) -> None:
        """Have these answered once, and nothing left of that."""
        for key in keys:
            ticket = self.lanes.ask(key)
            self.lanes.retire(ticket.lane, self.opened())
            self.lanes.closed(ticket.lane)
        self.parted.clear()

    def fail(self, *keys: object) -> None:
        """Have these failed once."""
        for key in keys:
            self.lanes.ask(key)
            self.refused()

    @property
    def tried(self) -> str:
        """What is opening now."""
        return "".join(str(lane.key) for lane in self.opening)


def served(*tickets: Ticket[int]) -> list[int | None]:
    return [ticket.session for ticket in tickets]


def test_one_goes_first_and_the_others_wait_for_what_becomes_of_it() -> None:
    books = Plain(10, 3)
    tickets = [books.lanes.ask("a") for _ in range(5)]
    assert len(books.opening) == 1
    books.opened()
    assert len(books.opening) == 2
    assert served(*tickets) == [1, None, None, None, None]


def test_who_waits_longest_gets_what_is_free_first() -> None:
    """Be it another's connection, while the one that was begun for it is still opening."""
    books = Plain(10, 3)
    first, second, third = (books.lanes.ask("a") for _ in range(3))
    books.opened()
    assert len(books.opening) == 2
    books.lanes.put_back(first.lane, 1)
    assert served(second, third) == [1, None]
    books.opened()
    assert served(second, third) == [1, 2]
    books.opened()
    assert books.lanes.idle == {3: first.lane}


def test_no_more_are_opened_than_are_waited_for() -> None:
    books = Plain(10, 5)
    books.lanes.ask("a")
    books.opened()
    tickets = [books.lanes.ask("a") for _ in range(2)]
    assert len(books.opening) == 2
    for ticket in tickets:
        books.lanes.withdraw(ticket)
    books.lanes.ask("a")
    assert len(books.opening) == 2


def test_one_failure_is_for_all_who_wait_for_that_destination() -> None:
    books = Plain(10, 3)
    tickets = [books.lanes.ask("a") for _ in range(5)]
    elsewhere = books.lanes.ask("b")
    books.refused()
    assert all(ticket.error is REFUSED for ticket in tickets)
    books.opened()
    assert elsewhere.session == 1
    books.lanes.ask("a")  # who comes later tries again
    assert len(books.opening) == 1


def test_a_failure_tells_nobody_while_another_attempt_is_under_way() -> None:
    books = Plain(10, 3)
    first = books.lanes.ask("a")
    books.opened()
    waiting = [books.lanes.ask("a") for _ in range(2)]
    books.lanes.retire(first.lane, 1)
    books.lanes.closed(first.lane)
    assert (first.lane.alive, first.lane.opening) == (0, 2)
    books.refused()
    assert not any(ticket.settled for ticket in waiting)
    books.refused()
    assert all(ticket.error is REFUSED for ticket in waiting)


def test_a_server_that_wants_no_more_is_asked_for_more_one_by_one() -> None:
    books = Plain(10, 5)
    tickets = [books.lanes.ask("a") for _ in range(9)]
    one = books.opened()
    lane = tickets[0].lane
    assert lane.opening == 4
    for _ in range(4):
        books.refused()
    assert not any(ticket.error for ticket in tickets)
    assert lane.count == lane.most == 1
    books.lanes.retire(lane, one)
    books.lanes.closed(lane)
    assert lane.opening == 1
    books.opened()
    assert (lane.most, lane.opening) == (2, 1)


def test_who_is_dealt_a_place_is_who_has_least() -> None:
    books = Plain(4, 4)
    tickets = [books.lanes.ask("a") for _ in range(9)]
    one, two, three, four = (books.opened() for _ in range(4))
    lane = tickets[0].lane
    waiting = [books.lanes.ask("b") for _ in range(3)]
    books.lanes.put_back(lane, one)
    assert books.parted == [("a", one)]  # given up, though others wait in its own lane
    books.lanes.put_back(lane, two)  # but one for one
    assert served(*tickets[4:6]) == [two, None]
    books.lanes.closed(lane)
    books.opened()
    books.lanes.put_back(lane, three)
    books.lanes.closed(lane)
    books.opened()
    assert all(served(*waiting[:2]))
    books.lanes.put_back(lane, four)  # two and two: nobody has too much
    assert served(*tickets[4:7]) == [two, four, None]


def test_the_one_idle_for_longest_makes_room_and_the_last_used_is_used() -> None:
    books = Plain(3, 2)
    a, b = books.lanes.ask("a"), books.lanes.ask("b")
    x, y = books.opened(), books.opened()
    books.lanes.ask("a")
    z = books.opened()
    books.lanes.put_back(b.lane, y)
    books.lanes.put_back(a.lane, x)
    books.lanes.put_back(a.lane, z)
    assert books.lanes.ask("a").session == z
    books.lanes.ask("c")
    assert books.parted == [("b", y)]
    assert not books.opening
    books.lanes.closed(books.last)
    assert [lane.key for lane in books.opening] == ["c"]


def test_a_place_may_rotate_where_there_are_fewer_than_destinations() -> None:
    """And each connection carries a message before it is given up."""
    books = Plain(1, 1)
    order: list[object] = []
    left = [books.lanes.ask(key) for key in "aaabbb"]
    while left:
        if books.opening:
            books.opened()
        (ticket,) = [each for each in left if each.session]
        left.remove(ticket)
        order.append(ticket.lane.key)
        assert ticket.session
        books.lanes.put_back(ticket.lane, ticket.session)
        if ticket.lane.closing:
            books.lanes.closed(ticket.lane)
    assert order == list("ababab")


def test_connections_go_round_in_the_order_of_asking() -> None:
    books = Plain(1, 1)
    tickets = [books.lanes.ask("a") for _ in range(5)]
    session = books.opened()
    before = books.lanes.ask("a", first=True)
    for ticket in [before, *tickets[1:]]:
        assert not ticket.settled
        books.lanes.put_back(ticket.lane, session)
        assert ticket.session == session


def test_what_comes_back_when_all_is_over_is_closed() -> None:
    books = Plain(1, 1)
    ticket = books.lanes.ask("a")
    session = books.opened()
    books.lanes.end(REFUSED)
    assert not books.parted
    books.lanes.put_back(ticket.lane, session)
    assert books.parted == [("a", session)]


def test_what_opens_when_all_is_over_is_closed() -> None:
    books = Plain(1, 1)
    ticket = books.lanes.ask("a")
    books.lanes.end(REFUSED)
    assert ticket.error is REFUSED
    session = books.opened()
    assert books.parted == [("a", session)]


@pytest.mark.parametrize("taken", [False, True])
def test_what_is_withdrawn_is_for_the_next(taken: bool) -> None:
    books = Plain(1, 1)
    first, second, third = (books.lanes.ask("a") for _ in range(3))
    session = books.opened()
    if taken:
        books.lanes.put_back(first.lane, session)
        assert second.session == session
    books.lanes.withdraw(second)
    if not taken:
        books.lanes.withdraw(first)
    assert third.session == session


# Who may not live


def test_a_hundred_that_never_answer_leave_room_to_those_that_did() -> None:
    books = Plain(100, 20)
    books.answer("alive")
    for number in range(100):
        books.lanes.ask(number)
    assert len(books.opening) == 75
    ticket = books.lanes.ask("alive")
    assert books.opening.pop().key == "alive"
    books.lanes.opened(ticket.lane, 1000)
    assert ticket.session == 1000
    # And where a connection is open, there may be as many as for anybody else.
    for _ in range(30):
        books.lanes.ask("alive")
    assert (ticket.lane.count, books.lanes.count) == (20, 95)


def test_what_failed_leaves_room_to_what_is_new_and_that_to_what_answered() -> None:
    books = Plain(8, 2)
    books.answer(*"abcdefgh")
    books.fail(*"ABCDEFGH")
    for key in "ABCDEFGH01234567abcdefgh":
        books.lanes.ask(key)
    assert books.tried == "ABCD01a"  # one of eight places is for those that are open
    # What has failed again comes back behind the others.
    books.refused()
    assert books.tried == "BCD01aE"
    books.lanes.ask("A")
    books.refused()
    assert books.tried == "CD01aEF"
    # Who has answered leaves room to who has not, and may have another.
    books.opened()
    assert books.tried == "D01aEFG"
    for _ in range(2):
        books.lanes.ask("C")
    assert books.tried == "D01aEFG"
    assert books.lanes.count == 8


def test_one_that_is_open_has_the_last_place() -> None:
    books = Plain(8, 2)
    books.answer("z", *"abcdefgh")
    first = books.lanes.ask("z")
    books.opened()
    for key in "abcdefgh":
        books.lanes.ask(key)
    assert books.tried == "abcdefg"
    second = books.lanes.ask("z")
    assert not second.settled
    books.lanes.put_back(first.lane, first.session or 0)
    assert second.session == first.session


@pytest.mark.parametrize(
    ("total", "tried"), [(1, "0"), (2, "01"), (3, "012"), (4, "012"), (8, "012345")]
)
def test_of_few_places_the_new_may_have_all(total: int, tried: str) -> None:
    books = Plain(total, 1)
    for key in "01234567":
        books.lanes.ask(key)
    assert books.tried == tried


def test_nothing_is_closed_for_those_who_may_not_have_its_place() -> None:
    books = Plain(4, 1)
    books.fail(*"01234")
    a, b = books.lanes.ask("a"), books.lanes.ask("b")
    books.lanes.put_back(a.lane, books.opened())
    books.lanes.put_back(b.lane, books.opened())
    for key in "01234":
        books.lanes.ask(key)
    assert books.tried == "01"
    assert not books.parted
    b = books.lanes.ask("b")
    books.lanes.put_back(b.lane, b.session or 0)
    assert not books.parted
    books.lanes.ask("a")
    books.opened()  # who has answered leaves room, and a connection is closed for the next
    assert [key for key, _ in books.parted] == ["b"]


def test_who_is_in_nobody_s_memory_any_more_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpproto.lanes.MEMORY", 2)
    books = Plain(4, 1)
    books.answer("b", "a", "b", "c")  # a is the one that was tried longest ago
    for key in "012abc":
        books.lanes.ask(key)
    assert books.tried == "012b"
    assert len(books.lanes._answered) == 2
