"""What leaves when, and by which way; what is found before anything leaves at all."""

import itertools
from collections.abc import AsyncIterator, Sequence
from email import message_from_bytes, message_from_string, policy
from email.message import EmailMessage
from typing import Any

import pytest

import smtpproto.wire
from smtpproto import (
    STANDARD,
    Envelope,
    Extension,
    Limits,
    LocalProtocolError,
    Mail,
    Mailbox,
    Noop,
    Rcpt,
    Reply,
)
from smtpproto.client import ClientDeadlines
from smtpproto.extensions import BINARYMIME, CHUNKING, DSN, PIPELINING, SMTPUTF8
from smtpproto.extensions.dsn import NOTIFY, Notify
from smtpproto.extensions.limits import Maxima, limits
from smtpproto.extensions.smtputf8 import UTF8
from smtpproto.handover import CHUNKS
from smtpproto.result import ClientError, DeliveryError, Fate, Result
from smtpproto.server import Server
from smtpproto.source import CHUNK, Source

from .store import Plan, Planned
from .wire import Wire, raw_server, script
from .world import ENVELOPE, MESSAGE, Box, clear, session

pytestmark = pytest.mark.anyio

DEFAULT = [extension for extension in STANDARD if not extension.obliges]
OPENING = "S: 220 hi\nC: EHLO *\nS: 250-hi\n"
BIG = b"0123456789012345678901234567890\r\n" * 8000  # some pieces of content
IMPATIENT = ClientDeadlines(quit=0.05)


def offering(*without: Extension) -> list[Extension]:
    return [extension for extension in DEFAULT if extension not in without]


def fates(result: Result) -> list[str]:
    return [outcome.fate.value for outcome in result.outcomes]


def statuses(result: Result) -> list[str]:
    """Status of each that was not put to the server; `-` for the others."""
    return [str(o.reply.status) if o.local and o.reply else "-" for o in result.outcomes]


