"""Replies (RFC 5321 §4.2) and enhanced statuses (RFC 3463, RFC 2034)."""

import pytest

from smtpproto import EnhancedStatus, GrammarError, LocalProtocolError, Reply, Severity
from smtpproto.core.reply import ReplyReader

from .serving import HELLO, make


def test_what_it_is_made_of() -> None:
    reply = Reply(250, "2.1.0", ["one", "two"])
    assert reply.serialize() == b"250-2.1.0 one\r\n250 2.1.0 two\r\n"
    assert reply.serialize(with_status=False) == b"250-one\r\n250 two\r\n"
    assert reply.severity is Severity.COMPLETION
    assert reply.status == EnhancedStatus(2, 1, 0)
    assert str(reply) == "250 2.1.0 one\ntwo"
    assert Reply(354).serialize() == b"354 \r\n"


def test_text_in_the_place_of_the_status_is_told_where_it_belongs() -> None:
    with pytest.raises(LocalProtocolError, match="text comes third"):
        Reply(250, "ok")


@pytest.mark.rfc("2034 §4 each-line-has-the-status")
def test_a_status_that_all_lines_spell_out_is_lifted() -> None:
    assert Reply(250, None, "2.0.0 ok") == Reply(250, "2.0.0", "ok")
    assert Reply(250, None, ["2.0.0 a", "2.0.0"]) == Reply(250, "2.0.0", ["a", ""])
    for lines in (["2.0.0 a", "b"], ["2.0.0 a", "2.0.1 b"], ["5.0.0 a"], ["2.0.00 a"], ["2.0.0a"]):
        assert Reply(250, None, lines).status is None
        assert Reply(250, None, lines).lines == tuple(map(str.encode, lines))


@pytest.mark.rfc("5321 §4.2 Reply-code", "5321 §4.2 no-other-first-digits")
@pytest.mark.parametrize("code", [0, 25, 199, 260, 299, 560, 600, 1000, -250])
def test_no_reply_codes(code: int) -> None:
    with pytest.raises(LocalProtocolError):
        Reply(code)


@pytest.mark.parametrize(
    "text", ["a\rb", "a\nb", "a\r\n250 b", "a\0b", "\x1b[31m", "\x7f", b"\xe9", "\ud800"]
)
def test_injection(text: str | bytes) -> None:
    with pytest.raises(LocalProtocolError):
        Reply(250, None, text)


@pytest.mark.rfc("5321 §4.5.3.1.5 reply-line-has-512-octets-at-most")
def test_a_reply_line_has_512_octets_at_most() -> None:
    assert len(Reply(250, None, "x" * 506).serialize()) == 512
    with pytest.raises(LocalProtocolError):
        Reply(250, None, "x" * 507)
    assert len(Reply(250, "2.0.0", "x" * 500).serialize()) == 512
    with pytest.raises(LocalProtocolError):
        Reply(250, "2.0.0", "x" * 501)


@pytest.mark.rfc("2034 §4 class-agrees-with-the-code")
@pytest.mark.parametrize(
    ("code", "status"), [(250, "5.0.0"), (550, "2.0.0"), (450, "5.0.0"), (354, "2.0.0")]
)
def test_a_status_that_contradicts_the_code(code: int, status: str) -> None:
    with pytest.raises(LocalProtocolError):
        Reply(code, status)


@pytest.mark.rfc("3463 §2")
@pytest.mark.parametrize(
    "text",
    ["", "2", "2.1", "2.1.", "3.0.0", "1.0.0", "2.01.0", "2.1000.0", "2.0.0 ", "2.٣.0", "2.-1.0"],
)
def test_no_statuses(text: str) -> None:
    with pytest.raises(GrammarError):
        EnhancedStatus.parse(text)
    with pytest.raises(LocalProtocolError):
        Reply(250, text, "x")


