"""All of it together: from a mail program to a mailbox over several relays, start and end."""

import errno
import socket
from pathlib import Path

import anyio
import pytest
from attrs import evolve

from smtpproto.client import Client
from smtpproto.core.envelope import Envelope
from smtpproto.core.errors import LocalProtocolError
from smtpproto.relay import Access, Host, Listener, Passwords
from smtpproto.relay.mailboxes.mailbox import listed_mailboxes
from smtpproto.relay.reports.story import Accepted, Deferred, Delivered, Event, Failed, Reported
from tests.relay.world import LOGIN, MESSAGE, World, parsed, world

pytestmark = pytest.mark.anyio


async def three_hops(w: World) -> None:
    """Register where sender.example and recipient.example are served."""
    for name, domain in ("out.example", "sender.example"), ("last.example", "recipient.example"):
        address = w.dead(name, domain)
        w.ports[address, 25] = w.ports[name, 25]


@pytest.mark.rfc("5321 §2.1 message-may-go-over-several-hops")
@pytest.mark.rfc("5321 §4.1.1.4 every-relay-adds-its-record")
async def test_a_message_goes_over_three_relays_and_a_report_comes_back(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        last = await w.node(
            "last.example", ["recipient.example"], networks=(), policy=listed_mailboxes(["bob"])
        )
        await w.node("middle.example", ["middle.example"], kinds=["submission"], tls=True)
        middle = w.nodes[-1]
        access = Access("required", login=LOGIN, ssl_context=w.trusting("middle.example"))
        out = await w.node(
            "out.example",
            ["sender.example"],
            kinds=["smtp", "submission"],
            networks=(),
            tls=True,
            smart_host=Host("middle.example", port=587, access=access),
        )
        await three_hops(w)
        async with Client(
            "127.0.0.1",
            out.ports["submission"],
            login=LOGIN,
            server_name="out.example",
            ssl_context=w.trusting("out.example"),
        ) as client:
            await client.send(
                Envelope("ann@sender.example", ["bob@recipient.example", "eve@recipient.example"]),
                MESSAGE,
            )
        (delivered,) = await last.until(Delivered)
        assert delivered.where == "mailbox bob@recipient.example"
        (mail,) = last.mail("bob@recipient.example")
        hops = parsed(mail).get_all("Received", [])
        by = [str(hop).split(" by ")[1].split()[:3] for hop in hops]
        assert by == [
            ["last.example", "with", "ESMTP"],
            ["middle.example", "with", "ESMTPSA"],
            ["out.example", "with", "ESMTPSA"],
        ]
        assert mail.startswith(b"Return-Path: <ann@sender.example>\n")
        assert mail.endswith(b"\n\n.dots and words\n")

        # eve does not exist; middle reports it to where ann lives.
        (failed,) = await middle.until(Failed)
        assert str(failed.forward_path) == "<eve@recipient.example>"
        assert failed.reply.startswith("550 5.1.1")
        *_, arrived = await out.until(Delivered, 3)  # bob's and eve's were sent on before
        assert arrived.where == "mailbox ann@sender.example"
        await middle.until(Delivered, 2)  # bob's, and the report
        (report,) = out.mail("ann@sender.example")
        assert report.startswith(b"Return-Path: <>\nReceived: from middle.example")
        for node in w.nodes:
            assert await node.queue() == []


async def test_every_message_has_a_story(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "ext.example", {"RCPT TO:<later@": "450 later"})
        node = await w.node("relay.example")
        await node.send("a@our.dom", ["later@ext.example", "no@nowhere.example", "v@our.dom"])
        await node.until(Reported)
        await node.until(Delivered, 2)  # the message, and the report
        await node.until(Deferred)
        (accepted,) = node.told(Accepted)
        (reported,) = node.told(Reported)
        assert accepted.octets > len(MESSAGE)
        assert [str(path) for path in accepted.forward_paths] == [
            "<later@ext.example>",
            "<no@nowhere.example>",
            "<v@our.dom>",
        ]
        assert accepted.origin == "127.0.0.1 by ESMTP"
        ids = {getattr(event, "id", "") for event in node.events}
        assert ids == {accepted.id, reported.report}


async def test_the_dialogues_are_shown_without_the_password(tmp_path: Path) -> None:
    lines: list[tuple[str, str, str]] = []
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "ext.example")
        node = await w.node(
            "relay.example",
            kinds=["submission"],
            trace=lambda id, peer, line: lines.append((id, peer, line)),
        )
        await node.send("a@our.dom", ["v@ext.example"], kind="submission", login=LOGIN)
        await node.until(Delivered)
    ids = {id for id, _, _ in lines}
    assert ids == {"session 1", "next hop"}
    assert ("next hop", "mx.ext.example", "C: RCPT TO:<v@ext.example>") in lines
    assert "AUTH PLAIN ****" in " ".join(line for _, _, line in lines)
    assert "horse" not in repr(lines)
    assert "horse" not in repr((Passwords(dict([LOGIN])), Access("required", login=LOGIN)))


