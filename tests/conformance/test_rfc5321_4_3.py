"""RFC 5321 §4.3: who speaks when, and which replies each command may have."""

from collections.abc import Iterable

import pytest
from attrs import frozen

from smtpproto import (
    PAUSED,
    STANDARD,
    BadCommand,
    ClientConnection,
    Command,
    ConnectionClosed,
    Data,
    Ehlo,
    EndOfContent,
    Expn,
    Extension,
    Helo,
    Help,
    Limits,
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
from smtpproto.extensions import ETRN, EXPN, HELP, SIZE
from smtpproto.extensions.etrn import Etrn
from smtpproto.testing.pair import answer
from tests.conformance.ends import (
    HELLO,
    MAIL,
    RCPT,
    client_after,
    hear,
    say,
    saying,
    server_after,
)

DATA = RCPT + b"DATA\r\n"
PLACES = {b"": State.GREETED, HELLO: State.READY, MAIL: State.MAIL, RCPT: State.RCPT}


def placed(before: bytes) -> tuple[ServerConnection, ClientConnection]:
    """Both ends behind the same commands; EXPN and HELP are offered, and nothing else."""
    server = ServerConnection("mx.example", [EXPN, HELP], offer=[EXPN, HELP])
    client = ClientConnection(STANDARD)
    hear(client, answer(server)[1])
    hello: list[Command] = [Ehlo("c.example"), Mail("a@b"), Rcpt("c@d"), Data()]
    for command in hello[: before.count(b"\r\n")]:
        hear(client, say(server, client.send(command)))
    return server, client


# 4.3.1 By turns


@pytest.mark.rfc("5321 §4.3.1 command-and-reply-take-turns")
@pytest.mark.parametrize("before", [*PLACES, DATA])
def test_a_server_says_nothing_unasked_and_a_client_takes_nothing_else(before: bytes) -> None:
    server, client = placed(before)
    for code in (220, 250, 354, 450, 550):
        with pytest.raises(LocalProtocolError):
            server.send(Reply(code))
    with pytest.raises(RemoteProtocolError):
        hear(client, b"250 surprise\r\n")
    server, client = placed(before)
    assert hear(client, server.send(Reply(421))) == [Reply(421)]  # but for this one


@pytest.mark.rfc("5321 §4.3.1 client-waits-for-the-reply")
@pytest.mark.parametrize("extensions", [(), STANDARD], ids=["knows none", "knows all"])
def test_a_client_waits_for_each_reply(extensions: tuple[Extension, ...]) -> None:
    client = ClientConnection(extensions)
    hear(client, b"220 mx.example\r\n")
    for command in (Ehlo("c.example"), Mail("a@b"), Rcpt("c@d"), Rset(), Noop()):
        client.send(command)
        for early in (Rset(), Noop(), Mail("x@y"), Quit()):
            with pytest.raises(LocalProtocolError):
                client.send(early)
        hear(client, b"250-mx.exa")
        with pytest.raises(LocalProtocolError):  # half of it is none
            client.send(Rset())
        hear(client, b"mple\r\n250 SIZE\r\n")


@pytest.mark.rfc("5321 §4.3.1 client-waits-for-the-greeting")
@pytest.mark.parametrize("so_far", [b"", b"2", b"220 mx.example", b"220-mx.example\r\n"])
def test_a_client_says_nothing_before_it_was_greeted(so_far: bytes) -> None:
    client = ClientConnection(STANDARD)
    if so_far:
        hear(client, so_far)
    for command in (Ehlo("c"), Helo("c"), Noop(), Quit()):
        with pytest.raises(LocalProtocolError):
            client.send(command)
    hear(client, b"220 mx.example\r\n"[len(so_far) :] if b"-" not in so_far else b"220 x\r\n")
    client.send(Ehlo("c"))


@pytest.mark.rfc("5321 §4.3.1 talking-too-early-is-seen")
@pytest.mark.parametrize("early", [b"", b"E", b"EHLO c.example\r\n"])
def test_a_server_sees_who_talks_before_the_greeting_and_goes_on(early: bytes) -> None:
    server = ServerConnection("mx.example")
    if early:
        server.receive_data(early)
    assert server.next_event() is PAUSED  # until it has greeted
    server.send(server.suggested_reply())
    assert server.early_talker is bool(early)
    assert say(server, b"EHLO c.example\r\n"[len(early) :]).startswith(b"250")


@pytest.mark.rfc("5321 §4.3.1 server-greets-with-220")
def test_a_server_greets_with_220_before_it_hears_anything() -> None:
    server = ServerConnection("mx.example", STANDARD)
    assert server.replies_owed == 1
    assert server.suggested_reply().code == 220
    assert hear(ClientConnection(), server.send(server.suggested_reply()))[0].code == 220


@pytest.mark.rfc(
    "5321 §4.3.1 greeting-begins-with-the-name", "5321 §4.3.1 literal-where-there-is-no-name"
)
@pytest.mark.parametrize("name", ["mx.example", "[10.0.0.1]", "[IPv6:2001:db8::1]"])
def test_greetings_begin_with_the_servers_name_or_literal(name: str) -> None:
    server, client = ServerConnection(name, STANDARD), ClientConnection(STANDARD)
    said = answer(server)[1]
    assert said.split()[:2] == [b"220", name.encode()]
    assert hear(client, said)[0].text.split()[0] == name
    for hello in (Ehlo("c"), Helo("c")):
        said = say(server, client.send(hello))
        assert said[4:].split()[0] == name.encode()
        assert hear(client, said)[0].text.split()[0] == name
    for wrong in ("", "mx example", "10.0.0.1]", "a..b"):
        with pytest.raises(LocalProtocolError):
            ServerConnection(wrong)


# 4.3.2 The table


@frozen
class Sequence:
    """A line of the table: what is asked, behind what, with the codes that it may get."""

    row: str
    before: bytes
    asked: Command | EndOfContent
    codes: tuple[int, ...]
    #: Where a good answer leads.
    good: State

    @property
    def wrong(self) -> Iterable[int]:
        """A code of another kind than any that is possible here."""
        return (250, 235) if isinstance(self.asked, Data) else (354, 334)


TABLE = [
    Sequence("hello-gets-250-or", b"", Ehlo("c"), (250, 504, 550, 502), State.READY),
    Sequence("hello-gets-250-or", b"", Helo("c"), (250, 504, 550, 502), State.READY),
    Sequence(
        "mail-gets-250-or",
        HELLO,
        Mail("a@b"),
        (250, 552, 451, 452, 550, 553, 503, 455, 555),
        State.MAIL,
    ),
    Sequence(
        "rcpt-gets-250-251-or",
        MAIL,
        Rcpt("c@d"),
        (250, 251, 550, 551, 552, 553, 450, 451, 452, 503, 455, 555),
        State.RCPT,
    ),
    Sequence("data-gets-354-then-250", RCPT, Data(), (354,), State.CONTENT),
    Sequence("data-may-be-refused-with", RCPT, Data(), (503, 554), State.CONTENT),
    Sequence("data-gets-354-then-250", DATA, EndOfContent(), (250,), State.READY),
    Sequence("content-may-fail-with", DATA, EndOfContent(), (552, 554, 451, 452), State.READY),
    Sequence(
        "content-may-be-rejected-by-policy-with", DATA, EndOfContent(), (450, 550), State.READY
    ),
    Sequence("rset-gets-250", RCPT, Rset(), (250,), State.READY),
    Sequence(
        "vrfy-gets-250-251-252-or",
        HELLO,
        Vrfy("jo"),
        (250, 251, 252, 550, 551, 553, 502, 504),
        State.READY,
    ),
    Sequence(
        "expn-gets-250-252-or", HELLO, Expn("all"), (250, 252, 550, 500, 502, 504), State.READY
    ),
    Sequence("help-gets-211-214-or", HELLO, Help(), (211, 214, 502, 504), State.READY),
    Sequence("noop-gets-250", HELLO, Noop(), (250,), State.READY),
    Sequence("quit-gets-221", HELLO, Quit(), (221,), State.CLOSED),
]


def of(asked: Command | EndOfContent) -> str:
    return type(asked).__name__


@pytest.mark.parametrize(
    ("sequence", "code"),
    [
        pytest.param(
            each,
            code,
            id=f"{of(each.asked)}-{code}",
            marks=pytest.mark.rfc(f"5321 §4.3.2 {each.row}"),
        )
        for each in TABLE
        for code in each.codes
    ],
)
def test_each_reply_of_the_table_passes_and_moves_both_ends(sequence: Sequence, code: int) -> None:
    def policy(server: ServerConnection, _: object) -> Reply:
        usual = server.suggested_reply()  # with what EHLO announces
        return usual if usual.code == code else Reply(code)

    server, client = placed(sequence.before)
    kept = server.state
    said = say(server, client.send(sequence.asked), policy)
    assert [reply.code for reply in hear(client, said)] == [code]
    refused = kept if not isinstance(sequence.asked, (EndOfContent, Quit)) else sequence.good
    assert server.state is client.state is (sequence.good if code < 400 else refused)


@pytest.mark.rfc("5321 §4.3.2 any-command-may-get-500-501-421")
@pytest.mark.parametrize("code", [500, 501, 421])
@pytest.mark.parametrize("sequence", TABLE, ids=lambda each: of(each.asked))
def test_any_command_may_get_these(sequence: Sequence, code: int) -> None:
    # RSET may not be refused where it has something to drop (§4.1.1.5).
    server, client = placed(HELLO if isinstance(sequence.asked, Rset) else sequence.before)
    reply = Reply(code, None, "unusual")
    said = say(server, client.send(sequence.asked), saying(reply))
    assert hear(client, said) == [reply]
    assert server.state is client.state
    closed = code == 421 or isinstance(sequence.asked, Quit)
    assert (client.state is State.CLOSED) is closed


@pytest.mark.rfc("5321 §4.3.1 meaning-is-kept", "5321 §4.2.1 3yz-waits-for-more")
@pytest.mark.parametrize("sequence", TABLE, ids=lambda each: of(each.asked))
def test_no_reply_passes_that_its_command_cannot_come_to(sequence: Sequence) -> None:
    for code in sequence.wrong:
        server, client = placed(sequence.before)
        server.receive_data(client.send(sequence.asked))
        server.next_event()
        with pytest.raises(LocalProtocolError):
            server.send(Reply(code))
        with pytest.raises(RemoteProtocolError):
            hear(client, b"%d so\r\n" % code)


@pytest.mark.rfc("5321 §4.3.2 connection-gets-220-or-554")
@pytest.mark.parametrize(("code", "state"), [(220, State.GREETED), (554, State.REFUSED)])
def test_a_connection_is_answered_by_220_or_554(code: int, state: State) -> None:
    server, client = ServerConnection("mx.example"), ClientConnection()
    assert server.suggested_reply().code == 220
    assert hear(client, server.send(Reply(code, None, "mx.example"))) != []
    assert server.state is client.state is state
    for wrong in (354, 334):
        with pytest.raises(LocalProtocolError):
            ServerConnection("mx.example").send(Reply(wrong))
        with pytest.raises(RemoteProtocolError):
            hear(ClientConnection(), b"%d what\r\n" % wrong)


#: All that the table has for a command, and what any may get.
REPLIES: dict[bytes, set[int]] = {b"": {500, 501, 421}}
for _each in TABLE:
    if isinstance(_each.asked, Command):
        REPLIES.setdefault(_each.asked.verb, {500, 501, 421}).update(_each.codes)

SAID = [
    b"EHLO c", b"EHLO", b"EHLO a b", b"HELO [192.0.2.1", b"MAIL FROM:<a@b>", b"MAIL FROM:<>",
    b"MAIL FROM:a@b", b"MAIL FROM:<a@b> X=1", b"MAIL FROM:<a@b> SIZE=x", b"MAIL FROM:<a@b> SIZE=99",
    "MAIL FROM:<ü@b>".encode(), b"MAIL", b"RCPT TO:<c@d>", b"RCPT TO:<>", b"RCPT TO:<c@d> X=1",
    "RCPT TO:<ü@d>".encode(), b"RCPT TO:<" + b"x" * 600 + b"@d>", b"DATA", b"DATA x", b"RSET",
    b"RSET x", b"VRFY jo", b"VRFY", "VRFY ü".encode(), b"VRFY jo SMTPUTF8", b"EXPN all", b"EXPN",
    b"HELP", b"HELP MAIL", b"NOOP", b"NOOP x", b"NOOP \x01", b"QUIT", b"QUIT x", b"XYZZY", b"\0",
]  # fmt: skip


@pytest.mark.rfc("5321 §4.3.1 table-is-kept-to", "5321 §4.2 server-says-listed-codes")
@pytest.mark.parametrize("line", SAID, ids=lambda line: repr(line[:30]))
@pytest.mark.parametrize("before", PLACES, ids=lambda before: PLACES[before].name)
def test_what_a_server_says_by_itself_is_in_the_table(before: bytes, line: bytes) -> None:
    allowed = REPLIES.get(line.split(b" ")[0], REPLIES[b""])
    for extensions in ((), (SIZE, EXPN, HELP), STANDARD):
        server = ServerConnection("mx.example", extensions, limits=Limits(message=50, recipients=1))
        answer(server)
        say(server, before)
        assert int(say(server, line + b"\r\n")[:3]) in allowed


@pytest.mark.rfc("5321 §4.3.1 table-is-kept-to")
@pytest.mark.parametrize(("content", "code"), [(b"x", 250), (b"x" * 60, 552), (b"x\ny", 554)])
def test_what_a_server_says_by_itself_to_content_is_in_the_table(content: bytes, code: int) -> None:
    server = ServerConnection("mx.example", limits=Limits(message=50))
    answer(server)
    assert say(server, DATA + content + b"\r\n.\r\n").split(b"\r\n")[-2][:3] == b"%d" % code


@pytest.mark.rfc("5321 §4.3.2 extensions-may-bring-codes")
@pytest.mark.parametrize("code", [253, 458, 459])
def test_an_extension_may_bring_codes_of_its_own(code: int) -> None:
    server = ServerConnection("mx.example", [ETRN], offer=[ETRN])
    answer(server)
    say(server, HELLO)
    client = client_after(b"250-mx.example\r\n250 ETRN\r\n")
    said = say(server, client.send(Etrn("c.example")), saying(Reply(code, None, "so")))
    assert hear(client, said) == [Reply(code, None, "so")]
    assert server.state is client.state is State.READY


@pytest.mark.rfc("5321 §4.3.2 statuses-say-more-than-new-codes")
def test_what_501_means_is_told_by_its_status() -> None:
    server = server_after(HELLO, STANDARD)
    for line, status in (
        (b"MAIL FROM:a", b"5.1.7"),
        (b"MAIL FROM:<a@b> SIZE=x", b"5.5.4"),
        (b"MAIL FROM:<a@b>\0", b"5.5.2"),
    ):
        assert say(server, line + b"\r\n")[:9] == b"501 " + status


# What any command may come to


@pytest.mark.rfc("5321 §4.3.2 500-for-too-long-or-unknown")
@pytest.mark.parametrize("before", PLACES)
def test_500_is_for_a_line_too_long_and_for_an_unknown_verb(before: bytes) -> None:
    server = server_after(before)
    for line in (b"XYZZY", b"NOOPS", b"", b"NOOP " + b"x" * 506, b"x" * 1000):
        assert say(server, line + b"\r\n").startswith(b"500")


@pytest.mark.rfc("5321 §4.3.2 required-commands-are-recognized")
@pytest.mark.parametrize("before", PLACES, ids=lambda before: PLACES[before].name)
def test_no_required_command_is_unknown(before: bytes) -> None:
    for verb in (b"EHLO", b"HELO", b"MAIL", b"RCPT", b"DATA", b"RSET", b"NOOP", b"QUIT", b"VRFY"):
        for written in (verb, verb.lower(), verb.capitalize()):
            for argument in (b"", b" x", b" FROM:<a@b>"):
                said = say(server_after(before), written + argument + b"\r\n")
                assert said[:3] not in (b"500", b"502", b"")


@pytest.mark.rfc("5321 §4.3.2 512-octets-are-not-too-long")
@pytest.mark.parametrize("octets", [511, 512])
def test_a_line_of_512_octets_is_not_too_long(octets: int) -> None:
    def filled(line: bytes, end: bytes = b"") -> bytes:
        return line + b"x" * (octets - len(line) - len(end) - 2) + end + b"\r\n"

    for before, line in (
        (b"", filled(b"NOOP ")),
        (b"", filled(b"VRFY ")),
        (b"", filled(b"EHLO ")),
        (HELLO, filled(b"MAIL FROM:<", b"@b>")),
        (HELLO, filled(b"MAIL FROM:<a@b> X=")),
        (MAIL, filled(b"RCPT TO:<c@", b">")),
        (RCPT, filled(b"RSET ")),
    ):
        assert len(line) == octets
        server = server_after(before)
        server.receive_data(line)
        event = server.next_event()
        reply = event.reply if isinstance(event, BadCommand) else server.suggested_reply()
        assert reply.code != 500


@pytest.mark.rfc("5321 §4.3.2 501-for-syntax")
@pytest.mark.parametrize(
    ("before", "line"),
    [
        (b"", b"EHLO"),
        (b"", b"HELO a b"),
        (HELLO, b"MAIL TO:<a@b>"),
        (HELLO, b"MAIL FROM:<a@b>SIZE=1"),
        (MAIL, b"RCPT TO:c@d"),
        (HELLO, b"VRFY"),
        (HELLO, b"NOOP \x07"),
    ],
)
def test_501_is_for_a_known_verb_with_a_malformed_argument(before: bytes, line: bytes) -> None:
    server = server_after(before)
    assert say(server, line + b"\r\n").startswith(b"501")
    assert server.state is PLACES[before]


@pytest.mark.rfc("5321 §4.3.2 501-for-needless-arguments")
@pytest.mark.parametrize("verb", [b"DATA", b"RSET", b"QUIT"])
@pytest.mark.parametrize("before", [HELLO, RCPT])
def test_what_takes_no_argument_gets_501_with_one(before: bytes, verb: bytes) -> None:
    server = server_after(before, STANDARD)
    for argument in (b"x", b"FROM:<a@b>", b"SIZE=1"):
        assert say(server, verb + b" " + argument + b"\r\n").startswith(b"501")
        assert server.state is PLACES[before]


@pytest.mark.rfc("5321 §4.3.2 421-shuts-down")
@pytest.mark.parametrize("before", [*PLACES, DATA])
@pytest.mark.parametrize("asked", [False, True])
def test_421_closes_at_any_time_asked_or_not(before: bytes, asked: bool) -> None:
    server, client = placed(before)
    if asked:
        server.receive_data(client.send(EndOfContent() if before == DATA else Noop()))
        server.next_event()
    reply = Reply(421, None, "mx.example is going down")
    assert hear(client, server.send(reply)) == [reply]
    for end in (server, client):
        assert end.state is State.CLOSED
        assert end.next_event() == ConnectionClosed()
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250))
    with pytest.raises(LocalProtocolError):
        client.send(Quit())
