"""RFC 5321 §4.1.1.2-5 and §4.1.1.11: MAIL, RCPT, DATA and RSET, at either end."""

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Command,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Envelope,
    ForwardPath,
    Limits,
    LocalProtocolError,
    Mail,
    Noop,
    Parameters,
    Quit,
    Rcpt,
    RemoteProtocolError,
    Reply,
    ReversePath,
    Rset,
    ServerConnection,
    State,
)
from smtpproto.extensions import DSN, SIZE
from smtpproto.extensions.size import SIZE_OCTETS
from smtpproto.testing.pair import answer
from tests.conformance.ends import HELLO, MAIL, RCPT, agreed, client_after, hear, say, server_after

PLACES = {b"": State.GREETED, HELLO: State.READY, MAIL: State.MAIL, RCPT: State.RCPT}


# MAIL


@pytest.mark.rfc("5321 §4.1.1.2 mail-begins-a-transaction", "5321 §4.1.4 mail-begins-a-transaction")
def test_mail_begins_a_transaction() -> None:
    server, client = server_after(HELLO), client_after()
    say(server, b"MAIL FROM:<a@b>\r\n")
    agreed(client, Mail("a@b"))
    assert server.state is client.state is State.MAIL


@pytest.mark.rfc("5321 §4.1.1.2 mail-is-for-when-no-transaction-is-open")
def test_mail_is_sent_and_taken_only_while_no_transaction_is_open() -> None:
    server, client = server_after(MAIL), client_after()
    assert say(server, b"MAIL FROM:<x@y>\r\n").startswith(b"503")
    agreed(client, Mail("a@b"))
    with pytest.raises(LocalProtocolError):
        client.send(Mail("x@y"))


