"""RFC 6531 §3.3: what is a mailbox and a value now; §3.7.4: UTF-8 in replies."""

import pytest
from attrs import evolve

from smtpproto import (
    Command,
    Expn,
    GrammarError,
    LocalProtocolError,
    Mail,
    Mailbox,
    Noop,
    Parameters,
    Rcpt,
    Reply,
    ReversePath,
    Vrfy,
)
from smtpproto.extensions import EIGHTBITMIME, ENHANCEDSTATUSCODES, EXPN, SMTPUTF8
from smtpproto.extensions.smtputf8 import UTF8
from tests.conformance.ends import HELLO, agreed, client_after, hear, server_after

OFFER = (EIGHTBITMIME, ENHANCEDSTATUSCODES, evolve(SMTPUTF8, obliges=""), evolve(EXPN, obliges=""))
OFFERED = b"250-mx.example\r\n250-8BITMIME\r\n250-EXPN\r\n250 SMTPUTF8\r\n"
MAIL = HELLO + b"MAIL FROM:<a@b>\r\n"
ASKED = HELLO + b"MAIL FROM:<a@b> SMTPUTF8\r\n"


def is_mailbox(octets: bytes) -> bool:
    """Whether it is one; then also what is written again, and what a path holds, is the same."""
    try:
        mailbox = Mailbox.parse(octets)
    except GrammarError:
        with pytest.raises(GrammarError):
            ReversePath.read(b"<%b>" % octets + b" X")
        return False
    assert Mailbox.parse(mailbox.serialize()) == mailbox
    assert ReversePath.read(b"<%b>" % octets) == (ReversePath(mailbox), len(octets) + 2)
    return True


# Production: what it takes and what it does not, as a local part or a domain.
LOCAL_PARTS = {
    "6531 §3.3 atext": (["é", "\x80", "\U0010ffff", "“”"], []),
    "6531 §3.3 Atom": (["aé", "éa", "é1ü!ö", "é{}"], ["", "é b", "é,"]),
    "6531 §3.3 Dot-string": (["é.ü", "a.é.b"], [".é", "é.", "é..ü"]),
    "6531 §3.3 Local-part": (["é", '"é"'], ['é"ü"', '"é"ü', '"é".ü']),
    "6531 §3.3 qtextSMTP": (['"é"', '"\x80"', '"\U0010ffff"'], ['"é\x7f"', '"é\t"']),
    "6531 §3.3 QcontentSMTP": (['"\\"é"', '"é\\\\"', '"\\aé"'], ['"\\é"', '"é\\"']),
    "6531 §3.3 Quoted-string": (['"é è"', '"é@ü"', '"é..ü"'], ['"é', 'é"', '"é"é"']),
    "6531 §3.3 DQUOTE": (["“é”", "＂é＂"], ["“é è”", "＂é è＂"]),
}
DOMAINS = {
    "6531 §3.3 sub-domain": (
        ["é", "x-é", "é-x", "1é", "é--ü"],
        ["-é", "é-", "é_", "é ü", "é@", "é!"],
    ),
    "6531 §3.3 Domain": (["é.ü", "é.example", "example.é"], ["", ".é", "é.", "é..ü"]),
}


def cases(table: dict[str, tuple[list[str], list[str]]]) -> list[object]:
    return [
        pytest.param(text, right, marks=pytest.mark.rfc(row), id=f"{row.split()[-1]}-{text!r}")
        for row, examples in table.items()
        for right, texts in zip((True, False), examples, strict=True)
        for text in texts
    ]


@pytest.mark.parametrize(("local_part", "right"), cases(LOCAL_PARTS))
def test_local_parts(local_part: str, right: bool) -> None:
    assert is_mailbox(f"{local_part}@b".encode()) is right


@pytest.mark.parametrize(("domain", "right"), cases(DOMAINS))
def test_domains(domain: str, right: bool) -> None:
    assert is_mailbox(f"a@{domain}".encode()) is right


@pytest.mark.rfc("6531 §3.3 Mailbox")
@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("é@b", True),
        ("a@é", True),
        ("é@é", True),
        ("é@[192.0.2.1]", True),
        ("é@[é]", False),
        ("a@[x:é]", False),
        ("é", False),
        ("@é", False),
        ("é@", False),
        ("é＠b", False),
    ],
)
def test_mailboxes(text: str, right: bool) -> None:
    assert is_mailbox(text.encode()) is right


