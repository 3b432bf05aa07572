"""`demo`: what it prints is what it promises to show."""

import re
import subprocess
from collections import defaultdict

import pytest

from tests.cli.conftest import Spawn

HOPS = ("mail program", "out.sender.example", "relay.example")
SERVERS = ("out.sender.example", "relay.example", "mx.recipient.example")
A_MINUTE = 60


def printed(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=A_MINUTE)
    assert process.returncode == 0, err
    assert err == ""
    return str(out)


def sayings(text: str) -> dict[str, list[str]]:
    """Who said what, from the lines with a bar between the two."""
    found: dict[str, list[str]] = defaultdict(list)
    for who, said in re.findall(r"^ *([a-z][a-z. ]+[a-z]) │ (.*)$", text, re.MULTILINE):
        found[who].append(said)
    return found


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_demo_shows_the_whole_way(spawn: Spawn, backend: str) -> None:
    text = printed(spawn("demo", "--backend", backend))
    told = sayings(text)
    assert set(told) == {"mail program", *SERVERS}

    # Each hop's dialogue: TLS, then the envelope, over the same session.
    for hop, server in zip(HOPS, SERVERS, strict=True):
        dialogue = [line for line in told[hop] if line.startswith(("C: ", "S: "))]
        steps = [
            f"S: 220 {server} ESMTP",
            "C: STARTTLS",
            "S: 220 2.0.0 Ready to start TLS",
            *(["C: AUTH PLAIN ****"] if hop == "mail program" else []),
            "C: MAIL FROM:<alice@sender.example>",
            "C: RCPT TO:<bob@recipient.example> NOTIFY=SUCCESS,FAILURE,DELAY",
            "C: RCPT TO:<nobody@recipient.example> NOTIFY=SUCCESS,FAILURE,DELAY",
            "C: BDAT ",
            "S: 250 2.0.0 Accepted as",
            "C: QUIT",
        ]
        rest = iter(dialogue)
        for step in steps:
            assert any(line.startswith(step) for line in rest), f"{hop}: {step}"
    assert "wonderland" not in text

    # The state of the message: stored, waiting for the server that is down, delivered, refused.
    relay = "\n".join(told["relay.example"])
    ids = [
        re.findall(r"^● (\w{15}) in the spool, for <bob", "\n".join(told[s]), re.MULTILINE)[0]
        for s in SERVERS
    ]
    assert re.search(
        rf"^… {ids[1]} <bob@recipient.example>: .*mx.recipient.example is down; again in 2 s$",
        relay,
        re.MULTILINE,
    )
    delivered = f"✓ {ids[1]} <bob@recipient.example> → mx.recipient.example:25"
    assert relay.index("is down; again in") < relay.index(delivered)
    assert f"✗ {ids[1]} <nobody@recipient.example>: 550 5.1.1 " in relay
    # Three reports come back: two from the relay, and one from the last server.
    told_of = r"● \w{15} in the spool, a report on it to <alice@sender.example>"
    assert len(re.findall(told_of, relay)) == 2
    assert len(re.findall(told_of, "\n".join(told["mx.recipient.example"]))) == 1
    home = [line for line in told["out.sender.example"] if "→ mailbox alice@sender.example" in line]
    assert len(home) == 3
    assert any("→ mailbox bob@recipient.example" in line for line in told["mx.recipient.example"])

    # The message that arrived, and its way: three hops, in order, by the ids they gave it.
    mailbox, _, way = text.partition("The way it took, by its Received lines:\n")
    assert "bob's mailbox" in mailbox
    assert "│ Return-Path: <alice@sender.example> " in mailbox
    assert mailbox.count("│ Received: from ") == 3
    assert "this has come through three servers." in mailbox
    branches = way.partition("\n\n")[0].splitlines()
    assert branches[0] == "alice@sender.example (mail program)"
    hops = [re.fullmatch(r" *└── (\S+) +with (\S+) +id (\w+)", line) for line in branches[1:4]]
    assert [hop.groups() for hop in hops if hop] == list(
        zip(SERVERS, ["ESMTPSA", "ESMTPS", "ESMTPS"], ids, strict=True)
    )
    assert branches[4].strip() == "└── bob@recipient.example (mailbox)"

    # The reports that came back: the delay is the first.
    late, *others = way.split("alice's mailbox: ")[1:]
    assert late.startswith("Mail is delayed")
    assert "<bob@recipient.example>" in late
    assert "mx.recipient.example is down" in late
    delivered, failed = sorted(others, key=lambda report: "could not be" in report)
    assert delivered.startswith("Mail was delivered")
    assert "This is the mail server at mx.recipient.example." in delivered
    assert "<bob@recipient.example>" in delivered
    assert "<nobody@recipient.example>" not in delivered
    assert failed.startswith("Mail could not be delivered")
    assert "<nobody@recipient.example>" in failed
    assert "550 5.1.1" in failed
    assert text.endswith("Done: one message delivered, three reports returned.\n")


def test_the_demo_where_there_is_but_ascii(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    text = printed(spawn("demo"))
    assert text.isascii()
    assert "relay.example | ~ " in text
    assert "`-- out.sender.example" in text
