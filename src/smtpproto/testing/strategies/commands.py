"""Every command, as values; the ways to write one; and lines that are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from hypothesis import strategies as st

from smtpproto.core.command import (
    BASE_VERBS,
    LMTP_VERBS,
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Data,
    Ehlo,
    Expn,
    Helo,
    Help,
    Lhlo,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Vrfy,
)
from smtpproto.core.extension import Extension
from smtpproto.core.path import ReversePath
from smtpproto.extensions import SMTPUTF8, STANDARD
from smtpproto.extensions.attributes import AttributeCommand, Attributes, Unknown
from smtpproto.extensions.etrn import Etrn, Queue
from smtpproto.extensions.xclient import XClient
from smtpproto.extensions.xforward import XForward

from .parameters import Items, mail_parameters, parameters, rcpt_parameters
from .paths import address_literals, domains, forward_paths, path_spellings, reverse_paths
from .registry import commands_of, full_offer, register
from .words import LET_DIG, LETTERS, PRINTABLE, base64_octets, texts, utf8_texts

__all__ = [
    "attribute_commands",
    "auth_commands",
    "auth_responses",
    "bad_lines",
    "bdat_commands",
    "command_spellings",
    "commands",
    "commands_by_verb",
    "etrn_commands",
    "hello_names",
    "mail_commands",
    "query_commands",
    "rcpt_commands",
]

A = TypeVar("A", bound=AttributeCommand)
Q = TypeVar("Q", Vrfy, Expn)


def hello_names() -> st.SearchStrategy[str]:
    """Arguments of EHLO, LHLO and HELO: domains and address literals."""
    return st.one_of(domains(), address_literals())


def mail_commands(extensions: Sequence[Extension] | None = None) -> st.SearchStrategy[Mail]:
    """MAIL commands, with any well-formed parameters, known to nobody.

    With `extensions`, with such as they define and let pass together: a server that offers them
    as `full_offer` has it finds nothing wrong. What cannot be offered is not spoken of. The path
    may hold UTF-8 where SMTPUTF8 is asked for.
    """
    if extensions is None:
        return st.builds(Mail, reverse_paths(), parameters())
    offered = _offered(extensions)
    paths = {utf8: reverse_paths(utf8) for utf8 in (False, True)}
    return _mail_commands(mail_parameters(offered), paths).filter(_passes(offered))


@st.composite
def _mail_commands(
    draw: st.DrawFn,
    items: st.SearchStrategy[Items],
    paths: Mapping[bool, st.SearchStrategy[ReversePath]],
) -> Mail:
    found = draw(items)
    return Mail(draw(paths["SMTPUTF8" in found]), found)


def rcpt_commands(
    extensions: Sequence[Extension] | None = None, *, utf8: bool = False
) -> st.SearchStrategy[Rcpt]:
    """RCPT commands, with parameters as `mail_commands`; `utf8` where MAIL asked for SMTPUTF8."""
    if extensions is None:
        return st.builds(Rcpt, forward_paths(utf8), parameters())
    offered = _offered(extensions)
    made = st.builds(Rcpt, forward_paths(utf8), rcpt_parameters(offered))
    return made.filter(_passes(offered))


def _offered(extensions: Sequence[Extension]) -> tuple[Extension, ...]:
    offer = full_offer(extensions)
    return tuple(e for e in extensions if e.keyword in offer)


def _passes(extensions: Sequence[Extension]) -> Callable[[Command], bool]:
    offer = full_offer(extensions)
    judges = [e.judge for e in extensions if e.judge is not None]
    return lambda command: all(judge(command, offer) is None for judge in judges)


def bdat_commands() -> st.SearchStrategy[Bdat]:
    """BDAT commands, their octets still to come: a client sends `Chunk`s instead."""
    sizes = st.one_of(st.integers(0, 100), st.integers(0, 10**20 - 1))
    return st.builds(Bdat, sizes, st.booleans())


def auth_commands() -> st.SearchStrategy[Auth]:
    """AUTH commands with made-up mechanisms."""
    names = st.text(LETTERS + "0123456789-_", min_size=1, max_size=20)
    return st.builds(Auth, names, base64_octets())


def auth_responses() -> st.SearchStrategy[AuthResponse]:
    """Lines of the client's in an AUTH exchange, `*` among them."""
    return st.builds(AuthResponse, base64_octets())


