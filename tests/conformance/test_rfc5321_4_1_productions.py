"""RFC 5321 §4.1: every production, by what a server reads, what it refuses, and what comes back."""

from collections.abc import Callable, Iterable

import pytest

from smtpproto import (
    Command,
    Ehlo,
    Expn,
    Helo,
    Help,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    Vrfy,
)
from smtpproto.core.command import Data
from tests.conformance.ends import HELLO, MAIL, RCPT, pulled

Make = Callable[[str], Command]


def production(
    row: str,
    template: str,
    accepted: Iterable[str],
    refused: Iterable[str],
    make: Make | None = None,
    *,
    before: bytes = HELLO,
) -> object:
    """A case for `test_production`.

    `{}` in `template` stands for the text of the production, in a line that follows `before`;
    `make` is how a client makes the command of that text, None where none is made of it alone.
    """
    case = (template, tuple(accepted), tuple(refused), make, before)
    return pytest.param(*case, id=row.rpartition(" ")[2], marks=pytest.mark.rfc(row))


def _local(text: str) -> Command:
    return Rcpt(f"{text}@b")


def _domain(text: str) -> Command:
    return Rcpt(f"a@{text}")


def _literal(text: str) -> Command:
    return Rcpt(f"a@[{text}]")


def _ipv6(text: str) -> Command:
    return Rcpt(f"a@[IPv6:{text}]")


LOCAL = "RCPT TO:<{}@b>"
DOMAIN = "RCPT TO:<a@{}>"
LITERAL = "RCPT TO:<a@[{}]>"
IPV6 = "RCPT TO:<a@[IPv6:{}]>"

ATEXT = "ABCXYZabcxyz0189!#$%&'*+-/=?^_`{|}~"
NO_ATEXT = [" ", '"', "(", ")", ",", ".", ":", ";", "<", ">", "@", "[", "\\", "]", "\x7f", "\x01"]
QTEXT = "".join(map(chr, [*range(32, 34), *range(35, 92), *range(93, 127)]))
PRINTABLE = "".join(map(chr, range(32, 127)))
DCONTENT = "".join(map(chr, [*range(33, 91), *range(94, 127)]))
VALUE = "".join(map(chr, [*range(33, 61), *range(62, 127)]))