# --- start and end ---------------------------------------------------------------------------


async def test_it_ends_gracefully_and_begins_again_where_it_was(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {"RCPT": "450 4.2.1 later"})
        node = await w.node("relay.example")
        await node.send("a@our.dom", ["v@ext.example"])
        await node.until(Deferred)
        async with node.dial() as wire:
            await wire.hello()
            node.relay.stop()
            assert (await wire.reply()).startswith("421 4.3.2")
        await node.ended.wait()
        host.says.clear()
        w.move(600)
        again = await w.node("relay.example")
        await again.until(Delivered)
        assert len(host.accepted) == 1


async def test_a_transaction_under_way_may_finish(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        async with node.dial() as wire:
            await wire.hello()
            await wire.say("MAIL FROM:<>")
            node.relay.stop()
            await wire.say("RCPT TO:<v@our.dom>")
            await wire.say("DATA")
            assert (await wire.say(b"Subject: late\r\n\r\n\r\n.")).startswith("250")
        await node.ended.wait()
        again = await w.node("relay.example")
        if not node.told(Delivered):  # it may have had the time
            await again.until(Delivered)
        assert len(again.mail("v@our.dom")) == 1


async def test_stopped_before_it_began_it_does_not_begin(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        await node.stop()
        relay = evolve(node.relay)
        relay.stop()
        listeners = [Listener("smtp", "127.0.0.1", 0), Listener("submission", "127.0.0.1", 0)]
        with anyio.fail_after(60):
            await relay.run(listeners)


async def test_an_address_in_use_is_named(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            free, used = Listener("smtp", "127.0.0.1", 0), Listener("smtp", "127.0.0.1", port)
            with pytest.raises(ExceptionGroup) as caught:
                await evolve(node.relay).run([free, used])
        (error,) = caught.value.exceptions
        assert isinstance(error, OSError)
        assert error.errno == errno.EADDRINUSE
        assert error.filename == f"127.0.0.1:{port}"


async def test_two_do_not_serve_one_spool(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.node("relay.example")
        with pytest.raises(Exception, match="another process serves it"):
            async with world(tmp_path) as other:
                await other.node("relay.example")


async def test_tls_from_the_first_octet_needs_a_certificate(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        with pytest.raises(LocalProtocolError):
            node.relay.server("submissions")


@pytest.mark.rfc("8314 §3.3 both-ways-to-tls")
async def test_submissions_is_tls_from_the_first_octet(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submissions"], tls=True)
        async with Client(
            "127.0.0.1",
            node.ports["submissions"],
            tls="implicit",
            login=LOGIN,
            server_name="relay.example",
            ssl_context=w.trusting("relay.example"),
        ) as client:
            await client.send(Envelope("a@our.dom", ["v@our.dom"]), MESSAGE)
        await node.until(Delivered)
        (mail,) = node.mail("v@our.dom")
        assert b"with ESMTPSA id" in mail


async def test_events_are_values() -> None:
    path = Envelope("a@our.dom", ["v@our.dom"]).forward_paths[0]
    event: Event = Delivered("id", path, "mailbox v@our.dom", "250 2.1.5 Delivered")
    assert event == Delivered("id", path, "mailbox v@our.dom", "250 2.1.5 Delivered")
    assert {event: 1}[event] == 1
