"""A client brought to where it can be tested, and what it hears."""

from smtpproto import (
    STANDARD,
    ClientConnection,
    ConnectionClosed,
    Ehlo,
    Lhlo,
    Limits,
    Signal,
    State,
)
from smtpproto.core.client_connection import ClientEvent

__all__ = ["OFFER", "cuts", "hear", "in_state", "make"]

OFFER = (
    b"250-mx\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-STARTTLS\r\n"
    b"250 AUTH PLAIN\r\n"
)


def hear(client: ClientConnection, octets: bytes) -> list[ClientEvent]:
    client.receive_data(octets)
    events: list[ClientEvent] = []
    while not isinstance(event := client.next_event(), Signal):
        events.append(event)
        if isinstance(event, ConnectionClosed):
            break
    return events


def in_state(client: ClientConnection, state: State) -> bool:
    return client.state is client.asked is state


def make(
    offer: bytes = OFFER, limits: Limits | None = None, *, lmtp: bool = False
) -> ClientConnection:
    client = ClientConnection(STANDARD, limits=limits or Limits(), lmtp=lmtp)
    hear(client, b"220 mx\r\n")
    client.send((Lhlo if lmtp else Ehlo)("c.example"))
    hear(client, offer)
    assert client.state is client.asked is State.READY
    return client


def cuts(octets: bytes) -> list[list[bytes]]:
    each = [octets[at : at + 1] for at in range(len(octets))]
    return [[octets], each, *([octets[:at], octets[at:]] for at in range(1, len(octets)))]
