"""Who may hand mail over, and for whom: never an open relay."""

from base64 import b64encode
from email.message import EmailMessage
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from smtpproto import Envelope, LocalProtocolError, Mail, Rcpt, Reply
from smtpproto.handler import Session
from smtpproto.relay import AliasTable, HostPort
from smtpproto.relay.intake import policy
from smtpproto.relay.intake.policy import HousePolicy
from smtpproto.relay.mailboxes.mailbox import listed_mailboxes
from smtpproto.relay.reports.story import Accepted, Delivered
from smtpproto.relay.spool.seam import SpoolUnavailable
from smtpproto.resolve import Mx
from tests.relay.world import LOGIN, MESSAGE, Node, Wire, world

pytestmark = pytest.mark.anyio

SENDERS = ["<>", "<a@localhost>", "<a@our.dom>", "<a@[127.0.0.1]>"]

#: The percent-hack and its kin (HOSTILE.md); what a stranger is answered.
RECIPIENTS = {
    "<v@ext.example>": "550 5.7.1",
    "<v%ext.example@our.dom>": "550 5.7.1",
    "<v%ext.example@[127.0.0.1]>": "550 5.7.1",
    '<"v@ext.example">': "501 5.1.3",
    '<"v%ext.example">': "501 5.1.3",
    '<"v@ext.example"@our.dom>': "550 5.7.1",
    "<v@ext.example@our.dom>": "501 5.1.3",
    "<@our.dom:v@ext.example>": "550 5.7.1",
    "<@ext.example:v@our.dom>": "250 2.1.5",  # the route is ignored: this is v@our.dom
    "<ext.example!v>": "501 5.1.3",
    "<ext.example!v@our.dom>": "550 5.7.1",
    "<v@ext.example.>": "501 5.1.3",
    "<v@OUR.DOM.>": "501 5.1.3",
    "<v@notour.dom>": "550 5.7.1",
    "<v@our.dom.ext.example>": "550 5.7.1",
    "<v@sub.our.dom>": "550 5.7.1",
    "<v@[127.0.0.1]>": "550 5.7.1",
    "<v@[IPv6:::1]>": "550 5.7.1",
    "<v@localhost>": "550 5.7.1",
    "<v@relay.example>": "550 5.7.1",  # our host's name is no local domain
    '<"@ext.example:v"@our.dom>': "550 5.7.1",
}
BODY = b"Subject: hack\r\n\r\n\r\n."


async def hand_over(wire: Wire, sender: str, recipient: str) -> str:
    """Try one message; return the reply to RCPT."""
    assert (await wire.say(f"MAIL FROM:{sender}")).startswith("250")
    said = await wire.say(f"RCPT TO:{recipient}")
    if said.startswith("2"):
        assert (await wire.say("DATA")).startswith("354")
        assert (await wire.say(BODY)).startswith("250")
    await wire.say("RSET")
    return said


