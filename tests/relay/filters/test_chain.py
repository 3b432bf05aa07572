"""Filters in their order: who is asked, what follows, and what the message says of it."""

from collections.abc import Collection
from email.parser import BytesParser
from email.policy import default

import anyio
import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.core.command import Rcpt
from smtpproto.core.reply import Reply
from smtpproto.relay.filters import (
    Accept,
    Answer,
    Chain,
    Finding,
    Quarantine,
    Refuse,
    Seen,
    Stage,
    Tag,
)
from smtpproto.relay.filters.chain import words_of
from tests.relay.filters.seen import seen

pytestmark = pytest.mark.anyio

NO = Refuse(Reply(550, "5.7.1", "No"))
LATER = Refuse(Reply(450, "4.7.1", "Not now"))


@define
class Says:
    """A filter that gives one answer after another, the last again and again."""

    name: str
    answers: list[Answer | Exception | None]
    stages: Collection[Stage] = (Stage.MAIL,)
    asked: list[Stage] = field(factory=list[Stage])

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        self.asked.append(stage)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def chain(*filters: Says, **settings: object) -> Chain:
    return Chain(filters, hostname="mx.our.dom", **settings)  # type: ignore[arg-type]  # the test's


@pytest.mark.parametrize("refusal", [NO, LATER])
async def test_the_first_who_refuses_has_the_last_word(refusal: Refuse) -> None:
    first, second, third = Says("a", [None]), Says("b", [refusal]), Says("c", [NO])
    no = await chain(first, second, third).judge(Stage.MAIL, seen())
    assert no is not None
    assert (no.reply, no.finding.filter) == (refusal.reply, "b")
    assert (first.asked, second.asked, third.asked) == ([Stage.MAIL], [Stage.MAIL], [])


async def test_who_is_asked_has_said_when() -> None:
    helo, rcpt = Says("a", [NO], [Stage.HELO]), Says("b", [None], [Stage.RCPT])
    both = chain(helo, rcpt)
    assert await both.judge(Stage.MAIL, seen()) is None
    assert await both.judge(Stage.RCPT, seen()) is None
    assert (helo.asked, rcpt.asked) == ([], [Stage.RCPT])
    assert [both.wants(stage) for stage in (Stage.HELO, Stage.CONTENT)] == [True, False]


@pytest.mark.parametrize(
    ("accepted", "spared"),
    [
        (Stage.CONNECT, {Stage.HELO, Stage.MAIL, Stage.RCPT, Stage.CONTENT}),
        (Stage.HELO, {Stage.MAIL, Stage.RCPT, Stage.CONTENT}),
        (Stage.MAIL, {Stage.RCPT, Stage.CONTENT}),
        (Stage.RCPT, set()),
        (Stage.CONTENT, set()),
    ],
)
async def test_who_is_accepted_is_spared_what_follows(accepted: Stage, spared: set[Stage]) -> None:
    behind = Says("strict", [NO], list(Stage))
    both = chain(Says("friends", [Accept("known")], [accepted]), behind)
    looked = seen()
    refused = {stage for stage in Stage if await both.judge(stage, looked) is not None}
    assert refused == set(Stage) - {accepted} - spared


async def test_what_holds_for_the_session_holds_for_its_next_message() -> None:
    at_helo = Says("names", [Tag("odd name")], [Stage.HELO])
    at_mail = Says("senders", [Tag("odd sender"), None], [Stage.MAIL])
    both, looked = chain(at_helo, at_mail), seen()
    for stage in (Stage.CONNECT, Stage.HELO, Stage.MAIL):
        await both.judge(stage, looked)
    assert [words_of(f) for f in looked.findings] == [
        "names=tag (odd name)",
        "senders=tag (odd sender)",
    ]
    await both.judge(Stage.MAIL, looked)
    assert [words_of(f) for f in looked.findings] == ["names=tag (odd name)", "senders=pass"]
    await both.judge(Stage.HELO, looked)
    assert [words_of(f) for f in looked.findings] == ["names=tag (odd name)"]


