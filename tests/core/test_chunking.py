"""CHUNKING (RFC 3030) at both ends, beside the rows of `decisions.py`."""

from collections.abc import Sequence

import pytest

from smtpproto import (
    NEED_DATA,
    STANDARD,
    BadCommand,
    Bdat,
    Chunk,
    ClientConnection,
    ConnectionClosed,
    Content,
    Data,
    Ehlo,
    EndOfChunk,
    EndOfContent,
    Extension,
    GrammarError,
    Limits,
    LocalProtocolError,
    Mail,
    Noop,
    Rcpt,
    RemoteProtocolError,
    Reply,
    Rset,
    ServerConnection,
    State,
)
from smtpproto.core.connection import Connection
from smtpproto.core.sasl import Challenge
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions import BINARYMIME, CHUNKING
from smtpproto.mechanisms import PLAIN
from smtpproto.testing import Cut, Pair, octet_by_octet, suggested, whole
from smtpproto.testing.pair import answer

DEFAULT = [e for e in STANDARD if not e.obliges]
HEAD = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
OPENED = (Mail("a@b"), Rcpt("c@d"))


def serving(*octets: bytes, message: int | None = None) -> ServerConnection:
    server = ServerConnection("mx.example", STANDARD, limits=Limits(message=message))
    answer(server)
    for some in octets:
        server.receive_data(some)
        answer(server)
    return server


def greeted(
    offer: Sequence[Extension] = (*DEFAULT, BINARYMIME), *commands: Mail | Rcpt, message: int = 100
) -> Pair:
    server = ServerConnection("mx.example", STANDARD, offer=offer, limits=Limits(message=message))
    pair = Pair(server, ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    for command in commands or OPENED:
        pair.send(command)
    return pair


def in_state(end: Connection, state: State) -> bool:
    return end.state is state  # a call, for a type checker believes that states stay


def content(events: list[ServerEvent]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Content))


def codes(said: bytes) -> list[str]:
    return [line[:3].decode() for line in said.split(b"\r\n")[:-1]]


# The command


@pytest.mark.rfc("3030 §2 bdat-cmd", "3030 §2 chunk-size", "3030 §2 end-marker")
def test_bdat_is_a_value() -> None:
    assert Bdat(3).serialize() == b"BDAT 3\r\n"
    assert Bdat(0, last=True).serialize() == b"BDAT 0 LAST\r\n"
    assert Bdat.parse(b"9" * 20) == Bdat(10**20 - 1)
    for last in (b"LAST", b"last", b"LaSt"):
        assert Bdat.parse(b"2 " + last) == Bdat(2, last=True)
    for argument in (b"", b"LAST", b"1 2", b"9" * 21, b"1\tLAST", b"1 LAST x", b"\xb2"):
        with pytest.raises(GrammarError):
            Bdat.parse(argument)


# The server


@pytest.mark.rfc(
    "3030 §2 message-is-a-series-of-chunks",
    "3030 §2 octets-follow-the-line-at-once",
    "3030 §2 last-ends-the-message",
    "3030 §2 last-chunk-may-be-empty",
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_chunks_are_one_content(size: int) -> None:
    text = b".\r\n..\r\n.\r\n\r\n.\r\nQUIT\r\n"
    wire = b"".join(
        b"BDAT %d\r\n%b" % (len(part), part)
        for part in (text[at : at + size] for at in range(0, len(text), size))
    )
    octets = wire + b"BDAT 0 LAST\r\n"
    for at in range(1, len(octets)):
        server = serving(HEAD)
        events: list[ServerEvent] = []
        for piece in (octets[:at], octets[at:]):
            server.receive_data(piece)
            events += answer(server)[0]
        assert content(events) == text
        assert events[-1] == EndOfContent(len(text), None)
        assert in_state(server, State.READY)
        assert server.envelope is None


@pytest.mark.rfc(
    "3030 §2 250-when-the-octets-are-there",
    "3030 §2 250-for-each-chunk",
    "3030 §2 last-is-optional",
    "3030 §2 last-chunk-may-be-empty",
    "3030 §2 no-reply-within-a-chunk",
    "3030 §2 too-large-a-number-waits",
)
def test_each_chunk_is_answered_when_its_octets_are_there() -> None:
    server = serving(HEAD)
    server.receive_data(b"BDAT 3\r\nab")
    assert server.next_event() == Bdat(3)
    assert server.next_event() == Content(b"ab")
    assert server.next_event() is NEED_DATA
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250))
    server.receive_data(b"cBDAT 0 LAST\r\n")
    assert server.next_event() == Content(b"c")
    assert server.next_event() == EndOfChunk(3)
    assert server.replies_owed == 1
    assert server.send(server.suggested_reply()) == b"250 2.0.0 Chunk received\r\n"
    assert server.next_event() == Bdat(0, last=True)
    assert server.next_event() == EndOfContent(3)
    assert server.envelope is not None