@pytest.mark.rfc("6531 §3.2 local-part-is-parsed-as-ever")
def test_delimiters_mean_what_they_meant() -> None:
    for text, local_part in {
        '"é@ü"@b': "é@ü",
        '"\\aé"@b': "aé",
        '"a\\"é"@b': 'a"é',
        '"é"@b': "é",
        "é.ü@b": "é.ü",
    }.items():
        assert Mailbox.parse(text) == Mailbox(local_part, "b")
    for text in ("é@ü@b", ".é@b", "é.@b", "é..ü@b", '"é@b', 'é"@b', 'é"ü"@b', "é ü@b", "é\\ü@b"):
        with pytest.raises(GrammarError):
            Mailbox.parse(text)
        assert Mailbox(text.removesuffix("@b"), "b").serialize().startswith(b'"')


FIT_FOR_ATOMS = "!#$%&'*+-/=?^_`{|}~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz."


@pytest.mark.rfc("6531 §3.3 atext-gains-nothing-in-ascii")
@pytest.mark.parametrize("octet", range(128))
def test_of_ascii_an_atom_takes_what_it_took(octet: int) -> None:
    beside = f"é{chr(octet)}ü@b"
    if chr(octet) == "@":
        beside += "@b"
    assert is_mailbox(beside.encode()) is (chr(octet) in FIT_FOR_ATOMS)


LEAST_AND_MOST = [
    b"\xc2\x80",
    b"\xdf\xbf",
    b"\xe0\xa0\x80",
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbf",
    b"\xf0\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf",
]
BEYOND = [
    b"\xc2",
    b"\x80",
    b"\xc1\xbf",  # ASCII in two octets
    b"\xe0\x9f\xbf",  # two octets' in three
    b"\xed\xa0\x80",  # surrogates
    b"\xed\xbf\xbf",
    b"\xf0\x8f\xbf\xbf",  # three octets' in four
    b"\xf4\x90\x80\x80",
    b"\xe9",  # Latin-1
    b"\x82\xa0",  # Shift_JIS
]


@pytest.mark.rfc("6531 §3.3 UTF8-non-ascii", "6531 §3.7 mailboxes-are-utf8-throughout")
@pytest.mark.parametrize("form", [b"%b@b", b'"%b"@b', b"x@%b", b"x@a%bc.d"])
def test_a_character_is_one_of_utf8(form: bytes) -> None:
    assert [octets for octets in LEAST_AND_MOST if not is_mailbox(form % octets)] == []
    assert [octets for octets in BEYOND if is_mailbox(form % octets)] == []


@pytest.mark.rfc("6531 §3.3 esmtp-value")
def test_values() -> None:
    for octets in (*LEAST_AND_MOST, "aéb".encode(), "é;ü".encode()):
        read = Parameters({"X": octets})
        assert read.serialize() == b" X=" + octets
        assert Parameters.parse(b" X=" + octets) == read
    for octets in (*BEYOND, "é=".encode(), "é ü".encode(), "é\x7f".encode()):
        with pytest.raises(LocalProtocolError):
            Parameters({"X": octets})


# Replies (§3.7.4)


ADDRESS = "User José <josé@bücher.example>"


def answered(before: bytes, line: bytes, reply: Reply) -> bytes:
    """What a server writes that is told to answer so."""
    server = server_after(before, OFFER)
    server.receive_data(line + b"\r\n")
    server.next_event()
    return server.send(reply)


@pytest.mark.rfc(
    "6531 §3.7.4.1 251-and-551-may-hold-utf8",
    "6531 §3.7.4.1 client-reads-utf8-in-251-and-551",
)
@pytest.mark.parametrize(("code", "status"), [(251, "2.1.5"), (551, "5.1.6")])
def test_the_new_address_may_be_utf8(code: int, status: str) -> None:
    reply = Reply(code, status, ADDRESS)
    wire = answered(ASKED, b"RCPT TO:<c@d>", reply)
    assert wire == f"{code} {status} {ADDRESS}\r\n".encode()
    client = client_after(OFFERED)
    agreed(client, Mail("a@b", UTF8(True)))
    client.send(Rcpt("c@d"))
    assert hear(client, wire) == [reply]
    assert client.state.name == ("RCPT" if code == 251 else "MAIL")


