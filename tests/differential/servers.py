"""The servers that are compared, each on loopback, and each told to take all mail.

They have the same name, certificate, largest message, login (`ann`) and refused recipient.
Beyond that they have their defaults, but for what would let DNS, the clock or the host's own
configuration into the answers; the page says so.
"""

import contextlib
import grp
import os
import pwd
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import aiosmtpd
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, Session
from aiosmtpd.smtp import Envelope as AiosmtpdEnvelope
from anyio.from_thread import start_blocking_portal
from attrs import frozen

import smtpproto
from smtpproto import STANDARD, Limits
from smtpproto.extensions import SMTPUTF8
from smtpproto.server import Server
from tests.adapters.world import PASSWORD, Accounts, Box, Certificates
from tests.peers.programs import (
    HOST,
    LIFETIME,
    PostfixServer,
    find,
    free_port,
    postfix,
    run,
    running,
    wait_for,
    workspace,
)

from .play import Talk

__all__ = ["LIMIT", "REFUSED", "STRICT", "Running", "our_server", "with_aiosmtpd", "with_postfix"]

NAME = "mx.example.test"
#: Octets of the largest message; RFC 5321 §4.5.3.1.7 asks for at least 64 KiB.
LIMIT = 100_000
#: The one recipient who is not taken.
REFUSED = "no-one@example.test"

#: Settings with which Postfix keeps closer to the RFCs; 3.9 and later have the first by default.
STRICT = {
    "smtpd_forbid_bare_newline": "normalize",
    "smtpd_forbid_bare_newline_exclusions": "",
    "smtpd_helo_required": "yes",
    "strict_rfc821_envelopes": "yes",
}


@frozen
class Running:
    """A server that listens at `port`; `arrived` gives the messages of a dialogue just played."""

    version: str
    port: int
    arrived: Callable[[Talk], tuple[bytes, ...]]


@contextlib.contextmanager
def our_server(tls: Certificates, backend: str = "asyncio") -> Iterator[Running]:
    box = Box()
    # The handler honours SMTPUTF8, too.
    offer = [extension for extension in STANDARD if not extension.obliges or extension is SMTPUTF8]
    server = Server(
        box,
        NAME,
        offer=offer,
        tls=tls.server,
        authenticator=Accounts(),
        plaintext_auth="always",
        failed_login_delay=0,
        error_delay=0,
        limits=Limits(message=LIMIT),
    )

    def arrived(_: Talk) -> tuple[bytes, ...]:
        contents = tuple(received.content for received in box.received)
        box.received.clear()
        return contents

    with start_blocking_portal(backend) as portal:
        serving, address = portal.start_task(server.serve, HOST)
        try:
            yield Running(smtpproto.__version__, address[1], arrived)
        finally:
            portal.call(server.stop)
            serving.result(timeout=60)


