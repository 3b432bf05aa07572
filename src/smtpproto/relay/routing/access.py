"""How a next hop is talked to: TLS, and a login where it wants one."""

from __future__ import annotations

import ssl

from attrs import field, frozen

from smtpproto.client import Tls

__all__ = ["Access"]


@frozen
class Access:
    """How next hops are talked to: TLS as the client takes it, and a login for a smart host.

    With a login, opportunistic TLS becomes required: unverified, it shows the password to whoever
    stands in between. `login_in_clear` permits that, and no TLS at all: for loopback.
    """

    tls: Tls = field(default=Tls.OPPORTUNISTIC, converter=Tls)
    login: tuple[str, str] | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None
    login_in_clear: bool = False

    def __attrs_post_init__(self) -> None:
        risky = self.login is not None and not self.login_in_clear
        if risky and self.tls is Tls.OPPORTUNISTIC:
            object.__setattr__(self, "tls", Tls.REQUIRED)
