"""RFC 2920: groups of commands, and their replies."""

import itertools

import anyio
import pytest

from smtpproto import (
    PAUSED,
    STANDARD,
    Auth,
    BadCommand,
    Chunk,
    ClientConnection,
    Command,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Expn,
    Helo,
    Help,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    RemoteProtocolError,
    Reply,
    Rset,
    ServerConnection,
    State,
    Vrfy,
)
from smtpproto.extensions import PIPELINING
from smtpproto.extensions.etrn import Etrn
from smtpproto.mechanisms import PLAIN
from smtpproto.server import Server
from smtpproto.testing.pair import Pair, answer, octet_by_octet
from tests.adapters.world import Box, Scripted
from tests.conformance.ends import HELLO, MAIL, RCPT, client_after, hear, say, saying, server_after

OFFER = b"250-mx.example\r\n250-CHUNKING\r\n250-EXPN\r\n250-HELP\r\n250-ETRN\r\n250 PIPELINING\r\n"


def pipelining(*commands: Command) -> ClientConnection:
    """A client that has sent these in one group."""
    client = client_after(OFFER)
    for command in commands:
        client.send(command)
    return client


def codes(said: bytes) -> list[str]:
    """The codes of the replies in it."""
    return [line[:3].decode() for line in said.split(b"\r\n") if line[3:4] == b" "]


# 2 and 3: what it is


@pytest.mark.rfc("2920 §2 keyword-is-pipelining", "2920 §2 keyword-stands-alone")
def test_the_keyword_is_said_and_looked_for() -> None:
    said = say(server_after(extensions=(PIPELINING,)), HELLO)
    assert said.endswith(b"\r\n250 PIPELINING\r\n")
    client = client_after(said)
    client.send(Mail("a@b"))
    client.send(Rcpt("c@d"))
    assert b"PIPELINING" not in say(server_after(), HELLO)


@pytest.mark.rfc("2920 §2 no-parameters-and-no-verbs")
def test_it_brings_no_parameters_and_no_verbs() -> None:
    assert (PIPELINING.mail, PIPELINING.rcpt, PIPELINING.verbs) == ((), (), ())
    server = server_after(HELLO, (PIPELINING,))
    assert say(server, b"MAIL FROM:<a@b> PIPELINING\r\n").startswith(b"555")
    assert say(server, b"PIPELINING\r\n").startswith(b"500")
    with pytest.raises(LocalProtocolError):
        pipelining().send(Mail("a@b", {"PIPELINING": None}))


@pytest.mark.rfc("2920 §3 ehlo-comes-first", "2920 §3 announced-is-permitted")
def test_no_group_before_ehlo_was_answered_with_the_keyword() -> None:
    client = ClientConnection(STANDARD)
    hear(client, b"220 mx.example\r\n")
    for hello, reply, may in (
        (None, b"", False),
        (Ehlo("c"), b"550 PIPELINING\r\n", False),
        (Ehlo("c"), b"250 PIPELINING\r\n", False),  # the server may have any name
        (Ehlo("c"), b"250-mx.example\r\n250 PIPELINING\r\n", True),
        (Helo("c"), b"250-mx.example\r\n250 PIPELINING\r\n", False),
        (Ehlo("c"), b"250-mx.example\r\n250 pipelining\r\n", True),
    ):
        if hello:
            client.send(hello)
            with pytest.raises(LocalProtocolError):  # whatever an earlier one announced
                client.send(Rset())
            hear(client, reply)
        client.send(Rset())
        if may:
            client.send(Rset())
        else:
            with pytest.raises(LocalProtocolError):
                client.send(Rset())
        hear(client, b"250 ok\r\n" * client.owed)


# 3.1: the client


GROUP: list[Command] = [
    Rset(), Mail("a@b"), Rcpt("c@d"), Rset(), Mail("e@f"), Rcpt("g@h"), Rcpt("i@j"), Data(),
]  # fmt: skip


