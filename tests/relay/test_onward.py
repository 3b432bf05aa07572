"""What a message asks for, and what the next hop can do (RFC 3030, 6152, 6531)."""

import email
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from smtpproto.client import Client, Tls
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.errors import LocalProtocolError
from smtpproto.pool import Pool
from smtpproto.relay import AliasTable, SQLiteSpool
from smtpproto.relay.delivery.onward import Onward
from smtpproto.relay.reports.story import Deferred, Delivered, Failed, Reported
from smtpproto.relay.routing.route import Host as HostAddress
from smtpproto.relay.spool import sqlite
from smtpproto.result import Fate, Outcome, Result
from smtpproto.source import Source
from tests.relay.test_delivery import the_report
from tests.relay.world import Host, Node, World, world

pytestmark = pytest.mark.anyio

SENDER = "ann@our.dom"
TO = "v@ext.example"

EIGHT_BIT = (
    b"Subject: a\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n"
) + "Grüße\r\n".encode()
NOT_MIME = "Subject: a\r\n\r\nGrüße\r\n".encode()
BINARY = (
    b"Subject: a\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n"
    b"--a\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xbc\r\n"
    b"--a\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    b"\x89PNG\r\n\x1a\n\0\r.\r\n--a--\r\n"
)
#: So large that who reads its first 64 KiB does not see what it is.
LATE = EIGHT_BIT.replace("Grüße".encode(), b"words and more\r\n" * 8000 + "Grüße".encode())


async def hand_over(
    node: Node,
    to: list[str],
    content: bytes = EIGHT_BIT,
    *,
    sender: str | None = SENDER,
    kind: Any = "smtp",
    **asked: str | None,
) -> Result:
    """Submit a message that asks for this with MAIL."""
    binary = asked.get("BODY") == "BINARYMIME"
    async with Client(
        "127.0.0.1", node.ports[kind], tls=Tls.NONE, helo_name="client.example"
    ) as client:
        envelope = Envelope(Mail(sender, asked), to)
        result = await client.deliver(envelope, Source(content, binary=binary))
        assert result, result
        return result


async def to_host(
    w: World, content: bytes, *keywords: str, **asked: str | None
) -> tuple[str, bytes]:
    """Send content on to a host that offers this; return its MAIL, and what it got behind DATA."""
    host = await w.host("mx.ext.example", "ext.example", keywords=keywords)
    node = await w.node("relay.example")
    await hand_over(node, [TO], content, **asked)
    await node.until(Delivered)
    (mail,) = [line for line in host.lines if line.startswith("MAIL")]
    (got,) = host.contents
    return mail, without_trace(got)


def without_trace(content: bytes) -> bytes:
    """Content without the Received fields in front."""
    while content.startswith(b"Received:"):
        content = content[content.index(b" +0000\r\n") + 8 :]
    return content


def payloads(content: bytes) -> list[object]:
    message: Message = email.message_from_bytes(content)
    return [part.get_payload(decode=True) for part in message.walk()]


async def the_failure(node: Node) -> dict[str, str]:
    await node.until(Reported)
    _, (_, theirs) = await the_report(node)
    return theirs


# --- 8BITMIME ------------------------------------------------------------------------------------


@pytest.mark.rfc("6152 §3 convert-or-fail", "6152 §3 no-8-bit-where-it-is-not-offered")
@pytest.mark.parametrize("content", [EIGHT_BIT, LATE], ids=["small", "large"])
async def test_8bit_mime_is_converted_for_who_takes_7_bits(tmp_path: Path, content: bytes) -> None:
    async with world(tmp_path) as w:
        mail, got = await to_host(w, content, "SIZE", "PIPELINING", BODY="8BITMIME")
        assert got.isascii()
        assert payloads(got) == payloads(content)
        assert b"Content-Transfer-Encoding: quoted-printable\r\n" in got
        assert "BODY" not in mail
        assert got.endswith(b"Gr=C3=BC=C3=9Fe\r\n")


async def test_size_is_that_of_what_is_sent(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=("SIZE",))
        node = await w.node("relay.example")
        await hand_over(node, [TO], LATE, BODY="8BITMIME")
        await node.until(Delivered)
        assert f"SIZE={len(host.contents[0])}" in host.lines[1]


