"""LineEnds finds a CR or LF that stands alone, wherever the content is cut."""

import pytest

from smtpproto.core.content import LineEnds


@pytest.mark.rfc("3030 §2 text-has-line-ends-of-crlf")
@pytest.mark.parametrize(
    "chunks",
    [
        [b"a\r", b"\r", b"\n"],  # the first of two CRs
        [b"a\r", b"\rb"],
        [b"a\r", b"\r\r\n"],
        [b"a\r", b"b"],
        [b"a\r", b"", b"b"],
        [b"a\r\n", b"\n"],
        [b"a\r", b"\n\n"],
    ],
)
def test_a_cr_or_lf_that_stands_alone_between_chunks_is_seen(chunks: list[bytes]) -> None:
    ends = LineEnds()
    for chunk in chunks:
        ends.feed(chunk)
    assert ends.bare is True  # by now, and not only when the content has ended


@pytest.mark.parametrize("chunks", [[b"a\r", b"\n"], [b"a\r", b"", b"\nb\r", b"\n"], [b""]])
def test_a_crlf_may_be_cut(chunks: list[bytes]) -> None:
    ends = LineEnds()
    for chunk in chunks:
        ends.feed(chunk)
    ends.finish()
    assert ends.bare is False
