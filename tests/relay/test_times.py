"""By when a message is wanted (RFC 2852), and from when on it may be sent (RFC 4865)."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from smtpproto.client import Client, Tls
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.extensions.deliverby import ByMode
from smtpproto.extensions.futurerelease import Horizon
from smtpproto.relay import AliasTable, OnHold, RouteTable, Rule, Schedule
from smtpproto.relay.delivery.times import Deadline, Times, deadline, release_time
from smtpproto.relay.reports.story import Accepted, Deferred, Delivered, Failed, Held, Reported
from smtpproto.relay.spool.seam import Entry
from smtpproto.result import Result
from tests.relay.test_dsn import reports
from tests.relay.world import DAY, LOGIN, MESSAGE, START, Host, Node, World, world

SENDER = "ann@our.dom"
TO = "v@ext.example"
BUSY = {"RCPT": "450 4.2.1 busy"}


async def hand_over(
    node: Node,
    asked: dict[str, str],
    *,
    to: str = TO,
    of_it: dict[str, str] | None = None,
    submission: bool = False,
) -> Result:
    """Submit a message that asks for this with MAIL, and for that with RCPT."""
    port = node.ports["submission" if submission else "smtp"]
    async with Client(
        "127.0.0.1",
        port,
        tls=Tls.NONE,
        login=LOGIN if submission else None,
        login_in_clear=True,
        helo_name="client.example",
    ) as client:
        return await client.deliver(Envelope(Mail(SENDER, asked), [Rcpt(to, of_it)]), MESSAGE)


async def busy_host(w: World, *keywords: str) -> Host:
    return await w.host("mx.ext.example", "ext.example", BUSY.copy(), keywords=keywords)


def mails(host: Host) -> list[str]:
    """What was said behind the sender, each time."""
    return [line.partition(">")[2].strip() for line in host.lines if line.startswith("MAIL")]


def entry(asked: dict[str, str], arrived: float = START) -> Entry:
    return Entry("id", arrived, Mail(SENDER, asked), (), 0, "")


# --- the times -----------------------------------------------------------------------------------


@pytest.mark.rfc("2852 §4 deadline-is-reckoned-at-receipt")
def test_the_deadline_is_reckoned_from_when_mail_came() -> None:
    assert deadline(Mail(SENDER, {"BY": "120;RT"}), START) == Deadline(
        START + 120, ByMode.RETURN, trace=True
    )
    assert deadline(Mail(SENDER, {"BY": "-5;n"}), START) == Deadline(
        START - 5, ByMode.NOTIFY, trace=False
    )
    assert deadline(Mail(SENDER, {"BY": "soon"}), START) is None
    assert deadline(Mail(SENDER), START) is None


def test_a_message_is_released_when_its_sender_said() -> None:
    later = datetime.fromtimestamp(START + 60, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert release_time(Mail(SENDER, {"HOLDFOR": "60"}), START) == START + 60
    assert release_time(Mail(SENDER, {"HOLDUNTIL": later}), START) == START + 60
    assert release_time(Mail(SENDER, {"HOLDUNTIL": later}), START + 100) == START + 60
    assert release_time(Mail(SENDER, {"HOLDFOR": "soon"}), START) is None
    assert release_time(Mail(SENDER), START) is None


def test_the_life_of_a_message_begins_when_it_is_released() -> None:
    schedule = Schedule(notice=100, lifetime=1000)
    times = Times.of(entry({"HOLDFOR": "60"}), schedule)
    assert (times.begins, times.late, times.ends) == (START + 60, START + 160, START + 1060)


def test_what_is_late_is_the_senders_to_say() -> None:
    schedule = Schedule(notice=100, lifetime=1000)
    wanted = Times.of(entry({"BY": "50;N"}), schedule)
    assert (wanted.late, wanted.ends) == (START + 50, START + 1000)
    returned = Times.of(entry({"BY": "50;R"}), schedule)
    assert (returned.late, returned.ends) == (START + 100, START + 50)
    assert Times.of(entry({"BY": "5000;R"}), schedule).ends == START + 1000


@pytest.mark.parametrize(
    ("by", "waits"),
    [("60;N", [60, 10, 100]), ("60;R", [60, 10, 0]), ("100;R", [100, 50, 40])],
)
def test_an_attempt_is_due_when_the_time_comes(by: str, waits: list[float]) -> None:
    times = Times.of(entry({"BY": by}))
    assert [times.wait(START + after, 100) for after in (0, 50, 60)] == waits
    assert Times.of(entry({})).wait(START, 100) == 100


# --- DELIVERBY -----------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(("least", "said"), [(None, ""), (240, "240")])
async def test_deliverby_is_offered(tmp_path: Path, least: int | None, said: str) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["smtp", "submission"], least_by=least)
        for port in node.ports.values():
            async with Client("127.0.0.1", port, tls=Tls.NONE, helo_name="c.example") as client:
                assert client.offered["DELIVERBY"] == said
        async with node.dial() as wire:
            await wire.hello()
            reply = await wire.say("MAIL FROM:<ann@our.dom> BY=120;R")
            assert reply[:9] == ("250 2.1.0" if least is None else "555 5.5.4")


@pytest.mark.anyio
async def test_a_stranger_cannot_have_a_report_sent_to_somebody_else_by_it(tmp_path: Path) -> None:
    # BY=1;R, and content that takes two seconds: to the sender in MAIL a failure of our own making.
    async with world(tmp_path) as w:
        node = await w.node("relay.example", networks=())
        async with node.dial() as wire:
            await wire.hello()
            for by in ("1;R", "60;NT", "1;N"):
                reply = await wire.say(f"MAIL FROM:<victim@else.example> BY={by}")
                assert reply.startswith("555 5.5.4")


@pytest.mark.anyio
@pytest.mark.rfc("2852 §4.1.1 in-time-it-is-like-other-mail")
async def test_what_is_delivered_in_time_is_like_other_mail(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        for number, by in enumerate(["60;R", "60;N", "60;RT"], 1):
            assert await hand_over(node, {"BY": by}, to="bob@our.dom")
            await node.until(Delivered, number)
        assert await hand_over(node, {"BY": "60;R"}, to="bob@our.dom", of_it={"NOTIFY": "SUCCESS"})
        ((report, _),) = await reports(node)
        assert report["Subject"] == "Mail was delivered"


@pytest.mark.anyio
@pytest.mark.rfc(
    "2852 §4.1.2 attempts-go-on-before-the-deadline",
    "2852 §4.1.3 mode-r-gives-up-with-5-4-7",
    "2852 §4.1.4 what-is-left-is-passed-on",
)
async def test_in_mode_r_it_is_tried_until_its_time_is_over_and_returned_then(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        host = await busy_host(w, "DELIVERBY")
        node = await w.node("relay.example")
        await hand_over(node, {"BY": "2000;R"})
        (first,) = await node.until(Deferred)
        w.move(first.wait)
        _, second = await node.until(Deferred, 2)
        assert (first.wait, second.wait) == (600, 1200)
        w.move(1200)
        *_, third = await node.until(Deferred, 3)
        assert third.wait == 200
        w.move(199)
        assert len(await node.queue()) == 1
        w.move(1)
        (failed,) = await node.until(Failed)
        assert failed.reply.startswith("554 5.4.7")
        ((report, (_, theirs)),) = await reports(node)
        assert report["Subject"] == "Mail could not be delivered"
        assert (theirs["Action"], theirs["Status"]) == ("failed", "5.4.7")
        assert mails(host) == ["BY=2000;R", "BY=1400;R", "BY=200;R"]


@pytest.mark.anyio
@pytest.mark.rfc("2852 §4.1.3 mode-r-gives-up-with-5-4-7")
async def test_so_it_is_while_its_next_hop_is_held(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.dead("mx.ext.example", "ext.example")
        node = await w.node("relay.example")
        await hand_over(node, {"BY": "30;R"})
        (deferred,) = await node.until(Deferred)
        assert deferred.wait == 30
        w.move(30)
        await node.until(Failed)
        assert len(w.connected) == 1


@pytest.mark.anyio
@pytest.mark.rfc(
    "2852 §4.1 reports-have-both-dates",
    "4865 §5.1.2 reports-say-what-was-asked",
    "4865 §5.1.2 orig-hold-param-value",
)
@pytest.mark.parametrize(
    ("asked", "wanted", "release"),
    [
        ({"BY": "2000;N"}, 2000, None),
        ({"HOLDFOR": "60"}, None, "for;60"),
        (
            {"HOLDUNTIL": "2023-11-14T22:14:20Z", "BY": "90;N"},
            90,
            "until;2023-11-14T22:14:20Z",
        ),
    ],
)
async def test_a_report_repeats_what_was_asked_of_times(
    tmp_path: Path, asked: dict[str, str], wanted: int | None, release: str | None
) -> None:
    async with world(tmp_path) as w:
        host = await busy_host(w, "DELIVERBY")
        host.says["RCPT"] = "550 5.1.1 nobody"
        node = await w.node("relay.example", kinds=["submission"])
        await hand_over(node, asked, submission=True)
        if release is not None:
            await node.until(Accepted)
            w.move(60)
        ((_, (ours, _)),) = await reports(node)
        assert parsedate_to_datetime(ours["Arrival-Date"]).timestamp() == START
        by = ours.get("Deliver-By-Date")
        left = None if by is None else parsedate_to_datetime(by).timestamp() - START
        assert (left, ours.get("Future-Release-Request")) == (wanted, release)


@pytest.mark.anyio
@pytest.mark.rfc("2852 §4.1.2 retention-may-end-first")
async def test_it_is_kept_no_longer_than_other_mail(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await busy_host(w, "DELIVERBY")
        node = await w.node("relay.example", schedule=Schedule(lifetime=100, first=100))
        await hand_over(node, {"BY": "2000;R"})
        await node.until(Deferred)
        w.move(100)
        ((_, (_, theirs)),) = await reports(node)
        assert theirs["Status"] == "5.4.7"


@pytest.mark.anyio
@pytest.mark.rfc("2852 §4.1.2 failure-is-reported-as-ever")
async def test_a_failure_before_is_a_failure_as_ever(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await busy_host(w, "DELIVERBY")
        host.says["RCPT"] = "550 5.1.1 nobody"
        node = await w.node("relay.example")
        await hand_over(node, {"BY": "2000;R"})
        ((_, (_, theirs)),) = await reports(node)
        assert (theirs["Status"], theirs["Remote-MTA"]) == ("5.1.1", "dns; mx.ext.example")


@pytest.mark.anyio
@pytest.mark.rfc(
    "2852 §4.1.4.1 mode-r-needs-a-server-that-offers-it",
    "2852 §4.1.4.1 nor-to-one-that-wants-longer",
    "2852 §4.1.4.1 nowhere-to-go-is-a-failure",
)
@pytest.mark.parametrize("keyword", ["DSN", "DELIVERBY 2001"])
async def test_in_mode_r_it_goes_to_nobody_who_promises_nothing(
    tmp_path: Path, keyword: str
) -> None:
    async with world(tmp_path) as w:
        one = await w.host("mx1.ext.example", "ext.example", preference=10, keywords=[keyword])
        two = await w.host("mx2.ext.example", "ext.example", preference=20)
        node = await w.node("relay.example")
        await hand_over(node, {"BY": "2000;R"})
        ((_, (_, theirs)),) = await reports(node)
        assert theirs["Status"] == "5.3.3"
        assert (mails(one), two.sessions) == ([], 0)


@pytest.mark.anyio
@pytest.mark.rfc("2852 §4.1.3 mode-r-gives-up-with-5-4-7")
async def test_in_mode_r_what_a_rule_holds_is_returned_when_its_time_is_over(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        table = RouteTable([Rule(OnHold("they move house"), recipients=["ext.example"])])
        node = await w.node("relay.example", routes=table)
        await hand_over(node, {"BY": "700;R"})
        await node.until(Held)
        ((recipient,),) = [entry.recipients for entry in await node.queue()]
        assert recipient.next_attempt == START + 700  # and not in an hour
        w.move(700)
        ((_, (_, theirs)),) = await reports(node)
        assert (theirs["Action"], theirs["Status"]) == ("failed", "5.4.7")


@pytest.mark.anyio
@pytest.mark.rfc("2852 §4.1.3 mode-n-is-reported-with-4-4-7")
async def test_in_mode_n_the_sender_of_what_a_rule_holds_hears_that_it_is_late(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        table = RouteTable([Rule(OnHold("they move house"), recipients=["ext.example"])])
        node = await w.node("relay.example", routes=table)
        await hand_over(node, {"BY": "700;N"})
        await node.until(Held)
        w.move(700)
        ((_, (_, theirs)),) = await reports(node)
        assert (theirs["Action"], theirs["Status"]) == ("delayed", "4.4.7")
        w.move(4000)
        await node.spool.retry(None, w.now)
        while (await node.queue())[0].recipients[0].next_attempt < w.now:
            await anyio.lowlevel.checkpoint()
        assert len(node.told(Reported)) == 1  # once


@pytest.mark.anyio
@pytest.mark.rfc(
    "2852 §4.1.3 mode-n-goes-on",
    "2852 §4.1.3 mode-n-is-reported-with-4-4-7",
    "2852 §4.1.4 past-time-is-passed-on-below-zero",
)
async def test_in_mode_n_it_goes_on_and_its_sender_hears_that_it_is_late(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await busy_host(w, "DELIVERBY")
        # Other mail would be late after four hours, or never.
        node = await w.node(
            "relay.example", schedule=Schedule(first=600, spread=0, notice=math.inf)
        )
        await hand_over(node, {"BY": "700;N"})
        await node.until(Deferred)
        w.move(600)
        *_, second = await node.until(Deferred, 2)
        assert second.wait == 100
        assert node.told(Reported) == []
        w.move(100)
        ((report, (_, theirs)),) = await reports(node)
        assert report["Subject"] == "Mail is delayed"
        assert (theirs["Action"], theirs["Status"]) == ("delayed", "4.4.7")
        *_, third = await node.until(Deferred, 3)
        assert third.wait == 2400
        host.says.clear()
        w.move(2400)
        await node.until(Delivered, 2)
        assert mails(host) == ["BY=700;N", "BY=100;N", "BY=0;N", "BY=-2400;N"]
        assert len(node.told(Reported)) == 1


@pytest.mark.anyio
@pytest.mark.rfc("2852 §4.1.3 mode-n-is-reported-with-4-4-7")
async def test_who_does_not_want_to_hear_of_delays_does_not(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await busy_host(w, "DELIVERBY")
        node = await w.node("relay.example")
        await hand_over(node, {"BY": "60;N"}, of_it={"NOTIFY": "FAILURE"})
        await node.until(Deferred)
        w.move(60)
        await node.until(Deferred, 2)
        assert node.told(Reported) == []


NOTIFIED = [
    (None, "NOTIFY=FAILURE,DELAY"),
    ("SUCCESS", "NOTIFY=SUCCESS,DELAY"),
    ("delay,SUCCESS", "NOTIFY=delay,SUCCESS"),
    ("FAILURE", "NOTIFY=FAILURE,DELAY"),
    ("never", "NOTIFY=never"),
]


@pytest.mark.anyio
@pytest.mark.rfc(
    "2852 §4.1.4.2 mode-n-goes-anywhere",
    "2852 §4.1.4.2 loss-of-by-is-reported-as-relayed",
    "2852 §4.1.4.2 delay-is-asked-for-in-its-stead",
)
@pytest.mark.parametrize("dsn", [True, False], ids=["dsn", "no-dsn"])
@pytest.mark.parametrize(("notify", "asked"), NOTIFIED)
async def test_in_mode_n_who_loses_by_is_told(
    tmp_path: Path, notify: str | None, asked: str, dsn: bool
) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=["DSN"] if dsn else [])
        node = await w.node("relay.example")
        of_it = {} if notify is None else {"NOTIFY": notify}
        await hand_over(node, {"BY": "700;N"}, of_it=of_it)
        await node.until(Delivered)
        assert mails(host) == [""]
        rcpt = f"RCPT TO:<{TO}>"
        assert host.lines[2] == (f"{rcpt} {asked}" if dsn else rcpt)
        if notify == "never":
            assert node.told(Reported) == []
        else:
            ((report, (_, theirs)),) = await reports(node)
            assert (report["Subject"], theirs["Action"]) == ("Mail was passed on", "relayed")


@pytest.mark.anyio
@pytest.mark.rfc("2852 §4.1.4.2 loss-of-by-is-reported-as-relayed")
async def test_what_is_late_already_loses_by_without_a_word(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=["DSN"])
        node = await w.node("relay.example")
        await hand_over(node, {"BY": "-1;N"})
        await node.until(Delivered)
        assert (mails(host), host.lines[2]) == ([""], f"RCPT TO:<{TO}>")
        assert node.told(Reported) == []


@pytest.mark.anyio
@pytest.mark.rfc("2852 §4.1.4 trace-is-a-relayed-report")
@pytest.mark.parametrize("mode", ["NT", "RT"])
@pytest.mark.parametrize("notify", [None, "FAILURE", "NEVER"])
async def test_a_trace_is_a_report_of_each_relay(
    tmp_path: Path, mode: str, notify: str | None
) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=["DELIVERBY", "DSN"])
        node = await w.node("relay.example")
        of_it = {} if notify is None else {"NOTIFY": notify}
        await hand_over(node, {"BY": f"700;{mode}"}, of_it=of_it)
        await node.until(Delivered)
        assert mails(host) == [f"BY=700;{mode}"]
        if notify == "NEVER":
            assert node.told(Reported) == []
        else:
            ((_, (_, theirs)),) = await reports(node)
            assert theirs["Action"] == "relayed"


# --- FUTURERELEASE -------------------------------------------------------------------------------


async def until_held(node: Node, release: float) -> None:
    """Wait until all that is in the queue is put off until then."""
    while True:
        if await node.spool.next_due() == release:
            return
        await anyio.sleep(0.01)  # nobody is told of what is put off


async def submission_node(w: World, **settings: Any) -> Node:
    return await w.node("relay.example", kinds=["smtp", "submission"], **settings)


async def offered(node: Node, kind: str) -> dict[str, str]:
    port = node.ports[kind]  # type: ignore[index]  # it is a Kind
    async with Client("127.0.0.1", port, tls=Tls.NONE, helo_name="c.example") as client:
        return dict(client.offered)


@pytest.mark.anyio
@pytest.mark.rfc(
    "4865 §4.2 offered-on-the-submission-port-alone", "4865 §6 only-the-authorized-may-hold"
)
async def test_futurerelease_is_offered_for_submission_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await submission_node(w, longest_hold=3600)
        horizon = Horizon.parse((await offered(node, "submission"))["FUTURERELEASE"])
        assert horizon.interval == 3600
        assert horizon.until.timestamp() == START + 3600 + DAY
        assert "FUTURERELEASE" not in await offered(node, "smtp")
        async with node.dial("submission") as wire:
            await wire.hello()
            reply = await wire.say("MAIL FROM:<ann@our.dom> HOLDFOR=60")
            assert reply.startswith("530 5.7.0")
        async with node.dial() as wire:
            await wire.hello()
            assert (await wire.say("MAIL FROM:<ann@our.dom> HOLDFOR=60")).startswith("555")


@pytest.mark.anyio
async def test_a_relay_may_hold_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await submission_node(w, longest_hold=0)
        assert "FUTURERELEASE" not in await offered(node, "submission")


@pytest.mark.anyio
@pytest.mark.rfc("4865 §4.2 held-for-the-seconds", "4865 §4.2 held-until-the-moment")
@pytest.mark.parametrize("asked", [{"HOLDFOR": "86400"}, {"HOLDUNTIL": "2023-11-15T22:13:20Z"}])
@pytest.mark.parametrize("to", [TO, "bob@our.dom", "all@our.dom"])
async def test_a_message_is_held_until_its_time(
    tmp_path: Path, asked: dict[str, str], to: str
) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await submission_node(w, aliases=AliasTable({"all@our.dom": ["bob@our.dom"]}))
        assert await hand_over(node, asked, to=to, submission=True)
        await until_held(node, START + DAY)
        w.move(DAY - 1)
        # Nobody gets it sooner, be it the operator who asks.
        assert await node.spool.retry(None, w.now) == 1
        node.relay.dispatcher.wake()
        await until_held(node, START + DAY)
        assert node.told(Delivered) == []
        assert w.connected == []
        ((recipient,),) = [entry.recipients for entry in await node.queue()]
        assert recipient.attempts == 0
        w.move(1)
        await node.until(Delivered)
        assert not any("HOLD" in said for said in mails(host))


@pytest.mark.anyio
async def test_its_life_begins_then_and_it_survives_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await busy_host(w)
        schedule = Schedule(
            first=DAY, factor=1, longest=DAY, spread=0, lifetime=2 * DAY, notice=DAY
        )
        node = await submission_node(w, schedule=schedule)
        await hand_over(node, {"HOLDFOR": str(int(10 * DAY))}, submission=True)
        await node.stop()
        node = await submission_node(w, schedule=schedule)
        w.move(10 * DAY)
        await node.until(Deferred)
        assert node.told(Reported) == []  # it is not late
        w.move(DAY)
        await node.until(Reported)
        w.move(DAY)
        await node.until(Failed)


@pytest.mark.anyio
@pytest.mark.rfc("4865 §5.2.2 holduntil-beyond-by-is-refused")
@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("HOLDFOR=60 BY=60;R", "501 5.5.4"),
        ("HOLDFOR=60 BY=61;R", "250 2.1.0"),
        ("HOLDUNTIL=2023-11-14T22:14:20Z BY=60;N", "501 5.5.4"),
        ("HOLDUNTIL=2023-11-14T22:14:20Z BY=61;N", "250 2.1.0"),
        ("HOLDUNTIL=2020-01-01T00:00:00Z BY=-61;N", "250 2.1.0"),
    ],
)
async def test_a_hold_leaves_time_to_deliver(tmp_path: Path, asked: str, code: str) -> None:
    async with world(tmp_path) as w:
        node = await submission_node(w)
        async with node.dial("submission") as wire:
            await wire.hello()
            assert (await wire.say("AUTH PLAIN AGFubgBjb3JyZWN0IGhvcnNl")).startswith("235")
            assert (await wire.say(f"MAIL FROM:<ann@our.dom> {asked}")).startswith(code)


@pytest.mark.anyio
async def test_by_runs_while_a_message_is_held(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=["DELIVERBY"])
        node = await submission_node(w)
        await hand_over(node, {"HOLDFOR": "60", "BY": "100;R"}, submission=True)
        await until_held(node, START + 60)
        w.move(60)
        await node.until(Delivered)
        assert mails(host) == ["BY=40;R"]


@pytest.mark.anyio
async def test_the_horizon_moves_with_the_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smtpproto.relay.relay.RENEWED_EACH", 0.02)
    async with world(tmp_path) as w:
        node = await submission_node(w, longest_hold=3600)
        w.now += DAY
        while True:
            horizon = Horizon.parse((await offered(node, "submission"))["FUTURERELEASE"])
            if horizon.until.timestamp() == START + 3600 + 2 * DAY:
                break
            await anyio.sleep(0.01)