async def test_8bit_that_shows_late_costs_a_session_and_no_delay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "ARRIVAL_OCTETS", 0)  # it is read, and not at hand
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=())
        node = await w.node("relay.example")
        await w.put(node, SENDER, TO, content=LATE)  # nobody said BODY
        await node.until(Delivered)
        assert host.sessions == 2
        assert len(host.accepted) == 1
        assert payloads(host.contents[-1]) == payloads(LATE)


async def test_what_is_called_8bit_and_is_not_goes_as_it_is(tmp_path: Path) -> None:
    content = LATE.replace("üß".encode(), b"ue")
    async with world(tmp_path) as w:
        mail, got = await to_host(w, content, "SIZE", BODY="8BITMIME")
        assert got == content
        assert "BODY" not in mail


@pytest.mark.parametrize("body", ["8BITMIME", "7BIT", None])
async def test_where_8_bits_are_taken_content_goes_as_it_is(
    tmp_path: Path, body: str | None
) -> None:
    async with world(tmp_path) as w:
        asked = {} if body is None else {"BODY": body}
        host = await w.host("mx.ext.example", "ext.example", keywords=("8BITMIME",))
        node = await w.node("relay.example")
        async with node.dial() as wire:
            await wire.hello()
            mail = Mail(SENDER, asked).serialize().removesuffix(b"\r\n")
            for line in (mail, b"RCPT TO:<v@ext.example>", b"DATA", NOT_MIME + b"."):
                assert (await wire.say(line))[0] in "23"
        await node.until(Delivered)
        assert without_trace(host.contents[0]) == NOT_MIME
        assert host.lines[1] == "MAIL FROM:<ann@our.dom> BODY=8BITMIME"


@pytest.mark.rfc("6152 §3 convert-or-fail")
async def test_what_cannot_be_converted_fails_in_words_for_its_sender(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=())
        node = await w.node("relay.example")
        await hand_over(node, [TO], NOT_MIME)
        theirs = await the_failure(node)
        assert theirs["Status"] == "5.6.3"
        assert "no MIME message" in theirs["Diagnostic-Code"]
        assert "Remote-MTA" not in theirs  # it is our word
        assert not any(line.startswith("MAIL") for line in host.lines)


async def test_another_host_that_takes_it_is_tried_first(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one = await w.host("mx1.ext.example", "ext.example", preference=10, keywords=())
        two = await w.host("mx2.ext.example", "ext.example", preference=20)
        node = await w.node("relay.example")
        await hand_over(node, [TO], NOT_MIME)
        await node.until(Delivered)
        assert (len(one.accepted), len(two.accepted)) == (0, 1)


async def test_who_was_refused_before_the_content_showed_stays_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        says = {"RCPT TO:<no@": "550 5.1.1 nobody"}
        host = await w.host("mx.ext.example", "ext.example", says, keywords=())
        node = await w.node("relay.example")
        await w.put(node, SENDER, "no@ext.example", TO, content=LATE)
        await node.until(Delivered)
        (failed,) = await node.until(Failed)
        assert failed.reply == "550 5.1.1 nobody"
        assert host.lines.count("RCPT TO:<no@ext.example>") == 1


async def test_a_line_for_the_alias_goes_in_front_of_what_is_converted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=())
        aliases = AliasTable({"all@our.dom": [TO]})
        node = await w.node("relay.example", aliases=aliases)
        await hand_over(node, ["all@our.dom"], BODY="8BITMIME")
        await node.until(Delivered)
        assert host.contents[0].startswith(b"Delivered-To: all@our.dom\r\nReceived:")
        assert payloads(host.contents[0]) == payloads(EIGHT_BIT)


# --- BINARYMIME ----------------------------------------------------------------------------------


@pytest.mark.rfc("3030 §3 binary-is-passed-on-as-it-came")
async def test_binary_content_goes_on_by_bdat_where_that_is_offered(tmp_path: Path) -> None:
    lines: list[str] = []
    async with world(tmp_path) as w:
        there = await w.node("there.example", ["ext.example"])
        w.lead("ext.example", there)
        node = await w.node("relay.example", trace=lambda *line: lines.append(line[2]))
        await hand_over(node, [TO], BINARY, BODY="BINARYMIME")
        await there.until(Delivered)
        (mail,) = there.mail(TO)
        assert payloads(mail) == payloads(BINARY)
        said = [line for line in lines if line.startswith(">")] or lines
        assert any("MAIL" in line and "BODY=BINARYMIME" in line for line in said)
        accepted = [event for event in there.events if type(event).__name__ == "Accepted"]
        assert accepted[0].octets > len(BINARY)  # type: ignore[union-attr]  # it is an Accepted


