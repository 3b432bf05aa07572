"""RFC 5321 §4.2 to §4.2.5: what the codes mean, by their digits and each for itself."""

from collections.abc import Iterator

import pytest

from smtpproto import (
    STANDARD,
    Auth,
    AuthResponse,
    ClientConnection,
    Command,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Envelope,
    Limits,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reply,
    Rset,
    ServerConnection,
    Severity,
    State,
    Vrfy,
    conversation,
    dialogue,
)
from smtpproto.core import offer, reception, refusal
from smtpproto.core.command import BASE_VERBS
from smtpproto.extensions import EXPN, HELP, SIZE
from smtpproto.mechanisms import PLAIN
from smtpproto.server import Server
from smtpproto.testing.pair import answer
from tests.adapters.world import Box, Scripted
from tests.conformance.ends import (
    HELLO,
    MAIL,
    RCPT,
    agreed,
    client_after,
    hear,
    say,
    saying,
    server_after,
)

#: Those of RFC 5321 §4.2.2-3.
LISTED = {
    211, 214, 220, 221, 250, 251, 252, 354, 421, 450, 451, 452, 455,
    500, 501, 502, 503, 504, 550, 551, 552, 553, 554, 555,
}  # fmt: skip
#: What extensions added: AUTH (RFC 4954 §4, §6) and ETRN (RFC 1985 §5.1).
OF_EXTENSIONS = {235, 334, 454, 535, 458}


def own_replies() -> Iterator[tuple[str, Reply]]:
    """Name and reply of all that a server has ready to say by itself."""
    for room in (refusal, offer, reception, conversation, dialogue):
        for name, value in vars(room).items():
            if isinstance(value, Reply):
                yield name, value
    for state, reply in refusal.OUT_OF_SEQUENCE.items():
        yield state.name, reply
    verbs: list[type[Command]] = [*BASE_VERBS.values(), AuthResponse]
    for verb in (*verbs, *(verb for e in STANDARD for verb in e.verbs)):
        yield verb.__name__, verb.suggested


OWN = sorted(set(own_replies()), key=lambda found: (found[0], found[1].code))


def placed(before: bytes) -> tuple[ServerConnection, ClientConnection]:
    """Both ends, behind the same commands."""
    server, client = server_after(before), client_after()
    agreed(client, *(Mail("a@b"), Rcpt("c@d"), Data())[: before.count(b"\r\n") - 1])
    return server, client


# What a server has ready


@pytest.mark.rfc(
    "5321 §4.2 codes-come-with-words",
    "5321 §4.2 server-says-listed-codes",
    "5321 §4.2.1 no-codes-are-invented",
    "5321 §4.3.2 statuses-say-more-than-new-codes",
)
@pytest.mark.parametrize(("name", "reply"), OWN)
def test_what_a_server_has_ready_has_a_listed_code_and_words(name: str, reply: Reply) -> None:
    assert reply.code in LISTED | OF_EXTENSIONS
    assert all(line.strip() for line in reply.lines)
    assert (reply.status is None) is (reply.severity is Severity.INTERMEDIATE), name


@pytest.mark.rfc("5321 §4.2 later-codes-may-be-sent")
@pytest.mark.parametrize("code", [259, 459, 521, 556])
def test_codes_of_later_rfcs_can_be_sent(code: int) -> None:
    server, client = placed(MAIL)
    said = say(server, client.send(Rcpt("c@d")), saying(Reply(code, None, "so")))
    assert said == b"%d so\r\n" % code
    assert hear(client, said) == [Reply(code, None, "so")]
    assert client.state is server.state


@pytest.mark.rfc("5321 §4.2.1 texts-are-free", "5321 §4.3.1 text-may-be-replaced")
def test_the_words_of_a_reply_may_be_any() -> None:
    server = server_after(HELLO)
    for words in ("Ok", "Fine by me", "", "250 is the code"):
        said = say(server, b"NOOP\r\n", saying(Reply(250, None, words)))
        assert said == b"250 %b\r\n" % words.encode()


