"""A server that offers all there is, and an application that answers for it as a Draw has it."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from smtpproto import (
    STANDARD,
    Auth,
    AuthResponse,
    ClientConnection,
    ConnectionClosed,
    Extension,
    Limits,
    LocalProtocolError,
    Reply,
    ServerConnection,
)
from smtpproto.core.reply import ReplyReader
from smtpproto.core.sasl import (
    AuthenticationError,
    Challenge,
    ChannelBinding,
    Mechanism,
    ServerContext,
    ServerExchange,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions.deliverby import DELIVERBY, deliverby
from smtpproto.extensions.futurerelease import FUTURERELEASE, Horizon, futurerelease
from smtpproto.extensions.limits import LIMITS, Maxima, limits
from smtpproto.extensions.mt_priority import MT_PRIORITY, mt_priority
from tests.sasl.exchange import ALL, FEW, Account

from .draw import Draw

__all__ = [
    "ACCOUNT",
    "BINDING",
    "EXTENSIONS",
    "MECHANISMS",
    "Application",
    "check_end",
    "check_replies",
    "make_server",
]

MECHANISMS: dict[str, Mechanism] = {mechanism.name: mechanism for mechanism in ALL}
ACCOUNT = Account("ann", "pw", may_act_as="bob")
BINDING = ChannelBinding("tls-unique", b"finished")
HORIZON = Horizon(1000, datetime(2030, 1, 1, tzinfo=UTC))

_ANNOUNCING = {
    DELIVERBY: deliverby(60),
    FUTURERELEASE: futurerelease(HORIZON),
    LIMITS: limits(Maxima(rcpt=3)),
    MT_PRIORITY: mt_priority("MIXER"),
}
#: Every extension, those that announce something with something to announce.
EXTENSIONS = tuple(_ANNOUNCING.get(extension, extension) for extension in STANDARD)

LIMITED = Limits(message=100, recipients=3, bad_commands=6, endless_line=1500, reply=1500)

PRINTABLE = re.compile(rb"[\t\x20-\x7e]*|252[ -]2\.1\.5 N\xc3\xa9e")

#: What the application may say beside what is suggested; not all of it is legal everywhere.
ANSWERS: tuple[Reply | None, ...] = (
    *[None] * 5,
    Reply(252, "2.1.5", "Née"),
    Reply(250, "2.0.0", "Well"),
    Reply(220, None, "Go on"),
    Reply(354, None, "Go on"),
    Challenge(b"and?").reply(),
    Reply(235, "2.7.0", "In"),
    Reply(252, None, ["Perhaps", "and perhaps not"]),
    Reply(451, "4.3.0", "Not now"),
    Reply(550, "5.7.1", "Not you"),
    Reply(554, None, "No"),
    Reply(421, "4.3.2", "Goodbye"),
)


def make_server(
    *,
    offer: Sequence[Extension] = EXTENSIONS,
    limits: Limits = LIMITED,
    repair: bool = False,
    lmtp: bool = False,
) -> ServerConnection:
    """Make a server that knows everything, and offers it unless `offer` says else."""
    return ServerConnection(
        "server.example",
        EXTENSIONS,
        offer=offer,
        limits=limits,
        mechanisms=ALL,
        plaintext_auth=True,
        tls_available=True,
        repair=repair,
        lmtp=lmtp,
    )


class Application:
    """Answers what the server pulled last: as is suggested, or as drawn where that is legal.

    Logins go through the mechanism, with one `Account` behind it, unless drawn otherwise.
    """

    def __init__(self, server: ServerConnection, draw: Draw) -> None:
        self.server = server
        self.draw = draw
        self.exchange: ServerExchange | None = None

    def answer(self, event: ServerEvent | None) -> tuple[Reply, bytes]:
        """Send one reply to an event, None being the greeting; return it and its octets."""
        if not isinstance(event, AuthResponse):
            self.exchange = None  # whatever it was, it is over
        drawn = self.draw.one_of(ANSWERS)
        if drawn is not None:
            before = (self.server.state, self.server.replies_owed)
            try:
                return drawn, self.server.send(drawn)
            except LocalProtocolError:
                assert (self.server.state, self.server.replies_owed) == before
        reply = self.judge(event) or self.server.suggested_reply()
        return reply, self.server.send(reply)

    def judge(self, event: ServerEvent | None) -> Reply | None:
        """Take the next step of a login."""
        if isinstance(event, Auth):
            tls = self.server.tls is not None
            context = ServerContext(
                "server.example",
                (BINDING,) if tls else (),
                nonce=lambda: "nonce",
                secret=b"secret",
                iterations=FEW,
            )
            mechanism = MECHANISMS[event.mechanism]
            self.exchange = ServerExchange(mechanism, event.initial_response, context)
            return self.step()
        if isinstance(event, AuthResponse):
            return self.step(event.data)
        return None

    def step(self, response: bytes | None = None) -> Reply | None:
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return None  # it was begun, or is gone on with, by a drawn reply
        try:
            step = exchange.step(response)
            while not isinstance(step, (str, Challenge)):
                step = exchange.step(ACCOUNT(step))
        except AuthenticationError as error:
            return error.reply
        if isinstance(step, Challenge):
            self.exchange = exchange
            return step.reply()
        assert step in ("ann", "bob", "guest"), "nobody else can log in"
        return Reply(235, "2.7.0", f"Hello {step}")


def check_end(end: ClientConnection | ServerConnection) -> None:
    """Check that behind the end of file nothing is heard, and nothing kept."""
    for _ in range(2):
        assert end.next_event() == ConnectionClosed()
        assert not end.buffered
        try:
            end.receive_data(b"NOOP\r\n")
        except LocalProtocolError:
            continue
        raise AssertionError("it hears what is behind the end of file")


def check_replies(octets: bytes, count: int) -> None:
    """Check that `octets` are exactly `count` well-formed replies (RFC 5321 §4.2)."""
    reader = ReplyReader(max_octets=len(octets))
    *lines, rest = octets.split(b"\r\n")
    assert rest == b"", "a reply ends with CRLF"
    replies = [reply for line in lines if (reply := reader.feed(line)) is not None]
    assert not reader.inside
    assert len(replies) == count
    for line in lines:
        challenge = line.startswith(b"334 ")  # as long as it has to be (RFC 4954 §4)
        assert len(line) + 2 <= 512 or challenge
        assert PRINTABLE.fullmatch(line), "octets no reply can hold"
