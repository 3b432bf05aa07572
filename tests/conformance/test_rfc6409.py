"""RFC 6409: what a submission server refuses, and how; what it offers; what it leaves alone."""

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from smtpproto import Bdat, EndOfContent, Reply, ServerConnection
from smtpproto.client import Client
from smtpproto.core.path import Mailbox
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions import CHUNKING, ENHANCEDSTATUSCODES
from smtpproto.relay.mailboxes.mailbox import listed_mailboxes
from smtpproto.relay.relay import Kind
from smtpproto.relay.reports.story import Accepted, Delivered
from tests.conformance.ends import RCPT, say, server_after
from tests.relay.test_policy import with_hops
from tests.relay.world import LOGIN, MESSAGE, Node, Wire, parsed, world

pytestmark = pytest.mark.anyio

SECRET = b64encode("\0{}\0{}".format(*LOGIN).encode()).decode()


@asynccontextmanager
async def logged_in(node: Node) -> AsyncIterator[Wire]:
    """A session with the submission listener, behind AUTH."""
    async with node.dial("submission") as wire:
        await wire.hello()
        assert (await wire.say(f"AUTH PLAIN {SECRET}")).startswith("235")
        yield wire


# --- §3: where, and who ----------------------------------------------------------------------


@pytest.mark.rfc("6409 §3.1 client-goes-to-port-587")
def test_a_client_goes_to_port_587_unless_it_is_told_otherwise() -> None:
    assert Client("mail.example").port == 587
    assert Client("mail.example", 25).port == 25


@pytest.mark.rfc(
    "6409 §3.1 submission-is-esmtp",
    "6409 §3.2 rules-may-differ-from-those-for-relaying",
    "6409 §4.3 who-has-not-logged-in-is-refused",
    "6409 §4.3 530-until-there-is-a-login",
)
async def test_a_stranger_may_write_to_us_but_submits_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["smtp", "submission"])
        answers: dict[Kind, str] = {"smtp": "250", "submission": "530 5.7.0"}
        for kind, expected in answers.items():
            async with node.dial(kind) as wire:
                await wire.hello()
                assert (await wire.say("MAIL FROM:<a@ext.example>")).startswith(expected)


