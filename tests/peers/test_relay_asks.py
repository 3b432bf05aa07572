"""`smtpproto serve` in front of real next hops that lack what a message asks for, or offer it."""

import contextlib
import email
import re
import smtplib
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.relay.process import Served, serving

from .programs import HOST, PATIENCE, PostfixServer, postfix, smtp_sink

SENDER = "ann@our.test"
REMOTE = "alice@example.test"
OTHERS = [f"user{number}@example.test" for number in range(10)]
TEXT = (
    f"From: {SENDER}\r\nSubject: a\r\nMIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n"
).encode()

Serve = Callable[..., Served]


@pytest.fixture(params=["asyncio", "trio"])
def serve(
    request: pytest.FixtureRequest, peers: contextlib.ExitStack, tmp_path: Path
) -> Callable[[str], Served]:
    def start(smart_host: str) -> Served:
        options = ("--local-domain", "our.test", "--smart-host", smart_host)
        return peers.enter_context(serving(tmp_path / "data", *options, backend=request.param))

    return start


def submit(
    served: Served, content: bytes, asked: Sequence[str] = (), to: Sequence[str] = (REMOTE,)
) -> None:
    trusted = ssl.create_default_context(cafile=served.data / "tls" / "cert.pem")
    with smtplib.SMTP(HOST, served.submission, timeout=PATIENCE) as session:
        session.starttls(context=trusted)
        session.login(*served.login)
        session.sendmail(SENDER, to, content, mail_options=asked)


def kept(server: PostfixServer) -> bytes:
    """What Postfix has, from the first field of the message on."""
    (content,) = server.wait_for_messages(REMOTE)
    own = re.sub(rb"(?m)^(Message-Id|Date): .*\n", b"", content)  # Postfix adds what is missing
    return own[own.index(b"From: ") :]


def postfix_without(peers: contextlib.ExitStack, keywords: str) -> PostfixServer:
    settings = {"smtpd_discard_ehlo_keywords": keywords}
    return peers.enter_context(postfix(mailboxes=[REMOTE], settings=settings))


def decoded(content: str | bytes) -> bytes:
    octets = content.encode() if isinstance(content, str) else content
    payload = email.message_from_bytes(octets).get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.replace(b"\r\n", b"\n").strip()


@pytest.mark.peer("smtp-sink")
def test_smtp_sink_without_8bitmime_gets_7_bits(serve: Serve) -> None:
    with smtp_sink("-8") as sink:
        submit(serve(sink.address), TEXT, ["BODY=8BITMIME"])
        dump = sink.wait_for("Gr=C3=BC")
        assert "Content-Transfer-Encoding: quoted-printable\n" in dump
        assert dump.isascii()


@pytest.mark.peer("postfix")
def test_postfix_without_8bitmime_gets_7_bits_that_decode_to_the_same(
    serve: Serve, peers: contextlib.ExitStack
) -> None:
    next_hop = postfix_without(peers, "8bitmime")
    submit(serve(next_hop.address), TEXT, ["BODY=8BITMIME"])
    content = kept(next_hop)
    assert b"Gr=C3=BC=C3=9Fe" in content
    assert decoded(content) == "Grüße".encode()


@pytest.mark.peer("postfix")
def test_postfix_with_8bitmime_gets_it_as_it_is(serve: Serve, next_hop: PostfixServer) -> None:
    submit(serve(next_hop.address), TEXT, ["BODY=8BITMIME"])
    assert kept(next_hop) == TEXT.replace(b"\r\n", b"\n")


@pytest.mark.peer("postfix")
def test_postfix_takes_a_message_in_utf8_and_without_smtputf8_it_is_reported(
    serve: Serve, peers: contextlib.ExitStack, next_hop: PostfixServer
) -> None:
    content = TEXT.replace(b"Subject: a", "Subject: ä".encode())
    asked = ["SMTPUTF8", "BODY=8BITMIME"]
    served = serve(next_hop.address)
    submit(served, content, asked)
    assert kept(next_hop) == content.replace(b"\r\n", b"\n")
    assert served.stop() == 0
    served = serve(postfix_without(peers, "smtputf8").address)
    submit(served, content, asked)
    served.until(lambda: " 5.6.9 " in "".join(served.lines), "to fail for want of SMTPUTF8")


@pytest.mark.peer("postfix")
def test_recipients_that_postfix_finds_too_many_come_in_further_transactions(
    serve: Serve, peers: contextlib.ExitStack
) -> None:
    settings = {"smtpd_recipient_limit": "4", "smtpd_recipient_overshoot_limit": "1000"}
    server = peers.enter_context(postfix(mailboxes=OTHERS, settings=settings))
    served = serve(server.address)
    submit(served, TEXT, ["BODY=8BITMIME"], OTHERS)
    for address in OTHERS:
        server.wait_for_messages(address)
    assert not any(" deferred " in line for line in served.lines)


@pytest.mark.peer("postfix")
def test_in_mode_r_postfix_gets_nothing_for_it_promises_nothing(
    serve: Serve, next_hop: PostfixServer
) -> None:
    served = serve(next_hop.address)
    submit(served, TEXT, ["BY=60;R"])
    served.until(lambda: " 5.3.3 " in "".join(served.lines), "to fail for want of DELIVERBY")
    assert next_hop.messages(REMOTE) == []
