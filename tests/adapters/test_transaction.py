"""One message to one server: what leaves when, and what becomes of each recipient."""

from collections.abc import Sequence

import pytest

from smtpproto import (
    STANDARD,
    Data,
    Envelope,
    LocalProtocolError,
    Mail,
    Noop,
    Parameters,
    Rcpt,
    Reply,
    Vrfy,
)
from smtpproto.client import Client, ClientDeadlines
from smtpproto.handover import WINDOW
from smtpproto.result import ClientError, ConnectError, DeliveryError, Fate, Result, Transaction
from smtpproto.server import Server

from .wire import Wire, raw_server, script
from .world import ENVELOPE, MESSAGE, Box, clear, session, until

pytestmark = pytest.mark.anyio

OPENING = "S: 220 hi\nC: EHLO *\nS: 250-hi\n"
PIPELINED = OPENING + "S: 250 PIPELINING\n"
PLAIN = OPENING + "S: 250 HELP\n"
IMPATIENT = ClientDeadlines(quit=0.05)


def fates(result: Result) -> list[str]:
    return [outcome.fate.value for outcome in result.outcomes]


def recipients(*names: str) -> Envelope:
    return Envelope("ann@example.org", [f"{name}@example.net" for name in names])


@pytest.mark.rfc(
    "5321 §2.1 one-copy-for-many-recipients", "5321 §3.5.4 lists-are-not-expanded-at-the-source"
)
@pytest.mark.rfc("5321 §4.5.4.1 mail-rcpt-rcpt-data")
@pytest.mark.rfc("2920 §3.1 commands-may-go-in-groups")
async def test_mail_rcpts_and_data_leave_in_one_write() -> None:
    writes: list[bytes] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play(PIPELINED)
        wire.reads.clear()
        await wire.play("C: MAIL *\nC: RCPT *\nC: RCPT *\nC: DATA")
        writes.extend(wire.reads)
        await wire.say("250 ok", "250 ok", "250 ok", "354 go")
        await wire.hear_content()
        await wire.play("S: 250 ok\nC: QUIT\nS: 221 bye")

    async with raw_server(behaviour) as port, clear(port) as client:
        result = await client.deliver(recipients("b", "c"), MESSAGE)
    assert fates(result) == ["accepted", "accepted"]
    assert writes == [
        b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<b@example.net>\r\n"
        b"RCPT TO:<c@example.net>\r\nDATA\r\n"
    ]


@pytest.mark.rfc("5321 §4.3.1 client-waits-for-the-reply")
async def test_each_command_waits_for_its_reply_where_pipelining_is_not_offered() -> None:
    writes: list[bytes] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play(PLAIN)
        wire.reads.clear()
        await wire.play("C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA")
        writes.extend(wire.reads)
        await wire.say("354 go")
        await wire.hear_content()
        await wire.play("S: 250 ok\nC: QUIT\nS: 221 bye")

    async with raw_server(behaviour) as port, clear(port) as client:
        await client.deliver(recipients("b", "c"), MESSAGE)
    assert [write.count(b"\r\n") for write in writes] == [1, 1, 1, 1]


@pytest.mark.rfc("2920 §3.1 groups-fit-the-window")
@pytest.mark.parametrize("count", [WINDOW - 2, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW + 7])
async def test_no_more_than_a_window_of_commands_is_on_its_way(count: int, box: Box) -> None:
    names = [f"{'no-' if number % 3 == 1 else ''}r{number}" for number in range(count)]
    on_the_way: list[int] = []
    asked = answered = 0

    def trace(line: str) -> None:
        nonlocal asked, answered
        asked += line.startswith(("C: MAIL", "C: RCPT", "C: DATA"))
        answered += line.startswith("S: ")
        on_the_way.append(asked - answered)

    offer = [e for e in STANDARD if e.keyword == "PIPELINING"]
    async with session(Server(box, error_delay=0, offer=offer), trace=trace) as client:
        on_the_way.clear()
        asked = answered = 0
        result = await client.deliver(recipients(*names), MESSAGE)
    assert max(on_the_way) == min(count + 2, WINDOW)
    expected = ["permanent" if name.startswith("no-") else "accepted" for name in names]
    assert fates(result) == expected
    (received,) = box.received
    assert len(received.envelope.rcpts) == expected.count("accepted")


