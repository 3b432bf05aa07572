"""RFC 6710: the priority of a message, said by the client and read by the server."""

import pytest
from attrs import evolve

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Ehlo,
    Extension,
    Lhlo,
    LocalProtocolError,
    Mail,
    Rcpt,
    Reply,
    ServerConnection,
)
from smtpproto.core.command import Command
from smtpproto.extensions import DELIVERBY, ENHANCEDSTATUSCODES, SIZE
from smtpproto.extensions.mt_priority import MT_PRIORITY, PRIORITY, mt_priority
from smtpproto.extensions.size import SIZE_OCTETS
from smtpproto.testing import Pair
from tests.conformance.ends import say


def greeted(*offer: Extension, lmtp: bool = False) -> Pair:
    """Both ends, and the greeting between them; the server offers what is named."""
    server = ServerConnection("mx.example", STANDARD, offer=offer, lmtp=lmtp)
    pair = Pair(server, ClientConnection(STANDARD, lmtp=lmtp))
    pair.send(Lhlo("c.example") if lmtp else Ehlo("c.example"))
    return pair


def answered(pair: Pair, command: Command) -> Reply:
    (reply,) = pair.send(command)
    assert isinstance(reply, Reply)
    return reply


@pytest.mark.rfc(
    "6710 §3 keyword-is-mt-priority", "6710 §3 policy-may-be-named", "6710 §7 mt-priority-ehlo"
)
@pytest.mark.parametrize(
    ("policy", "line"), [("", b""), ("MIXER", b" MIXER"), ("a.B_9-", b" a.B_9-")]
)
def test_it_is_announced_with_or_without_a_policy(policy: str, line: bytes) -> None:
    pair = greeted(mt_priority(policy))
    assert pair.to_client.endswith(b"\r\n250 MT-PRIORITY%b\r\n" % line)
    assert pair.client.offered == {"MT-PRIORITY": policy}
    assert MT_PRIORITY.verbs == ()


@pytest.mark.rfc("6710 §7 priority-profile")
@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("x", True),
        ("x" * 20, True),
        ("A-z_0.9", True),
        ("x" * 21, False),
        ("a b", False),
        ("é", False),
    ],
)
def test_names_of_policies(name: str, right: bool) -> None:
    if right:
        assert mt_priority(name).keyword == "MT-PRIORITY"
    else:
        with pytest.raises(LocalProtocolError):
            mt_priority(name)


@pytest.mark.rfc(
    "6710 §3 unknown-policy-is-no-hindrance",
    "6710 §3 priority-is-a-parameter-of-mail",
    "6710 §4.1 parameter-is-the-priority",
)
@pytest.mark.parametrize("policy", ["", "NEVER-HEARD-OF"])
@pytest.mark.parametrize("priority", [-9, -1, 0, 1, 9])
def test_the_priority_gets_to_the_servers_caller(policy: str, priority: int) -> None:
    pair = greeted(mt_priority(policy))
    assert answered(pair, Mail("a@b", PRIORITY(priority))).code == 250
    assert pair.to_server.endswith(b"MAIL FROM:<a@b> MT-PRIORITY=%d\r\n" % priority)
    mail = pair.server_events[-1]
    assert isinstance(mail, Mail)
    assert PRIORITY.of(mail.parameters) == priority


@pytest.mark.rfc("6710 §3 valid-in-lmtp-too", "6710 §6 lmtp-server-may-offer-it")
def test_it_is_for_lmtp_too() -> None:
    pair = greeted(MT_PRIORITY, lmtp=True)
    assert answered(pair, Mail("a@b", PRIORITY(3))).code == 250


@pytest.mark.rfc("6710 §3 mail-may-be-15-octets-longer")
def test_the_line_of_mail_may_be_15_octets_longer() -> None:
    server = greeted(evolve(MT_PRIORITY, obliges="")).server
    path = b"<" + b"a" * 64 + b"@" + b"b.c" * 60 + b">"
    longest = b"MAIL FROM:" + path + b" MT-PRIORITY=-9"
    at_limit = longest + b" " * (512 + 15 - 2 - len(longest)) + b"\r\n"
    assert len(at_limit) == 527
    assert say(server, at_limit).startswith(b"250")
    assert (
        say(server, b"RSET\r\n" + at_limit.replace(b"\r\n", b" \r\n")).split(b"\r\n")[1][:3]
        == b"500"
    )