# The first digit


@pytest.mark.rfc("5321 §4.2.1 first-digit-says-how-it-went")
def test_the_first_digit_says_how_it_went() -> None:
    for code in (*range(200, 260), *range(300, 360), *range(400, 460), *range(500, 560)):
        assert Reply(code).severity == int(str(code)[0])
        assert Reply.parse(b"%d x\r\n" % code).severity == int(str(code)[0])
    assert [severity.name for severity in Severity] == [
        "COMPLETION", "INTERMEDIATE", "TRANSIENT", "PERMANENT",
    ]  # fmt: skip


@pytest.mark.rfc(
    "5321 §4.2.1 first-digit-suffices",
    "5321 §4.2 first-digit-is-looked-at",
    "5321 §4.2 unlisted-codes-are-handled",
    "5321 §4.2.1 third-digit-moves-nothing",
    "5321 §4.3.2 client-goes-by-the-first-digit",
    "5321 §4.3.2 unrecognized-codes-are-handled",
)
@pytest.mark.parametrize("first", [2, 3, 4, 5])
def test_a_client_moves_alike_for_all_codes_with_the_same_first_digit(first: int) -> None:
    for code in range(100 * first, 100 * first + 100):
        if code == 421:
            continue
        client = client_after()
        agreed(client, Mail("a@b"), Rcpt("c@d"))
        # A refused RSET would be the end (§4.1.1.5).
        client.send({2: Rset(), 3: Data()}.get(first, Noop()))
        hear(client, b"%d what is that\r\n" % code)
        assert client.state is {2: State.READY, 3: State.CONTENT}.get(first, State.RCPT)


@pytest.mark.rfc("5321 §4.2.1 2yz-completes")
def test_2yz_is_done_and_the_next_may_be_asked() -> None:
    server, client = placed(HELLO)
    for command, state in (
        (Mail("a@b"), State.MAIL),
        (Rcpt("c@d"), State.RCPT),
        (Rset(), State.READY),
        (Mail("e@f"), State.MAIL),
    ):
        hear(client, say(server, client.send(command), saying(Reply(250))))
        assert server.state is client.state is state
        assert client.owed == server.replies_owed == 0


@pytest.mark.rfc("5321 §4.2.1 3yz-waits-for-more")
def test_3yz_waits_for_what_is_missing() -> None:
    server, client = placed(RCPT)
    hear(client, say(server, client.send(Data())))
    assert server.state is client.state is State.CONTENT
    assert server.envelope == Envelope("a@b", ["c@d"])  # nothing is done so far
    server.receive_data(client.send(Content(b"x\r\n")) + client.send(EndOfContent()))
    assert server.next_event() == Content(b"x\r\n")
    # Only these two can be answered so; see the sequences of §4.3.2 for the other commands.
    server = ServerConnection("mx.example", STANDARD, mechanisms=(PLAIN,), plaintext_auth=True)
    answer(server)
    say(server, HELLO)
    client = client_after(b"250-mx.example\r\n250 AUTH PLAIN\r\n")
    hear(client, say(server, client.send(Auth("PLAIN")), saying(Reply(334))))
    assert server.state is client.state is State.AUTH


@pytest.mark.rfc("5321 §4.2.1 4yz-may-be-asked-again")
@pytest.mark.parametrize("code", [450, 451, 452, 455])
def test_what_got_4yz_may_be_asked_again(code: int) -> None:
    server, client = placed(MAIL)
    for reply in (Reply(code), Reply(code), Reply(250)):
        said = say(server, client.send(Rcpt("c@d")), saying(reply))
        assert hear(client, said) == [reply]
    assert server.state is client.state is State.RCPT


@pytest.mark.rfc("5321 §4.2.1 5yz-may-be-sent-again-on-demand")
@pytest.mark.parametrize("code", [500, 550, 554])
def test_what_got_5yz_may_be_sent_again_by_who_wants_to(code: int) -> None:
    client = client_after()
    client.send(Mail("a@b"))
    hear(client, b"%d no\r\n" % code)
    assert client.send(Mail("a@b")) == b"MAIL FROM:<a@b>\r\n"
    hear(client, b"250 ok\r\n")
    assert client.state is State.MAIL


