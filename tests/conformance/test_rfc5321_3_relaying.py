"""RFC 5321 §2.3.11, §3.6 and §3.7.2: what a relay leaves as it is."""

from pathlib import Path

import pytest

from smtpproto.relay.reports.story import Delivered
from tests.relay.world import MESSAGE, world

pytestmark = pytest.mark.anyio

SENDER = '"Ann  B"@Our.DOM'
ODD = [
    b"no header at all\r\n",
    b"Received: by carrier pigeon\r\nReceived:(?;;\r\nRECEIVED: from x; yesterday\r\n\r\nhi\r\n",
    b"Resent-To: a@b\r\nResent-From: c@d\r\nResent-From: e@f\r\n\r\nhi\r\n",
    b"Return-Path: nobody\r\nFrom:\r\nFrom: x\r\nDate: never\r\n\r\nhi\r\n",
    b"Content-Type: multipart/mixed\r\nContent-Transfer-Encoding: wrong\r\n\r\n--\r\n",
]


@pytest.mark.rfc(
    "5321 §2.3.10 relay-adds-its-trace-and-nothing-else",
    "5321 §2.4 relay-does-not-look-into-content",
    "5321 §3.3 defects-in-a-message-refuse-nothing",
    "5321 §3.3 resent-fields-refuse-nothing",
    "5321 §3.6.3 relay-leaves-the-message-alone",
    "5321 §3.7.2 received-fields-of-others-stay-as-they-are",
    "5321 §3.7.2 trace-fields-refuse-nothing",
)
@pytest.mark.parametrize("content", ODD)
async def test_an_odd_message_goes_on_as_it_is(tmp_path: Path, content: bytes) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example")
        assert (await node.send(SENDER, ["v@ext.example"], content)).all_accepted
        await node.until(Delivered)
        (sent,) = host.contents
        trace = sent.removesuffix(content)
        assert trace + content == sent
        assert trace.startswith(b"Received: from client.example")
        assert trace.count(b"\r\n") == trace.count(b"\r\n ") + 1  # one field, folded


@pytest.mark.rfc(
    "5321 §2.3.11 local-parts-mean-nothing-on-the-way",
    "5321 §2.4 case-of-local-parts-is-kept",
    "5321 §3.6.1 route-is-dropped",
    "5321 §3.6.1 reverse-path-is-what-mail-had",
)
async def test_both_paths_go_on_as_they_came_but_for_a_route(tmp_path: Path) -> None:
    recipients = ["Odd.Name%other.example", '"v@our.dom"', '"Two  Words"', "a!b", "v+x", "SMITH"]
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example")
        async with node.dial() as wire:
            await wire.hello()
            await wire.say(f"MAIL FROM:<@x.example:{SENDER}>")
            for local_part in recipients:
                said = await wire.say(f"RCPT TO:<@x.example,@y.example:{local_part}@ext.example>")
                assert said.startswith("250")
            await wire.say("DATA")
            assert (await wire.say(MESSAGE + b".")).startswith("250")
        await node.until(Delivered, len(recipients))
        assert host.accepted == [[f"RCPT TO:<{name}@ext.example>" for name in recipients]]
        assert host.lines[1].startswith(f"MAIL FROM:<{SENDER}> ")