def query_commands(verb: type[Q], *, utf8: bool = False) -> st.SearchStrategy[Q]:
    """VRFY or EXPN, whichever is `verb`; with `utf8`, such as need SMTPUTF8 (RFC 6531 §3.7.4.2)."""
    plain = texts().filter(bool).filter(lambda text: not text.upper().endswith("SMTPUTF8"))
    if not utf8:
        return st.builds(verb, plain)
    asked = st.one_of(plain, st.builds("{}{}".format, plain, utf8_texts()))
    return st.builds(verb, st.one_of(asked, asked.map("{} SMTPUTF8".format)))


def etrn_commands() -> st.SearchStrategy[Etrn]:
    """ETRN commands for nodes, domains and queues (RFC 1985 §5)."""
    nodes = st.builds("{}.{}".format, domains(), domains())
    queues = st.text(PRINTABLE.replace(" ", ""), min_size=1, max_size=12)
    return st.one_of(
        st.builds(Etrn, nodes),
        st.builds(Etrn, domains(), st.just(Queue.SUBDOMAINS)),
        st.builds(Etrn, queues, st.just(Queue.NAMED)),
    )


# One of them fits every rule that there is; rules are asked, so that new attributes find theirs.
_VALUES = [
    *(b"0", b"25", b"65535", b"192.0.2.1", b"IPV6:2001:db8::1", b"SMTP", b"esmtp", b"LOCAL"),
    *(b"REMOTE", b"mx.example.org", b"3CF6B2AAE8", b"jo+x", b"=?x"),
]


def attribute_commands(verb: type[A]) -> st.SearchStrategy[A]:
    """Commands of XCLIENT's kind, with values that the rules of `verb` take."""

    def values(rule: Callable[[bytes], bool]) -> st.SearchStrategy[bytes | Unknown]:
        fitting = [value for value in _VALUES if rule(value)]
        letters = [octet for octet in map(chr, range(0x21, 0x7F)) if rule(octet.encode())]
        free = st.text(letters, min_size=1, max_size=12).map(str.encode).filter(rule)
        made = st.sampled_from(fitting)
        return st.one_of(made, free if letters else made, st.sampled_from(Unknown)).filter(_own)

    each = {name: values(rule) for name, rule in verb.rules.items()}
    return st.fixed_dictionaries({}, optional=each).filter(bool).map(Attributes).map(verb)


def _own(value: bytes | Unknown) -> bool:
    # What looks like "[UNAVAILABLE]" is read as that.
    return isinstance(value, Unknown) or value.upper() not in {u.value for u in Unknown}


register(Ehlo, st.builds(Ehlo, hello_names()))
register(Lhlo, st.builds(Lhlo, hello_names()))
register(Helo, st.builds(Helo, hello_names()))
register(Mail, mail_commands())
register(Rcpt, rcpt_commands())
register(Data, st.just(Data()))
register(Bdat, bdat_commands())
register(Rset, st.just(Rset()))
register(Noop, st.builds(Noop, texts()))
register(Quit, st.just(Quit()))
register(Vrfy, query_commands(Vrfy, utf8=True))
register(Expn, query_commands(Expn, utf8=True))
register(Help, st.builds(Help, texts()))
register(StartTls, st.just(StartTls()))
register(Auth, auth_commands())
register(AuthResponse, auth_responses())
register(Etrn, etrn_commands())
register(XClient, attribute_commands(XClient))
register(XForward, attribute_commands(XForward))


def commands(
    extensions: Sequence[Extension] | None = None, *, lmtp: bool = False
) -> st.SearchStrategy[Command]:
    """Every command there is but AuthResponse, which is no command outside AUTH.

    With the verbs of `extensions` (of STANDARD, by default); MAIL and RCPT with no more
    parameters than those define, or by default with any. `lmtp`: LHLO instead of EHLO and HELO.
    BDAT comes without its octets.
    """
    return st.one_of([*commands_by_verb(extensions, lmtp=lmtp).values()])