@pytest.mark.rfc("6409 §3.2 null-reverse-path-may-be-submitted")
async def test_mail_from_nobody_is_taken_from_who_has_logged_in(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"])
        result = await node.send(None, ["v@our.dom"], kind="submission", login=LOGIN)
        assert result.all_accepted
        await node.until(Delivered)


@pytest.mark.rfc("6409 §3.2 refusing-at-once-is-better")
async def test_what_can_be_known_is_said_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"], policy=listed_mailboxes(["ann"]))
        async with logged_in(node) as wire:
            await wire.say("MAIL FROM:<ann@our.dom>")
            assert (await wire.say("RCPT TO:<eve@our.dom>")).startswith("550 5.1.1")


# --- §4 to §6: refusals ----------------------------------------------------------------------


@pytest.mark.rfc("6409 §5.1 malformed-addresses-are-refused", "6409 §5.1 malformed-address-is-501")
async def test_addresses_that_are_none_are_501(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"])
        async with logged_in(node) as wire:
            for sender in "<a@>", "<@>", "<a b@c.example>", "<a@b..c>", "a@b@c.example":
                assert (await wire.say(f"MAIL FROM:{sender}")).startswith("501")
            assert (await wire.say("MAIL FROM:<ann@our.dom>")).startswith("250")
            for recipient in "<>", "<v>", "<v@ext.example.>", "<v@-ext.example>", "<v w@x.example>":
                assert (await wire.say(f"RCPT TO:{recipient}")).startswith("501")


@pytest.mark.rfc("6409 §4.1 554-where-nothing-says-more", "6409 §7 bdat-is-like-data")
@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
async def test_a_content_that_cannot_go_on_is_554(tmp_path: Path, verb: str) -> None:
    content = with_hops(100)
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"])
        async with logged_in(node) as wire:
            await wire.say("MAIL FROM:<ann@our.dom>")
            await wire.say("RCPT TO:<v@our.dom>")
            if verb == "DATA":
                assert (await wire.say("DATA")).startswith("354")
                said = await wire.say(content + b".")
            else:
                await wire.stream.send(b"BDAT %d LAST\r\n" % len(content) + content)
                said = await wire.reply()
            assert said.startswith("554 5.4.6")
        assert await node.queue() == []


OFFERED = (ENHANCEDSTATUSCODES, CHUNKING)
#: Behind RCPT or before, what is said, what that asks for, and the answer that is chosen.
REFUSALS = [
    pytest.param(
        b"EHLO c.example\r\n",
        b"MAIL FROM:<boss@our.dom>\r\n",
        Reply(550, "5.7.1", "Not you"),
        marks=pytest.mark.rfc("6409 §6.1 sender-may-be-refused-with-550"),
    ),
    pytest.param(
        b"EHLO c.example\r\nMAIL FROM:<a@b>\r\n",
        b"RCPT TO:<everybody@our.dom>\r\n",
        Reply(550, "5.7.1", "Not you"),
        marks=pytest.mark.rfc("6409 §6.2 recipient-may-be-refused-with-550"),
    ),
    pytest.param(
        RCPT,
        b"DATA\r\n",
        Reply(554, "5.7.0", "Not now"),
        marks=pytest.mark.rfc("6409 §6.3 data-may-be-refused"),
    ),
    pytest.param(
        RCPT,
        b"DATA\r\nhi\r\n.\r\n",
        Reply(554, "5.6.0", "That is no message"),
        marks=pytest.mark.rfc("6409 §6.3 content-may-be-refused", "6409 §6.3 554-for-bad-content"),
    ),
    pytest.param(
        RCPT,
        b"DATA\r\nhi\r\n.\r\n",
        Reply(550, "5.7.1", "Not you"),
        marks=pytest.mark.rfc("6409 §6.3 content-may-be-refused", "6409 §6.3 550-for-the-user"),
    ),
    pytest.param(
        RCPT,
        b"BDAT 4 LAST\r\nhi\r\n",
        Reply(550, "5.7.0", "Not here"),
        marks=pytest.mark.rfc("6409 §6.3 550-for-site-policy", "6409 §7 bdat-is-like-data"),
    ),
]


@pytest.mark.parametrize(("before", "octets", "refusal"), REFUSALS)
def test_a_server_may_refuse_as_its_site_wants(
    before: bytes, octets: bytes, refusal: Reply
) -> None:
    server = server_after(before, OFFERED)
    is_content = b"\nhi" in octets

    def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
        asked = isinstance(event, EndOfContent) or not is_content
        return refusal if asked and not isinstance(event, Bdat) else server.suggested_reply()

    assert say(server, octets, policy).endswith(refusal.serialize())
    assert say(server, b"RSET\r\n").startswith(b"250")  # and the session goes on


@pytest.mark.rfc("6409 §6.3 501-for-malformed-commands")
def test_data_takes_no_argument() -> None:
    server = server_after(RCPT, OFFERED)
    assert say(server, b"DATA now\r\n").startswith(b"501")
    assert say(server, b"DATA\r\n").startswith(b"354")


@pytest.mark.rfc("6409 §6.3 501-for-malformed-commands", "6409 §7 bdat-is-like-data")
@pytest.mark.parametrize("line", [b"BDAT", b"BDAT x LAST", b"BDAT 1 FIRST"])
def test_bdat_takes_a_size_and_last(line: bytes) -> None:
    assert say(server_after(RCPT, OFFERED), line + b"\r\n").startswith(b"501")


@pytest.mark.rfc("6409 §5.2 refusals-can-be-logged")
async def test_who_runs_it_is_shown_what_a_client_does_wrong(tmp_path: Path) -> None:
    lines: list[str] = []
    async with world(tmp_path) as w:
        node = await w.node(
            "relay.example",
            kinds=["submission"],
            trace=lambda session, peer, line: lines.append(line),
        )
        async with logged_in(node) as wire:
            await wire.say("MAIL FROM:<ann@our.dom> FAST")
    at = lines.index("C: MAIL FROM:<ann@our.dom> FAST")
    assert lines[at + 1].startswith("S: 555 ")


# --- §7: extensions --------------------------------------------------------------------------


@pytest.mark.rfc(
    "6409 §7 pipelining-is-offered",
    "6409 §7 enhanced-statuses-are-offered",
    "6409 §7 8bitmime-is-offered",
    "6409 §7 auth-is-offered",
    "6409 §7 dsn-is-offered",
    "6409 §7 size-and-chunking-may-be-offered",
    "6409 §7 starttls-may-be-offered",
    "6409 §7 etrn-is-not-offered",
    "6409 §7 atrn-is-not-offered",
)
async def test_what_a_submission_server_offers(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"], tls=True)
        async with node.dial("submission") as wire:
            await wire.reply()
            await wire.stream.send(b"EHLO c.example\r\n")
            said = (await wire.stream.receive()).decode()
            offered = {line[4:].split()[0] for line in said.splitlines()[1:]}
            assert offered >= {
                "PIPELINING",
                "ENHANCEDSTATUSCODES",
                "8BITMIME",
                "AUTH",
                "DSN",
                "SIZE",
                "CHUNKING",
                "STARTTLS",
            }
            assert not offered & {"ETRN", "ATRN"}
            assert (await wire.say("ETRN our.dom"))[:3] in {"500", "502"}
            assert (await wire.say("ATRN our.dom")).startswith("500")


@pytest.mark.rfc("6409 §5.3 answers-come-within-two-minutes")
@pytest.mark.parametrize("kind", ["smtp", "submission"])
async def test_a_submission_server_does_not_think_for_long(tmp_path: Path, kind: Kind) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=[kind])
        (server,) = node.relay._servers
        patience = server.patience(pressed=False)
        assert patience.handler is not None
        assert (patience.handler < 120) is (kind == "submission")
        assert patience.command == node.relay.server_deadlines.command  # the client's own


# --- §8: the message -------------------------------------------------------------------------


@pytest.mark.rfc(
    "6409 §4.2 domains-of-the-envelope-are-complete",
    "6409 §4.2 domains-of-the-header-are-complete",
    "6409 §4.2 incomplete-domains-are-554",
    "6409 §5.1 bad-header-addresses-are-554",
    "6409 §8 no-domain-is-added-blindly",
)
async def test_names_that_are_not_complete_are_refused_and_nothing_is_guessed(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"])
        async with logged_in(node) as wire:
            assert (await wire.say("MAIL FROM:<ann@sales>")).startswith("554 5.1.8")
            assert (await wire.say("MAIL FROM:<ann@our.dom>")).startswith("250")
            assert (await wire.say("RCPT TO:<v@sales>")).startswith("554 5.1.2")
            for to in "v@sales", "v":
                assert (await wire.say("RCPT TO:<v@our.dom>")).startswith("250")
                assert (await wire.say("DATA")).startswith("354")
                said = await wire.say(f"From: ann@our.dom\r\nTo: {to}\r\n\r\n.")
                assert said.startswith("554 5.6.0 ")
                assert (await wire.say("MAIL FROM:<ann@our.dom>")).startswith("250")
        assert await node.queue() == []
        assert node.files() == []


@pytest.mark.rfc(
    "6409 §8 messages-may-be-changed",
    "6409 §8.2 date-may-be-added",
    "6409 §8.3 message-id-is-added",
    "5321 §6.4 submission-may-add-a-message-id",
    "5321 §6.4 submission-may-add-a-date",
    "5321 §6.4 changes-are-documented",
)
async def test_what_is_missing_is_added_and_received_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission", "smtp"])
        await node.send("ann@our.dom", ["v@our.dom"], kind="submission", login=LOGIN)
        (accepted,) = await node.until(Accepted)
        await node.until(Delivered)
        (mail,) = node.mail("v@our.dom")
        header = parsed(mail)
        assert header["Message-ID"] == f"<{accepted.id}@relay.example>"
        assert header["Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
        assert "(added: Date, Message-ID)" in " ".join(header["Received"].split())
        assert mail.endswith(MESSAGE.replace(b"\r\n", b"\n"))
        # And not for other servers, whose messages are not ours to change.
        await node.send("ann@ext.example", ["w@our.dom"], kind="smtp")
        await node.until(Delivered, 2)
        (mail,) = node.mail("w@our.dom")
        assert parsed(mail)["Message-ID"] is None
        assert b"added" not in mail


@pytest.mark.rfc("6409 §6.1 sender-may-be-refused-with-550", "6409 §6.3 550-for-the-user")
async def test_who_submits_sends_as_nobody_else(tmp_path: Path) -> None:
    async def own(identity: str, mailbox: Mailbox) -> bool:
        return str(mailbox) == f"{identity}@our.dom"

    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"], senders=own)
        async with logged_in(node) as wire:
            assert (await wire.say("MAIL FROM:<boss@our.dom>")).startswith("550 5.7.1")
            for sender in "<ann@our.dom>", "<>":
                assert (await wire.say(f"MAIL FROM:{sender}")).startswith("250")
                assert (await wire.say("RCPT TO:<v@our.dom>")).startswith("250")
                await wire.say("DATA")
                said = await wire.say("From: boss@our.dom\r\n\r\n.")
                assert said.startswith("550 5.7.1 From: you may not send as boss@our.dom")
        assert await node.queue() == []


@pytest.mark.parametrize("keep", [False, True])
async def test_bcc_goes_unless_it_is_told_to_stay(tmp_path: Path, keep: bool) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"], keep_bcc=keep)
        content = b"Bcc: v@our.dom\r\n" + MESSAGE
        await node.send("ann@our.dom", ["v@our.dom"], content, kind="submission", login=LOGIN)
        await node.until(Delivered)
        (mail,) = node.mail("v@our.dom")
        assert (b"Bcc: v@our.dom" in mail) is keep
        assert (b"Bcc" in mail) is keep  # nor does Received tell


@pytest.mark.rfc("6409 §8.8 destinations-keep-their-local-part")
async def test_recipients_and_content_go_on_as_they_came(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example", kinds=["submission"])
        recipients = ["J.Random.User@ext.example", '"o d d"@ext.example']
        await node.send("Ann@our.dom", recipients, kind="submission", login=LOGIN)
        await node.until(Delivered, 2)
        assert host.accepted == [[f"RCPT TO:<{name}>" for name in recipients]]
        trace, _, rest = host.contents[0].partition(b"From:")
        assert trace.startswith(b"Received: from ")
        assert b"From:" + rest == MESSAGE