class _Kept:
    """aiosmtpd's handler."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []

    async def handle_RCPT(  # noqa: N802 - its name for it
        self,
        server: SMTP,
        session: Session,
        envelope: AiosmtpdEnvelope,
        address: str,
        options: list[str],
    ) -> str:
        if address == REFUSED:
            return "550 5.1.1 No such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"  # what it says where no handler does

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: AiosmtpdEnvelope
    ) -> str:
        self.contents.append(envelope.original_content or b"")
        return "250 OK"


def _authenticate(
    server: SMTP, session: Session, envelope: AiosmtpdEnvelope, mechanism: str, data: object
) -> AuthResult:
    good = data == LoginPassword(b"ann", PASSWORD.encode())
    return AuthResult(success=good, handled=False)


@contextlib.contextmanager
def with_aiosmtpd(tls: Certificates) -> Iterator[Running]:
    kept = _Kept()

    class Told(Controller):
        def factory(self) -> SMTP:
            return SMTP(
                kept,
                hostname=NAME,
                data_size_limit=LIMIT,
                enable_SMTPUTF8=True,
                tls_context=tls.server,
                authenticator=_authenticate,
                auth_require_tls=False,
                loop=self.loop,
            )

    controller = Told(kept, hostname=HOST, port=free_port(), ready_timeout=60)

    def arrived(_: Talk) -> tuple[bytes, ...]:
        contents = tuple(kept.contents)
        kept.contents.clear()
        return contents

    controller.start()
    try:
        yield Running(aiosmtpd.__version__, controller.port, arrived)
    finally:
        controller.stop()


@contextlib.contextmanager
def with_postfix(certificate: Path, settings: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Postfix, with Dovecot to ask about logins; `certificate` is a PEM file with its key."""
    with (
        _dovecot_auth() as sasl,
        postfix(
            settings={
                "myhostname": NAME,
                # All mail is taken, and goes to one Maildir.
                "smtpd_relay_restrictions": "permit_mynetworks, reject",
                "smtpd_recipient_restrictions": (
                    f"check_recipient_access inline:{{ {{ {REFUSED} = REJECT }} }}"
                ),
                "default_transport": "virtual",
                "local_transport": "virtual",
                "virtual_mailbox_maps": "static:all/",
                "local_header_rewrite_clients": "",
                "message_size_limit": f"{LIMIT}",
                "smtpd_tls_security_level": "may",
                "smtpd_tls_cert_file": f"{certificate}",
                "smtpd_sasl_auth_enable": "yes",
                "smtpd_sasl_type": "dovecot",
                "smtpd_sasl_path": f"inet:{HOST}:{sasl}",
                "in_flow_delay": "0",
                **(settings or {}),
            }
        ) as server,
    ):
        version = run(find("postconf", "postfix"), "-d", "-h", "mail_version").stdout.strip()
        yield Running(version, server.port, lambda talk: _delivered(server, talk))


_QUEUED = re.compile(rb"queued as ([0-9A-Za-z]+)")
_TRACE = re.compile(rb"\A.*?^Received: [^\n]*\n(?:[ \t][^\n]*\n)*", re.DOTALL | re.MULTILINE)


def _delivered(server: PostfixServer, talk: Talk) -> tuple[bytes, ...]:
    """Wait for what was queued to come out; without its trace, and with CRLF again."""
    ids = (queued[1] for reply in talk.replies if (queued := _QUEUED.search(reply.octets)))
    found = [_message(server, queue_id) for queue_id in ids]
    return tuple(_TRACE.sub(b"", mail, count=1).replace(b"\n", b"\r\n") for mail in found)


def _message(server: PostfixServer, queue_id: bytes) -> bytes:
    mark = b" id %b" % queue_id

    def poll() -> list[bytes]:
        return [mail for mail in server.messages("all") if mark in mail]

    return wait_for(poll, f"{mark!r} in the Maildir")[0]


DOVECOT_SETTINGS = """\
protocols =
base_dir = {directory}/run
state_dir = {directory}/run
log_path = /dev/stderr
ssl = no
auth_mechanisms = plain login
auth_failure_delay = 0
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={directory}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  chroot =
  inet_listener {{
    address = {host}
    port = {port}
  }}
}}
"""


@contextlib.contextmanager
def _dovecot_auth() -> Iterator[int]:
    """Dovecot's answers to logins, for Postfix to ask at the port given."""
    program = find("dovecot", "dovecot-imapd")
    user = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    port = free_port()
    with workspace() as directory:
        config = directory / "dovecot.conf"
        config.write_text(
            DOVECOT_SETTINGS.format(
                directory=directory,
                host=HOST,
                port=port,
                user=user.pw_name,
                group=grp.getgrgid(user.pw_gid).gr_name,
                password=PASSWORD,
            )
        )
        command = ("timeout", "-k2", LIFETIME, program, "-F", "-c", f"{config}")
        with running(*command, port=port, output=directory / "output"):
            yield port