class pieces:  # noqa: N801 - it stands for a function
    """Chunks to iterate over, as often as one likes: parameters serve several tests."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk


# What leaves when


async def writes(offer: str, content: Any, *turns: tuple[bytes, str]) -> list[bytes]:
    """Each write of one transaction. A turn: what ends that write, and what is said to it."""
    heard: list[bytes] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play(OPENING + "".join(f"S: 250-{word}\n" for word in offer.split()))
        await wire.say("250 HELP")
        for ends, replies in turns:
            said = b""
            wire.reads.clear()
            while not said.endswith(ends):
                said += await wire.receive()
            heard.extend(wire.reads)
            await wire.say(*replies.split("|"))
        await wire.rest()

    async with raw_server(behaviour) as port, clear(port, deadlines=IMPATIENT) as client:
        await client.send(ENVELOPE, content)
    return heard


GROUP = b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\n"


@pytest.mark.rfc("2920 §3.1 commands-may-go-in-groups")
async def test_a_small_message_is_two_writes() -> None:
    heard = await writes(
        "PIPELINING", MESSAGE, (b"DATA\r\n", "250 ok|250 ok|354 go"), (b"\r\n.\r\n", "250 ok")
    )
    stuffed = MESSAGE.replace(b"\n.", b"\n..")
    assert heard == [GROUP + b"DATA\r\n", stuffed + b".\r\n"]


@pytest.mark.rfc(
    "3030 §2 bdat-stands-for-data",
    "3030 §2 mail-and-rcpt-are-answered-first",
    "3030 §2 octets-follow-the-line-at-once",
)
async def test_by_bdat_it_is_two_writes_as_well_and_one_reply_less() -> None:
    heard = await writes(
        "PIPELINING CHUNKING", MESSAGE, (b"RCPT TO:<bob@example.net>\r\n", "250 ok|250 ok"),
        (MESSAGE, "250 ok"),
    )  # fmt: skip
    assert heard == [GROUP, b"BDAT %d LAST\r\n%b" % (len(MESSAGE), MESSAGE)]


@pytest.mark.parametrize(
    "content", [MESSAGE, pieces(MESSAGE[:9], b"", MESSAGE[9:]), MESSAGE.decode()]
)
async def test_one_piece_goes_by_bdat_without_pipelining_too(content: object) -> None:
    heard = await writes(
        "CHUNKING", content, (b"org>\r\n", "250 ok"), (b"net>\r\n", "250 ok"), (MESSAGE, "250 ok")
    )
    assert heard[2:] == [b"BDAT %d LAST\r\n%b" % (len(MESSAGE), MESSAGE)]


@pytest.mark.rfc("3030 §2 client-may-use-data")
async def test_several_go_by_data_where_each_would_cost_a_round_trip() -> None:
    heard = await writes(
        "CHUNKING", BIG, (b"org>\r\n", "250 ok"), (b"net>\r\n", "250 ok"),
        (b"DATA\r\n", "354 go"), (b"\r\n.\r\n", "250 ok"),
    )  # fmt: skip
    assert b"".join(heard[3:]) == BIG + b".\r\n"


async def test_the_last_piece_and_the_final_dot_share_a_write(box: Box) -> None:
    sent: list[bytes] = []

    async with session(Server(box, offer=offering(CHUNKING))) as client:
        wire = client.stream
        assert isinstance(wire, smtpproto.wire.Wire)
        write = wire.write

        def keeping(octets: bytes) -> bool:
            sent.append(octets)
            return write(octets)

        wire.write = keeping  # type: ignore[method-assign]  # to count the writes
        for content in (BIG, pieces(*(BIG[at : at + 999] for at in range(0, len(BIG), 999)))):
            sent.clear()
            await client.send(ENVELOPE, content)
            assert len(sent) == 1 + -(-len(BIG) // CHUNK)
            assert sent[-1].endswith(BIG[-100:] + b".\r\n")
    assert [received.content for received in box.received] == [BIG, BIG]


@pytest.mark.rfc("2920 §3.1 commands-may-go-in-groups")
async def test_rset_leaves_with_the_next_transaction() -> None:
    heard: list[bytes] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play(OPENING + "S: 250 PIPELINING\nC: MAIL *\nC: RCPT *\nC: DATA")
        await wire.say("250 ok", "550 no", "503 nobody")
        wire.reads.clear()
        await wire.play("C: RSET\nC: MAIL *\nC: RCPT *\nC: DATA")
        heard.extend(wire.reads)
        await wire.say("250 ok", "250 ok", "250 ok", "451 later")
        await wire.rest()

    async with raw_server(behaviour) as port, clear(port, deadlines=IMPATIENT) as client:
        assert fates(await client.deliver(ENVELOPE, MESSAGE)) == ["permanent"]
        assert fates(await client.deliver(ENVELOPE, MESSAGE)) == ["transient"]
    assert heard == [b"RSET\r\n" + GROUP + b"DATA\r\n"]


# Any mix of refusals


PLANS = [
    Plan(mail, rcpts, data, final)
    for mail in (250, 451, 550)
    for rcpts in itertools.product((250, 450, 550), repeat=3)
    for data in (354, 451, 554)
    for final in ((250, 250, 250), (452, 250, 554), (554, 554, 250))
]


@pytest.mark.rfc(
    "2920 §3.1 every-status-is-checked",
    "2920 §3.1 needless-354-gets-a-single-dot",
    "2033 §4.2 final-dot-has-a-reply-for-each-recipient",
    "2033 §4.3 last-chunk-has-a-reply-for-each-recipient",
)
@pytest.mark.parametrize("offer", ["", "PIPELINING", "CHUNKING", "PIPELINING CHUNKING"])
@pytest.mark.parametrize("kind", ["smtp", "eager", "lmtp"])
async def test_any_mix_of_refusals(offer: str, kind: str) -> None:
    """One session, hundreds of transactions: each recipient has its fate, and nothing is lost."""
    lmtp, chunked = kind == "lmtp", "CHUNKING" in offer
    server = Planned(PLANS, offer.split(), lmtp=lmtp, eager=kind == "eager")
    envelope = Envelope("a@example.org", [f"{name}@example.net" for name in "bcd"])
    async with raw_server(server) as port, clear(port, lmtp=lmtp) as client:
        for number, plan in enumerate(PLANS):
            content = MESSAGE + b"%d\r\n" % number
            result = await client.deliver(envelope, content)
            expected = list(plan.fates(lmtp=lmtp, chunked=chunked))
            assert [outcome.fate for outcome in result.outcomes] == expected, plan
            assert bool(result) == result.all_accepted == (set(expected) == {Fate.ACCEPTED})
            # The message itself goes where somebody was accepted, and else at most an empty one.
            somebody = plan.mail == 250 in plan.rcpts and (chunked or plan.data == 354)
            heard = server.contents[number]
            assert heard == content if somebody else heard in (None, b""), plan
            assert client.usable
    assert len(server.contents) == len(PLANS)


# BDAT


async def test_chunks_and_data_carry_the_same_octets(box: Box) -> None:
    contents = [b"", b".", b".\r\n..\r\n", b"x\r\n", MESSAGE, b"no end", BIG, BIG + b"no end"]
    sizes = [b"x" * (CHUNK - 2 + n) + b"\r\n" for n in range(3)]  # cut around the line end
    sizes += [b"x" * CHUNK, b"x" * (CHUNK + 1), b"x" * 2 * CHUNK]
    async with session(Server(box)) as client:
        for content in contents + sizes:
            await client.send(ENVELOPE, content)
            await client.send(ENVELOPE, pieces(content))
    chunked = [received.content for received in box.received]
    box.received.clear()
    async with session(Server(box, offer=offering(CHUNKING))) as client:
        for content in contents + sizes:
            await client.send(ENVELOPE, content)
            await client.send(ENVELOPE, pieces(content))
    assert chunked == [received.content for received in box.received]
    # A last line without its end gets one (RFC 5321 §4.1.1.4).
    ended = [text if not text or text.endswith(b"\r\n") else text + b"\r\n" for text in contents]
    assert chunked[::2][: len(contents)] == chunked[1::2][: len(contents)] == ended


@pytest.mark.rfc("3030 §2 message-is-a-series-of-chunks")
async def test_chunks_are_pipelined_within_a_window() -> None:
    """The server says nothing for as long as chunks come: they stop before the pipe is full."""
    chunks: list[int] = []
    content = b"x" * (CHUNK - 2) + b"\r\n"
    count = 2 * CHUNKS + 3

    async def behaviour(wire: Wire) -> None:
        await wire.play(OPENING + "S: 250-PIPELINING\nS: 250 CHUNKING\nC: MAIL *\nC: RCPT *")
        await wire.say("250 ok", "250 ok")
        owed = 0
        while True:
            _, size, *last = (await wire.hear()).split()
            await wire.take(int(size))
            chunks.append(int(size))
            owed += 1
            if owed == CHUNKS or last:
                await wire.say(*["250 ok"] * owed)
                owed = 0
            if last:
                break
        await wire.play("C: QUIT\nS: 221 bye")

    async with raw_server(behaviour) as port, clear(port) as client:
        await client.send(ENVELOPE, pieces(*[content] * count))
    assert chunks == [CHUNK] * count


@pytest.mark.rfc(
    "3030 §2 no-chunk-behind-a-refused-one", "3030 §2 refused-chunk-is-a-refused-message"
)
async def test_a_server_may_refuse_in_mid_content(box: Box) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += len(BIG)
            yield BIG

    # Each chunk that is under way then is an error more.
    server = Server(box, limits=Limits(message=3 * len(BIG)), error_delay=0)
    async with session(server) as client:
        (outcome,) = (await client.deliver(ENVELOPE, endless())).outcomes
        assert outcome.reply == Reply(552, "5.3.4", "Message too big")
        assert sent <= 3 * len(BIG) + (CHUNKS + 2) * CHUNK + len(BIG)
        assert (await client.command(Noop())).code == 250  # behind the RSET that has to come first
        await client.send(ENVELOPE, MESSAGE)
    assert [received.content for received in box.received] == [MESSAGE]


@pytest.mark.rfc(
    "3030 §2 rset-comes-next-behind-a-failed-chunk", "5321 §2.3.8 client-sends-no-bare-cr-or-lf"
)
@pytest.mark.parametrize("fault", ["bare", "source", "8-bit"])
async def test_content_at_fault_in_its_midst_costs_no_session(fault: str, box: Box) -> None:
    async def faulty() -> AsyncIterator[bytes]:
        yield BIG
        yield {"bare": b"bare\n", "8-bit": b"\xff\r\n"}.get(fault, b"")
        yield BIG
        if fault == "source":
            raise RuntimeError("the disk is gone")

    offer = [PIPELINING, CHUNKING] if fault == "8-bit" else DEFAULT
    async with session(Server(box, offer=offer)) as client:
        for _ in range(2):
            if fault == "8-bit":
                result = await client.deliver(ENVELOPE, faulty())
                assert statuses(result) == ["5.6.3"]
            else:
                with pytest.raises((LocalProtocolError, RuntimeError), match=r"bare|disk"):
                    await client.deliver(ENVELOPE, faulty())
            assert client.usable
        await client.send(ENVELOPE, MESSAGE)
    assert [received.content for received in box.received] == [MESSAGE]


@pytest.mark.parametrize(
    ("said", "unheard"),
    [
        ("", True),
        ("421 4.4.2 idle for too long\r\n", True),
        ("250 ok\r\n", False),
        ("250 ok\r\n421 4.3.2 going down\r\n", False),
    ],
)
async def test_a_session_that_was_dead_already_is_told_from_one_that_died(
    said: str, unheard: bool
) -> None:
    """So that another session may have the message, as if nothing had been."""

    async def behaviour(wire: Wire) -> None:
        await wire.play(OPENING + "S: 250 PIPELINING")
        if said:
            await wire.hear()
        await wire.send(said.encode())

    async with raw_server(behaviour) as port, clear(port) as client:
        result = await client.deliver(ENVELOPE, MESSAGE)
        assert fates(result) == ["transient"]
        assert result.unheard is unheard
        assert not client.usable


async def test_421_to_a_chunk_ends_the_session_without_doubt() -> None:
    async def behaviour(wire: Wire) -> None:
        await wire.play(OPENING + "S: 250-PIPELINING\nS: 250 CHUNKING\nC: MAIL *\nC: RCPT *")
        await wire.say("250 ok", "250 ok")
        await wire.take(CHUNK)
        await wire.say("421 4.3.2 enough")
        await wire.rest()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield BIG

    async with raw_server(behaviour) as port, clear(port) as client:
        (outcome,) = (await client.deliver(ENVELOPE, endless())).outcomes
        assert outcome.reply == Reply(421, "4.3.2", "enough")
        assert outcome.fate is Fate.TRANSIENT
        assert not client.usable


@pytest.mark.parametrize(("last", "fate"), [(False, "transient"), (True, "unknown")])
async def test_a_session_lost_among_chunks(last: bool, fate: str) -> None:
    """Without the last chunk nobody has it; with it, nobody knows (RFC 1047)."""

    async def behaviour(wire: Wire) -> None:
        await wire.play(OPENING + "S: 250-PIPELINING\nS: 250 CHUNKING\nC: MAIL *\nC: RCPT *")
        await wire.say("250 ok", "250 ok")
        await wire.take(len(MESSAGE) if last else CHUNK)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield BIG

    async with raw_server(behaviour) as port, clear(port) as client:
        result = await client.deliver(ENVELOPE, MESSAGE if last else endless())
    assert fates(result) == [fate]


async def test_what_the_client_does_not_know_is_not_used(box: Box) -> None:
    lines: list[str] = []
    known = [e for e in STANDARD if e is not CHUNKING]
    async with session(Server(box), extensions=known, trace=lines.append) as client:
        assert "CHUNKING" in client.offered
        await client.send(ENVELOPE, MESSAGE)
    assert "C: DATA" in lines


# Binary content


BINARY = b"Content-Type: image/x-raw\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\r\xff\n.\n\r"
BINARY_MAIL = Mail("ann@example.org", {"BODY": "BINARYMIME"})


@pytest.mark.rfc("3030 §3 binary-content-is-declared", "3030 §3 binary-does-not-go-by-data")
@pytest.mark.parametrize("form", ["envelope", "source", "stream"])
async def test_binary_octets_arrive_as_they_are(form: str, box: Box) -> None:
    content = BINARY + (BIG if form == "stream" else b"")
    given: Any = {
        "envelope": content,
        "source": Source(content, binary=True),
        "stream": Source(pieces(content), binary=True),
    }[form]
    mail = BINARY_MAIL if form == "envelope" else Mail("ann@example.org")
    async with session(Server(box, offer=[*DEFAULT, BINARYMIME])) as client:
        await client.send(Envelope(mail, ["bob@example.net"]), given)
    (received,) = box.received
    assert received.content == content
    assert received.envelope.mail.parameters["BODY"] == b"BINARYMIME"


async def test_binary_octets_need_no_8bitmime(box: Box) -> None:
    """The server of RFC 3030 §4.2 offers CHUNKING and BINARYMIME alone."""
    async with session(Server(box, offer=[CHUNKING, BINARYMIME])) as client:
        await client.send(Envelope(BINARY_MAIL, ["bob@example.net"]), BINARY)
    assert [received.content for received in box.received] == [BINARY]


@pytest.mark.rfc("3030 §3 no-binary-where-it-is-not-offered", "3030 §3 may-fail-for-good")
@pytest.mark.parametrize("offer", [DEFAULT, offering(CHUNKING), [PIPELINING, CHUNKING]])
async def test_binary_octets_are_refused_where_they_are_not_taken(
    offer: Sequence[Extension], box: Box
) -> None:
    lines: list[str] = []
    envelope = Envelope(BINARY_MAIL, ["bob@example.net", "eve@example.net"])
    async with session(Server(box, offer=offer), trace=lines.append) as client:
        said = len(lines)
        result = await client.deliver(envelope, BINARY)
        assert statuses(result) == ["5.6.3", "5.6.3"]
        assert fates(result) == ["permanent", "permanent"]
        assert statuses(await client.deliver(ENVELOPE, Source(BINARY, binary=True))) == ["5.6.3"]
        assert len(lines) == said


@pytest.mark.rfc("3030 §3 may-be-encoded-in-seven-bits", "3030 §3 encoding-loses-nothing")
@pytest.mark.parametrize("offered", [True, False])
@pytest.mark.parametrize("alone", [True, False])
async def test_a_binary_part_goes_as_it_is_or_encoded(offered: bool, alone: bool, box: Box) -> None:
    octets = b"\x00\xffa\nb\rc\r\n.\r\n\x80"
    message = EmailMessage()
    message["From"] = "ann@example.org"
    if alone:
        message.set_content(octets, maintype="image", subtype="x-raw", cte="binary")
    else:
        message.set_content("grüße\n")
        message.add_attachment(octets, maintype="image", subtype="x-raw", cte="binary")
    before = [(part.items(), part.get_payload()) for part in message.walk()]
    offer = [*DEFAULT, BINARYMIME] if offered else DEFAULT
    async with session(Server(box, offer=offer)) as client:
        await client.send(ENVELOPE, message)
    (received,) = box.received
    assert (octets in received.content) is offered
    body = received.envelope.mail.parameters.get("BODY")
    assert (body == b"BINARYMIME") is offered
    read = message_from_bytes(received.content, policy=policy.default)
    (image,) = [part for part in read.walk() if part.get_content_maintype() == "image"]
    assert image["Content-Transfer-Encoding"] == ("binary" if offered else "base64")
    assert image.get_content() == octets or offered  # Python's parser does not keep CR and LF
    assert [(part.items(), part.get_payload()) for part in message.walk()] == before


# SMTPUTF8


JOSE = Mailbox("josé", "example.net")
UTF8_OFFER = [*DEFAULT, SMTPUTF8]


def email(**headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content("hello\n")
    return message


@pytest.mark.rfc(
    "6531 §3.2 client-may-write-utf8-mailboxes", "6531 §3.2 client-may-send-utf8-header"
)
@pytest.mark.rfc(
    "6531 §3.4 it-is-asked-for-where-the-content-needs-it", "6531 §3.4 it-is-not-asked-for-in-vain"
)
@pytest.mark.parametrize(
    ("envelope", "content", "asked"),
    [
        (ENVELOPE, MESSAGE, False),
        (ENVELOPE, "Subject: x\n\ngrüße\n", False),
        (ENVELOPE, b"Subject: \xfcx\r\n\r\nLatin-1 in a header is no UTF-8\r\n", False),
        (ENVELOPE, email(From="a@b.example", Subject="grüße", To="Jürgen <j@b.example>"), False),
        (ENVELOPE, "Subject: grüße\n\nx\n", True),
        (ENVELOPE, "Subject: grüße", True),
        (ENVELOPE, Source(pieces("Subject: grüße\r\n\r\n".encode(), BIG)), True),
        (ENVELOPE, Source(MESSAGE, utf8=True), True),
        (ENVELOPE, email(From="a@b.example", To="josé@example.net"), True),
        (ENVELOPE, email(From="a@b.example", Resent_Cc="J <j@bücher.example>"), True),
        (Envelope("ann@example.org", [JOSE]), MESSAGE, True),
        (Envelope("ann@bücher.example", ["b@example.net"]), MESSAGE, True),
        (Envelope("a@xn--bcher-kva.example", ["b@example.net"]), MESSAGE, False),
        (Envelope(Mail("ann@example.org", UTF8(True)), ["b@example.net"]), MESSAGE, True),
    ],
)
async def test_smtputf8_is_asked_for_where_it_is_needed(
    envelope: Envelope, content: Any, asked: bool, box: Box
) -> None:
    async with session(Server(box, offer=UTF8_OFFER)) as client:
        await client.send(envelope, content)
    assert ("SMTPUTF8" in box.received[0].envelope.mail.parameters) is asked
    assert box.received[0].envelope.rcpts == envelope.rcpts


async def test_a_header_with_such_an_address_is_written_in_utf8(box: Box) -> None:
    async with session(Server(box, offer=UTF8_OFFER)) as client:
        await client.send(ENVELOPE, email(From="José <josé@example.net>", Subject="grüße"))
    assert "josé@example.net".encode() in box.received[0].content
    read = message_from_string(box.received[0].content.decode(), policy=policy.SMTPUTF8)
    assert read["From"].addresses[0].addr_spec == "josé@example.net"
    assert read["Subject"] == "grüße"


@pytest.mark.rfc("6531 §3.2 no-utf8-mailbox-where-it-is-not-offered")
async def test_without_smtputf8_each_is_refused_that_needs_it(box: Box) -> None:
    lines: list[str] = []
    async with session(Server(box), trace=lines.append) as client:
        said = len(lines)
        sender = Envelope(JOSE, ["b@example.net", "c@example.net"])
        result = await client.deliver(sender, MESSAGE)
        assert [str(outcome.reply) for outcome in result.outcomes] == [
            "550 5.6.7 Address needs SMTPUTF8"
        ] * 2
        for content in (
            "Subject: grüße\n\nx\n",
            pieces("Subject: grüße\r\n\r\n".encode(), BIG),
            email(To="josé@example.net"),
        ):
            assert statuses(await client.deliver(ENVELOPE, content)) == ["5.6.9"]
        assert len(lines) == said
        mixed = Envelope("ann@example.org", ["b@example.net", JOSE, "no-c@example.net"])
        result = await client.deliver(mixed, MESSAGE)
        assert fates(result) == ["accepted", "permanent", "permanent"]
        assert statuses(result) == ["-", "5.6.7", "-"]
        assert result.outcomes[1].reply == Reply(553, "5.6.7", "Address needs SMTPUTF8")
        assert client.usable
    (received,) = box.received
    assert [str(path) for path in received.envelope.forward_paths] == ["<b@example.net>"]


# Parameters


async def test_each_recipient_has_parameters_of_its_own(box: Box) -> None:
    rcpts = [
        Rcpt("b@example.net", {"NOTIFY": "NEVER", "ORCPT": "rfc822;bo@example.com"}),
        Rcpt("c@example.net", NOTIFY(frozenset({Notify.SUCCESS, Notify.DELAY}))),
        Rcpt("d@example.net"),
    ]
    envelope = Envelope(Mail("ann@example.org", {"RET": "HDRS", "ENVID": "id-1"}), rcpts)
    async with session(Server(box, offer=[*DEFAULT, DSN])) as client:
        await client.send(envelope, MESSAGE)
    (received,) = box.received
    assert received.envelope.rcpts == tuple(rcpts)
    parameters = dict(received.envelope.mail.parameters)
    assert parameters.pop("SIZE") == b"%d" % len(MESSAGE)
    assert parameters == {"RET": b"HDRS", "ENVID": b"id-1"}


async def test_what_is_dispensable_is_left_out_where_it_is_not_offered(box: Box) -> None:
    mail = Mail("ann@example.org", {"RET": "HDRS", "SIZE": len(MESSAGE)})
    envelope = Envelope(mail, [Rcpt("b@example.net", {"NOTIFY": "NEVER"}), Rcpt("c@example.net")])
    async with session(Server(box), dispensable=(DSN,)) as client:
        result = await client.send(envelope, MESSAGE)
        assert result.left_out == {"RET", "NOTIFY"}
        assert (await client.send(ENVELOPE, MESSAGE)).left_out == frozenset()
    async with session(Server(box, offer=[*DEFAULT, DSN]), dispensable=(DSN,)) as client:
        assert (await client.send(envelope, MESSAGE)).left_out == frozenset()
    without, _, with_all = (received.envelope for received in box.received)
    assert dict(without.mail.parameters) == {"SIZE": b"%d" % len(MESSAGE)}
    assert [dict(rcpt.parameters) for rcpt in without.rcpts] == [{}, {}]
    assert with_all == envelope


@pytest.mark.parametrize(
    ("mail", "status"),
    [
        (Mail("a@b.example", {"REQUIRETLS": None}), "5.7.10"),
        (Mail("a@b.example", {"RET": "FULL"}), "5.5.4"),
        (Mail("a@b.example", {"X-OWN": "1"}), "5.5.4"),
        (Mail("a@b.example", {"SIZE": "99999999"}), "5.3.4"),
    ],
)
async def test_a_parameter_of_mail_concerns_everybody(mail: Mail, status: str, box: Box) -> None:
    lines: list[str] = []
    async with session(Server(box), trace=lines.append) as client:
        said = len(lines)
        result = await client.deliver(Envelope(mail, ["b@c.example", "d@e.example"]), MESSAGE)
        assert statuses(result) == [status, status]
        assert fates(result) == ["permanent", "permanent"]
        with pytest.raises(DeliveryError, match=status):
            await client.send(Envelope(mail, ["b@c.example"]), MESSAGE)
        assert len(lines) == said
        await client.send(ENVELOPE, MESSAGE)


# LIMITS


def limited(**maxima: int) -> list[Extension]:
    return [*(e for e in DEFAULT if e.keyword != "LIMITS"), limits(Maxima(**maxima))]


async def test_recipients_beyond_rcptmax_are_for_another_transaction(box: Box) -> None:
    names = [f"{name}@example.net" for name in ("b", "no-c", "d", "e", "f")]
    async with session(Server(box, offer=limited(rcpt=3))) as client:
        result = await client.deliver(Envelope("ann@example.org", names), MESSAGE)
        assert fates(result) == ["accepted", "permanent", "accepted", "transient", "transient"]
        assert statuses(result) == ["-", "-", "-", "4.5.3", "4.5.3"]
        rest = [outcome.forward_path for outcome in result.failed if outcome.local]
        await client.send(Envelope("ann@example.org", rest), MESSAGE)
    assert [len(received.envelope.rcpts) for received in box.received] == [2, 2]


async def test_domains_beyond_rcptdomainmax_are_for_another_session(box: Box) -> None:
    names = ["a@one.example", "b@TWO.example", "c@three.example", "d@One.example"]
    async with session(Server(box, offer=limited(rcpt_domain=2))) as client:
        result = await client.deliver(Envelope("ann@example.org", names), MESSAGE)
        assert statuses(result) == ["-", "-", "4.5.3", "-"]
        result = await client.deliver(Envelope("ann@example.org", names[2:]), MESSAGE)
        assert fates(result) == ["transient", "accepted"]
        result = await client.deliver(Envelope("ann@example.org", names[2:3]), MESSAGE)
        assert fates(result) == ["transient"]
    assert len(box.received) == 2


async def test_after_mailmax_transactions_a_session_is_over(box: Box) -> None:
    async with session(Server(box, offer=limited(mail=2))) as client:
        await client.send(ENVELOPE, MESSAGE)
        refused = Envelope("ann@example.org", ["no-b@example.net"])
        await client.deliver(refused, MESSAGE)  # it counts as well
        assert not client.usable
        with pytest.raises(ClientError, match="the server grants 2 transactions"):
            await client.deliver(ENVELOPE, MESSAGE)
        assert (await client.command(Noop())).code == 250
    assert len(box.received) == 1


async def test_limits_that_mean_nothing_are_none() -> None:
    play = OPENING + "S: 250 LIMITS RCPTMAX=0 MAILMAX=x NEWMAX=1\nC: MAIL *\nS: 550 no\nC: QUIT"
    async with raw_server(script(play)) as port, clear(port, deadlines=IMPATIENT) as client:
        assert fates(await client.deliver(ENVELOPE, MESSAGE)) == ["permanent"]
        assert client.usable


# Overlooking nobody


async def test_a_result_is_true_where_nobody_was_left_out(box: Box) -> None:
    async with session(Server(box)) as client:
        some = await client.deliver(
            Envelope("ann@example.org", ["b@example.net", "no-c@example.net"]), MESSAGE
        )
        everybody = await client.deliver(ENVELOPE, MESSAGE)
    assert not some
    assert some.any_accepted
    assert [str(outcome.forward_path) for outcome in some.failed] == ["<no-c@example.net>"]
    assert everybody
    assert everybody.failed == ()
