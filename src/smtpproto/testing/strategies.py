"""Hypothesis strategies for all that passes between the two ends of SMTP.

Hypothesis is not installed with smtpproto: `pip install hypothesis`.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Mapping, Sequence
from functools import reduce

try:
    from hypothesis import strategies as st
except ImportError as error:  # pragma: no cover
    raise ImportError("smtpproto.testing.strategies needs hypothesis: pip install it") from error

from smtpproto.core.command import (
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Data,
    Ehlo,
    Expn,
    Helo,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Vrfy,
)
from smtpproto.core.path import ForwardPath, Mailbox, ReversePath
from smtpproto.core.reply import Reply
from smtpproto.core.status import EnhancedStatus
from smtpproto.extensions.eightbitmime import BODY
from smtpproto.extensions.size import SIZE_OCTETS

__all__ = [
    "address_literals",
    "auth_commands",
    "auth_responses",
    "base64_octets",
    "chunk_octets",
    "clean_content",
    "commands",
    "cuttings",
    "dialogue_octets",
    "domains",
    "enhanced_statuses",
    "forward_paths",
    "hostile_content",
    "local_parts",
    "mail_commands",
    "mailboxes",
    "parameters",
    "rcpt_commands",
    "replies",
    "reverse_paths",
    "standard_mail_parameters",
    "texts",
]

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LET_DIG = _LETTERS + "0123456789"
_ATEXT = _LET_DIG + "!#$%&'*+-/=?^_`{|}~"
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))

_labels = st.one_of(
    st.text(_LET_DIG, min_size=1, max_size=8),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(_LET_DIG),
        st.text(_LET_DIG + "-", max_size=10),
        st.sampled_from(_LET_DIG),
    ),
)


def domains() -> st.SearchStrategy[str]:
    """Domains (RFC 5321 §4.1.2), of one to four labels."""
    return st.lists(_labels, min_size=1, max_size=4).map(".".join)


def address_literals() -> st.SearchStrategy[str]:
    """Address literals with their brackets (§4.1.3): IPv4, IPv6 in its many forms, general."""
    ipv4 = st.ip_addresses(v=4).map(str)
    ipv6 = st.ip_addresses(v=6).map(ipaddress.IPv6Address)
    mixed = st.builds("::ffff:{}".format, ipv4)
    general = st.builds(
        "{}:{}".format,
        st.text(_LET_DIG, min_size=1, max_size=6).filter(lambda tag: tag.upper() != "IPV6"),
        st.text(_LET_DIG + ".:-@<>", min_size=1, max_size=12),
    )
    # ipaddress may write "::" for a single group, which §4.1.3 forbids; exploded is always right.
    tagged = st.one_of(ipv6.map(lambda a: a.exploded), mixed).map("IPv6:{}".format)
    return st.one_of(ipv4, tagged, general).map("[{}]".format)


def local_parts() -> st.SearchStrategy[bytes]:
    """Local parts as they are meant, unquoted: some can only be written in quotes."""
    dotted = st.lists(st.text(_ATEXT, min_size=1, max_size=8), min_size=1, max_size=3)
    return st.one_of(dotted.map(".".join), st.text(_PRINTABLE, max_size=12)).map(str.encode)


def mailboxes() -> st.SearchStrategy[Mailbox]:
    """Mailboxes at domains and address literals."""
    return st.builds(Mailbox, local_parts(), st.one_of(domains(), address_literals()))


def reverse_paths() -> st.SearchStrategy[ReversePath]:
    """Reverse-paths, the null path among them."""
    return st.builds(ReversePath, st.one_of(st.none(), mailboxes()))


def forward_paths() -> st.SearchStrategy[ForwardPath]:
    """Forward-paths, the bare postmaster among them."""
    postmaster = st.sampled_from(["Postmaster", "postmaster", "POSTMASTER"])
    return st.one_of(st.builds(ForwardPath, mailboxes()), postmaster.map(ForwardPath.of))


def parameters() -> st.SearchStrategy[Mapping[str, bytes | None]]:
    """Any ESMTP parameters that are well-formed, whoever knows them."""
    keywords = st.builds(
        "{}{}".format, st.sampled_from(_LET_DIG), st.text(_LET_DIG + "-", max_size=6)
    ).map(str.upper)
    values = st.text(_PRINTABLE.replace("=", "").replace(" ", ""), min_size=1, max_size=12)
    return st.dictionaries(keywords, st.one_of(st.none(), values.map(str.encode)), max_size=4)


def standard_mail_parameters() -> st.SearchStrategy[Mapping[str, bytes | None]]:
    """Parameters that the extensions in STANDARD define for MAIL, with values they take."""
    size = st.integers(0, 10**6).map(SIZE_OCTETS)
    body = st.sampled_from(["7BIT", "8BITMIME"]).map(BODY)
    none: Mapping[str, bytes | None] = {}
    several = st.lists(st.one_of(size, body), max_size=2)
    return several.map(lambda found: reduce(lambda a, b: {**a, **b}, found, none))


def texts() -> st.SearchStrategy[str]:
    """Arguments of NOOP and HELP; VRFY and EXPN take those that are not empty."""
    return st.text(_PRINTABLE, max_size=20).map(str.strip)


def base64_octets() -> st.SearchStrategy[bytes | None]:
    """What is sent as base64 within AUTH; None where nothing is."""
    return st.one_of(st.none(), st.binary(max_size=60))


def mail_commands(standard: bool = False) -> st.SearchStrategy[Mail]:
    """MAIL commands, with any parameters or with `standard` ones."""
    return st.builds(
        Mail, reverse_paths(), standard_mail_parameters() if standard else parameters()
    )


def rcpt_commands(standard: bool = False) -> st.SearchStrategy[Rcpt]:
    """RCPT commands, with any parameters or with `standard` ones, of which there are none."""
    return st.builds(Rcpt, forward_paths(), st.just({}) if standard else parameters())


def auth_commands() -> st.SearchStrategy[Auth]:
    """AUTH commands with made-up mechanisms."""
    names = st.text(_LETTERS + "0123456789-_", min_size=1, max_size=20)
    return st.builds(Auth, names, base64_octets())


def auth_responses() -> st.SearchStrategy[AuthResponse]:
    """Lines of the client's in an AUTH exchange, `*` among them."""
    return st.builds(AuthResponse, base64_octets())


