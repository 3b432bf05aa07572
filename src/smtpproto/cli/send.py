"""`smtpproto send`: one message or many, to a server, to the local node, or to the MXs."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from attrs import frozen
from rich.text import Text

from smtpproto.client import Client, Tls
from smtpproto.core.envelope import Envelope
from smtpproto.relay.routing.route import HostPort
from smtpproto.result import ClientError, Fate, Outcome, RefusedError, Result

from .compose import Correspondent, Draft, compose, finished
from .console import dialogue, mark, out, reply_text, safe, say, table
from .direct import deliver_direct
from .flood import Tally, flood
from .node import NodeError, load_login
from .options import (
    BadInput,
    Failure,
    Value,
    backend_option,
    ca_option,
    context_for,
    data_option,
    helo_option,
    password_for,
    password_option,
    run,
    server,
    tls_option,
)
from .values import is_loopback
from .words import explain

__all__ = ["Destination", "exit_code", "send"]

ALL, NOBODY, SOME, UNKNOWN = 0, 1, 3, 4


@frozen
class Destination:
    """One server, and how to have a session with it."""

    address: HostPort
    tls: Tls
    ssl_context: ssl.SSLContext | None
    login: tuple[str, str] | None
    helo: str | None
    #: Whether it is the node on this machine, which nobody has named.
    local: bool = False

    def client(self, trace: Callable[[str], None] | None = None) -> Client:
        """Return a client, not connected yet."""
        return Client(
            self.address.host,
            self.address.port,
            tls=self.tls,
            ssl_context=self.ssl_context,
            login=self.login,
            # What goes over loopback, nobody else hears.
            login_in_clear=is_loopback(self.address.host),
            helo_name=self.helo,
            trace=trace,
        )


@click.command(
    epilog="Exit codes: 0 all recipients were accepted; 1 none was, or there was no session; "
    "2 wrong usage; 3 some were accepted; 4 unknown: the connection broke after the whole "
    "message was sent, so it may have been accepted."
)
@click.option("--server", "address", type=server(0), metavar="HOST[:PORT]", help="The server to "
    "hand the message to. Port: 587, or 465 with --tls implicit.")  # fmt: skip
@click.option("--direct", is_flag=True, help="Look up the mail exchangers of each recipient's "
    "domain and deliver there.")  # fmt: skip
@data_option
@tls_option(
    "Default: implicit on port 465; opportunistic with --direct, on port 25, and on loopback "
    "without a login; else required."
)
@ca_option
@click.option("--login", metavar="USER", help="Log in as this user.")
@password_option
@helo_option
@click.option("--from", "sender", required=True, metavar="A",
    type=Value("ADDRESS", Correspondent.sender),
    help='The sender: a@example.org, "Ann <a@example.org>", or "<>" for nobody.')  # fmt: skip
@click.option("--to", "recipients", required=True, multiple=True, metavar="B",
    type=Value("ADDRESS", Correspondent.recipient), help="A recipient. Repeatable.")  # fmt: skip
@click.option("--subject", metavar="TEXT", help="Compose a message with this subject.")
@click.option("--body", metavar="TEXT", help="Compose a message with this text; - reads it from "
    "standard input.")  # fmt: skip
@click.option("--attach", multiple=True, metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compose a message with this file in it. Repeatable.")  # fmt: skip
@click.option("--count", type=click.IntRange(1), default=1, metavar="N", help="Send it N times.")
@click.option("--sessions", type=click.IntRange(1, 1000), default=1, metavar="S",
    help="Use S sessions at once, with --count.")  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Show the dialogue with the server.")
@backend_option
@click.argument("file", required=False, metavar="[FILE|-]",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True))  # fmt: skip
def send(
    *,
    sender: Correspondent,
    recipients: tuple[Correspondent, ...],
    direct: bool,
    count: int,
    sessions: int,
    verbose: bool,
    backend: str,
    **options: Any,
) -> None:
    """Send a message.

    A finished one, headers and all, from FILE or (-) standard input: its line ends are made
    CRLF, and nothing else is changed. Or one composed from --subject, --body and --attach.

    Without --server or --direct it is submitted to the local node, the one that
    `smtpproto serve` runs in --data.
    """
    if direct and options["address"]:
        raise click.UsageError("--server and --direct exclude each other")
    if direct and count > 1:
        raise click.UsageError("--count is for one server, not for --direct")
    envelope = Envelope(sender.address or None, [to.address for to in recipients])
    draft = _draft(sender, recipients, **options)
    trace = dialogue if verbose else None
    if direct:
        context = context_for(options["ca"])
        tls = _direct_tls(options["tls"], options["login"], context)
        deliver = partial(
            deliver_direct,
            envelope,
            draft.octets_for(1),
            tls=tls,
            ssl_context=context,
            helo_name=options["helo"],
            trace=trace,
        )
        raise SystemExit(_report(run(backend, deliver)))
    destination = _destination(**options)
    if count == 1:
        result = run(backend, partial(_deliver, destination, envelope, draft, trace))
        raise SystemExit(_report(result))

    async def many() -> Tally:
        return await flood(
            destination.client, envelope, draft, count=count, sessions=sessions, trace=trace
        )

    raise SystemExit(_summary(run(backend, many)))


async def _deliver(
    destination: Destination,
    envelope: Envelope,
    draft: Draft,
    trace: Callable[[str], None] | None,
) -> Result:
    host = destination.address.host
    try:
        async with destination.client(trace) as client:
            return await client.deliver(envelope, draft.octets_for(1))
    except RefusedError as error:
        raise Failure(
            f"{safe(host)}: {error.step} was refused: {reply_text(error.reply)}"
        ) from None
    except ClientError as error:
        raise Failure(_no_session(destination, error)) from None


def _no_session(destination: Destination, error: ClientError) -> str:
    """Say why there was no session, and what may help."""
    words = f"{destination.address}: {explain(error, destination.address.host)}"
    if destination.local and "nothing listens" in words:
        words += "\nthe local node is not running: `smtpproto serve` starts it; or give --server"
    elif "the server closed the connection" in words and destination.tls is not Tls.IMPLICIT:
        words += "\nit may wait for TLS from the first octet: --tls implicit"
    elif "does not offer STARTTLS" in words:
        words += "\nit would be sent in clear with --tls opportunistic or --tls none"
    elif "certificate" in words and destination.ssl_context is None:
        words += "\nto trust a certificate of your own, give it by --ca FILE"
    return words


# What is to be sent


def _draft(
    sender: Correspondent,
    recipients: Sequence[Correspondent],
    *,
    subject: str | None,
    body: str | None,
    attach: tuple[Path, ...],
    file: str | None,
    **_: Any,
) -> Draft:
    composing = subject is not None or body is not None or bool(attach)
    if file is not None:
        if composing:
            raise click.UsageError(
                "FILE is a finished message; --subject, --body and --attach compose one"
            )
        try:
            return finished(_read(file))
        except ValueError as error:
            name = "standard input" if file == "-" else file
            raise click.UsageError(f"{name} is {error}") from None
    if not composing:
        raise click.UsageError(
            "nothing to send: give FILE, or - for standard input, or --subject and --body"
        )
    if not sender.address:
        raise click.UsageError('a composed message needs a sender; "<>" is for finished ones')
    try:
        return compose(
            sender,
            recipients,
            subject=subject,
            body=_read("-").decode("utf-8") if body == "-" else body or "",
            attachments=attach,
            date=datetime.now().astimezone(),
        )
    except UnicodeError:
        raise click.UsageError("the message has text that is not UTF-8") from None
    except ValueError as error:
        raise click.UsageError(f"cannot compose this message: {error}") from None
    except OSError as error:
        raise BadInput(f"cannot read {error.filename}: {error.strerror}") from None


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from None


# Where it is to be sent


def _destination(
    *,
    address: HostPort | None,
    data: Path,
    tls: str | None,
    ca: Path | None,
    login: str | None,
    password_file: Path | None,
    helo: str | None,
    **_: Any,
) -> Destination:
    if password_file is not None and login is None:
        raise click.UsageError("--password-file goes with --login")
    context = context_for(ca)
    if address is None:
        return _local_node(
            data=data,
            tls=tls,
            context=context,
            login=login,
            password_file=password_file,
            helo=helo,
        )
    if not address.port:
        address = HostPort(address.host, 465 if tls == Tls.IMPLICIT.value else 587)
    loopback = is_loopback(address.host)
    if tls is not None:
        security = Tls(tls)
    elif address.port == 465:
        security = Tls.IMPLICIT
    elif not login and (address.port == 25 or loopback):
        security = Tls.OPPORTUNISTIC
    else:
        security = Tls.REQUIRED
    if login and not loopback and security in {Tls.NONE, Tls.OPPORTUNISTIC}:
        raise click.UsageError(
            f"--login with --tls {security.value} could give the password to somebody in between"
        )
    return Destination(
        address,
        security,
        context,
        (login, password_for(login, password_file)) if login else None,
        helo,
    )


def _local_node(
    *,
    data: Path,
    tls: str | None,
    context: ssl.SSLContext | None,
    login: str | None,
    password_file: Path | None,
    helo: str | None,
) -> Destination:
    try:
        node = load_login(data)
    except FileNotFoundError:
        if (data / "spool").is_dir():
            words = f"the node in {data} has accounts: give --server and --login"
        else:
            words = (
                f"there is no node in {data} (`smtpproto serve` makes one): "
                "give --server, --direct or --data"
            )
        raise click.UsageError(words) from None
    except (NodeError, OSError) as error:
        raise BadInput(str(error)) from None
    if context is None:
        context = context_for(data / "tls" / "cert.pem")
    return Destination(
        HostPort(node.host, node.port),
        Tls(tls) if tls else node.security,
        context,
        (login, password_for(login, password_file)) if login else (node.username, node.password),
        helo,
        local=True,
    )


def _direct_tls(tls: str | None, login: str | None, context: ssl.SSLContext | None) -> Tls:
    if login is not None:
        raise click.UsageError("--login goes with a server, not with --direct")
    if tls == Tls.IMPLICIT.value:
        raise click.UsageError("mail exchangers have no implicit TLS; --tls implicit cannot be")
    if context is not None and tls is None:
        return Tls.REQUIRED
    return Tls(tls) if tls else Tls.OPPORTUNISTIC


# What came of it


def exit_code(fates: Sequence[Fate]) -> int:
    """Return what the exit code says about the fates of all recipients of all messages."""
    if Fate.UNKNOWN in fates:
        return UNKNOWN
    accepted = [fate is Fate.ACCEPTED for fate in fates]
    return ALL if all(accepted) else SOME if any(accepted) else NOBODY


_SIGN = {
    Fate.ACCEPTED: ("good", "accepted"),
    Fate.TRANSIENT: ("warn", "not now"),
    Fate.PERMANENT: ("bad", "refused"),
    Fate.UNKNOWN: ("warn", "unknown"),
}


def _report(result: Result) -> int:
    rows: list[tuple[Text, str, str]] = []
    for outcome in result.outcomes:
        kind, word = _SIGN[outcome.fate]
        sign, style = mark(kind)  # type: ignore[arg-type]  # of the three above
        rows.append((Text(f"{sign} {word}", style), safe(outcome.forward_path), _answer(outcome)))
    if len(rows) == 1:
        ((sign_and_word, path, answer),) = rows
        say((sign_and_word.plain, str(sign_and_word.style)), f"  {path}  {answer}")
    else:
        out().print(table("", "recipient", "reply", rows=rows))
    return exit_code([outcome.fate for outcome in result.outcomes])


def _answer(outcome: Outcome) -> str:
    return reply_text(outcome.reply) if outcome.reply is not None else safe(outcome.reason)


def _summary(tally: Tally) -> int:
    say(tally.line())
    for reason, times in tally.reasons.most_common(5):
        say(mark("bad"), f" {times} x {reason}")
    return exit_code(list(tally.fates))