@pytest.mark.rfc(
    "5321 §3.3 server-may-refuse-to-relay",
    "5321 §3.6.1 server-may-refuse-to-relay",
    "5321 §3.6.2 refused-relaying-gets-550",
    "5321 §3.6.2 relaying-is-accepted-or-refused-like-delivery",
)
@pytest.mark.rfc("5321 §7.9 relaying-can-be-limited", "5321 §7.9 policy-says-550")
@pytest.mark.rfc(
    "5321 §4.1.1.3 relay-drops-routes", "5321 §4.1.1.3 server-may-refuse-to-relay-with-550"
)
async def test_nothing_is_relayed_for_a_stranger_on_loopback(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example", networks=())
        kept = 0
        for sender in SENDERS:
            for recipient, expected in RECIPIENTS.items():
                async with node.dial() as wire:  # each its own: many errors are answered slowly
                    await wire.hello()
                    said = await hand_over(wire, sender, recipient)
                assert said.startswith(expected), (sender, recipient, said)
                kept += said.startswith("2")
        assert kept == len(SENDERS)
        await node.until(Delivered, kept)
        assert {str(event.forward_path) for event in node.told(Delivered)} == {"<v@our.dom>"}
        assert len(node.mail("v@our.dom")) == kept
        assert len(node.files()) == kept
        assert await node.queue() == []
        assert (w.connected, host.sessions) == ([], 0)


@pytest.mark.rfc("4954 §6 530-until-there-is-a-login")
@pytest.mark.rfc(
    "6409 §4.3 who-has-not-logged-in-is-refused",
    "6409 §4.3 530-until-there-is-a-login",
    "6409 §7 strangers-hear-no-details",
)
async def test_submission_takes_nothing_without_a_login(tmp_path: Path) -> None:
    # Not even from a listed network: that is what the SMTP listener is for.
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"])
        for sender in SENDERS:
            for recipient in [*RECIPIENTS, "<v@our.dom>"]:
                async with node.dial("submission") as wire:
                    await wire.hello()
                    assert (await wire.say(f"MAIL FROM:{sender}")).startswith("530 5.7.0")
                    assert (await wire.say(f"RCPT TO:{recipient}"))[0] == "5"
                    assert (await wire.say("DATA"))[0] == "5"
        assert node.events == []
        assert await node.queue() == []
        assert node.files() == []
        assert w.connected == []


@pytest.mark.rfc("5321 §3.6.2 relaying-is-accepted-or-refused-like-delivery")
@pytest.mark.rfc("5321 §7.9 relaying-can-be-limited")
async def test_a_listed_network_may_relay(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example", networks=["127.0.0.1/32"])
        assert (await node.send("a@our.dom", ["v@ext.example"])).all_accepted
        await node.until(Delivered)
        assert host.accepted == [["RCPT TO:<v@ext.example>"]]


@pytest.mark.parametrize(
    ("peer", "listed"),
    [
        ("127.0.0.1", False),
        ("::1", False),
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("fe80::1%eth0", True),
        ("", False),
    ],
)
async def test_networks_are_compared_as_addresses(peer: str, listed: bool) -> None:
    networks = [ip_network("10.0.0.0/8"), ip_network("fe80::/10")]
    assert HousePolicy(networks).trusts(Session(1, (peer, 25), ("", 0))) is listed


@pytest.mark.rfc("5321 §7.1 any-reverse-path-may-be-given", "5321 §7.9 relaying-can-be-limited")
async def test_a_user_who_has_logged_in_may_relay_on_both_listeners(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example", kinds=["smtp", "submission"], networks=())
        for kind in "smtp", "submission":
            result = await node.send("a@our.dom", ["v@ext.example"], kind=kind, login=LOGIN)
            assert result.all_accepted
        await node.until(Delivered, 2)
        assert len(host.accepted) == 2
        origins = [event.origin for event in node.told(Accepted)]
        assert origins == ["127.0.0.1 by ESMTPA as ann"] * 2


@pytest.mark.rfc("4616 §3 unknown-user-fails")
@pytest.mark.parametrize("login", [("ann", "wrong"), ("bob", "correct horse"), ("ann", "")])
async def test_a_wrong_password_opens_nothing(tmp_path: Path, login: tuple[str, str]) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"], networks=())
        secret = b64encode("\0{}\0{}".format(*login).encode()).decode()
        async with node.dial("submission") as wire:
            await wire.hello()
            assert (await wire.say(f"AUTH PLAIN {secret}"))[:3] in ("535", "501")
            assert (await wire.say("MAIL FROM:<a@our.dom>")).startswith("530")


async def test_nobody_acts_as_somebody_else(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"], networks=())
        secret = b64encode("root\0{}\0{}".format(*LOGIN).encode()).decode()
        async with node.dial("submission") as wire:
            await wire.hello()
            assert (await wire.say(f"AUTH PLAIN {secret}")).startswith("535")


@pytest.mark.rfc(
    "4954 §4 no-passwords-in-clear-should-be-had",
    "4954 §3 offered-for-submission",
    "3207 §4.3 submission-may-have-it",
)
async def test_passwords_in_clear_are_taken_from_loopback_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"], tls=True)
        server = node.relay.server("submission")
        here, afar = (Session(1, (peer, 1), ("", 0)) for peer in ("127.0.0.1", "192.0.2.9"))
        assert server.plaintext_allowed(here)
        assert not server.plaintext_allowed(afar)
        async with node.dial("submission") as wire:
            await wire.reply()
            await wire.stream.send(b"EHLO x\r\n")
            offered = (await wire.stream.receive()).decode()
            assert "AUTH PLAIN LOGIN" in offered
            assert "STARTTLS" in offered


async def test_without_an_authenticator_there_is_no_login(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"], authenticator=None)
        async with node.dial("submission") as wire:
            await wire.hello()
            assert (await wire.say("AUTH PLAIN AGFubgBzZWNyZXQ="))[0] == "5"
            assert (await wire.say("MAIL FROM:<a@our.dom>")).startswith("530")


@pytest.mark.rfc(
    "7505 §4.1 sender-gets-550-and-5-7-27", "7505 §4.2 null-reverse-path-keeps-its-meaning"
)
async def test_who_takes_no_mail_may_send_none_here(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.mx_of["null.example"] = [Mx(0, ".")]
        w.mx_of["odd.example"] = [Mx(0, "."), Mx(10, "mx.odd.example")]  # null MX stands alone
        w.failing.add("sick.example")
        node = await w.node("relay.example", networks=(), kinds=["smtp", "submission"])
        async with node.dial() as wire:
            await wire.hello()
            for sender in ("a@null.example", "a@NULL.example"):
                said = await wire.say(f"MAIL FROM:<{sender}>")
                assert said.startswith("550 5.7.27 ")
            for sender in (
                *("", "a@odd.example", "a@sick.example", "a@gone.example", "a@our.dom"),
                "a@[192.0.2.1]",
            ):
                assert (await wire.say(f"MAIL FROM:<{sender}>")).startswith("250"), sender
                await wire.say("RSET")
        # Who may relay is known to us, and answered for.
        sent = await node.send("a@null.example", ["b@our.dom"], kind="submission", login=LOGIN)
        assert sent
        listed = await w.node("listed.example")
        assert await listed.send("a@null.example", ["b@our.dom"])
        careless = await w.node("careless.example", networks=(), check_senders=False)
        assert await careless.send("a@null.example", ["b@our.dom"])


async def test_a_slow_dns_keeps_no_client_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:

        async def silent(domain: str) -> list[Mx]:
            await anyio.sleep_forever()
            raise AssertionError

        monkeypatch.setattr(w, "mx", silent)
        monkeypatch.setattr(policy, "SENDER_PATIENCE", 0.01)
        node = await w.node("relay.example", networks=())
        assert await node.send("a@slow.example", ["b@our.dom"])


async def test_behind_a_smart_host_no_dns_is_asked_of_senders(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.mx_of["null.example"] = [Mx(0, ".")]
        node = await w.node("relay.example", networks=(), smart_host=HostPort("smart.example"))
        assert await node.send("a@null.example", ["b@our.dom"])


@pytest.mark.rfc(
    "5321 §2.4 no-mailboxes-that-differ-by-case-alone", "5321 §3.3 undeliverable-recipient-gets-550"
)
async def test_recipients_that_do_not_exist_are_refused_in_the_session(tmp_path: Path) -> None:
    # Backscatter avoided: what can be known is said while the sender is there.
    async with world(tmp_path) as w:
        node = await w.node("relay.example", policy=listed_mailboxes(["ann", "bob"]))
        result = await node.send("a@ext.example", ["ann@our.dom", "eve@our.dom", "BOB@Our.Dom"])
        replies = [str(outcome.reply) for outcome in result.outcomes]
        assert [reply[:9] for reply in replies] == ["250 2.0.0", "550 5.1.1", "250 2.0.0"]
        await node.until(Delivered, 2)
        assert len(node.mail("ann@our.dom")) == len(node.mail("bob@our.dom")) == 1


@pytest.mark.rfc(
    "5321 §2.3.5 postmaster-needs-no-domain", "5321 §3.1 postmaster-is-there-all-the-same"
)
@pytest.mark.rfc(
    "5321 §4.5.1 postmaster-is-a-mailbox-in-any-case",
    "5321 §4.5.1 postmaster-in-every-domain",
    "5321 §4.5.1 postmaster-takes-mail-from-anywhere",
)
async def test_postmaster_is_taken_bare_and_in_every_domain(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node(
            "relay.example", ["our.dom", "too.dom"], networks=(), policy=listed_mailboxes(["ann"])
        )
        async with node.dial() as wire:
            await wire.hello()
            for recipient in "<Postmaster>", "<postmaster@our.dom>", "<POSTMASTER@too.dom>":
                assert (await hand_over(wire, "<>", recipient)).startswith("250")
        await node.until(Delivered, 3)
        assert len(node.mail("postmaster@our.dom")) == 2
        assert len(node.mail("postmaster@too.dom")) == 1


LOCAL_PARTS = [
    r"../../etc/passwd",
    r"..",
    r"|cmd",
    r";id;",
    r"${run{x}}",
    r"$(id)",
    r"`id`",
    r"/etc/passwd",
    r"a/b/../../../c",
    r"~root",
    r"-rf",
    r"new",
    r"tmp/x",
    r"con:",
    r" ",
    r"a\\b",
    r"\"",
    r"%2e%2e%2f",
    r".",
]


def outside(node: Node) -> set[Path]:
    """What there is beside the node's mail."""
    mail = node.directory / "mail"
    spool = node.directory / "spool"
    above = node.directory.parent.rglob("*")
    return {path for path in above if not path.is_relative_to(mail) and path.parent != spool}


async def test_no_local_part_leads_out_of_the_root(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        before = outside(node)
        async with node.dial() as wire:
            await wire.hello()
            for local_part in LOCAL_PARTS:
                recipient = f'<"{local_part}"@our.dom>'
                assert (await hand_over(wire, "<>", recipient)).startswith("250"), recipient
        await node.until(Delivered, len(LOCAL_PARTS))
        root = node.directory / "mail" / "our.dom"
        files = node.files()
        assert len(files) == len(LOCAL_PARTS)
        # ROOT/<domain>/<mailbox>/new/<file>, whatever the mailbox is called, each its own.
        assert {len(file.relative_to(root).parts) for file in files} == {3}
        assert len({file.parent.parent for file in files}) == len(LOCAL_PARTS)
        assert outside(node) == before


@pytest.mark.parametrize("octets", [b"\0", b"\r", b"\x01", b"\x7f", b"\xff"])
async def test_control_octets_in_a_local_part_reach_nothing(tmp_path: Path, octets: bytes) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        async with node.dial() as wire:
            await wire.hello()
            await wire.say("MAIL FROM:<>")
            assert (await wire.say(b'RCPT TO:<"a%bb"@our.dom>' % octets))[0] == "5"
        assert node.files() == []


def with_hops(number: int) -> bytes:
    line = b"Received: from a.example by b.example; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    return line * number + MESSAGE


@pytest.mark.rfc("5321 §3.6.3 relay-may-look-for-loops")
@pytest.mark.rfc("5321 §6.3 hundred-hops-at-least", "5321 §6.3 loops-are-stopped")
@pytest.mark.rfc("5321 §4.2.5 5yz-delivers-nothing")
async def test_a_message_of_a_hundred_hops_is_in_a_loop(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        (outcome,) = (await node.send("a@ext.example", ["v@our.dom"], with_hops(100))).outcomes
        assert str(outcome.reply).startswith("554 5.4.6")
        assert (await node.send("a@ext.example", ["v@our.dom"], with_hops(99))).all_accepted
        await node.until(Delivered)
        assert len(node.mail("v@our.dom")) == 1
        assert await node.queue() == []


@pytest.mark.rfc("5321 §4.2.5 4yz-delivers-nothing")
@pytest.mark.parametrize("where", ["receive", "commit"])
@pytest.mark.parametrize(("full", "answer"), [(False, "451 4.3.0"), (True, "452 4.3.1")])
async def test_a_spool_that_cannot_says_come_again(
    tmp_path: Path, where: str, full: bool, answer: str
) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        secret = "/secret/path of the operator"
        node.faults[where] = [SpoolUnavailable(secret, full=full)]
        (outcome,) = (await node.send("a@ext.example", ["v@our.dom"])).outcomes
        assert str(outcome.reply).startswith(answer)
        assert secret not in str(outcome.reply)
        assert await node.queue() == []
        assert node.events == []
        assert (await node.send("a@ext.example", ["v@our.dom"])).all_accepted
        await node.until(Delivered)
        assert len(node.mail("v@our.dom")) == 1


async def test_after_a_refused_message_the_session_is_in_step(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        node.faults["receive"] = [SpoolUnavailable("locked")]
        async with node.dial() as wire:
            await wire.hello()
            for code in "451", "250":
                await wire.say("MAIL FROM:<>")
                await wire.say("RCPT TO:<v@our.dom>")
                await wire.say("DATA")
                octets = b"Subject: x\r\n\r\nMAIL FROM:<evil@our.dom>\r\n" * 9000 + b"."
                assert (await wire.say(octets)).startswith(code)
        await node.until(Delivered)
        assert len(node.mail("v@our.dom")) == 1


async def test_a_content_cut_short_is_no_message(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        async with node.dial() as wire:
            await wire.hello()
            for line in "MAIL FROM:<>", "RCPT TO:<v@our.dom>", "DATA":
                await wire.say(line)
            await wire.stream.send(b"Subject: half\r\n\r\n" + b"x" * 70 + b"\r\n" * 100_000)
        assert (await node.send(None, ["v@our.dom"])).all_accepted
        await node.until(Delivered)
        (only,) = node.mail("v@our.dom")
        assert b"Subject: half" not in only
        assert not list((node.directory / "spool" / "content").iterdir())


async def the_only(node: Node) -> bytes:
    await node.until(Delivered)
    (only,) = node.mail("v@our.dom")
    return only


@pytest.mark.rfc(
    "5321 §4.4 received-line-is-put-first",
    "5321 §4.4 return-path-is-inserted-at-final-delivery",
    "5321 §4.4 return-path-is-the-reverse-path",
)
@pytest.mark.rfc("5321 §4.1.1.4 trace-record-is-inserted")
async def test_final_delivery_puts_return_path_and_received_in_front(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        await node.send("a@ext.example", ["v@our.dom"])
        message = await the_only(node)
        (id,) = {event.id for event in node.told(Accepted)}
        assert message.split(b"\n\n")[0].split(b"\n") == [
            b"Return-Path: <a@ext.example>",
            b"Received: from client.example ([127.0.0.1]) by relay.example with ESMTP id",
            b" %b for <v@our.dom>; Tue, 14 Nov 2023 22:13:20 +0000" % id.encode(),
            b"From: ann@our.dom",
            b"Subject: greetings",
        ]
        assert message.endswith(b"\n\n.dots and words\n")


@pytest.mark.rfc("5321 §4.4 return-path-is-the-reverse-path")
async def test_a_null_reverse_path_is_written_as_such(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        await node.send(None, ["v@our.dom"])
        assert (await the_only(node)).startswith(b"Return-Path: <>\nReceived: from ")


@pytest.mark.rfc(
    "5321 §7.2 recipients-are-not-copied-into-the-header",
    "5321 §7.6 no-for-clause-with-several-recipients",
)
async def test_received_names_no_recipient_where_there_are_several(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        await node.send("a@ext.example", ["v@our.dom", "secret@our.dom"])
        await node.until(Delivered, 2)
        (message,) = node.mail("v@our.dom")
        assert b"secret" not in message
        assert b" for " not in message.partition(b"From:")[0]


def words(line: str) -> dict[str, str]:
    return dict(pairwise(line.split()))


@pytest.mark.rfc("3848")
async def test_received_says_how_it_came(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["smtp", "submission"])
        await node.send("a@our.dom", ["v@our.dom"], kind="submission", login=LOGIN)
        await node.until(Delivered, 1)
        async with node.dial() as wire:
            await wire.reply()
            await wire.say("HELO old.example")
            await hand_over(wire, "<>", "<v@our.dom>")
        await node.until(Delivered, 2)
        seen = {words(m.partition(b";")[0].decode())["with"] for m in node.mail("v@our.dom")}
        assert seen == {"ESMTPA", "SMTP"}


async def test_an_observer_that_fails_does_no_harm(tmp_path: Path) -> None:
    # `serve | head`: the pipe is gone. What is kept must not be refused for it, nor sent twice.
    def broken(*_: object) -> None:
        raise BrokenPipeError("nobody reads")

    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example", trace=broken)
        node.broken = BrokenPipeError("nobody reads")
        assert (await node.send(None, ["v@our.dom", "v@ext.example"])).all_accepted
        await node.until(Delivered, 2)
        assert len(node.mail("v@our.dom")) == len(host.accepted) == 1
        assert await node.queue() == []


# A policy of one's own, and the program's own mail


class OnlyFrom:
    """Takes mail from one sender, for anybody."""

    def __init__(self, sender: str) -> None:
        self.only = sender
        self.asked: list[tuple[str, bool]] = []

    def trusts(self, session: Session) -> bool:
        return False

    async def sender(self, session: Session, command: Mail) -> Reply | None:
        known = str(command.reverse_path) == self.only
        return None if known else Reply(550, "5.7.1", "Not you")

    async def recipient(self, session: Session, command: Rcpt, *, ours: bool) -> Reply | None:
        self.asked.append((str(command.forward_path), ours))
        return None


@pytest.mark.rfc("5321 §7.9 relaying-can-be-limited")
async def test_another_policy_takes_the_place_of_the_house_s(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        only = OnlyFrom("<bo@far.example>")
        node = await w.node(  # whose networks, the DNS and mailboxes would all say otherwise
            "relay.example",
            who_may=only,
            networks=["127.0.0.0/8"],
            aliases=AliasTable({"all@our.dom": ["v@our.dom"]}),
        )
        refused = await node.send("a@our.dom", ["v@our.dom"])
        assert str(refused.outcomes[0].reply) == "550 5.7.1 Not you"
        recipients = ["v@our.dom", "all@our.dom", "v@ext.example"]
        assert (await node.send("bo@far.example", recipients)).all_accepted
        await node.until(Delivered, 3)
        assert host.accepted == [["RCPT TO:<v@ext.example>"]]
        assert only.asked == [
            ("<v@our.dom>", True),
            ("<all@our.dom>", True),
            ("<v@ext.example>", False),
        ]


async def test_a_policy_decides_before_it_is_known_who_exists(tmp_path: Path) -> None:
    class Nobody(HousePolicy):
        async def recipient(self, session: Session, command: Rcpt, *, ours: bool) -> Reply | None:
            return Reply(450, "4.7.1", "Not now")

    async with world(tmp_path) as w:
        node = await w.node("relay.example", policy=listed_mailboxes(["ann"]), who_may=Nobody())
        async with node.dial() as wire:
            await wire.hello()
            await wire.say("MAIL FROM:<a@far.example>")
            for name in "ann", "nobody":
                assert await wire.say(f"RCPT TO:<{name}@our.dom>") == "450 4.7.1 Not now"


async def test_a_program_hands_mail_to_its_relay(tmp_path: Path) -> None:
    """Nobody is asked whether it may; what becomes of it is told under the id that it got."""
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example", networks=(), kinds=[])
        message = EmailMessage()
        message["From"], message["To"], message["Bcc"] = "a@our.dom", "v@our.dom", "x@ext.example"
        message.set_content("grüße\n")
        envelope = Envelope("a@our.dom", ["v@our.dom", "x@ext.example"])
        id = await node.relay.submit(envelope, message, origin="the shop")
        await node.until(Delivered, 2)
        (accepted,) = node.told(Accepted)
        assert (accepted.id, accepted.origin) == (id, "the shop")
        assert {event.id for event in node.told(Delivered)} == {id}
        assert len(host.accepted) == 1
        (kept,) = node.mail("v@our.dom")
        assert b"Bcc" not in kept
        assert b"Content-Transfer-Encoding" in kept


async def test_what_a_program_hands_over_needs_smtputf8_where_it_does(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=[])
        for sender, subject in ("bö@our.dom", "1"), ("bo@our.dom", "grüße"), ("bo@our.dom", "2"):
            later = Mail(sender, {"HOLDFOR": b"3600"})  # so that it can be looked at
            envelope = Envelope(later, [Rcpt("v@held.example")])
            id = await node.relay.submit(envelope, f"Subject: {subject}\r\n\r\nhi\n")
            entry = await node.relay.spool.get(id)
            assert entry is not None
            needed = "SMTPUTF8" in entry.mail.parameters
            assert needed is (subject != "2")


async def test_a_program_s_bare_line_ends_are_refused_and_a_full_spool_says_so(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=[])
        envelope = Envelope("bo@our.dom", ["v@our.dom"])
        with pytest.raises(LocalProtocolError, match="bare"):
            await node.relay.submit(envelope, b"Subject: 1\n\nhi\n")
        node.faults["commit"] = [SpoolUnavailable("no room", full=True)]
        with pytest.raises(SpoolUnavailable, match="no room"):
            await node.relay.submit(envelope, b"Subject: 1\r\n\r\nhi\r\n")
        assert node.events == []
        assert await node.queue() == []
