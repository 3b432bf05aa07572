"""Target `sasl`: every mechanism, either side hostile, or both sides with a hand between them.

What has to hold:

- the server's side ends in AuthenticationError with a reply that can be sent, or in somebody whom
  the caller has let in; the client's in ExchangeError; neither in anything else;
- no exchange goes on for ever;
- who has the password gets in, under the right name, and who has not stays out;
- in SCRAM neither side believes what has been tampered with on the way.
"""

from collections.abc import Callable

from smtpproto import GrammarError, LocalProtocolError
from smtpproto.core.sasl import (
    AuthenticationError,
    Challenge,
    ClientExchange,
    Credentials,
    ExchangeError,
    Mechanism,
    ServerContext,
    ServerExchange,
)
from smtpproto.mechanisms.saslprep import saslprep
from tests.sasl.exchange import ALL, FEW, Account

from .draw import Draw
from .ends import ACCOUNT, BINDING

__all__ = ["NEXT", "sasl_exchanges"]

#: Between one message and the next.
NEXT = b"<NEXT>"
#: More messages than any exchange has.
ENOUGH = 5


def sasl_exchanges(data: bytes) -> None:
    """Draw a mechanism and who is hostile."""
    draw = Draw(data)
    mechanism = draw.one_of(ALL)
    draw.one_of((hostile_client, hostile_server, in_between))(draw, mechanism)


def context(mechanism: Mechanism) -> ServerContext:
    bindings = (BINDING,) if mechanism.binds else ()
    return ServerContext(
        "mx.example", bindings, nonce=lambda: "s", secret=b"secret", iterations=FEW
    )


def hostile_client(draw: Draw, mechanism: Mechanism) -> None:
    at_once = draw.flag()
    messages = draw.wire.split(NEXT)
    server = ServerExchange(mechanism, messages.pop(0) if at_once else None, context(mechanism))
    account = Account(ACCOUNT.username, ACCOUNT.password, may_act_as=ACCOUNT.may_act_as)
    refusal = identity = None
    try:
        step = server.step()
        for _ in range(ENOUGH):
            if isinstance(step, str):
                identity = step
                break
            if isinstance(step, Challenge):
                assert step.reply().code == 334
                step = server.step(messages.pop(0) if messages else None)
            else:
                step = server.step(account(step))
    except AuthenticationError as error:
        refusal = error.reply.code
    assert refusal in (501, 535) or identity in ("ann", "bob", "guest")
    assert refusal or account.log, "it let somebody in without asking"
    try:
        server.step(b"")
    except LocalProtocolError:
        return
    raise AssertionError("the exchange goes on behind its end")


def hostile_server(draw: Draw, mechanism: Mechanism) -> None:
    credentials = Credentials(
        "ann", "pw", token="t", external=True, trace="", binding=BINDING, nonce=lambda: "c"
    )
    client = ClientExchange(mechanism, credentials)
    client.initial_response()
    complaint = ""
    try:
        for at, challenge in enumerate(draw.wire.split(NEXT) if draw.wire else []):
            if client.respond(challenge) is None:
                break
            assert at < ENOUGH
        if draw.flag():
            client.succeed()
            assert not mechanism.name.startswith("SCRAM"), "it believes who has proved nothing"
    except ExchangeError as error:
        complaint = str(error)
    assert complaint.isprintable()


def in_between(draw: Draw, mechanism: Mechanism) -> None:
    name, password, other = [*map(as_text, draw.wire.split(NEXT)), "", "", ""][:3]
    other = saslprep(other) if can_be_prepared(other) else other
    account = Account(name, password, may_act_as=other)
    knows = not draw.flag()
    acts = other if draw.flag() and mechanism.name != "EXTERNAL" else ""
    credentials = Credentials(
        name,
        password if knows else password + "x",
        acts,
        token="token" if knows else "stolen",
        external=True,
        trace=other,
        binding=BINDING if mechanism.binds else None,
        nonce=lambda: "c",
        iterations=(1, 10),
    )
    if not mechanism.serves(credentials):
        return
    client = ClientExchange(mechanism, credentials)
    try:
        begins = client.initial_response()
    except LocalProtocolError:
        return  # this cannot be said
    hand = Hand(draw)
    try:
        identity = converse(mechanism, client, begins, account, hand, at_once=draw.flag())
    except (AuthenticationError, ExchangeError):
        assert hand.touched or not knows or not can_be_prepared(name, password)
        return
    if hand.touched and not mechanism.name.startswith("SCRAM"):
        return
    assert knows or mechanism.name in ("EXTERNAL", "ANONYMOUS")
    if mechanism.name == "ANONYMOUS":
        assert identity == "guest"
    elif "OAUTH" in mechanism.name or mechanism.name == "EXTERNAL":
        assert identity == name
    else:
        assert identity == (saslprep(acts) or saslprep(name))


def as_text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def can_be_prepared(*texts: str) -> bool:
    try:
        return all(map(saslprep, texts))
    except GrammarError:
        return False


class Hand:
    """Changes one octet of what passes, if so drawn."""

    def __init__(self, draw: Draw) -> None:
        self.turn = draw.below(6) - 2
        self.at, self.octet = draw.below(256), draw.below(256)
        self.touched = False

    def __call__(self, message: bytes) -> bytes:
        self.turn -= 1
        if self.turn != -1 or not message:
            return message
        at = self.at % len(message)
        changed = message[:at] + bytes((self.octet,)) + message[at + 1 :]
        self.touched = changed != message
        return changed


def converse(
    mechanism: Mechanism,
    client: ClientExchange,
    begins: bytes | None,
    account: Account,
    hand: Callable[[bytes], bytes],
    *,
    at_once: bool,
) -> str:
    """Run an exchange to its end; return who is logged in, by both sides' account."""
    waiting = None if at_once else begins
    initial = hand(begins) if begins is not None and at_once else None
    server = ServerExchange(mechanism, initial, context(mechanism))
    step = server.step()
    for _ in range(2 * ENOUGH):
        if isinstance(step, str):
            client.succeed()
            return step
        if not isinstance(step, Challenge):
            step = server.step(account(step))
            continue
        response = waiting if waiting is not None else client.respond(hand(step.data))
        waiting = None
        step = server.step(hand(response) if response is not None else None)
    raise AssertionError("an exchange without end")