@pytest.mark.parametrize("code", [354, 450, 552])
def test_what_may_be_said_to_a_chunk(code: int) -> None:
    server = serving(HEAD)
    server.receive_data(b"BDAT 1\r\na")
    while not isinstance(server.next_event(), EndOfChunk):
        pass
    if code == 354:
        with pytest.raises(LocalProtocolError):
            server.send(Reply(code))
        return
    server.send(Reply(code))
    assert in_state(server, State.SPOILED)
    # Whatever a policy says: nothing good.
    server.receive_data(b"BDAT 1 LAST\r\nb")
    event = server.next_event()
    assert isinstance(event, BadCommand)
    assert event.command == Bdat(1, last=True)
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250))
    server.send(server.suggested_reply())
    assert in_state(server, State.READY)
    assert server.envelope is None


def test_a_faulty_chunk_is_not_accepted() -> None:
    server = serving(HEAD)
    server.receive_data(b"BDAT 2\r\na\nBDAT 1")
    while not isinstance(event := server.next_event(), EndOfChunk):
        pass
    assert event.fault is not None
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250))
    assert server.send(server.suggested_reply()).startswith(b"554 5.6.0")


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("at", range(1, 12))
def test_the_client_goes_in_mid_chunk(at: int, refused: bool) -> None:
    server = serving(HEAD[:25] if refused else HEAD)
    wire = b"BDAT 5\r\nabcde"[:at]
    server.receive_data(wire)
    server.receive_data(b"")
    events, said = answer(server)
    assert events[-1] == ConnectionClosed()
    assert said == b""
    assert not any(isinstance(e, (EndOfChunk, EndOfContent, BadCommand)) for e in events)


def test_a_huge_chunk_is_swallowed_as_it_comes() -> None:
    server = serving(HEAD, b"BDAT 99999999999999999999 LAST\r\n", message=10)
    seen = 0
    for _ in range(50):
        server.receive_data(b"QUIT\r\n" * 5000)
        events, said = answer(server)
        seen += len(content(events))
        assert said == b""
        assert server.buffered == 0
    assert seen == 10


def test_a_client_that_could_not_know_is_not_to_blame() -> None:
    """Chunks behind a refused one do not count as bad commands."""
    server = ServerConnection("mx.example", STANDARD, limits=Limits(bad_commands=1))
    server.receive_data(HEAD + b"BDAT 1\r\n\n" + b"BDAT 1\r\nx" * 50 + b"BDAT 1 LAST\r\nx")
    said = codes(answer(server)[1])
    assert said[-52:] == ["554", *["503"] * 51]
    assert in_state(server, State.READY)


@pytest.mark.rfc("3030 §2 failure-is-told-behind-the-octets")
def test_bad_chunks_are_bad_commands() -> None:
    server = ServerConnection("mx.example", STANDARD, limits=Limits(bad_commands=3))
    server.receive_data(b"EHLO c\r\n" + b"BDAT 6 LAST\r\nQUIT\r\n" * 9)
    assert codes(answer(server)[1])[-4:] == ["503", "503", "503", "421"]