def test_a_status_is_checked_and_ordered() -> None:
    with pytest.raises(LocalProtocolError):
        EnhancedStatus(2, 1000, 0)
    assert EnhancedStatus(2, 1, 9) < EnhancedStatus(2, 1, 10)
    assert EnhancedStatus.of(EnhancedStatus(4, 2, 1)) == EnhancedStatus.of("4.2.1")


GOOD = {
    b"250 ok\r\n": Reply(250, None, "ok"),
    b"250\r\n": Reply(250),  # §4.2: a bare code is a reply
    b"250 \r\n": Reply(250),
    b"250-a\r\n250\r\n": Reply(250, None, ["a", ""]),
    b"250-\r\n250-\r\n250 \r\n": Reply(250, None, ["", "", ""]),
    b"550 5.1.1 no\r\n": Reply(550, "5.1.1", "no"),
    b"250-2.1.0 a\r\n250 2.1.0 b\r\n": Reply(250, "2.1.0", ["a", "b"]),
}


@pytest.mark.rfc("5321 §4.2 Reply-line", "5321 §4.2 bare-code-is-a-reply")
@pytest.mark.parametrize("octets", GOOD)
def test_parse(octets: bytes) -> None:
    assert Reply.parse(octets) == GOOD[octets]


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\r\n",
        b"250 ok",
        b"250 ok\n",
        b"250 ok\r",
        b"25\r\n",
        b"2500 x\r\n",
        b"150 x\r\n",
        b"650 x\r\n",
        b"250_x\r\n",
        b"x\r\n",
        b" 250 x\r\n",
        b"250 a\rb\r\n",
        b"250 a\nb\r\n",
        b"250-a\r\n",
        b"250-a\r\n251 b\r\n",
        b"250 a\r\n250 b\r\n",
        b"250 a\r\n250-b\r\n",
        b"250-a\r\n\r\n250 b\r\n",
        "٢٥٠ x\r\n".encode(),
    ],
)
def test_no_replies(octets: bytes) -> None:
    with pytest.raises(GrammarError):
        Reply.parse(octets)


def test_text_of_any_octets_is_kept_and_shown_escaped() -> None:
    reply = Reply.parse(b"250-\x1b[31m\xff\r\n250 caf\xc3\xa9\0\r\n")
    assert reply.lines == (b"\x1b[31m\xff", b"caf\xc3\xa9\0")
    assert reply.text == "\\x1b[31m\\xff\ncafé\\x00"


@pytest.mark.rfc("5321 §4.3.2 client-goes-by-the-first-digit")
def test_an_unlisted_code_goes_by_its_first_digit() -> None:
    assert Reply.parse(b"299 x\r\n").severity is Severity.COMPLETION
    assert Reply.parse(b"599 x\r\n").severity is Severity.PERMANENT


def test_a_reader_counts_each_reply_for_itself() -> None:
    reader = ReplyReader(max_octets=20)
    for _ in range(5):
        assert reader.feed(b"250-12345") is None
        assert reader.inside
        assert reader.feed(b"250 123") == Reply(250, None, ["12345", "123"])
        assert not reader.inside
    reader.feed(b"250-12345")
    with pytest.raises(GrammarError):
        reader.feed(b"250 1234")


def test_a_reply_is_written_once_however_often_it_is_said() -> None:
    for reply in (Reply(250, "2.0.0", "x"), Reply(354)):
        assert reply.serialize() is reply.serialize()
    plain = Reply(250, None, ["a", "b"])
    assert plain.serialize(with_status=False) is plain.serialize()


def test_without_a_status_none_is_shown() -> None:
    assert str(Reply(250, None, "x")) == "250 x"


@pytest.mark.parametrize("octets", GOOD)
def test_what_was_read_is_written_as_it_was_but_for_a_space(octets: bytes) -> None:
    assert Reply.parse(octets).serialize() == octets.replace(b"250\r", b"250 \r")


@pytest.mark.rfc("5321 §4.5.3.1.5 reply-line-has-512-octets-at-most")
@pytest.mark.parametrize("head", [b"250 ", b"250 2.0.0 "])
def test_a_reply_that_was_read_may_be_said_in_lines_of_512_octets(head: bytes) -> None:
    longest = head + b"x" * (510 - len(head))
    assert Reply.parse(longest + b"\r\n").is_writable()
    assert not Reply.parse(longest + b"x\r\n").is_writable()