def commands(standard: bool = False) -> st.SearchStrategy[Command]:
    """Every command there is but AuthResponse, which is no command outside AUTH.

    `standard`: with no more parameters than the extensions in STANDARD define.
    """
    names = st.one_of(domains(), address_literals())
    some = texts().filter(bool)
    return st.one_of(
        st.builds(Ehlo, names),
        st.builds(Helo, names),
        mail_commands(standard),
        rcpt_commands(standard),
        st.sampled_from([Data(), Rset(), Quit(), StartTls()]),
        st.builds(Noop, texts()),
        st.builds(Help, texts()),
        st.builds(Vrfy, some),
        st.builds(Expn, some),
        auth_commands(),
    )


def enhanced_statuses(class_: int) -> st.SearchStrategy[EnhancedStatus]:
    """Enhanced statuses of one class: 2, 4 or 5."""
    return st.builds(EnhancedStatus, st.just(class_), st.integers(0, 999), st.integers(0, 999))


def replies(first_digits: Sequence[int] = (2, 3, 4, 5)) -> st.SearchStrategy[Reply]:
    """Replies of one to four lines; 421, which closes, only if drawn by chance."""

    def build(first: int) -> st.SearchStrategy[Reply]:
        statuses = st.none() if first == 3 else st.one_of(st.none(), enhanced_statuses(first))
        lines = st.lists(st.text(_PRINTABLE + "\t", max_size=40), min_size=1, max_size=4)
        rest = st.integers(0, 59)
        return st.builds(Reply, rest.map(lambda number: first * 100 + number), statuses, lines)

    return st.sampled_from(list(first_digits)).flatmap(build)