def commands_by_verb(
    extensions: Sequence[Extension] | None = None, *, lmtp: bool = False
) -> Mapping[type[Command], st.SearchStrategy[Command]]:
    """The same one by one: class -> its commands. LookupError where a verb's are not registered."""
    verbs = [verb for e in (STANDARD if extensions is None else extensions) for verb in e.verbs]
    base = (LMTP_VERBS if lmtp else BASE_VERBS).values()
    utf8 = extensions is None or SMTPUTF8 in extensions
    known: dict[type[Command], st.SearchStrategy[Command]] = {
        Mail: mail_commands(extensions),
        Rcpt: rcpt_commands(extensions),
        Vrfy: query_commands(Vrfy, utf8=utf8),
        Expn: query_commands(Expn, utf8=utf8),
    }
    return {verb: known[verb] if verb in known else commands_of(verb) for verb in (*base, *verbs)}


@st.composite
def command_spellings(draw: st.DrawFn, command: Command) -> bytes:
    """Ways to write a command, without CRLF, that read back equal.

    Verbs and keywords in any case (RFC 5321 §2.4), white space at the end (§4.1.1), paths
    as `path_spellings` has them, and the spaces that are tolerated around them.
    """
    verb, space, argument = command.serialize().removesuffix(b"\r\n").partition(b" ")
    if isinstance(command, (Mail, Rcpt)):
        path = command.reverse_path if isinstance(command, Mail) else command.forward_path
        word = b"FROM:" if isinstance(command, Mail) else b"TO:"
        pieces = [
            draw(_in_any_case(word)),
            draw(st.sampled_from([b"", b" "])),
            draw(path_spellings(path)),
        ]
        for keyword, value in command.parameters.items():
            pieces.append(draw(st.sampled_from([b" ", b"  "])))
            pieces.append(draw(_in_any_case(keyword.encode())))
            pieces.append(b"" if value is None else b"=" + value)
        argument = b"".join(pieces)
    elif isinstance(command, Bdat):
        argument = b"%b%d%b" % (
            b"0" * draw(st.integers(0, max(0, 20 - len(str(command.size))))),
            command.size,
            draw(_in_any_case(b" LAST")) if command.last else b"",
        )
    end = draw(st.sampled_from([b"", b"", b" ", b" \t "]))
    return draw(_in_any_case(verb)) + space + argument + end


def _in_any_case(word: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from([word, word, word.lower(), word.title()])


# Each of these is wrong whatever has been said before.
_MALFORMED = (
    b"", b" ", b"EHLO", b"EHLO  a", b"EHLO a b", b"EHLO a\0", b"EHLO [IPv6:1:2]", b"HELO -",
    b"MAIL", b"MAIL FROM", b"MAIL FROM:", b"MAIL FROM:a@b", b"MAIL FROM:<a@b", b"MAIL FROM:<a>",
    b"MAIL FROM:<a@b>SIZE=1", b"MAIL FROM:<a@b> SIZE=", b"MAIL FROM:<a@b> A A",
    b"MAIL FROM:<a@b> =1", b"MAIL  FROM:<a@b>", b"MAIL\tFROM:<a@b>", b"MAIL FROM:<\xff@b>",
    b"RCPT TO:<>", b"RCPT TO:<@a,b>", b"RCPT TO:<a@b\r>", b"RCPT TO:<a@b> X=\x7f",
    b"RCPT FROM:<a@b>", b"DATA now", b"RSET it", b"QUIT all", b"VRFY", b"EXPN ",
    b"NOOP \x01", b"HELP \xe9", b"STARTTLS now", b"AUTH", b"AUTH PL+IN",
    b"AUTH PLAIN *", b"AUTH PLAIN AAA=BBB", b"ETRN", b"ETRN @",
    b"XCLIENT", b"XCLIENT NAME", b"XFORWARD NAME=+0", b"LHLO",
)  # fmt: skip


def bad_lines(limit: int = 12_288) -> st.SearchStrategy[bytes]:
    """Lines, without CRLF, that no server takes for a command, though it stays in step.

    Unknown verbs, missing and malformed arguments, controls, and lines of more than `limit`
    octets. Such as lose the framing are not among them: HTTP, TLS, a BDAT of no size.
    """
    unknown = st.builds(
        b"X-%b %b".__mod__,
        st.tuples(st.text(LET_DIG, max_size=8).map(str.encode), texts().map(str.encode)),
    )
    control = st.sampled_from([b"\0", b"\r", b"\n"]).map(b"NOOP a%bb".__mod__)
    too_long = st.integers(1, 40).map(lambda more: b"NOOP " + b"x" * (limit + more))
    return st.one_of(st.sampled_from(_MALFORMED), unknown, control, too_long)
