"""RFC 5321 §3.3 and §3.6.1: a mail transaction, step by step, at either end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from smtpproto import (
    STANDARD,
    ClientConnection,
    Command,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Envelope,
    ForwardPath,
    LocalProtocolError,
    Mail,
    Rcpt,
    Reply,
    ReversePath,
    Rset,
    ServerConnection,
    State,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions import PIPELINING
from smtpproto.result import Fate
from smtpproto.server import Server
from smtpproto.testing.pair import Pair, Policy, answer
from tests.adapters.wire import Wire, raw_server
from tests.adapters.world import ENVELOPE, MESSAGE, Box, clear, session
from tests.conformance.ends import (
    HELLO,
    MAIL,
    RCPT,
    agreed,
    client_after,
    hear,
    pulled,
    say,
    server_after,
)

DATA = RCPT + b"DATA\r\n"


def refusing(kind: type[Command | EndOfContent], reply: Reply) -> Policy:
    """Say this to what is of that kind, and the usual thing else."""
    return lambda server, event: reply if isinstance(event, kind) else server.suggested_reply()


def opened(policy: Policy | None = None) -> Pair:
    pair = Pair(ServerConnection("mx.example", [PIPELINING]), ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    pair.policy = policy or pair.policy
    return pair


def both(pair: Pair) -> State:
    """Where both ends are."""
    assert pair.client.state is pair.server.state
    return pair.client.state


# MAIL


@pytest.mark.rfc(
    "5321 §3.3 mail-begins-it-with-the-sender",
    "5321 §3.3 mail-only-while-none-is-open",
    "5321 §3.3 accepted-mail-gets-250",
)
def test_a_transaction_begins_with_mail_and_its_sender() -> None:
    pair = opened()
    (reply,) = pair.send(Mail("a@b"))
    assert pair.to_server.endswith(b"\r\nMAIL FROM:<a@b>\r\n")
    assert str(reply).startswith("250")
    assert pair.server_events[-1] == Mail("a@b")
    assert both(pair) is State.MAIL
    with pytest.raises(LocalProtocolError):
        pair.send(Mail("x@y"))
    assert say(pair.server, b"MAIL FROM:<x@y>\r\n").startswith(b"503")
    pair.send(Rcpt("c@d"))
    assert pair.server.envelope == Envelope("a@b", ["c@d"])


@pytest.mark.rfc("5321 §3.3 mail-resets-what-was")
@pytest.mark.parametrize("before", [RCPT + b"RSET\r\n", RCPT + b"EHLO c\r\n", DATA + b"x\r\n.\r\n"])
def test_mail_has_nothing_of_what_was(before: bytes) -> None:
    server = server_after(before)
    say(server, b"MAIL FROM:<>\r\nRCPT TO:<e@f>\r\nDATA\r\n")
    assert server.envelope == Envelope(None, ["e@f"])
    server.receive_data(b".\r\n")
    assert server.next_event() == EndOfContent(0, None)


@pytest.mark.rfc("5321 §3.3 refused-sender-for-now-or-for-good")
@pytest.mark.parametrize("code", [450, 451, 452, 455, 550, 552, 553, 555])
def test_a_sender_may_be_refused_for_now_or_for_good(code: int) -> None:
    pair = opened(refusing(Mail, Reply(code, None, "Not you")))
    assert pair.send(Mail("a@b")) == [Reply(code, None, "Not you")]
    assert both(pair) is State.READY
    with pytest.raises(LocalProtocolError):
        pair.send(Rcpt("c@d"))
    assert say(pair.server, b"RCPT TO:<c@d>\r\n").startswith(b"503")


@pytest.mark.anyio
@pytest.mark.rfc("5321 §3.3 refused-sender-for-now-or-for-good")
@pytest.mark.parametrize(("code", "fate"), [(451, Fate.TRANSIENT), (553, Fate.PERMANENT)])
async def test_a_client_tells_now_from_for_good(code: int, fate: Fate) -> None:
    box = Box(replies={"mail": Reply(code, None, "Not you")})
    async with session(Server(box)) as client:
        result = await client.deliver(ENVELOPE, MESSAGE)
    assert [outcome.fate for outcome in result.outcomes] == [fate]
    assert box.received == []


@pytest.mark.rfc("5321 §3.3 sender-may-be-judged-at-rcpt")
def test_a_sender_may_be_judged_with_the_recipients() -> None:
    pair = opened(refusing(Rcpt, Reply(550, None, "Not from you")))
    assert str(pair.send(Mail("a@b"))[0]).startswith("250")
    for recipient in ("c@d", "e@f"):
        assert pair.send(Rcpt(recipient)) == [Reply(550, None, "Not from you")]
    assert both(pair) is State.MAIL
    assert pair.server.envelope is None
    pair.send(Rset())
    assert both(pair) is State.READY


# RCPT


@pytest.mark.rfc(
    "5321 §3.3 rcpts-follow",
    "5321 §3.3 accepted-rcpt-gets-250-and-is-kept",
    "5321 §3.4 server-may-forward-silently",
)
@pytest.mark.parametrize("count", [1, 2, 100])
def test_any_number_of_recipients_follow(count: int) -> None:
    names = [f"r{number}@d" for number in range(count)]
    pair = opened()
    pair.send(Mail("a@b"))
    for name in names:
        (reply,) = pair.send(Rcpt(name))
        assert str(reply).startswith("250")
        assert pair.to_server.endswith(f"RCPT TO:<{name}>\r\n".encode())
    assert pair.server.envelope == Envelope("a@b", names)


@pytest.mark.rfc(
    "5321 §3.3 undeliverable-recipient-gets-550",
    "5321 §3.3 server-may-refuse-to-relay",
    "5321 §3.6.1 server-may-refuse-to-relay",
    "5321 §3.6.2 refused-relaying-gets-550",
    "5321 §3.4 server-may-refuse-with-550",
)
@pytest.mark.parametrize("code", [550, 450, 451, 551, 552, 553, 554])
def test_a_recipient_may_be_refused(code: int) -> None:
    pair = opened()
    pair.send(Mail("a@b"))
    pair.send(Rcpt("c@d"))
    pair.policy = refusing(Rcpt, Reply(code, None, "no such user - no"))
    assert pair.send(Rcpt("no@d")) == [Reply(code, None, "no such user - no")]
    assert pair.server.envelope == Envelope("a@b", ["c@d"])
    assert both(pair) is State.RCPT


@pytest.mark.rfc("5321 §3.3 rcpt-without-mail-gets-503")
@pytest.mark.parametrize(
    "before", [b"", HELLO, MAIL + b"RSET\r\n", HELLO + b"MAIL FROM:<a>\r\n", DATA + b".\r\n"]
)
def test_rcpt_without_mail_gets_503(before: bytes) -> None:
    server = server_after(before)
    kept = server.state
    assert say(server, b"RCPT TO:<c@d>\r\n").startswith(b"503")
    assert (server.state, server.envelope) == (kept, None)


# Source routes


@pytest.mark.rfc(
    "5321 §3.3 server-reads-source-routes",
    "5321 §3.3 server-ignores-source-routes",
    "5321 §3.6.1 route-is-dropped",
)
@pytest.mark.parametrize("route", [b"@x:", b"@x.example,@y.example:", b"@a,@b,@c,@d:"])
def test_a_route_is_read_and_dropped(route: bytes) -> None:
    assert pulled(MAIL, b"RCPT TO:<%bc@d>" % route) == (Rcpt("c@d"), None)
    server = server_after(MAIL)
    assert say(server, b"RCPT TO:<%bc@d>\r\n" % route).startswith(b"250")
    assert server.envelope == Envelope("a@b", ["c@d"])


@pytest.mark.rfc(
    "5321 §3.3 no-route-in-a-reverse-path",
    "5321 §3.3 client-writes-no-source-route",
    "5321 §3.6.1 client-writes-no-source-route",
    "5321 §3.6.1 client-relies-on-no-route",
)
@pytest.mark.parametrize("route", ["@x:", "@x,@y:", "@x,y:", "@:", "x:"])
def test_a_client_writes_no_route(route: str) -> None:
    for make in (Mail, Rcpt, ReversePath.of, ForwardPath.of):
        with pytest.raises(LocalProtocolError):
            make(f"{route}c@d")
    if route == "@x,@y:":  # nor the one that it has read
        read = f"<{route}c@d>".encode()
        assert Mail(ReversePath.read(read)[0]).serialize() == b"MAIL FROM:<c@d>\r\n"
        assert Rcpt(ForwardPath.read(read)[0]).serialize() == b"RCPT TO:<c@d>\r\n"


# The colon


@pytest.mark.rfc(
    "5321 §3.3 client-writes-no-space-beside-the-colon", "5321 §3.3 no-space-before-the-colon"
)
def test_no_space_stands_beside_the_colon() -> None:
    assert Mail("a@b").serialize() == b"MAIL FROM:<a@b>\r\n"
    assert Rcpt("a@b").serialize() == b"RCPT TO:<a@b>\r\n"
    spaced, refusal = pulled(HELLO, b"MAIL FROM: <a@b>")  # one behind it is read, not written
    assert (spaced, refusal) == (Mail("a@b"), None)
    for before, line in (
        (HELLO, b"MAIL FROM :<a@b>"),
        (HELLO, b"MAIL FROM : <a@b>"),
        (HELLO, b"MAIL FROM:  <a@b>"),
        (MAIL, b"RCPT TO :<a@b>"),
        (MAIL, b"RCPT TO:\t<a@b>"),
    ):
        command, refusal = pulled(before, line)
        assert (command, refusal.code if refusal else None) == (None, 501)


# DATA


@pytest.mark.rfc(
    "5321 §3.3 data-comes-last",
    "5321 §3.3 354-and-then-content",
    "5321 §3.3 a-lone-dot-ends-the-content",
    "5321 §3.3 dots-of-the-text-are-kept-apart",
    "5321 §3.3 250-when-the-content-is-stored",
)
def test_data_brings_content_up_to_a_lone_dot() -> None:
    text = b".\r\n..\r\n.x\r\nQUIT\r\n\r\n. \r\nx.\r\n"
    pair = opened()
    pair.send(Mail("a@b"))
    pair.send(Rcpt("c@d"))
    (reply,) = pair.send(Data())
    assert str(reply).startswith("354")
    pair.send(Content(text))
    assert both(pair) is State.CONTENT
    (verdict,) = pair.send(EndOfContent())
    assert str(verdict).startswith("250")
    assert pair.to_server.endswith(b"\r\n.\r\n")
    content = b"".join(e.data for e in pair.server_events if isinstance(e, Content))
    assert content == text
    assert both(pair) is State.READY
    assert str(pair.send(Mail("x@y"))[0]).startswith("250")


@pytest.mark.rfc("5321 §3.3 end-of-content-confirms-the-transaction")
def test_nothing_is_done_before_the_end_mark() -> None:
    server = server_after(DATA)
    events: list[ServerEvent] = []
    said = b""
    for piece in (b"one\r\n", b".", b"\r", b"\n"):
        assert said == b""
        assert not any(isinstance(event, EndOfContent) for event in events)
        assert server.envelope == Envelope("a@b", ["c@d"])
        server.receive_data(piece)
        events, said = answer(server)
    assert events[-1] == EndOfContent(5, None)
    assert said.startswith(b"250")


@pytest.mark.anyio
@pytest.mark.rfc("5321 §3.3 250-when-the-content-is-stored")
async def test_the_handler_has_all_of_it_before_250_is_said() -> None:
    box = Box()
    trace: list[tuple[str, int]] = []
    server = Server(box, offer=())  # so that it goes by DATA
    show = lambda line: trace.append((line, len(box.received)))  # noqa: E731 - short enough
    async with session(server, trace=show) as client:
        await client.send(ENVELOPE, MESSAGE)
    at = [line for line, _ in trace].index("C: .")
    assert trace[at + 1][0].startswith("S: 250")
    assert (trace[at][1], trace[at + 1][1]) == (0, 1)
    assert box.received[0].content == MESSAGE


@pytest.mark.rfc("5321 §3.3 data-may-be-refused-at-once-or-at-the-end")
@pytest.mark.parametrize("code", [451, 452, 550, 554])
def test_data_may_be_refused_at_once_or_at_the_end(code: int) -> None:
    reply = Reply(code, None, "No")
    at_once = opened(refusing(Data, reply))
    at_once.send(Mail("a@b"), Rcpt("c@d"))
    assert at_once.send(Data()) == [reply]
    assert both(at_once) is State.RCPT
    at_the_end = opened(refusing(EndOfContent, reply))
    at_the_end.send(Mail("a@b"), Rcpt("c@d"), Data())
    assert at_the_end.send(Content(b"x\r\n"), EndOfContent()) == [reply]
    assert both(at_the_end) is State.READY


@pytest.mark.rfc(
    "5321 §3.3 data-without-recipients-is-refused",
    "5321 §3.3 commands-of-a-transaction-have-an-order",
)
@pytest.mark.parametrize("before", [b"", HELLO, MAIL, RCPT + b"RSET\r\n"])
def test_data_without_sender_or_recipients_is_refused(before: bytes) -> None:
    server = server_after(before)
    kept = server.state
    assert say(server, b"DATA\r\n")[:3] in (b"503", b"554")
    assert server.state is kept


@pytest.mark.rfc("5321 §3.3 data-without-recipients-is-refused")
def test_data_is_refused_where_all_recipients_were() -> None:
    pair = opened(refusing(Rcpt, Reply(550)))
    pair.send(Mail("a@b"), Rcpt("c@d"), Data())
    assert [str(reply)[:3] for reply in pair.client_events[-3:]] == ["250", "550", "503"]
    assert both(pair) is State.MAIL


@pytest.mark.rfc("5321 §3.3 no-content-after-a-refusal", "5321 §3.3 no-content-without-354")
@pytest.mark.parametrize("code", [503, 554, 500, 550, 451])
def test_no_content_is_sent_but_behind_354(code: int) -> None:
    client = client_after()
    for command in (Mail("a@b"), Rcpt("c@d"), Data()):
        for thing in (Content(b"x\r\n"), EndOfContent()):
            with pytest.raises(LocalProtocolError):
                client.send(thing)
        client.send(command)
        hear(client, b"%d so\r\n" % (code if command == Data() else 250))
    for thing in (Content(b"x\r\n"), EndOfContent()):
        with pytest.raises(LocalProtocolError):
            client.send(thing)
    client.send(Data())
    with pytest.raises(LocalProtocolError):  # nor while the answer is on its way
        client.send(Content(b"x\r\n"))
    hear(client, b"354 go\r\n")
    assert client.send(Content(b"x\r\n")) == b"x\r\n"


@pytest.mark.anyio
@pytest.mark.rfc(
    "5321 §3.3 no-content-after-a-refusal", "5321 §3.3 data-without-recipients-is-refused"
)
@pytest.mark.parametrize("refusal", ["503 Bad sequence", "554 No valid recipients", "550 No"])
@pytest.mark.parametrize("rcpt", ["250 ok", "550 no"])
async def test_a_client_whose_data_is_refused_sends_none(refusal: str, rcpt: str) -> None:
    lines: list[str] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 PIPELINING\n")
        await wire.play(f"C: MAIL *\nC: RCPT *\nC: DATA\nS: 250 ok\nS: {rcpt}\nS: {refusal}\n")
        lines.append(await wire.hear())
        await wire.say("221 bye")

    async with raw_server(behaviour) as port, clear(port) as client:
        result = await client.deliver(ENVELOPE, MESSAGE)
    assert [outcome.fate for outcome in result.outcomes] == [Fate.PERMANENT]
    assert lines == ["QUIT"]


ODD = [
    b"no header at all\r\n",
    b"\r\n",
    b": x\r\nFrom\r\n\r\n",
    b"From: a@b\r\nFrom: c@d\r\nDate: never\r\n\r\n",
    b"Content-Type: multipart/mixed\r\nContent-Transfer-Encoding: wrong\r\n\r\n--\r\n",
    b"MIME-Version: 7\r\nContent-Type: /; charset==\r\n\r\n",
]
RESENT = [
    b"Resent-To: a@b\r\n\r\n",
    b"Resent-From: a@b\r\nResent-From: c@d\r\nResent-To: e@f\r\n\r\n",
    b"Resent-To: a@b\r\nResent-From: c@d\r\n\r\n",
]
TRACES = [
    b"Received: \r\n\r\n",
    b"Received: by carrier pigeon\r\nReceived:(?;;\r\n\r\n",
    b"Return-Path: nobody\r\nReturn-Path: <>\r\nReceived\r\n\r\n",
    b"RECEIVED: from x by y; yesterday\r\n" * 30 + b"\r\n",
]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(content, marks=pytest.mark.rfc(row))
        for contents, row in (
            (ODD, "5321 §3.3 defects-in-a-message-refuse-nothing"),
            (RESENT, "5321 §3.3 resent-fields-refuse-nothing"),
            (TRACES, "5321 §3.7.2 trace-fields-refuse-nothing"),
        )
        for content in contents
    ],
)
async def test_nothing_in_a_message_makes_it_refused(content: bytes) -> None:
    box = Box()
    async with session(Server(box)) as client:
        result = await client.send(ENVELOPE, content)
    assert result.all_accepted
    assert [received.content for received in box.received] == [content]


@pytest.mark.rfc("5321 §3.3 granted-data-fails-for-a-reason-only")
@pytest.mark.parametrize(
    "content", [*ODD, *RESENT, *TRACES, b"", b"\0\xff\r\n", b"x" * 5000 + b"\r\n"]
)
def test_by_itself_a_server_accepts_what_it_has_let_in(content: bytes) -> None:
    server = server_after(DATA)
    assert say(server, content + b".\r\n").startswith(b"250")


@pytest.mark.rfc("5321 §3.3 commands-of-a-transaction-have-an-order")
@pytest.mark.parametrize(
    ("before", "wrong"),
    [
        ([], [Rcpt("c@d"), Data()]),
        ([Mail("a@b")], [Mail("x@y")]),
        ([Mail("a@b"), Rcpt("c@d")], [Mail("x@y")]),
    ],
)
def test_a_client_keeps_to_the_order(before: Sequence[Command], wrong: Sequence[Command]) -> None:
    client = client_after()
    agreed(client, *before)
    for command in wrong:
        with pytest.raises(LocalProtocolError):
            client.send(command)
    server = server_after(HELLO + b"".join(command.serialize() for command in before))
    for command in wrong:
        assert say(server, command.serialize()).startswith(b"503")
