"""The transport table: which rule fits, and that the first one does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox, ReversePath
from smtpproto.core.reply import Reply
from smtpproto.relay.routing.access import Access
from smtpproto.relay.routing.table import RouteTable, Rule, no_routes
from smtpproto.relay.routing.transport import Discard, Here, Host, NextHop, Refuse

pytestmark = pytest.mark.anyio

NOBODY = ReversePath(None)


async def fits(
    recipient: str,
    *,
    recipients: Sequence[str] = (),
    senders: Sequence[str] = (),
    sender: str | None = "bob@far.example",
    separator: str = "+",
) -> bool:
    table = RouteTable([Rule(Here(), recipients=recipients, senders=senders)], separator=separator)
    return await table.find(Mailbox.parse(recipient), ReversePath(sender)) is not None


@pytest.mark.parametrize(
    ("pattern", "recipient", "fit"),
    [
        ("ann@our.dom", "ann@our.dom", True),
        ("Ann@OUR.dom", "aNN@our.DOM", True),
        ("ann@our.dom", "ann+fair@our.dom", True),
        ("ann+fair@our.dom", "ann@our.dom", False),
        ("ann+fair@our.dom", "ann+fair@our.dom", True),
        ("ann@our.dom", "joann@our.dom", False),
        ("ann@our.dom", "ann@sub.our.dom", False),
        ('"+a"@our.dom', "+a@our.dom", True),
        ("our.dom", "ann@our.dom", True),
        ("our.dom.", "ann@our.dom", True),
        ("our.dom", "ann@sub.our.dom", False),
        ("our.dom", "ann@your.dom", False),
        (".our.dom", "ann@our.dom", False),
        (".our.dom", "ann@sub.our.dom", True),
        (".our.dom", "ann@a.b.our.dom", True),
        (".our.dom", "ann@sub.your.dom", False),
        (".dom", "ann@our.dom", True),
        ("[192.0.2.1]", "ann@[192.0.2.1]", True),
        ("bücher.example", "ann@bücher.example", True),
    ],
)
async def test_what_fits_by_its_recipient(pattern: str, recipient: str, fit: bool) -> None:
    assert await fits(recipient, recipients=[pattern]) is fit


async def test_without_a_separator_there_are_no_tags() -> None:
    assert not await fits("ann+a@our.dom", recipients=["ann@our.dom"], separator="")


@pytest.mark.parametrize(
    ("pattern", "sender", "fit"),
    [
        ("ann@our.dom", "ann@our.dom", True),
        ("our.dom", "ann@our.dom", True),
        (".dom", "ann@our.dom", True),
        ("our.dom", "ann@far.example", False),
        ("our.dom", None, False),
        ("<>", None, True),
        ("<>", "ann@our.dom", False),
    ],
)
async def test_what_fits_by_its_sender(pattern: str, sender: str | None, fit: bool) -> None:
    assert await fits("v@ext.example", senders=[pattern], sender=sender) is fit
    both = ["ext.example", "other.example"]
    assert await fits("v@ext.example", recipients=both, senders=[pattern], sender=sender) is fit
    assert not await fits("v@x.example", recipients=both, senders=[pattern], sender=sender)


async def test_a_rule_for_nobody_in_particular_is_for_all() -> None:
    assert await fits("v@ext.example")
    assert await fits("v@ext.example", sender=None)
    assert await RouteTable().find(Mailbox.parse("v@ext.example"), NOBODY) is None
    assert await no_routes.find(Mailbox.parse("v@ext.example"), NOBODY) is None


@pytest.mark.parametrize(
    "pattern", ["", ".", "a@", "@our.dom", "a b", "*", "our..dom", ".2.1]", "<>"]
)
def test_what_is_no_address_or_domain_is_not_taken(pattern: str) -> None:
    with pytest.raises(LocalProtocolError):
        Rule(Here(), recipients=[pattern])
    if pattern != "<>":
        with pytest.raises(LocalProtocolError):
            Rule(Here(), senders=[pattern])


def test_a_text_is_no_list_of_texts() -> None:
    with pytest.raises(LocalProtocolError, match="a list"):
        Rule(Here(), recipients="our.dom")


NAMES = ["u", "v", "u+t"]
DOMAINS = ["a.b.c", "b.c", "x.b.c", "c", "q.z"]
PATTERNS = st.sampled_from(DOMAINS).flatmap(
    lambda domain: st.sampled_from([domain, f".{domain}", *(f"{n}@{domain}" for n in NAMES)])
)
SENDERS = PATTERNS | st.just("<>")
MAILBOXES = st.builds(
    lambda name, domain: Mailbox.parse(f"{name}@{domain}"),
    st.sampled_from(["u", "v", "U", "u+t", "v+u", "w"]),
    st.sampled_from(DOMAINS),
)


def plainly(pattern: str, mailbox: Mailbox | None) -> bool:
    """What a pattern is said to mean, as it is said."""
    if mailbox is None:
        return pattern == "<>"
    local, domain = mailbox.local_part.decode().lower(), mailbox.domain.decode()
    if pattern.startswith("."):
        return domain.endswith(pattern)
    if "@" in pattern:
        return pattern in {f"{local}@{domain}", f"{local.partition('+')[0]}@{domain}"}
    return pattern == domain


@given(
    st.lists(st.tuples(st.lists(PATTERNS, max_size=2), st.lists(SENDERS, max_size=2))),
    MAILBOXES,
    st.none() | MAILBOXES,
)
async def test_the_first_rule_that_fits_decides(
    patterns: list[tuple[list[str], list[str]]], mailbox: Mailbox, sender: Mailbox | None
) -> None:
    rules = [
        Rule(Discard(str(number)), recipients=recipients, senders=senders)
        for number, (recipients, senders) in enumerate(patterns)
    ]
    first = next(
        (
            rule
            for rule in rules
            if (not rule.recipients or any(plainly(p, mailbox) for p in rule.recipients))
            and (not rule.senders or any(plainly(p, sender) for p in rule.senders))
        ),
        None,
    )
    assert await RouteTable(rules).find(mailbox, ReversePath(sender)) == first


# What a rule says


@pytest.mark.parametrize("code", [250, 354, 421])
def test_a_refusal_refuses_and_ends_no_session(code: int) -> None:
    with pytest.raises(LocalProtocolError):
        Refuse(Reply(code, None, "no"))
    assert str(Refuse(Reply(550, "5.7.1", "no"))) == "refused: 550 5.7.1 no"


@pytest.mark.rfc("2033 §5 not-on-port-25")
def test_lmtp_is_not_for_port_25() -> None:
    with pytest.raises(LocalProtocolError, match="RFC 2033"):
        Host("store.example", lmtp=True)
    assert Host("localhost", lmtp=True, path="/run/lmtp").where == "localhost:/run/lmtp"


def test_two_accesses_to_one_host_are_two_next_hops() -> None:
    ann, bob = (
        NextHop.fixed(Host("smart.example", port=587, access=Access(login=(name, "secret"))))
        for name in ("ann", "bob")
    )
    assert ann.name != bob.name
    assert str(ann) == "smtp:smart.example:587"
    assert "secret" not in repr(ann)
