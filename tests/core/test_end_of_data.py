"""Only CRLF "." CRLF ends the content (RFC 5321 §4.1.1.4), whatever stands in it."""

import pytest

from smtpproto import (
    STANDARD,
    ClientConnection,
    Command,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Limits,
    LocalProtocolError,
    Mail,
    Rcpt,
    Reply,
    ServerConnection,
    State,
)
from smtpproto.core.content import DotReader, DotWriter
from smtpproto.testing.pair import answer

HEAD = b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
SMUGGLED = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<evil@d.example>\r\nDATA\r\n"

#: CVE-2023-51764 and its kin: none of these is an end of data.
NO_ENDS = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\r.\r\n", b"\r\n.\r",
    b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\r\n..\r\n", b"\r\n. \r\n",
    b"\r\r\n\0.\r\n", b"\r\n .\r\n", b"\x0b.\x0b", b"\x85.\x85", b"\xe2\x80\xa8.\xe2\x80\xa8",
]  # fmt: skip


def run(
    pieces: list[bytes], *, repair: bool = False, message: int = 10_000
) -> tuple[list[object], bytes, bytes]:
    """Return what the server pulled after DATA without Content, the content, what it said last."""
    limits = Limits(message=message)
    server = ServerConnection("mx.example", STANDARD, limits=limits, repair=repair)
    server.receive_data(HEAD)
    events, said = answer(server)
    rest: list[object] = []
    content = said = b""
    for piece in pieces:
        server.receive_data(piece)
        events, wire = answer(server)
        content += b"".join(e.data for e in events if isinstance(e, Content))
        rest += [e for e in events if not isinstance(e, Content)]
        said += wire
    return rest, content, said


def every_cut(octets: bytes) -> list[list[bytes]]:
    each = [octets[at : at + 1] for at in range(len(octets))]
    return [[octets], each, *([octets[:at], octets[at:]] for at in range(1, len(octets)))]


@pytest.mark.rfc(
    "5321 §4.1.1.4 crlf-dot-crlf-ends-the-content", "5321 §4.1.1.4 lf-dot-lf-ends-nothing"
)
@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("no_end", NO_ENDS)
def test_smuggling(no_end: bytes, repair: bool) -> None:
    octets = b"Subject: x\r\n\r\nhi" + no_end + SMUGGLED + b"\r\n.\r\nNOOP\r\n"
    for pieces in every_cut(octets):
        events, content, said = run(pieces, repair=repair)
        end, noop = events
        assert isinstance(end, EndOfContent)
        assert type(noop).__name__ == "Noop"  # one content, one command: nothing between
        bare = no_end.replace(b"\r\n", b"").strip(b"\0. \x0b\x85\xe2\x80\xa8") != b""
        refused = bare and not repair
        assert (end.fault is not None) is refused
        assert said.startswith(b"554 5.6.0" if refused else b"250 2.0.0")
        assert SMUGGLED in content
        assert end.octets == len(content)
        if repair:
            assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")


@pytest.mark.rfc("5321 §2.3.8 nothing-else-is-taken-for-a-line-end")
def test_a_second_cr_before_the_end_is_refused_and_the_end_is_the_end() -> None:
    for pieces in every_cut(b"hi\r\r\n.\r\nNOOP\r\n"):
        events, content, said = run(pieces)
        assert [type(e).__name__ for e in events] == ["EndOfContent", "Noop"]
        assert said.startswith(b"554 5.6.0")
        assert content == b"hi\r\r\n"


@pytest.mark.rfc("5321 §4.1.1.4 crlf-dot-crlf-ends-the-content")
def test_the_first_end_is_the_end_however_many_are_there() -> None:
    """A whole second transaction stands behind it, and comes in the same segment."""
    reader = DotReader()
    behind = HEAD + b"two\r\n.\r\n"
    assert reader.feed(b"one\r\n.\r\n" + behind) == (b"one\r\n", len(behind))
    assert reader.ended


def test_before_anything_was_read_nothing_is_wrong_or_at_its_end() -> None:
    reader = DotReader()
    assert reader.bare is False
    assert reader.ended is False


def test_nothing_is_repaired_that_nobody_asked_to_repair() -> None:
    reader = DotReader()
    assert reader.feed(b"a\nb\rc") == (b"a\nb\rc", 0)
    assert reader.bare