def clean_content() -> st.SearchStrategy[bytes]:
    """Message content with CRLF line ends alone, dots where they hurt, perhaps no last CRLF."""
    lines = st.one_of(
        st.sampled_from([b"", b".", b"..", b".x", b"x.", b"\0", b"\x80\xff"]),
        st.binary(max_size=20).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b"")),
    )
    ends = st.sampled_from([b"", b"\r\n"])
    return st.tuples(st.lists(lines, max_size=8).map(b"\r\n".join), ends).map(b"".join)


def chunk_octets() -> st.SearchStrategy[bytes]:
    """Message content as BDAT commands with their octets, the last among them or not."""

    def write(parts: Sequence[bytes], last: bool) -> bytes:
        ends = [*[False] * (len(parts) - 1), last]
        lines = [Bdat(len(p), end).serialize() for p, end in zip(parts, ends, strict=True)]
        return b"".join(itertools.chain(*zip(lines, parts, strict=True)))

    parts = st.lists(st.one_of(clean_content(), hostile_content()), min_size=1, max_size=4)
    return st.builds(write, parts, st.booleans())


def hostile_content() -> st.SearchStrategy[bytes]:
    """Octets that try to be an end of data: CR, LF and dots in all orders."""
    parts = st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"\0", b"x", b"\r\n.\r\n"])
    return st.lists(parts, max_size=16).map(b"".join)


def dialogue_octets() -> st.SearchStrategy[bytes]:
    """What a client sends in a session, mostly legal, with mutations: for a server to survive."""
    legal = commands(standard=True).map(lambda command: command.serialize())
    transaction = st.builds(
        b"%bRCPT TO:<b@example.net>\r\nDATA\r\n%b\r\n.\r\n".__mod__,
        st.tuples(
            mail_commands(True).map(Mail.serialize), st.one_of(clean_content(), hostile_content())
        ),
    )
    chunked = st.builds(
        b"%bRCPT TO:<b@example.net>\r\n%b".__mod__,
        st.tuples(mail_commands(True).map(Mail.serialize), chunk_octets()),
    )
    hello = st.just(b"EHLO client.example\r\n")
    noise = st.one_of(
        st.binary(max_size=30),
        hostile_content(),
        st.sampled_from(
            [
                b"\r\n",
                b"BDAT 3\r\n",
                b"BDAT\r\n",
                b"AUTH PLAIN\r\n",
                b"STARTTLS\r\n",
                b"x" * 600 + b"\r\n",
                b"*\r\n",
            ]
        ),
    )
    parts = st.lists(
        st.one_of(hello, transaction, transaction, chunked, chunk_octets(), legal, legal, noise),
        max_size=8,
    )
    first = st.sampled_from([b"EHLO client.example\r\n", b"EHLO client.example\r\n", b""])

    def mutate(octets: bytes, edits: Sequence[tuple[int, bytes]]) -> bytes:
        for at, what in edits:
            where = at % (len(octets) + 1)
            octets = octets[:where] + what + octets[where + 1 :]
        return octets

    edits = st.lists(st.tuples(st.integers(0, 10**4), st.binary(max_size=2)), max_size=2)
    joined = st.tuples(first, parts.map(b"".join)).map(b"".join)
    return st.builds(mutate, joined, edits)


def cuttings(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Ways to cut `data` into pieces, none of them empty."""
    points = st.sets(st.integers(1, max(len(data) - 1, 1)), max_size=12)

    def cut(at: set[int]) -> list[bytes]:
        edges = [0, *sorted(at), len(data)]
        found = [data[a:b] for a, b in itertools.pairwise(edges)]
        return [piece for piece in found if piece]

    each = st.just([data[at : at + 1] for at in range(len(data))])
    return st.one_of(points.map(cut), each)
