"""Parameters of MAIL and RCPT."""

from tests.differential.case import Case

__all__ = ["PARAMETERS"]


def _mail(
    name: str, parameters: bytes, demand: str, clause: str, why: str, *, needs: str = ""
) -> Case:
    return Case(
        name,
        b"MAIL FROM:<a@c.example>%b\r\n" % parameters,
        demand,
        clause,
        why,
        needs=needs,
    )


def _utf8(name: str, sends: tuple[str, ...], demand: str, clause: str, why: str) -> Case:
    steps = tuple(step.encode() + b"\r\n" for step in sends)
    return Case(name, steps, demand, clause, why, needs="SMTPUTF8")


# A value that the parameter cannot have: 501, or 555 as for what cannot be implemented.
_BAD = "500/501/555"
_BAD_SIZE = "No number, so nothing that can be implemented."

PARAMETERS = [
    _mail("SIZE", b" SIZE=1000", "250", "RFC 1870 §6", "As it should be.", needs="SIZE"),
    _mail("size", b" size=1000", "250", "§2.4", "Keywords are read in any case.", needs="SIZE"),
    _mail("SIZE of 0", b" SIZE=0", "250", "RFC 1870 §3", "A number.", needs="SIZE"),
    _mail("leading zeros", b" SIZE=0001000", "250", "RFC 1870 §3", "A number.", needs="SIZE"),
    _mail(
        "SIZE over the limit", b" SIZE=100001", "552", "RFC 1870 §6.1", "Here 100000.", needs="SIZE"
    ),
    _mail(
        "SIZE of 20 digits",
        b" SIZE=" + b"9" * 20,
        "552",
        "RFC 1870 §6.1",
        "A number.",
        needs="SIZE",
    ),
    _mail(
        "SIZE of 21 digits",
        b" SIZE=1" + b"0" * 20,
        "501/552/555",
        "RFC 1870 §3",
        "20 at most.",
        needs="SIZE",
    ),
    _mail("SIZE alone", b" SIZE", _BAD, "§4.1.1.11", _BAD_SIZE, needs="SIZE"),
    _mail("SIZE and nothing", b" SIZE=", _BAD, "§4.1.2", "A value has an octet.", needs="SIZE"),
    _mail("SIZE in letters", b" SIZE=abc", _BAD, "§4.1.1.11", _BAD_SIZE, needs="SIZE"),
    _mail("SIZE as Python reads it", b" SIZE=1_0", _BAD, "§4.1.1.11", _BAD_SIZE, needs="SIZE"),
    _mail("SIZE in hexadecimal", b" SIZE=0x10", _BAD, "§4.1.1.11", _BAD_SIZE, needs="SIZE"),
    _mail("SIZE below 0", b" SIZE=-1", _BAD, "§4.1.1.11", _BAD_SIZE, needs="SIZE"),
    _mail("SIZE with a plus", b" SIZE=+1", _BAD, "§4.1.1.11", _BAD_SIZE, needs="SIZE"),
    _mail(
        "SIZE in Arabic", " SIZE=٣".encode(), _BAD, "RFC 1870 §3", "Digits are ASCII.", needs="SIZE"
    ),
    _mail(
        "SIZE twice",
        b" SIZE=1 SIZE=1",
        "250/500/501/555",
        "RFC 1870 §6",
        "Clients may give one; nothing says what becomes of two.",
        needs="SIZE",
    ),
    _mail(
        "SIZE twice, in two ways",
        b" SIZE=1 SIZE=2",
        "250/500/501/555",
        "RFC 1870 §6",
        "The same.",
        needs="SIZE",
    ),
    _mail("BODY", b" BODY=8BITMIME", "250", "RFC 6152 §3", "As it should be.", needs="8BITMIME"),
    _mail("body", b" body=8bitmime", "250", "§2.4", "In any case.", needs="8BITMIME"),
    _mail("BODY alone", b" BODY", _BAD, "RFC 6152 §2", "It has a value.", needs="8BITMIME"),
    _mail("BODY and nothing", b" BODY=", _BAD, "§4.1.2", "A value has an octet.", needs="8BITMIME"),
    _mail("BODY of 9 bits", b" BODY=9BIT", _BAD, "RFC 6152 §2", "One of two.", needs="8BITMIME"),
    _mail(
        "BINARYMIME, not offered",
        b" BODY=BINARYMIME",
        _BAD,
        "§4.1.1.11",
        "It belongs to an extension that none of them offers here.",
        needs="8BITMIME",
    ),
    _mail("an unknown parameter", b" XYZ=1", "555", "§4.1.1.11", "It will be 555."),
    _mail("an unknown keyword", b" XYZ", "555", "§4.1.1.11", "The same."),
    _mail("`=` in a value", b" XYZ=B=C", "501/555", "§4.1.2", "Malformed and unknown."),
    _mail("`-` in front of a keyword", b" -A=1", "501/555", "§4.1.2", "Malformed and unknown."),
    _mail(
        "no space in front",
        b"SIZE=1",
        "250/501/550/553",
        "§4.1.1.2",
        "The grammar has one; nothing says what becomes of it.",
    ),
    _mail(
        "two spaces in front",
        b"  SIZE=1",
        "250/501",
        "§4.1.1.2",
        "The grammar has one.",
        needs="SIZE",
    ),
    _mail("a tab in front", b"\tSIZE=1", "250/501/550/553", "§4.1.1.2", "The grammar has a space."),
    Case(
        "SIZE at RCPT",
        b"RCPT TO:<b@example.test> SIZE=1\r\n",
        "501/555",
        "§4.1.1.11",
        "Unknown there.",
        after="MAIL",
    ),
    Case(
        "NOTIFY at RCPT",
        b"RCPT TO:<b@example.test> NOTIFY=NEVER\r\n",
        "250/555",
        "RFC 3461 §4.1",
        "250 where DSN is offered, 555 elsewhere.",
        after="MAIL",
    ),
    Case(
        "NOTIFY=NEVER,DELAY",
        b"RCPT TO:<b@example.test> NOTIFY=NEVER,DELAY\r\n",
        "501/555",
        "RFC 3461 §4.1",
        "NEVER stands alone.",
        after="MAIL",
        needs="DSN",
    ),
    _mail(
        "AUTH",
        b" AUTH=<>",
        "250",
        "RFC 4954 §5",
        "Must be supported by who offers AUTH.",
        needs="AUTH",
    ),
    _mail(
        "AUTH with bad xtext",
        b" AUTH=a+zz",
        "250/501/555",
        "RFC 4954 §5",
        "No xtext; and what is not believed counts as <>.",
        needs="AUTH",
    ),
    _utf8(
        "SMTPUTF8",
        ("MAIL FROM:<é@c.example> SMTPUTF8", "RCPT TO:<ü@example.test>"),
        "250, 250",
        "RFC 6531 §3.3",
        "As it should be.",
    ),
    _utf8(
        "SMTPUTF8 for ASCII",
        ("MAIL FROM:<a@c.example> SMTPUTF8",),
        "250",
        "RFC 6531 §3.4",
        "It need not be made use of.",
    ),
    _utf8(
        "SMTPUTF8 with a value",
        ("MAIL FROM:<a@c.example> SMTPUTF8=1",),
        "501/555",
        "RFC 6531 §3.4",
        "It must not accept one.",
    ),
    _utf8(
        "SMTPUTF8 at RCPT",
        ("MAIL FROM:<a@c.example> SMTPUTF8", "RCPT TO:<b@example.test> SMTPUTF8"),
        "250, 501/555",
        "§4.1.1.11",
        "It is MAIL's.",
    ),
    Case(
        "SMTPUTF8 and no UTF-8",
        b"MAIL FROM:<caf\xe9@c.example> SMTPUTF8\r\n",
        "500/501/550/553",
        "RFC 6531 §3.3",
        "Not every octet over 127 is UTF-8.",
        needs="SMTPUTF8",
    ),
]