@pytest.mark.rfc("5321 §4.1.1.4 crlf-of-data-may-begin-the-end")
def test_the_first_crlf_may_be_that_of_data() -> None:
    for pieces in every_cut(b".\r\nNOOP\r\n"):
        events, content, _ = run(pieces)
        assert events[0] == EndOfContent(0, None)
        assert content == b""


@pytest.mark.rfc("5321 §4.5.2 lone-dot-ends-the-content", "5321 §4.5.2 leading-dot-is-taken-off")
@pytest.mark.parametrize(
    ("wire", "meant"),
    [
        (b"..\r\n.\r\n", b".\r\n"),
        (b"..a\r\n...\r\na.b\r\n.\r\n", b".a\r\n..\r\na.b\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),  # nobody of ours stuffs so; §4.5.2 takes the dot off
        (b"\r\n.\r\n", b"\r\n"),
        (b"\r\n\r\n..\r\n\r\n.\r\n", b"\r\n\r\n.\r\n\r\n"),
        (b"\0\xff\r\n.\r\n", b"\0\xff\r\n"),
    ],
)
def test_dots(wire: bytes, meant: bytes) -> None:
    for pieces in every_cut(wire):
        events, content, _ = run(pieces)
        assert content == meant
        assert events == [EndOfContent(len(meant), None)]


@pytest.mark.rfc("5321 §4.5.3.1.9 too-much-data-gets-552")
@pytest.mark.rfc("1870 §4 undeclared-content-is-read-to-its-end", "1870 §4 larger-content-gets-552")
def test_an_oversize_message_is_swallowed_to_its_end() -> None:
    octets = b"x" * 12_000 + b"\r\nQUIT\r\n.\r\nNOOP\r\n"
    for at in (1, 9_999, 10_000, 10_001, 12_001, 12_009, 12_010, 12_011):
        events, content, said = run([octets[:at], octets[at:]])
        assert len(content) == 10_000
        assert [type(e).__name__ for e in events] == ["EndOfContent", "Noop"]
        assert said.startswith(b"552 5.3.4")


@pytest.mark.rfc("1870 §4 undeclared-content-is-read-to-its-end")
@pytest.mark.parametrize("end", NO_ENDS)
def test_its_true_end_is_found_at_every_split(end: bytes) -> None:
    for pieces in every_cut(b"twelve octets" + end + b"QUIT\r\n\r\n.\r\nNOOP\r\n"):
        events, content, said = run(pieces, message=12)
        assert content == b"twelve octet"
        assert [type(e).__name__ for e in events] == ["EndOfContent", "Noop"]
        assert said.startswith(b"552 5.3.4")


@pytest.mark.parametrize(
    "content",
    [b"X: " + b"x" * 999 + b"\r\n\r\nhi\r\n", b"a\0b\r\n", b"\0" * 2000 + b"\r\n", b"\r\n" * 400],
    ids=["a line over 998 octets", "NUL", "NUL alone", "nothing but line ends"],
)
def test_odd_content_is_content(content: bytes) -> None:
    """What a line may be at most binds who writes it (RFC 5321 §4.5.3.1.6); none is cut."""
    octets = content + b".\r\nNOOP\r\n"
    some = [[octets[:at], octets[at:]] for at in range(0, len(octets), 37)]
    for pieces in ([octets], [octets[at : at + 1] for at in range(len(octets))], *some):
        events, received, _ = run([piece for piece in pieces if piece])
        assert received == content
        assert events[0] == EndOfContent(len(content))


def test_a_faulty_message_cannot_be_accepted() -> None:
    server = ServerConnection("mx.example", STANDARD)
    server.receive_data(HEAD + b"a\nb\r\n.\r\n")
    answer_until_content(server)
    assert isinstance(server.next_event(), Content)
    end = server.next_event()
    assert isinstance(end, EndOfContent)
    assert end.fault is not None
    assert end.fault.code == 554
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250, "2.0.0", "fine"))
    assert (
        server.send(Reply(451, "4.3.0", "whatever, but no 2yz"))
        == b"451 4.3.0 whatever, but no 2yz\r\n"
    )
    assert server.state is State.READY


def answer_until_content(server: ServerConnection) -> None:
    server.send(server.suggested_reply())
    for _ in range(4):
        assert isinstance(server.next_event(), Command)
        server.send(server.suggested_reply())


