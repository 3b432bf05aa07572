"""The fixtures, in runs of pytest like those of their users."""

import subprocess
import sys
from pathlib import Path

import pytest

import smtpproto.testing.signing  # else each run below would load all of it anew

pytest_plugins = ["pytester"]

SOURCE = Path(smtpproto.__file__).parents[1]


#: Loads it whether or not it is installed.
PLUGIN = ("-p", "pytest_smtpproto")


def run(pytester: pytest.Pytester, *args: str, **outcomes: int) -> pytest.RunResult:
    """Run what was written."""
    result = pytester.runpytest_inprocess(*PLUGIN, "--strict-markers", "-W", "error", *args)
    result.assert_outcomes(**outcomes)
    return result


def test_any_kind_of_test_can_have_a_server(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio, smtplib, unittest
        import pytest
        from smtpproto import Envelope

        ENVELOPE = Envelope("ann@example.org", ["bob@example.net"])

        def test_blocking(smtp_server):
            with smtplib.SMTP(smtp_server.host, smtp_server.port) as session:
                session.sendmail("ann@example.org", ["bob@example.net"], "Subject: 1\\n\\n")
            (message,) = smtp_server.wait_for()
            assert message.message["Subject"] == "1"

        def test_each_test_has_its_own(smtp_server):
            assert smtp_server.messages == []

        def test_blocking_client(smtp_server, smtp_client):
            assert smtp_client.deliver(ENVELOPE, "Subject: 2\\n\\n").all_accepted
            assert smtp_server.messages[0].message["Subject"] == "2"

        @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
        @pytest.mark.anyio
        async def test_coroutine(smtp_server, smtp_client, anyio_backend):
            async with smtp_client() as client:
                await client.send(ENVELOPE, "Subject: 3\\n\\n")
            (message,) = await smtp_server.arrives()

        def test_several(smtp_server, smtp_servers):
            other = smtp_servers(hostname="other.example")
            other.deliver(ENVELOPE, "Subject: 4\\n\\n")
            assert (len(smtp_server.messages), len(other.messages)) == (0, 1)

        class TestUnit(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _server(self, smtp_server):
                self.server = smtp_server

            def test_unit(self):
                self.assertEqual(self.server.messages, [])
        """
    )
    run(pytester, passed=7)


def test_the_marker_says_how_it_is_to_be(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import smtplib
        import pytest
        from smtpproto import Envelope
        from smtpproto.testing import SOFT, Fault

        ENVELOPE = Envelope("ann@example.org", ["bob@example.net"])
        pytestmark = pytest.mark.smtp_server(tls="starttls", hostname="mx.example")

        @pytest.mark.smtp_server(accounts={"ann": "secret"}, login_required=True)
        def test_tls_and_auth(smtp_server, smtp_client, smtp_authority):
            with smtplib.SMTP("localhost", smtp_server.port) as session:
                session.starttls(context=smtp_authority.client_context())
                session.login("ann", "secret")
                session.sendmail("ann@example.org", ["bob@example.net"], "Subject: 1\\n\\n")
            smtp_client.deliver(ENVELOPE, "Subject: 2\\n\\n", login=("ann", "secret"))
            assert [one.session.identity for one in smtp_server.messages] == ["ann", "ann"]
            assert smtp_server.dialogue[0].endswith("220 mx.example ESMTP")

        @pytest.mark.smtp_server(tls=None, faults=[Fault("RCPT", SOFT, times=1)])
        def test_faults(smtp_server, smtp_client):
            for accepted in False, True:
                result = smtp_client.deliver(ENVELOPE, "Subject: 3\\n\\n")
                assert result.all_accepted is accepted

        def test_one_authority_for_all(smtp_servers, smtp_authority):
            one, other = smtp_servers(tls="starttls"), smtp_servers(tls="implicit")
            assert one.authority is other.authority is smtp_authority
            for server in one, other:
                assert server.deliver(ENVELOPE, "Subject: 4\\n\\n").all_accepted
        """
    )
    run(pytester, passed=3)


def test_what_is_missing_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(smtp_server): smtp_server.wait_for(2, timeout=0.01)")
    result = run(pytester, failed=1)
    result.stdout.fnmatch_lines(["E*0 of 2 messages arrived within 0.01 s", "E*nobody came"])


def test_servers_end_with_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import socket
        import pytest

        seen = []

        def test_that_fails(smtp_servers):
            seen.extend([smtp_servers(), smtp_servers(backend="trio")])
            assert 0

        def test_behind_it():
            for server in seen:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((server.host, server.port))
        """
    )
    run(pytester, passed=1, failed=1)


def test_a_misspelt_option_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.smtp_server(login="required")
        def test_it(smtp_server): ...
        """
    )
    run(pytester, errors=1).stdout.fnmatch_lines(["*unexpected keyword argument 'login'*"])


def test_fixtures_and_marker_are_told_of(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess(*PLUGIN, "--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.smtp_server(*): how the fixture of that name*"])
    result = pytester.runpytest_inprocess(*PLUGIN, "--fixtures")
    for name in "smtp_server", "smtp_servers", "smtp_client", "smtp_authority":
        result.stdout.fnmatch_lines([f"{name}*"])


def test_who_does_not_use_it_does_not_pay_for_it() -> None:
    """pytest loads it in every run, even where coverage is to be measured from the beginning."""
    program = (
        "import sys, pytest, typing, contextlib; before = set(sys.modules); "
        "import pytest_smtpproto; print(*set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {program}"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["pytest_smtpproto"]


def test_it_is_an_entry_point() -> None:
    """Under the name of its module, so that `-p` and a `conftest.py` may name it, too."""
    project = (SOURCE.parent / "pyproject.toml").read_text()
    assert "\n[project.entry-points.pytest11]\n" in project
    assert '\npytest_smtpproto = "pytest_smtpproto"\n' in project
    assert '"src/pytest_smtpproto.py"' in project
