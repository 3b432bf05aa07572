"""8-bit and binary content made fit for who takes 7 bits: nothing lost, nothing else touched."""

import email
import sys
import threading
from collections.abc import AsyncIterator
from email.message import Message
from email.policy import compat32
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from smtpproto.relay.content import downgrade, quoted
from smtpproto.relay.content.downgrade import Downgrade, Survey, downgraded, survey


def convert(content: bytes, cuts: list[int] | None = None, *, eight_bit: bool = False) -> bytes:
    """Convert content, cut at these places."""
    walk = Downgrade(eight_bit=eight_bit)
    places = [0, *sorted(cuts or []), len(content)]
    out = [walk.feed(content[a:b]) for a, b in pairwise(places)]
    out.append(walk.finish())
    assert walk.objection == ""
    return b"".join(out)


def objection(content: bytes, *, eight_bit: bool = False) -> str:
    walk = Downgrade(eight_bit=eight_bit)
    walk.feed(content)
    walk.finish()
    return walk.objection


async def surveyed(content: bytes, *, eight_bit: bool = False, lines: bool = False) -> Survey:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 1000):
            yield content[at : at + 1000]

    return await survey(chunks(), eight_bit=eight_bit, lines=lines)


def payloads(content: bytes) -> list[tuple[str, object]]:
    """What each part says, decoded by a reader that we had no hand in."""
    message: Message = email.message_from_bytes(content, policy=compat32)
    return [(part.get_content_type(), part.get_payload(decode=True)) for part in message.walk()]


def lines(*each: str | bytes) -> bytes:
    return b"".join((x.encode() if isinstance(x, str) else x) + b"\r\n" for x in each)


# --- what becomes of a message -----------------------------------------------------------------

SIMPLE = lines(
    "Subject: a",
    "MIME-Version: 1.0",
    "Content-Type: text/plain; charset=utf-8",
    "content-transfer-encoding:",
    " 8bit (as it says)",
    "X-Last: b",
    "",
    "Grüße = ",
    ".",
    "From here",
)


def test_an_8bit_body_becomes_quoted_printable_and_its_header_says_so() -> None:
    assert convert(SIMPLE) == lines(
        "Subject: a",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
        "X-Last: b",
        "",
        "Gr=C3=BC=C3=9Fe =3D=20",
        "=2E",
        "From here",
    )


NESTED = lines(
    "Subject: a",
    "MIME-Version: 1.0 (really)",
    'Content-Type: multipart/mixed (a "comment"); x=y; boundary="out er"',
    "Content-Transfer-Encoding: binary",
    "",
    "in front",
    "--out er",
    "Content-Type: image/png",
    "Content-Transfer-Encoding: Binary",
    "",
    b"\x89PNG\r\n\x1a\n\x00\xff--out er\r\n--out er too",
    "--out er  ",
    "Content-Type: message/rfc822",
    "Content-Transfer-Encoding: 8bit",
    "",
    "Subject: within",
    "MIME-Version: 1.0",
    "Content-Type: multipart/alternative;",
    " boundary=out",
    "",
    "--out",
    "",
    "--out",
    "Content-Transfer-Encoding: 8bit",
    "",
    "ünden",
    "--out--",
    "--out er",
    "Content-Transfer-Encoding: base64",
    "",
    "AAAA",
    "--out er--",
    "behind",
)


def test_leaves_are_encoded_and_what_holds_them_is_called_7bit() -> None:
    assert convert(NESTED) == lines(
        "Subject: a",
        "MIME-Version: 1.0 (really)",
        'Content-Type: multipart/mixed (a "comment"); x=y; boundary="out er"',
        "Content-Transfer-Encoding: 7bit",
        "",
        "in front",
        "--out er",
        "Content-Type: image/png",
        "Content-Transfer-Encoding: base64",
        "",
        "iVBORw0KGgoA/y0tb3V0IGVyDQotLW91dCBlciB0b28=",
        "--out er  ",
        "Content-Type: message/rfc822",
        "Content-Transfer-Encoding: 7bit",
        "",
        "Subject: within",
        "MIME-Version: 1.0",
        "Content-Type: multipart/alternative;",
        " boundary=out",
        "",
        "--out",
        "",
        "--out",
        "Content-Transfer-Encoding: quoted-printable",
        "",
        "=C3=BCnden",
        "--out--",
        "--out er",
        "Content-Transfer-Encoding: base64",
        "",
        "AAAA",
        "--out er--",
        "behind",
    )


