"""The client for a host: how sessions with next hops are opened."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import field, frozen

from smtpproto.client import Client, ClientDeadlines, Connector, UnixConnector, connect_tcp
from smtpproto.extensions.dsn import DSN
from smtpproto.relay.routing.access import Access
from smtpproto.relay.routing.transport import Host

__all__ = ["Clients"]


@frozen
class Clients:
    """Makes the Client for a host: what a Pool of ours is given.

    `access` is for hosts that have none of their own. `unix` makes the connector to the UNIX
    socket at a path. `deadlines.session` bounds the time for one session. `trace(name, line)` is
    shown the dialogues.
    """

    hostname: str
    access: Access = field(factory=Access)
    connector: Connector = connect_tcp
    unix: Callable[[str], Connector] = UnixConnector
    deadlines: ClientDeadlines = field(factory=lambda: ClientDeadlines(session=4 * 3600))
    trace: Callable[[str, str], None] | None = None

    def __call__(self, host: Host) -> Client:
        """Return a Client for the host, not entered yet."""
        access = self.access if host.access is None else host.access
        return Client(
            host.address or host.name,
            host.port if host.path is None else 0,
            tls=access.tls,
            ssl_context=access.ssl_context,
            login=access.login,
            login_in_clear=access.login_in_clear,
            helo_name=self.hostname,
            server_name=host.name,
            deadlines=self.deadlines,
            connector=self.connector if host.path is None else self.unix(host.path),
            lmtp=host.lmtp,
            dispensable=(DSN,),
            trace=None if self.trace is None else partial(self.trace, host.name),
        )