def test_repair_makes_crlf_and_no_end() -> None:
    for pieces in every_cut(b"a\rb\nc\r\n.\nd\r\r\n\n.\r\n.\r\n"):
        _, content, said = run(pieces, repair=True)
        # The dot that begins a line on the wire is taken off (§4.5.2); one behind a bare LF stays.
        assert content == b"a\r\nb\r\nc\r\n\r\nd\r\n\r\n\r\n.\r\n"
        assert said.startswith(b"250")


def client_in_content() -> ClientConnection:
    client = ClientConnection(STANDARD)
    for command, reply in (
        (None, b"220 x\r\n"),
        (Ehlo("c.example"), b"250 x\r\n"),
        (Mail("a@b.example"), b"250 x\r\n"),
        (Rcpt("a@b.example"), b"250 x\r\n"),
        (Data(), b"354 x\r\n"),
    ):
        if command is not None:
            client.send(command)
        client.receive_data(reply)
        client.next_event()
    assert client.state is State.CONTENT
    return client


@pytest.mark.rfc("5321 §2.3.8 client-sends-no-bare-cr-or-lf")
@pytest.mark.parametrize(
    "bad", [b"a\nb", b"a\rb", b"\n", b"\n.\n", b"a\r\n.\n", b"\r\r\n", b"\r.\r"]
)
def test_a_client_sends_no_bare_cr_or_lf(bad: bytes) -> None:
    for at in range(len(bad) + 1):
        client = client_in_content()
        sent = client.send(Content(b"good\r\n"))
        refused = 0
        for piece in (bad[:at], bad[at:] + b"x"):
            try:
                sent += client.send(Content(piece))
            except LocalProtocolError:
                refused += 1
        assert refused
        assert sent.count(b"\r") == sent.count(b"\n") == sent.count(b"\r\n")
        with pytest.raises(LocalProtocolError):  # and so there is no end mark either
            client.send(EndOfContent())


def test_a_client_does_not_end_content_on_half_a_line_end() -> None:
    client = client_in_content()
    assert client.send(Content(b"a\r")) == b"a"
    with pytest.raises(LocalProtocolError):
        client.send(EndOfContent())


@pytest.mark.rfc("5321 §4.5.2 leading-dot-is-doubled")
@pytest.mark.rfc(
    "5321 §4.1.1.4 client-ends-content-with-crlf-dot-crlf",
    "5321 §4.1.1.4 no-extra-crlf",
    "5321 §4.1.1.4 missing-crlf-is-added",
    "5321 §4.1.1.4 crlf-of-data-may-begin-the-end",
)
@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"\r\n.\r\n", b"\r\n..\r\n.\r\n"),
        (b"a.\r\n..b\r\n.", b"a.\r\n...b\r\n..\r\n.\r\n"),
    ],
)
def test_a_client_stuffs_dots_wherever_the_chunks_are_cut(content: bytes, wire: bytes) -> None:
    for pieces in every_cut(content):
        writer = DotWriter()
        assert b"".join(map(writer.feed, pieces)) + writer.finish() == wire


def test_a_reader_holds_back_four_octets_at_most() -> None:
    for octets in (b"\r\n.\r", b"x\r\n.\r\r\n.\r\r", b"\r" * 9, b"\r\n" * 9, b"." * 9):
        reader, given = DotReader(), 0
        for fed, at in enumerate(range(len(octets)), 1):
            body, behind = reader.feed(octets[at : at + 1])
            given += len(body)
            assert behind == 0
            assert fed - given <= 4 + octets.count(b".")


@pytest.mark.parametrize(
    ("content", "held"),
    [
        (b"a", b""),
        (b"a.", b""),
        (b"a\n", b""),
        (b"a\n.", b""),
        (b"a\r", b"\r"),
        (b"a\r.\r", b"\r"),
        (b"a\r\n", b"\r\n"),
        (b"a\r\n.", b"\r\n."),
        (b"a\r\n.\r", b"\r\n.\r"),
    ],
)
def test_a_reader_holds_back_what_may_begin_the_end_and_nothing_else(
    content: bytes, held: bytes
) -> None:
    assert DotReader().feed(content) == (content.removesuffix(held), 0)