@pytest.mark.rfc(
    "5321 §2.1 client-transfers-or-reports", "5321 §3.3 client-tells-recipients-apart-where-it-can"
)
@pytest.mark.rfc("2920 §3.1 every-status-is-checked")
@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b"], ["accepted"]),
        (["no-b"], ["permanent"]),
        (["later-b"], ["transient"]),
        (["b", "no-c", "later-d"], ["accepted", "permanent", "transient"]),
        (["no-b", "later-c", "no-d"], ["permanent", "transient", "permanent"]),
    ],
)
async def test_every_recipient_has_its_own_outcome(
    pipelining: bool, names: Sequence[str], expected: list[str], box: Box
) -> None:
    offer = None if pipelining else [e for e in STANDARD if e.keyword in ("SIZE", "8BITMIME")]
    async with session(Server(box, offer=offer)) as client:
        assert ("PIPELINING" in client.offered) is pipelining
        envelope = recipients(*names)
        result = await client.deliver(envelope, MESSAGE)
        assert fates(result) == expected
        assert [outcome.forward_path for outcome in result.outcomes] == list(envelope.forward_paths)
        assert result.any_accepted is ("accepted" in expected)
        # and the session goes on: RSET first, where a transaction was left
        assert client.usable
        assert (await client.deliver(ENVELOPE, MESSAGE)).all_accepted
    assert len(box.received) == ("accepted" in expected) + 1


@pytest.mark.rfc("5321 §3.3 client-tells-recipients-apart-where-it-can")
@pytest.mark.rfc("5321 §4.5.4.1 refusal-of-mail-is-not-cached")
@pytest.mark.parametrize("key", ["mail", "rcpt", "content"])
async def test_refusal_at_each_step(key: str, box: Box) -> None:
    box.replies[key] = Reply(550, "5.7.1", "Not here")
    async with session(Server(box)) as client:
        with pytest.raises(DeliveryError, match=r"550 5\.7\.1 Not here") as caught:
            await client.send(recipients("b", "c"), MESSAGE)
        assert fates(caught.value.result) == ["permanent", "permanent"]
        box.replies.clear()
        assert (await client.send(ENVELOPE, MESSAGE)).all_accepted


async def test_send_names_in_its_error_who_was_not_accepted(box: Box) -> None:
    async with session(Server(box)) as client:
        with pytest.raises(DeliveryError) as caught:
            await client.send(recipients("b", "no-c"), MESSAGE)
    assert "no-c@example.net" in str(caught.value)
    assert "<b@" not in str(caught.value)
    assert caught.value.result.any_accepted
    assert not caught.value.result.all_accepted
    assert str(caught.value.result).count("\n") == 1


@pytest.mark.rfc("2920 §3.1 needless-354-gets-a-single-dot")
async def test_354_though_nobody_was_accepted_gets_an_empty_message() -> None:
    heard: list[str] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play(PIPELINED + "C: MAIL *\nC: RCPT *\nC: DATA")
        await wire.say("250 ok", "550 5.1.1 unknown", "354 go")
        heard.extend(await wire.hear_content())
        await wire.play("S: 554 no valid recipients\nC: QUIT\nS: 221 bye")

    async with raw_server(behaviour) as port, clear(port) as client:
        result = await client.deliver(ENVELOPE, MESSAGE)
    assert heard == []
    assert result.outcomes[0].reply == Reply(550, "5.1.1", "unknown")


@pytest.mark.rfc("5321 §4.2.1 4yz-starts-the-sequence-over", "5321 §4.2.1 5yz-is-not-repeated")
async def test_refused_data_decides_those_who_were_accepted() -> None:
    play = (
        PIPELINED
        + """
    C: MAIL *\nC: RCPT *\nC: RCPT *\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 550 no\nS: 451 later
    C: RSET\nS: 250 ok\nC: MAIL *\nC: RCPT *\nC: DATA\nS: 550 no\nS: 503 what\nS: 503 what
    C: QUIT\nS: 221 bye
    """
    )
    async with raw_server(script(play)) as port, clear(port) as client:
        assert fates(await client.deliver(recipients("b", "c"), MESSAGE)) == [
            "transient",
            "permanent",
        ]
        assert fates(await client.deliver(ENVELOPE, MESSAGE)) == ["permanent"]


