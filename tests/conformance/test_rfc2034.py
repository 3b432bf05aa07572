"""RFC 2034: the enhanced status in the replies, as a server writes it and a client reads it."""

import pytest

from smtpproto import EnhancedStatus, GrammarError, LocalProtocolError, Reply
from smtpproto.extensions import ENHANCEDSTATUSCODES, SIZE
from tests.conformance.ends import MAIL, RCPT, say, server_after

WITH = (ENHANCEDSTATUSCODES,)


@pytest.mark.rfc("2034 §3 keyword-is-enhancedstatuscodes")
def test_it_is_announced_by_its_keyword_alone() -> None:
    ehlo = say(server_after(extensions=WITH), b"EHLO c.example\r\n")
    assert b"250 ENHANCEDSTATUSCODES\r\n" in ehlo
    assert not ENHANCEDSTATUSCODES.verbs
    assert not ENHANCEDSTATUSCODES.mail
    assert not ENHANCEDSTATUSCODES.rcpt


@pytest.mark.rfc(
    "2034 §4 replies-begin-with-a-status",
    "2034 §4 greetings-have-no-status",
    "2034 §4 without-ehlo-too",
    "2034 §5 status-is-not-asked-for",
    "2034 §3 status-is-followed-by-a-space",
    "2034 §3 status-is-part-of-the-extension",
)
@pytest.mark.parametrize("hello", [b"EHLO", b"HELO"])
def test_all_replies_but_greetings_and_354_have_a_status(hello: bytes) -> None:
    server = server_after(extensions=(*WITH, SIZE))
    for line, begin in (
        (hello + b" c.example", b"250"),
        (b"NOOP", b"250 2."),
        (b"FOO", b"500 5."),
        (b"MAIL FROM:<a@b>", b"250 2."),
        (b"MAIL FROM:<a@b>", b"503 5."),
        (b"RCPT TO:<c@d>", b"250 2."),
        (b"DATA", b"354 "),
        (b"text\r\n.", b"250 2."),
        (b"VRFY x", b"252 2."),
        (b"QUIT", b"221 2."),
    ):
        said = say(server, line + b"\r\n")
        assert said.startswith(begin)
        words = said[4:].split(b" ")[0]
        has_status = words.count(b".") == 2 and words.replace(b".", b"").isdigit()
        assert has_status == (len(begin) == 6), said


@pytest.mark.rfc("2034 §4 replies-begin-with-a-status")
@pytest.mark.parametrize(("code", "status"), [(250, "2.0.0"), (451, "4.0.0"), (550, "5.0.0")])
def test_a_reply_without_one_gets_the_one_that_says_nothing_more(code: int, status: str) -> None:
    said = say(server_after(MAIL, WITH), b"RCPT TO:<c@d>\r\n", lambda *_: Reply(code, None, "so"))
    assert said == f"{code} {status} so\r\n".encode()


@pytest.mark.rfc("2034 §4 each-line-has-the-status")
def test_each_line_has_the_same_status() -> None:
    two = Reply(550, "5.1.1", ["nobody", "of this name"])
    said = say(server_after(MAIL, WITH), b"RCPT TO:<c@d>\r\n", lambda *_: two)
    assert said == b"550-5.1.1 nobody\r\n550 5.1.1 of this name\r\n"
    assert Reply.parse(said) == two
    assert Reply.parse(said.replace(b"5.1.1 of", b"5.1.2 of")).status is None


@pytest.mark.rfc("2034 §4 class-agrees-with-the-code")
@pytest.mark.parametrize("code", [250, 450, 550])
@pytest.mark.parametrize("status_class", [2, 4, 5])
def test_the_class_agrees_with_the_code(code: int, status_class: int) -> None:
    status = f"{status_class}.1.1"
    if code // 100 == status_class:
        assert Reply(code, status).serialize() == f"{code} {status} \r\n".encode()
    else:
        with pytest.raises(LocalProtocolError):
            Reply(code, status)


@pytest.mark.rfc(
    "2034 §4 status-code",
    "2034 §4 class",
    "2034 §4 subject",
    "2034 §4 detail",
    "2034 §3 status-is-followed-by-a-space",
)
@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("2.0.0", (2, 0, 0)),
        ("4.999.999", (4, 999, 999)),
        ("5.10.100", (5, 10, 100)),
        ("1.0.0", None),
        ("3.0.0", None),
        ("6.0.0", None),
        ("22.0.0", None),
        ("2..0", None),
        ("2.1000.0", None),
        ("2.0.", None),
        ("2.0.1000", None),
        ("2.0", None),
        ("2.0.0.0", None),
        ("2-0-0", None),
        ("2.x.0", None),
    ],
)
def test_three_numbers(text: str, status: tuple[int, int, int] | None) -> None:
    code = 250 if text[0] not in "45" else int(text[0]) * 100 + 50
    reply = Reply.parse(f"{code} {text} and more\r\n".encode())
    if status is None:
        with pytest.raises(GrammarError):
            EnhancedStatus.parse(text)
        assert reply == Reply(code, None, f"{text} and more")
    else:
        assert EnhancedStatus.parse(text) == EnhancedStatus(*status)
        assert reply == Reply(code, text, "and more")
        assert Reply.parse(f"{code} {text}and\r\n".encode()).status is None


def test_a_session_without_it_has_no_status() -> None:
    assert say(server_after(RCPT, (SIZE,)), b"NOOP\r\n").startswith(b"250 ")
    assert b"2.0.0" not in say(server_after(RCPT, (SIZE,)), b"NOOP\r\n")
