"""The transaction under way at a server: what was accepted so far (RFC 5321 §3.3)."""

from __future__ import annotations

from .command import Bdat, Command, Data, Mail, Rcpt
from .envelope import Envelope, take_envelope
from .reception import Reception

__all__ = ["Transaction"]


class Transaction:
    """MAIL, the accepted RCPTs, what extensions' `preamble` verbs said, and the content."""

    __slots__ = ("mail", "preamble", "rcpts", "reception")

    def __init__(self) -> None:
        self.mail: Mail | None = None
        self.rcpts: list[Rcpt] = []
        self.preamble: dict[type[Command], Command] = {}
        self.reception: Reception | None = None

    @property
    def envelope(self) -> Envelope | None:
        """What was gathered; None until a recipient is accepted."""
        if self.mail is None or not self.rcpts:
            return None
        return take_envelope(self.mail, tuple(self.rcpts))

    @property
    def is_binary(self) -> bool:
        """Whether its content comes by BDAT alone, of any octets (RFC 3030 §3)."""
        if self.mail is None or "BODY" not in self.mail.parameters:
            return False
        return (self.mail.parameters["BODY"] or b"").upper() == b"BINARYMIME"

    def asks_for_utf8(self, command: Mail | Rcpt) -> bool:
        """Tell whether `command` may hold UTF-8: its MAIL asks for all of it (RFC 6531 §3.4)."""
        asking = command if isinstance(command, Mail) else self.mail
        return asking is not None and "SMTPUTF8" in asking.parameters

    def said(self, verb: type[Command]) -> Command | None:
        """Return what MAIL, or a `preamble` verb, said; None if it said nothing."""
        return self.mail if verb is Mail else self.preamble.get(verb)

    def accept(self, command: Command) -> None:
        """Gather a command that was answered well."""
        if isinstance(command, Mail):
            self.mail = command
        elif isinstance(command, Rcpt):
            self.rcpts.append(command)
        elif command.preamble:
            earlier = self.preamble.get(type(command))
            self.preamble[type(command)] = command.added_to(earlier) if earlier else command

    def begin(self, command: Data | Bdat, limit: int | None, *, repair: bool) -> None:
        """Make ready for the octets that DATA or this chunk brings."""
        if self.reception is None:
            self.reception = Reception(limit, repair=repair, binary=self.is_binary)
        if isinstance(command, Bdat):
            self.reception.begin_chunk(command.size)
        else:
            self.reception.begin_data()