@pytest.mark.rfc("5321 §3.6.3 null-reverse-path-is-written-so")
@pytest.mark.rfc("5321 §4.1.1.2 reverse-path-may-be-null")
def test_the_reverse_path_may_be_null() -> None:
    assert Mail(None).serialize() == b"MAIL FROM:<>\r\n"
    server = server_after(HELLO)
    assert say(server, b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n").count(b"250") == 2
    assert server.envelope == Envelope(None, ["a@b"])


@pytest.mark.rfc("5321 §6.1 source-route-is-stripped")
@pytest.mark.rfc("5321 §4.1.1.2 reverse-path-is-a-mailbox-without-a-route")
def test_a_reverse_path_is_a_mailbox_and_a_route_before_it_is_dropped() -> None:
    server = server_after(HELLO)
    server.receive_data(b"MAIL FROM:<@x.example,@y.example:a@b>\r\n")
    mail = server.next_event()
    assert isinstance(mail, Mail)
    assert mail == Mail("a@b")
    assert mail.serialize() == b"MAIL FROM:<a@b>\r\n"
    with pytest.raises(LocalProtocolError):
        Mail("@x.example:a@b")


@pytest.mark.rfc("5321 §4.1.1.2 mail-clears-what-was-and-sets-the-reverse-path")
@pytest.mark.parametrize("end", [b"RSET\r\n", b"EHLO c\r\n", b"DATA\r\nx\r\n.\r\n"])
def test_a_new_mail_has_nothing_of_the_transaction_before(end: bytes) -> None:
    server = server_after(RCPT + end + b"MAIL FROM:<x@y>\r\n")
    assert server.envelope is None
    say(server, b"RCPT TO:<z@y>\r\n")
    assert server.envelope == Envelope("x@y", ["z@y"])


@pytest.mark.rfc("5321 §4.1.1.2 mail-may-carry-parameters", "5321 §4.1.1.2 mail-has-a-reverse-path")
def test_mail_has_a_path_and_what_extensions_add() -> None:
    server = server_after(HELLO, (SIZE,))
    for line, parameters in ((b"<a@b>", None), (b"<a@b> SIZE=1", {"SIZE": "1"})):
        server.receive_data(b"MAIL FROM:%b\r\nRSET\r\n" % line)
        assert server.next_event() == Mail("a@b", Parameters.of(parameters))
        answer(server)
    assert say(server, b"MAIL SIZE=1\r\n").startswith(b"501")
    client = client_after(b"250-mx.example\r\n250 SIZE\r\n")
    assert client.send(Mail("a@b", SIZE_OCTETS(1))) == b"MAIL FROM:<a@b> SIZE=1\r\n"


# RCPT


@pytest.mark.rfc(
    "5321 §4.1.1.3 one-rcpt-for-each-recipient",
    "5321 §4.1.1.3 rcpt-adds-a-forward-path-and-nothing-else",
)
def test_each_rcpt_adds_one_recipient_and_changes_nothing_else() -> None:
    server, client = server_after(MAIL), client_after()
    agreed(client, Mail("a@b"))
    recipients: list[str] = []
    for recipient in ("c@d", "e@f", "c@d"):
        wire = client.send(Rcpt(recipient))
        hear(client, say(server, wire))
        recipients.append(recipient)
        assert server.envelope == Envelope("a@b", recipients)
    say(server, b"RCPT TO:<no@d>\r\n", lambda s, _: Reply(550))
    assert server.envelope == Envelope("a@b", recipients)


@pytest.mark.rfc("5321 §4.1.1.3 rcpt-has-a-forward-path")
def test_rcpt_has_a_path_and_what_extensions_add() -> None:
    server = ServerConnection("mx.example", [DSN], offer=[DSN])
    answer(server)
    say(server, MAIL)
    server.receive_data(b"RCPT TO:<c@d>\r\nRCPT TO:<c@d> NOTIFY=NEVER\r\nRCPT NOTIFY=NEVER\r\n")
    assert server.next_event() == Rcpt("c@d")
    server.send(Reply(250))
    assert server.next_event() == Rcpt("c@d", {"NOTIFY": "NEVER"})
    server.send(Reply(250))
    bad = server.next_event()
    assert isinstance(bad, BadCommand)
    assert bad.reply.code == 501


@pytest.mark.rfc("5321 §4.1.1.3 client-writes-no-route", "5321 §4.1.2 client-writes-no-route")
def test_a_client_writes_no_source_route() -> None:
    for make in (Rcpt, Mail, ForwardPath.of, ReversePath.of):
        with pytest.raises(LocalProtocolError):
            make("@hosta.int,@jkl.org:userc@d.bar.org")
    read, _ = ForwardPath.read(b"<@hosta.int,@jkl.org:userc@d.bar.org>")
    assert Rcpt(read).serialize() == b"RCPT TO:<userc@d.bar.org>\r\n"


@pytest.mark.rfc("5321 §4.1.1.3 server-may-refuse-to-relay-with-550")
def test_a_recipient_may_be_refused_with_550() -> None:
    server, client = server_after(MAIL), client_after()
    agreed(client, Mail("a@b"))
    refused = Reply(550, None, "No relaying")
    said = say(server, client.send(Rcpt("c@d")), lambda s, _: refused)
    assert hear(client, said) == [refused]
    assert server.state is client.state is State.MAIL
    assert server.envelope is None


@pytest.mark.rfc("5321 §4.1.1.3 postmaster-is-read-in-any-case")
@pytest.mark.parametrize("path", [b"<Postmaster>", b"<POSTMASTER>", b"<pOsTmAsTeR>"])
def test_postmaster_without_a_domain_is_read_in_any_case(path: bytes) -> None:
    server = server_after(MAIL)
    assert say(server, b"RCPT TO:%b\r\n" % path).startswith(b"250")
    assert server.envelope is not None
    (mailbox,) = (path.mailbox for path in server.envelope.forward_paths)
    assert (mailbox.local_part.lower(), mailbox.domain) == (b"postmaster", b"")


# DATA


@pytest.mark.rfc("5321 §4.1.1.4 lines-behind-354-are-content")
def test_what_comes_behind_354_is_content_whatever_it_looks_like() -> None:
    server = server_after(RCPT)
    assert say(server, b"DATA\r\n").startswith(b"354")
    lines = b"QUIT\r\nRSET\r\nMAIL FROM:<x@y>\r\n"
    server.receive_data(lines)
    assert server.next_event() == Content(lines.removesuffix(b"\r\n"))
    client = client_after()
    agreed(client, Mail("a@b"), Rcpt("c@d"), Data())
    assert client.send(Content(lines)) == lines
    for command in (Rset(), Quit(), Noop()):
        with pytest.raises(LocalProtocolError):
            client.send(command)


@pytest.mark.rfc("5321 §4.5.2 content-has-any-ascii-octet", "5321 §4.5.2 seven-bits-in-octets")
@pytest.mark.rfc("5321 §4.1.1.4 content-has-any-ascii-octet")
def test_content_may_have_every_ascii_octet() -> None:
    octets = bytes(o for o in range(128) if o not in b"\r\n") + b"\r\n"
    server, client = server_after(RCPT + b"DATA\r\n"), client_after()
    agreed(client, Mail("a@b"), Rcpt("c@d"), Data())
    server.receive_data(client.send(Content(octets)) + client.send(EndOfContent()))
    content = b""
    while isinstance(event := server.next_event(), Content):
        content += event.data
    assert (content, event) == (octets, EndOfContent(len(octets), None))


@pytest.mark.rfc("5321 §4.1.1.4 no-line-ends-with-lf-alone")
def test_a_lf_ends_neither_a_command_nor_a_line_of_content() -> None:
    server = server_after(RCPT)
    assert say(server, b"DATA\n") == b""
    assert say(server, b"\r\n").startswith(b"500")
    assert say(server, b"DATA\r\n").startswith(b"354")
    assert say(server, b"one\ntwo\n.\n") == b""
    assert say(server, b"\r\n.\r\n").startswith(b"554")


@pytest.mark.rfc(
    "5321 §4.1.1.4 success-is-told",
    "5321 §4.1.1.4 failure-is-told",
    "5321 §4.1.1.4 one-verdict-for-all-recipients",
)
@pytest.mark.parametrize("verdict", [Reply(250), Reply(451), Reply(552), Reply(554)])
def test_the_end_of_the_content_gets_one_verdict(verdict: Reply) -> None:
    server = server_after(RCPT + b"RCPT TO:<e@f>\r\nDATA\r\n")
    said = say(server, b"x\r\n.\r\n", lambda s, _: verdict)
    assert said == verdict.serialize()
    assert server.replies_owed == 0
    with pytest.raises(LocalProtocolError):
        server.send(verdict)
    client = client_after()
    agreed(client, Mail("a@b"), Rcpt("c@d"), Rcpt("e@f"))
    client.send(Data())
    hear(client, b"354 go\r\n")
    client.send(EndOfContent())
    assert hear(client, said) == [verdict]
    assert (client.owed, client.state) == (0, State.READY)
    with pytest.raises(RemoteProtocolError):
        hear(client, said)


@pytest.mark.rfc("5321 §4.1.1.4 end-of-content-is-acted-upon")
def test_nothing_is_pulled_behind_the_end_of_the_content_before_it_is_answered() -> None:
    server = server_after(RCPT + b"DATA\r\n")
    server.receive_data(b".\r\nNOOP\r\n")
    assert server.next_event() == EndOfContent(0, None)
    assert server.replies_owed == 1
    assert not isinstance(server.next_event(), Command)
    server.send(Reply(250))
    assert server.next_event() == Noop()


# RSET


@pytest.mark.rfc("5321 §4.1.1.5 rset-discards-the-transaction")
def test_rset_discards_senders_recipients_and_content() -> None:
    server = server_after(RCPT + b"RSET\r\n")
    assert (server.state, server.envelope) == (State.READY, None)
    assert say(server, b"RCPT TO:<c@d>\r\nDATA\r\n").count(b"503") == 2
    client = client_after()
    agreed(client, Mail("a@b"), Rcpt("c@d"), Rset())
    assert client.state is State.READY
    for command in (Rcpt("c@d"), Data()):
        with pytest.raises(LocalProtocolError):
            client.send(command)


@pytest.mark.rfc(
    "5321 §4.1.1.5 rset-may-come-at-any-time",
    "5321 §4.1.1.5 rset-is-answered-250",
    "5321 §4.1.1.5 rset-closes-nothing",
)
@pytest.mark.parametrize("before", PLACES)
def test_rset_is_sent_and_answered_at_any_time_and_the_session_goes_on(before: bytes) -> None:
    server = server_after(before)
    assert server.state is PLACES[before]
    assert say(server, b"RSET\r\n") == b"250 Reset\r\n"
    assert say(server, b"NOOP\r\n") == b"250 Ok\r\n"
    client = ClientConnection(STANDARD)
    hear(client, b"220 mx.example\r\n")
    for line in before.splitlines():
        client.send({b"EHLO": Ehlo("c.example"), b"MAIL": Mail("a@b")}.get(line[:4], Rcpt("c@d")))
        hear(client, b"250 ok\r\n")
    assert client.state is PLACES[before]
    client.send(Rset())
    hear(client, b"250 ok\r\n")
    client.send(Noop())


@pytest.mark.rfc("5321 §4.1.1.5 rset-is-answered-250")
@pytest.mark.parametrize("before", [MAIL, RCPT])
@pytest.mark.parametrize("code", [354, 450, 451, 500, 501, 503, 530, 554])
def test_rset_of_a_transaction_is_not_refused(before: bytes, code: int) -> None:
    server = server_after(before)
    kept = server.state
    server.receive_data(b"RSET\r\n")
    assert server.next_event() == Rset()
    with pytest.raises(LocalProtocolError):
        server.send(Reply(code))
    assert (server.state, server.replies_owed) == (kept, 1)
    assert server.send(server.suggested_reply()) == b"250 Reset\r\n"
    assert server.state is State.READY


@pytest.mark.rfc("5321 §4.1.1.5 rset-without-a-transaction-does-nothing")
@pytest.mark.parametrize("before", [b"", HELLO, RCPT + b"DATA\r\n.\r\n"])
def test_rset_is_nothing_where_there_is_no_transaction(before: bytes) -> None:
    server = server_after(before, (SIZE,))
    kept = server.state, server.helo_name, server.extended, dict(server.offered)
    say(server, b"RSET\r\n")
    assert (server.state, server.helo_name, server.extended, dict(server.offered)) == kept
    assert say(server, b"QUIT\r\n").startswith(b"221")


# Parameters that cannot be served


@pytest.mark.rfc("5321 §4.1.1.11 parameter-put-off-gets-455")
@pytest.mark.parametrize(
    ("before", "line"), [(HELLO, b"MAIL FROM:<a@b>"), (MAIL, b"RCPT TO:<c@d>")]
)
def test_a_parameter_that_cannot_be_served_for_now_may_be_put_off(
    before: bytes, line: bytes
) -> None:
    server = server_after(before)
    state = server.state
    not_now = Reply(455, None, "Not at present")
    assert say(server, line + b"\r\n", lambda s, _: not_now) == b"455 Not at present\r\n"
    assert server.state is state
    client = client_after()
    client.send(Mail("a@b"))
    assert hear(client, b"455 Not at present\r\n") == [not_now]
    assert client.state is State.READY


@pytest.mark.rfc("5321 §4.1.1.11 parameter-has-errors-of-its-own")
def test_what_is_wrong_with_a_known_parameter_has_the_code_of_its_rfc() -> None:
    server = ServerConnection("mx.example", [SIZE], limits=Limits(message=1000))
    answer(server)
    said = say(server, HELLO + b"MAIL FROM:<> SIZE=1001\r\nMAIL FROM:<> SIZE=x\r\n")
    assert [line[:3] for line in said.split(b"\r\n")[2:-1]] == [b"552", b"501"]