def test_who_takes_8_bits_gets_them_and_only_what_is_binary_is_encoded() -> None:
    converted = convert(NESTED, eight_bit=True)
    assert "ünden".encode() in converted
    assert b"Content-Transfer-Encoding: 8bit\r\n\r\nSubject: within" in converted
    assert b"iVBORw0KGgoA" in converted
    assert b"binary" not in converted.lower()


def test_an_outer_boundary_ends_what_is_left_open_within() -> None:
    content = lines(
        "MIME-Version: 1.0",
        "Content-Type: multipart/mixed; boundary=a",
        "",
        "--a",
        "Content-Type: multipart/mixed; boundary=b",
        "",
        "--b",
        "Content-Transfer-Encoding: 8bit",
        "",
        "ü",
        "--a",
        "Content-Transfer-Encoding: 8bit",
        "--a",
        "Content-Transfer-Encoding: 8bit",
        "",
        "ö",
    )
    converted = convert(content)
    assert payloads(converted) == payloads(content)
    assert converted.count(b"quoted-printable") == 3


def test_the_parts_of_a_digest_are_messages() -> None:
    content = lines(
        "MIME-Version: 1.0",
        "Content-Type: multipart/digest; boundary=a",
        "",
        "--a",
        "",
        "MIME-Version: 1.0",
        "Content-Transfer-Encoding: 8bit",
        "",
        "ü",
        "--a--",
    )
    assert b"\r\n\r\n=C3=BC\r\n--a--" in convert(content)


def test_a_message_in_utf8_may_be_encoded_as_no_other_message() -> None:
    inner = lines("Subject: grüße", "", "ü")
    content = lines("MIME-Version: 1.0", "Content-Type: message/global")
    content += lines("Content-Transfer-Encoding: 8bit", "") + inner
    assert b"\r\n\r\nSubject: gr=C3=BC=C3=9Fe\r\n" in convert(content)


# --- what is not converted ---------------------------------------------------------------------

MIME = "MIME-Version: 1.0"


def signed(text: str) -> bytes:
    return lines(
        MIME,
        "Content-Type: multipart/signed; boundary=a; micalg=sha-256",
        "",
        "--a",
        "Content-Transfer-Encoding: 8bit",
        "",
        text,
        "--a",
        "Content-Type: application/pgp-signature",
        "",
        "x",
        "--a--",
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lines("Subject: a", "", "ü"), downgrade.NOT_MIME),
        (lines(MIME, "Subject: ü", "Content-Transfer-Encoding: 8bit", "", "a"), downgrade.HEADER),
        (signed("ü"), downgrade.SEALED),
        (signed("ü").replace(b"signed", b"encrypted"), downgrade.SEALED),
        (lines(MIME, "Content-Type: message/partial; id=a", "", "ü"), downgrade.FRAGMENT),
        (lines(MIME, "Content-Type: message/delivery-status", "", "ü"), downgrade.FRAGMENT),
        (lines(MIME, "", "ü"), downgrade.UNSAID),
        (lines(MIME, "Content-Transfer-Encoding: 7bit", "", "ü"), downgrade.UNSAID),
        (lines(MIME, "Content-Transfer-Encoding: base64", "", "ü"), downgrade.ENCODED),
        (lines(MIME, "Content-Transfer-Encoding: x-own", "", "ü"), downgrade.ENCODED),
        (
            lines(MIME, "Content-Type: multipart/mixed; boundary=a", "", "ü", "--a--"),
            downgrade.BETWEEN,
        ),
        (
            lines(MIME, "Content-Type: multipart/mixed; boundary=a", "", "--a--", "ü"),
            downgrade.BETWEEN,
        ),
        (lines(MIME, "Content-Type: multipart/mixed", "", "ü"), downgrade.MALFORMED),
        (lines(MIME, "Content-Type: nothing", "", "ü"), downgrade.MALFORMED),
        (lines(MIME, "Content-Transfer-Encoding: 8 bit", "", "ü"), downgrade.MALFORMED),
        (
            lines(MIME, *["Content-Transfer-Encoding: 8bit"] * 2, "", "ü"),
            downgrade.MALFORMED,
        ),
        (
            lines(MIME, "no field", "Content-Transfer-Encoding: 8bit", "", "ü"),
            downgrade.MALFORMED,
        ),
        (
            lines(MIME, "Content-Type: multipart/mixed; boundary*=us-ascii''a", "", "ü"),
            downgrade.MALFORMED,
        ),
        (
            lines(MIME, 'Content-Type: multipart/mixed; boundary="a\tb"', "", "--a\tb", "", "ü"),
            downgrade.MALFORMED,
        ),
        (
            lines(MIME, "A: " + "b" * downgrade.MAX_HEADER, "", "ü"),
            downgrade.TOO_LARGE,
        ),
        (
            lines(
                MIME,
                *[
                    line
                    for depth in range(downgrade.MAX_DEPTH + 1)
                    for line in (
                        f"Content-Type: multipart/mixed; boundary=a{depth}.",
                        "",
                        f"--a{depth}.",
                    )
                ],
                "Content-Transfer-Encoding: 8bit",
                "",
                "ü",
            ),
            downgrade.TOO_LARGE,
        ),
    ],
)
def test_what_must_not_be_touched_or_cannot_be_read_is_not_converted(
    content: bytes, reason: str
) -> None:
    assert objection(content) == reason
    # In 7 bits the same is nobody's concern, and comes out as it went in.
    content = content.replace("ü".encode(), b"u").replace(b" 8bit", b" 7bit")
    assert convert(content) == content