@pytest.mark.rfc("5321 §4.5.3.1.10 552-to-rcpt-passes")
async def test_552_to_rcpt_passes(box: Box) -> None:
    box.replies["rcpt"] = Reply(552, "5.5.3", "Too many recipients")
    async with session(Server(box)) as client:
        result = await client.deliver(ENVELOPE, MESSAGE)
    assert fates(result) == ["transient"]
    assert result.outcomes[0].reply == box.replies["rcpt"]


async def test_what_was_refused_stays_so_though_the_session_is_lost() -> None:
    for ending in "S: 421 4.3.2 bye", "S: 999 nonsense":
        play = (
            PLAIN
            + f"""
        C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 550 5.1.1 unknown\nC: RCPT *\n{ending}
        """
        )
        async with raw_server(script(play)) as port, clear(port) as client:
            result = await client.deliver(recipients("b", "c"), MESSAGE)
            assert not client.usable
            with pytest.raises(ClientError, match="over"):
                await client.deliver(ENVELOPE, MESSAGE)
            with pytest.raises(ClientError, match="over"):
                await client.command(Noop())
        assert fates(result) == ["permanent", "transient"]


async def test_refused_rset_is_a_session_of_no_use() -> None:
    for answer, reason in ("500 what?", "500 is no answer to Rset"), ("421 bye", "421 bye"):
        play = PLAIN + f"C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 550 no\nC: RSET\nS: {answer}"
        async with raw_server(script(play)) as port, clear(port) as client:
            await client.deliver(ENVELOPE, MESSAGE)
            result = await client.deliver(ENVELOPE, MESSAGE)
            assert fates(result) == ["transient"]
            assert reason in str(result)
            assert not client.usable


@pytest.mark.parametrize("extra", ["250 again", "250-again", "421 bye", "nonsense"])
async def test_a_reply_nobody_asked_for_answers_nothing(extra: str) -> None:
    """Said in one write with the last reply, it is there before the next command is sent."""
    async with raw_server(script(f"S: 220 hi\nC: EHLO *\nS: 250 hi\nS: {extra}")) as port:
        async with clear(port) as client:
            result = await client.deliver(ENVELOPE, MESSAGE)
            assert not client.usable
        assert fates(result) == ["transient"]


async def test_command_outside_a_transaction(box: Box) -> None:
    async with session(Server(box)) as client:
        assert (await client.command(Vrfy("bob"))).code == 252
        assert (await client.command(Noop())).code == 250
        with pytest.raises(LocalProtocolError):
            await client.command(Data())
        assert client.usable


async def test_command_on_a_session_that_breaks() -> None:
    play = PLAIN + "C: NOOP\nS: nonsense"
    async with raw_server(script(play)) as port, clear(port) as client:
        with pytest.raises(ConnectError):
            await client.command(Noop())
        assert not client.usable


async def test_parameters_that_are_not_offered_are_refused_before_anything_is_sent() -> None:
    heard: list[str] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play(PLAIN)
        heard.append(await wire.hear())
        await wire.say("221 bye")

    mail = Mail("ann@example.org", Parameters.of({"BODY": b"8BITMIME"}))
    async with raw_server(behaviour) as port, clear(port) as client:
        (outcome,) = (await client.deliver(Envelope(mail, ["b@example.net"]), MESSAGE)).outcomes
        assert outcome.local
        assert outcome.reply == Reply(
            555, "5.5.4", "The server does not offer 8BITMIME or BINARYMIME"
        )
        assert outcome.fate is Fate.PERMANENT
        assert client.usable
    assert heard == ["QUIT"]