@pytest.mark.rfc(
    "3030 §3 no-binary-where-it-is-not-offered",
    "3030 §3 may-be-encoded-in-seven-bits",
    "3030 §3 encoding-loses-nothing",
    "3030 §3 encoded-is-valid-mime",
    "3030 §3 nothing-is-encoded-twice",
)
@pytest.mark.parametrize("keywords", [("SIZE",), ("8BITMIME", "SIZE"), ("BINARYMIME", "SIZE")])
async def test_binary_content_is_encoded_where_it_is_not_taken(
    tmp_path: Path, keywords: tuple[str, ...]
) -> None:
    async with world(tmp_path) as w:
        mail, got = await to_host(w, BINARY, *keywords, BODY="BINARYMIME")
        assert payloads(got) == payloads(BINARY)
        assert got.isascii() == ("8BITMIME" not in keywords)
        assert ("BODY=8BITMIME" in mail) == ("8BITMIME" in keywords)
        assert b": binary" not in got


async def test_what_is_called_binary_and_is_not_goes_as_it_is(tmp_path: Path) -> None:
    content = b"Subject: a\r\n\r\nwords\r\n"
    async with world(tmp_path) as w:
        mail, got = await to_host(w, content, BODY="BINARYMIME")
        assert got == content
        assert "BODY" not in mail


@pytest.mark.rfc("3030 §3 binary-is-passed-on-as-it-came")
async def test_mailboxes_keep_every_bit_of_binary_content(tmp_path: Path) -> None:
    sealed = BINARY.replace(b"mixed", b"signed")
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        await hand_over(node, ["bob@our.dom"], BINARY, BODY="BINARYMIME")
        await node.until(Delivered)
        (mail,) = node.mail("bob@our.dom")
        assert payloads(mail)[1:] == [b"\xc3\xbc", payloads(BINARY)[2]]
        await hand_over(node, ["joe@our.dom"], sealed, BODY="BINARYMIME")
        assert (await the_failure(node))["Status"] == "5.6.3"
        await hand_over(node, ["eve@our.dom"], b"A: b\r\n\r\nc\r\n", BODY="BINARYMIME")
        await node.until(Delivered, 3)
        assert node.mail("eve@our.dom")[0].endswith(b"A: b\n\nc\n")


# --- SMTPUTF8 ------------------------------------------------------------------------------------

UTF8_TO = "grüße@ext.example"
UTF8_HEADER = "Subject: grüße\r\n\r\nwords\r\n".encode()
UTF8_PART = (
    b"Subject: a\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n"
    b"--a\r\nContent-Disposition: attachment; filename="
) + "ü\r\n\r\nwords\r\n--a--\r\n".encode()
PLAIN = b"Subject: a\r\n\r\nwords\r\n"
WITHOUT = ("8BITMIME", "PIPELINING")
WITH = ("8BITMIME", "PIPELINING", "SMTPUTF8")


async def relayed(
    w: World, host: Host, to: list[str], content: bytes, *, sender: str = SENDER
) -> Node:
    node = await w.node("relay.example")
    await hand_over(node, to, content, sender=sender, SMTPUTF8=None)
    return node


@pytest.mark.rfc("6531 §3.2 relaying-stays-as-it-is")
async def test_a_message_with_smtputf8_goes_on_with_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=WITH)
        node = await relayed(w, host, [UTF8_TO], UTF8_HEADER)
        await node.until(Delivered)
        assert host.lines[1].endswith(" SMTPUTF8")
        assert host.lines[2] == f"RCPT TO:<{UTF8_TO}>"
        assert without_trace(host.contents[0]) == UTF8_HEADER


