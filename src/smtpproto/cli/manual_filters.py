"""What each key in an entry of `[[filters]]` and `[[limits]]` means, in words, as `manual` has it.

The keys themselves are in `filters.COMMON`, `filters.USES` and `filters.LIMIT`; a test sees that
none is left out here, that every example is accepted, and that the defaults are the filters' own.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from .manual import Explained

__all__ = ["COMMON_MANUAL", "LIMIT_MANUAL", "USE_MANUAL", "Purpose"]

_NEEDED = "none: it has to be there"


@frozen
class Purpose:
    """What a filter is for, and what its own keys mean."""

    means: str
    keys: Mapping[str, Explained] = field(factory=dict[str, Explained])


def _does(otherwise: str, means: str) -> Explained:
    example = "refuse" if otherwise == "tag" else "tag"
    return Explained(means, f'does = "{example}"', default=f'"{otherwise}"')


COMMON_MANUAL: Mapping[str, Explained] = {
    "use": Explained(
        "Which filter it is; more of each is below.", 'use = "header"', default=_NEEDED
    ),
    "listeners": Explained(
        "At which listeners it is asked, one or several. Those that look at strangers (blocklist, "
        "names, greylist) are for `smtp` alone.",
        'use = "header"\nlisteners = ["smtp", "submission"]',
        default="`smtp`; of limits all of them",
    ),
}

USE_MANUAL: Mapping[str, Purpose] = {
    "networks": Purpose(
        "The client's address is one that you know. Asked when a client connects.",
        {
            "networks": Explained(
                "Which addresses those are; one or several.",
                'networks = ["192.0.2.0/24", "2001:db8::/32"]',
                default=_NEEDED,
            ),
            "does": _does(
                "accept",
                "What being there leads to: no filter below is asked (accept), it is written into "
                "the message (tag), or the client is sent away (refuse).",
            ),
        },
    ),
    "blocklist": Purpose(
        "The client's address, or the sender's domain, is in a list over the DNS (RFC 5782). Asked "
        "when a client connects, or at MAIL. `smtpproto config check --public` looks whether the "
        "list answers you.",
        {
            "zone": Explained("The list's domain.", 'zone = "bl.example.org"', default=_NEEDED),
            "of": Explained(
                "What is looked up: the client's address, or the sender's domain.",
                'of = "sender"',
                default='"address"',
            ),
            "codes": Explained(
                "Which of its answers count; one or several. What each means is at the list's own "
                "site.",
                'codes = ["127.0.0.2", "127.0.0.3"]',
                default="all in 127.0.0.0/8 but 127.255.255.x",
            ),
            "does": _does(
                "refuse",
                "What being listed leads to; accept is for a list of the good: no filter below is "
                "asked.",
            ),
        },
    ),
    "names": Purpose(
        "The name that a client gives, and the one that its address has. Asked at HELO. Who gives "
        "our own name is refused.",
        {
            "bare": Explained(
                "What a name without a dot leads to.", 'bare = "refuse"', default='"tag"'
            ),
            "nameless": Explained(
                "What an address leads to that has no name which leads back to it.",
                'nameless = "refuse"',
                default='"tag"',
            ),
        },
    ),
    "greylist": Purpose(
        "The first mail of a network from a sender to a recipient has to come twice (RFC 6647). "
        "Asked at RCPT.",
        {
            "delay": Explained(
                "After how long it is taken, at the earliest.", 'delay = "5 min"', default="1 min"
            ),
            "window": Explained(
                "Within which time it has to come again.", 'window = "2 d"', default="1 d"
            ),
            "known": Explained(
                "For how long a network that has come again stays known without mail.",
                'known = "60 d"',
                default="35 d",
            ),
        },
    ),
    "header": Purpose(
        "The header is one: one From, one Date that is a date, no line over 998 octets (RFC 5322). "
        "Asked when the content has come.",
        {"does": _does("refuse", "What a fault leads to.")},
    ),
    "rspamd": Purpose(
        "What rspamd thinks of the whole message; it needs the extra `rspamd`. Asked when the "
        "content has come. Where rspamd does not answer, `filters-fail` says what is done.",
        {
            "url": Explained(
                "Where its normal worker answers.",
                'url = "http://127.0.0.1:11333"',
                default=_NEEDED,
            ),
            "rejects": Explained(
                "What becomes of what it rejects: refused, or taken and held in the queue until "
                "you release it (quarantine).",
                'rejects = "quarantine"',
                default='"refuse"',
            ),
            "largest": Explained(
                "Octets of a message up to which it is asked.",
                'largest = "10M"',
                default="20000000",
            ),
        },
    ),
    "limits": Purpose(
        "The place of `[[limits]]` among the filters; without it they come last, at all listeners."
    ),
}

LIMIT_MANUAL: Mapping[str, Explained] = {
    "what": Explained(
        "What is counted; `size` is the octets of one message, and has no time.",
        'what = "recipients"\nper = "account"\nmost = 500\nin = "1 d"',
        default=_NEEDED,
    ),
    "per": Explained(
        "For each of whom: who has logged in, where a client comes from (an address, or an IPv6 "
        "/64), or the recipient's domain, which has recipients and size alone.",
        'what = "recipients"\nper = "domain"\nmost = 1000\nin = "1 h"',
        default=_NEEDED,
    ),
    "most": Explained(
        "How much of it.",
        'what = "octets"\nper = "account"\nmost = "500M"\nin = "1 d"',
        default=_NEEDED,
    ),
    "in": Explained(
        "In which time. The count is kept over a restart.",
        'what = "messages"\nper = "network"\nmost = 100\nin = "1 h"',
        default="none: it has to be there, but with `size`",
    ),
    "who": Explained(
        "The one account, network (as a whole) or domain that it is for, in place of the limit "
        "that is for each.",
        'what = "size"\nper = "domain"\nwho = "pager.example.org"\nmost = "100K"',
        default="each of them",
    ),
}
