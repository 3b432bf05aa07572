"""Splitting: the same octets, however they are cut, make the same events and the same replies."""

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from smtpproto import Reply
from smtpproto.testing import strategies as smtp

from .ends import CLIENT_STATES, run_client, run_server

SESSIONS = st.one_of(smtp.dialogue_octets(), smtp.dialogue_octets(), st.binary(max_size=200))


@given(st.data(), SESSIONS, st.booleans(), st.booleans())
def test_server(data: st.DataObject, octets: bytes, repair: bool, lmtp: bool) -> None:
    octets = octets.replace(b"EHLO", b"LHLO") if lmtp else octets
    pieces = data.draw(smtp.cuttings(octets))
    whole = run_server([octets] if octets else [], repair=repair, lmtp=lmtp)
    event(f"events: {min(len(whole[0]), 10)}")
    assert run_server(pieces, repair=repair, lmtp=lmtp) == whole


@given(st.lists(smtp.chunk_octets(), min_size=1, max_size=3), st.booleans())
def test_server_chunks_at_every_point(messages: list[bytes], lmtp: bool) -> None:
    head = b"%b c.example\r\n" % (b"LHLO" if lmtp else b"EHLO")
    begin = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n"
    octets = head + b"".join(begin + message + b"RSET\r\n" for message in messages)
    whole = run_server([octets], lmtp=lmtp)
    for at in range(len(head), len(octets)):
        assert run_server([octets[:at], octets[at:]], lmtp=lmtp) == whole


@given(smtp.hostile_content(), st.booleans())
@example(b"\r\n.\r", False)
@example(b"x\r\r\n.\r\n", True)
def test_server_content_at_every_point(content: bytes, repair: bool) -> None:
    head = b"EHLO c.example\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
    octets = head + content + b"\r\n.\r\nNOOP\r\n"
    whole = run_server([octets], repair=repair)
    for at in range(len(head) - 2, len(octets)):
        assert run_server([octets[:at], octets[at:]], repair=repair) == whole


def _mutate(octets: bytes, edits: list[tuple[int, bytes]]) -> bytes:
    for at, what in edits:
        where = at % (len(octets) + 1)
        octets = octets[:where] + what + octets[where + 1 :]
    return octets


EDITS = st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=2)), max_size=1)
REPLIES = st.builds(
    _mutate, st.lists(smtp.replies().map(Reply.serialize), max_size=9).map(b"".join), EDITS
)
GOOD = st.builds(
    _mutate,
    st.lists(smtp.replies([2, 2, 2, 5]).map(Reply.serialize), max_size=9).map(b"".join),
    EDITS,
)


@pytest.mark.parametrize("where", CLIENT_STATES)
@given(st.data(), st.one_of(GOOD, REPLIES, st.binary(max_size=60)))
def test_client(where: str, data: st.DataObject, octets: bytes) -> None:
    pieces = data.draw(smtp.cuttings(octets))
    events, lost, state = run_client(where, [octets] if octets else [])
    events_cut, lost_cut, state_cut = run_client(where, pieces)
    if where == "starttls" and lost and lost_cut:
        # What stands behind the 220 is told at once where it is there at once: the 220 itself
        # is given only to those who could not know yet.
        events_cut = events_cut[: len(events)]
    assert (events_cut, lost_cut, state_cut) == (events, lost, state)
