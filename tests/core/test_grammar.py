"""RFC 5321 §4.1.2 and §4.1.3: what is a mailbox, a path, a domain, an address literal."""

import pytest

from smtpproto import ForwardPath, GrammarError, LocalProtocolError, Mailbox, ReversePath
from smtpproto.core.grammar import is_address_literal
from smtpproto.core.path import as_domain

MAILBOXES = {
    b"a@b": (b"a", b"b"),
    b"a.b.c@d.e.f": (b"a.b.c", b"d.e.f"),
    b"!#$%&'*+-/=?^_`{|}~@x": (b"!#$%&'*+-/=?^_`{|}~", b"x"),
    b'"a"@b': (b"a", b"b"),
    b'"a b"@c': (b"a b", b"c"),
    b'"a\\ b"@c': (b"a b", b"c"),
    b'"a\\"b"@c': (b'a"b', b"c"),
    b'"a\\\\b"@c': (b"a\\b", b"c"),
    b'"a@b"@c': (b"a@b", b"c"),
    b'"<>"@c': (b"<>", b"c"),
    b'""@c': (b"", b"c"),
    b'".a..b."@c': (b".a..b.", b"c"),
    b'"\\a\\b"@c': (b"ab", b"c"),
    b"a@1.2.3": (b"a", b"1.2.3"),
    b"a@x--y.z": (b"a", b"x--y.z"),
    b"a@" + b"x" * 63: (b"a", b"x" * 63),
    b"a@[127.0.0.1]": (b"a", b"[127.0.0.1]"),
    b"a@[IPv6:::1]": (b"a", b"[IPv6:::1]"),
    b"v%ext@our.dom": (b"v%ext", b"our.dom"),
    b"ext!v@our.dom": (b"ext!v", b"our.dom"),
    b"${run{x}}@y": (b"${run{x}}", b"y"),
}
NO_MAILBOXES = [
    b"",
    b"a",
    b"@",
    b"a@",
    b"@b",
    b"a@b@c",
    b".a@b",
    b"a.@b",
    b"a..b@c",
    b"a b@c",
    b'"a@b',
    b'a"@b',
    b'"a"b@c',
    b'"a"."b"@c',
    b'"\x01"@b',
    b'"\x7f"@b',
    b'"a\\"@b',
    b'"\xe9"@b',
    b"\xe9@b",
    b"a@\xe9",
    b"a@b.",
    b"a@.b",
    b"a@b..c",
    b"a@-b",
    b"a@b-",
    b"a@b_c",
    b"a@b c",
    b"a@" + b"x" * 64,
    b"a@[",
    b"a@[]",
    b"a@[1.2.3]",
    b"a@[1.2.3.4",
    b"a@[1.2.3.4]x",
    b"a@[ 1.2.3.4]",
    b"a@[1.2.3.4.5]",
    b"a@[256.1.1.1]",
    b"a@b\r\n",
    b"a@b\n",
    b"a\n@b",
    b"a\0@b",
    b"<a@b>",
    b"a@b>",
    b"@x:a@b",
    b"a@b> X=",
    b"a@" + b".".join([b"x" * 63] * 4),
    b"x" * 253 + b"@y",
    b"../../etc/passwd@x",
]


@pytest.mark.rfc("5321 §4.1.2 Mailbox")
@pytest.mark.parametrize("text", MAILBOXES)
def test_mailboxes(text: bytes) -> None:
    parts = MAILBOXES[text]
    mailbox = Mailbox.parse(text)
    assert (mailbox.local_part, mailbox.domain) == parts
    assert mailbox == Mailbox(*parts)
    assert Mailbox.parse(mailbox.serialize()) == mailbox
    assert len(mailbox.serialize()) <= len(text)


@pytest.mark.rfc("5321 §4.1.2 Mailbox", "5321 §4.1.1 local-part-fits-the-grammar")
@pytest.mark.parametrize("text", NO_MAILBOXES)
def test_no_mailboxes(text: bytes) -> None:
    with pytest.raises(GrammarError) as caught:
        Mailbox.parse(text)
    assert (caught.value.code, caught.value.status) == (501, "5.1.3")
    with pytest.raises(LocalProtocolError):
        Mailbox.of(text)


