"""What a fuzzer starts from: dialogues and odd lines that are tests already, and words to use."""

from collections.abc import Iterator
from pathlib import Path

from smtpproto import STANDARD, Command
from smtpproto.core.command import BASE_VERBS, LMTP_VERBS
from smtpproto.core.proxy import ProxyHeader
from smtpproto.testing import Dialogue
from tests.core.decisions import DECISIONS
from tests.sasl.exchange import ALL

from .client_octets import TURN
from .draw import drawn_from
from .grammar_laws import LAWS, PARAMETERS
from .sasl_exchanges import NEXT
from .script import SCRIPT
from .server_octets import HANDSHAKE

__all__ = ["seeds", "words"]

DIALOGUES = Path(__file__).parents[1] / "dialogues"


def seeds(target: str) -> list[bytes]:
    """Return the inputs that the fuzzing of a target begins with."""
    return sorted(set(_SEEDS[target]()))


def words() -> list[bytes]:
    """Return what is worth trying anywhere in a wire."""
    parameters = [p.keyword.encode() for p in PARAMETERS]
    return sorted(
        {
            *BASE_VERBS,
            *LMTP_VERBS,
            *(verb.verb + b" " for extension in STANDARD for verb in extension.verbs),
            *(extension.keyword.encode() for extension in STANDARD),
            *(b" %b=" % keyword for keyword in parameters),
            *(mechanism.name.encode() for mechanism in ALL),
            *_WORDS,
        }
    )


_WORDS = (
    HANDSHAKE, TURN, NEXT,
    b"\r\n", b"\r\n.\r\n", b"\r\n..", b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\r\n", b"\0",
    b"EHLO c\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@d>\r\n", b"DATA\r\n", b"BDAT 0 LAST\r\n",
    b" LAST", b"FROM:<", b"TO:<", b"<Postmaster>", b"<@a,@b:c@d>", b'"', b"\\", b"@", b"[IPv6:",
    b"[192.0.2.1]", b"::", b"SMTPUTF8", b"BINARYMIME", b"8BITMIME", b"\xc3\xa9", b"\xed\xa0\x80",
    b"220 ", b"250-", b"250 ", b"334 ", b"354 ", b"421 ", b"550 ", b"2.1.0 ", b"5.7.1 ", b"4.0.0",
    b"n,,", b"y,,", b"p=tls-unique,,", b"n=ann", b",r=", b"r=cs,s=QQ==,i=4096", b"c=biws", b",p=",
    b"v=", b"e=", b"=2C", b"=3D", b"auth=Bearer ", b"\1\1", b"user=", b"=", b"*", b"\xcc\x81",
    b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN", b"\r\n\r\n\0\r\nQUIT\n\x21\x11",
    b"rfc822;", b"utf-8;", b"\\x{E9}", b"+2B", b"2014-04-03T23:01:00Z", b":60Z", b"+00:30", b"60;R",
    b"99999999999999999999", b"-0", b"65536", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01",
)  # fmt: skip


