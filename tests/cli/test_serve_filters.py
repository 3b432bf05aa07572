"""`serve` with filters and limits, as a process: what it shows, and what outlives a restart."""

import re
import smtplib
from pathlib import Path

import pytest

from tests.relay.process import Served, serving

SETTINGS = """\
[[filters]]
use = "greylist"
delay = "1 h"

[[limits]]
what = "messages"
per = "account"
most = 2
in = "1 d"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "smtpproto.toml"
    file.write_text(SETTINGS)
    return file


def submit(node: Served, *, rcpt: str = "you@localhost") -> str:
    """Submit a message by the node's own login; return the last reply."""
    user, password = node.login
    with smtplib.SMTP("127.0.0.1", node.submission, timeout=60) as smtp:
        smtp.starttls()
        smtp.login(user, password)
        code, text = smtp.mail(f"{user}@localhost")
        if code == 250:
            code, text = smtp.rcpt(rcpt)
        if code == 250:
            code, text = smtp.data(b"Subject: hello\r\n\r\nwords\r\n")
        return f"{code} {text.decode()}"


def knock(node: Served) -> str:
    with smtplib.SMTP("127.0.0.1", node.smtp, timeout=60) as smtp:
        smtp.ehlo("client.example")
        smtp.mail("ann@ext.example")
        code, text = smtp.rcpt("you@localhost")
        return f"{code} {text.decode()}"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_limits_and_greylisting_hold_over_a_restart(
    config: Path, tmp_path: Path, backend: str
) -> None:
    data = tmp_path / "data"
    with serving(data, "--config", config, backend=backend) as node:
        shown = "".join(node.lines)
        assert re.search(r"1\. greylist\n.*2\. limits\n", shown)
        assert re.search(r"at most +2 messages in 1 day per account", shown)
        assert submit(node).startswith("250")
        assert submit(node, rcpt="no-one@@").startswith("5")  # not counted
        first = re.search(r"in (\d+) seconds", knock(node))
        assert first
        node.kill()
    with serving(data, "--config", config, backend=backend) as node:
        assert submit(node).startswith("250")
        again = re.search(r"450 4.7.1 Greylisted.* in (\d+) seconds", knock(node))
        assert again
        assert int(again[1]) <= int(first[1])
        node.kill()
    with serving(data, "--config", config, backend=backend) as node:
        refused = submit(node)
        assert refused.startswith("452 4.7.1 Too much mail: 2 messages in 1 day is the limit")
        wait = re.search(r"come again in (\d+) seconds", refused)
        assert wait
        assert 0 < int(wait[1]) <= 2 * 86400


def test_memory_that_cannot_be_used_is_explained(config: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "memory.db").write_bytes(b"no database at all, and long enough to say so" * 50)
    with pytest.raises(pytest.fail.Exception) as caught:
        Served(data, "--listen", "127.0.0.1:0", "--submission", "127.0.0.1:0", "--config", config)
    assert "cannot use" in str(caught.value)
    assert "memory.db: file is not a database" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_without_filters_nothing_of_it_is_there(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as node:
        assert "kept out" not in "".join(node.lines)
        assert submit(node).startswith("250")
    assert not (tmp_path / "data" / "memory.db").exists()