@pytest.mark.rfc("5321 §4.1.3 IPv4-address-literal", "5321 §4.5.3.1.3 path-has-256-octets-at-most")
@pytest.mark.parametrize("path", [b"<a@[1.2.3]>", b"<" + b"x" * 251 + b"@y.z>"])
def test_a_path_of_the_right_form_may_yet_be_bad(path: bytes) -> None:
    for read, status in ((ReversePath.read, "5.1.7"), (ForwardPath.read, "5.1.3")):
        with pytest.raises(GrammarError) as caught:
            read(path)
        assert (caught.value.code, caught.value.status) == (501, status)  # RFC 3463 §3.2


@pytest.mark.rfc("5321 §4.1.2 quoted-forms-are-equal", "5321 §4.1.2 least-quoting-is-written")
def test_quoted_and_unquoted_forms_are_equal() -> None:
    forms = [b"ab@c.D", b'"ab"@c.d', b'"\\a\\b"@C.d', b'"a\\b"@c.d']
    assert {Mailbox.parse(form) for form in forms} == {Mailbox("ab", "c.d")}
    assert Mailbox.parse(b'"ab"@c.d').serialize() == b"ab@c.d"


@pytest.mark.rfc("5321 §2.4 local-parts-differ-by-case", "5321 §2.4 domains-do-not-differ-by-case")
@pytest.mark.rfc("5321 §4.1.2 local-part-may-be-case-sensitive")
def test_case_matters_in_local_parts_and_not_in_domains() -> None:
    assert Mailbox("a", "b.example") == Mailbox("a", "B.EXAMPLE")
    assert Mailbox("a", "b.example") != Mailbox("A", "b.example")
    assert str(Mailbox("a", "B.Example")) == "a@B.Example"


def test_not_our_domain_is_not_our_domain() -> None:
    assert Mailbox("a", "our.dom") != Mailbox("a", "notour.dom")


IPV6 = [
    "::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:1.2.3.4", "::1.2.3.4", "1::1.2.3.4",
    "1:2:3:4::1.2.3.4", "::1:2:3:4:1.2.3.4", "1:2:3:4:5:6::", "::1:2:3:4:5:6", "1:2:3::4:5:6",
    "ABCD:ef01::", "0000:0:00:000:1:2:3:4", "fe80::1",
]  # fmt: skip
NO_IPV6 = [
    "",
    ":",
    ":::",
    "1",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7::",
    "::1:2:3:4:5:6:7",
    "1::2::3",
    "12345::",
    "g::",
    "1:2:3:4:5:6:7:1.2.3.4",
    "1.2.3.4",
    "1.2.3.4::",
    "::1.2.3",
    "::1.2.3.256",
    "1:2:3:4:5::1.2.3.4",
    "::1.2.3.4:5",
    ":1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:",
    "fe80::1%eth0",
    "::1/64",
    " ::1",
    "::٣",
]


@pytest.mark.rfc("5321 §4.1.3 IPv6-addr")
@pytest.mark.parametrize("text", IPV6)
@pytest.mark.parametrize("tag", ["IPv6:", "ipv6:", "IPV6:"])
def test_ipv6_literals(text: str, tag: str) -> None:
    assert is_address_literal((tag + text).encode())
    assert as_domain(f"[{tag}{text}]") == f"[{tag}{text}]".encode()


@pytest.mark.rfc("5321 §4.1.3 IPv6-addr")
@pytest.mark.parametrize("text", NO_IPV6)
def test_no_ipv6_literals(text: str) -> None:
    assert not is_address_literal(f"IPv6:{text}".encode())


@pytest.mark.rfc("5321 §4.1.3 IPv4-address-literal", "5321 §4.1.3 General-address-literal")
@pytest.mark.parametrize(
    ("inside", "fits"),
    [
        ("0.0.0.0", True),
        ("255.255.255.255", True),
        ("001.02.3.04", True),
        ("1.2.3.0400", False),
        ("1.2.3.999", False),
        ("256.1.1.1", False),
        ("1.2.3.-4", False),
        ("x25:whatever", True),
        ("a-b:c", True),
        ("a-:c", False),
        ("a:", False),
        (":a", False),
        ("plain", False),
    ],
)
def test_ipv4_and_general_literals(inside: str, fits: bool) -> None:
    assert is_address_literal(inside.encode()) is fits
    literal = f"[{inside}]"
    if fits:
        assert as_domain(literal) == literal.encode()
    else:
        with pytest.raises(LocalProtocolError):
            as_domain(literal)


