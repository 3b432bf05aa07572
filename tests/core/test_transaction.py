"""What a server gathers of a transaction."""

from typing import Self

from attrs import frozen

from smtpproto import Command, Mail, Rcpt, Rset
from smtpproto.core.transaction import Transaction


@frozen
class Hint(Command):
    """A verb of an extension that shows what it was added to."""

    verb = b"XHINT"
    preamble = True

    text: bytes
    behind: tuple[Command, ...] = ()

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        return cls(argument)

    def added_to(self, earlier: Command) -> Command:
        return Hint(self.text, (earlier,))


def test_a_preamble_verb_is_added_to_what_it_said_before_if_it_did() -> None:
    transaction = Transaction()
    transaction.accept(Hint(b"one"))
    assert transaction.preamble == {Hint: Hint(b"one")}
    transaction.accept(Mail("a@b"))
    transaction.accept(Hint(b"two"))
    assert transaction.preamble == {Hint: Hint(b"two", (Hint(b"one"),))}


def test_nothing_else_is_gathered() -> None:
    transaction = Transaction()
    transaction.accept(Rset())
    assert (transaction.mail, transaction.rcpts, transaction.preamble) == (None, [], {})
    transaction.accept(Mail("a@b"))
    assert transaction.envelope is None
    transaction.accept(Rcpt("c@d"))
    assert transaction.envelope is not None
    assert transaction.preamble == {}


def test_who_judges_a_recipient_may_ask_for_the_sender() -> None:
    transaction = Transaction()
    assert transaction.said(Mail) is None
    transaction.accept(Mail("a@b"))
    transaction.accept(Hint(b"one"))
    assert transaction.said(Mail) == Mail("a@b")
    assert transaction.said(Hint) == Hint(b"one")
    assert transaction.said(Rset) is None
