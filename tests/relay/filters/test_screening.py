"""A relay behind filters: what they say is answered, written into the message, and told."""

from collections.abc import Collection
from io import BytesIO
from pathlib import Path

import pytest
from attrs import define, field

from smtpproto.core.reply import Reply
from smtpproto.relay.filters import (
    Accept,
    Answer,
    Filter,
    Greylist,
    HeaderSanity,
    Limit,
    Quarantine,
    RateLimits,
    Refuse,
    Seen,
    SQLiteMemory,
    Stage,
    Tag,
)
from smtpproto.relay.mailboxes.mailbox import listed_mailboxes
from smtpproto.relay.reports.story import Accepted, Delivered, Held, Judged, Refused
from tests.relay.world import LOGIN, MESSAGE, Node, World, world

pytestmark = pytest.mark.anyio


@define
class At:
    """A filter that gives one answer at one stage, and remembers whom it saw there."""

    stage: Stage
    answer: Answer | None = None
    name: str = "test"
    seen: list[str] = field(factory=list[str])

    @property
    def stages(self) -> Collection[Stage]:
        return [self.stage]

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        rcpt = "" if seen.rcpt is None else str(seen.rcpt.forward_path)
        octets = "" if seen.content is None else str(seen.content.octets)
        trust = " trusted" if seen.trusted else ""
        self.seen.append(
            f"{seen.helo} {seen.mail and seen.mail.reverse_path} {rcpt}{octets}{trust}"
        )
        return self.answer


def no(code: int = 550) -> Refuse:
    return Refuse(Reply(code, f"{code // 100}.7.1", "No, thank you"))


async def strangers(w: World, *filters: Filter, **settings: object) -> Node:
    return await w.node("mx.our.dom", networks=(), filters=filters, **settings)  # type: ignore[arg-type]  # settings are many


@pytest.mark.parametrize(
    ("code", "said"), [(550, "554"), (450, "421 mx.our.dom"), (421, "421 mx.our.dom")]
)
async def test_a_client_that_is_refused_gets_no_greeting(
    tmp_path: Path, code: int, said: str
) -> None:
    async with world(tmp_path) as w:
        node = await strangers(w, At(Stage.CONNECT, no(code)))
        async with node.dial() as wire:
            assert await wire.reply() == f"{said} No, thank you"  # no status yet: RFC 2034 §4
        (judged,) = await node.until(Judged)
        words = "refuse" if code == 550 else "defer"
        assert (judged.id, judged.stage) == ("", "connect")
        assert judged.said == f"test={words} (No, thank you)"