@pytest.mark.parametrize(("failing", "code"), [("pass", None), ("defer", 451)])
async def test_a_filter_that_fails_is_passed_by_or_defers(failing: str, code: int | None) -> None:
    behind, looked = Says("b", [None]), seen()
    no = await chain(Says("a", [OSError("no line")]), behind, failing=failing).judge(
        Stage.MAIL, looked
    )
    assert (no and no.reply.code) == code
    assert (
        words_of(looked.findings[0] if no is None else no.finding) == "a=error (OSError: no line)"
    )
    assert behind.asked == ([Stage.MAIL] if code is None else [])


async def test_a_filter_that_is_too_slow_has_failed() -> None:
    class Slow(Says):
        async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
            await anyio.sleep_forever()
            return None

    looked = seen()
    assert await chain(Slow("slow", []), seconds=0.01).judge(Stage.MAIL, looked) is None
    assert [words_of(f) for f in looked.findings] == ["slow=error (it took too long)"]


async def test_all_filters_of_a_stage_together_have_so_long_and_no_longer() -> None:
    class Slow(Says):
        async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
            self.asked.append(stage)
            await anyio.sleep_forever()
            return None

    class Failing(Says):
        async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
            await anyio.lowlevel.checkpoint()
            return None

    some, looked = [Slow(str(number), []) for number in range(3)], seen()
    await chain(*some, Failing("late", []), altogether=0.01).judge(Stage.MAIL, looked)
    assert [words_of(f) for f in looked.findings] == [
        f"{name}=error (it took too long)" for name in ("0", "1", "2", "late")
    ]


@pytest.mark.parametrize("answer", [Tag("odd"), Quarantine("odd")])
async def test_nothing_comes_of_a_recipient_who_is_refused(answer: Answer) -> None:
    first, second = Says("a", [None, answer, None]), Says("b", [None, NO, None])
    for each in (first, second):
        each.stages = (Stage.RCPT,)
    both, looked = chain(first, second), seen()
    refused = [await both.judge(Stage.RCPT, looked) is not None for _ in range(3)]
    assert refused == [False, True, False]
    assert [words_of(f) for f in looked.findings] == ["a=pass", "b=pass"]
    assert both.outcome(looked).quarantine is None


async def test_however_much_was_found_what_is_to_be_held_is_held() -> None:
    number = 0

    class Wordy(Says):
        async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
            nonlocal number
            number += 1
            return Tag(f"number {number}")

    both, looked = (
        chain(Wordy("w", [], [Stage.RCPT]), Says("q", [Quarantine("a virus")], [Stage.CONTENT])),
        seen(),
    )
    for _ in range(100):
        await both.judge(Stage.RCPT, looked)
    assert len(looked.findings) == 50
    await both.judge(Stage.CONTENT, looked)
    assert both.outcome(looked).quarantine == "q: a virus"


