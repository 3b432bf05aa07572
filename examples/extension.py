"""An ESMTP extension of your own: a parameter of MAIL, a verb, one file, and both ends know it.

XTICKET lets a client name the ticket that a message belongs to, and ask how a ticket stands.
"""

import re
from typing import Self

from attrs import field, frozen

from smtpproto import (
    STANDARD,
    ClientConnection,
    Command,
    Ehlo,
    Extension,
    GrammarError,
    LocalProtocolError,
    Mail,
    Parameter,
    Reply,
    ServerConnection,
)


def read_ticket(value: bytes | None) -> int:
    if value is None or re.fullmatch(rb"[1-9][0-9]{0,8}", value) is None:
        raise GrammarError("XTICKET takes a number of 1 to 9 digits")
    return int(value)


# " XTICKET=" and 9 digits: by so much a MAIL line may be longer than RFC 5321's 512 octets.
TICKET = Parameter("XTICKET", read_ticket, lambda ticket: b"%d" % ticket, octets=18)


def ticket_number(value: int) -> int:
    if not 0 < value < 10**9:
        raise LocalProtocolError("a ticket has 1 to 9 digits")
    return value


@frozen
class XStatus(Command):
    """XSTAT: how does this ticket stand?"""

    verb = b"XSTAT"
    ticket: int = field(converter=ticket_number)

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        return cls(read_ticket(argument))

    def argument(self) -> bytes:
        return b"%d" % self.ticket


XTICKET = Extension("XTICKET", mail=(TICKET,), verbs=(XStatus,))


def decide(server: ServerConnection) -> Reply:
    """Answer what the server pulls next; `Mail` and `XStatus` come typed."""
    match server.next_event():
        case Mail(parameters=parameters) if (ticket := TICKET.of(parameters)) is not None:
            return Reply(250, "2.1.0", f"Sender ok, for ticket {ticket}")
        case XStatus(ticket=ticket):
            return Reply(250, "2.0.0", f"Ticket {ticket} is open")
        case _:
            return server.suggested_reply()


def main() -> None:
    server = ServerConnection("mx.example.org", (*STANDARD, XTICKET))
    client = ClientConnection((*STANDARD, XTICKET))
    client.receive_data(server.send(server.suggested_reply()))
    client.next_event()
    for command in (
        Ehlo("laptop.example.net"),
        XStatus(4711),
        Mail("jo@example.net", TICKET(4711)),
    ):
        server.receive_data(client.send(command))
        client.receive_data(server.send(decide(server)))
        print(client.next_event())


if __name__ == "__main__":
    main()
