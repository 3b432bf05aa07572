"""rspamd behind our relay: what it takes for spam, what becomes of it, and what is told of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpproto.core.reply import Reply
from smtpproto.relay.filters.rspamd import Rspamd
from smtpproto.relay.reports.story import Accepted, Delivered, Held, Judged
from tests.relay.process import SOURCE, serving
from tests.relay.world import MESSAGE, World, world

from .programs import HOST
from .rspamd import GTUBE, RspamdServer, rspamd

pytestmark = [pytest.mark.anyio, pytest.mark.peer("rspamd")]

HEADER = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
SPAM = HEADER + GTUBE + b"\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[RspamdServer]:
    with rspamd() as server:
        yield server


async def send(
    w: World, one: Rspamd, content: bytes, failing: str = "pass"
) -> tuple[Reply, list[str]]:
    """Send a message through it; return what is answered, and its story."""
    node = await w.node("mx.our.dom", networks=(), filters=[one], failing_filter=failing)
    result = await node.send("ann@ext.example", ["bob@our.dom"], content)
    reply = result.outcomes[0].reply
    assert reply is not None
    if reply.code == 250:
        await node.until(Accepted)
    (judged,) = await node.until(Judged)
    assert judged.id
    assert (judged.peer, judged.stage) == ("127.0.0.1", "content")
    told = [judged.said]
    for event in node.events:
        if isinstance(event, (Accepted, Held)):
            assert event.id == judged.id
            told.append(type(event).__name__)
    if "Held" in told:
        assert [entry.id for entry in await node.queue()] == [judged.id]
        assert node.told(Delivered) == []
    elif "Accepted" in told:
        await node.until(Delivered)
        (mail,) = node.mail("bob@our.dom")
        told.append(mail.partition(b"X-Filtered: ")[2].partition(b"\n\n")[0].decode())
    return reply, told


async def test_gtube_is_refused_and_its_story_is_told(server: RspamdServer, tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        reply, told = await send(w, Rspamd(server.url, "mx.our.dom"), SPAM)
        assert re.fullmatch(r"554 5\.7\.1 This is taken for spam \(\w{15}\)", str(reply))
        assert told == ["rspamd=refuse (reject, 15 of 15: GTUBE)"]


async def test_gtube_is_held_where_that_is_wanted(server: RspamdServer, tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        filter = Rspamd(server.url, "mx.our.dom", quarantine=True)
        reply, told = await send(w, filter, SPAM)
        assert reply.code == 250
        assert told == ["rspamd=quarantine (reject, 15 of 15: GTUBE)", "Accepted", "Held"]


async def test_what_is_no_spam_passes_with_its_score(server: RspamdServer, tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        reply, told = await send(w, Rspamd(server.url, "mx.our.dom"), MESSAGE)
        assert reply.code == 250
        judged, accepted, header = told
        assert (judged, accepted) == ("rspamd=tag (no action, 0 of 15)", "Accepted")
        assert header.startswith("mx.our.dom; rspamd=tag (no action, 0 of 15)\n")
        assert "X-Spam" not in header


async def test_what_may_be_spam_is_tagged(server: RspamdServer, tmp_path: Path) -> None:
    suspect = GTUBE.replace(b"XJS*C4JDBQADN1", b"YJS*C4JDBQADN1")  # its other test
    async with world(tmp_path) as w:
        reply, told = await send(w, Rspamd(server.url, "mx.our.dom"), HEADER + suspect + b"\r\n")
        assert reply.code == 250, server.log()
        assert told[0].startswith("rspamd=tag (add header, ")
        assert "X-Spam: yes\n" in told[-1] + "\n"


async def test_it_is_told_of_client_and_envelope(server: RspamdServer, tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await send(w, Rspamd(server.url, "mx.our.dom"), SPAM)
    lines = [line for line in server.log().splitlines() if "reject" in line and "GTUBE" in line]
    assert any(
        "ip: 127.0.0.1" in line
        and "from: <ann@ext.example>" in line
        and "rcpts: <bob@our.dom>" in line
        for line in lines
    ), server.log()


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """Who takes connections, and says nothing."""
    with socket.create_server((HOST, 0)) as listener:
        yield f"http://{HOST}:{listener.getsockname()[1]}"


@pytest.mark.parametrize(("failing", "code"), [("pass", 250), ("defer", 451)])
@pytest.mark.parametrize("way", ["unreachable", "slow"])
async def test_one_that_does_not_answer_lets_mail_pass_or_wait(
    tmp_path: Path, failing: str, code: int, way: str
) -> None:
    with silent() as url:
        where = url if way == "slow" else f"http://{HOST}:1"
        async with world(tmp_path) as w:
            filter = Rspamd(where, "mx.our.dom", seconds=0.1)
            reply, told = await send(w, filter, MESSAGE, failing)
            assert reply.code == code
            error = "ConnectError" if way == "unreachable" else "ReadTimeout"
            assert told[0].startswith(f"rspamd=error ({error}: ")


def traced(data: Path, id: str, *options: str) -> str:
    command = [sys.executable, "-m", "smtpproto", "queue", "trace", id, "--data", str(data)]
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [*command, *options], env=env, capture_output=True, text=True, check=True
    ).stdout


async def test_the_story_of_a_refused_message_is_told_by_the_id_in_its_reply(
    server: RspamdServer, tmp_path: Path
) -> None:
    """Its sender's report has our reply: with that he asks us, and we ask `queue trace`."""
    config, data = tmp_path / "smtpproto.toml", tmp_path / "data"
    config.write_text(
        '[[filters]]\nuse = "header"\ndoes = "tag"\n'
        f'[[filters]]\nuse = "rspamd"\nurl = "{server.url}"\n'
    )
    with serving(data, "--config", config) as node:
        with (
            smtplib.SMTP(HOST, node.smtp, timeout=60) as smtp,
            pytest.raises(smtplib.SMTPDataError) as refused,
        ):
            smtp.sendmail("ann@ext.example", ["bob@localhost"], SPAM)
        said = refused.value.smtp_error
        assert isinstance(said, bytes)
        found = re.search(r"This is taken for spam \((\w+)\)$", said.decode())
        assert found
        id = found[1]
        assert node.stop() == 0
        assert f"{id} refused " in "".join(node.lines)  # the log names it, too
    first, second, third = traced(data, id).splitlines()
    assert "judged    127.0.0.1 at content: header=tag (no field Date)" in first
    assert "judged    127.0.0.1 at content: rspamd=refuse (reject, 15 of 15: GTUBE)" in second
    by = "from <ann@ext.example> for <bob@localhost>, 127.0.0.1 by ESMTP"
    assert third.endswith(f" refused   {by}: 554 {said.decode()}")
    told = json.loads(traced(data, id, "--json"))
    assert [each["event"] for each in told["story"]] == ["judged", "judged", "refused"]
    assert told["queue"] is None
