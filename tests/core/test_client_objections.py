"""What a client may not ask of a server, told beforehand; where it stands behind refusals."""

from typing import Self

import pytest
from attrs import frozen

from smtpproto import (
    STANDARD,
    Auth,
    BadCommand,
    Chunk,
    ClientConnection,
    Command,
    Content,
    Data,
    Ehlo,
    Extension,
    LocalProtocolError,
    Mail,
    Parameter,
    Rcpt,
    Reply,
    Rset,
    ServerConnection,
    State,
    TlsInfo,
)
from smtpproto.core.refusal import NON_ASCII_RECIPIENT, NON_ASCII_SENDER
from smtpproto.mechanisms import PLAIN


def _octets(value: bytes | None) -> bytes:
    return value or b""


LONG = Extension("LONG", mail=(Parameter("LONG", _octets, bytes, octets=5),))


@frozen
class Odd(Command):
    """A verb whose argument is written as it is given."""

    verb = b"ODD"
    text: bytes = b""

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        return cls(argument)

    def argument(self) -> bytes:
        return self.text


ODD = Extension("ODD", verbs=(Odd,))
ALL = (*STANDARD, LONG, ODD)


def client(*offered: str, tls: TlsInfo | None = None) -> ClientConnection:
    """A client behind EHLO, to which so much is offered."""
    end = ClientConnection(ALL)
    if tls is not None:
        end.tls_started(tls)
    end.receive_data(b"220 hi\r\n")
    end.next_event()
    end.send(Ehlo("c.example"))
    lines = ["mx", *offered]
    end.receive_data(
        b"".join(
            b"250%c%b\r\n" % (b" -"[at < len(lines) - 1], line.encode())
            for at, line in enumerate(lines)
        )
    )
    end.next_event()
    return end


def hear(end: ClientConnection, octets: bytes) -> None:
    """Pull as many replies as there are."""
    end.receive_data(octets)
    for _ in range(octets.count(b"\r\n")):
        end.next_event()


def leads_to(end: ClientConnection, state: State) -> bool:
    """Whether it will be there if what is owed is answered well."""
    return end.asked is state


UTF8_VALUE = {"LONG": "é".encode()}


@pytest.mark.parametrize(
    ("offered", "command", "objection"),
    [
        ([], Mail("é@a.example"), NON_ASCII_SENDER),
        ([], Rcpt("é@a.example"), NON_ASCII_RECIPIENT),
        (["LONG"], Mail("a@b", UTF8_VALUE), "The server does not offer SMTPUTF8"),
        (["SMTPUTF8"], Mail("é@a.example", {"SMTPUTF8": None}), None),
        (["SMTPUTF8"], Mail("é@a.example"), None),  # the transaction says so, not the path
        ([], Mail("a@b"), None),
        ([], Mail("a@b", {"SIZE": b"1"}), "The server does not offer SIZE"),
        (["SIZE"], Mail("a@b", {"SIZE": b"1"}), None),
        ([], Mail("a@b", {"X-OWN": None}), "The server does not offer X-OWN"),
        (
            [],
            Mail("a@b", {"BODY": b"8BITMIME"}),
            "The server does not offer 8BITMIME or BINARYMIME",
        ),
        (
            ["BINARYMIME"],
            Mail("a@b", {"BODY": b"BINARYMIME"}),
            Reply(501, "5.5.4", "BODY=BINARYMIME is not offered"),
        ),
    ],
)
def test_what_is_not_offered_is_told_beforehand(
    offered: list[str], command: Mail | Rcpt, objection: Reply | str | None
) -> None:
    expected = Reply(555, "5.5.4", objection) if isinstance(objection, str) else objection
    assert client(*offered).objection(command) == expected


@pytest.mark.parametrize("verified", [True, False])
def test_what_tls_cannot_do_has_a_status_of_its_own(verified: bool) -> None:
    mail = Mail("a@b", {"REQUIRETLS": None})
    objection = client(tls=TlsInfo("TLSv1.3", "x", verified=verified)).objection(mail)
    assert objection is not None
    assert (objection.code, str(objection.status)) == (
        (550, "5.7.30") if verified else (523, "5.7.10")
    )