@pytest.mark.parametrize(
    ("read", "passed_on"),
    [
        (b"571 5.7.1 No\r\n", "550 5.7.1 No"),
        (b"571-5.7.1 No\r\n571 5.7.1 never\r\n", "550 5.7.1 No\nnever"),
        (b"499 4.7.0 Later\r\n", "450 4.7.0 Later"),
        (b"299 2.0.0 Well\r\n", "250 2.0.0 Well"),
        (b"560 x\r\n", "550 x"),
        (b"550 5.1.1 caf\xc3\xa9 \x1b[m\r\n", "550 5.1.1 caf?? ?[m"),
        (b"571 \r\n", "550 "),
        (b"571 4.7.1 of another class\r\n", "550 4.7.1 of another class"),
    ],
)
def test_what_a_next_hop_said_is_passed_on_as_a_server_may_say_it(
    read: bytes, passed_on: str
) -> None:
    reply = Reply.parse(read)
    assert not reply.is_writable()
    assert str(reply.writable()) == passed_on
    server = make(HELLO)
    server.receive_data(b"VRFY someone\r\n")
    server.next_event()
    with pytest.raises(LocalProtocolError):
        server.send(reply)
    assert server.send(reply.writable())[:3] == passed_on[:3].encode()


@pytest.mark.parametrize("head", ["550 ", "550 5.7.1 "])
def test_long_lines_are_cut_to_what_a_server_may_say(head: str) -> None:
    reply = Reply.parse(f"{head}{'x' * 600}\r\n".encode()).writable()
    assert reply.is_writable()
    assert len(reply.with_general_status().serialize()) == 512  # one without has room for it


@pytest.mark.parametrize("reply", [Reply(250), Reply(550, "5.7.1", ["a", "b"]), Reply(334)])
def test_what_a_server_may_say_is_passed_on_as_it_is(reply: Reply) -> None:
    assert reply.writable() is reply
    assert Reply.parse(reply.serialize()).writable() == reply


@pytest.mark.rfc("2034 §4 each-line-has-the-status")
def test_a_status_is_added_where_the_line_has_512_octets_with_it() -> None:
    longest = Reply(250, None, ["", "x" * 500])
    assert len(longest.with_general_status().serialize().split(b"\r\n")[1]) == 510
    longer = Reply(250, None, ["", "x" * 501])
    assert longer.with_general_status() is longer


@pytest.mark.rfc("2034 §4 class-agrees-with-the-code")
@pytest.mark.parametrize("code", [200, 259, 400, 459, 500, 559])
def test_a_general_status_has_the_class_of_the_code(code: int) -> None:
    assert Reply(code).with_general_status() == Reply(code, f"{code // 100}.0.0")


@pytest.mark.parametrize("surplus", [0, 1])
def test_a_reader_keeps_to_its_octets_in_a_line_that_it_may_remember(surplus: int) -> None:
    reader = ReplyReader(12)
    for _ in range(2):
        line = b"250 " + b"x" * (6 + surplus)
        if surplus:
            with pytest.raises(GrammarError):
                reader.feed(line)
        else:
            assert reader.feed(line) == Reply(250, None, b"x" * 6)


def test_a_code_that_may_be_written_is_passed_on_as_it_is() -> None:
    for line in (b"551 5.7.1 elsewhere", b"551 5.7.1 caf\xc3\xa9"):
        reply = ReplyReader(500).feed(line)
        assert reply is not None
        assert reply.writable().code == 551


def test_a_reader_says_whether_a_reply_has_begun() -> None:
    reader = ReplyReader(1000)
    assert reader.inside is False
    assert reader.feed(b"250-one") is None
    assert reader.inside is True
    assert reader.feed(b"250 two") == Reply(250, None, ["one", "two"])
    assert reader.inside is False
