"""ETRN (RFC 1985): a client asks for the mail that is queued for it."""

from __future__ import annotations

import enum
import re
from typing import Self

from attrs import field, frozen

from smtpproto.core.command import Command
from smtpproto.core.errors import GrammarError, LocalProtocolError
from smtpproto.core.extension import Extension
from smtpproto.core.grammar import DOMAIN
from smtpproto.core.path import MAX_DOMAIN, as_octets
from smtpproto.core.reply import Reply
from smtpproto.core.value import taken

__all__ = ["ETRN", "Etrn", "Queue"]

# The syntax of a queue's name is the server's own (§5.3); what can stand in a line.
_QUEUE = re.compile(rb"[\x21-\x7e]+")


class Queue(enum.Enum):
    """What is to be sent (§5): the value is the option character."""

    NODE = b""  #: mail for this host or domain
    SUBDOMAINS = b"@"  #: for this domain and all below it
    NAMED = b"#"  #: a queue of the server's, by its name


@frozen
class Etrn(Command):
    """ETRN: send what is queued for `node`, on a connection of the server's own making (§5).

    `node` is a domain, fully qualified where it names one node, or a queue's name. Answer 250,
    251 nothing waits, 252 or 253 so much waits, 458 cannot, 459 may not. LocalProtocolError
    for what is no such name. Not allowed within a transaction.
    """

    verb = b"ETRN"
    in_transaction = False
    suggested = Reply(458, "4.5.0", "Unable to queue messages")  # whoever has a queue, decides

    node: bytes = field(converter=as_octets)
    queue: Queue = Queue.NODE

    def __attrs_post_init__(self) -> None:
        try:
            read = self.parse(self.argument())
        except GrammarError as error:
            raise LocalProtocolError(str(error)) from None
        if read.queue is not self.queue:
            raise LocalProtocolError("the option character is no part of the name")

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        # ETRN [<option character>]<node name>
        if not argument:
            raise GrammarError("Syntax: ETRN [@ or #]node", 500, "5.5.2")  # as in §7
        queue = next((q for q in Queue if q.value and argument.startswith(q.value)), Queue.NODE)
        node = argument[len(queue.value) :]
        if queue is Queue.NAMED:
            fits = _QUEUE.fullmatch(node) is not None
        else:
            fits = DOMAIN.fullmatch(node) is not None and len(node) <= MAX_DOMAIN
        # §5: a node is fully qualified.
        if not fits or (queue is Queue.NODE and b"." not in node):
            raise GrammarError("ETRN takes a fully qualified domain, @domain or #queue")
        return taken(cls, node=node, queue=queue)

    def argument(self) -> bytes:
        return self.queue.value + self.node


ETRN = Extension("ETRN", rfc=1985, verbs=(Etrn,), obliges="decide who may ask, and start the queue")