async def test_parameter_of_a_recipient_that_is_not_offered_concerns_that_one_alone() -> None:
    play = (
        PLAIN + "C: MAIL *\nS: 250 ok\nC: RCPT TO:<c@example.net>\nS: 250 ok\nC: DATA\nS: 451 later"
        "\nC: QUIT\nS: 221 x"
    )
    rcpt = Rcpt("b@example.net", Parameters.of({"NOTIFY": b"NEVER"}))
    async with raw_server(script(play)) as port, clear(port) as client:
        result = await client.deliver(Envelope("ann@example.org", [rcpt, "c@example.net"]), MESSAGE)
    assert fates(result) == ["permanent", "transient"]
    assert [outcome.local for outcome in result.outcomes] == [True, False]
    assert result.outcomes[0].reply == Reply(555, "5.5.4", "The server does not offer DSN")


@pytest.mark.parametrize("value", [b"SOMETIMES", None, b"x" * 600])
async def test_parameter_that_no_server_could_take_is_the_callers_mistake(
    value: bytes | None, box: Box
) -> None:
    """It is found before anything is sent, and costs nothing."""
    lines: list[str] = []
    envelope = Envelope("a@b.example", [Rcpt("b@c.example", Parameters.of({"NOTIFY": value}))])
    async with session(Server(box, offer=STANDARD), trace=lines.append) as client:
        said = len(lines)
        with pytest.raises(LocalProtocolError, match=r"NOTIFY|line"):
            await client.deliver(envelope, MESSAGE)
        assert len(lines) == said
        await client.send(ENVELOPE, MESSAGE)


@pytest.mark.rfc("1870 §6 estimates-are-allowed", "1870 §6.3 client-may-declare-less")
async def test_what_the_caller_asked_for_is_not_replaced(box: Box) -> None:
    mail = Mail("ann@example.org", Parameters.of({"SIZE": b"7", "BODY": b"7BIT"}))
    async with session(Server(box)) as client:
        await client.send(Envelope(mail, ["b@example.net"]), MESSAGE)
    assert dict(box.received[0].envelope.mail.parameters) == {"SIZE": b"7", "BODY": b"7BIT"}


async def test_extensions_the_client_does_not_know_are_not_used(box: Box) -> None:
    async with session(Server(box), extensions=()) as client:
        assert {"SIZE", "8BITMIME"} <= client.offered.keys()
        await client.send(ENVELOPE, b"x\r\n")
    assert not box.received[0].envelope.mail.parameters


async def test_many_messages_in_one_session(box: Box) -> None:
    async with session(Server(box)) as client:
        for number in range(20):
            await client.send(ENVELOPE, b"%d\r\n" % number)
    assert [r.content for r in box.received] == [b"%d\r\n" % number for number in range(20)]
    assert len({r.session.id for r in box.received}) == 1


async def test_a_server_that_hangs_at_quit_does_not_hold_the_client() -> None:
    heard: list[str] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play(PLAIN)
        heard.append(await wire.hear())
        await wire.rest()
        heard.append("gone")

    async with raw_server(behaviour) as port:
        async with clear(port, deadlines=IMPATIENT):
            pass
        await until(lambda: len(heard) == 2)
    assert heard == ["QUIT", "gone"]


async def test_closing_twice_says_quit_once(box: Box) -> None:
    lines: list[str] = []
    async with session(Server(box), trace=lines.append) as client:
        await client.aclose()
        assert not client.usable
    assert lines.count("C: QUIT") == 1


async def test_client_attributes(box: Box) -> None:
    async with session(Server(box, "mx.example.org"), helo_name="me.example") as client:
        assert client.greeting is not None
        assert client.greeting.text == "mx.example.org ESMTP"
        assert client.offered["SIZE"] == "26214400"
        assert client.stream is not None
        assert "password" not in repr(Client("h", login=("ann", "password")))


def test_transaction_without_replies_is_open() -> None:
    transaction = Transaction(ENVELOPE)
    assert transaction.open
    transaction.lose("gone")
    assert transaction.result().outcomes[0].fate is Fate.TRANSIENT
    assert "gone" in str(transaction.result())
