"""Domains, mailboxes and the two paths (RFC 5321 §4.1.2-3, RFC 6531 §3.3), and their spellings."""

from __future__ import annotations

from hypothesis import strategies as st

from smtpproto.core.path import ForwardPath, Mailbox, ReversePath

from .words import ATEXT, LET_DIG, PRINTABLE, utf8_texts

__all__ = [
    "address_literals",
    "domains",
    "forward_paths",
    "local_parts",
    "mailbox_spellings",
    "mailboxes",
    "path_spellings",
    "reverse_paths",
]

_labels = st.one_of(
    st.text(LET_DIG, min_size=1, max_size=8),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(LET_DIG),
        st.text(LET_DIG + "-", max_size=10),
        st.sampled_from(LET_DIG),
    ),
)
# What stands between the ends of a label may be a hyphen; U-labels have few octets more than 63.
_u_labels = st.builds("{}{}".format, utf8_texts(4), st.one_of(st.just(""), _labels))


def domains(utf8: bool = False) -> st.SearchStrategy[str]:
    """Domains (RFC 5321 §4.1.2), of one to four labels; with `utf8`, U-labels among them."""
    labels = st.one_of(_labels, _u_labels) if utf8 else _labels
    return st.lists(labels, min_size=1, max_size=4).map(".".join)


def address_literals() -> st.SearchStrategy[str]:
    """Address literals with their brackets (§4.1.3): IPv4, IPv6 in its many forms, general."""
    ipv4 = st.ip_addresses(v=4).map(str)
    ipv6 = st.ip_addresses(v=6)
    mixed = st.builds("::ffff:{}".format, ipv4)
    # "::" stands for two groups at least, which ipaddress heeds, too.
    forms = st.one_of(
        ipv6.map(lambda a: a.exploded), ipv6.map(str), mixed, st.sampled_from(["::", "::1", "1::"])
    )
    tagged = st.builds("{}:{}".format, st.sampled_from(["IPv6", "IPv6", "ipv6"]), forms)
    general = st.builds(
        "{}:{}".format,
        st.text(LET_DIG, min_size=1, max_size=6).filter(lambda tag: tag.upper() != "IPV6"),
        st.text(LET_DIG + ".:-@<>", min_size=1, max_size=12),
    )
    return st.one_of(ipv4, tagged, general).map("[{}]".format)


def local_parts(utf8: bool = False) -> st.SearchStrategy[bytes]:
    """Local parts as they are meant, unquoted: some can only be written in quotes."""
    dotted = st.lists(st.text(ATEXT, min_size=1, max_size=8), min_size=1, max_size=3)
    ascii_ = st.one_of(dotted.map(".".join), st.text(PRINTABLE, max_size=12))
    either = st.one_of(ascii_, st.builds("{}{}".format, ascii_, utf8_texts())) if utf8 else ascii_
    return either.map(str.encode)


def mailboxes(utf8: bool = False) -> st.SearchStrategy[Mailbox]:
    """Mailboxes at domains and address literals; with `utf8`, such that need SMTPUTF8 as well."""
    return st.builds(Mailbox, local_parts(utf8), st.one_of(domains(utf8), address_literals()))


def reverse_paths(utf8: bool = False) -> st.SearchStrategy[ReversePath]:
    """Reverse-paths, the null path among them."""
    return st.builds(ReversePath, st.one_of(st.none(), mailboxes(utf8)))


def forward_paths(utf8: bool = False) -> st.SearchStrategy[ForwardPath]:
    """Forward-paths, the bare postmaster among them."""
    postmaster = st.sampled_from(["Postmaster", "postmaster", "POSTMASTER"])
    return st.one_of(st.builds(ForwardPath, mailboxes(utf8)), postmaster.map(ForwardPath.of))


_routes = st.lists(domains(), max_size=2)


@st.composite
def mailbox_spellings(draw: st.DrawFn, mailbox: Mailbox) -> bytes:
    """Ways to write a mailbox that read back equal: needless quotes and backslashes (§4.1.2)."""
    plain = mailbox.serialize()
    if not mailbox.domain or draw(st.booleans()):
        return plain
    local = mailbox.local_part.decode()
    needless = [draw(st.booleans()) for _ in local]
    quoted = "".join(
        "\\" + c if c in '"\\' or (each and c.isascii()) else c
        for c, each in zip(local, needless, strict=True)
    )
    return b'"%b"@%b' % (quoted.encode(), mailbox.domain)


@st.composite
def path_spellings(draw: st.DrawFn, path: ReversePath | ForwardPath) -> bytes:
    """Ways to write a path, with its brackets, that read back equal.

    As `mailbox_spellings`, and with source routes (§4.1.2, appendix C), which are read and dropped.
    """
    if path.mailbox is None or not path.mailbox.domain:
        return path.serialize()
    route = draw(_routes)
    before = ",".join(f"@{domain}" for domain in route) + ":" if route else ""
    return b"<%b%b>" % (before.encode(), draw(mailbox_spellings(path.mailbox)))
