"""Splitting: the same octets, however they are cut, make the same events and the same replies."""

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from smtpproto import EndOfChunk, EndOfContent, StartTls
from smtpproto.testing import strategies as smtp

from .ends import CLIENT_STATES, OFFER, answers, run_client, run_proxied, run_server

#: Where one example is many runs, or each of many places has its own.
FEWER = settings().max_examples // 3

SESSIONS = {
    lmtp: st.one_of(
        smtp.dialogue_octets(lmtp),
        smtp.client_octets(OFFER, lmtp=lmtp),
        smtp.mutations(smtp.client_octets(OFFER, lmtp=lmtp)),
        st.binary(max_size=200),
    )
    for lmtp in (False, True)
}


@given(st.data(), st.booleans(), st.booleans())
def test_server(data: st.DataObject, repair: bool, lmtp: bool) -> None:
    octets = data.draw(SESSIONS[lmtp])
    pieces = data.draw(smtp.cuttings(octets))
    whole = run_server([octets] if octets else [], repair=repair, lmtp=lmtp)
    event(f"events: {min(len(whole[0]), 10)}")
    assert run_server(pieces, repair=repair, lmtp=lmtp) == whole


@settings(max_examples=FEWER)
@given(st.lists(smtp.chunk_octets(), min_size=1, max_size=3), st.booleans())
def test_server_chunks_at_every_point(messages: list[bytes], lmtp: bool) -> None:
    head = b"%b c.example\r\n" % (b"LHLO" if lmtp else b"EHLO")
    begin = b"MAIL FROM:<>\r\nRCPT TO:<c@d>\r\nRCPT TO:<Postmaster>\r\n"
    octets = head + b"".join(begin + message + b"RSET\r\n" for message in messages)
    whole = run_server([octets], lmtp=lmtp)
    assert any(isinstance(each, (EndOfChunk, EndOfContent)) for each in whole[0])
    for at in range(len(head), len(octets)):
        assert run_server([octets[:at], octets[at:]], lmtp=lmtp) == whole


@settings(max_examples=2 * FEWER)
@given(smtp.hostile_content(), st.booleans())
@example(b"\r\n.\r", False)
@example(b"x\r\r\n.\r\n", True)
def test_server_content_at_every_point(content: bytes, repair: bool) -> None:
    head = b"EHLO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n"
    octets = head + content + b"\r\n.\r\nNOOP\r\n"
    whole = run_server([octets], repair=repair)
    assert any(isinstance(each, EndOfContent) for each in whole[0])
    for at in range(len(head) - 2, len(octets)):
        assert run_server([octets[:at], octets[at:]], repair=repair) == whole


@given(
    st.data(),
    smtp.client_octets(OFFER),
    smtp.dialogue_octets(),
    st.sampled_from([b"", b"QUIT\r\n", b"\x16"]),
)
def test_server_over_to_tls(
    data: st.DataObject, clear: bytes, secret: bytes, injected: bytes
) -> None:
    """RFC 3207 §4.2: neither is what came in clear ever heard, nor is it mixed with the rest."""
    clear = clear.removesuffix(b"QUIT\r\n") + b"RSET\r\nSTARTTLS\r\n" + injected
    whole = run_server([clear], [secret] if secret else [])
    event(f"TLS: {StartTls() in whole[0]}")
    cuts = data.draw(smtp.cuttings(clear)), data.draw(smtp.cuttings(secret)) if secret else []
    assert run_server(*cuts) == whole


@given(st.data(), smtp.proxy_octets(), smtp.dialogue_octets())
def test_server_behind_a_proxy(data: st.DataObject, header: bytes, session: bytes) -> None:
    octets = header + session
    whole = run_proxied([octets] if octets else [])
    event(f"a header: {whole[0] is not None}")
    assert run_proxied(data.draw(smtp.cuttings(octets))) == whole


NOISE = st.one_of(smtp.server_octets(), st.binary(max_size=60))
SAID = {
    where: st.one_of(answers(where), smtp.mutations(answers(where), 1), NOISE)
    for where in CLIENT_STATES
}


@pytest.mark.parametrize("where", CLIENT_STATES)
@settings(max_examples=2 * FEWER)
@given(st.data())
def test_client(where: str, data: st.DataObject) -> None:
    octets = data.draw(SAID[where])
    pieces = data.draw(smtp.cuttings(octets))
    events, lost, state = run_client(where, [octets] if octets else [])
    event(f"events: {len(events)}, lost: {lost}")
    events_cut, lost_cut, state_cut = run_client(where, pieces)
    if where == "starttls" and lost and lost_cut:
        # What stands behind the 220 is told at once where it is there at once: the 220 itself
        # is given only to those who could not know yet.
        events_cut = events_cut[: len(events)]
    assert (events_cut, lost_cut, state_cut) == (events, lost, state)