@pytest.mark.parametrize(
    "line", [b"BDAT", b"BDAT x", b"bdat\t1", b"BDAT 1" + b" " * 600, b"BDAT 1\n"]
)
def test_a_chunk_of_no_size_loses_the_framing(line: bytes) -> None:
    server = serving(HEAD)
    server.receive_data(line + b"\r\nMAIL FROM:<evil@example.org>\r\n")
    with pytest.raises(RemoteProtocolError) as caught:
        server.next_event()
    assert caught.value.reply is not None
    assert caught.value.reply.code == 501
    assert server.next_event() == ConnectionClosed()


def test_within_auth_it_is_no_command() -> None:
    server = ServerConnection("h.example", STANDARD, mechanisms=(PLAIN,), plaintext_auth=True)
    server.receive_data(b"EHLO c\r\n")
    answer(server)
    server.receive_data(b"AUTH PLAIN\r\nBDAT!\r\n")
    server.next_event()
    server.send(Challenge(b"").reply())
    event = server.next_event()
    assert isinstance(event, BadCommand)
    assert event.reply.code == 501


def test_the_limit_is_on_all_chunks() -> None:
    server = serving(HEAD, message=5)
    server.receive_data(b"BDAT 3\r\nabcBDAT 3\r\ndefBDAT 3 LAST\r\nghi")
    events, said = answer(server)
    assert content(events) == b"abcde"
    assert codes(said) == ["250", "552", "503"]


@pytest.mark.parametrize(
    "drop",
    [
        pytest.param(b"RSET\r\n", marks=pytest.mark.rfc("3030 §2 rset-drops-all-chunks")),
        b"EHLO c\r\n",
        b"HELO c\r\nEHLO c\r\n",
    ],
)
def test_nothing_of_a_dropped_message_stays(drop: bytes) -> None:
    server = serving(HEAD, b"BDAT 3\r\na\r\r", drop, HEAD[8:], message=4)
    server.receive_data(b"BDAT 4 LAST\r\nabcd")
    events, _ = answer(server)
    assert events[-1] == EndOfContent(4, None)


def test_repair_is_for_data() -> None:
    server = ServerConnection("mx.example", STANDARD, repair=True)
    server.receive_data(HEAD + b"BDAT 2 LAST\r\na\n")
    assert codes(answer(server)[1])[-1] == "554"


# The client


@pytest.mark.rfc("5321 §2.2.1 an-extension-may-replace-a-command")
@pytest.mark.rfc(
    "3030 §2 message-is-a-series-of-chunks",
    "3030 §2 bdat-says-how-many-octets-follow",
    "3030 §2 last-is-optional",
    "3030 §2 octets-follow-the-line-at-once",
    "3030 §2 last-ends-the-message",
    "3030 §2 number-is-that-of-the-octets-sent",
)
@pytest.mark.parametrize("cut", [whole, octet_by_octet])
def test_a_client_sends_chunks(cut: Cut) -> None:
    pair = greeted()
    pair.cut = cut
    assert [str(reply)[:3] for reply in pair.send(Chunk(b".\r\n.\r"))] == ["250"]
    assert in_state(pair.client, State.CHUNKS)
    assert in_state(pair.server, State.CHUNKS)
    pair.send(Noop())
    sent = pair.to_server
    replies = pair.send(Chunk(b"\n"), Chunk(b""), Chunk(b"end", last=True))
    assert pair.to_server[len(sent) :] == b"BDAT 1\r\n\nBDAT 0\r\nBDAT 3 LAST\r\nend"
    assert [str(reply)[:3] for reply in replies] == ["250"] * 3
    assert content(pair.server_events) == b".\r\n.\r\nend"
    assert in_state(pair.client, State.READY)
    assert in_state(pair.server, State.READY)
    assert pair.client.asked is State.READY


@pytest.mark.rfc("3030 §2 last-chunk-may-be-empty")
def test_an_empty_message_is_one_empty_chunk() -> None:
    pair = greeted()
    pair.send(Chunk(b"", last=True))
    assert EndOfContent(0) in pair.server_events