@pytest.mark.rfc(
    "6531 §3.7.4.1 no-utf8-where-mail-did-not-ask", "6531 §3.7.4.1 250-or-550-in-its-place"
)
@pytest.mark.parametrize(("code", "in_its_place"), [(251, 250), (551, 550)])
def test_in_place_of_a_new_address_that_may_not_be_said(code: int, in_its_place: int) -> None:
    server = server_after(MAIL, OFFER)
    server.receive_data(b"RCPT TO:<c@d>\r\n")
    server.next_event()
    with pytest.raises(LocalProtocolError, match="did not ask for"):
        server.send(Reply(code, None, ADDRESS))
    assert server.send(Reply(in_its_place, None, "c@d")).startswith(b"%d " % in_its_place)
    assert (server.envelope is not None) is (in_its_place == 250)


@pytest.mark.rfc(
    "6531 §3.1 parameter-of-queries-lets-utf8-back",
    "6531 §3.7.4.2 parameter-lets-utf8-into-the-reply",
    "6531 §3.7.4.2 client-reads-utf8-in-the-reply",
    "6531 §3.7.4.2 250-may-have-the-full-name",
)
@pytest.mark.parametrize("lines", [[ADDRESS], ["josé@b"], [ADDRESS, "Ann <ann@b>", "<é@b>"]])
@pytest.mark.parametrize("query", [Vrfy("jo", True), Expn("jo", True)])
def test_the_answer_to_a_query_may_be_utf8(query: Command, lines: list[str]) -> None:
    reply = Reply(250, "2.1.5", lines)
    wire = answered(HELLO, query.serialize()[:-2], reply)
    assert wire.count(b"\r\n") == len(lines)
    client = client_after(OFFERED)
    assert client.send(query).endswith(b" SMTPUTF8\r\n")
    (read,) = hear(client, wire)
    assert read == reply
    assert read.text == "\n".join(lines)


@pytest.mark.rfc(
    "6531 §3.7.4.2 no-utf8-where-the-query-did-not-ask",
    "6531 §3.7.4.2 252-or-550-in-its-place",
    "6531 §3.7.4.2 these-say-x-6-8",
)
@pytest.mark.parametrize("in_its_place", [Reply(252, "2.6.8", "jo"), Reply(550, "5.6.8", "jo")])
@pytest.mark.parametrize("line", [b"VRFY jo", b"EXPN jo", "VRFY é".encode()])
def test_in_place_of_an_answer_that_may_not_be_said(line: bytes, in_its_place: Reply) -> None:
    server = server_after(HELLO, OFFER)
    server.receive_data(line + b"\r\n")
    server.next_event()
    for code in (250, 251, 252, 550, 553):
        with pytest.raises(LocalProtocolError, match="did not ask for"):
            server.send(Reply(code, None, ADDRESS))
    assert server.send(in_its_place) == in_its_place.serialize()
    assert in_its_place.status is not None
    registered = in_its_place.status.registered
    assert registered is not None
    assert (registered.rfc, in_its_place.code in registered.replies) == (6531, True)


@pytest.mark.rfc("6531 §3.7.4.2 for-that-command-only")
def test_the_parameter_is_for_one_command() -> None:
    server = server_after(HELLO + b"VRFY jo SMTPUTF8\r\n", OFFER)
    server.receive_data(b"VRFY jo\r\n")
    server.next_event()
    with pytest.raises(LocalProtocolError, match="did not ask for"):
        server.send(Reply(250, None, ADDRESS))


@pytest.mark.rfc("6531 §3.7.4.2 unasked-utf8-is-survived")
@pytest.mark.parametrize("command", [Vrfy("jo"), Noop(), Mail("a@b")])
def test_utf8_that_was_not_asked_for_is_read(command: Command) -> None:
    client = client_after(b"250 mx.example\r\n")
    client.send(command)
    (read,) = hear(client, f"250-{ADDRESS}\r\n250 é\r\n".encode())
    assert (read.code, read.text) == (250, f"{ADDRESS}\né")
    client.send(Noop())
    assert [reply.code for reply in hear(client, b"250 ok\r\n")] == [250]
