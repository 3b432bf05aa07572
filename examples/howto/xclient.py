"""XCLIENT, on the core: a listed peer says whom the server is to take it for."""

from smtpproto import STANDARD, ClientConnection, Ehlo, Reply, ServerConnection
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions import XCLIENT
from smtpproto.extensions.xclient import XClient
from smtpproto.testing import Pair

LISTED = {"192.0.2.1"}
OFFERED = [extension for extension in STANDARD if not extension.obliges]


class Inbound:
    """One session of a server: `peer` is who the client is taken for."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        # Announced to those who may use it, and to nobody else.
        offer = [*OFFERED, XCLIENT] if peer in LISTED else OFFERED
        self.connection = ServerConnection("mx.example.org", STANDARD, offer=offer)

    def answer(self, server: ServerConnection, event: ServerEvent | None) -> Reply:
        if isinstance(event, XClient):
            address = event.attributes.get("ADDR")
            if isinstance(address, bytes):  # not where the proxy does not know, either
                self.peer = address.decode()
            return Reply(220, None, "mx.example.org ESMTP")  # the session begins anew
        return server.suggested_reply()


def main() -> None:
    for peer in ("192.0.2.1", "198.51.100.9"):
        inbound = Inbound(peer)
        client = ClientConnection(STANDARD)
        pair = Pair(inbound.connection, client, policy=inbound.answer)
        pair.send(Ehlo("proxy.example.org"))
        if "XCLIENT" in client.offered:
            (reply,) = pair.send(XClient({"ADDR": "203.0.113.5", "NAME": "laptop.example.net"}))
            print(reply)
            pair.send(Ehlo("laptop.example.net"))
        print(peer, "is taken for", inbound.peer)


if __name__ == "__main__":
    main()
