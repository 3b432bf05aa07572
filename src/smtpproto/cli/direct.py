"""`send --direct`: to the mail exchangers of each recipient's domain, without a queue."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable

from smtpproto.client import Client, Connector, Tls, connect_tcp
from smtpproto.core.command import Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.reply import Reply, Severity
from smtpproto.relay.routing.route import Host, NextHop, Router, Undetermined, Unroutable
from smtpproto.resolve import DnsResolver
from smtpproto.result import ClientError, Fate, Outcome, RefusedError, Result

from .words import explain

__all__ = ["deliver_direct"]


async def deliver_direct(
    envelope: Envelope,
    content: bytes,
    *,
    tls: Tls = Tls.OPPORTUNISTIC,
    ssl_context: ssl.SSLContext | None = None,
    helo_name: str | None = None,
    trace: Callable[[str], None] | None = None,
    router: Router | None = None,
    connector: Connector = connect_tcp,
) -> Result:
    """Deliver to each domain's mail exchangers in their order; return all outcomes in ours.

    Recipients with the same next hop share a transaction. A host that gives no session, or
    greets with a refusal, is passed over for the next (RFC 5321 §5.1); what one says about a
    recipient holds.
    """
    if router is None:
        router = Router(
            local_domains=(),
            smart_host=None,
            resolver=DnsResolver(),
            shuffle=random.shuffle,
            hostname="",
            own_addresses=(),  # whom you write to on this machine, you may mean
        )
    fates: dict[int, Outcome] = {}
    hops: dict[object, tuple[NextHop, list[int]]] = {}
    for number, path in enumerate(envelope.forward_paths):
        route = await router.by_mx(path.mailbox.domain) if path.mailbox.domain else NO_DOMAIN
        match route:
            case NextHop():
                hops.setdefault(route.name, (route, []))[1].append(number)
            case Unroutable() | Undetermined():
                fates[number] = Outcome(path, Fate.of(route.reply), route.reply)
    for hop, numbers in hops.values():
        rcpts: list[Rcpt] = [envelope.rcpts[number] for number in numbers]
        part = Envelope(envelope.mail, rcpts)

        def client(host: Host) -> Client:
            literal = host.name.startswith("[")
            return Client(
                host.address or host.name,
                host.port,
                tls=tls,
                ssl_context=ssl_context,
                server_name=None if literal else host.name,
                helo_name=helo_name,
                trace=trace,
                connector=connector,
            )

        result = await _try_in_turn(hop, client, part, content, trace)
        fates |= dict(zip(numbers, result.outcomes, strict=True))
    return Result(tuple(fates[number] for number in range(len(envelope.rcpts))))


async def _try_in_turn(
    hop: NextHop,
    client: Callable[[Host], Client],
    envelope: Envelope,
    content: bytes,
    trace: Callable[[str], None] | None,
) -> Result:
    refused_for_good = 0
    reasons: list[str] = []
    for host in hop.hosts:
        if trace is not None:
            trace(f"-- {host.name} at {host.address or host.name}, port {host.port}")
        try:
            async with client(host) as session:
                return await session.deliver(envelope, content)
        except RefusedError as error:
            refused_for_good += error.reply.severity is Severity.PERMANENT
            reasons.append(f"{host.name}: {error.step} was refused: {error.reply}")
        except ClientError as error:
            reasons.append(f"{host.name}: {explain(error, host.name)}")
    # As long as one was only not to be had, trying again is sensible.
    fate = Fate.PERMANENT if refused_for_good == len(hop.hosts) else Fate.TRANSIENT
    reason = "; ".join(dict.fromkeys(reasons))
    return Result(tuple(Outcome(path, fate, None, reason) for path in envelope.forward_paths))


NO_DOMAIN = Unroutable(Reply(550, "5.1.2", "No domain to look up"))
