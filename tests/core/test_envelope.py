"""An envelope: which parameters it has, and the same without some of them."""

from smtpproto import Envelope, Mail, Rcpt

MAIL = Mail("a@b.example", {"RET": "HDRS", "SIZE": 5})
ASKED, PLAIN = Rcpt("c@d.example", {"NOTIFY": "NEVER", "X": None}), Rcpt("e@f.example")


def test_the_keywords_are_those_of_all_commands() -> None:
    assert Envelope(MAIL, [ASKED, PLAIN]).keywords == {"RET", "SIZE", "NOTIFY", "X"}
    assert Envelope("a@b.example", [PLAIN]).keywords == frozenset()


def test_without_some_parameters_the_rest_is_as_it_was() -> None:
    envelope = Envelope(MAIL, [ASKED, PLAIN])
    less = envelope.without({"RET", "NOTIFY", "ENVID"})
    assert less.mail == Mail("a@b.example", {"SIZE": 5})
    assert less.rcpts == (Rcpt("c@d.example", {"X": None}), PLAIN)
    assert less.rcpts[0].serialize() == b"RCPT TO:<c@d.example> X\r\n"
    assert envelope.without({"ENVID"}) == envelope
    assert less.rcpts[1] is PLAIN