@pytest.mark.rfc("5321 §4.2.1 4yz-did-nothing")
@pytest.mark.rfc("5321 §4.2.1 5yz-did-nothing")
@pytest.mark.parametrize("code", [450, 451, 500, 550, 554])
@pytest.mark.parametrize(
    ("before", "command"),
    [
        (HELLO, Mail("x@y")),
        (MAIL, Rcpt("x@y")),
        (RCPT, Rcpt("x@y")),
        (RCPT, Data()),
        (HELLO, Rset()),
        (RCPT, Ehlo("other.example")),
        (RCPT, Vrfy("x")),
    ],
)
def test_what_was_refused_changed_nothing(before: bytes, command: Command, code: int) -> None:
    server, client = placed(before)
    kept = server.state, server.envelope, server.helo_name, dict(client.offered)
    hear(client, say(server, client.send(command), saying(Reply(code))))
    assert (server.state, server.envelope, server.helo_name, client.offered) == kept
    assert client.state is client.asked is server.state


@pytest.mark.rfc("5321 §4.2.1 4yz-is-what-can-pass")
def test_4yz_is_for_what_the_same_command_can_pass_another_time() -> None:
    server = ServerConnection("mx.example", [SIZE], limits=Limits(recipients=1, message=10))
    answer(server)
    many = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n"
    assert say(server, HELLO + many).endswith(b"452 Too many recipients\r\n")
    assert say(server, b"RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<e@f>\r\n").count(b"250") == 3
    for line in (b"MAIL FROM:<a@b> SIZE=11", b"MAIL FROM:a", b"XYZZY", b"DATA x", b"RCPT TO:<>"):
        for _ in range(2):  # it will never be otherwise
            assert say(server, b"RSET\r\n" + line + b"\r\n").split(b"\r\n")[1][:1] == b"5"
    # What passes: a crowd, a shortage, a failure of our own.
    passing = {name for name, reply in OWN if reply.severity is Severity.TRANSIENT}
    assert passing == {
        "TOO_MANY_RECIPIENTS", "TOO_MANY_ERRORS", "TOO_MANY_CONNECTIONS", "TOO_MANY_LOGINS",
        "TOO_SLOW", "NO_LOGIN_NOW", "NOT_NOW", "SHUTTING_DOWN", "HANDLER_FAILED", "Etrn",
    }  # fmt: skip


@pytest.mark.rfc("5321 §4.2.1 no-1yz")
def test_a_command_has_one_final_reply() -> None:
    server, client = placed(HELLO)
    server.receive_data(client.send(Noop()))
    assert server.next_event() == Noop()
    said = server.send(Reply(250))
    assert (hear(client, said), client.owed, server.replies_owed) == ([Reply(250)], 0, 0)


# The second digit


