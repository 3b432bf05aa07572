"""A guard is asked before a secret is looked at, and told how it ended (RFC 4954 §6, §9)."""

from base64 import b64encode
from typing import Any

import anyio
import pytest

from smtpproto.client import Client, Tls
from smtpproto.core.reply import Reply
from smtpproto.core.sasl import (
    AuthenticationError,
    Credentials,
    Lookup,
    Mechanism,
    ScramKeys,
    Verify,
    VerifyToken,
)
from smtpproto.mechanisms import LOGIN, OAUTHBEARER, PLAIN, SCRAM_SHA_256
from smtpproto.mechanisms.scram import derive_keys
from smtpproto.result import LoginError
from smtpproto.server import LoginGuard, Server, Session

from .wire import HOST, connect
from .world import Box, running

pytestmark = pytest.mark.anyio

LOCKED = Reply(454, "4.7.0", "Not so fast")
KEYS = derive_keys("horse", b"salt", iterations=4096)


class Everybody:
    """Knows ann and her password, her keys and her token; keeps what it was asked."""

    stored = ("SCRAM-SHA-256",)

    def __init__(self, story: list[str]) -> None:
        self.story = story

    async def verify(self, session: Session, question: Verify) -> bool:
        self.story.append("verify")
        return (question.username, question.password) == ("ann", "horse")

    async def lookup(self, session: Session, question: Lookup) -> ScramKeys | None:
        self.story.append("lookup")
        return KEYS if question.username == "ann" else None

    async def verify_token(self, session: Session, question: VerifyToken) -> str | None:
        self.story.append("token")
        return "ann" if question.token == "horse" else None


class Guard:
    def __init__(self, story: list[str], refusal: Reply | None = None) -> None:
        self.story = story
        self.refusal = refusal

    async def admit(self, session: Session, username: str) -> Reply | None:
        self.story.append(f"admit {username}")
        return self.refusal

    async def ended(self, session: Session, username: str, *, success: bool | None) -> float:
        assert session.identity is None
        how = "unknown" if success is None else "in" if success else "out"
        self.story.append(f"{username} {how}")
        return 0.0


def server(box: Box, story: list[str], guard: LoginGuard, **settings: Any) -> Server:
    settings = {"failed_login_delay": 0.0, "authenticator": Everybody(story), **settings}
    return Server(box, guard=guard, plaintext_auth="always", **settings)


async def log_in(port: int, mechanism: Mechanism, secret: str) -> None:
    login = Credentials("ann", secret, token=secret, host=HOST, port=port)
    async with Client(
        HOST, port, tls=Tls.NONE, login=login, login_in_clear=True, mechanisms=[mechanism]
    ):
        pass


@pytest.mark.parametrize(
    ("mechanism", "asked"),
    [(PLAIN, "verify"), (LOGIN, "verify"), (SCRAM_SHA_256, "lookup"), (OAUTHBEARER, "token")],
    ids=lambda value: getattr(value, "name", value),
)
async def test_it_hears_of_every_way_to_prove_a_secret(
    box: Box, mechanism: Mechanism, asked: str
) -> None:
    story: list[str] = []
    async with running(server(box, story, Guard(story))) as port:
        await log_in(port, mechanism, "horse")
        assert story == ["admit ann", asked, "ann in"]
        story.clear()
        with pytest.raises(LoginError):
            await log_in(port, mechanism, "mouse")
        assert story == ["admit ann", asked, "ann out"]


@pytest.mark.parametrize(
    "mechanism", [PLAIN, SCRAM_SHA_256, OAUTHBEARER], ids=lambda each: each.name
)
async def test_who_is_not_admitted_hears_why_and_no_secret_is_looked_at(
    box: Box, mechanism: Mechanism
) -> None:
    story: list[str] = []
    async with running(server(box, story, Guard(story, LOCKED))) as port:
        with pytest.raises(LoginError, match=r"454 4\.7\.0 Not so fast"):
            await log_in(port, mechanism, "horse")
    assert story == ["admit ann"]


async def test_a_login_that_is_cancelled_has_failed(box: Box) -> None:
    story: list[str] = []
    async with running(server(box, story, Guard(story))) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO client.example")
        first = b64encode(b"n,,n=ann,r=abc").decode()
        assert (await wire.ask(f"AUTH SCRAM-SHA-256 {first}")).startswith("334")
        assert (await wire.ask("*")).startswith("501")
    assert story == ["admit ann", "lookup", "ann out"]


async def test_the_wait_that_it_asks_for_is_waited(box: Box) -> None:
    # Not by the clock: the answer comes when the wait is over, and another session goes on.
    story: list[str] = []
    waiting = anyio.Event()

    class Slow(Guard):
        async def ended(self, session: Session, username: str, *, success: bool | None) -> float:
            waiting.set()
            return 3600.0

    async with running(server(box, story, Slow(story))) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO client.example")
        wrong = b64encode(b"\0ann\0mouse").decode()
        await wire.say(f"AUTH PLAIN {wrong}")
        await waiting.wait()
        with anyio.move_on_after(0.2) as waited:
            await wire.reply()
        assert waited.cancelled_caught
        async with await connect(port) as other:
            assert (await other.reply()).startswith("220")


async def test_a_guard_that_fails_is_a_temporary_failure(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    story: list[str] = []

    class Broken(Guard):
        async def admit(self, session: Session, username: str) -> Reply | None:
            raise RuntimeError("the database said something private")

    async with running(server(box, story, Broken(story))) as port:
        with pytest.raises(LoginError, match=r"454 4\.7\.0 Temporary failure"):
            await log_in(port, PLAIN, "horse")
    assert story == []
    assert "something private" in caplog.text


@pytest.mark.rfc("4954 §6 454-is-temporary-failure")
@pytest.mark.parametrize("error", [AuthenticationError(LOCKED), RuntimeError()])
async def test_what_the_authenticator_cannot_say_is_no_failure(box: Box, error: Exception) -> None:
    story: list[str] = []

    class Busy(Everybody):
        async def verify(self, session: Session, question: Verify) -> bool:
            raise error

    server_ = server(box, story, Guard(story), authenticator=Busy(story))
    async with running(server_) as port:
        with pytest.raises(LoginError, match="454"):
            await log_in(port, PLAIN, "horse")
    assert story == ["admit ann", "ann unknown"]


async def test_a_guard_that_cannot_take_note_keeps_nobody_out(box: Box) -> None:
    story: list[str] = []

    class Broken(Guard):
        async def ended(self, session: Session, username: str, *, success: bool | None) -> float:
            raise RuntimeError

    async with running(server(box, story, Broken(story))) as port:
        await log_in(port, PLAIN, "horse")
        with pytest.raises(LoginError, match="535"):
            await log_in(port, PLAIN, "mouse")


async def test_an_authenticator_may_refuse_in_words_of_its_own(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    story: list[str] = []

    class Moved(Everybody):
        async def verify(self, session: Session, question: Verify) -> bool:
            raise AuthenticationError(Reply(534, "5.7.9", "SCRAM only, please"))

    server_ = server(box, story, Guard(story), authenticator=Moved(story))
    async with running(server_) as port:
        with pytest.raises(LoginError, match=r"534 5\.7\.9 SCRAM only"):
            await log_in(port, PLAIN, "horse")
    assert story == ["admit ann", "ann out"]
    assert caplog.text == ""