@pytest.mark.rfc(
    "5321 §2.3.8 client-sends-no-bare-cr-or-lf",
    "3030 §2 text-has-line-ends-of-crlf",
    "3030 §2 rset-drops-all-chunks",
)
@pytest.mark.parametrize(
    "chunks", [[b"a\n"], [b"a\rb"], [b"a\r", b"b"], [b"a", b"\n"], [b"a\r\n", b"\n"], [b"a\r"]]
)
def test_a_bare_cr_or_lf_is_not_sent_and_rset_is(chunks: list[bytes]) -> None:
    pair = greeted()
    for chunk in chunks[:-1]:
        pair.send(Chunk(chunk))
    sent, state = pair.to_server, pair.client.state
    with pytest.raises(LocalProtocolError, match="bare CR or LF"):
        pair.send(Chunk(chunks[-1], last=True))
    assert pair.to_server == sent
    assert pair.client.state is pair.client.asked is state
    pair.send(Rset())
    assert in_state(pair.client, State.READY)
    assert in_state(pair.server, State.READY)
    # And what came before it is forgotten.
    pair.send(*OPENED)
    pair.send(Chunk(b"fine\r\n", last=True))
    assert pair.server_events[-1] == EndOfContent(6)


@pytest.mark.rfc("3030 §3 binary-does-not-go-by-data")
def test_binarymime_has_no_lines_and_goes_by_chunks_alone() -> None:
    pair = greeted((*DEFAULT, BINARYMIME), Mail("a@b", {"BODY": "binarymime"}), Rcpt("c@d"))
    with pytest.raises(LocalProtocolError, match="BDAT"):
        pair.send(Data())
    pair.send(Chunk(b"\n\r"), Chunk(b"\r\n.\n", last=True))
    assert content(pair.server_events) == b"\n\r\r\n.\n"
    assert pair.server_events[-1] == EndOfContent(6)