@pytest.mark.parametrize(
    ("before", "octets", "second"),
    [
        pytest.param(before, octets, int(second), marks=pytest.mark.rfc(f"5321 §4.2.1 {row}"))
        for second, row, cases in (
            (
                "0",
                "x0z-is-syntax",
                [
                    (b"", b"XYZZY\r\n"),
                    (b"", b"EHLO\r\n"),
                    (b"", b"MAIL FROM:<a@b>\r\n"),
                    (HELLO, b"NOOP " + b"x" * 600 + b"\r\n"),
                    (HELLO, b"MAIL FROM:a\r\n"),
                    (HELLO, b"RSET x\r\n"),
                    (HELLO, b"STARTTLS\r\n"),
                    (HELLO, b"ETRN a.example\r\n"),
                    (HELLO, b"AUTH PLAIN\r\n"),
                    (MAIL, b"DATA\r\n"),
                ],
            ),
            ("1", "x1z-is-information", [(b"", b"HELP\r\n"), (RCPT, b"HELP MAIL\r\n")]),
            ("2", "x2z-is-the-channel", [(b"", b"QUIT\r\n"), (RCPT, b"QUIT\r\n")]),
            (
                "5",
                "x5z-is-the-mail-system",
                [
                    (b"", b"EHLO c\r\n"),
                    (b"", b"VRFY jo\r\n"),
                    (HELLO, b"MAIL FROM:<a@b>\r\n"),
                    (HELLO, b"MAIL FROM:<a@b> X=1\r\n"),
                    (HELLO, "MAIL FROM:<ü@b>\r\n".encode()),
                    (HELLO, b"MAIL FROM:<a@b> SIZE=99999999999\r\n"),
                    (MAIL, b"RCPT TO:<c@d>\r\n"),
                    (RCPT, b"DATA\r\n"),
                    (RCPT + b"DATA\r\n", b"x\r\n.\r\n"),
                    (RCPT + b"DATA\r\n", b"x\n\r\n.\r\n"),
                    (RCPT, b"RSET\r\n"),
                ],
            ),
        )
        for before, octets in cases
    ],
)
def test_the_second_digit_is_that_of_what_it_is_about(
    before: bytes, octets: bytes, second: int
) -> None:
    said = say(server_after(before, STANDARD), octets)
    assert said[1:2] == b"%d" % second


@pytest.mark.rfc("5321 §4.2.1 x2z-is-the-channel")
def test_the_greeting_and_all_that_closes_is_about_the_channel() -> None:
    assert answer(ServerConnection("mx.example"))[1].startswith(b"220")
    closing = [reply for name, reply in OWN if name.startswith(("TOO_SLOW", "NOT_NOW", "SHUT"))]
    closing += [refusal.TOO_MANY_ERRORS, Quit.suggested]
    assert {reply.code for reply in closing} == {421, 221}


@pytest.mark.anyio
@pytest.mark.rfc("5321 §4.2.2 closing-codes-name-the-server")
async def test_what_closes_names_the_server() -> None:
    assert say(server_after(), b"QUIT\r\n") == b"221 mx.example Closing connection\r\n"
    errors = b"XYZZY\r\n" * (Limits().bad_commands + 1)
    assert say(server_after(), errors).endswith(b"\r\n421 mx.example Too many errors\r\n")
    stopped = Scripted(b"")
    await Server(Box(), hostname="mx.example", max_connections=0).serve_stream(stopped)
    assert stopped.sent == [b"421 mx.example Too many connections\r\n"]


# Each code


def in_place(code: int, before: bytes, octets: bytes) -> object:
    of = f"5321 §4.2.2 code-{code}", "5321 §4.2.3 each-code-has-one-meaning"
    return pytest.param(code, before, octets, marks=pytest.mark.rfc(*of))


@pytest.mark.rfc("5321 §4.2.1 codes-are-not")
@pytest.mark.parametrize(
    ("code", "before", "octets"),
    [
        in_place(500, HELLO, b"XYZZY\r\n"),
        in_place(500, HELLO, b"NOOP " + b"x" * 506 + b"\r\n"),
        in_place(501, b"", b"EHLO\r\n"),
        in_place(501, HELLO, b"MAIL FROM:<a@b\r\n"),
        in_place(501, MAIL, b"RCPT TO:<>\r\n"),
        in_place(501, HELLO, b"VRFY\r\n"),
        in_place(502, HELLO, b"EXPN list\r\n"),
        in_place(502, HELLO, b"ETRN a.example\r\n"),
        in_place(503, b"", b"MAIL FROM:<a@b>\r\n"),
        in_place(503, HELLO, b"RCPT TO:<c@d>\r\n"),
        in_place(503, MAIL, b"DATA\r\n"),
        in_place(504, b"", b"VRFY jo SMTPUTF8\r\n"),
        in_place(214, HELLO, b"HELP\r\n"),
        in_place(221, HELLO, b"QUIT\r\n"),
        in_place(250, b"", b"EHLO c\r\n"),
        in_place(250, HELLO, b"MAIL FROM:<a@b>\r\n"),
        in_place(250, MAIL, b"RCPT TO:<c@d>\r\n"),
        in_place(250, RCPT, b"RSET\r\n"),
        in_place(250, RCPT + b"DATA\r\n", b"x\r\n.\r\n"),
        in_place(252, HELLO, b"VRFY jo\r\n"),
        in_place(354, RCPT, b"DATA\r\n"),
        in_place(552, HELLO, b"MAIL FROM:<a@b> SIZE=99999999999\r\n"),
        in_place(550, HELLO, "MAIL FROM:<ü@b>\r\n".encode()),
        in_place(553, MAIL, "RCPT TO:<ü@b>\r\n".encode()),
        in_place(554, RCPT + b"DATA\r\n", b"x\n.\r\n.\r\n"),
        in_place(555, HELLO, b"MAIL FROM:<a@b> X=1\r\n"),
        in_place(555, MAIL, b"RCPT TO:<c@d> X=1\r\n"),
    ],
)
def test_a_server_says_each_code_where_it_belongs(code: int, before: bytes, octets: bytes) -> None:
    assert say(server_after(before, STANDARD), octets)[:3] == b"%d" % code


