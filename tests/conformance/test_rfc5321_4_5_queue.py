"""RFC 5321 §4.5.3.1.10, §4.5.4, §5.1 and §6.1: where to, what is sent again, what is remembered."""

from pathlib import Path

import dns.name
import pytest

from smtpproto import Ehlo
from smtpproto.relay.reports.story import Deferred, Delivered, Reported
from smtpproto.resolve import NoSuchDomain
from tests.conformance.ends import client_after, hear
from tests.relay.test_resolve import Server, resolver
from tests.relay.world import world

pytestmark = pytest.mark.anyio


@pytest.mark.rfc(
    "5321 §4.5.3.1.8 recipients-go-in-chunks",
    "5321 §4.5.3.1.10 rest-of-the-recipients-is-sent-later",
)
@pytest.mark.parametrize("too_many", ["452 4.5.3 Too many recipients", "552 Too many recipients"])
async def test_recipients_that_were_too_many_go_in_a_transaction_of_their_own(
    tmp_path: Path, too_many: str
) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {"RCPT TO:<late": too_many})
        node = await w.node("relay.example")
        early = [f"early{number}@ext.example" for number in range(100)]
        late = [f"late{number}@ext.example" for number in range(30)]
        await node.send("a@our.dom", [*early, *late])
        await node.until(Delivered, 100)
        await node.until(Deferred, 30)
        host.says.clear()
        w.move(600)
        await node.until(Delivered, 130)
        assert host.accepted == [
            [f"RCPT TO:<{name}>" for name in early],
            [f"RCPT TO:<{name}>" for name in late],
        ]


@pytest.mark.rfc("5321 §6.1 final-dot-is-answered-soon")
async def test_the_final_dot_is_answered_before_anything_is_delivered(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {"greeting": "hang"})
        node = await w.node("relay.example")
        assert (await node.send("a@our.dom", ["v@ext.example"])).all_accepted
        await host.reached.wait()
        assert node.told(Delivered) == []
        host.released.set()
        await node.until(Delivered)


@pytest.mark.rfc("5321 §4.5.4.1 refusal-of-mail-is-not-cached")
async def test_a_sender_that_was_refused_once_is_asked_about_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {"MAIL": "550 5.7.1 not you"})
        node = await w.node("relay.example")
        for number in 1, 2:
            await node.send(None, ["v@ext.example"])
            await node.until(Reported, number)
        assert sum(line.startswith("MAIL FROM:<>") for line in host.lines) == 2


@pytest.mark.rfc("5321 §4.5.4.1 later-ehlo-may-answer-otherwise")
def test_a_later_answer_to_ehlo_takes_the_place_of_the_earlier() -> None:
    client = client_after(b"250-mx.example\r\n250-SIZE 10\r\n250 PIPELINING\r\n")
    client.send(Ehlo("c.example"))
    hear(client, b"250-mx.example\r\n250-SIZE\r\n250 8BITMIME\r\n")
    assert client.offered == {"SIZE": "", "8BITMIME": ""}


@pytest.mark.rfc(
    "5321 §2.3.5 relay-takes-names-as-complete",
    "5321 §5.1 relay-completes-no-names",
    "5321 §5.1 submission-completes-no-names",
)
@pytest.mark.rfc("6409 §4.2 incomplete-names-are-not-expanded")
async def test_half_a_name_is_not_completed_though_the_system_has_a_search_list() -> None:
    server = Server()
    try:
        searching = resolver(server)
        searching._resolver.search = [dns.name.from_text("example.")]  # ext.example. is there
        with pytest.raises(NoSuchDomain):
            await searching.mx("ext")
    finally:
        server.close()
    assert {name for name, _ in server.asked} == {"ext."}