PRODUCTIONS = [
    # The commands, whole
    production(
        "5321 §4.1.1.1 ehlo",
        "{}",
        ["EHLO c.example", "ehlo c", "EHLO [192.0.2.1]", "EHLO [IPv6:2001:db8::1]"],
        ["EHLO", "EHLO ", "EHLO a b", "EHLO c.", "EHLO -c", "EHLO [192.0.2.256]", "EHLO<c>"],
        lambda line: Ehlo(line[5:]),
        before=b"",
    ),
    production(
        "5321 §4.1.1.1 helo",
        "{}",
        ["HELO c.example", "helo c"],
        ["HELO", "HELO ", "HELO a b", "HELO .c", "HELO c-", "HELOc"],
        lambda line: Helo(line[5:]),
        before=b"",
    ),
    production(
        "5321 §4.1.1.2 mail",
        "{}",
        ["MAIL FROM:<>", "MAIL FROM:<a@b>", "mail from:<a@b>", "MAIL FROM:<a@b> SIZE=1 BODY=7BIT"],
        [
            "MAIL",
            "MAIL <a@b>",
            "MAIL TO:<a@b>",
            "MAIL FROM:",
            "MAIL FROM:a@b",
            "MAIL FROM:<a@b>X=1",
        ],
    ),
    production(
        "5321 §4.1.1.3 rcpt",
        "{}",
        ["RCPT TO:<a@b>", "rcpt to:<a@b>", "RCPT TO:<Postmaster>", "RCPT TO:<Postmaster@b>"],
        [
            "RCPT",
            "RCPT TO:",
            "RCPT TO:<>",
            "RCPT TO:<Hostmaster>",
            "RCPT FROM:<a@b>",
            "RCPT TO:a@b",
        ],
        lambda line: Rcpt(line[9:-1]),
        before=MAIL,
    ),
    production(
        "5321 §4.1.1.4 data",
        "{}",
        ["DATA", "data"],
        ["DATA now", "DATA:"],
        lambda line: Data(),
        before=RCPT,
    ),
    production(
        "5321 §4.1.1.5 rset", "{}", ["RSET", "rset"], ["RSET all", "RSETT"], lambda line: Rset()
    ),
    production(
        "5321 §4.1.1.6 vrfy",
        "{}",
        ["VRFY jo", 'VRFY "jo bloggs"', "vrfy jo"],
        ["VRFY", "VRFY ", "VRFY \x01"],
        lambda line: Vrfy(line[5:]),
    ),
    production(
        "5321 §4.1.1.7 expn",
        "{}",
        ["EXPN list", 'EXPN "a list"', "expn list"],
        ["EXPN", "EXPN ", "EXPN \x7f"],
        lambda line: Expn(line[5:]),
    ),
    production(
        "5321 §4.1.1.8 help",
        "{}",
        ["HELP", "HELP MAIL", "help", 'HELP "me"'],
        ["HELP \x1b", "HELPME"],
        lambda line: Help(line[5:]),
    ),
    production(
        "5321 §4.1.1.9 noop",
        "{}",
        ["NOOP", "NOOP x", "noop", 'NOOP "a b"'],
        ["NOOP \x01", "NOOPX"],
        lambda line: Noop(line[5:]),
    ),
    production(
        "5321 §4.1.1.10 quit", "{}", ["QUIT", "quit"], ["QUIT now", "QUITE"], lambda line: Quit()
    ),
    # The arguments
    production(
        "5321 §4.1.2 Reverse-path",
        "MAIL FROM:{}",
        ["<>", "<a@b>", "<@x:a@b>"],
        ["", "<", "< >", "<<>>", "a@b", "<a>", "<Postmaster>"],
    ),
    production(
        "5321 §4.1.2 Forward-path",
        "RCPT TO:{}",
        ["<a@b>", "<@x:a@b>"],
        ["", "<>", "a@b", "<a>"],
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 Path",
        "MAIL FROM:{}",
        ["<a@b>", "<@x:a@b>", "<@x.example,@y:a@b>", '<"<>"@b>'],
        ["<a@b", "a@b>", "<a@b>>", "< a@b>", "<a@b >", "<x:a@b>", "<@x:>", "<@x>"],
    ),
    production(
        "5321 §4.1.2 A-d-l",
        "RCPT TO:<{}:a@b>",
        ["@x", "@x.example,@y,@z"],
        ["", "x", "@x,", ",@x", "@x,y", "@x, @y", "@x;@y"],
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 At-domain",
        "RCPT TO:<{}:a@b>",
        ["@x", "@x.example"],
        ["@", "x", "@@x", "@x_y", "@[192.0.2.1]"],
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 Mail-parameters",
        "MAIL FROM:<a@b>{}",
        ["", " SIZE=1", " SIZE=1 BODY=7BIT", " XYZ"],
        ["SIZE=1", "\tSIZE=1", " SIZE=1,BODY=7BIT", " SIZE=1\tBODY=7BIT", " ="],
    ),
    production(
        "5321 §4.1.2 Rcpt-parameters",
        "RCPT TO:<a@b>{}",
        ["", " XYZ=1", " XYZ=1 NOTIFY=NEVER", " XYZ"],
        ["XYZ=1", "\tXYZ=1", " XYZ=1;ABC=2", " XYZ=1\tABC=2", " ="],
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 esmtp-param",
        "MAIL FROM:<> {}",
        ["XYZ", "XYZ=1"],
        ["=", "=1", "XYZ=", "XYZ=1=2", "XYZ==", "XYZ:1"],
    ),
    production(
        "5321 §4.1.2 esmtp-keyword",
        "MAIL FROM:<> {}=1",
        ["X", "9", "X-", "X--Y9", "A" * 70],
        ["-X", "X_Y", "X.Y", "X*", "\x01"],
        lambda text: Mail(None, {text: "1"}),
    ),
    production(
        "5321 §4.1.2 esmtp-value",
        "MAIL FROM:<> XYZ={}",
        ["1", *VALUE, VALUE],
        ["", "a=b", "=", "\x1f", "\x7f", "a\tb"],
        lambda text: Mail(None, {"XYZ": text}),
    ),
    production(
        "5321 §4.1.2 Domain",
        DOMAIN,
        ["b", "b.c", "B.Example.ORG", "1.2.3"],
        ["", ".", "b.", ".b", "b..c", "b c", "b,c"],
        _domain,
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 sub-domain",
        DOMAIN,
        ["b", "b1", "1", "b-1", "xn--bcher-kva", "x" * 63],
        ["-", "-b", "b-", "x" * 64],  # RFC 1035 §2.3.4 has the last
        _domain,
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 Let-dig", DOMAIN, "azAZ09", ["-", "_", "*", "/", "\x7f"], _domain, before=MAIL
    ),
    production(
        "5321 §4.1.2 Ldh-str",
        "RCPT TO:<a@b{}>",
        ["c", "-c", "--9", "c-c"],
        ["-", "c-", "_c", "/c"],
        lambda text: Rcpt(f"a@b{text}"),
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 address-literal",
        DOMAIN,
        ["[192.0.2.1]", "[IPv6:2001:db8::1]", "[x25:31103]"],
        ["[]", "[192.0.2.1", "192.0.2.1]", "[[192.0.2.1]]", "[host.example]", "[ 192.0.2.1 ]"],
        _domain,
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 Mailbox",
        "RCPT TO:<{}>",
        ["a@b", '"a b"@c', "a@[192.0.2.1]"],
        ["a", "@", "a@", "@b", "a@b@c", "a @b", "a@ b"],
        Rcpt,
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 Local-part",
        LOCAL,
        ["a", "a.b", '"a b"', '""', '"a@b"'],
        ["", '"a"b', 'a"b"', '"a"."b"', "a b"],
        _local,
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 Dot-string",
        LOCAL,
        ["a", "a.b", "a.b.c"],
        [".", ".a", "a.", "a..b"],
        _local,
        before=MAIL,
    ),
    production("5321 §4.1.2 Atom", LOCAL, [ATEXT, *ATEXT], ["", *NO_ATEXT], _local, before=MAIL),
    production(
        "5321 §4.1.2 Quoted-string",
        LOCAL,
        ['""', '" "', '"a b"'],
        ['"', '"a', 'a"', '"a""', "'a b'"],
        _local,
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 QcontentSMTP",
        'RCPT TO:<"{}"@b>',
        ["a", "\\a", "a\\b", "\\\\"],
        ['"', "\\", "a\\", "\x01", "\x7f"],
        lambda text: Rcpt(f'"{text}"@b'),
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 qtextSMTP",
        'RCPT TO:<"{}"@b>',
        [*QTEXT, QTEXT],
        ['"', "\\", "\x1f", "\x7f", "\t"],
        lambda text: Rcpt(f'"{text}"@b'),
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 quoted-pairSMTP",
        'RCPT TO:<"\\{}"@b>',
        PRINTABLE,
        ["", "\x1f", "\x7f", "\t"],
        lambda text: Rcpt(f'"\\{text}"@b'),
        before=MAIL,
    ),
    production(
        "5321 §4.1.2 String",
        "VRFY {}",
        ["jo", ATEXT, '"jo bloggs"', '"a\\"b"'],
        ["", "\x01", "jo\x7f", '"\t"'],
        Vrfy,
    ),
    # The address literals
    production(
        "5321 §4.1.3 IPv4-address-literal",
        LITERAL,
        ["192.0.2.1", "0.0.0.0", "255.255.255.255", "123.255.37.2"],
        ["192.0.2", "192.0.2.1.1", "192.0.2.", ".192.0.2.1", "192,0,2,1", "192.0.2.1/32"],
        _literal,
        before=MAIL,
    ),
    production(
        "5321 §4.1.3 Snum",
        "RCPT TO:<a@[192.0.2.{}]>",
        ["0", "9", "00", "09", "99", "000", "007", "199", "249", "250", "255"],
        ["", "256", "260", "300", "999", "0000", "0001", "-1", "+1", "1x", "0x1"],
        lambda text: Rcpt(f"a@[192.0.2.{text}]"),
        before=MAIL,
    ),
    production(
        "5321 §4.1.3 IPv6-address-literal",
        LITERAL,
        ["IPv6:::1", "ipv6:::1", "IPV6:2001:db8::1"],
        ["IPv6", "IPv6:", "IPv6::", "IPv6: ::1", "IPv6:::g", "IPv6:192.0.2.1", "IPv6:host"],
        _literal,
        before=MAIL,
    ),
    production(
        "5321 §4.1.3 IPv6-addr",
        IPV6,
        ["1:2:3:4:5:6:7:8", "1::8", "1:2:3:4:5:6:192.0.2.1", "1::192.0.2.1"],
        ["", ":", ":::", "1", "1:2", "192.0.2.1", "1::2::3", "fe80::1%eth0", "::1/128"],
        _ipv6,
        before=MAIL,
    ),
    production(
        "5321 §4.1.3 IPv6-hex",
        "RCPT TO:<a@[IPv6:{}::]>",
        ["0", "9", "a", "f", "A", "F", "abCD", "0000", "ffff"],
        ["00000", "12345", "g", "G", "-1", "1x"],
        lambda text: Rcpt(f"a@[IPv6:{text}::]"),
        before=MAIL,
    ),
    production(
        "5321 §4.1.3 IPv6-full",
        IPV6,
        ["1:2:3:4:5:6:7:8", "2001:db8:0:0:0:0:0:1"],
        ["1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:", ":2:3:4:5:6:7:8"],
        _ipv6,
        before=MAIL,
    ),
    production(
        "5321 §4.1.3 IPv6-comp",
        IPV6,
        ["::", "::1", "1::", "1:2:3::4:5:6", "1:2:3:4:5:6::", "::1:2:3:4:5:6", "1::2:3:4:5:6"],
        ["1:2:3:4:5:6:7::", "::1:2:3:4:5:6:7", "1:2:3:4::5:6:7", "1:::2", "1::2:", ":1::2"],
        _ipv6,
        before=MAIL,
    ),
    production(
        "5321 §4.1.3 IPv6v4-full",
        IPV6,
        ["1:2:3:4:5:6:192.0.2.1", "0:0:0:0:0:ffff:255.255.255.255"],
        ["1:2:3:4:5:192.0.2.1", "1:2:3:4:5:6:7:192.0.2.1", "1:2:3:4:5:6:192.0.2.256"],
        _ipv6,
        before=MAIL,
    ),
    production(
        "5321 §4.1.3 IPv6v4-comp",
        IPV6,
        ["::192.0.2.1", "1::192.0.2.1", "1:2:3:4::192.0.2.1", "::1:2:3:4:192.0.2.1"],
        [
            "1:2:3:4:5::192.0.2.1",
            "::1:2:3:4:5:192.0.2.1",
            "192.0.2.1::",
            "::192.0.2",
            "::192.0.2.1:1",
        ],
        _ipv6,
        before=MAIL,
    ),
    production(
        "5321 §4.1.3 General-address-literal",
        LITERAL,
        ["x25:31103", "x:y:z", "a-b:c"],
        [":x", "x:", "x", "x y:z", "x: y"],
        _literal,
        before=MAIL,
    ),
    production(
        "5321 §4.1.3 Standardized-tag",
        "RCPT TO:<a@[{}:x]>",
        ["x", "x25", "x-25", "-x"],
        ["", "x-", "x_y", "x.y", "x/y"],
        lambda text: Rcpt(f"a@[{text}:x]"),
        before=MAIL,
    ),
    production(
        "5321 §4.1.3 dcontent",
        "RCPT TO:<a@[tag:{}]>",
        [*DCONTENT, DCONTENT],
        ["", " ", "[", "\\", "]", "\x7f", "\x01"],
        lambda text: Rcpt(f"a@[tag:{text}]"),
        before=MAIL,
    ),
]


@pytest.mark.parametrize(("template", "accepted", "refused", "make", "before"), PRODUCTIONS)
def test_production(
    template: str,
    accepted: tuple[str, ...],
    refused: tuple[str, ...],
    make: Make | None,
    before: bytes,
) -> None:
    """What fits is read, written again and read as the same; a client makes the same of it.

    What does not fit is refused with 500 or 501, and a client cannot make it.
    """
    for text in accepted:
        line = template.replace("{}", text).encode()
        command, _ = pulled(before, line)
        assert command is not None, line
        wire = command.serialize()
        again, _ = pulled(before, wire.removesuffix(b"\r\n"))
        assert again == command, line
        if make is not None:
            assert make(text) == command, line
    for text in refused:
        line = template.replace("{}", text).encode()
        command, refusal = pulled(before, line)
        assert command is None, line
        assert refusal is not None
        assert refusal.code in (500, 501), line
        if make is not None and template != "{}":
            with pytest.raises(LocalProtocolError):
                make(text)