@pytest.mark.rfc(
    "6531 §3.7.3 received-names-smtputf8", "6531 §3.7.3 trace-is-ascii-without-smtputf8"
)
async def test_the_received_field_says_smtputf8_and_no_address_in_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=WITH)
        node = await relayed(w, host, [UTF8_TO], PLAIN)
        await node.until(Delivered)
        trace = b" ".join(host.contents[0].partition(b"Subject")[0].split())
        assert b" by relay.example with UTF8SMTP id " in trace
        assert b" for " not in trace


@pytest.mark.rfc("6531 §3.2 message-that-cannot-go-on-is-rejected")
async def test_an_address_beyond_ascii_fails_where_it_is_not_taken(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=WITHOUT)
        node = await relayed(w, host, [UTF8_TO, TO], PLAIN)
        assert (await the_failure(node))["Status"] == "5.6.7"
        assert host.accepted == [[f"RCPT TO:<{TO}>"]]
        assert not any("SMTPUTF8" in line for line in host.lines)


@pytest.mark.rfc("6531 §3.7 domains-are-a-labels-where-it-is-not-offered")
@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        (WITHOUT, ["MAIL FROM:<a@xn--gre-6ka8l.dom>", "RCPT TO:<v@xn--gre-6ka8l.example>"]),
        (WITH, ["MAIL FROM:<a@Grüße.dom> SMTPUTF8", "RCPT TO:<v@Grüße.example>"]),
    ],
)
async def test_domains_are_a_labels_where_it_is_not_taken(
    tmp_path: Path, keywords: tuple[str, ...], said: list[str]
) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "xn--gre-6ka8l.example", keywords=keywords)
        node = await relayed(w, host, ["v@Grüße.example"], PLAIN, sender="a@Grüße.dom")
        await node.until(Delivered)
        assert host.lines[1:3] == said


async def test_what_is_no_name_by_idna_stays_beyond_ascii(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=WITHOUT)
        node = await relayed(w, host, [TO], PLAIN, sender="a@☃.example")
        assert (await node.until(Failed))[0].reply.split()[1] == "5.6.7"
        assert host.accepted == []


async def test_so_it_does_for_all_where_it_is_the_senders(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=WITHOUT)
        node = await relayed(w, host, [TO], PLAIN, sender="grüße@our.dom")
        (failed,) = await node.until(Failed)
        assert failed.reply.split()[1] == "5.6.7"
        assert host.accepted == []


@pytest.mark.rfc("6533 §3")
@pytest.mark.parametrize(
    ("original", "keywords", "said"),
    [
        ("ü@a.example", (*WITHOUT, "DSN"), r" ORCPT=utf-8;\x{FC}@a.example"),
        ("ü@a.example", (*WITH, "DSN"), " ORCPT=utf-8;ü@a.example"),
        ("ü" * 100 + "@a.example", (*WITHOUT, "DSN"), ""),
        ("ü@a.example", WITHOUT, ""),
    ],
)
async def test_an_original_recipient_beyond_ascii_is_no_hindrance(
    tmp_path: Path, original: str, keywords: tuple[str, ...], said: str
) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=keywords)
        node = await w.node("relay.example")
        async with node.dial() as wire:
            await wire.hello()
            await wire.say("MAIL FROM:<ann@our.dom> SMTPUTF8")
            await wire.say(f"RCPT TO:<{TO}> ORCPT=utf-8;{original}")
            await wire.say("DATA")
            assert (await wire.say(PLAIN + b".")).startswith("250")
        await node.until(Delivered)
        assert host.lines[2] == f"RCPT TO:<{TO}>{said}"


@pytest.mark.rfc(
    "6531 §3.2 no-utf8-header-where-it-is-not-offered",
    "6531 §3.6 who-has-to-know-reads-all-headers",
)
@pytest.mark.parametrize("content", [UTF8_HEADER, UTF8_PART], ids=["message", "part"])
async def test_a_header_beyond_ascii_fails_where_it_is_not_taken(
    tmp_path: Path, content: bytes
) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=WITHOUT)
        node = await relayed(w, host, [TO, UTF8_TO], content)
        one, two = await node.until(Failed, 2)
        assert [one.reply.split()[1], two.reply.split()[1]] == ["5.6.9", "5.6.7"]
        assert not any(line.startswith("MAIL") for line in host.lines)