def test_a_line_that_is_too_long_is_the_callers_fault_beforehand_too() -> None:
    end = client("LONG")
    assert end.objection(Mail("a@b", {"LONG": b"x" * 480})) is None
    with pytest.raises(LocalProtocolError, match="at most 517"):
        end.objection(Mail("a@b", {"LONG": b"x" * 600}))


def test_an_extensions_verb_is_one_line_to_its_last_octet() -> None:
    end = client("ODD")
    for text in (b"\n", b"a\n", b"a\r", b"\0b"):
        with pytest.raises(LocalProtocolError, match="not one line"):
            end.send(Odd(text))
    assert end.send(Odd(b"a")) == b"ODD a\r\n"


def test_content_beyond_ascii_is_declared_or_refused() -> None:
    end = client()
    for command, reply in ((Mail("a@b"), b"250"), (Rcpt("c@d"), b"250"), (Data(), b"354")):
        end.send(command)
        hear(end, reply + b" go\r\n")
    with pytest.raises(LocalProtocolError):
        end.send(Content(b"\xe9\r\n"))


# Where it will be when all that is owed has been answered


def test_where_a_refused_mail_leads() -> None:
    """Nothing behind it can succeed, so all of it leads nowhere."""
    end = client("PIPELINING")
    for command in (Mail("a@b"), Rcpt("c@d"), Rcpt("e@f"), Data()):
        end.send(command)
    assert leads_to(end, State.CONTENT)
    hear(end, b"550 no\r\n")
    assert leads_to(end, State.READY)
    hear(end, b"503 no\r\n503 no\r\n503 no\r\n")
    assert leads_to(end, State.READY)
    assert end.state is State.READY


def test_where_a_refused_recipient_leads() -> None:
    """Another may be accepted, and then DATA."""
    end = client("PIPELINING")
    for command in (Mail("a@b"), Rcpt("c@d"), Rcpt("e@f"), Data()):
        end.send(command)
    hear(end, b"250 ok\r\n550 no\r\n")
    assert leads_to(end, State.CONTENT)
    hear(end, b"550 no\r\n")
    assert leads_to(end, State.CONTENT)
    hear(end, b"503 no\r\n")
    assert leads_to(end, State.MAIL)
    assert end.state is State.MAIL


def test_each_rset_is_answered_for_itself() -> None:
    """Two that were pipelined long ago do not stand for the one that a refused chunk needs."""
    end = client("PIPELINING", "CHUNKING")
    end.send(Rset())
    end.send(Rset())
    hear(end, b"250 ok\r\n250 ok\r\n")
    for command in (Mail("a@b"), Rcpt("c@d")):
        end.send(command)
        hear(end, b"250 ok\r\n")
    end.send(Chunk(b"x\r\n"))
    hear(end, b"400 no\r\n")  # the first of the codes that refuse
    assert end.must_reset


def test_the_first_of_the_codes_that_refuse_may_answer_a_login() -> None:
    """Of those that accept only some may."""
    server = ServerConnection("mx.example", ALL, mechanisms=(PLAIN,), plaintext_auth=True)
    server.send(server.suggested_reply())
    server.receive_data(b"EHLO c.example\r\nAUTH PLAIN\r\n")
    server.next_event()
    server.send(server.suggested_reply())
    assert server.next_event() == Auth("PLAIN")
    assert server.send(Reply(400, "4.7.0", "x")) == b"400 4.7.0 x\r\n"


@pytest.mark.parametrize("hello", [b"", b"HELO c.example\r\n"])
def test_an_extensions_verb_before_ehlo_is_shown_as_it_came(hello: bytes) -> None:
    server = ServerConnection("mx.example", ALL, offer=ALL)
    server.send(server.suggested_reply())
    if hello:
        server.receive_data(hello)
        server.next_event()
        server.send(server.suggested_reply())
    server.receive_data(b"ODD x\r\n")
    event = server.next_event()
    assert isinstance(event, BadCommand)
    assert (event.line, event.reply.code) == (b"ODD x", 503)
