"""The grammar of RFC 5321 §4.1.2-3 and §4.2 as regexes over octets, each under its ABNF rule.

Every regex is linear: no two neighbouring repetitions can match the same octet. Where what we
read is wider than the rule, the comment says so and why; what we write is never wider.
"""

from __future__ import annotations

import re

__all__ = [
    "ADDRESS_LITERAL",
    "CONTROL",
    "DOMAIN",
    "DOMAIN_UTF8",
    "DOT_STRING",
    "DOT_STRING_UTF8",
    "EHLO_LINE",
    "HELO_NAME",
    "KEYWORD",
    "LOCAL_PART",
    "PARAMETER",
    "PATH",
    "PATH_UTF8",
    "PRINTABLE",
    "QUOTED_PAIR",
    "REPLY_LINE",
    "SASL_MECHANISM",
    "TEXT",
    "TEXT_UTF8",
    "is_address_literal",
]

# Atom = 1*atext ; atext is RFC 5322 §3.2.3
_ATOM = rb"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+"

# Dot-string = Atom *("." Atom)
_DOT_STRING = rb"%b(?:\.%b)*" % (_ATOM, _ATOM)
DOT_STRING = re.compile(_DOT_STRING)

# Quoted-string = DQUOTE *QcontentSMTP DQUOTE
# QcontentSMTP = qtextSMTP or quoted-pairSMTP:
# qtextSMTP = %d32-33 / %d35-91 / %d93-126 ; quoted-pairSMTP = %d92 %d32-126
_QUOTED_STRING = rb'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"'
QUOTED_PAIR = re.compile(rb"\\([\x20-\x7e])")

# Local-part = Dot-string / Quoted-string
_LOCAL_PART = rb"(?:%b|%b)" % (_DOT_STRING, _QUOTED_STRING)
LOCAL_PART = re.compile(_LOCAL_PART)

# sub-domain = Let-dig [Ldh-str] ; a label has at most 63 octets (RFC 1035 §2.3.4)
_SUB_DOMAIN = rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

# Domain = sub-domain *("." sub-domain)
_DOMAIN = rb"%b(?:\.%b)*" % (_SUB_DOMAIN, _SUB_DOMAIN)
DOMAIN = re.compile(_DOMAIN)

# address-literal = "[" (IPv4- / IPv6- / General-address-literal) "]"
# The brackets and dcontent (%d33-90 / %d94-126) here; what is inside, in is_address_literal().
_LITERAL = rb"\[[\x21-\x5a\x5e-\x7e]+\]"
ADDRESS_LITERAL = re.compile(_LITERAL)

# Snum = 1*3DIGIT, 0 to 255 ; IPv4-address-literal = Snum 3("." Snum)
_SNUM = rb"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])"
_IPV4 = re.compile(rb"%b(?:\.%b){3}" % (_SNUM, _SNUM))
_IPV6_HEX = re.compile(rb"[0-9A-Fa-f]{1,4}")

# General-address-literal = Standardized-tag ":" 1*dcontent ; Standardized-tag = Ldh-str
_GENERAL = re.compile(rb"[A-Za-z0-9-]*[A-Za-z0-9]:[\x21-\x5a\x5e-\x7e]+")

# Path = "<" [ A-d-l ":" ] Mailbox ">" ; A-d-l = At-domain *( "," At-domain )
# The source route is matched and thrown away (§4.1.1.3, appendix C). Groups: local part, domain.
PATH = re.compile(
    rb"<(?:@%b(?:,@%b)*:)?(%b)@(%b|%b)>" % (_DOMAIN, _DOMAIN, _LOCAL_PART, _DOMAIN, _LITERAL)
)