@pytest.mark.rfc("5321 §4.2.2 code-220", "5321 §4.2.2 code-421", "5321 §4.2.2 code-452")
def test_and_these_where_it_opens_gives_up_and_has_no_room() -> None:
    assert answer(ServerConnection("mx.example"))[1].startswith(b"220 mx.example")
    server = ServerConnection("mx.example", limits=Limits(bad_commands=1, recipients=1))
    answer(server)
    assert say(server, RCPT + b"RCPT TO:<e@f>\r\n").endswith(b"452 Too many recipients\r\n")
    assert say(server, b"XYZZY\r\nXYZZY\r\n").endswith(b"421 mx.example Too many errors\r\n")
    assert server.state is State.CLOSED


#: A place where each code may be said: behind what, and to what.
PLACES: dict[int, tuple[bytes, Command]] = {
    211: (HELLO, Noop()),
    221: (HELLO, Quit()),
    250: (MAIL, Rcpt("c@d")),
    251: (MAIL, Rcpt("c@d")),
    252: (HELLO, Vrfy("jo")),
    354: (RCPT, Data()),
    421: (MAIL, Rcpt("c@d")),
    450: (MAIL, Rcpt("c@d")),
    451: (MAIL, Rcpt("c@d")),
    452: (MAIL, Rcpt("c@d")),
    455: (MAIL, Rcpt("c@d")),
    500: (HELLO, Noop()),
    501: (HELLO, Mail("a@b")),
    502: (HELLO, Vrfy("jo")),
    503: (RCPT, Data()),
    504: (HELLO, Ehlo("c.example")),
    550: (MAIL, Rcpt("c@d")),
    551: (MAIL, Rcpt("c@d")),
    552: (MAIL, Rcpt("c@d")),
    553: (MAIL, Rcpt("c@d")),
    554: (RCPT, Data()),
    555: (HELLO, Mail("a@b")),
}
MOVED = {221: State.CLOSED, 250: State.RCPT, 251: State.RCPT, 354: State.CONTENT, 421: State.CLOSED}


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(
            code,
            marks=pytest.mark.rfc(
                f"5321 §4.2.2 code-{code}", "5321 §4.2.3 each-code-has-one-meaning"
            ),
        )
        for code in PLACES
    ],
)
def test_each_code_passes_and_moves_both_ends_alike(code: int) -> None:
    before, command = PLACES[code]
    server, client = placed(before)
    kept = server.state
    reply = Reply(code, None, "mx.example says so")
    said = say(server, client.send(command), saying(reply))
    assert said == b"%d mx.example says so\r\n" % code
    assert hear(client, said) == [reply]
    assert client.state is server.state is MOVED.get(code, kept)