@pytest.mark.anyio
async def test_a_survey_tells_what_may_go_as_it_is() -> None:
    found = await surveyed(SIMPLE)
    assert found == Survey(
        as_it_is=True, ascii=False, utf8_header=False, objection="", octets=len(convert(SIMPLE))
    )
    found = await surveyed(lines("Subject: ü", "", "a"))
    assert (found.ascii, found.utf8_header, found.objection) == (False, True, downgrade.HEADER)
    assert (await surveyed(lines("Subject: a", "", "a"), lines=True)).as_it_is
    long = lines(MIME, "", "x" * 999)
    assert not (await surveyed(long, lines=True)).as_it_is
    assert (await surveyed(long, lines=True)).objection == downgrade.NO_LINES
    assert (await surveyed(long)).as_it_is
    binary = lines(MIME, "Content-Transfer-Encoding: binary", "", "x")
    assert not (await surveyed(binary, lines=True)).as_it_is
    assert (await surveyed(b"A: b\r\n\r\na\rb", eight_bit=True)).objection == downgrade.NO_LINES


@pytest.mark.anyio
async def test_the_second_pass_gives_what_the_first_one_measured() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield SIMPLE[:100]
        yield SIMPLE[100:]

    octets = b"".join([piece async for piece in downgraded(chunks())])
    assert octets == convert(SIMPLE)


@pytest.mark.anyio
async def test_the_event_loop_does_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield SIMPLE

    threads: list[int] = []
    feed = Downgrade.feed

    def noted(walk: Downgrade, chunk: bytes) -> bytes:
        threads.append(threading.get_ident())
        return feed(walk, chunk)

    monkeypatch.setattr(Downgrade, "feed", noted)
    await survey(chunks())
    assert b"".join([piece async for piece in downgraded(chunks())])
    assert len(threads) == 2
    assert threading.get_ident() not in threads


def test_memory_does_not_grow_with_the_message() -> None:
    walk = Downgrade()
    walk.feed(lines(MIME, "Content-Type: multipart/mixed; boundary=a", ""))
    given_out = 0
    for coding in ("8bit", "binary", "base64"):
        walk.feed(lines("--a", f"Content-Transfer-Encoding: {coding}", ""))
        for _ in range(64):
            given_out += len(walk.feed(b"x" * 65536))  # one line that does not end
            assert len(walk._buffer) <= downgrade._HOLD
            assert len(getattr(walk._body, "_held", b"")) <= quoted.WINDOW + downgrade._HOLD
    walk.finish()
    assert given_out > 64 * 3 * 65536


