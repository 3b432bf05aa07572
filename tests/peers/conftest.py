"""Peers as fixtures; they stop when the test ends, the last started first."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from .programs import PostfixServer, SmtpSink, postfix, smtp_sink

MAILBOXES = ("alice@example.test", "bob@example.test")


@pytest.fixture
def peers() -> Iterator[contextlib.ExitStack]:
    """Start any of them: `peers.enter_context(postfix(relay_to=port))`."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def sink(peers: contextlib.ExitStack) -> SmtpSink:
    """Accepts everything and keeps it for us to read."""
    return peers.enter_context(smtp_sink())


@pytest.fixture
def next_hop(peers: contextlib.ExitStack) -> PostfixServer:
    """A Postfix that delivers to alice and bob at example.test, and relays nothing."""
    return peers.enter_context(postfix(mailboxes=MAILBOXES))


@pytest.fixture
def smart_host(peers: contextlib.ExitStack) -> Callable[[int], PostfixServer]:
    """`smart_host(port)`: a Postfix that takes any mail and sends it on to that port."""
    return lambda port: peers.enter_context(postfix(relay_to=port))