@pytest.mark.rfc("5322 §2.2")
@pytest.mark.parametrize("name", ["", "X Odd", "X:", "X\r\nY", "Ü"])
def test_a_tag_has_fields_that_can_be(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a field"):
        Tag("odd", ((name, "yes"),))


async def test_the_message_says_what_was_found() -> None:
    tagging = chain(
        Says("first", [None]),
        Says("second", [Tag("looks odd", (("X-Odd", "yes"),))]),
        Says("third", [Quarantine("a virus (of old)")]),
    )
    looked = seen()
    assert await tagging.judge(Stage.MAIL, looked) is None
    outcome = tagging.outcome(looked)
    assert outcome.quarantine == "third: a virus (of old)"
    assert outcome.fields == (
        b"X-Filtered: mx.our.dom; first=pass; second=tag (looks odd);\r\n"
        b" third=quarantine (a virus [of old])\r\n"
        b"X-Odd: yes\r\n"
    )


async def test_without_filters_nothing_is_written() -> None:
    looked = seen()
    assert await chain().judge(Stage.MAIL, looked) is None
    assert (chain().outcome(looked).fields, chain().outcome(looked).quarantine) == (b"", None)


async def test_a_thousand_recipients_leave_what_one_leaves() -> None:
    one, looked = chain(Says("grey", [None], [Stage.RCPT])), seen()
    for number in range(1000):
        looked.rcpt = Rcpt(f"r{number}@our.dom")
        await one.judge(Stage.RCPT, looked)
    assert len(looked.findings) == 1


async def test_no_objection_at_several_stages_is_told_once_where_it_was_asked_last() -> None:
    stages = (Stage.MAIL, Stage.RCPT, Stage.CONTENT)
    often = Says("limits", [None], stages)
    failing = Says("b", [None, OSError("no line"), None], stages)
    both, looked = chain(often, failing), seen()
    for stage in stages:
        await both.judge(stage, looked)
    assert [(words_of(f), f.stage) for f in looked.findings] == [
        ("b=error (OSError: no line)", Stage.RCPT),
        ("limits=pass", Stage.CONTENT),
        ("b=pass", Stage.CONTENT),
    ]
    tagging = chain(Says("a", [Tag("odd"), None, None], stages), often)
    for stage in stages:
        await tagging.judge(stage, looked)
    assert [words_of(f) for f in looked.findings] == ["a=tag (odd)", "a=pass", "limits=pass"]


async def test_a_client_cannot_make_findings_grow_for_ever() -> None:
    class Chatty(Says):
        async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
            return Tag(str(seen.rcpt))

    one, looked = chain(Chatty("chatty", [], [Stage.RCPT])), seen()
    for number in range(1000):
        looked.rcpt = Rcpt(f"r{number}@our.dom")
        await one.judge(Stage.RCPT, looked)
    assert len(looked.findings) == 50
    assert len(one.outcome(looked).fields) < 20_000


async def test_no_number_of_recipients_crowds_out_what_the_content_has_earned() -> None:
    class Chatty(Says):
        async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
            return Tag(str(seen.rcpt))

    spam = Tag("spam", (("X-Spam", "yes"),))
    virus = Says("virus", [Quarantine("a virus")], [Stage.CONTENT])
    one = chain(Chatty("chatty", [], [Stage.RCPT]), Says("rspamd", [spam], [Stage.CONTENT]), virus)
    looked = seen()
    for number in range(100):
        looked.rcpt = Rcpt(f"r{number}@our.dom")
        await one.judge(Stage.RCPT, looked)
    await one.judge(Stage.CONTENT, looked)
    outcome = one.outcome(looked)
    assert outcome.quarantine == "virus: a virus"
    assert b"X-Spam: yes" in outcome.fields


async def test_a_recipient_that_is_refused_leaves_no_mark_on_the_message() -> None:
    one, looked = chain(Says("grey", [LATER, None], [Stage.RCPT])), seen()
    await one.judge(Stage.RCPT, looked)
    await one.judge(Stage.RCPT, looked)
    assert [words_of(f) for f in looked.findings] == ["grey=pass"]


@given(st.lists(st.text(max_size=300), max_size=6), st.text(max_size=50))
def test_whatever_a_peer_says_stays_within_our_fields(reasons: list[str], value: str) -> None:
    looked = seen()
    looked.findings = tuple(
        Finding("f", Stage.MAIL, Tag(reason, (("X-Said", value),))) for reason in reasons
    )
    fields = chain().outcome(looked).fields
    message = BytesParser(policy=default).parsebytes(fields + b"\r\nbody\r\n")
    assert set(message.keys()) == ({"X-Filtered", "X-Said"} if reasons else set())
    assert message.get_content() == "body\r\n"
    assert all(len(line) <= 998 for line in fields.split(b"\r\n"))
