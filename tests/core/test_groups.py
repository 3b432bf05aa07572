"""Commands that leave together (RFC 2920 §3.1): as one behind the other, but all or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import (
    Bdat,
    Chunk,
    ClientConnection,
    Command,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    State,
)

from .hearing import OFFER, hear, make

COMMANDS: tuple[Command, ...] = (
    Mail("a@b"),
    Mail("a@b", {"SIZE": 5}),
    Mail("a@b", {"BODY": "BINARYMIME"}),
    Rcpt("c@d"),
    Rcpt("ü@d"),
    Rset(),
    Data(),
    Noop(),
    Ehlo("c.example"),
    Quit(),
    Bdat(3),
)


def standing(client: ClientConnection) -> tuple[object, ...]:
    return client.state, client.asked, client.owed, client.must_reset


@given(st.lists(st.sampled_from(COMMANDS), min_size=1, max_size=6), st.booleans())
def test_a_group_is_what_its_commands_are_one_by_one(
    commands: list[Command], pipelining: bool
) -> None:
    offer = OFFER if pipelining else OFFER.replace(b"PIPELINING", b"HELP")
    one_by_one, group = make(offer), make(offer)
    before = standing(group)
    written, objection = b"", ""
    try:
        for command in commands:
            written += one_by_one.send(command)
    except LocalProtocolError as error:
        objection = str(error)
    if objection:
        with pytest.raises(LocalProtocolError) as refused:
            group.send_group(commands)
        assert str(refused.value) == objection
        assert standing(group) == before
    else:
        assert group.send_group(commands) == written
        assert standing(group) == standing(one_by_one)


def test_of_a_group_that_is_refused_nothing_was_asked() -> None:
    client = make()
    with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
        client.send_group([Mail("a@b"), Rcpt("c@d"), Rcpt("ü@d")])
    assert (client.state, client.asked, client.owed) == (State.READY, State.READY, 0)
    client.send_group([Mail("a@b"), Rcpt("c@d"), Data()])
    assert (client.asked, client.owed) == (State.CONTENT, 3)


def test_a_group_behind_a_refused_chunk_begins_with_rset() -> None:
    client = make(OFFER[:-16] + b"250 CHUNKING\r\n")
    client.send_group([Mail("a@b"), Rcpt("c@d")])
    hear(client, b"250 ok\r\n250 ok\r\n")
    client.send(Chunk(b"x"))
    hear(client, b"452 no\r\n")
    with pytest.raises(LocalProtocolError):
        client.send_group([Mail("a@b"), Rset()])
    assert client.must_reset
    client.send_group([Rset(), Mail("a@b"), Rcpt("c@d")])
    assert not client.must_reset
    hear(client, b"250 ok\r\n250 ok\r\n250 ok\r\n")
    assert client.state is State.RCPT


def test_nothing_of_a_group_leaves_while_something_waits_to_be_read() -> None:
    client = make()
    client.receive_data(b"421 bye\r\n")
    with pytest.raises(LocalProtocolError, match="unread input"):
        client.send_group([Mail("a@b"), Rcpt("c@d")])
    assert client.owed == 0


def test_a_group_of_nothing_is_nothing() -> None:
    client = make()
    assert client.send_group([]) == b""
    assert client.owed == 0


def test_content_is_in_no_group() -> None:
    client = make()
    with pytest.raises(LocalProtocolError):
        client.send_group([Mail("a@b"), Content(b"x")])  # type: ignore[list-item]  # on purpose
    assert client.owed == 0


def test_the_commands_of_a_group_stand_one_behind_the_other() -> None:
    assert make().send_group([Mail("a@b"), Rcpt("c@d")]) == b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"


def test_behind_what_is_not_pipelined_nothing_follows() -> None:
    client = make()
    with pytest.raises(LocalProtocolError, match="has to come first"):
        client.send_group([Noop(), Mail("a@b")])
    client = make(OFFER.replace(b"PIPELINING", b"HELP"))
    with pytest.raises(LocalProtocolError, match="has to come first"):
        client.send_group([Mail("a@b"), Rcpt("c@d")])


@pytest.mark.parametrize("resets", [1, 2, 3])
@pytest.mark.parametrize("together", [True, False])
def test_a_chunk_refused_behind_resets_wants_one_more(resets: int, together: bool) -> None:
    client = make(OFFER[:-16] + b"250 CHUNKING\r\n")
    commands: list[Command] = [*[Rset()] * resets, Mail("a@b"), Rcpt("c@d")]
    if together:
        client.send_group(commands)
    else:
        for command in commands:
            client.send(command)
    hear(client, b"250 ok\r\n" * len(commands))
    client.send(Chunk(b"x"))
    hear(client, b"452 no\r\n")
    assert client.must_reset


def test_the_end_of_the_content_leads_back() -> None:
    client = make()
    client.send_group([Mail("a@b"), Rcpt("c@d"), Data()])
    hear(client, b"250 ok\r\n250 ok\r\n354 go\r\n")
    client.send(EndOfContent())
    assert client.asked is State.READY


def test_a_chunk_refused_before_a_reset_that_is_owed_wants_none() -> None:
    client = make(OFFER[:-16] + b"250 CHUNKING\r\n")
    client.send_group([Mail("a@b"), Rcpt("c@d")])
    hear(client, b"250 ok\r\n250 ok\r\n")
    client.send(Chunk(b"x"))
    client.send(Rset())
    client.send(Mail("a@b"))
    hear(client, b"452 no\r\n")
    assert not client.must_reset
    hear(client, b"250 ok\r\n250 ok\r\n")
    assert client.state is State.MAIL
