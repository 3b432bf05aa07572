"""Fixtures for pytest: a running server, several of them, and a client.

::

    smtp_server    a SmtpServer, with the options of the marker `smtp_server`
    smtp_servers   makes others: smtp_servers(tls="starttls", accounts={"ann": "secret"})
    smtp_client    a client of smtp_server: deliver(envelope, content) in a blocking test,
                   `async with smtp_client() as client` in a coroutine

The servers run in threads of their own, so tests of any kind can use them: blocking ones, those of
anyio's plugin, of pytest-asyncio, of pytest-trio. pytest loads this module in every run, so it
loads nothing else before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from smtpproto.testing.certificate import Authority
    from smtpproto.testing.server import SmtpClient, SmtpServer

__all__ = [
    "SmtpServers",
    "pytest_configure",
    "smtp_authority",
    "smtp_client",
    "smtp_server",
    "smtp_servers",
]


class SmtpServers(Protocol):
    """What the fixture `smtp_servers` is."""

    def __call__(self, **options: Any) -> SmtpServer:
        """Start a server with SmtpServer's options; it is stopped when the test is over."""
        ...


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marker."""
    config.addinivalue_line(
        "markers",
        "smtp_server(**options): how the fixture of that name is to be, by the options of "
        "smtpproto.testing.SmtpServer: tls, accounts, login_required, faults, …",
    )


@pytest.fixture(scope="session")
def smtp_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whoever signs the certificates of this run's servers: `ca_file`, `client_context()`."""
    from smtpproto.testing.certificate import Authority  # noqa: PLC0415 - see above

    return Authority(tmp_path_factory.mktemp("smtp"))


@pytest.fixture
def smtp_servers(request: pytest.FixtureRequest) -> Iterator[SmtpServers]:
    """Makes servers that run until the test is over."""
    from smtpproto.testing.server import SmtpServer  # noqa: PLC0415 - see above

    with ExitStack() as running:

        def start(**options: Any) -> SmtpServer:
            if options.get("tls") is not None and "authority" not in options:
                options["authority"] = request.getfixturevalue("smtp_authority")
            return running.enter_context(SmtpServer(**options))

        yield start


@pytest.fixture
def smtp_server(request: pytest.FixtureRequest, smtp_servers: SmtpServers) -> SmtpServer:
    """A running server that keeps what it is sent, as the marker `smtp_server` wants it."""
    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("smtp_server"))):
        options |= marker.kwargs  # the nearest has the last word
    return smtp_servers(**options)


@pytest.fixture
def smtp_client(smtp_server: SmtpServer) -> SmtpClient:
    """A client of `smtp_server`."""
    from smtpproto.testing.server import SmtpClient  # noqa: PLC0415 - see above

    return SmtpClient(smtp_server)