MALFORMED = [b"", b"=10", b"=-10", b"=+1", b"=-0", b"=00", b"=01", b"=1.0", b"=high", b"=--1"]


@pytest.mark.rfc("6710 §4.1 malformed-is-501-5-5-2", "6710 §7 priority-value", "6710 §7 NZDIGIT")
@pytest.mark.parametrize("value", MALFORMED)
def test_what_is_no_priority(value: bytes) -> None:
    server = greeted(MT_PRIORITY).server
    server.receive_data(b"MAIL FROM:<a@b> MT-PRIORITY" + value + b"\r\n")
    event = server.next_event()
    assert isinstance(event, BadCommand)
    assert (event.reply.code, str(event.reply.status)) == (501, "5.5.2")
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250))


@pytest.mark.rfc("6710 §4.1 malformed-is-501-5-5-2")
def test_one_priority_is_enough() -> None:
    server = greeted(MT_PRIORITY).server
    said = say(server, b"MAIL FROM:<a@b> MT-PRIORITY=1 mt-priority=1\r\n")
    assert said.startswith(b"501")


@pytest.mark.rfc("6710 §7 priority-value", "6710 §3 priority-is-a-parameter-of-mail")
@pytest.mark.parametrize("priority", [-10, 10, 100])
def test_a_client_writes_no_other_number(priority: int) -> None:
    with pytest.raises(LocalProtocolError):
        PRIORITY(priority)


@pytest.mark.rfc(
    "6710 §4.1 changed-priority-is-told-by-x-3-6",
    "6710 §4.1 low-priority-is-refused-with-x-7-15",
    "6710 §5 too-big-for-its-priority-is-552-x-7-16",
    "6710 §5 size-beside-priority-is-judged-at-mail",
)
@pytest.mark.parametrize(
    ("code", "status"),
    [(250, "2.3.6"), (450, "4.7.15"), (550, "5.7.15"), (552, "5.7.16")],
)
def test_what_a_site_may_say_to_a_priority(code: int, status: str) -> None:
    """Each has its meaning in the registry, and gets through to the client."""
    pair = greeted(MT_PRIORITY, SIZE, ENHANCEDSTATUSCODES)
    said = Reply(code, status, "3 is what you get")
    pair.policy = lambda *_: said
    assert answered(pair, Mail("a@b", PRIORITY(9) | SIZE_OCTETS(5000))) == said
    assert said.status is not None
    assert said.status.registered is not None
    assert said.status.registered.rfc == 6710


@pytest.mark.rfc("6710 §4.3 no-parameter-where-it-is-not-offered")
def test_where_it_is_not_offered_there_is_no_parameter() -> None:
    pair = greeted(SIZE)
    with pytest.raises(LocalProtocolError):
        pair.client.send(Mail("a@b", PRIORITY(1)))
    assert say(pair.server, b"MAIL FROM:<a@b> MT-PRIORITY=1\r\n").startswith(b"555")


@pytest.mark.rfc("6710 §5 deliverby-is-independent")
@pytest.mark.parametrize("offer", [(MT_PRIORITY,), (DELIVERBY,), (MT_PRIORITY, DELIVERBY)])
def test_it_needs_no_other_extension(offer: tuple[Extension, ...]) -> None:
    assert list(greeted(*offer).client.offered) == [e.keyword for e in offer]


@pytest.mark.rfc("6710 §5.1 one-priority-for-all-recipients")
def test_a_recipient_has_no_priority() -> None:
    assert MT_PRIORITY.rcpt == ()
    pair = greeted(MT_PRIORITY)
    assert answered(pair, Mail("a@b", PRIORITY(1))).code == 250
    with pytest.raises(LocalProtocolError):
        pair.client.send(Rcpt("c@d", {"MT-PRIORITY": "1"}))
    assert say(pair.server, b"RCPT TO:<c@d> MT-PRIORITY=1\r\n").startswith(b"555")