# The same with UTF-8 (RFC 6531 §3.3): what a transaction that asked for SMTPUTF8 may hold.
# UTF8-non-ascii = UTF8-2 / UTF8-3 / UTF8-4 (RFC 3629 §4)
_UTF8 = (
    rb"(?:[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xf0[\x90-\xbf][\x80-\xbf]{2}"
    rb"|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})"
)
# atext =/ UTF8-non-ascii ; qtextSMTP =/ UTF8-non-ascii
_ATOM_UTF8 = rb"(?:[A-Za-z0-9!#$%%&'*+\-/=?^_`{|}~]|%b)+" % _UTF8
_DOT_STRING_UTF8 = rb"%b(?:\.%b)*" % (_ATOM_UTF8, _ATOM_UTF8)
DOT_STRING_UTF8 = re.compile(_DOT_STRING_UTF8)
_QUOTED_STRING_UTF8 = rb'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e]|%b)*"' % _UTF8
_LOCAL_PART_UTF8 = rb"(?:%b|%b)" % (_DOT_STRING_UTF8, _QUOTED_STRING_UTF8)
# sub-domain =/ U-label ; whether it is one by IDNA is for those who look it up.
# 64 octets of ASCII are too many for a label of either kind.
_U_LABEL = rb"(?![A-Za-z0-9-]{64})(?:[A-Za-z0-9]|%b)(?:-*(?:[A-Za-z0-9]|%b))*" % (_UTF8, _UTF8)
_DOMAIN_UTF8 = rb"%b(?:\.%b)*" % (_U_LABEL, _U_LABEL)
DOMAIN_UTF8 = re.compile(_DOMAIN_UTF8)
PATH_UTF8 = re.compile(
    rb"<(?:@%b(?:,@%b)*:)?(%b)@(%b|%b)>"
    % (_DOMAIN_UTF8, _DOMAIN_UTF8, _LOCAL_PART_UTF8, _DOMAIN_UTF8, _LITERAL)
)

# esmtp-param = esmtp-keyword ["=" esmtp-value] ; esmtp-value = 1*(%d33-60 / %d62-126)
# esmtp-value =/ UTF8-non-ascii (RFC 6531 §3.3), in a transaction that asked for SMTPUTF8
PARAMETER = re.compile(
    rb"([A-Za-z0-9][A-Za-z0-9-]*)"
    rb"(?:=(?=.)([\x21-\x3c\x3e-\x7e]*(?:%b[\x21-\x3c\x3e-\x7e]*)*))?" % _UTF8
)

# ehlo = "EHLO" SP ( Domain / address-literal )
# Read wider than written: "_" in names, and labels that are empty, too long, or have a hyphen at an
# end. §4.1.2 wants a 501 for it, but many machines have such names, and no server in use refuses
# their mail for that.
HELO_NAME = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?")

# ehlo-keyword, esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
KEYWORD = re.compile(rb"[A-Za-z0-9][A-Za-z0-9-]*")

# ehlo-line = ehlo-keyword *( SP ehlo-param ) ; ehlo-param = 1*(%d33-126)
# Read wider: any run of spaces, since servers pad.
EHLO_LINE = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)((?: +[\x21-\x7e]+)*) *")

# Reply-line = Reply-code ( "-" / SP ) [ textstring ] ; Reply-code = %x32-35 %x30-35 %x30-39
# Read wider: any second digit (§4.3.2: go by the first), text of any octets, and no SP before
# nothing (§4.2: a bare code is a reply).
REPLY_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)

# sasl-mech = 1*20mech-char ; mech-char = UPPER-ALPHA / DIGIT / "-" / "_" (RFC 4422 §3.1)
SASL_MECHANISM = re.compile(rb"[A-Za-z0-9_-]{1,20}")

# textstring = 1*(%d09 / %d32-126), or nothing ; with UTF-8 where RFC 6531 §3.7.4 lets it in
PRINTABLE = re.compile(rb"[\t\x20-\x7e]*(?:%b[\t\x20-\x7e]*)*" % _UTF8)

# The argument of NOOP, VRFY, EXPN and HELP. Wider than String: people write `VRFY Fred Foobar`.
TEXT = re.compile(rb"[\x20-\x7e]*")
# That of VRFY and EXPN where SMTPUTF8 is offered (RFC 6531 §3.7.4.2).
TEXT_UTF8 = re.compile(rb"[\x20-\x7e]*(?:%b[\x20-\x7e]*)*" % _UTF8)

# What no argument may contain: C0 controls and DEL.
CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


def is_address_literal(inside: bytes) -> bool:
    """Tell whether the octets between the brackets fit RFC 5321 §4.1.3."""
    if inside[:5].upper() == b"IPV6:":
        return _is_ipv6(inside[5:])
    return _IPV4.fullmatch(inside) is not None or _GENERAL.fullmatch(inside) is not None


def _is_ipv6(address: bytes) -> bool:
    # IPv6-full: 8 groups; IPv6-comp: at most 6 and "::"; an IPv4 tail stands for two groups.
    left, compressed, right = address.partition(b"::")
    groups = left.split(b":") if left else []
    if compressed:
        groups += right.split(b":") if right else []
    if groups and (right if compressed else left) and _IPV4.fullmatch(groups[-1]):
        groups[-1:] = [b"0", b"0"]
    if not all(_IPV6_HEX.fullmatch(group) for group in groups):
        return False
    return len(groups) <= 6 if compressed else len(groups) == 8
