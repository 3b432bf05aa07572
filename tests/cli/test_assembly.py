"""What settings come to: each key reaches the relay."""

from pathlib import Path
from typing import Any

import pytest

from smtpproto.cli.assembly import read_outside, relay_of
from smtpproto.cli.config import build, parse
from smtpproto.cli.node import ensure_certificate
from smtpproto.cli.shares import Share
from smtpproto.relay import Relay, Schedule, SQLiteSpool

pytestmark = pytest.mark.anyio


async def relay(folder: Path, text: str) -> Relay:
    chosen = build(parse(text, "smtp.toml", folder))
    async with SQLiteSpool.open(chosen.data / "spool") as spool:
        certificate = ensure_certificate(chosen.data)
        outside = read_outside(chosen)
        return relay_of(
            chosen,
            spool,
            certificate,
            outside,
            login=None,
            accounts=None,
            observe=lambda event: None,
            share=Share(),
        )


@pytest.mark.parametrize(
    ("text", "place", "value"),
    [
        ("", "keep_bcc", False),
        ("keep-bcc = true", "keep_bcc", True),
        ("", "least_by", None),
        ("least-by = '5 min'", "least_by", 300),
        ("", "longest_hold", 30 * 86400),
        ("longest-hold = '7 d'", "longest_hold", 7 * 86400),
        ("longest-hold = 'none'", "longest_hold", 0),
        ("", "schedule", Schedule()),
        ("lifetime = '2 d'\nnotice = '1 h'", "schedule", Schedule(lifetime=172800, notice=3600)),
        ("", "limits.recipients", 1000),
        ("max-recipients = 100", "limits.recipients", 100),
        ("sessions-in = 7", "connections.most", 7),
        ("sessions-in-each = 3", "connections.most_per_network", 3),
        ("sessions-out = 7", "sessions", 7),
        ("sessions-out-each = 3", "sessions_each", 3),
        ("", "check_senders", False),
        ("listen = ':25'", "check_senders", True),
        ("listen = ':25'\ncheck-senders = false", "check_senders", False),
        ("check-senders = true", "check_senders", True),
    ],
)
async def test_a_key_reaches_the_relay(
    tmp_path: Path, text: str, place: str, value: object
) -> None:
    found: Any = await relay(tmp_path, text)
    for name in place.split("."):
        found = getattr(found, name)
    assert found == value


async def test_routes_have_the_schedule_of_all_mail_where_they_say_nothing(tmp_path: Path) -> None:
    text = 'first-retry = 60\n[[routes]]\nvia = "mx"\nlifetime = "1 d"\n'
    chosen = build(parse(text, "smtp.toml", tmp_path))
    (rule,) = read_outside(chosen).routes.rules
    assert rule.schedule == Schedule(first=60, lifetime=86400)