def test_a_multipart_costs_little_however_many_there_are_and_whatever_they_are_called() -> None:
    def opened(boundary: str) -> bytes:
        return lines(f'Content-Type: multipart/mixed; boundary="{boundary}"', "", f"--{boundary}")

    around = [f"{depth}." + "+()" * 60 for depth in range(downgrade.MAX_DEPTH - 1)]
    walk = Downgrade()
    walk.feed(lines(MIME) + b"".join(map(opened, around)))
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        for number in range(100):
            walk.feed(opened(f"x{number}") + lines(f"--{around[-1]}"))
    finally:
        sys.setprofile(before)
    assert walk.objection == ""
    assert calls < 100 * 500


def test_what_looks_like_a_boundary_and_is_none_is_text() -> None:
    content = lines(
        MIME,
        "Content-Type: multipart/mixed; boundary=a",
        "",
        "--a",
        "Content-Transfer-Encoding: 8bit",
        "",
        *("--", "--ab", "--a-", "--a--b", " --a", "--a" + " " * 500 + "ü"),
        "--a--",
    )
    converted = convert(content)
    assert payloads(converted) == payloads(content)
    assert converted.count(b"quoted-printable") == 1
    assert lines("=2D-", "=2D-ab", "=2D-a-", "=2D-a--b", " --a") in converted


@pytest.mark.rfc("3030 §3 encoded-is-valid-mime")
@pytest.mark.parametrize("long", range(60, 80))
@pytest.mark.parametrize("lead", ["", "-" * 65536, "x" * 65466])
@pytest.mark.parametrize("boundary", ["a", "---a"])
def test_where_a_line_is_broken_no_boundary_comes_to_be(
    lead: str, long: int, boundary: str
) -> None:
    content = lines(
        MIME,
        f"Content-Type: multipart/mixed; boundary={boundary}",
        "",
        f"--{boundary}",
        "Content-Transfer-Encoding: 8bit",
        "",
        f"ü{lead}{'x' * long}--{boundary}",
        f"{lead}{'-' * long}{boundary}",
        f"--{boundary}--",
    )
    assert payloads(convert(content)) == payloads(content)


# --- laws ----------------------------------------------------------------------------------------

WORDS = st.text("abü= .\t€", max_size=90).map(str.encode)
TEXTS = st.lists(WORDS, max_size=4).map(b"\r\n".join)
LONG = st.binary(min_size=1, max_size=40).map(lambda seed: (seed * 70_000)[:150_000])
CODED = {
    b"7bit": st.text("ab= .\t-", max_size=60).map(str.encode),
    b"8bit": TEXTS,
    b"binary": st.one_of(st.binary(max_size=200), TEXTS),
    b"base64": st.just(b"AAECAw=="),
    b"quoted-printable": st.just(b"a=20=\r\n=3D"),
}


@st.composite
def leaves(draw: st.DrawFn) -> bytes:
    coding = draw(st.sampled_from(sorted(CODED)))
    name = draw(st.sampled_from(["text/plain", "application/octet-stream", "image/png"]))
    body = draw(CODED[coding])
    # A reader of files takes a bare CR or LF for the end of a line, and so for a boundary's.
    assume(b"--" not in body)
    fields = [f"Content-Type: {name}", "Content-Transfer-Encoding: " + coding.decode()]
    return lines(*draw(st.permutations(fields)), "") + body


