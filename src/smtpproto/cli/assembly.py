"""What settings of `serve` come to: the relay, who logs in there, and what is kept elsewhere."""

from __future__ import annotations

import os
import random
import shlex
import time

from attrs import frozen

from smtpproto.core.connection import Limits
from smtpproto.relay import (
    Access,
    AccountFile,
    DnsResolver,
    Host,
    Maildir,
    Passwords,
    Relay,
    Router,
    RouteTable,
    SQLiteSpool,
)
from smtpproto.relay.accounts.login import every_sender
from smtpproto.relay.mailboxes.quota import Quota, quotas
from smtpproto.relay.reports.story import Observer
from smtpproto.server import Connections

from .config import ServeSettings
from .lists import alias_table, verp_of
from .node import Certificate, Login, ensure_secret
from .options import Failure, password_for
from .routes import rules_of
from .screen import ours
from .shares import Share
from .values import is_loopback

__all__ = ["Outside", "accounts_of", "read_outside", "relay_of"]


def accounts_of(chosen: ServeSettings) -> AccountFile | None:
    """Open the file of accounts, if there is to be one; Failure if it cannot be read. Blocks."""
    if chosen.accounts is None:
        return None
    secret = ensure_secret(chosen.data)
    try:
        return AccountFile(chosen.accounts, domains=chosen.local_domains, secret=secret)
    except OSError as error:
        why = error.strerror or error
        advice = f"make it: {ours()} account --file {shlex.quote(str(chosen.accounts))} add NAME"
        raise Failure(f"cannot read the accounts in {chosen.accounts}: {why}\n{advice}") from None


@frozen
class Outside:
    """What settings name and others keep: a password, and rules with theirs."""

    smart_login: tuple[str, str] | None
    routes: RouteTable


def read_outside(chosen: ServeSettings, known: tuple[str, str] | None = None) -> Outside:
    """Read it. For the login that is `known` nobody is asked again. Blocks."""
    user, file = chosen.smart_host_login, chosen.smart_host_password_file
    login = known
    if user is None:
        login = None
    elif login is None or login[0] != user or file is not None:
        login = user, password_for(user, file)
    return Outside(
        login,
        RouteTable(rules_of(chosen.routes, chosen.schedule), separator=chosen.subaddress_separator),
    )


def relay_of(
    chosen: ServeSettings,
    spool: SQLiteSpool,
    certificate: Certificate,
    outside: Outside,
    *,
    login: Login | None,
    accounts: AccountFile | None,
    observe: Observer,
    share: Share,
) -> Relay:
    """Make the relay that the settings ask for; `login` is the one of its own, if it has one."""
    smart_host: Host | None = None
    if chosen.smart_host is not None:
        access = Access(
            chosen.smart_host_tls,
            login=outside.smart_login,
            login_in_clear=is_loopback(chosen.smart_host.host),
        )
        smart_host = Host(chosen.smart_host.host, None, chosen.smart_host.port, access=access)
    return Relay(
        hostname=chosen.hostname,
        spool=spool,
        mailboxes=Maildir(
            chosen.data / "mail",
            hostname=chosen.hostname,
            now=time.time,
            random_bytes=os.urandom,
            quota=quotas(
                Quota(chosen.mailbox_quota, chosen.mailbox_quota_messages), chosen.mailbox_quotas
            ),
            separator=chosen.subaddress_separator,
            folders=chosen.subaddress_folders,
        ),
        router=Router(
            local_domains=chosen.local_domains,
            relay_domains=chosen.relay_domains,
            routes=outside.routes,
            smart_host=smart_host,
            resolver=DnsResolver(),
            shuffle=random.shuffle,
            hostname=chosen.hostname,
        ),
        aliases=alias_table(chosen.aliases, chosen.lists, separator=chosen.subaddress_separator),
        verp=verp_of(chosen.verp, chosen.lists, chosen.verp_separator, chosen.local_domains),
        postmaster=chosen.double_bounces,
        dsn_to_all=chosen.dsn_to_all,
        verify="callout" if chosen.verify_recipients else None,
        # Strangers do not reach loopback, and the DNS may be out of reach from here.
        check_senders=not is_loopback(chosen.listen.host)
        if chosen.check_senders is None
        else chosen.check_senders,
        failing_filter=chosen.filters_fail,
        networks=chosen.relay_from,
        tls=certificate.reloadable(),
        authenticator=accounts or Passwords({login.username: login.password} if login else {}),
        senders=every_sender if accounts is None else accounts.may_send,
        keep_bcc=chosen.keep_bcc,
        schedule=chosen.schedule,
        least_by=None if chosen.least_by is None else int(chosen.least_by),
        longest_hold=int(chosen.longest_hold),
        hold_quota=Quota(share.each(chosen.hold_quota), share.each(chosen.hold_quota_messages)),
        limits=Limits(message=chosen.max_message, recipients=chosen.max_recipients),
        guard=share.guard(),
        connections=Connections(share.each(chosen.sessions_in), chosen.sessions_in_each),
        # Not shared out: next hops that do not answer keep some busy in each process.
        sessions=chosen.sessions_out,
        sessions_each=share.each(chosen.sessions_out_each),
        observe=observe,
    )