@pytest.mark.rfc("3030 §2 mail-and-rcpt-are-answered-first")
def test_the_replies_to_mail_and_rcpt_come_first() -> None:
    client = ClientConnection(STANDARD)
    client.receive_data(b"220 x\r\n")
    client.next_event()
    client.send(Ehlo("c"))
    client.receive_data(b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
    client.next_event()
    client.send(Mail("a@b"))
    client.send(Rcpt("c@d"))
    for heard in (b"", b"250 x\r\n"):
        if heard:
            client.receive_data(heard)
        client.next_event()
        with pytest.raises(LocalProtocolError, match="have to come first"):
            client.send(Chunk(b"x"))
    client.receive_data(b"550 x\r\n")
    client.next_event()
    with pytest.raises(LocalProtocolError, match="out of sequence"):
        client.send(Chunk(b"x"))  # nobody to send it to


@pytest.mark.rfc("3030 §2 bdat-only-where-it-is-offered")
def test_without_the_offer_no_chunk_is_sent() -> None:
    pair = greeted([e for e in DEFAULT if e is not CHUNKING])
    sent = pair.to_server
    with pytest.raises(LocalProtocolError, match="does not offer CHUNKING"):
        pair.send(Chunk(b"x", last=True))
    assert pair.to_server == sent


@pytest.mark.rfc("3030 §2 number-is-that-of-the-octets-sent")
def test_no_bdat_without_its_octets() -> None:
    pair = greeted()
    with pytest.raises(LocalProtocolError, match="send a Chunk"):
        pair.send(Bdat(3))


@pytest.mark.rfc("3030 §2 data-and-bdat-do-not-mix")
@pytest.mark.parametrize("last", [False, True])
def test_no_chunk_stands_within_dotted_content(last: bool) -> None:
    pair = greeted()
    pair.send(Data())
    with pytest.raises(LocalProtocolError, match="out of sequence"):
        pair.client.send(Chunk(b"", last=last))
    pair.send(Content(b"x"), EndOfContent())
    with pytest.raises(LocalProtocolError, match="out of sequence"):
        pair.client.send(Chunk(b"", last=last))


def test_no_pipelining_no_second_chunk_at_once() -> None:
    pair = greeted([CHUNKING])
    pair.client.send(Chunk(b"a"))
    with pytest.raises(LocalProtocolError, match="has to come first"):
        pair.client.send(Chunk(b"b", last=True))


@pytest.mark.rfc(
    "3030 §2 no-chunk-behind-a-refused-one", "3030 §2 refused-chunk-is-a-refused-message"
)
def test_after_a_refused_chunk_the_client_sends_no_more() -> None:
    pair = greeted()
    pair.policy = lambda server, event: (
        Reply(452, "4.3.1", "full") if isinstance(event, EndOfChunk) else suggested(server, event)
    )
    (reply,) = pair.send(Chunk(b"a"))
    assert isinstance(reply, Reply)
    assert reply.code == 452
    for last in (False, True):
        with pytest.raises(LocalProtocolError, match="out of sequence"):
            pair.send(Chunk(b"b", last=last))
    with pytest.raises(LocalProtocolError, match="out of sequence"):
        pair.send(Data())
    pair.send(Rset(), *OPENED)
    assert in_state(pair.client, State.RCPT)
    assert in_state(pair.server, State.RCPT)


@pytest.mark.rfc("3030 §2 chunks-on-their-way-are-thrown-away")
def test_chunks_behind_a_refused_one_are_all_refused() -> None:
    pair = greeted(message=4)
    replies = pair.send(Chunk(b"abc"), Chunk(b"def"), Chunk(b"g"), Chunk(b"h", last=True))
    assert [str(reply)[:3] for reply in replies] == ["250", "552", "503", "503"]
    assert in_state(pair.client, State.READY)
    assert in_state(pair.server, State.READY)
    pair.send(Rset())
    pair.send(*OPENED)
    pair.send(Chunk(b"abcd", last=True))
    assert pair.server_events[-1] == EndOfContent(4)


@pytest.mark.rfc("3030 §2 no-chunk-behind-a-refused-one")
def test_a_reset_that_is_on_its_way_is_reset_enough() -> None:
    pair = greeted(message=2)
    replies = pair.send(Chunk(b"abc"), Rset())
    assert [str(reply)[:3] for reply in replies] == ["552", "250"]
    pair.send(*OPENED)
    assert in_state(pair.server, State.RCPT)
    pair.send(Chunk(b"abc"), Chunk(b"d", last=True))
    with pytest.raises(LocalProtocolError, match="RSET comes next"):
        pair.send(Mail("a@b"))


def test_the_next_transaction_may_be_pipelined_behind_the_last_chunk() -> None:
    pair = greeted()
    pair.send(Chunk(b"one\r", last=False), Chunk(b"\n", last=True), *OPENED)
    pair.send(Chunk(b"two", last=True))
    assert [e for e in pair.server_events if isinstance(e, EndOfContent)] == [
        EndOfContent(5),
        EndOfContent(3),
    ]


@pytest.mark.parametrize(
    ("chunk", "reply"),
    [
        (Chunk(b"a"), b"354 go\r\n"),
        (Chunk(b"a", last=True), b"354 go\r\n"),
        (Chunk(b"a"), b"250 x\r\n250 y\r\n"),
    ],
)
def test_a_reply_that_is_no_answer_to_a_chunk(chunk: Chunk, reply: bytes) -> None:
    client = greeted().client
    client.send(chunk)
    client.receive_data(reply)
    for _ in range(reply.count(b"\r\n") - 1):
        client.next_event()
    with pytest.raises(RemoteProtocolError):
        client.next_event()


@pytest.mark.rfc("3030 §2 refused-chunk-is-a-refused-message")
def test_a_server_that_accepts_behind_a_refusal_is_not_believed() -> None:
    client = greeted().client
    client.send(Chunk(b"a"))
    client.send(Chunk(b"b", last=True))
    client.receive_data(b"452 full\r\n250 taken\r\n")
    assert client.next_event() == Reply(452, None, "full")
    with pytest.raises(RemoteProtocolError):
        client.next_event()


def test_421_in_mid_message_closes() -> None:
    client = greeted().client
    client.send(Chunk(b"a"))
    client.send(Chunk(b"b", last=True))
    client.receive_data(b"421 bye\r\n")
    assert client.next_event() == Reply(421, None, "bye")
    assert client.next_event() == ConnectionClosed()
    with pytest.raises(LocalProtocolError):
        client.send(Chunk(b"c"))