def _server() -> Iterator[bytes]:
    for dialogue in _dialogues():
        wire = b"".join(
            HANDSHAKE if line.octets == b"TLS" else line.wire
            for line in dialogue.lines
            if line.mark in ("C:", "C|") or (line.mark, line.octets) == ("--", b"TLS")
        )
        yield drawn_from(wire)
        yield drawn_from(wire.replace(b"EHLO", b"LHLO"), (1, 0, 0, 1))
    for decisions in DECISIONS.values():
        for decision in decisions:
            yield drawn_from(decision.before + decision.octets)
    hello, end = b"EHLO c.example\r\n", b"RSET\r\nQUIT\r\n"
    begin = b"MAIL FROM:<a@b>%b\r\nRCPT TO:<c@d>%b\r\nRCPT TO:<e@f>\r\n"
    chunks = b"BDAT 5\r\nab\r\nBDAT 0\r\nBDAT 4 LAST\r\n\r\n\r\n"
    binary = b" BODY=BINARYMIME SIZE=9 RET=HDRS ENVID=a+20b HOLDFOR=5 MT-PRIORITY=3 BY=90;RT"
    notify = b" NOTIFY=DELAY,SUCCESS ORCPT=utf-8;\\x{E9}@d RRVS=2014-04-03T23:01:00Z;C"
    for choices in ((), (0, 1), (0, 0, 1, 1), (0, 0, 0, 0, 0, *[12] * 4, 0, 0, 13)):
        yield drawn_from(hello + begin % (b"", b"") + chunks + end, choices)
        yield drawn_from(hello + begin % (binary, notify) + chunks + end, choices)
        yield drawn_from(
            hello + begin % (b" SMTPUTF8 REQUIRETLS", b"") + b"DATA\r\nx\r\n.\r\n", choices
        )
    lmtp = hello.replace(b"EHLO", b"LHLO") + begin % (b"", b"")
    yield drawn_from(lmtp + chunks + lmtp + b"DATA\r\n..\r\n.\r\nQUIT\r\n", (1,))
    yield drawn_from(lmtp.replace(b"RCPT", b"RSET") + b"BDAT 3 LAST\r\nabcNOOP\r\n", (1,))
    for line in (
        b"XCLIENT NAME=x ADDR=192.0.2.1 LOGIN=[UNAVAILABLE]",
        b"XFORWARD IDENT=x+2By SOURCE=LOCAL",
        b"ETRN @b.example",
        b"VRFY a SMTPUTF8",
        b"AUTH SCRAM-SHA-256 biwsbj1hbm4scj1j\r\nYz1iaXdz",
        b"AUTH LOGIN\r\nYW5u\r\ncHc=",
        b"AUTH OAUTHBEARER bixhPWFubiwBYXV0aD1CZWFyZXIgdG9rZW4BAQ==",
        b"AUTH CRAM-MD5\r\n*",
        b"AUTH ANONYMOUS =",
    ):
        yield drawn_from(hello + line + b"\r\n" + end)
        yield drawn_from(hello + line + b"\r\n" + end, (0, 1, 0, 2, 0, 0, 0, 5))
        yield drawn_from(hello + line + b"\r\n" + end, (2, 0, 0, 2))


def _client() -> Iterator[bytes]:
    for dialogue in _dialogues():
        turns, choices, spoke = [b""], [0, 0, 0, 0, 0], True
        for line in dialogue.lines:
            if line.mark == "S:":
                if not spoke:
                    choices.append(0)
                    turns.append(b"")
                spoke = True
                turns[-1] += line.octets.removesuffix(b"...") + b"\r\n"
            elif line.mark != "--":
                spoke = False
                choices.append(_in_script(line.octets))
        yield drawn_from(TURN.join(turns), choices)
        yield drawn_from(TURN.join(turns), [0, 1, 1, *choices[3:]])
    offer = b"220 x\r\n<TURN>250-x\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n<TURN>"
    for lmtp in (0, 1):
        hello = 9 if lmtp else 1
        batch = [2, 3, 3, 0, 24, 27, 28, 2, 0]
        yield drawn_from(
            offer + b"250 \r\n" * 3 + b"<TURN>250 \r\n" * 6 + b"221 \r\n",
            [lmtp, 0, 0, 0, 0, 0, hello, 0, *batch],
        )

    # One reply too many is there before the command that it might seem to answer.
    early = b"220 x\r\n<TURN><TURN>250-x\r\n250 PIPELINING\r\n<TURN><TURN>" + b"250 \r\n" * 3
    yield drawn_from(early, [0, 0, 0, 1, 0, 0, 1, 0, 0, 2, 3, 0, 7, 0])
    yield drawn_from(early + b"<TURN>250 \r\n", [0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 3, 0, 7, 0])


def _in_script(line: bytes) -> int:
    """Return what to draw for a line of the client's: content if it is no command."""
    verb = line.split(b" ")[0]
    for at, thing in enumerate(SCRIPT, 1):
        if isinstance(thing, Command) and thing.verb and thing.verb == verb:
            return at
    return 6 if line == b"." else 5


def _grammar() -> Iterator[bytes]:
    for decisions in DECISIONS.values():
        for decision in decisions:
            yield drawn_from(decision.octets.removesuffix(b"\r\n"), (0,))
    for at, parameter in enumerate(PARAMETERS):
        for value in _VALUES:
            yield drawn_from(value, (1, at))
            yield drawn_from(b"MAIL FROM:<> %b=%b" % (parameter.keyword.encode(), value), (0,))
    for law in range(len(LAWS)):
        for wire in _WIRES:
            yield drawn_from(wire, (law,))