@pytest.mark.rfc(
    "5321 §4.1.1.3 route-is-recognized",
    "5321 §4.1.1.3 route-is-dropped",
    "5321 §4.1.2 route-is-read-and-ignored",
)
@pytest.mark.parametrize("route", [b"@x:", b"@x.example,@y:", b"@a,@b,@c:"])
def test_source_routes_are_read_and_dropped(route: bytes) -> None:
    octets = b"<" + route + b"v@ext>"
    assert ForwardPath.read(octets) == (ForwardPath("v@ext"), len(octets))
    assert ReversePath.read(octets)[0].serialize() == b"<v@ext>"


@pytest.mark.rfc("5321 §4.1.2 A-d-l")
@pytest.mark.parametrize(
    "octets", [b"<@x>", b"<@x:>", b"<@:a@b>", b"<@x,:a@b>", b"<@x,y:a@b>", b"<x:a@b>"]
)
def test_broken_source_routes(octets: bytes) -> None:
    with pytest.raises(GrammarError) as caught:
        ForwardPath.read(octets)
    assert (caught.value.code, caught.value.status) == (501, "5.1.3")


@pytest.mark.rfc("5321 §4.5.5 null-path-is-written-and-read")
def test_the_null_path() -> None:
    path, end = ReversePath.read(b"<> X", 0)
    assert path == ReversePath(None) == ReversePath.of("") == ReversePath.of(None)
    assert (path.serialize(), end, str(path)) == (b"<>", 2, "<>")
    with pytest.raises(GrammarError):
        ForwardPath.read(b"<>")
    with pytest.raises(LocalProtocolError):
        ForwardPath.of("")


@pytest.mark.rfc("5321 §4.5.1 bare-postmaster-is-a-recipient")
@pytest.mark.parametrize("word", ["Postmaster", "postmaster", "POSTMASTER"])
def test_the_bare_postmaster_is_a_recipient_and_no_sender(word: str) -> None:
    path, end = ForwardPath.read(f"<{word}>".encode())
    assert path == ForwardPath.of(word) == ForwardPath.of(ForwardPath.of(word))
    assert end == len(word) + 2
    assert str(path) == "<Postmaster>"
    with pytest.raises(LocalProtocolError):
        ReversePath(path.mailbox)
    with pytest.raises(LocalProtocolError):
        ReversePath.of(word)
    with pytest.raises(LocalProtocolError):
        Mailbox("someone", "")


@pytest.mark.rfc("5321 §4.5.3.1.3 path-has-256-octets-at-most")
def test_a_path_has_256_octets_at_most() -> None:
    longest = Mailbox("x" * 250, "y.z")
    assert len(ForwardPath(longest).serialize()) == 256
    assert ForwardPath.read(ForwardPath(longest).serialize())[0] == ForwardPath(longest)
    with pytest.raises(LocalProtocolError):
        Mailbox("x" * 251, "y.z")
    with pytest.raises(LocalProtocolError):  # quoting counts
        Mailbox('"' * 126, "y.z")


@pytest.mark.parametrize(
    "text",
    [
        "a\rb@c",
        "a\nb@c",
        "a\0b@c",
        "a\x7fb@c",
        "a\x1bb@c",
        "a@b\r\nRCPT TO:<x@y>",
        "\ud800@c",
    ],
)
def test_injection(text: str) -> None:
    local, _, domain = text.rpartition("@")
    with pytest.raises(LocalProtocolError):
        Mailbox(local, domain)
    with pytest.raises(LocalProtocolError):
        Mailbox.of(text)


def test_brackets_break_out_nowhere() -> None:
    with pytest.raises(LocalProtocolError):
        ForwardPath.of("a@b> NOTIFY=NEVER, c@d")
    quoted = ForwardPath(Mailbox("a@b> NOTIFY=NEVER, c", "d"))
    assert quoted.serialize() == b'<"a@b> NOTIFY=NEVER, c"@d>'
    assert ForwardPath.read(quoted.serialize()) == (quoted, len(quoted.serialize()))