@pytest.mark.rfc(
    "5321 §4.2.2 code-220", "5321 §4.2.2 code-554", "5321 §4.2.3 each-code-has-one-meaning"
)
@pytest.mark.parametrize(("code", "state"), [(220, State.GREETED), (554, State.REFUSED)])
def test_a_client_is_let_in_by_220_and_turned_away_by_554(code: int, state: State) -> None:
    server, client = ServerConnection("mx.example"), ClientConnection(STANDARD)
    hear(client, server.send(Reply(code, None, "mx.example")))
    assert client.state is server.state is state


@pytest.mark.rfc("5321 §4.2.2 code-214", "5321 §4.2.3 each-code-has-one-meaning")
def test_help_is_handed_on_for_people_to_read() -> None:
    client = client_after(b"250-mx.example\r\n250 HELP\r\n")
    client.send(HELP.verbs[0]())
    (reply,) = hear(client, b"214-Commands:\r\n214 EHLO MAIL RCPT\r\n")
    assert reply.text == "Commands:\nEHLO MAIL RCPT"
    assert client.state is State.READY


# 502 or 500, 504


@pytest.mark.rfc(
    "5321 §4.2.1 502-is-an-unimplemented-command",
    "5321 §4.2.4 502-for-what-is-recognized",
    "5321 §4.2.4 500-for-what-is-not",
)
@pytest.mark.parametrize("line", [b"EXPN list", b"expn list", b"ETRN a.example", b"STARTTLS"])
def test_a_known_verb_that_is_not_offered_gets_502_and_an_unknown_one_500(line: bytes) -> None:
    assert say(server_after(HELLO, STANDARD), line + b"\r\n").startswith(b"502")
    assert say(server_after(HELLO), line + b"\r\n").startswith(b"500")


@pytest.mark.rfc("5321 §4.2.1 504-is-an-unimplemented-parameter")
@pytest.mark.parametrize("line", [b"VRFY jo SMTPUTF8", b"EXPN list SMTPUTF8", b"AUTH X-OTHER"])
def test_a_parameter_that_is_not_implemented_gets_504(line: bytes) -> None:
    known = [e for e in STANDARD if e.keyword != "SMTPUTF8"]
    offered = [e for e in known if e.keyword in ("AUTH", EXPN.keyword)]
    server = ServerConnection(
        "mx.example", known, offer=offered, mechanisms=[PLAIN], plaintext_auth=True
    )
    answer(server)
    assert say(server, HELLO + line + b"\r\n").splitlines()[-1].startswith(b"504")


@pytest.mark.rfc("5321 §4.2.4 what-is-announced-is-implemented")
@pytest.mark.parametrize(
    ("keyword", "line"),
    [
        ("AUTH", b"AUTH PLAIN"),
        ("CHUNKING", b"BDAT 0 LAST"),
        ("ETRN", b"ETRN c.example"),
        ("EXPN", b"EXPN all"),
        ("HELP", b"HELP"),
        ("STARTTLS", b"STARTTLS"),
        ("XCLIENT", b"XCLIENT NAME=c.example"),
        ("XFORWARD", b"XFORWARD NAME=c.example"),
    ],
)
def test_what_is_announced_gets_neither_500_nor_502(keyword: str, line: bytes) -> None:
    server = ServerConnection(
        "mx.example",
        STANDARD,
        offer=STANDARD,
        mechanisms=[PLAIN],
        plaintext_auth=True,
        tls_available=True,
    )
    answer(server)
    say(server, RCPT if keyword == "CHUNKING" else HELLO)
    assert keyword in server.offered
    assert say(server, line + b"\r\n")[:3] not in (b"500", b"502", b"")
    assert len([verb for e in STANDARD for verb in e.verbs]) == 8  # and these are all of them


@pytest.mark.rfc("5321 §4.2.1 250-has-nothing-to-tell")
@pytest.mark.parametrize("line", [b"NOOP", b"RSET", b"HELO c", b"MAIL FROM:<a@b>"])
def test_what_tells_nothing_new_gets_250(line: bytes) -> None:
    assert say(server_after(HELLO), line + b"\r\n").startswith(b"250 ")