@pytest.mark.rfc("2920 §3.1 commands-may-go-in-groups", "2920 §3.1 rset-mail-and-rcpt-go-anywhere")
def test_a_group_is_sent_before_it_is_answered() -> None:
    pair = Pair(ServerConnection("mx.example", STANDARD), ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    replies = pair.send(*GROUP)
    assert [str(reply)[:3] for reply in replies] == ["250"] * 7 + ["354"]
    assert pair.server_events[-len(GROUP) :] == GROUP
    assert pair.client.state is pair.server.state is State.CONTENT


@pytest.mark.rfc("2920 §3.1 others-end-a-group")
@pytest.mark.parametrize(
    "last", [Ehlo("c"), Helo("c"), Vrfy("jo"), Expn("all"), Quit(), Noop()], ids=repr
)
def test_nothing_is_sent_behind_these(last: Command) -> None:
    client = pipelining(Mail("a@b"), Rcpt("c@d"), last)
    for command in (Rset(), Noop(), Rcpt("e@f"), Quit()):
        with pytest.raises(LocalProtocolError):
            client.send(command)
    assert client.owed == 3


@pytest.mark.rfc("2920 §3.1 others-end-a-group")
def test_nothing_is_sent_behind_data() -> None:
    client = pipelining(Mail("a@b"), Rcpt("c@d"), Data())
    for thing in (Rset(), Content(b"x"), EndOfContent(), Quit()):
        with pytest.raises(LocalProtocolError):
            client.send(thing)


@pytest.mark.rfc("2920 §3.1 verbs-of-extensions-end-a-group")
@pytest.mark.parametrize("last", [Help(), Etrn("c.example")], ids=repr)
def test_nor_behind_the_verbs_of_extensions(last: Command) -> None:
    client = pipelining(Rset(), last)
    with pytest.raises(LocalProtocolError):
        client.send(Rset())
    # RFC 3030 §4.2 says otherwise of BDAT, and so does Postfix's XFORWARD_README of XFORWARD.
    verbs: list[type[Command]] = [verb for e in STANDARD for verb in e.verbs]
    assert {verb.verb for verb in verbs if verb.pipelined} == {b"BDAT", b"XFORWARD"}


@pytest.mark.rfc("2920 §3.1 noop-waits-for-all")
def test_the_reply_to_noop_is_the_last_of_its_group() -> None:
    client = pipelining(Mail("a@b"), Rcpt("c@d"), Noop())
    client.receive_data(b"250 mail\r\n550 rcpt\r\n")
    assert [client.next_event(), client.next_event()] == [
        Reply(250, None, "mail"),
        Reply(550, None, "rcpt"),
    ]
    assert client.owed == 1
    assert hear(client, b"250 noop\r\n") == [Reply(250, None, "noop")]
    assert client.owed == 0
    client.send(Rset())


@pytest.mark.rfc("2920 §3.1 content-may-begin-a-group")
def test_the_next_transaction_may_follow_the_content_at_once() -> None:
    server = server_after(RCPT + b"DATA\r\n", STANDARD)
    said = say(server, b"text\r\n.\r\nRSET\r\nMAIL FROM:<e@f>\r\nRCPT TO:<g@h>\r\nDATA\r\n")
    assert codes(said) == ["250", "250", "250", "250", "354"]
    pair = Pair(ServerConnection("mx.example", STANDARD), ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    pair.send(Mail("a@b"), Rcpt("c@d"))
    replies = pair.send(Chunk(b"text\r\n", last=True), Mail("e@f"), Rcpt("g@h"))
    assert [str(reply)[:3] for reply in replies] == ["250", "250", "250"]
    assert pair.client.state is pair.server.state is State.RCPT


@pytest.mark.rfc(
    "2920 §3.1 every-status-is-checked",
    "2920 §3.1 replies-are-counted",
    "2920 §3.1 replies-are-not-matched-by-what-they-say",
)
@pytest.mark.parametrize("replies", [*itertools.product((250, 451, 550), repeat=3)])
def test_each_reply_is_that_to_the_command_whose_turn_it_is(replies: tuple[int, int, int]) -> None:
    client = pipelining(Mail("a@b"), Rcpt("c@d"), Rcpt("e@f"), Rcpt("g@h"))
    hear(client, b"250 354 DATA\r\n")
    # In texts that speak of other commands.
    texts = (b"Recipient <g@h> ok", b"250 Sender <e@f>", b"QUIT: RSET ok")
    told = hear(client, b"".join(b"%d %b\r\n" % each for each in zip(replies, texts, strict=True)))
    assert [reply.code for reply in told] == [*replies]
    assert client.owed == 0
    assert client.state is (State.RCPT if 250 in replies else State.MAIL)


@pytest.mark.rfc("2920 §3.1 replies-are-counted")
def test_a_reply_more_than_commands_cannot_be_followed() -> None:
    client = pipelining(Mail("a@b"), Rcpt("c@d"))
    with pytest.raises(RemoteProtocolError):
        hear(client, b"250 ok\r\n" * 3)


@pytest.mark.rfc("2920 §3.1 data-may-succeed-without-recipients")
@pytest.mark.parametrize(("reply", "state"), [(b"354 go", "CONTENT"), (b"554 nobody", "MAIL")])
def test_the_reply_to_data_is_awaited_though_nobody_was_accepted(reply: bytes, state: str) -> None:
    client = pipelining(Mail("a@b"), Rcpt("c@d"), Data())
    hear(client, b"250 ok\r\n550 no\r\n")
    assert client.owed == 1
    with pytest.raises(LocalProtocolError):
        client.send(Rset())
    hear(client, reply + b"\r\n")
    assert (client.owed, client.state.name) == (0, state)


@pytest.mark.rfc("2920 §3.1 refused-data-leaves-rset")
def test_behind_refused_data_rset_is_enough() -> None:
    client = pipelining(Mail("a@b"), Rcpt("c@d"), Data())
    hear(client, b"250 ok\r\n550 no\r\n503 nobody\r\n")
    assert client.send(Rset()) == b"RSET\r\n"
    hear(client, b"250 ok\r\n")
    assert client.state is State.READY


@pytest.mark.rfc("2920 §3.1 needless-354-gets-a-single-dot")
def test_behind_a_needless_354_a_single_dot_is_enough() -> None:
    client = pipelining(Mail("a@b"), Rcpt("c@d"), Data())
    hear(client, b"250 ok\r\n550 no\r\n354 go\r\n")
    assert client.send(EndOfContent()) == b".\r\n"
    hear(client, b"554 nobody\r\n")
    assert client.state is State.READY


@pytest.mark.rfc(
    "2920 §3.1 multiline-replies-in-a-group",
    "2920 §3.1 replies-are-not-run-together",
    "2920 §3.1 reply-ends-with-the-line-without-a-hyphen",
)
@pytest.mark.parametrize("lines", [*itertools.product((1, 2, 3), repeat=3)])
def test_replies_of_many_lines_are_told_apart(lines: tuple[int, int, int]) -> None:
    client = pipelining(Mail("a@b"), Rcpt("c@d"), Rcpt("e@f"))
    replies = [Reply(250, None, ["250 ok"] * count) for count in lines]
    wire = b"".join(reply.serialize() for reply in replies)
    assert [r for octet in octet_by_octet(wire) for r in hear(client, octet)] == replies
    assert client.owed == 0


@pytest.mark.rfc("2920 §3.1 replies-may-be-read-while-sending")
def test_replies_may_be_read_while_the_group_goes_on() -> None:
    client = pipelining(Mail("a@b"), Rcpt("c@d"))
    assert hear(client, b"250 mail\r\n") == [Reply(250, None, "mail")]
    client.send(Rcpt("e@f"))
    assert hear(client, b"550 first\r\n250 sec") == [Reply(550, None, "first")]
    client.send(Data())
    assert hear(client, b"ond\r\n354 data\r\n")[-1] == Reply(354, None, "data")
    assert (client.owed, client.state) == (0, State.CONTENT)


# 3.2: the server


@pytest.mark.rfc("2920 §3.2 answers-in-order")
def test_a_server_answers_in_order() -> None:
    server = server_after(HELLO, STANDARD)
    server.receive_data(b"MAIL FROM:<a@b>\r\nXYZZY\r\nRSET\r\nVRFY jo\r\nRCPT TO:<c@d>\r\n")
    asked: list[object] = []
    said = b""
    for number in range(5):
        event = server.next_event()
        asked.append(event.line if isinstance(event, BadCommand) else event)
        assert server.next_event() is PAUSED  # the next is not looked at before
        said += server.send(Reply(550, "5.0.0", f"reply {number}"))
    assert asked == [Mail("a@b"), b"XYZZY", Rset(), Vrfy("jo"), b"RCPT TO:<c@d>"]
    assert [line[-1:] for line in said.splitlines()] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.rfc("2920 §3.2 data-succeeds-with-a-recipient-and-only-then")
@pytest.mark.parametrize("refused", [0, 1, 2])
def test_354_is_said_with_a_recipient_and_only_then(refused: int) -> None:
    server = server_after(MAIL, STANDARD)
    for _ in range(refused):
        say(server, b"RCPT TO:<no@d>\r\n", saying(Reply(550)))
    server.receive_data(b"DATA\r\n")
    bad = server.next_event()
    assert isinstance(bad, BadCommand)
    assert bad.reply.code == 503
    with pytest.raises(LocalProtocolError):
        server.send(Reply(354))
    server.send(bad.reply)
    assert codes(say(server, b"RCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n")) == [
        "250",
        "250",
        "354",
    ]


@pytest.mark.rfc("2920 §3.2 empty-message-to-nobody-goes-nowhere")
def test_a_dot_behind_refused_data_is_no_message() -> None:
    server = server_after(MAIL, STANDARD)
    server.receive_data(b"DATA\r\n.\r\nNOOP\r\n")
    events, said = answer(server)
    assert codes(said) == ["503", "500", "250"]
    assert not any(isinstance(event, (Content, EndOfContent)) for event in events)
    assert server.envelope is None


@pytest.mark.rfc("2920 §3.2 nothing-is-assumed-of-what-comes")
def test_what_is_answered_does_not_depend_on_what_follows() -> None:
    octets = RCPT + b"DATA\r\nx\r\n.\r\nXYZZY\r\nMAIL FROM:<e@f>\r\nDATA\r\nRSET\r\n"
    lines = octets.splitlines(keepends=True)
    whole = say(server_after(extensions=STANDARD), b"".join(lines))
    for count in range(1, len(lines)):
        server = server_after(extensions=STANDARD)
        begun = say(server, b"".join(lines[:count]))
        assert begun + say(server, b"".join(lines[count:])) == whole


@pytest.mark.rfc("2920 §3.2 input-is-not-lost")
@pytest.mark.parametrize(
    ("before", "octets"),
    [
        (HELLO, b"XYZZY\r\n"),
        (HELLO, b"MAIL FROM:a\r\n"),
        (HELLO, b"NOOP " + b"x" * 5000 + b"\r\n"),
        (HELLO, b"EHLO again\r\n"),
        (HELLO, b"AUTH PLAIN !\r\n"),
        (HELLO, b"AUTH PLAIN\r\n*\r\n"),
        (RCPT, b"RSET\r\n"),
        (RCPT, b"DATA\r\nx\r\n.\r\n"),
        (RCPT, b"DATA\r\nx\ny\r\n.\r\n"),
        (RCPT, b"BDAT 4 LAST\r\nx\ny\n"),
        (HELLO, b"BDAT 4\r\nNOOP"),
    ],
)
def test_what_was_received_is_not_dropped(before: bytes, octets: bytes) -> None:
    server = ServerConnection("mx.example", STANDARD, mechanisms=[PLAIN], plaintext_auth=True)
    answer(server)
    say(server, before)

    def policy(server: ServerConnection, event: object) -> Reply:
        return Reply(334) if event == Auth("PLAIN") else server.suggested_reply()

    said = say(server, octets + b"VRFY one\r\nVRFY two\r\n", policy)
    assert said.count(b"252 ") == 2


@pytest.mark.rfc("2920 §3.2 texts-tell-their-command")
def test_replies_of_a_group_tell_their_commands() -> None:
    said = say(server_after(HELLO), b"RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRSET\r\n")
    assert said == b"250 Reset\r\n250 Sender ok\r\n250 Recipient ok\r\n250 Reset\r\n"


# What leaves when, of our Server


class Watched(Scripted):
    """Keeps in `waited_with` what had been sent when it was asked for more input."""

    def __init__(self, *chunks: bytes) -> None:
        super().__init__(*chunks)
        self.waited_with: list[bytes] = []

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        self.waited_with.append(b"".join(self.sent))
        return await super().receive(max_bytes)


UNKNOWN = pytest.mark.rfc("2920 §3.2 replies-to-the-unknown-leave-at-once")
GROUPED = b"RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nRSET\r\n"


async def served(*chunks: bytes) -> Watched:
    """What our Server writes for these, and then the end."""
    stream = Watched(HELLO, *chunks, b"QUIT\r\n")
    with anyio.fail_after(60):
        await Server(Box(), offer=STANDARD).serve_stream(stream)
    return stream


@pytest.mark.anyio
@pytest.mark.rfc("2920 §3.2 replies-of-a-group-leave-together")
async def test_the_replies_to_a_group_are_one_write() -> None:
    stream = await served(GROUPED)
    assert [write.count(b"\r\n") for write in stream.sent[2:]] == [5, 1]


@pytest.mark.anyio
@pytest.mark.rfc("2920 §3.2 other-replies-leave-at-once")
@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"EHLO again.example", b"250"),
        (b"DATA", b"503"),
        (b"VRFY jo", b"252"),
        (b"EXPN all", b"252"),
        (b"NOOP", b"250"),
        pytest.param(b"XYZZY", b"500", marks=UNKNOWN),
        pytest.param(b"", b"500", marks=UNKNOWN),
    ],
)
async def test_other_replies_are_not_held_back(line: bytes, code: bytes) -> None:
    stream = await served(b"RSET\r\n" + line + b"\r\n" + GROUPED)
    first, second, _ = stream.sent[2:]
    assert first.split(b"\r\n")[1].startswith(code)
    assert second.count(b"\r\n") == 5  # none of those behind it left with it


@pytest.mark.anyio
@pytest.mark.rfc("2920 §3.2 other-replies-leave-at-once")
async def test_nor_are_those_to_data_and_quit() -> None:
    stream = await served(GROUPED[6:-6] + b"DATA\r\nx\r\n.\r\n" + GROUPED)
    last = [write.splitlines()[-1][:3] for write in stream.sent[2:]]
    assert last == [b"354", b"250", b"250", b"221"]


@pytest.mark.anyio
@pytest.mark.rfc("2920 §3.2 held-replies-leave-before-waiting")
@pytest.mark.parametrize("cut", range(1, len(GROUPED)))
async def test_a_server_waits_for_nothing_while_it_holds_replies_back(cut: int) -> None:
    stream = await served(GROUPED[:cut], GROUPED[cut:])
    whole = GROUPED[:cut].count(b"\r\n")
    # Greeting, EHLO's reply, then all that was asked for in whole lines.
    before = stream.waited_with[1].count(b"\r\n")
    assert stream.waited_with[2].count(b"\r\n") - before == whole
    assert stream.waited_with[3].count(b"\r\n") - before == 5