def multiparts(parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        boundary = draw(st.text("abc'()+_,./:=?", min_size=1, max_size=20))
        inside = draw(st.lists(parts, min_size=1, max_size=3))
        assume(not any(b"--" + boundary.encode() in part for part in inside))
        open_, end = f"--{boundary}\r\n".encode(), f"\r\n--{boundary}--\r\n".encode()
        header = lines(f'Content-Type: multipart/mixed; boundary="{boundary}"', "")
        return header + open_ + (b"\r\n" + open_).join(inside) + end

    return build()


def messages_within(parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    head = lines("Content-Type: message/rfc822", "", "Subject: within", MIME)
    return parts.map(lambda part: head + part)


ENTITIES = st.recursive(
    leaves(), lambda inner: st.one_of(multiparts(inner), messages_within(inner)), max_leaves=5
)
MESSAGES = ENTITIES.map(lambda entity: lines("Subject: a", MIME) + entity)


@pytest.mark.rfc(
    "6152 §3 conversion-loses-nothing",
    "3030 §3 encoding-loses-nothing",
    "3030 §3 encoded-is-valid-mime",
    "3030 §3 nothing-is-encoded-twice",
)
@given(MESSAGES)
def test_it_decodes_to_the_same_and_is_7bit_in_legal_lines(content: bytes) -> None:
    converted = convert(content)
    assert converted.isascii()
    assert max(map(len, converted.split(b"\r\n"))) <= 998
    assert converted.count(b"\r") == converted.count(b"\n") == converted.count(b"\r\n")
    assert b"8bit" not in converted
    assert b"binary" not in converted
    assert payloads(converted) == payloads(content)


@given(MESSAGES, st.lists(st.integers(0, 2000)), st.booleans())
def test_however_it_is_cut_it_becomes_the_same(
    content: bytes, cuts: list[int], eight_bit: bool
) -> None:
    places = [cut for cut in cuts if cut <= len(content)]
    assert convert(content, places, eight_bit=eight_bit) == convert(content, eight_bit=eight_bit)


@given(MESSAGES)
def test_what_was_converted_is_left_alone(content: bytes) -> None:
    once = convert(content)
    assert convert(once) == once


@given(st.lists(st.sampled_from([*b'ab -:;="()/\t']), max_size=300).map(bytes), st.data())
def test_7bit_text_of_any_kind_is_left_alone(text: bytes, data: st.DataObject) -> None:
    words = st.sampled_from([MIME.encode(), b"Content-Type: ", b"multipart/mixed;", b"boundary=a"])
    ends = st.sampled_from([b"\r\n", b"\r\n\r\n", b"\r\n--a\r\n", b"\r\n--a--\r\n", text])
    content = b"".join(data.draw(st.lists(st.one_of(words, ends), max_size=12)))
    assert convert(content) == content


@example(b"\t\n" * 40_000, [])
@example(b"x" * 150_000, [])
@example(b"-" * 150_000, [])
@example(b"\r\n" * 75_000, [])
@example(b"x" * 65535 + b"\r\n" + b"x" * 65533 + b"\r\n", [])
@given(LONG, st.lists(st.integers(0, 150_000), max_size=5))
def test_a_line_of_any_length_becomes_short_ones(body: bytes, cuts: list[int]) -> None:
    content = lines(MIME, "Content-Transfer-Encoding: 8bit", "") + body
    converted = convert(content, [cut for cut in cuts if cut <= len(content)])
    assert converted == convert(content)
    assert max(map(len, converted.split(b"\r\n"))) <= 76
    assert b"\r\n--" not in converted
    assert payloads(converted) == payloads(content)


PIECES = st.one_of(
    st.sampled_from(
        [
            b"MIME-Version: 1.0\r\n",
            b"Content-Type: multipart/mixed; boundary=a\r\n",
            b"Content-Type: multipart/signed; boundary=b\r\n",
            b"Content-Type: message/rfc822\r\n",
            b"Content-Transfer-Encoding: 8bit\r\n",
            b"Content-Transfer-Encoding: binary\r\n",
            b"Content-Type: text/plain",
            b"\r\n",
            b"\r\n\r\n",
            b"\r\n--a\r\n",
            b"\r\n--a--\r\n",
            b"\r\n--b  \r\n",
            b"\r\n--b--",
            b"--",
            b"\r",
            b"\n",
            b" folded\r\n",
            "ü".encode(),
        ]
    ),
    st.binary(max_size=80),
)


@given(st.lists(PIECES, max_size=25).map(b"".join), st.lists(st.integers(0, 600)), st.booleans())
def test_whatever_it_is_the_cuts_change_nothing(
    content: bytes, cuts: list[int], eight_bit: bool
) -> None:
    def outcome(places: list[int]) -> tuple[bytes, str, bool, bool]:
        walk = Downgrade(eight_bit=eight_bit)
        bounds = [0, *sorted(places), len(content)]
        out = b"".join([walk.feed(content[a:b]) for a, b in pairwise(bounds)] + [walk.finish()])
        return out, walk.objection, walk.utf8_header, walk.binary

    whole = outcome([])
    assert outcome([cut for cut in cuts if cut <= len(content)]) == whole
    assert outcome(list(range(len(content)))) == whole
    converted, why, *_ = whole
    assert why or eight_bit or converted.isascii()