@pytest.mark.parametrize("content", [PLAIN, EIGHT_BIT], ids=["7bit", "8bit"])
async def test_what_asked_for_smtputf8_and_does_not_need_it_goes_without(
    tmp_path: Path, content: bytes
) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=WITHOUT)
        node = await relayed(w, host, [TO], content)
        await node.until(Delivered)
        assert without_trace(host.contents[0]) == content
        assert "SMTPUTF8" not in host.lines[1]


@pytest.mark.rfc("6531 §3.2 it-may-be-tried-later-or-elsewhere")
@pytest.mark.parametrize(("to", "content"), [(UTF8_TO, PLAIN), (TO, UTF8_HEADER)])
async def test_another_host_of_the_domain_may_take_it(
    tmp_path: Path, to: str, content: bytes
) -> None:
    async with world(tmp_path) as w:
        one = await w.host("mx1.ext.example", "ext.example", preference=10, keywords=WITHOUT)
        two = await w.host("mx2.ext.example", "ext.example", preference=20, keywords=WITH)
        node = await relayed(w, one, [to], content)
        await node.until(Delivered)
        assert (len(one.accepted), len(two.accepted)) == (0, 1)


@pytest.mark.rfc("6531 §3.2 it-may-be-tried-later-or-elsewhere")
async def test_a_host_that_is_down_may_take_it_later(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one = await w.host("mx1.ext.example", "ext.example", preference=10, keywords=WITHOUT)
        w.dead("mx2.ext.example", "ext.example", 20)
        node = await relayed(w, one, [UTF8_TO], PLAIN)
        await node.until(Deferred)
        assert node.told(Failed) == []


@pytest.mark.rfc("6531 §3.2 lookups-are-made-with-a-labels")
async def test_the_dns_is_asked_for_a_labels(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "xn--gre-6ka8l.example", keywords=WITH)
        node = await relayed(w, host, ["v@Grüße.example"], PLAIN)
        await node.until(Delivered)
        assert host.accepted == [["RCPT TO:<v@Grüße.example>"]]


async def test_a_mailbox_may_have_a_name_beyond_ascii(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", ["our.dom", "grüße.example"])
        await hand_over(node, ["ü@our.dom", "bob@xn--gre-6ka8l.example"], PLAIN, SMTPUTF8=None)
        await node.until(Delivered, 2)
        assert len(node.mail("ü@our.dom")) == len(node.mail("bob@xn--gre-6ka8l.example")) == 1


@pytest.mark.rfc("6531 §3.2 names-that-are-looked-up-are-idna")
async def test_the_dns_is_not_asked_for_what_idna_does_not_allow(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "\\xe2\\x98\\x83.example", keywords=WITH)
        node = await w.node("relay.example")
        await hand_over(node, ["v@☃.example"], PLAIN, SMTPUTF8=None)
        (failed,) = await node.until(Failed)
        assert failed.reply.startswith("550 5.1.2")


class Hosts(Pool[HostAddress]):
    """Reads the content for the first host, and can open no session with the second."""

    def __init__(self) -> None:
        super().__init__(lambda host: Client(host.name))
        self.tried: list[str] = []

    async def deliver(
        self, envelope: Any, content: Any, *destination: HostAddress, told: Any = None
    ) -> Result:
        (host,) = destination
        self.tried.append(host.name)
        if len(self.tried) > 1:
            raise LocalProtocolError("no such login can be written")
        content.chunks()  # all of it is at hand
        return Result((Outcome(envelope({}).forward_paths[0], Fate.TRANSIENT),))


async def test_whether_the_content_was_read_is_told_of_each_host_anew(tmp_path: Path) -> None:
    # What keeps us from opening a session is ours to mend, and no fault of the content.
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        await node.stop()
        async with SQLiteSpool.open(node.directory / "spool", clock=w.clock) as spool:
            async with spool.receive() as incoming:
                await incoming.write(PLAIN)
                await incoming.commit(Mail(SENDER), [Rcpt(TO)], now=w.now)
            (entry,) = [entry async for entry in spool.entries()]
            onward, pool = Onward(entry, None, spool, w.clock), Hosts()
            await onward.hand_over(pool, HostAddress("one", None, 25), entry.recipients)
            assert onward.begun
            with pytest.raises(LocalProtocolError):
                await onward.hand_over(pool, HostAddress("two", None, 25), entry.recipients)
            assert not onward.begun