async def test_each_stage_is_answered_by_its_filter(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        stages = [Stage.HELO, Stage.MAIL, Stage.RCPT, Stage.CONTENT]
        filters = [At(stage) for stage in stages]
        node = await strangers(w, *filters)
        async with node.dial() as wire:
            await wire.reply()
            filters[0].answer = no()
            assert (await wire.say("EHLO bad.example")).startswith("550 No, thank you")
            filters[0].answer = None
            assert (await wire.say("EHLO good.example")).startswith("250")
            filters[1].answer = no(451)
            assert (await wire.say("MAIL FROM:<a@ext.example>")).startswith("451 4.7.1")
            filters[1].answer = None
            assert (await wire.say("MAIL FROM:<a@ext.example>")).startswith("250")
            filters[2].answer = no(450)
            assert (await wire.say("RCPT TO:<ann@our.dom>")).startswith("450 4.7.1")
            filters[2].answer = None
            assert (await wire.say("RCPT TO:<bob@our.dom>")).startswith("250")
            filters[3].answer = no(554)
            assert (await wire.say("DATA")).startswith("354")
            said = await wire.say(MESSAGE + b".")
        assert node.told(Accepted) == []
        assert await node.queue() == []
        assert filters[2].seen == [
            "good.example <a@ext.example> <ann@our.dom>",
            "good.example <a@ext.example> <bob@our.dom>",
        ]
        assert filters[3].seen == [f"good.example <a@ext.example> {len(MESSAGE) - 1}"]
        *_, judged = node.told(Judged)
        assert judged.id
        assert judged.said == "test=refuse (No, thank you)"
        (refused,) = node.told(Refused)  # by its id there is a story to be told
        assert said == refused.reply == f"554 5.7.1 No, thank you ({judged.id})"
        assert refused.id == judged.id
        assert str(refused.reverse_path) == "<a@ext.example>"
        assert [str(path) for path in refused.forward_paths] == ["<bob@our.dom>"]
        assert refused.origin == "127.0.0.1 by ESMTP"


async def test_a_reply_without_room_for_an_id_stays_as_it_is(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        long = Refuse(Reply(554, "5.7.1", ["one", "x" * 480]))
        node = await strangers(w, At(Stage.CONTENT, long))
        (outcome,) = (await node.send("ann@ext.example", ["bob@our.dom"])).outcomes
        assert outcome.reply == long.reply


async def test_no_filter_learns_of_recipients_that_are_not_ours(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one = At(Stage.RCPT)
        node = await strangers(w, one, policy=listed_mailboxes(["bob"]))
        async with node.dial() as wire:
            await wire.hello()
            await wire.say("MAIL FROM:<a@ext.example>")
            assert (await wire.say("RCPT TO:<x@else.example>")).startswith("550 5.7.1")
            assert (await wire.say("RCPT TO:<nobody@our.dom>")).startswith("550 5.1.1")
            assert (await wire.say("RCPT TO:<bob@our.dom>")).startswith("250")
        assert one.seen == ["client.example <a@ext.example> <bob@our.dom>"]


async def test_what_was_found_stands_in_the_message_below_our_trace(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        tag = Tag("an odd one", (("X-Odd", "yes"),))
        node = await strangers(w, At(Stage.MAIL, tag, "sender"), At(Stage.CONTENT, None, "body"))
        await node.send("ann@ext.example", ["bob@our.dom"])
        await node.until(Delivered)
        (mail,) = node.mail("bob@our.dom")
        head, _, body = mail.partition(b"X-Filtered: ")
        assert head.startswith(b"Return-Path: <ann@ext.example>\nReceived: from client.example")
        found = b"mx.our.dom; sender=tag (an odd one); body=pass\nX-Odd: yes\n"
        assert body == found + MESSAGE.replace(b"\r\n", b"\n")
        assert [(event.id, event.said) for event in node.told(Judged)] == [
            (node.told(Accepted)[0].id, "sender=tag (an odd one)"),
            (node.told(Accepted)[0].id, "body=pass"),
        ]


async def test_what_is_quarantined_is_accepted_and_waits_for_the_operator(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        node = await strangers(w, At(Stage.CONTENT, Quarantine("a virus")))
        result = await node.send("ann@ext.example", ["bob@our.dom", "eve@our.dom"])
        assert all(outcome.reply and outcome.reply.code == 250 for outcome in result.outcomes)
        held = await node.until(Held, 2)
        assert {(str(event.forward_path), event.reason) for event in held} == {
            ("<bob@our.dom>", "test: a virus"),
            ("<eve@our.dom>", "test: a virus"),
        }
        story = [type(event) for event in node.events]
        assert story == [Accepted, Judged, Held, Held]  # in the order in which it can be told
        (entry,) = await node.queue()
        w.move(30 * 86400)
        assert await node.spool.retry(None, w.now) == 0
        assert node.told(Delivered) == []
        assert await node.spool.retry(entry.id, w.now) == 2
        node.relay.dispatcher.wake()
        await node.until(Delivered, 2)
        assert len(node.mail("bob@our.dom")) == 1


async def test_users_pass_the_filters_of_their_own_listener(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one = At(Stage.MAIL, Accept("known"))
        node = await w.node(
            "mx.our.dom", networks=(), filters=[one, HeaderSanity()], kinds=("submission",)
        )
        await node.send("ann@our.dom", ["bob@our.dom"], kind="submission", login=LOGIN)
        await node.until(Delivered)
        assert one.seen == ["client.example <ann@our.dom>  trusted"]
        (mail,) = node.mail("bob@our.dom")
        assert b"test=accept (known)\n" in mail


@pytest.mark.rfc("6647 §5")
async def test_a_greylisted_sender_is_taken_the_second_time(tmp_path: Path) -> None:
    async with world(tmp_path) as w, SQLiteMemory.open(tmp_path / "memory.db") as memory:
        node = await strangers(w, Greylist(memory))
        result = await node.send("ann@ext.example", ["bob@our.dom"])
        assert "450 4.7.1 Greylisted" in str(result.outcomes[0].reply)
        w.move(61)
        await node.send("ann@ext.example", ["bob@our.dom"])
        await node.until(Delivered)


async def test_what_is_over_a_limit_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with world(tmp_path) as w, SQLiteMemory.open(tmp_path / "memory.db") as memory:
        node = await strangers(w, RateLimits([Limit("recipients", "network", 2, 60)], memory))
        to = ["bob@our.dom", "eve@our.dom", "kim@our.dom"]
        result = await node.send("ann@ext.example", to)
        codes = [outcome.reply and outcome.reply.code for outcome in result.outcomes]
        assert codes == [250, 250, 452]
        assert "come again in" in str(result.outcomes[2].reply)


async def test_a_disk_that_cannot_hold_it_defers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smtpproto.relay.filters.held.tempfile.TemporaryFile", full)
    async with world(tmp_path) as w:
        node = await strangers(w, At(Stage.CONTENT))
        content = b"Subject: long\r\n\r\n" + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 5000
        result = await node.send("ann@ext.example", ["bob@our.dom"], content)
        assert str(result.outcomes[0].reply).startswith("451 4.3.0")
        assert await node.queue() == []
        monkeypatch.undo()
        await node.send("ann@ext.example", ["bob@our.dom"], content)
        await node.until(Delivered)
        (mail,) = node.mail("bob@our.dom")
        assert mail.endswith(content.replace(b"\r\n", b"\n"))


async def test_what_is_accepted_stays_so_when_the_copy_cannot_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 451 behind the commit would have the client send it again."""

    class Sticky(BytesIO):
        tried = False

        def close(self) -> None:
            if not self.tried:  # Python closes it once more when it is gone
                self.tried = True
                raise OSError(5, "Input/output error")
            super().close()

    monkeypatch.setattr("smtpproto.relay.filters.held.tempfile.TemporaryFile", Sticky)
    async with world(tmp_path) as w:
        node = await strangers(w, At(Stage.CONTENT))
        content = b"Subject: long\r\n\r\n" + (b"y" * 70 + b"\r\n") * 5000
        result = await node.send("ann@ext.example", ["bob@our.dom"], content)
        assert str(result.outcomes[0].reply).startswith("250")
        await node.until(Delivered)


async def test_who_is_sent_away_at_once_is_forgotten_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await strangers(w, At(Stage.CONNECT, no()))
        for _ in range(3):
            async with node.dial() as wire:
                assert (await wire.reply()).startswith("554")
        (server,) = node.relay._servers
        await node.stop()
        assert server.handler._known == {}  # type: ignore[attr-defined]  # ScreenedIntake's


async def test_a_client_that_has_gone_is_forgotten(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await strangers(w, At(Stage.MAIL))
        for _ in range(3):
            await node.send("ann@ext.example", ["bob@our.dom"])
        await node.until(Delivered, 3)
        (server,) = node.relay._servers
        await node.stop()
        assert server.handler._known == {}  # type: ignore[attr-defined]  # ScreenedIntake's


async def test_without_filters_there_is_nothing_to_ask(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await strangers(w)
        handler = node.relay._servers[0].handler
        assert not any(hasattr(handler, power) for power in ("connect", "helo", "closed"))


FORGED = (
    b"X-Filtered: mx.our.dom;\r\n rspamd=pass\r\nx-odd : no\r\nX-Spam: no\r\nX-Other: stays\r\n"
)


@define
class Telling(At):
    """A filter that tells which fields it may write."""

    fields: tuple[str, ...] = ("X-Spam",)


async def test_what_a_message_says_of_its_own_filters_is_left_out(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        tag = Tag("an odd one", (("X-Odd", "yes"),))
        node = await strangers(w, At(Stage.CONTENT, tag), Telling(Stage.MAIL))
        await node.send("ann@ext.example", ["bob@our.dom"], FORGED + MESSAGE + b"X-Odd: body\r\n")
        await node.until(Delivered)
        (mail,) = node.mail("bob@our.dom")
        _, _, below = mail.partition(b"X-Filtered: mx.our.dom; test=pass; test=tag (an odd one)\n")
        body = MESSAGE.replace(b"\r\n", b"\n") + b"X-Odd: body\n"
        assert below == b"X-Odd: yes\nX-Other: stays\n" + body


@pytest.mark.parametrize("begin", [b" no", b"\tno", b" \r\n no"])
@pytest.mark.parametrize("filtered", [True, False])
async def test_a_message_does_not_go_on_with_a_field_of_ours(
    tmp_path: Path, begin: bytes, filtered: bool
) -> None:
    # A first line that is folded would belong to the last field that we wrote (RFC 5322 §2.2.3).
    async with world(tmp_path) as w:
        tag = Tag("spam", (("X-Spam", "yes"),))
        node = await strangers(w, *([At(Stage.CONTENT, tag)] if filtered else []))
        await node.send("ann@ext.example", ["bob@our.dom"], begin + b"\r\n" + MESSAGE)
        await node.until(Delivered)
        (mail,) = node.mail("bob@our.dom")
        head, _, body = mail.partition(b"\n\n")
        assert head.endswith(b"\nX-Spam: yes") == filtered
        assert body == (begin + b"\r\n" + MESSAGE).replace(b"\r\n", b"\n")


async def test_without_filters_a_message_stays_as_it_came(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await strangers(w)
        await node.send("ann@ext.example", ["bob@our.dom"], FORGED + MESSAGE)
        await node.until(Delivered)
        (mail,) = node.mail("bob@our.dom")
        assert FORGED.replace(b"\r\n", b"\n") in mail
