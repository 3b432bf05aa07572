"""A node in several processes: it is one to its clients, its operator, and whoever scrapes it."""

import json
import os
import signal
import smtplib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from smtpproto.cli.shares import Share, Spools, holds_mail, spools_in, stories_in
from smtpproto.core.command import Mail, Rcpt
from smtpproto.relay import SQLiteSpool
from smtpproto.relay.accounts.guessing import Guessing
from tests.cli.conftest import Run
from tests.cli.test_operating import (
    DATA,
    METRICS,
    Lines,
    ask,
    both_backends,
    hang_up,
    logging_json,
    numbers,
    started,
)
from tests.cli.test_serve import PATIENCE

#: So many sessions at a time that they will not all come to one process.
MANY = 24


def workers_of(node: Lines) -> set[int]:
    """Return the processes that have a spool in hand."""
    children = Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text()
    return {int(pid) for pid in children.split() if b"spawn_main" in called(pid)}


def called(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


def send_to_all(port: int, *recipients: str) -> None:
    """Send a message in each of many sessions, all of which are open at a time."""
    sessions = [smtplib.SMTP("127.0.0.1", port, "client.example", PATIENCE) for _ in range(MANY)]
    for session in sessions:
        session.sendmail("ann@far.example", recipients, "Subject: Hi\r\n\r\nHi\r\n")
    for session in sessions:
        session.quit()


def wait_until(node: Lines, condition: Callable[[], bool]) -> None:
    """Look again and again; not for ever, as a node that takes too long is killed."""
    while not condition():
        assert node.process.poll() is None
        time.sleep(0.05)


def listed(cli: Run, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cli("queue", "list", "--json", *options).stdout)
    return found


@pytest.fixture
def file() -> Path:
    path = Path("smtp.toml")
    path.write_text(f"workers = 2\n{METRICS}")
    return path


@both_backends
def test_mail_of_all_processes_is_one_queue(cli: Run, file: Path, backend: str) -> None:
    with logging_json("--config", file, "--backend", backend) as node:
        assert len(workers_of(node)) == 2
        send_to_all(node.port(), "bob@our.example", "you@held.example")
        node.until_all(accepted=MANY, delivered=MANY, held=MANY)
        assert numbers(ask(node, "/metrics")[1])["smtpproto_queue_messages"] == MANY
        found = listed(cli)
        node.end()
    ids = [each["id"] for each in found]
    assert len(ids) == MANY
    assert ids == sorted(ids)
    assert len(list(DATA.glob("mail/our.example/bob/new/*"))) == MANY
    for share in Share(0), Share(1):  # both took some
        assert anyio.run(holds_mail, share.spool(DATA))
    first, last = ids[0], ids[-1]
    story = json.loads(cli("queue", "trace", last, "--json").stdout)
    events = sorted(told["event"] for told in story["story"])
    assert events == ["accepted", "delivered", "held"]
    assert story["queue"]["id"] == last
    assert "Subject: Hi" in cli("queue", "show", first).stdout
    for id in first, last:
        assert cli("queue", "delete", id).exit_code == 0
    for story_file in stories_in(DATA):  # each has what was done to its own
        told = [json.loads(line) for line in story_file.read_text().splitlines()]
        its = {each["id"] for each in told if each["event"] == "accepted"}
        assert {each["id"] for each in told if each["event"] == "intervened"} == its & {first, last}
    assert [each["id"] for each in listed(cli)] == ids[1:-1]
    moved = cli("queue", "retry", "--domain", "held.example", "--yes", "--json").stdout
    assert json.loads(moved) == {"recipients": MANY - 2}
    checked = json.loads(cli("queue", "check", "--json").stdout)
    assert (checked["messages"], checked["sound"]) == (MANY - 2, True)


@both_backends
def test_one_that_is_killed_comes_back_with_its_mail(cli: Run, file: Path, backend: str) -> None:
    with logging_json("--config", file, "--backend", backend) as node:
        before = workers_of(node)
        send_to_all(node.port(), "you@held.example")
        node.until_all(accepted=MANY, held=MANY)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_until(node, lambda: len(workers_of(node) - {victim}) == 2)
        wait_until(node, lambda: ask(node, "/ready")[0] == 200)
        send_to_all(node.port(), "you@held.example")
        wait_until(node, lambda: len(listed(cli)) == 2 * MANY)
        node.process.terminate()
        assert node.process.wait(PATIENCE) == 0
    assert len(listed(cli)) == 2 * MANY


def test_limits_are_those_of_the_whole_node_and_outlive_its_being_killed(file: Path) -> None:
    limit = '[[limits]]\nwhat = "messages"\nper = "network"\nmost = 5\nin = "1 d"\n'
    file.write_text(file.read_text() + limit)
    replies: list[int] = []
    for many in (MANY, 1):
        with logging_json("--config", file) as node:
            before = workers_of(node)
            port = node.port()
            sessions = [
                smtplib.SMTP("127.0.0.1", port, "client.example", PATIENCE) for _ in range(many)
            ]
            for session in sessions:
                try:
                    session.sendmail("ann@far.example", "you@held.example", "Hi\r\n")
                    replies.append(250)
                except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
                    replies.append(error.smtp_code)
            for pid in (node.process.pid, *before):
                os.kill(pid, signal.SIGKILL)
            for session in sessions:
                session.close()
    assert replies[:5] == [250] * 5
    assert set(replies[5:]) <= {450, 452}
    assert len(replies) == MANY + 1


def test_mail_of_a_process_that_is_no_more_is_delivered(cli: Run, file: Path) -> None:
    with logging_json("--config", file) as node:
        send_to_all(node.port(), "you@held.example")
        node.until_all(accepted=MANY, held=MANY)
        node.end()
    alone = Path("alone.toml")
    alone.write_text(METRICS.replace('via = "hold"', 'via = "discard"'))
    there = len(listed(cli))
    with logging_json("--config", alone) as node:
        assert cli("queue", "retry").exit_code == 0
        wait_until(node, lambda: not listed(cli))
        node.process.terminate()
        assert node.process.wait(PATIENCE) == 0
    assert there == MANY


@both_backends
def test_a_hangup_is_for_all_of_them(file: Path, backend: str) -> None:
    with logging_json("--config", file, "--backend", backend) as node:
        file.write_text(file.read_text().replace('"our.example"]', '"new.example"]'))
        hang_up(node, "reloaded")
        sessions = [
            smtplib.SMTP("127.0.0.1", node.port(), "client.example", PATIENCE) for _ in range(MANY)
        ]
        for session in sessions:
            session.ehlo()
            session.mail("ann@far.example")
        answers = {session.rcpt("bob@new.example")[0] for session in sessions}
        for session in sessions:
            session.close()
        node.process.terminate()
        assert node.process.wait(PATIENCE) == 0
    assert 250 in answers


def test_old_settings_that_stay_are_told_by_each_with_its_name(file: Path) -> None:
    """As each reads for itself: one that is not as the others are could not hide."""
    with logging_json("--config", file) as node:
        node.port()
        file.write_text("nonsense = 3\n" + file.read_text())
        node.process.send_signal(signal.SIGHUP)
        told = [node.until("log")[-1] for _ in range(2)]
        node.process.terminate()
        assert node.process.wait(PATIENCE) == 0
    assert {each["process"] for each in told} == {"worker 1", "worker 2"}
    assert all("the old settings stay: smtp.toml: nonsense" in each["message"] for each in told)


def test_a_certificate_of_no_use_is_told_once(file: Path) -> None:
    (DATA / "tls").mkdir(parents=True)
    for name in "cert.pem", "key.pem":
        (DATA / "tls" / name).write_text("none")
    code, said = started("--config", str(file))
    assert code == 1
    assert said == [
        "smtpproto: smtpproto-data/tls/cert.pem has no certificate in PEM that can be read"
    ]


def test_what_cannot_begin_says_why(file: Path) -> None:
    """By the process that could not; the others end, and so does the node."""
    DATA.mkdir()
    (DATA / "spool-2").write_text("in the way")
    code, said = started("--config", str(file))
    assert code == 1
    assert said[0].startswith("smtpproto: spool smtpproto-data/spool-2: ")
    assert said[1:] == ["smtpproto: a worker ended with 1 before it was ready"]


def test_what_one_of_them_cannot_use_is_said_by_it(file: Path) -> None:
    """In words, also where it is found later than the spool."""
    accounts = "accounts = 'nobody'\n"
    file.write_text(accounts + file.read_text())
    code, said = started("--config", str(file))
    assert code == 1
    assert "smtpproto: cannot read the accounts in nobody: No such file or directory" in said
    assert said[-1] == "smtpproto: a worker ended with 1 before it was ready"


# The parts


def test_limits_are_shared_out_and_never_none() -> None:
    assert [Share(0, 3).each(many) for many in (1, 3, 4, 100)] == [1, 1, 2, 34]
    alone, one_of_four = Share().guard(), Share(1, 4).guard()
    assert alone.by_account == Guessing().by_account
    assert one_of_four.by_account.failures == -(-Guessing().by_account.failures // 4)
    assert one_of_four.by_account.each == 4 * Guessing().by_account.each


def test_spools_are_found_by_their_names(tmp_path: Path) -> None:
    assert spools_in(tmp_path / "none") == []
    for name in "spool", "spool-2", "spool-10", "spool-x", "mail", "story.jsonl":
        (tmp_path / name).mkdir()
    found = spools_in(tmp_path)
    assert [share.number for share in found] == [0, 1, 9]
    assert [share.spool(tmp_path).name for share in found] == ["spool", "spool-2", "spool-10"]


@pytest.mark.anyio
async def test_all_spools_are_read_as_one(tmp_path: Path) -> None:
    """Messages by their age, wherever they are; what is done to one is done where it is."""
    ids: list[str] = []
    for turn in range(6):
        async with SQLiteSpool.open(Share(turn % 3).spool(tmp_path)) as spool:
            async with spool.receive() as incoming:
                await incoming.write(b"x\r\n" * turn)
                mail, rcpt = Mail("a@example.org"), Rcpt("b@example.org")
                await incoming.commit(mail, [rcpt], now=1.0 + turn, origin="test")
            ids.append(incoming.id)
    async with Spools.open(tmp_path) as spools:
        assert [entry.id async for entry in spools.entries()] == ids
        assert [entry.octets async for entry in spools.entries()] == [3 * n for n in range(6)]
        found = await spools.get(ids[4])
        assert found is not None
        assert found.octets == 12
        assert b"".join([chunk async for chunk in spools.content(ids[5])]) == b"x\r\n" * 5
        assert await spools.get("none") is None
        assert [chunk async for chunk in spools.content("none")] == []
        assert await spools.hold(ids[1], "why") == 1
        assert await spools.retry(None, 9.0) == 5
        assert await spools.delete(ids[2])
        assert not await spools.delete(ids[2])
        assert [entry.id async for entry in spools.entries()] == [*ids[:2], *ids[3:]]