_VALUES = (
    b"", b"1", b"-9", b"60;R", b"2014-04-03T23:01:00Z", b"2014-04-03T23:01:00+05:30;R", b"FULL",
    b"NEVER", b"DELAY,FAILURE", b"rfc822;a+2Bb@c", b"utf-8;\\x{E9}@c", b"a+20b", b"a@b", b"<>",
    b"BINARYMIME",
)  # fmt: skip
_WIRES = (
    b"<a@b>", b'<"a b"@[IPv6:::1]>', b"<@x,@y:a@b> SIZE=1", b"<>", b"<Postmaster>", b"a@b",
    b'"a\\"\\\\b"@c', b"\xc3\xa9@\xc3\xa9.b", b"250-2.1.0 a\r\n250 2.1.0 b\r\n", b"5.7.1",
    b" A=b a C", b"a+2Bb", b"100 2030-01-01T00:00:00Z", b"RCPTMAX=3 MAILMAX=2", b"60,x",
    b"YQ==", b"a\0\0b.c", b"NAME\0\0x",
)  # fmt: skip


def _proxy() -> Iterator[bytes]:
    four, six = ("192.0.2.1", 1), ("2001:db8::1", 65535)
    headers = [
        ProxyHeader(1, source=four, destination=four),
        ProxyHeader(1, source=six, destination=six),
        ProxyHeader(1),
        ProxyHeader(2, source=four, destination=four, tlvs=((1, b"h2"),), checksum=True),
        ProxyHeader(2, source=six, destination=six, datagram=True),
        ProxyHeader(2, source=b"/a", destination=b"/b", tlvs=((4, bytes(9)),)),
        ProxyHeader(2),
    ]
    for header in headers:
        yield drawn_from(header.serialize() + b"EHLO c\r\n")
        yield drawn_from(header.serialize() + b"EHLO c\r\n", (0, 3, 5, 0, 30, 0, 1))
    for kind in range(5):
        yield drawn_from(b"\0/a/path" * 20, (1, 0, 0, *[kind, 8] * 9))


def _sasl() -> Iterator[bytes]:
    messages = [
        b"\0ann\0pw", b"bob\0ann\0pw", b"ann<NEXT>pw", b"n,,n=ann,r=c<NEXT>c=biws,r=cs,p=QQ==",
        b"p=tls-unique,,n=ann,r=c<NEXT>c=cD10bHMtdW5pcXVlLCxmaW5pc2hlZA==,r=cs,p=QQ==",
        b"n,a=ann,\1auth=Bearer token\1\1", b"n,,\1host=h\1port=1\1auth=Bearer x\1\1<NEXT>\1",
        b"user=ann\1auth=Bearer token\1\1", b"ann", b"", b"ann " + b"0" * 32,
        b"r=cs,s=QQ==,i=4096<NEXT>v=QQ==", b"e=other-error", b'{"status":"400"}', b"Username:",
        b"ann<NEXT>pw<NEXT>bob", "ä,=ö<NEXT>ß\u00a0<NEXT>ann".encode(),
    ]  # fmt: skip
    for mechanism in range(len(ALL)):
        for side in range(3):
            for message in messages:
                for flag in (0, 1):
                    yield drawn_from(message, (mechanism, side, flag))


def _joined() -> Iterator[bytes]:
    straight, octetwise = [0, 0, 0], [0, 1, 0]
    wires = [[*straight, *straight], [*octetwise, *straight], [*straight, *octetwise]]
    # Each thing, and whether another one may leave with it; content is followed by its length.
    transaction = [2, 0, 3, 0, 3, 0, 4, 0, 5, 0, 0, 20, 0, 0, 6, 0]
    drawn = [2, 0, 3, 0, 4, 0, 5, 1, 40, 0, 5, 1, 3, 0, 6, 0, 8, 0]
    pipelined = [2, 1, 3, 1, 7, 1, 2, 1, 3, 1, 3, 1, 4, 0, 5, 1, 30, 1, 6, 0, 7, 1, 8, 0]
    chunks = [13, 1, 3, 0, 24, 0, 1, 26, 1, 9, 0, 29, 0, 1, 2, 0, 8, 0]
    login = [34, 0, 36, 0, 44, 0, 35, 0, 39, 0, 2, 0]
    tls = [32, 0, 1, 0, 34, 0]
    for wire in wires:
        for lmtp, hello in ((0, 1), (1, 9)):
            for script in (transaction, drawn, pipelined, chunks, login, [*tls, *chunks]):
                choices = [lmtp, 0, *wire, hello, 0, *script, *[0] * 40]
                yield drawn_from(b".content\r\n.\r\n" * 9, choices)


def _dialogues() -> Iterator[Dialogue]:
    for file in sorted(DIALOGUES.glob("*.txt")):
        yield Dialogue.parse(file.read_text(encoding="utf-8"))


_SEEDS = {
    "server": _server,
    "client": _client,
    "grammar": _grammar,
    "proxy": _proxy,
    "sasl": _sasl,
    "joined": _joined,
}
